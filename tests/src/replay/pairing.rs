//! Which connection a recorded frame belongs to, though the replayed program gave it another NAT port.
//!
//! ```text
//!  recorded   client's opening frame ──► the same at a backend, from port P      answer to P
//!                        │                        │ (same content)                  │
//!  replayed              └──► port Q     P is that client's                         └──► sent on to Q
//! ```
//!
//! What is compared doesn't depend on this: a frame that is taken for another connection's is judged as what it then is.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use crate::{
    oracle::{Mode, Performed, Protocol, World},
    packet::{
        ACK, Mac, SYN, checksum, get_u16,
        parse::{Transport, View, parse},
        put_u16,
    },
};

/// How many datagrams of one content may be under way.
const MOST_ALIKE: usize = 64;

/// A client of a service.
type Client = (usize, SocketAddr);

/// What a frame is known by at the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    /// A SYN, by its sequence number.
    Syn(u32),
    /// A datagram, by its octets.
    Datagram(u64),
}

/// Where a connection went in the replay.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    nat: SocketAddr,
    mac: Mac,
}

/// Knows connections by both their ports.
#[derive(Debug)]
pub(super) struct Pairing<'a> {
    world: &'a World,
    /// Opening frames that were sent, by content; `nat` alone.
    sent: HashMap<(Protocol, bool, Content), VecDeque<Client>>,
    /// The clients behind the recorded NAT ports.
    recorded: HashMap<(Protocol, SocketAddr), Client>,
    chosen: HashMap<Client, Chosen>,
    /// Connections that the replay took to the same backend, and to another.
    pub same: usize,
    pub elsewhere: usize,
}

impl<'a> Pairing<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let (sent, recorded, chosen) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { world, sent, recorded, chosen, same: 0, elsewhere: 0 }
    }

    /// Connections that were opened in the replay.
    pub(super) fn flows(&self) -> usize {
        self.chosen.len()
    }

    /// The frame was replayed, and this became of it.
    pub(super) fn performed(&mut self, frame: &[u8], performed: &Performed) {
        let Some((protocol, client, destination, content)) = read(frame) else { return };
        let Some(index) = self.world.service_at(destination, protocol) else { return };
        let service = &self.world.services[index];
        if let (Some(content), Mode::Nat) = (content, service.mode) {
            let alike = self.sent.entry((protocol, client.is_ipv4(), content)).or_default();
            alike.push_back((index, client));
            if alike.len() > MOST_ALIKE {
                alike.pop_front();
            }
        }
        let Ok(view) = parse(&performed.frame) else { return };
        let (Some((nat, _)), mac) = (view.endpoints(), view.destination) else { return };
        if service.backends.iter().any(|backend| backend.way.is_some_and(|way| way.destination == mac)) {
            self.chosen.insert((index, client), Chosen { nat, mac });
        }
    }

    /// The frame reached a backend when it was recorded.
    pub(super) fn arrived(&mut self, frame: &[u8]) {
        let Some((protocol, source, destination, Some(content))) = read(frame) else { return };
        let client = match self.world.service_at(destination, protocol) {
            Some(index) => (index, source),
            None => {
                let alike = self.sent.get_mut(&(protocol, source.is_ipv4(), content));
                let Some(client) = alike.and_then(VecDeque::pop_front) else { return };
                self.recorded.insert((protocol, source), client);
                client
            }
        };
        if let Some(chosen) = self.chosen.get(&client) {
            *(if chosen.mac.0 == frame[..6] { &mut self.same } else { &mut self.elsewhere }) += 1;
        }
    }

    /// A recorded frame as it would have been, had its connection the port that it has in the replay.
    pub(super) fn translate(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if let Ok(view) = parse(&frame)
            && let Some((_, nat)) = view.endpoints()
            && let Some(field) = checksum_field(&view)
            && let Some(port) = self.port(protocol(&view), nat)
        {
            let at = view.ip.payload;
            let (checksum, old) = (get_u16(&frame, at + field), get_u16(&frame, at + 2));
            put_u16(&mut frame, at + 2, port);
            let zero = checksum == 0 && matches!(view.transport, Transport::Udp(_));
            if !zero {
                // RFC 1624, eqn 3.
                let sum = checksum::Sum::new().word(!checksum).word(!old).word(port).checksum();
                let udp = matches!(view.transport, Transport::Udp(_));
                put_u16(&mut frame, at + field, if udp { checksum::udp(sum) } else { sum });
            }
        }
        frame
    }

    fn port(&self, protocol: Protocol, nat: SocketAddr) -> Option<u16> {
        let chosen = self.chosen.get(self.recorded.get(&(protocol, nat))?)?;
        (chosen.nat.ip() == nat.ip()).then_some(chosen.nat.port())
    }
}

fn protocol(view: &View) -> Protocol {
    if matches!(view.transport, Transport::Udp(_)) { Protocol::Udp } else { Protocol::Tcp }
}

/// Where the checksum is in a transport header.
const fn checksum_field(view: &View) -> Option<usize> {
    match view.transport {
        Transport::Tcp(_) => Some(16),
        Transport::Udp(_) => Some(6),
        Transport::Icmp { .. } | Transport::None => None,
    }
}

/// Protocol, source, destination, and content if it may open a connection.
fn read(frame: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr, Option<Content>)> {
    let view = parse(frame).ok()?;
    let (source, destination) = view.endpoints()?;
    let content = match view.transport {
        Transport::Tcp(tcp) => (tcp.flags & (SYN | ACK) == SYN).then_some(Content::Syn(tcp.sequence)),
        Transport::Udp(_) => {
            let mut hasher = DefaultHasher::new();
            frame[view.ip.payload + 8..view.ip.end].hash(&mut hasher);
            Some(Content::Datagram(hasher.finish()))
        }
        Transport::Icmp { .. } | Transport::None => return None,
    };
    Some((protocol(&view), source, destination, content))
}
