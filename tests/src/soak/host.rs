//! A backend that is a process: it can be killed, stopped, and started again.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use splitter_user::model::{Cohort, Mode};

use super::rules::Served;
use crate::{
    lab::{Addresses, Backend, LabError, Namespace, Process, Result, SERVICE},
    node::{FAMILIES, Family, Kind},
    workload::{Identity, http, tcp_echo, udp_echo},
};

/// What the binary is told to be a backend.
pub const SERVE: &str = "serve";
/// What a backend's process says when it listens.
const READY: &str = "ready\n";

/// A backend of all services.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its version.
    pub cohort: Cohort,
    /// Where it is.
    pub namespace: Namespace,
    /// Its own addresses.
    pub address: Addresses,
    /// The switch's end of its link.
    pub port: String,
    process: Option<Process>,
}

impl Host {
    /// The backend at the switch's port of this number, counted from 1, not started.
    #[must_use]
    pub fn new(backend: &Backend, number: usize) -> Self {
        let cohort = if backend.name.starts_with("canary") { Cohort::Canary } else { Cohort::Stable };
        Self {
            name: backend.name.clone(),
            cohort,
            namespace: backend.namespace.clone(),
            address: backend.address,
            port: format!("b{number}"),
            process: None,
        }
    }

    /// What a service's backend is called in the configuration.
    #[must_use]
    pub fn backend(&self, served: Served) -> SocketAddr {
        SocketAddr::new(served.family.of(self.address), backend_port(served.kind, served.mode))
    }

    /// Starts its process, and waits until it listens.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn start(&mut self) -> Result<()> {
        // Whoever is about to become the backend is this program until then, even if its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.args([SERVE, self.namespace.name(), self.cohort.as_str(), &self.name]).stdout(Stdio::piped());
        command.args([self.address.v4.to_string(), self.address.v6.to_string()]);
        let mut process = self.namespace.spawn(command)?;
        let out = process.child_mut().stdout.take().expect("its standard output is a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(LabError::io("read from a backend"))?;
        if line != READY {
            return Err(LabError::Unexpected { what: format!("backend {}", self.name), why: format!("it said {line:?}") });
        }
        self.process = Some(process);
        Ok(())
    }

    /// Kills its process and waits for its end.
    pub fn kill(&mut self) {
        // A process is killed when it's dropped.
        drop(self.process.take());
    }

    /// Sends its process a signal.
    ///
    /// # Errors
    /// When it's gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.process {
            Some(process) => process.signal(signal),
            None => Err(LabError::Unexpected { what: format!("backend {}", self.name), why: "it was killed".into() }),
        }
    }
}

/// The port that clients connect to. Services of both modes have the same address.
#[must_use]
pub const fn service_port(kind: Kind, mode: Mode) -> u16 {
    match (kind, mode) {
        (Kind::Web, Mode::Nat) => 80,
        (Kind::Web, Mode::Dsr) => 81,
        (Kind::Echo, Mode::Nat) => 7,
        (Kind::Echo, Mode::Dsr) => 8,
        (Kind::Udp, Mode::Nat) => 53,
        (Kind::Udp, Mode::Dsr) => 54,
    }
}

/// The port that backends listen on: another one in `nat` mode.
const fn backend_port(kind: Kind, mode: Mode) -> u16 {
    match mode {
        Mode::Nat => 8_000 + service_port(kind, mode),
        Mode::Dsr => service_port(kind, mode),
    }
}

/// The process's own part: serves until it is killed.
///
/// # Errors
/// The arguments are wrong, or it can't listen.
pub fn serve(arguments: &[String]) -> Result<()> {
    let wrong = || LabError::Unexpected { what: format!("{SERVE} {arguments:?}"), why: "not what a backend is told".into() };
    let [namespace, version, name, v4, v6] = arguments else { return Err(wrong()) };
    let own = Addresses { v4: v4.parse().map_err(|_| wrong())?, v6: v6.parse().map_err(|_| wrong())? };
    let namespace = Namespace::open("backend", namespace.clone())?;
    let identity = Identity::new(version, name);
    let listens = |kind| {
        let of = |mode, addresses| FAMILIES.map(|family: Family| SocketAddr::new(family.of(addresses), backend_port(kind, mode)));
        [of(Mode::Nat, own), of(Mode::Dsr, SERVICE)].concat()
    };
    let _web = http::Server::start(&namespace, identity.clone(), &listens(Kind::Web))?;
    let _echo = tcp_echo::Server::start(&namespace, &identity, &listens(Kind::Echo))?;
    let _udp = udp_echo::Server::start(&namespace, &identity, &listens(Kind::Udp))?;
    print!("{READY}");
    loop {
        std::thread::park();
    }
}
