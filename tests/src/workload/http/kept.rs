//! Long-lived HTTP connections: one request after the other on each, every answer checked byte by byte.
//!
//! A request asks for the next piece of a stream that the connection's seed determines. A client whose connection
//! breaks does what clients do: it opens another one, which is a record of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpSocket,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{BACKEND_HEADER, VERSION_HEADER, load::was_reset};
use crate::{
    lab::{LabError, Namespace, Result},
    workload::{
        Identity,
        stream::Stream,
        worker::{Stop, Worker},
    },
};

/// How many connections a client opens in turn before it gives up.
const LIVES: usize = 4;

/// How connections are used.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where to.
    pub target: SocketAddr,
    /// The client's own addresses, taken in turn.
    pub sources: Vec<IpAddr>,
    /// The length of an answer's body, in bytes.
    pub piece: usize,
    /// How long a connection rests between an answer and the next request.
    pub interval: Duration,
    /// How long an answer, and the handshake, may take before the connection counts as broken.
    pub timeout: Duration,
}

impl Kept {
    /// 512 bytes five times a second, each within 5 seconds.
    #[must_use]
    pub fn new(sources: Vec<IpAddr>, target: SocketAddr) -> Self {
        let (interval, timeout) = (Duration::from_millis(200), Duration::from_secs(5));
        Self { target, sources, piece: 512, interval, timeout }
    }

    /// Starts a load without connections; [`Running::open`] opens them.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When there is no source address, or not of the target's family.
    pub fn start(self, namespace: &Namespace) -> Result<Running> {
        let fits = |source: &IpAddr| source.is_ipv4() == self.target.is_ipv4();
        assert!(!self.sources.is_empty() && self.sources.iter().all(fits), "sources are of the target's family");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (orders, received) = mpsc::unbounded_channel();
        let limit = self.timeout * 2 + Duration::from_secs(1);
        let worker = {
            let connections = Arc::clone(&connections);
            Worker::start(namespace, "http-kept", move |stop| drive(self, connections, received, stop))?
        };
        Ok(Running { connections, orders, limit, worker })
    }
}

/// Connections under way; dropping this closes them.
#[derive(Debug)]
pub struct Running {
    connections: Arc<Mutex<Vec<Connection>>>,
    orders: mpsc::UnboundedSender<usize>,
    limit: Duration,
    worker: Worker<()>,
}

impl Running {
    /// Opens so many more, and waits until each was answered once or could not be opened.
    ///
    /// # Errors
    /// When that takes longer than twice the load's timeout and a second.
    pub async fn open(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        let expected = self.connections().len() + count;
        if self.orders.send(count).is_err() {
            return Err(LabError::Unexpected { what: "long-lived connections".into(), why: "their thread is gone".into() });
        }
        loop {
            let connections = self.connections();
            if connections.len() >= expected && connections.iter().all(|connection| connection.state != State::Opening) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LabError::Late { what: "long-lived connections answered once".into(), limit: self.limit });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Each connection as it is now.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.connections).clone()
    }

    /// Closes every connection after the answer it waits for, and reports.
    ///
    /// # Errors
    /// When its namespace could not be entered.
    pub fn stop(self) -> Result<Vec<Connection>> {
        let Self { connections, orders, worker, .. } = self;
        worker.stop()?;
        drop(orders);
        Ok(lock(&connections).clone())
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's own address and port; port 0 until it is opened.
    pub local: SocketAddr,
    /// Whether it takes the place of one that broke.
    pub again: bool,
    /// Who answered first; `None` until somebody did.
    pub identity: Option<Identity>,
    /// Requests answered.
    pub exchanges: u64,
    /// Body bytes that came.
    pub bytes: u64,
    /// Of these, how many were wrong or missing.
    pub bytes_wrong: u64,
    /// Answers from somebody else than at first.
    pub strangers: u64,
    /// What became of it.
    pub state: State,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not answered yet.
    Opening,
    /// It never came to be.
    NotOpened(Failure),
    /// In use.
    Open,
    /// Closed by the client in good order.
    Closed,
    /// Ended in any other way.
    Broken(Failure),
}

/// How and when a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was noticed.
    pub at: Instant,
    /// Whether it was a RST.
    pub reset: bool,
    /// In words.
    pub why: String,
}

impl Failure {
    fn new(reset: bool, why: impl Into<String>) -> Self {
        Self { at: Instant::now(), reset, why: why.into() }
    }
}

async fn drive(load: Kept, connections: Arc<Mutex<Vec<Connection>>>, mut orders: mpsc::UnboundedReceiver<usize>, mut stop: Stop) {
    let load = Arc::new(load);
    let mut tasks = JoinSet::new();
    let mut clients = 0;
    loop {
        let count = tokio::select! {
            () = stop.requested() => break,
            order = orders.recv() => match order {
                Some(count) => count,
                None => break,
            },
        };
        for _ in 0..count {
            let client = Client { load: Arc::clone(&load), number: clients, connections: Arc::clone(&connections) };
            tasks.spawn(client.run(stop.clone()));
            clients += 1;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a client's task does not panic");
    }
}

struct Client {
    load: Arc<Kept>,
    number: usize,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Client {
    async fn run(self, stop: Stop) {
        let source = self.load.sources[self.number % self.load.sources.len()];
        for life in 0..LIVES {
            let begin = Connection {
                local: SocketAddr::new(source, 0),
                again: life > 0,
                identity: None,
                exchanges: 0,
                bytes: 0,
                bytes_wrong: 0,
                strangers: 0,
                state: State::Opening,
            };
            let index = {
                let mut connections = lock(&self.connections);
                connections.push(begin);
                connections.len() - 1
            };
            let ended = self.live(index, source, stop.clone()).await;
            let closed = ended.is_ok();
            self.update(index, |connection| {
                connection.state = match ended {
                    Ok(()) => State::Closed,
                    Err(failure) if connection.identity.is_none() => State::NotOpened(failure),
                    Err(failure) => State::Broken(failure),
                }
            });
            if closed {
                break;
            }
        }
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Connection)) {
        change(&mut lock(&self.connections)[index]);
    }

    async fn live(&self, index: usize, source: IpAddr, mut stop: Stop) -> std::result::Result<(), Failure> {
        let mut wire = self.within("connect", self.connect(index, source)).await?;
        // Each client has a stream of its own, and goes on in it over the connections that it has in turn.
        let seed = self.number as u64;
        let mut offset = 0;
        loop {
            let request = self.request(seed, offset);
            let (identity, body) = self.within("request", wire.exchange(request)).await?;
            let missing = self.load.piece.abs_diff(body.len()) as u64;
            let wrong = missing + Stream::new(seed).wrong(offset, &body[..body.len().min(self.load.piece)]);
            offset += self.load.piece as u64;
            self.update(index, |connection| {
                connection.state = State::Open;
                connection.strangers += u64::from(connection.identity.get_or_insert_with(|| identity.clone()) != &identity);
                connection.exchanges += 1;
                connection.bytes += body.len() as u64;
                connection.bytes_wrong += wrong;
            });
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = tokio::time::sleep(self.load.interval) => {}
            }
        }
    }

    /// In time, or why not.
    async fn within<T>(
        &self,
        what: &str,
        step: impl Future<Output = std::result::Result<T, Failure>>,
    ) -> std::result::Result<T, Failure> {
        match timeout(self.load.timeout, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(Failure { why: format!("{what}: {}", failure.why), ..failure }),
            Err(_) => Err(Failure::new(false, format!("{what}: not within {:?}", self.load.timeout))),
        }
    }

    async fn connect(&self, index: usize, source: IpAddr) -> std::result::Result<Wire, Failure> {
        let failed = |error: std::io::Error| {
            let reset = matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset);
            Failure::new(reset, error.to_string())
        };
        let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        socket.bind(SocketAddr::new(source, 0)).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        self.update(index, |connection| connection.local = local);
        let stream = socket.connect(self.load.target).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Its task ends with the sender.
        Ok(Wire { sender, connection: tokio::spawn(connection) })
    }

    fn request(&self, seed: u64, offset: u64) -> Request<Empty<Bytes>> {
        Request::get(format!("/stream/{seed}/{offset}/{}", self.load.piece))
            .header(header::HOST, self.load.target.to_string())
            .body(Empty::new())
            .expect("digits and slashes are a path")
    }
}

/// The two halves of a client's connection: what speaks HTTP, and what moves the bytes.
struct Wire {
    sender: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Wire {
    async fn exchange(&mut self, request: Request<Empty<Bytes>>) -> std::result::Result<(Identity, Bytes), Failure> {
        let answer = async {
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = match answer.await {
            Ok(answer) => answer,
            // The other half knows better why no more bytes move: to this one the connection is just closed.
            Err(error) if !was_reset(&error) => match (&mut self.connection).await {
                Ok(Err(moved)) => return Err(broken(&moved)),
                Ok(Ok(())) | Err(_) => return Err(broken(&error)),
            },
            Err(error) => return Err(broken(&error)),
        };
        if head.status != StatusCode::OK {
            return Err(Failure::new(false, format!("status {}", head.status)));
        }
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        match (header(VERSION_HEADER), header(BACKEND_HEADER)) {
            (Some(version), Some(name)) => Ok((Identity { version: version.into(), name: name.into() }, body)),
            (Some(_) | None, _) => Err(Failure::new(false, "an answer that does not say by whom")),
        }
    }
}

fn broken(error: &hyper::Error) -> Failure {
    Failure::new(was_reset(error), error.to_string())
}

/// A connection's record is whole at any time, even if a holder of the lock panicked.
fn lock(connections: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
