//! A load of new connections, each accounted for.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{BACKEND_HEADER, VERSION_HEADER};
use crate::{
    lab::{Namespace, Result},
    workload::{
        Identity,
        stream::Stream,
        worker::{Stop, Worker},
    },
};

/// The first local port that a load uses.
const FIRST_PORT: u16 = 1024;
/// The most connections that a load has open at a time.
const MOST_OPEN: usize = 4000;
/// How many local ports are tried for one connection.
const PORT_ATTEMPTS: usize = 1000;

/// When connections are opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many a second, whatever becomes of them; at most 4000 are open at a time.
    PerSecond(f64),
    /// So many at a time, each replaced when it is done: as fast as it goes.
    Concurrent(usize),
}

/// A load of connections to one address, with one small request each.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// The client's own addresses, taken in turn.
    pub sources: Vec<IpAddr>,
    /// When.
    pub pace: Pace,
    /// It ends after so many connections.
    pub connections: u64,
    /// It opens none after so much time.
    pub duration: Duration,
    /// A connection may take so long, from its first packet to the end of the answer.
    pub timeout: Duration,
    /// What is asked for.
    pub path: String,
    /// What the body must be; another one is a failure, see [`OTHER_BODY`]. `None`: whatever.
    pub body: Option<Bytes>,
}

/// How a failure is called whose answer had another body than [`Load::body`].
pub const OTHER_BODY: &str = "another body than was asked for";

impl Load {
    /// The same, asking for the first bytes of a stream and checking every one.
    #[must_use]
    pub fn stream(self, seed: u64, length: u64) -> Self {
        let mut body = vec![0; usize::try_from(length).expect("a body fits into memory")];
        Stream::new(seed).fill(0, &mut body);
        Self { path: format!("/stream/{seed}/0/{length}"), body: Some(body.into()), ..self }
    }

    /// So many connections, 16 at a time, within a minute, each within 5 seconds.
    #[must_use]
    pub fn new(source: IpAddr, target: SocketAddr, connections: u64) -> Self {
        Self {
            target,
            sources: vec![source],
            pace: Pace::Concurrent(16),
            connections,
            duration: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            path: "/".into(),
            body: None,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(self, namespace: &Namespace) -> Result<Report> {
        self.start(namespace)?.finish()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When there is no source address, or not of the target's family.
    pub fn start(self, namespace: &Namespace) -> Result<Running> {
        let fits = |source: &IpAddr| source.is_ipv4() == self.target.is_ipv4();
        assert!(!self.sources.is_empty() && self.sources.iter().all(fits), "sources are of the target's family");
        let (sender, records) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let worker = Worker::start(namespace, "http-load", move |stop| drive(self, begun, sender, stop))?;
        Ok(Running { begun, records, worker })
    }
}

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was begun, from the load's begin.
    pub begun: Duration,
    /// The client's own address and port, known for failures too: what to ask `explain` about.
    pub local: SocketAddr,
    /// How long the handshake took; `None` when there was none.
    pub connected: Option<Duration>,
    /// How long it took in all.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer of status 200, by this server.
    Answered(Identity),
    /// The handshake was answered with a RST.
    Refused,
    /// Reset after the handshake.
    Reset,
    /// Not done in time; [`Record::connected`] tells in which phase.
    TimedOut,
    /// Otherwise: unreachable, cut short, not HTTP, another status.
    Failed(String),
}

/// A load under way; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// When it began.
    pub begun: Instant,
    /// The connections' records as they end.
    pub records: mpsc::UnboundedReceiver<Record>,
    worker: Worker<Overrun>,
}

impl Running {
    /// Waits for its end; reports the records that were not taken from the channel.
    ///
    /// # Errors
    /// When its namespace could not be entered.
    pub fn finish(self) -> Result<Report> {
        let overrun = self.worker.join()?;
        Ok(Report::drain(self.records, overrun))
    }

    /// Opens no more connections and waits for those under way.
    ///
    /// # Errors
    /// When its namespace could not be entered.
    pub fn stop(self) -> Result<Report> {
        let overrun = self.worker.stop()?;
        Ok(Report::drain(self.records, overrun))
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every connection, in the order they ended.
    pub records: Vec<Record>,
    /// How many connections were begun more than 10 ms late because too many were open.
    pub late: u64,
}

impl Report {
    fn drain(mut records: mpsc::UnboundedReceiver<Record>, overrun: Overrun) -> Self {
        let records = std::iter::from_fn(|| records.try_recv().ok()).collect();
        Self { records, late: overrun.0 }
    }

    /// The figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.records)
    }
}

/// Figures of a number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub connections: u64,
    /// Answered, by server.
    pub answered: BTreeMap<Identity, u64>,
    /// Answered with a RST.
    pub refused: u64,
    /// Reset after the handshake.
    pub reset: u64,
    /// Not done in time.
    pub timed_out: u64,
    /// Ended otherwise, by how.
    pub failed: BTreeMap<String, u64>,
    /// How long answered connections took; `None` when there were none.
    pub latencies: Option<Latencies>,
}

/// Quantiles of a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Half took no longer.
    pub median: Duration,
    /// 99% took no longer.
    pub p99: Duration,
    /// None took longer.
    pub longest: Duration,
}

impl Summary {
    /// The figures of these records.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut summary = Self::default();
        let mut took = Vec::new();
        for record in records {
            summary.connections += 1;
            match &record.outcome {
                Outcome::Answered(identity) => {
                    *summary.answered.entry(identity.clone()).or_default() += 1;
                    took.push(record.took);
                }
                Outcome::Refused => summary.refused += 1,
                Outcome::Reset => summary.reset += 1,
                Outcome::TimedOut => summary.timed_out += 1,
                Outcome::Failed(how) => *summary.failed.entry(how.clone()).or_default() += 1,
            }
        }
        took.sort_unstable();
        // The smallest value that so many per cent do not exceed.
        let quantile = |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        summary.latencies =
            quantile(100).and_then(|longest| Some(Latencies { median: quantile(50)?, p99: quantile(99)?, longest }));
        summary
    }

    /// How many were answered by a version.
    #[must_use]
    pub fn answered_by(&self, version: &str) -> u64 {
        self.answered.iter().filter(|(identity, _)| identity.version == version).map(|(_, count)| count).sum()
    }

    /// How many were answered.
    #[must_use]
    pub fn all_answered(&self) -> u64 {
        self.answered.values().sum()
    }

    /// How many were not.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.connections - self.all_answered()
    }
}

/// One request on a connection of its own, from any address and port; the status, the headers and the body.
///
/// # Errors
/// When the server does not answer in time.
pub async fn get(
    target: SocketAddr,
    path: &str,
    limit: Duration,
) -> std::result::Result<hyper::Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    timeout(limit, async {
        let stream = TcpStream::connect(target).await?;
        Ok(request(stream, target, path).await?)
    })
    .await?
}

/// How many connections were begun late.
#[derive(Debug)]
struct Overrun(u64);

/// Local ports, in turn over all source addresses.
struct Ports {
    sources: Vec<IpAddr>,
    next: usize,
}

impl Ports {
    fn take(&mut self) -> SocketAddr {
        let span = usize::from(u16::MAX - FIRST_PORT) + 1;
        let (source, port) = (self.next % self.sources.len(), self.next / self.sources.len() % span);
        self.next += 1;
        SocketAddr::new(self.sources[source], FIRST_PORT + u16::try_from(port).expect("below the span of ports"))
    }

    /// A socket that is bound to the next port that is free.
    fn socket(&mut self) -> io::Result<(TcpSocket, SocketAddr)> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let local = self.take();
            let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            match socket.bind(local) {
                Ok(()) => return Ok((socket, local)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn drive(load: Load, begun: Instant, records: mpsc::UnboundedSender<Record>, mut stop: Stop) -> Overrun {
    // Successive loads from one address are not to meet each other's ports: each begins somewhere else.
    let mut ports = Ports { sources: load.sources.clone(), next: rand::random_range(0..60_000) };
    let width = match load.pace {
        Pace::PerSecond(_) => MOST_OPEN,
        Pace::Concurrent(width) => width.clamp(1, MOST_OPEN),
    };
    let free = Arc::new(Semaphore::new(width));
    let ask = Arc::new((load.target, load.path.clone(), load.timeout, load.body.clone()));
    let mut overrun = Overrun(0);
    let mut open = JoinSet::new();
    for number in 0..load.connections {
        let due = match load.pace {
            #[expect(clippy::cast_precision_loss, reason = "a count of connections is far below 2^52")]
            Pace::PerSecond(rate) => Some(Duration::from_secs_f64(number as f64 / rate)),
            Pace::Concurrent(_) => None,
        };
        if due.unwrap_or_default().max(begun.elapsed()) > load.duration {
            break;
        }
        let slot = async {
            // A timer has a resolution of a millisecond: even one that is due would hold up a fast load.
            if let Some(due) = due.filter(|due| *due > begun.elapsed()) {
                tokio::time::sleep_until((begun + due).into()).await;
            }
            Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed")
        };
        let slot = tokio::select! {
            biased;
            () = stop.requested() => break,
            slot = slot => slot,
        };
        let start = begun.elapsed();
        overrun.0 += u64::from(due.is_some_and(|due| start > due + Duration::from_millis(10)));
        let (socket, local) = match ports.socket() {
            Ok(bound) => bound,
            Err(error) => {
                let outcome = Outcome::Failed(format!("no local port: {error}"));
                let local = SocketAddr::new(load.sources[0], 0);
                let record = Record { begun: start, local, connected: None, took: Duration::ZERO, outcome };
                // The receiver is gone when nobody wants the records any more.
                drop(records.send(record));
                continue;
            }
        };
        let (records, ask) = (records.clone(), Arc::clone(&ask));
        open.spawn(async move {
            let (target, path, limit, body) = &*ask;
            let mut connected = None;
            let ended = timeout(*limit, attempt(socket, *target, path, body.as_ref(), &mut connected)).await;
            let outcome = ended.unwrap_or(Outcome::TimedOut);
            let took = begun.elapsed().saturating_sub(start);
            drop(records.send(Record { begun: start, local, connected, took, outcome }));
            drop(slot);
        });
        // Done tasks are taken out as we go, or a long load would keep them all.
        while let Some(done) = open.try_join_next() {
            done.expect("a connection's task does not panic");
        }
    }
    while let Some(done) = open.join_next().await {
        done.expect("a connection's task does not panic");
    }
    overrun
}

async fn attempt(
    socket: TcpSocket,
    target: SocketAddr,
    path: &str,
    body: Option<&Bytes>,
    connected: &mut Option<Duration>,
) -> Outcome {
    let begun = Instant::now();
    let stream = match socket.connect(target).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
        Err(error) => return Outcome::Failed(format!("connect: {error}")),
    };
    *connected = Some(begun.elapsed());
    match request(stream, target, path).await {
        Ok(response) if body.is_some_and(|body| response.status() == hyper::StatusCode::OK && response.body() != body) => {
            Outcome::Failed(OTHER_BODY.into())
        }
        Ok(response) => judge(&response),
        Err(error) if was_reset(&error) => Outcome::Reset,
        Err(error) => Outcome::Failed(format!("request: {error}")),
    }
}

fn judge(response: &hyper::Response<Bytes>) -> Outcome {
    if response.status() != hyper::StatusCode::OK {
        return Outcome::Failed(format!("status {}", response.status()));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    match (header(VERSION_HEADER), header(BACKEND_HEADER)) {
        (Some(version), Some(name)) => Outcome::Answered(Identity { version: version.into(), name: name.into() }),
        (Some(_) | None, _) => Outcome::Failed("an answer that does not say by whom".into()),
    }
}

async fn request(stream: TcpStream, target: SocketAddr, path: &str) -> hyper::Result<hyper::Response<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, target.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a path is given as a URI has it");
    // Takes the sender along: the connection ends when it is dropped, whatever the server does.
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(hyper::Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    // Both at once: the connection moves the bytes, and knows best why it could not.
    match tokio::join!(answer, connection) {
        (Err(answer), Err(moved)) if !was_reset(&answer) => Err(moved),
        (answer, _) => answer,
    }
}

pub(super) fn was_reset(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind());
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_each_record_once() {
        let by = |name| Outcome::Answered(Identity::new("stable", name));
        let outcomes = [
            by("a"),
            by("b"),
            by("a"),
            Outcome::Refused,
            Outcome::Reset,
            Outcome::TimedOut,
            Outcome::Failed("status 503".into()),
        ];
        let records: Vec<Record> = (1..).zip(outcomes).map(|(ms, outcome)| record(ms, outcome)).collect();
        let summary = Summary::of(&records);
        assert_eq!((summary.connections, summary.all_answered(), summary.unanswered()), (7, 3, 4));
        assert_eq!((summary.refused, summary.reset, summary.timed_out), (1, 1, 1));
        assert_eq!((summary.answered_by("stable"), summary.answered_by("canary")), (3, 0));
        assert_eq!(summary.failed, BTreeMap::from([("status 503".into(), 1)]));
        let ms = Duration::from_millis;
        assert_eq!(summary.latencies, Some(Latencies { median: ms(2), p99: ms(3), longest: ms(3) }));
    }

    #[test]
    fn without_an_answer_there_is_no_latency() {
        assert_eq!(Summary::of(&[record(1, Outcome::Refused)]).latencies, None);
    }

    #[test]
    fn ports_go_round_over_all_sources_and_repeat_last() {
        let sources: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut ports = Ports { sources, next: 0 };
        let all: std::collections::HashSet<SocketAddr> = (0..2 * 64_512).map(|_| ports.take()).collect();
        assert_eq!(all.len(), 2 * 64_512);
        assert!(all.contains(&ports.take()));
    }

    fn record(ms: u64, outcome: Outcome) -> Record {
        let local = SocketAddr::from(([10, 0, 0, 1], 1024));
        Record { begun: Duration::ZERO, local, connected: None, took: Duration::from_millis(ms), outcome }
    }
}
