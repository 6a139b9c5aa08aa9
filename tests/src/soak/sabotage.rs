//! What makes a soak fail: each kind goes behind the checks' back, and must be found by the invariant that it breaks.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use clap::ValueEnum;
use splitter_ebpf::abi::BackendCounters;
use splitter_user::model::Mode;

use super::{act::Driver, journal::Invariant, load::Clients, rules::Served};
use crate::{
    node::{Family, Kind},
    workload::tcp_echo,
};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// A backend's process is killed, and no event says so: connections break
    Connection,
    /// A map of the data plane is held beyond the end
    Map,
    /// The data plane's counters of backends are set to zero
    Counter,
    /// All clients are sent to the canary, whatever the weight
    Share,
    /// A connection is left open at the end
    Live,
    /// The agent is killed and started again, and no event says so
    Metrics,
    /// A directory is left on the BPF file system
    Leftover,
    /// A weight is asked for that no event has asked for
    Asked,
}

impl Sabotage {
    /// By which invariant it has to be found.
    #[must_use]
    pub const fn breaks(self) -> Invariant {
        match self {
            Self::Connection => Invariant::Connections,
            Self::Map => Invariant::Objects,
            Self::Counter => Invariant::Monotone,
            Self::Share => Invariant::Share,
            Self::Live => Invariant::Live,
            Self::Asked => Invariant::Asked,
            Self::Metrics => Invariant::Metrics,
            Self::Leftover => Invariant::Leftovers,
        }
    }
}

/// What it holds until the end.
#[derive(Debug, Default)]
pub struct Held {
    _maps: Vec<MapData>,
    _connections: Vec<tcp_echo::Running>,
    left: Vec<PathBuf>,
}

/// What was left behind on purpose is taken away, after somebody has looked.
impl Drop for Held {
    fn drop(&mut self) {
        for path in self.left.drain(..) {
            if let Err(error) = fs::remove_dir(&path) {
                // A drop cannot fail.
                eprintln!("{} stays behind: {error}", path.display());
            }
        }
    }
}

/// Does it, between two events.
///
/// # Errors
/// When it can't be done.
pub fn commit(kind: Sabotage, driver: &mut Driver<'_>, clients: &Clients<'_>, held: &mut Held) -> Result<()> {
    let maps = driver.world.node.pins().path().join("maps");
    match kind {
        Sabotage::Connection => {
            driver.world.hosts[0].kill();
            driver.world.hosts[0].start()?;
        }
        Sabotage::Map => held._maps.push(MapData::from_pin(maps.join("SETTINGS"))?),
        Sabotage::Counter => zero(&maps.join("BACKEND_COUNTERS"))?,
        Sabotage::Share => {
            for (family, network) in [(Family::V4, "10.70.0.0/16"), (Family::V6, "fd70::/64")] {
                for mode in [Mode::Nat, Mode::Dsr] {
                    let service = Served { kind: Kind::Web, mode, family }.name();
                    driver.world.node.run(&["network", "add", &service, "always-canary", network])?;
                }
            }
        }
        Sabotage::Live => held._connections.push(clients.forgotten()?),
        Sabotage::Asked => {
            let service = Served { kind: Kind::Udp, mode: Mode::Nat, family: Family::V4 };
            driver.world.node.run(&["weight", &service.name(), "33.33%"]).map(drop)?;
        }
        Sabotage::Metrics => {
            driver.world.node.kill();
            // An agent can be back between two scrapes: this one is away for several.
            thread::sleep(5 * super::watch::SCRAPES);
            driver.world.launch(super::world::Start::Plain)?;
            driver.world.node.wait_ready()?;
        }
        Sabotage::Leftover => {
            let mut name = driver.world.node.pins().path().as_os_str().to_owned();
            name.push("-left");
            fs::create_dir(&name).context("leave a directory")?;
            held.left.push(name.into());
        }
    }
    Ok(())
}

/// Sets all counters of backends to zero, packets or not.
fn zero(pin: &Path) -> Result<()> {
    const WORDS: usize = size_of::<BackendCounters>() / size_of::<u64>();
    let mut counters = Array::<_, [u64; WORDS]>::try_from(Map::Array(MapData::from_pin(pin)?))?;
    (0..counters.len()).try_for_each(|index| counters.set(index, [0; WORDS], 0)).context("set counters to zero")
}
