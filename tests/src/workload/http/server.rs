//! An HTTP server that says who it is.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{BACKEND_HEADER, VERSION_HEADER};
use crate::{
    lab::{LabError, Namespace, Result},
    workload::{
        Identity,
        listen::{close, listen, listeners, watched},
        stream::Stream,
        worker::{Stop, Worker},
    },
};

/// The longest body that is served, in bytes.
const LONGEST_BODY: usize = 64 << 20;

/// What a server does with new connections. Established ones are served in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Accepts and answers.
    Serve,
    /// Has closed its listening sockets: the kernel answers with a RST. Connections that were not accepted yet
    /// are reset.
    Refuse,
    /// Listens, but accepts nothing: the kernel completes handshakes until the backlog is full, and nobody
    /// answers a request.
    Hang,
    /// Accepts, and resets the connection at the first byte that comes.
    Reset,
}

/// What a server has seen since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
}

/// A running server; stopped when dropped, which ends its connections.
#[derive(Debug)]
pub struct Server {
    identity: Identity,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    _worker: Worker<()>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    connections: AtomicU64,
    requests: AtomicU64,
}

#[derive(Debug)]
struct Command {
    mode: Mode,
    done: std::sync::mpsc::Sender<io::Result<()>>,
}

impl Server {
    /// Starts a server on these addresses; port 0 takes a free one, see [`Self::addresses`]. `GET /bytes/N` is
    /// answered with N bytes, `GET /stream/SEED/OFFSET/N` with N bytes that seed and offset determine, everything
    /// else with the version's name.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(namespace: &Namespace, identity: Identity, addresses: &[SocketAddr]) -> Result<Self> {
        let (listeners, addresses) = listeners(namespace, addresses)?;
        let shared = Arc::new(Shared { identity: identity.clone(), connections: AtomicU64::new(0), requests: AtomicU64::new(0) });
        let (commands, received) = mpsc::unbounded_channel();
        let worker = {
            let (shared, addresses) = (Arc::clone(&shared), addresses.clone());
            Worker::start(namespace, &format!("http-{}", identity.name), move |stop| {
                serve(shared, addresses, listeners, received, stop)
            })?
        };
        Ok(Self { identity, addresses, shared, commands, _worker: worker })
    }

    /// Changes what becomes of new connections. When this returns, the sockets are closed or open accordingly.
    ///
    /// # Errors
    /// When it cannot listen again.
    pub fn set(&self, mode: Mode) -> Result<()> {
        let what = || format!("let server {} {mode:?}", self.identity);
        let (done, answer) = std::sync::mpsc::channel();
        let gone = |_| LabError::Unexpected { what: what(), why: "its thread is gone".into() };
        self.commands.send(Command { mode, done }).map_err(|error| gone(error.to_string()))?;
        answer.recv().map_err(|error| gone(error.to_string()))?.map_err(LabError::io(what()))
    }

    /// Who it says it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it listens, or will when it no longer refuses.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has seen until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.shared.connections.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Relaxed),
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut stop: Stop,
) {
    let mut open: Vec<_> = listeners.into_iter().map(watched).collect();
    let mut mode = Mode::Serve;
    let mut connections = JoinSet::new();
    let (ended, end) = watch::channel(false);
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            command = commands.recv() => {
                let Some(command) = command else { break };
                mode = command.mode;
                let done = match mode {
                    Mode::Refuse => open.drain(..).try_for_each(|listener| close(&listener)),
                    Mode::Serve | Mode::Hang | Mode::Reset if open.is_empty() => addresses
                        .iter()
                        .map(|address| listen(*address))
                        .collect::<io::Result<Vec<_>>>()
                        .map(|listeners| open = listeners),
                    Mode::Serve | Mode::Hang | Mode::Reset => Ok(()),
                };
                // Whoever asked may have stopped waiting, by a panic only.
                drop(command.done.send(done));
            }
            accepted = accept(&open), if matches!(mode, Mode::Serve | Mode::Reset) => match accepted {
                Ok(stream) => {
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    match mode {
                        Mode::Reset => connections.spawn(reset(stream, end.clone())),
                        Mode::Serve | Mode::Refuse | Mode::Hang => {
                            connections.spawn(converse(Arc::clone(&shared), stream, end.clone()))
                        }
                    };
                }
                // The client was gone before it was accepted, or descriptors are used up for a moment.
                Err(error) => {
                    eprintln!("http server {}: accept: {error}", shared.identity);
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(served) = connections.join_next() => served.expect("a connection's task does not panic"),
        }
    }
    ended.send_replace(true);
    connections.shutdown().await;
}

/// The next connection of any of the listeners.
async fn accept(listeners: &[tokio::net::TcpListener]) -> io::Result<tokio::net::TcpStream> {
    let accepting = listeners.iter().map(|listener| Box::pin(listener.accept()));
    let (accepted, _, _) = futures::future::select_all(accepting).await;
    accepted.map(|(stream, _)| stream)
}

/// Closed without a lingering, a socket answers with a RST.
async fn reset(mut stream: tokio::net::TcpStream, mut end: watch::Receiver<bool>) {
    tokio::select! {
        // Whatever comes, a client's own end included, the answer is the same.
        read = stream.read_u8() => drop(read),
        _ = end.wait_for(|ended| *ended) => {}
    }
    if let Err(error) = stream.set_zero_linger() {
        eprintln!("http server: closes instead of resetting: {error}");
    }
}

async fn converse(shared: Arc<Shared>, stream: tokio::net::TcpStream, mut end: watch::Receiver<bool>) {
    let service = service_fn(|request| {
        let answer = answer(&shared, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How a connection ends is the client's to judge: it is the one that accounts for it.
        ended = connection.as_mut() => drop(ended),
        _ = end.wait_for(|ended| *ended) => {}
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let Identity { version, name } = &shared.identity;
    let path = request.uri().path();
    let body = match (path.strip_prefix("/bytes/"), path.strip_prefix("/stream/")) {
        (Some(length), _) => length.parse().ok().and_then(|length| body(length, |bytes| bytes.fill(b'.'))),
        (None, Some(piece)) => stream_piece(piece),
        (None, None) => Some(Bytes::from(format!("{version}\n"))),
    };
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Response::builder()
        .status(status)
        .header(VERSION_HEADER, version)
        .header(BACKEND_HEADER, name)
        .body(Full::new(body.unwrap_or_default()))
        .expect("an identity is of visible ASCII characters, which a header may hold")
}

/// `SEED/OFFSET/LENGTH` of a [`Stream`].
fn stream_piece(asked: &str) -> Option<Bytes> {
    let mut numbers = asked.split('/').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (seed, offset, length) = (next()?, next()?, next()?);
    body(usize::try_from(length).ok()?, |bytes| Stream::new(seed).fill(offset, bytes))
}

/// A body of this length; `None` when it is too long.
fn body(length: usize, fill: impl FnOnce(&mut [u8])) -> Option<Bytes> {
    (length <= LONGEST_BODY).then(|| {
        let mut bytes = vec![0; length];
        fill(&mut bytes);
        Bytes::from(bytes)
    })
}
