//! Counts what becomes of a service's TCP connections, from the frames on one link alone: for tests of what Splitter counts.
//!
//! The link is the one of a one-arm node in `nat` mode, seen from its other end, so that each segment passes twice: between client and service address, and
//! between NAT address and backend. What a connection does is read from the first kind, as its client sees it. Of the second kind it's learned which backend has
//! it, and when that answered. The two are known for the same connection's by the client's initial sequence number, which Splitter leaves alone.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    lab::{Capture, Direction, Frame, LabError, Namespace, Result},
    packet::{ACK, FIN, RST, SYN},
};

/// What was seen of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Attempts.
    pub opened: u64,
    /// Handshakes that the client completed.
    pub completed: u64,
    /// Attempts that a RST answered.
    pub refused: u64,
    /// Attempts that the client reset.
    pub abandoned: u64,
    /// Connections reset by the backend.
    pub reset_by_backend: u64,
    /// Connections reset by the client.
    pub reset_by_client: u64,
    /// Connections that both ends closed.
    pub closed: u64,
    /// SYNs sent again.
    pub retransmitted: u64,
    /// From the first SYN to the backend's first answer, both as they were about to enter the node.
    pub handshakes: Vec<Duration>,
}

/// An observer at work.
#[derive(Debug)]
pub struct Observer {
    capture: Capture,
    table: Arc<Mutex<Table>>,
}

/// What an observer knows.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By backend.
    pub backends: BTreeMap<SocketAddr, Seen>,
    /// Connections that live.
    pub live: u64,
    /// Attempts of which nothing has become yet.
    pub pending: u64,
    /// Segments that fit no rule: a test that counts exactly checks that there were none.
    pub odd: u64,
    /// Frames that were lost to the observer: as above.
    pub lost: u32,
}

#[derive(Debug)]
struct Table {
    service: SocketAddr,
    /// By client.
    connections: HashMap<SocketAddr, Connection>,
    /// The clients of attempts that are not answered, by initial sequence number.
    attempts: HashMap<u32, SocketAddr>,
    backends: BTreeMap<SocketAddr, Seen>,
    odd: u64,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    sequence: u32,
    begun: Duration,
    backend: Option<SocketAddr>,
    phase: Phase,
    /// FIN of client and backend.
    fins: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begun,
    Answered,
    Completed,
    Over,
}

/// A TCP segment in IPv4.
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Observer {
    /// Watches a service's traffic on a device (the node's peer), for at most so long.
    ///
    /// # Errors
    /// No such device, or no privilege.
    pub fn start(namespace: &Namespace, device: &str, service: SocketAddr, limit: Duration) -> Result<Self> {
        let (connections, attempts, backends) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        let table = Arc::new(Mutex::new(Table { service, connections, attempts, backends, odd: 0 }));
        let shared = Arc::clone(&table);
        // Each frame is looked at and none is kept.
        let look = move |frame: &Frame| {
            shared.lock().unwrap_or_else(PoisonError::into_inner).look(frame);
            false
        };
        Ok(Self { capture: Capture::start(namespace, device, usize::MAX, limit, look)?, table })
    }

    /// Ends it, with all that has passed until now.
    ///
    /// # Errors
    /// The device went away.
    pub fn stop(self) -> Result<Observed> {
        let lost = self.capture.stop()?.lost;
        let table = Arc::into_inner(self.table).ok_or_else(|| LabError::Unexpected {
            what: "an observer's end".into(),
            why: "its capture still has the table".into(),
        })?;
        let Table { connections, backends, odd, .. } = table.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of = |phases: &[Phase]| connections.values().filter(|connection| phases.contains(&connection.phase)).count() as u64;
        let (live, pending) = (of(&[Phase::Completed]), of(&[Phase::Begun, Phase::Answered]));
        Ok(Observed { backends, live, pending, odd, lost })
    }
}

impl Table {
    fn look(&mut self, frame: &Frame) {
        let Some(segment) = segment(&frame.bytes) else { return };
        let is_syn = segment.flags & (SYN | ACK) == SYN;
        match frame.direction {
            Direction::Out if segment.to == self.service => self.client(&segment, frame.at),
            Direction::In if segment.from == self.service => self.backend(&segment),
            // The node has chosen.
            Direction::In if is_syn => self.chosen(&segment),
            Direction::Out if segment.flags & (SYN | ACK | RST) == SYN | ACK => self.answered(&segment, frame.at),
            Direction::In | Direction::Out => {}
        }
    }

    /// A client's segment, on its way to the service.
    fn client(&mut self, segment: &Segment, at: Duration) {
        let before = self.connections.get_mut(&segment.from);
        if segment.flags & (SYN | ACK | RST | FIN) == SYN {
            match before {
                Some(connection) if connection.phase != Phase::Over => {
                    let again =
                        matches!(connection.phase, Phase::Begun | Phase::Answered) && connection.sequence == segment.sequence;
                    match connection.backend.filter(|_| again) {
                        Some(backend) => self.backends.entry(backend).or_default().retransmitted += 1,
                        None => self.odd += 1,
                    }
                }
                Some(_) | None => {
                    let begun = Connection {
                        sequence: segment.sequence,
                        begun: at,
                        backend: None,
                        phase: Phase::Begun,
                        fins: [false; 2],
                    };
                    self.connections.insert(segment.from, begun);
                    self.attempts.insert(segment.sequence, segment.from);
                }
            }
            return;
        }
        let Some(connection) = before else { return self.odd += 1 };
        let Some(seen) = connection.backend.and_then(|backend| self.backends.get_mut(&backend)) else { return self.odd += 1 };
        if segment.flags & RST != 0 {
            match connection.phase {
                Phase::Begun | Phase::Answered => seen.abandoned += 1,
                Phase::Completed => seen.reset_by_client += 1,
                Phase::Over => {}
            }
            connection.phase = Phase::Over;
            return;
        }
        if connection.phase == Phase::Answered && segment.flags & ACK != 0 {
            connection.phase = Phase::Completed;
            seen.completed += 1;
        }
        connection.ends(0, segment, seen);
    }

    /// The service's segment, on its way to the client.
    fn backend(&mut self, segment: &Segment) {
        let Some(connection) = self.connections.get_mut(&segment.to) else { return self.odd += 1 };
        let Some(seen) = connection.backend.and_then(|backend| self.backends.get_mut(&backend)) else { return self.odd += 1 };
        if segment.flags & RST != 0 {
            match connection.phase {
                // RFC 9293, 3.10.7.3: it acknowledges the SYN, or the client drops it.
                Phase::Begun if segment.flags & ACK == 0 => return,
                Phase::Begun | Phase::Answered => seen.refused += 1,
                Phase::Completed => seen.reset_by_backend += 1,
                Phase::Over => {}
            }
            connection.phase = Phase::Over;
            return;
        }
        if connection.phase == Phase::Begun && segment.flags & (SYN | ACK) == SYN | ACK {
            connection.phase = Phase::Answered;
        }
        connection.ends(1, segment, seen);
    }

    fn chosen(&mut self, segment: &Segment) {
        let Some(connection) = self.attempts.get(&segment.sequence).and_then(|client| self.connections.get_mut(client)) else {
            return;
        };
        if connection.backend.is_none() {
            connection.backend = Some(segment.to);
            self.backends.entry(segment.to).or_default().opened += 1;
        }
    }

    fn answered(&mut self, segment: &Segment, at: Duration) {
        let Some(client) = self.attempts.remove(&segment.acknowledgement.wrapping_sub(1)) else { return };
        let Some(connection) = self.connections.get(&client) else { return };
        if connection.backend == Some(segment.from) {
            self.backends.entry(segment.from).or_default().handshakes.push(at.saturating_sub(connection.begun));
        } else {
            self.odd += 1;
        }
    }
}

impl Connection {
    fn ends(&mut self, side: usize, segment: &Segment, seen: &mut Seen) {
        self.fins[side] |= segment.flags & FIN != 0;
        if self.fins == [true; 2] && self.phase == Phase::Completed {
            self.phase = Phase::Over;
            seen.closed += 1;
        }
    }
}

fn segment(frame: &[u8]) -> Option<Segment> {
    const NETWORK: usize = 14;
    let is_tcp4 = frame.get(12..14)? == [8, 0] && frame.get(NETWORK)? >> 4 == 4 && *frame.get(NETWORK + 9)? == 6;
    if !is_tcp4 {
        return None;
    }
    let transport = NETWORK + usize::from(frame[NETWORK] & 15) * 4;
    let four = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let port = |at: usize| frame.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let end = |address: usize, at: usize| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(four(address)?)), port(at)?));
    Some(Segment {
        from: end(NETWORK + 12, transport)?,
        to: end(NETWORK + 16, transport + 2)?,
        sequence: four(transport + 4)?,
        acknowledgement: four(transport + 8)?,
        flags: *frame.get(transport + 13)?,
    })
}
