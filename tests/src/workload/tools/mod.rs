//! Other people's servers and clients, in a lab's namespaces.
//!
//! A program that is not installed is an error that names its Debian package, never a reason to skip.

mod clients;
mod nginx;
mod prometheus;
mod servers;

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

pub use self::{
    clients::{CurlAnswer, WrkLoad, WrkReport, curl, promtool_check_metrics, wrk},
    nginx::{Nginx, Speaks},
    prometheus::{Prometheus, Sample},
    servers::{QUIC_BIG, Server, SshKeys, TlsKey, dnsmasq, iperf3, quic, redis, sshd},
};
use crate::lab::{LabError, Namespace, Process, Result};

/// How long a server may take to come up.
const COMES_UP: Duration = Duration::from_secs(20);

/// A command for a program that must be installed.
pub(crate) fn program(name: &str, package: &'static str) -> Result<Command> {
    let mut version = Command::new("sh");
    version.args(["-c", "command -v \"$0\"", name]).env("PATH", path());
    let found = version.output().map_err(LabError::io("start sh"))?;
    if !found.status.success() {
        return Err(LabError::MissingProgram { program: name.into(), package });
    }
    let mut command = Command::new(String::from_utf8_lossy(&found.stdout).trim());
    // Nothing from outside is to steer it: a proxy has no place in a namespace.
    command.env_clear().env("PATH", path()).env("HOME", "/nonexistent").env("LC_ALL", "C");
    Ok(command)
}

/// Daemons are not in every user's path.
fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", std::env::var("PATH").unwrap_or_default())
}

/// Waits until a server says it is ready; `log` is what it wrote, for when it does not.
pub(crate) fn comes_up(
    namespace: &Namespace,
    what: &str,
    process: &mut Process,
    log: &std::path::Path,
    ready: impl Fn() -> io::Result<()> + Sync,
) -> Result<()> {
    let deadline = Instant::now() + COMES_UP;
    let unexpected = |why: String| {
        let log = std::fs::read_to_string(log).unwrap_or_else(|error| format!("(its log: {error})"));
        LabError::Unexpected { what: format!("{what} in {}", namespace.name()), why: format!("{why}; it wrote: {}", log.trim()) }
    };
    loop {
        if !process.runs()? {
            return Err(unexpected("it ended".into()));
        }
        match namespace.enter(&ready)? {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(unexpected(format!("not ready within {COMES_UP:?}: {error}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_that_names_its_package() {
        let error = program("no-such-program", "its-package").expect_err("there is no such program").to_string();
        assert_eq!(error, "\"no-such-program\" is not installed; on Debian: apt-get install its-package");
    }

    #[test]
    fn a_present_program_is_found() {
        assert_eq!(
            program("sh", "dash").expect("every machine has one").get_program().to_string_lossy().rsplit('/').next(),
            Some("sh")
        );
    }
}
