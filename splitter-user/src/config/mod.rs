//! The configuration file: TOML as written, then the validated model.
//!
//! Data flows one way: `document` reads the text into values that know their place, `sections` and `rollout` read
//! each value by itself, `validate` puts them together, and [`rules`] says what must hold between them. Commands that change a
//! service at run time are held to the same rules. Every problem of a file is reported, not only the first.

mod document;
mod error;
mod rollout;
pub mod rules;
pub mod schema;
mod sections;
mod step;
mod validate;
mod values;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::{ConfigError, Mark, Problem};

use crate::model::{Notify, Service};

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How the agent runs.
    pub agent: Agent,
    /// What `nat` connections use toward backends.
    pub nat: Nat,
    /// How much the data plane's tables hold.
    pub tables: Tables,
    /// Who is told what happens, in the order of the file.
    pub notify: Vec<Notify>,
    /// What is split, in the order of the file.
    pub services: Vec<Service>,
}

/// `[agent]`: how the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Interfaces that the program is attached to: at least one, none twice.
    pub interfaces: Vec<String>,
    /// Where in the kernel the program runs.
    pub xdp_mode: XdpMode,
    /// The unix socket of the API.
    pub socket: PathBuf,
    /// The group that may use the socket, besides root.
    pub socket_group: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where the agent keeps what it was asked.
    pub state_directory: PathBuf,
    /// Where maps and links are pinned.
    pub pin_directory: PathBuf,
    /// How often counters are read and limits are checked.
    pub sample_interval: Duration,
    /// Whether the data plane is taken away when the agent stops.
    pub detach_on_stop: bool,
    /// How long the data plane takes the agent to be alive after each sign of life. At least three samples.
    pub lease: Duration,
    /// What an agent does that finds that its lease had run out.
    pub resume: Resume,
}

/// What becomes of a service that went to stable because the agent's lease had run out, when an agent is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Its weight counts again.
    Auto,
    /// It stays on stable, flipped, until somebody takes that back.
    Manual,
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's generic hook, behind the driver: works everywhere, slowly.
    Generic,
    /// In the driver where it can, else generic, with a warning.
    Auto,
}

/// `[nat]`: what `nat` connections use toward backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Source addresses; empty: the node's own toward each backend.
    pub addresses: Vec<IpAddr>,
    /// Source ports.
    pub ports: PortRange,
}

/// Ports from `low` to `high`, both included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

impl PortRange {
    /// Whether a port is one of these.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

/// `[tables]`: how much the data plane's tables hold. Fixed while the data plane is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Services.
    pub services: u32,
    /// Backends of all services together.
    pub backends: u32,
    /// Entries of each table of connections: a power of two.
    pub connections: u32,
    /// Networks of all lists together.
    pub networks: u32,
}

impl Config {
    /// Reads a configuration that names no files with networks. Pure; `name` is what errors call the text.
    ///
    /// # Errors
    /// Every problem of the text. A key that names a file is one, for nothing is read here.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let nothing = |_: &Path| Err(io::Error::new(io::ErrorKind::Unsupported, "only a configuration on disk may name files"));
        Self::parse_with(text, name, nothing)
    }

    /// Reads a configuration; `read` gives the contents of the files with networks that it names, paths as written there.
    ///
    /// # Errors
    /// Every problem of the text and of those files.
    pub fn parse_with(text: &str, name: &str, read: impl FnMut(&Path) -> io::Result<String>) -> Result<Self, ConfigError> {
        validate::configuration(text, name, read)
    }
}

/// Reads the configuration file, and the files with networks that it names; their paths are relative to its directory.
///
/// # Errors
/// The file can't be read, or has problems: all of them.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    Config::parse_with(&text, &path.display().to_string(), |file| std::fs::read_to_string(directory.join(file)))
}
