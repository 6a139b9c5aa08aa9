//! The programs that talk through the splitter, and what they say.
//!
//! Each client has to get what it asked for, or the recording fails: what isn't installed or doesn't work is never passed over.

use std::{fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::Stage;
use crate::{
    oracle::Protocol,
    workload::tools::{QUIC_BIG, WrkLoad, program, wrk},
};

/// How long one client may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How curl is told that a server without TLS speaks HTTP/2.
const HTTP2_KNOWN: [&str; 1] = ["--http2-prior-knowledge"];
/// iperf3 serves one test at a time, and the last one ends a moment after its client.
const BUSY: (usize, Duration) = (50, Duration::from_millis(100));

/// What redis-benchmark does: each command in turn, in bulk, and a connection for each.
const REDIS: [&[&str]; 3] =
    [&["-n", "200", "-c", "8"], &["-n", "400", "-c", "4", "-P", "16"], &["-n", "40", "-c", "4", "-k", "0"]];
/// What iperf3 does; the last in datagrams of three fragments.
const IPERF3: [&[&str]; 5] = [
    &["--bytes", "1M"],
    &["--bytes", "1M", "--reverse", "--parallel", "2"],
    &["--udp", "--bytes", "300K", "--length", "1200", "--bitrate", "20M"],
    &["--udp", "--bytes", "300K", "--length", "1200", "--bitrate", "20M", "--reverse"],
    &["--udp", "--bytes", "100K", "--length", "4000", "--bitrate", "10M"],
];

/// Something that a client does.
pub(super) type Step<'a> = Box<dyn Fn() -> Result<()> + 'a>;

/// A program that talks through a splitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// curl and nginx, HTTP/1.1.
    Http1,
    /// curl and nginx, HTTP/2 without TLS.
    Http2,
    /// curl and nginx, HTTP/2 and HTTP/1.1 over TLS.
    Tls,
    /// dig and dnsmasq: UDP, TCP, and answers in fragments.
    Dns,
    /// redis-benchmark and redis.
    Redis,
    /// iperf3: TCP and UDP, both ways, and datagrams in fragments.
    Iperf3,
    /// ssh and sshd.
    Ssh,
    /// wrk and nginx.
    Wrk,
    /// HTTP/3: ngtcp2's client and server.
    Quic,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Http1, Self::Http2, Self::Tls, Self::Dns, Self::Redis, Self::Iperf3, Self::Ssh, Self::Wrk, Self::Quic];

    /// What it's called in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "curl-http1",
            Self::Http2 => "curl-http2",
            Self::Tls => "curl-tls",
            Self::Dns => "dig-dnsmasq",
            Self::Redis => "redis",
            Self::Iperf3 => "iperf3",
            Self::Ssh => "ssh",
            Self::Wrk => "wrk",
            Self::Quic => "quic",
        }
    }

    /// The services that it needs, by protocol and port.
    #[must_use]
    pub const fn services(self) -> &'static [(Protocol, u16)] {
        match self {
            Self::Http1 | Self::Wrk => &[(Protocol::Tcp, 80)],
            Self::Http2 => &[(Protocol::Tcp, 81)],
            Self::Tls => &[(Protocol::Tcp, 443)],
            Self::Dns => &[(Protocol::Udp, 53), (Protocol::Tcp, 53)],
            Self::Redis => &[(Protocol::Tcp, 6379)],
            Self::Iperf3 => &[(Protocol::Tcp, 5201), (Protocol::Udp, 5201)],
            Self::Ssh => &[(Protocol::Tcp, 22)],
            Self::Quic => &[(Protocol::Udp, 443)],
        }
    }

    /// What its client does, one after the other.
    pub(super) fn steps(self, stage: &Stage, target: SocketAddr) -> Vec<Step<'_>> {
        match self {
            Self::Http1 => http(stage, "http", target, &["--http1.1"], "1.1"),
            Self::Http2 => http(stage, "http", target, &HTTP2_KNOWN, "2"),
            Self::Tls => {
                let mut steps = http(stage, "https", target, &["--insecure", "--http2"], "2");
                steps.extend(http(stage, "https", target, &["--insecure", "--http1.1"], "1.1"));
                steps
            }
            Self::Dns => vec![Box::new(move || dns(stage, target))],
            Self::Redis => REDIS.iter().map(|how| -> Step<'_> { Box::new(move || redis(stage, target, how)) }).collect(),
            Self::Iperf3 => IPERF3.iter().map(|how| -> Step<'_> { Box::new(move || iperf3(stage, target, how)) }).collect(),
            Self::Ssh => vec![
                Box::new(move || (0..2).try_for_each(|_| ssh(stage, target, "true", None, 0))),
                Box::new(move || ssh(stage, target, "head -c 100000 /dev/zero | tr '\\0' x", None, 100_000)),
                Box::new(move || ssh(stage, target, "wc -c | tr -dc 0-9", Some(&"y".repeat(100_000)), "100000".len())),
            ],
            Self::Wrk => vec![Box::new(move || load(stage, target, false)), Box::new(move || load(stage, target, true))],
            Self::Quic => vec![Box::new(move || quic(stage, target)), Box::new(move || quic(stage, target))],
        }
    }
}

/// Runs a client to its end; what it printed.
fn run(stage: &Stage, name: &str, package: &'static str, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let mut command = program(name, package)?;
    command.args(arguments);
    let (status, stdout, stderr, line) = stage.client().output(command, input, LIMIT)?;
    ensure!(status.success(), "{line} ended with {status}: {} {}", stderr.trim(), stdout.trim());
    Ok(stdout)
}

fn http<'a>(
    stage: &'a Stage,
    scheme: &'static str,
    target: SocketAddr,
    how: &'static [&'static str],
    version: &'static str,
) -> Vec<Step<'a>> {
    let fetch =
        move |more: &[&str], paths: &[&str]| curl(stage, &format!("{scheme}://{target}"), &[how, more].concat(), paths, version);
    let mut steps: Vec<Step<'a>> =
        vec![Box::new(move || (0..4).try_for_each(|_| fetch(&[], &["/"]))), Box::new(move || fetch(&[], &["/1M"]))];
    if version == "1.1" {
        // In HTTP/2 nginx answers at once, and resets the stream.
        steps.push(Box::new(move || {
            let upload = tempfile::NamedTempFile::new()?;
            fs::write(upload.path(), vec![b'u'; 200_000])?;
            fetch(&["--data-binary", &format!("@{}", upload.path().display())], &["/"])
        }));
    }
    if how != HTTP2_KNOWN {
        // curl 7.88 fails at the second request of such a connection, without a splitter too.
        steps.push(Box::new(move || fetch(&[], &["/", "/", "/"])));
        steps.push(Box::new(move || fetch(&["--parallel"], &["/", "/1M", "/", "/"])));
    }
    steps
}

fn curl(stage: &Stage, base: &str, more: &[&str], paths: &[&str], version: &str) -> Result<()> {
    let mut arguments = vec!["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
    arguments.extend(["--write-out", "%{http_code} %{http_version}\n"]);
    arguments.extend(more);
    let urls: Vec<_> = paths.iter().map(|path| format!("{base}{path}")).collect();
    arguments.extend(urls.iter().flat_map(|url| ["--output", "/dev/null", url.as_str()]));
    let told = run(stage, "curl", "curl", &arguments, None)?;
    let wanted = format!("200 {version}");
    ensure!(told.lines().count() == urls.len() && told.lines().all(|line| line == wanted), "curl got {told:?}, not {wanted:?}");
    Ok(())
}

fn dns(stage: &Stage, target: SocketAddr) -> Result<()> {
    let (server, port) = (format!("@{}", target.ip()), target.port().to_string());
    let ask = |question: &[&str], answer: &str| -> Result<()> {
        let mut arguments = vec![server.as_str(), "-p", &port, "+tries=3", "+time=3"];
        arguments.extend(question);
        let told = run(stage, "dig", "bind9-dnsutils", &arguments, None)?;
        ensure!(told.contains(answer), "dig {question:?} got {told:?}");
        Ok(())
    };
    for _ in 0..4 {
        ask(&["short.lab.test", "A"], "192.0.2.1")?;
        ask(&["short.lab.test", "AAAA"], "2001:db8::1")?;
    }
    ask(&["text.lab.test", "TXT", "+tcp"], "hello")?;
    ask(&["nothing.lab.test", "A"], "REFUSED")?;
    // Too long for the client's buffer, so it asks again by TCP.
    ask(&["long.lab.test", "TXT"], "(TCP)")?;
    // Too long for a packet.
    ask(&["long.lab.test", "TXT", "+bufsize=4096"], "(UDP)")
}

fn redis(stage: &Stage, target: SocketAddr, how: &[&str]) -> Result<()> {
    let (host, port) = (target.ip().to_string(), target.port().to_string());
    let mut arguments = vec!["-h", &host, "-p", &port, "-q", "-d", "200", "-t", "set,get,lpush"];
    arguments.extend(how);
    let told = run(stage, "redis-benchmark", "redis-tools", &arguments, None)?;
    ensure!(told.matches("requests per second").count() >= 3, "redis-benchmark {how:?} said {told:?}");
    Ok(())
}

fn iperf3(stage: &Stage, target: SocketAddr, how: &[&str]) -> Result<()> {
    let (host, port) = (target.ip().to_string(), target.port().to_string());
    let mut arguments = vec!["--client", &host, "--port", &port, "--json", "--connect-timeout", "5000"];
    arguments.extend(how);
    let mut told = run(stage, "iperf3", "iperf3", &arguments, None);
    for _ in 0..BUSY.0 {
        match &told {
            Err(error) if error.to_string().contains("busy") => thread::sleep(BUSY.1),
            Ok(_) | Err(_) => break,
        }
        told = run(stage, "iperf3", "iperf3", &arguments, None);
    }
    let told: serde_json::Value = serde_json::from_str(&told?).context("iperf3's report")?;
    let moved = ["sum_received", "sum"].iter().find_map(|sum| told["end"][sum]["bytes"].as_f64());
    ensure!(moved.is_some_and(|bytes| bytes > 0.0), "iperf3 {how:?} moved nothing: {}", told["end"]);
    Ok(())
}

fn ssh(stage: &Stage, target: SocketAddr, command: &str, input: Option<&str>, answer: usize) -> Result<()> {
    let (who, port) = (format!("root@{}", target.ip()), target.port().to_string());
    let key = stage.ssh_key()?.display().to_string();
    let mut arguments = vec!["-F", "/dev/null", "-i", &key, "-p", &port, "-o", "StrictHostKeyChecking=no"];
    arguments.extend(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
    arguments.extend([who.as_str(), command]);
    let told = run(stage, "ssh", "openssh-client", &arguments, input)?;
    ensure!(told.len() == answer, "ssh {command:?} got {} octets, not {answer}", told.len());
    Ok(())
}

fn load(stage: &Stage, target: SocketAddr, close: bool) -> Result<()> {
    let load = WrkLoad { target, connections: 8, threads: 1, duration: Duration::from_secs(1), close };
    let report = wrk(stage.client(), load, "/")?;
    ensure!(report.requests > 0 && report.connect_errors == 0, "wrk: {report:?}");
    Ok(())
}

fn quic(stage: &Stage, target: SocketAddr) -> Result<()> {
    let (host, port) = (target.ip().to_string(), target.port().to_string());
    let files = tempfile::tempdir()?;
    let (into, url) = (format!("--download={}", files.path().display()), format!("https://{target}/big"));
    let arguments = ["--quiet", "--exit-on-all-streams-close", "--timeout=5s", &into, &host, &port, &url];
    let told = run(stage, "gtlsclient", "ngtcp2-client", &arguments, None)?;
    // It ends well whatever happened.
    match fs::metadata(files.path().join("big")) {
        Ok(file) if file.len() == QUIC_BIG as u64 => Ok(()),
        other => bail!("gtlsclient got {other:?}, not {QUIC_BIG} octets, and said {told:?}"),
    }
}
