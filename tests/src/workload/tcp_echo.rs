//! Long-lived TCP connections with continuous traffic, of which every byte is checked.
//!
//! A server first sends its identity (a length byte, then `version/name`). The client names the length of its
//! pieces (4 bytes, big-endian) and sends one piece after the other of a stream that its seed determines; the
//! server answers each with a tag of 8 bytes that stands for its identity, and the piece.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    Identity,
    listen::{listeners, watched},
    stream::Stream,
    worker::{Stop, Worker},
};
use crate::lab::{LabError, Namespace, Result};

const TAG: usize = 8;
/// The longest piece that a server takes, in bytes.
const LONGEST_PIECE: usize = 1 << 20;

/// A running server; stopped when dropped, which ends its connections.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _worker: Worker<()>,
}

impl Server {
    /// Starts a server on these addresses.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(namespace: &Namespace, identity: &Identity, addresses: &[SocketAddr]) -> Result<Self> {
        let (listeners, addresses) = listeners(namespace, addresses)?;
        let identity = identity.clone();
        let worker = Worker::start(namespace, &format!("tcp-{}", identity.name), move |stop| serve(identity, listeners, stop))?;
        Ok(Self { addresses, _worker: worker })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// A number of connections to be opened and kept busy.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// The client's own address.
    pub source: IpAddr,
    /// How many.
    pub connections: usize,
    /// How much is sent at a time on each, in bytes.
    pub piece: usize,
    /// How long each waits between an answer and the next piece.
    pub interval: Duration,
    /// How long an answer, and the handshake, may take before the connection counts as broken.
    pub timeout: Duration,
    /// Determines what is sent.
    pub seed: u64,
}

impl Load {
    /// So many connections, each with 512 bytes every 50 ms, that are broken when an answer takes 10 seconds.
    #[must_use]
    pub fn new(source: IpAddr, target: SocketAddr, connections: usize) -> Self {
        let (interval, timeout) = (Duration::from_millis(50), Duration::from_secs(10));
        Self { target, source, connections, piece: 512, interval, timeout, seed: 1 }
    }

    /// Starts it and waits until every connection has been answered once, or could not be opened.
    ///
    /// # Errors
    /// When it cannot be started or takes longer than the load's timeout and a second.
    pub fn start(self, namespace: &Namespace) -> Result<Running> {
        let local = SocketAddr::new(self.source, 0);
        let begin =
            Connection { local, identity: None, exchanges: 0, bytes: 0, bytes_wrong: 0, strangers: 0, state: State::Opening };
        let connections = Arc::new(Mutex::new(vec![begin; self.connections]));
        let limit = self.timeout * 2 + Duration::from_secs(1);
        let worker = {
            let connections = Arc::clone(&connections);
            Worker::start(namespace, "tcp-load", move |stop| drive(self, connections, stop))?
        };
        let running = Running { connections, worker };
        let deadline = Instant::now() + limit;
        while running.connections().iter().any(|connection| connection.state == State::Opening) {
            if Instant::now() > deadline {
                return Err(LabError::Late { what: "connections answered once".into(), limit });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(running)
    }
}

/// Connections under way; dropping this closes them.
#[derive(Debug)]
pub struct Running {
    connections: Arc<Mutex<Vec<Connection>>>,
    worker: Worker<()>,
}

impl Running {
    /// Each connection as it is now.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.connections).clone()
    }

    /// The figures as they are now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::of(&self.connections())
    }

    /// Closes every connection after the answer it waits for, and reports.
    ///
    /// # Errors
    /// When its namespace could not be entered.
    pub fn stop(self) -> Result<Vec<Connection>> {
        let Self { connections, worker } = self;
        worker.stop()?;
        Ok(lock(&connections).clone())
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's own address and port; port 0 until it is opened.
    pub local: SocketAddr,
    /// Who is at the other end; `None` until it said so.
    pub identity: Option<Identity>,
    /// Pieces that were answered.
    pub exchanges: u64,
    /// Bytes that came back.
    pub bytes: u64,
    /// Of these, how many were not what was sent.
    pub bytes_wrong: u64,
    /// Answers that bore the tag of somebody else than at first.
    pub strangers: u64,
    /// What became of it.
    pub state: State,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not answered yet.
    Opening,
    /// It never came to be; why.
    NotOpened(String),
    /// In use.
    Open,
    /// Closed by the client in good order, and the server followed.
    Closed,
    /// Ended in any other way: reset, closed by the server, an answer that did not come; why.
    Broken(String),
}

/// Figures of a number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Connections that were opened and answered.
    pub opened: u64,
    /// Of these, by server.
    pub by_server: BTreeMap<Identity, u64>,
    /// Connections that could not be opened.
    pub not_opened: u64,
    /// Opened connections that broke.
    pub broken: u64,
    /// Of these, by server.
    pub broken_by_server: BTreeMap<Identity, u64>,
    /// Why connections broke or were not opened, with how often.
    pub reasons: BTreeMap<String, u64>,
    /// Answered pieces.
    pub exchanges: u64,
    /// Bytes that came back.
    pub bytes: u64,
    /// Of these, how many were not what was sent.
    pub bytes_wrong: u64,
    /// Answers from somebody else than at first.
    pub strangers: u64,
}

impl Report {
    /// The figures of these connections.
    #[must_use]
    pub fn of(connections: &[Connection]) -> Self {
        let mut report = Self::default();
        for connection in connections {
            if let Some(identity) = &connection.identity {
                report.opened += 1;
                *report.by_server.entry(identity.clone()).or_default() += 1;
            }
            match (&connection.state, &connection.identity) {
                (State::NotOpened(why), _) => {
                    report.not_opened += 1;
                    *report.reasons.entry(why.clone()).or_default() += 1;
                }
                (State::Broken(why), identity) => {
                    report.broken += 1;
                    *report.reasons.entry(why.clone()).or_default() += 1;
                    if let Some(identity) = identity {
                        *report.broken_by_server.entry(identity.clone()).or_default() += 1;
                    }
                }
                (State::Opening | State::Open | State::Closed, _) => {}
            }
            report.exchanges += connection.exchanges;
            report.bytes += connection.bytes;
            report.bytes_wrong += connection.bytes_wrong;
            report.strangers += connection.strangers;
        }
        report
    }
}

fn tag(identity: &Identity) -> [u8; TAG] {
    let digest = Sha256::digest(identity.wire());
    std::array::from_fn(|at| digest[at])
}

async fn serve(identity: Identity, listeners: Vec<std::net::TcpListener>, mut stop: Stop) {
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let listener = watched(listener);
        let identity = identity.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => drop(connections.spawn(echo(identity.clone(), stream))),
                        Err(error) => {
                            eprintln!("tcp server {identity}: accept: {error}");
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    },
                    // How a connection ended is the client's to judge: it is the one that accounts for it.
                    Some(ended) = connections.join_next() => drop(ended.expect("an echo does not panic")),
                }
            }
        });
    }
    stop.requested().await;
    tasks.shutdown().await;
}

async fn echo(identity: Identity, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let name = identity.wire();
    stream.write_u8(u8::try_from(name.len()).expect("an identity is at most 121 bytes long")).await?;
    stream.write_all(&name).await?;
    let length = stream.read_u32().await? as usize;
    if length > LONGEST_PIECE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = [&tag(&identity)[..], &vec![0; length]].concat();
    loop {
        stream.read_exact(&mut answer[TAG..]).await?;
        stream.write_all(&answer).await?;
    }
}

async fn drive(load: Load, connections: Arc<Mutex<Vec<Connection>>>, mut stop: Stop) {
    let mut tasks = JoinSet::new();
    for number in 0..load.connections {
        let task = Task { load: load.clone(), number, connections: Arc::clone(&connections) };
        tasks.spawn(task.run(stop.clone()));
    }
    stop.requested().await;
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a connection's task does not panic");
    }
}

struct Task {
    load: Load,
    number: usize,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Task {
    async fn run(self, stop: Stop) {
        let state = match self.open().await {
            Ok((stream, identity)) => match self.talk(stream, &identity, stop).await {
                Ok(()) => State::Closed,
                Err(why) => State::Broken(why),
            },
            Err(why) => State::NotOpened(why),
        };
        self.update(|connection| connection.state = state);
    }

    fn update(&self, change: impl FnOnce(&mut Connection)) {
        change(&mut lock(&self.connections)[self.number]);
    }

    /// In time, or why not.
    async fn within<T>(&self, what: &str, io: impl Future<Output = io::Result<T>>) -> std::result::Result<T, String> {
        match timeout(self.load.timeout, io).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("{what}: {error}")),
            Err(_) => Err(format!("{what}: not within {:?}", self.load.timeout)),
        }
    }

    async fn open(&self) -> std::result::Result<(TcpStream, Identity), String> {
        let Load { target, source, .. } = self.load;
        let connect = async {
            let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind(SocketAddr::new(source, 0))?;
            let local = socket.local_addr()?;
            self.update(|connection| connection.local = local);
            let stream = socket.connect(target).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let mut stream = self.within("connect", connect).await?;
        let greeting = async {
            let mut name = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut name).await?;
            Identity::from_wire(&name).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let identity = self.within("greeting", greeting).await?;
        Ok((stream, identity))
    }

    async fn talk(&self, mut stream: TcpStream, identity: &Identity, mut stop: Stop) -> std::result::Result<(), String> {
        let length = self.load.piece.clamp(1, LONGEST_PIECE);
        let bytes = Stream::new(self.load.seed.wrapping_add(self.number as u64).wrapping_mul(0x9e37_79b9));
        let own_tag = tag(identity);
        let (mut piece, mut answer) = (vec![0; length], vec![0; TAG + length]);
        let announced = stream.write_u32(length as u32);
        self.within("announce", announced).await?;
        let mut offset = 0;
        loop {
            bytes.fill(offset, &mut piece);
            self.within("send", stream.write_all(&piece)).await?;
            self.within("answer", stream.read_exact(&mut answer)).await?;
            let wrong = bytes.wrong(offset, &answer[TAG..]);
            offset += length as u64;
            self.update(|connection| {
                // Open by its first answer: until then nobody relies on it.
                connection.state = State::Open;
                connection.identity.get_or_insert_with(|| identity.clone());
                connection.exchanges += 1;
                connection.bytes += length as u64;
                connection.bytes_wrong += wrong;
                connection.strangers += u64::from(answer[..TAG] != own_tag);
            });
            tokio::select! {
                () = stop.requested() => break,
                () = tokio::time::sleep(self.load.interval) => {}
            }
        }
        self.within("close", stream.shutdown()).await?;
        match self.within("close", stream.read(&mut answer)).await? {
            0 => Ok(()),
            more => Err(format!("close: {more} bytes too many")),
        }
    }
}

/// A connection's record is whole at any time, even if a holder of the lock panicked.
fn lock(connections: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
