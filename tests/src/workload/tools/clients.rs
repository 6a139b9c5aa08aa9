//! curl, wrk and promtool.

use std::{fs, net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::program;
use crate::{
    lab::{LabError, Namespace, Result},
    workload::http::{BACKEND_HEADER, VERSION_HEADER},
};

/// How much longer than it was told to a program may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// What curl got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurlAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The local address and port of the connection.
    pub local: SocketAddr,
    /// The header `x-version`, empty without one.
    pub version: String,
    /// The header `x-backend`, empty without one.
    pub backend: String,
    /// The body.
    pub body: String,
}

/// Fetches a page with curl.
///
/// # Errors
/// When curl is not installed, or fails: its message and its exit code tell of what (7 is a refused connection).
pub fn curl(namespace: &Namespace, target: SocketAddr, path: &str, limit: Duration) -> Result<CurlAnswer> {
    let mut command = program("curl", "curl")?;
    let format =
        format!("\n%{{http_code}}\t%{{local_ip}}\t%{{local_port}}\t%header{{{VERSION_HEADER}}}\t%header{{{BACKEND_HEADER}}}");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--write-out", &format]);
    command.args(["--max-time", &limit.as_secs_f64().to_string(), &format!("http://{target}{path}")]);
    let output = namespace.run(command)?;
    let answer = || {
        let (body, line) = output.rsplit_once('\n')?;
        let mut fields = line.split('\t');
        let status = fields.next()?.parse().ok()?;
        let local = SocketAddr::new(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(CurlAnswer { status, local, version: fields.next()?.into(), backend: fields.next()?.into(), body: body.into() })
    };
    answer().ok_or_else(|| LabError::Unexpected { what: "curl".into(), why: format!("it wrote {output:?}") })
}

/// A load by wrk.
#[derive(Clone, Copy, Debug)]
pub struct WrkLoad {
    /// Where to.
    pub target: SocketAddr,
    /// Connections at a time.
    pub connections: u32,
    /// Threads.
    pub threads: u32,
    /// How long; wrk takes whole seconds, so it is rounded up.
    pub duration: Duration,
    /// Whether each request gets a connection of its own.
    pub close: bool,
}

/// What wrk says of a load.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct WrkReport {
    /// Answered requests.
    pub requests: u64,
    /// How long it really took, in microseconds.
    pub duration_us: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// Half of the requests took no longer, in microseconds.
    pub median_us: f64,
    /// 99% of the requests took no longer, in microseconds.
    pub p99_us: f64,
    /// Connections that could not be opened.
    pub connect_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Requests answered with a status above 399.
    pub status_errors: u64,
    /// Requests that took longer than two seconds.
    pub timeouts: u64,
}

impl WrkReport {
    /// All that went wrong.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.connect_errors + self.read_errors + self.write_errors + self.status_errors + self.timeouts
    }
}

/// wrk's own text rounds its figures; its script interface has them whole.
const WRK_SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nsummary {"requests":%d,"duration_us":%d,"bytes":%d,"median_us":%.1f,"p99_us":%.1f,"connect_errors":%d,' ..
    '"read_errors":%d,"write_errors":%d,"status_errors":%d,"timeouts":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99), e.connect,
    e.read, e.write, e.status, e.timeout))
end
"#;

/// Runs a load of wrk on `/` or another path to its end.
///
/// # Errors
/// When wrk is not installed or fails.
pub fn wrk(namespace: &Namespace, load: WrkLoad, path: &str) -> Result<WrkReport> {
    let mut command = program("wrk", "wrk")?;
    let script = tempfile::Builder::new().suffix(".lua").tempfile().map_err(LabError::io("make a file"))?;
    fs::write(script.path(), WRK_SCRIPT).map_err(LabError::io("write wrk's script"))?;
    let seconds = load.duration.as_secs() + u64::from(load.duration.subsec_nanos() > 0);
    command.args(["-c", &load.connections.to_string(), "-t", &load.threads.to_string()]);
    command.args(["-d", &format!("{seconds}s"), "-s"]).arg(script.path());
    if load.close {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{}{path}", load.target));
    let (status, stdout, stderr, name) = namespace.output(command, None, Duration::from_secs(seconds) + GRACE)?;
    if !status.success() {
        return Err(LabError::Command { command: name, status, stderr: format!("{} {}", stderr.trim(), stdout.trim()) });
    }
    let unexpected = |why| LabError::Unexpected { what: "wrk".into(), why };
    let line = stdout.lines().find_map(|line| line.strip_prefix("summary "));
    let line = line.ok_or_else(|| unexpected(format!("no summary in {stdout:?}")))?;
    serde_json::from_str(line).map_err(|error| unexpected(format!("{error} in {line:?}")))
}

/// Lets `promtool check metrics` look at a page of metrics.
///
/// # Errors
/// When promtool is not installed, or with what it finds fault with.
pub fn promtool_check_metrics(namespace: &Namespace, page: &str) -> Result<()> {
    let mut command = program("promtool", "prometheus")?;
    command.args(["check", "metrics"]);
    let (status, stdout, stderr, name) = namespace.output(command, Some(page), GRACE)?;
    // It warns of some faults and exits with 0 all the same.
    if status.success() && stderr.trim().is_empty() && stdout.trim().is_empty() {
        return Ok(());
    }
    Err(LabError::Command { command: name, status, stderr: format!("{} {}", stderr.trim(), stdout.trim()) })
}
