//! What can be wrong with backends, done to them for real.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use splitter_user::model::Cohort;

use super::{
    delay::Delay,
    filter::{Fate, Filter},
};
use crate::{
    lab::{LabError, Namespace, Process, Result},
    node::{Family, Kind as Served, Server, Site},
    workload::{Identity, http},
};

/// The binary that serves as a process of its own.
const SERVER: &str = "web-backend";
/// How long a slow backend makes a SYN wait.
const SLOW: Duration = Duration::from_millis(200);

/// A fault of backends that serve HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing listens: the canary's kernel answers a SYN with a RST
    Refuse,
    /// Packets to the canary vanish
    Blackhole,
    /// The canary's kernel sees each SYN 200 ms late
    Slow,
    /// The canary accepts, and resets the connection at the first byte that it gets
    Reset,
    /// The canary's process is killed with SIGKILL
    Killed,
    /// Packets to the canary are answered with ICMP host unreachable
    Unreachable,
    /// One of the canary's two backends refuses
    Half,
    /// Stable and canary refuse alike, and the breaker compares them
    Both,
}

impl Kind {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Blackhole => "blackhole",
            Self::Slow => "slow",
            Self::Reset => "reset",
            Self::Killed => "killed",
            Self::Unreachable => "unreachable",
            Self::Half => "half",
            Self::Both => "both",
        }
    }

    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Refuse => "nothing listens at the canary any more",
            Self::Blackhole => "packets to the canary vanish",
            Self::Slow => "the canary accepts 200 ms late",
            Self::Reset => "the canary resets connections at their first byte",
            Self::Killed => "the canary's process is killed",
            Self::Unreachable => "packets to the canary get ICMP host unreachable",
            Self::Half => "one of the canary's two backends refuses",
            Self::Both => "stable and canary refuse alike",
        }
    }

    /// How many canaries it takes.
    #[must_use]
    pub const fn canaries(self) -> usize {
        if matches!(self, Self::Half) { 2 } else { 1 }
    }

    fn befalls(self, server: &Server) -> bool {
        match self {
            Self::Both => true,
            Self::Half => server.identity.name == "canary1",
            Self::Refuse | Self::Blackhole | Self::Slow | Self::Reset | Self::Killed | Self::Unreachable => {
                server.cohort == Cohort::Canary
            }
        }
    }
}

/// A fault, prepared or begun. What it has changed in the kernel is as before when it's dropped; servers stay as they are.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    processes: Vec<Process>,
    filters: Vec<Filter>,
    delays: Vec<Delay>,
}

impl Fault {
    /// Prepares one for a site that serves HTTP; nothing is wrong yet.
    ///
    /// # Errors
    /// When a server cannot be put in another's place.
    pub fn prepare(kind: Kind, site: &mut Site) -> Result<Self> {
        let mut fault = Self { kind, processes: Vec::new(), filters: Vec::new(), delays: Vec::new() };
        if kind == Kind::Killed {
            for server in site.servers.iter_mut().filter(|server| kind.befalls(server)) {
                // Its sockets are closed before another process can have them.
                server.web = None;
                fault.processes.push(start(server)?);
            }
        }
        Ok(fault)
    }

    /// From the return on it's in force.
    ///
    /// # Errors
    /// When it can't be done.
    pub fn begin(&mut self, site: &Site) -> Result<()> {
        let kind = self.kind;
        for server in site.servers.iter().filter(|server| kind.befalls(server)) {
            let port = server.backend(Served::Web, Family::V4).port();
            let filter = |fate| Filter::set(&server.namespace, port, fate);
            match kind {
                Kind::Refuse | Kind::Half | Kind::Both => server.set_web(http::Mode::Refuse)?,
                Kind::Reset => server.set_web(http::Mode::Reset)?,
                Kind::Blackhole => self.filters.push(filter(Fate::Vanish)?),
                Kind::Unreachable => self.filters.push(filter(Fate::Unreachable)?),
                Kind::Slow => self.delays.push(Delay::start(&server.namespace, port, SLOW)?),
                Kind::Killed => {}
            }
        }
        self.processes.iter_mut().for_each(Process::kill);
        Ok(())
    }
}

/// A server's HTTP as a process of its own.
fn start(server: &Server) -> Result<Process> {
    let mut command = Command::new(binary()?);
    command.args([server.namespace.name(), &server.identity.version, &server.identity.name]);
    command.args(server.listens(Served::Web).map(|address| address.to_string())).stdout(Stdio::piped());
    let mut process = server.namespace.spawn(command)?;
    let out = process.child_mut().stdout.take().expect("its standard output is a pipe");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).map_err(LabError::io("read from a server"))?;
    match line.as_str() {
        READY => Ok(process),
        said => Err(LabError::Unexpected { what: format!("server {}", server.identity), why: format!("it said {said:?}") }),
    }
}

/// What a server's process says when it listens.
const READY: &str = "ready\n";

/// The process's own part: serves until it is killed.
///
/// # Errors
/// When it can't listen.
pub fn serve(namespace: &str, identity: Identity, addresses: &[SocketAddr]) -> Result<()> {
    let namespace = Namespace::open("server", namespace.into())?;
    let _server = http::Server::start(&namespace, identity, addresses)?;
    print!("{READY}");
    loop {
        std::thread::park();
    }
}

/// Beside the tests' own, or above: tests are in `target/<profile>/deps`, binaries in `target/<profile>`.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(LabError::io("find this program's own path"))?;
    let found = own.ancestors().skip(1).map(|directory| directory.join(SERVER)).find(|path| path.is_file());
    found.ok_or_else(|| LabError::Unexpected {
        what: format!("the binary {SERVER}"),
        why: format!("not built; build it with `cargo build --package splitter-tests --bin {SERVER}`"),
    })
}
