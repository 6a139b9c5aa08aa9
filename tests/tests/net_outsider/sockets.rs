//! The API's socket and the metrics' port, by those who mean no good: afterwards, and meanwhile, the agent answers at once, and is no larger.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::Topology,
    node::{Family, Kind, METRICS, Site},
};
use splitter_user::model::Mode;

/// Four times what the agent serves at a time.
const MANY: usize = 1_000;
/// "At once" on a machine whose processors others want as well, behind a thousand requests that are answered. A client that holds a place would keep it for 30 s.
const AT_ONCE: Duration = Duration::from_secs(15);
/// More than any of this leaves, less than what holds on to a flood would.
const GROWTH_KIB: u64 = 64 << 10;
/// Two servers' 256 connections each, and what the agent has open besides.
const DESCRIPTORS: usize = 700;
const PATIENCE: Duration = Duration::from_secs(20);

/// A way in.
trait Door: Copy + Send + Sync {
    type Stream: Read + Write + Send;
    fn knock(self, site: &Site) -> io::Result<Self::Stream>;
    /// Something that it answers.
    const GOOD: &'static str;
    /// Something that comes with a body: a method and a path.
    const BODY: &'static str;
}

#[derive(Clone, Copy)]
struct Api;

impl Door for Api {
    type Stream = UnixStream;
    const GOOD: &'static str = "GET /v1/status HTTP/1.1\r\nhost: agent\r\n\r\n";
    const BODY: &'static str = "PUT /v1/services/web4/weight HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json";

    fn knock(self, site: &Site) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(site.node.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

#[derive(Clone, Copy)]
struct Metrics;

impl Door for Metrics {
    type Stream = TcpStream;
    const GOOD: &'static str = "GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n";
    const BODY: &'static str = "POST /metrics HTTP/1.1\r\nhost: node";

    fn knock(self, site: &Site) -> io::Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&METRICS, PATIENCE);
        let stream = site.node.namespace().enter(connect).map_err(io::Error::other)??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

#[test]
fn the_api_answers_at_once_whatever_others_send_to_its_socket() {
    beset(Api);
}

#[test]
fn the_metrics_are_served_at_once_whatever_others_send_to_their_port() {
    beset(Metrics);
}

fn beset<D: Door>(door: D) {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    let pid = site.node.status().expect("a status").agent.pid;
    // Allocators keep what they have had once.
    let mut warm = door.knock(&site).expect("it is open");
    answers(&mut warm, D::GOOD);
    let before = resident(pid);

    let (good, body) = (D::GOOD.trim_end(), D::BODY);
    let huge = "x".repeat(1 << 20);
    for (what, request, expected) in [
        ("no HTTP", "\u{1}\u{2}\u{3} no HTTP at all\r\n\r\n".to_owned(), Some("400")),
        ("a TLS client", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(), Some("400")),
        ("a line without end", huge.clone(), None),
        ("a header of a megabyte", format!("{good}\r\nx: {huge}\r\n\r\n"), Some("431")),
        ("ten thousand headers", format!("{good}\r\n{}\r\n", "a: b\r\n".repeat(10_000)), Some("431")),
        ("a body said to be of a terabyte", format!("{body}\r\ncontent-length: 1099511627776\r\n\r\n{huge}"), None),
        ("a length that is none", format!("{body}\r\ncontent-length: -1\r\n\r\n"), Some("400")),
        ("two lengths", format!("{body}\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabc"), Some("400")),
        ("a path that climbs", "GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), Some("404")),
        ("octets that are no text", format!("GET /{}\u{ff}%00%ff HTTP/1.1\r\nhost: a\r\n\r\n", "%2e".repeat(99)), None),
    ] {
        let mut stream = door.knock(&site).expect("it is open");
        // It may be closed before all is written: then there is nothing to be read either, or the answer.
        let written = stream.write_all(request.as_bytes());
        let answer = answer_of(&mut stream);
        if let (Some(expected), Ok(())) = (expected, &written) {
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{what}: {answer:?}");
        }
        assert!(!answer.starts_with("HTTP/1.1 2"), "{what}: {answer:?}");
        serves(door, &site, what);
    }

    // One after the other in the same breath, of which no answer is read.
    let mut pipelined = door.knock(&site).expect("it is open");
    let refused = (0..10_000).find_map(|_| pipelined.write_all(D::GOOD.repeat(100).as_bytes()).err());
    assert!(refused.is_some(), "a million requests and no answer read: somebody must wait, and it isn't the agent");
    serves(door, &site, "answers that nobody takes");

    // Many at a time that say nothing, half of it, or all but the end of a body; and each of them has a place until somebody wants it.
    for (what, said) in [
        ("nothing", String::new()),
        ("half a request", D::GOOD[..D::GOOD.len() - 2].to_owned()),
        ("a body that never ends", format!("{body}\r\ncontent-length: 64\r\n\r\n{{")),
        ("a request of which no answer is read", D::GOOD.to_owned()),
    ] {
        let held: Vec<D::Stream> = (0..MANY)
            .map(|number| {
                let mut stream = door.knock(&site).unwrap_or_else(|error| panic!("{what}, {number}: {error}"));
                // Who has made room for others is told so by a broken pipe.
                if let Err(error) = stream.write_all(said.as_bytes()) {
                    assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
                }
                stream
            })
            .collect();
        serves(door, &site, &format!("{MANY} that say {what}"));
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        assert!(open < DESCRIPTORS, "{what}: {open} descriptors");
        drop(held);
        serves(door, &site, &format!("after {MANY} that said {what}"));
    }

    drop((warm, pipelined));
    let after = resident(pid);
    println!("resident: {before} KiB before, {after} KiB after");
    assert!(after < before + GROWTH_KIB, "it has grown from {before} to {after} KiB");
    let summary = site.web_load(Family::V4, 100).expect("a load").summary();
    assert_eq!(summary.all_answered(), 100, "{summary:?}");
}

/// The agent answers at once, by this door and by the other.
fn serves<D: Door>(door: D, site: &Site, what: &str) {
    let begun = Instant::now();
    let mut stream = door.knock(site).unwrap_or_else(|error| panic!("{what}: {error}"));
    answers(&mut stream, D::GOOD);
    let took = begun.elapsed();
    assert!(took < AT_ONCE, "{what}: an answer took {took:?}");
    let begun = Instant::now();
    site.node.service(&Kind::Web.service(Family::V4)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(site.node.http("/healthz").unwrap_or_else(|error| panic!("{what}: {error}")).0, 200, "{what}");
    assert!(begun.elapsed() < AT_ONCE, "{what}: {:?}", begun.elapsed());
}

fn answers(stream: &mut (impl Read + Write), request: &str) {
    stream.write_all(request.as_bytes()).expect("it takes requests");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("it answers");
    assert_eq!(&head, b"HTTP/1.1 200");
}

/// What comes until the end, or until nothing comes any more; lossily.
fn answer_of(stream: &mut impl Read) -> String {
    let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..length]);
        if answer.len() > 1 << 16 || answer.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Memory of a process that is there, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
