//! UDP exchanges from fixed sockets, of which every byte is checked.
//!
//! A request is a number (8 bytes, big-endian) and bytes that the number and the seed determine. The answer is
//! the server's identity (a length byte, then `version/name`) and the request.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    Identity,
    stream::Stream,
    worker::{Stop, Worker},
};
use crate::lab::{LabError, Namespace, Result};

/// The longest datagram there is.
const LONGEST: usize = 65_535;
const NUMBER: usize = 8;
/// More than an identity takes on the wire.
const LONGEST_NAME: usize = 128;
/// Bytes of memory for datagrams that wait to be read.
const BUFFER: usize = 8 << 20;

/// A running server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _worker: Worker<()>,
}

impl Server {
    /// Starts a server on these addresses, from which it also answers.
    ///
    /// # Errors
    /// When it cannot bind.
    pub fn start(namespace: &Namespace, identity: &Identity, addresses: &[SocketAddr]) -> Result<Self> {
        let bound = namespace.enter(|| addresses.iter().map(|address| bind(*address)).collect::<io::Result<Vec<_>>>())?;
        let sockets = bound.map_err(LabError::io(format!("bind to {addresses:?} in {}", namespace.name())))?;
        let addresses = sockets.iter().map(std::net::UdpSocket::local_addr).collect::<io::Result<Vec<_>>>();
        let addresses = addresses.map_err(LabError::io("read a socket's address"))?;
        let identity = identity.clone();
        let worker = Worker::start(namespace, &format!("udp-{}", identity.name), move |mut stop| async move {
            let mut tasks = JoinSet::new();
            for socket in sockets {
                tasks.spawn(answer(identity.clone(), socket));
            }
            stop.requested().await;
            tasks.shutdown().await;
        })?;
        Ok(Self { addresses, _worker: worker })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// A number of sockets that each exchange datagrams with one address.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// The client's own address.
    pub source: IpAddr,
    /// How many sockets.
    pub sockets: usize,
    /// How long a request is, in bytes; at least 8.
    pub length: usize,
    /// How long each waits between one exchange and the next.
    pub interval: Duration,
    /// How long an answer may take before it counts as lost.
    pub timeout: Duration,
    /// Determines what is sent.
    pub seed: u64,
}

impl Load {
    /// So many sockets, each with 200 bytes every 50 ms, lost after a second.
    #[must_use]
    pub fn new(source: IpAddr, target: SocketAddr, sockets: usize) -> Self {
        let (interval, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
        Self { target, source, sockets, length: 200, interval, timeout, seed: 1 }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When sockets cannot be made.
    pub fn start(self, namespace: &Namespace) -> Result<Running> {
        let made = namespace.enter(|| {
            let one = || {
                let socket = bind((self.source, 0).into())?;
                socket.connect(self.target)?;
                Ok((socket.local_addr()?, socket))
            };
            (0..self.sockets).map(|_| one()).collect::<io::Result<Vec<_>>>()
        })?;
        let what = || format!("sockets from {} to {} in {}", self.source, self.target, namespace.name());
        let (locals, sockets): (Vec<_>, Vec<_>) = made.map_err(LabError::io(what()))?.into_iter().unzip();
        let exchanges = Arc::new(Mutex::new(locals.into_iter().map(Exchanges::new).collect::<Vec<_>>()));
        let shared = Arc::clone(&exchanges);
        let worker = Worker::start(namespace, "udp-load", move |stop| drive(self, sockets, shared, stop))?;
        Ok(Running { exchanges, worker })
    }
}

/// Exchanges under way; dropping this ends them.
#[derive(Debug)]
pub struct Running {
    exchanges: Arc<Mutex<Vec<Exchanges>>>,
    worker: Worker<()>,
}

impl Running {
    /// Each socket's exchanges until now.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchanges> {
        lock(&self.exchanges).clone()
    }

    /// The figures until now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::of(&self.exchanges())
    }

    /// Ends it after the exchanges under way, and reports.
    ///
    /// # Errors
    /// When its namespace could not be entered.
    pub fn stop(self) -> Result<Vec<Exchanges>> {
        let Self { exchanges, worker } = self;
        worker.stop()?;
        Ok(lock(&exchanges).clone())
    }
}

/// What one socket saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanges {
    /// The client's own address and port.
    pub local: SocketAddr,
    /// Who answered last.
    pub identity: Option<Identity>,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered in time.
    pub answered: u64,
    /// Requests that were not.
    pub lost: u64,
    /// Answers that came after their time, or twice.
    pub stray: u64,
    /// Answers of another content than was sent.
    pub wrong: u64,
    /// How often another server answered than the time before.
    pub moves: u64,
    /// Errors at the socket, such as an ICMP error that arrived, with how often.
    pub errors: BTreeMap<String, u64>,
}

impl Exchanges {
    const fn new(local: SocketAddr) -> Self {
        Self { local, identity: None, sent: 0, answered: 0, lost: 0, stray: 0, wrong: 0, moves: 0, errors: BTreeMap::new() }
    }

    fn heard_from(&mut self, identity: Identity) {
        self.answered += 1;
        self.moves += u64::from(self.identity.as_ref().is_some_and(|before| *before != identity));
        self.identity = Some(identity);
    }
}

/// Figures of a number of sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sockets that got an answer.
    pub reached: u64,
    /// Of these, by the server that answered last.
    pub by_server: BTreeMap<Identity, u64>,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered in time.
    pub answered: u64,
    /// Requests that were not.
    pub lost: u64,
    /// Answers that came after their time, or twice.
    pub stray: u64,
    /// Answers of another content than was sent.
    pub wrong: u64,
    /// How often another server answered than the time before.
    pub moves: u64,
    /// Errors at the sockets, with how often.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// The figures of these sockets.
    #[must_use]
    pub fn of(sockets: &[Exchanges]) -> Self {
        let mut report = Self::default();
        for socket in sockets {
            if let Some(identity) = &socket.identity {
                report.reached += 1;
                *report.by_server.entry(identity.clone()).or_default() += 1;
            }
            report.sent += socket.sent;
            report.answered += socket.answered;
            report.lost += socket.lost;
            report.stray += socket.stray;
            report.wrong += socket.wrong;
            report.moves += socket.moves;
            for (error, count) in &socket.errors {
                *report.errors.entry(error.clone()).or_default() += count;
            }
        }
        report
    }
}

/// A socket that holds a burst until its reader gets to run. What counts against the buffer is what a datagram occupies, not its length: on a veth with an XDP
/// program each fragment has a page, and the default buffer is full after eight datagrams of 8,000 bytes.
fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    Ok(socket)
}

fn watched(socket: std::net::UdpSocket) -> UdpSocket {
    UdpSocket::from_std(socket).expect("a non-blocking socket, and a runtime with its drivers")
}

async fn answer(identity: Identity, socket: std::net::UdpSocket) {
    let socket = watched(socket);
    let name = identity.wire();
    let greeting = [&[u8::try_from(name.len()).expect("an identity is at most 121 bytes long")][..], &name].concat();
    let mut buffer = vec![0; LONGEST];
    buffer[..greeting.len()].copy_from_slice(&greeting);
    loop {
        // An error is an earlier answer's, for a client that is gone; the client accounts for its answers.
        let Ok((length, from)) = socket.recv_from(&mut buffer[greeting.len()..]).await else { continue };
        drop(socket.send_to(&buffer[..greeting.len() + length], from).await);
    }
}

async fn drive(load: Load, sockets: Vec<std::net::UdpSocket>, exchanges: Arc<Mutex<Vec<Exchanges>>>, stop: Stop) {
    let mut tasks = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        let client = Client { load: load.clone(), socket: watched(socket), number, exchanges: Arc::clone(&exchanges) };
        tasks.spawn(client.run(stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a socket's task does not panic");
    }
}

struct Client {
    load: Load,
    socket: UdpSocket,
    number: usize,
    exchanges: Arc<Mutex<Vec<Exchanges>>>,
}

impl Client {
    async fn run(self, mut stop: Stop) {
        let length = self.load.length.clamp(NUMBER, LONGEST / 2);
        let content = Stream::new(self.load.seed.wrapping_add(self.number as u64).wrapping_mul(0x9e37_79b9));
        let mut request = vec![0; length];
        for number in 0_u64.. {
            request[..NUMBER].copy_from_slice(&number.to_be_bytes());
            content.fill(number * length as u64, &mut request[NUMBER..]);
            self.exchange(number, &request).await;
            tokio::select! {
                () = stop.requested() => break,
                () = tokio::time::sleep(self.load.interval) => {}
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Exchanges)) {
        change(&mut lock(&self.exchanges)[self.number]);
    }

    fn failed(&self, error: &io::Error) {
        self.update(|socket| *socket.errors.entry(error.to_string()).or_default() += 1);
    }

    async fn exchange(&self, number: u64, request: &[u8]) {
        self.update(|socket| socket.sent += 1);
        if let Err(error) = self.socket.send(request).await {
            self.failed(&error);
            return self.update(|socket| socket.lost += 1);
        }
        let deadline = Instant::now() + self.load.timeout;
        // A longer answer is cut off, and so not what was sent.
        let mut buffer = vec![0; request.len() + LONGEST_NAME];
        loop {
            let length = match timeout_at(deadline, self.socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => length,
                Ok(Err(error)) => {
                    // It tells of a request that found nobody: of this one, or of one that was given up.
                    self.failed(&error);
                    return self.update(|socket| socket.lost += 1);
                }
                Err(_) => return self.update(|socket| socket.lost += 1),
            };
            match split(&buffer[..length]) {
                Some((_, echoed)) if is_older(echoed, number) => self.update(|socket| socket.stray += 1),
                Some((identity, echoed)) => {
                    return self.update(|socket| {
                        socket.wrong += u64::from(echoed != request);
                        socket.heard_from(identity);
                    });
                }
                None => {
                    return self.update(|socket| {
                        socket.answered += 1;
                        socket.wrong += 1;
                    });
                }
            }
        }
    }
}

/// The identity and the request in an answer.
fn split(answer: &[u8]) -> Option<(Identity, &[u8])> {
    let (&length, rest) = answer.split_first()?;
    let (name, request) = rest.split_at_checked(length.into())?;
    Some((Identity::from_wire(name)?, request))
}

fn is_older(request: &[u8], number: u64) -> bool {
    request.first_chunk::<NUMBER>().is_some_and(|bytes| u64::from_be_bytes(*bytes) < number)
}

/// A socket's record is whole at any time, even if a holder of the lock panicked.
fn lock(exchanges: &Mutex<Vec<Exchanges>>) -> std::sync::MutexGuard<'_, Vec<Exchanges>> {
    exchanges.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_holds_a_burst_until_its_reader_gets_to_run() {
        let server = bind(([127, 0, 0, 1], 0).into()).expect("a socket");
        let client = bind(([127, 0, 0, 1], 0).into()).expect("a socket");
        client.connect(server.local_addr().expect("bound")).expect("connected");
        for _ in 0..200 {
            assert_eq!(client.send(&[7; 8_000]).expect("sent"), 8_000);
        }
        let mut buffer = vec![0; LONGEST];
        for number in 0..200 {
            assert_eq!(server.recv(&mut buffer).ok(), Some(8_000), "datagram {number}");
        }
    }
}
