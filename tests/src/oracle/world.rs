//! The configuration that the oracle judges by, in the tests' own words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::packet::{Mac, TCP, UDP};

/// All that decides what happens to a frame. It may change during a run ([`super::Oracle::world_mut`]), but services and
/// backends are known by their index: they are never removed nor reordered (a backend drains with weight 0).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct World {
    /// The services.
    pub services: Vec<Service>,
    /// The node's addresses toward backends, in `nat` mode.
    pub nat_addresses: Vec<IpAddr>,
    /// The ports that `nat` connections are given.
    pub nat_ports: Option<RangeInclusive<u16>>,
    /// What the program may do besides, under pressure.
    pub leeway: Leeway,
}

/// Where the contract leaves time and table sizes open, what may have happened without a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "four independent permissions")]
pub struct Leeway {
    /// A new `nat` connection may be refused with `ports_exhausted`.
    pub ports_exhausted: bool,
    /// A new `nat` connection may be refused with `affinity_full`, and any connection may have been forgotten.
    pub affinity_full: bool,
    /// A connection that saw a FIN or RST may have been forgotten.
    pub closing_expires: bool,
    /// A first fragment may have been forgotten.
    pub fragments_expire: bool,
}

impl Default for Leeway {
    /// Ample tables and a short run: closing connections alone may go.
    fn default() -> Leeway {
        Leeway { ports_exhausted: false, affinity_full: false, closing_expires: true, fragments_expire: false }
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The address and port that clients connect to.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How packets reach backends.
    pub mode: Mode,
    /// What is hashed.
    pub affinity: Affinity,
    /// The canary's share of new connections, in hundredths of a percent: 0 to 10,000.
    pub weight: u16,
    /// Flipped to stable, and what happens to the canary's connections.
    pub flipped: Option<Existing>,
    /// The network lists; the longest prefix wins.
    pub networks: Vec<(IpNet, Rule)>,
    /// Both cohorts' backends.
    pub backends: Vec<Backend>,
}

/// A service's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How packets reach backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Both addresses and ports are rewritten.
    Nat,
    /// The Ethernet addresses alone are rewritten.
    Dsr,
}

/// What decides where a client's connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// Each connection for itself.
    Connection,
    /// The client's address.
    Client,
}

/// What a flip does to the canary's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Existing {
    /// They go on.
    Keep,
    /// They are reset.
    Reset,
}

/// What a network list says of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Always to the canary.
    AlwaysCanary,
    /// Never to the canary.
    NeverCanary,
}

/// A version's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cohort {
    /// The version in production.
    Stable,
    /// The version on trial.
    Canary,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Address and port; in `dsr` mode the port is not used.
    pub address: SocketAddr,
    /// Its cohort.
    pub cohort: Cohort,
    /// Weight in its cohort; 0: it takes no new connections.
    pub weight: u32,
    /// The way there; `None`: not known, so it takes no new connections.
    pub way: Option<Way>,
}

/// A way out of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Interface index.
    pub interface: u32,
    /// The node's Ethernet address there.
    pub source: Mac,
    /// The next hop's.
    pub destination: Mac,
    /// The VLAN ID that frames must carry there.
    pub vlan: Option<u16>,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        }
    }

    /// By the IANA protocol number.
    #[must_use]
    pub const fn of(number: u8) -> Option<Protocol> {
        match number {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl World {
    /// The index of the service at this address.
    #[must_use]
    pub fn service_at(&self, address: SocketAddr, protocol: Protocol) -> Option<usize> {
        self.services.iter().position(|service| service.address == address && service.protocol == protocol)
    }

    /// Whether it is a NAT address with a port of the range.
    #[must_use]
    pub fn is_nat(&self, address: SocketAddr) -> bool {
        self.nat_ports.as_ref().is_some_and(|ports| ports.contains(&address.port())) && self.nat_addresses.contains(&address.ip())
    }
}

impl Service {
    /// Indices of a cohort's backends that take new connections.
    pub fn usable(&self, cohort: Cohort) -> impl Iterator<Item = usize> {
        let usable = move |backend: &Backend| backend.cohort == cohort && backend.weight > 0 && backend.way.is_some();
        self.backends.iter().enumerate().filter(move |(_, backend)| usable(backend)).map(|(index, _)| index)
    }

    /// What the longest network that holds the client says.
    #[must_use]
    pub fn rule(&self, client: IpAddr) -> Option<Rule> {
        let holding = self.networks.iter().filter(|(network, _)| network.contains(&client));
        holding.max_by_key(|(network, _)| network.prefix_len()).map(|(_, rule)| *rule)
    }

    /// Whether connections to this backend are to be reset.
    #[must_use]
    pub fn resets(&self, backend: usize) -> bool {
        self.flipped == Some(Existing::Reset) && self.backends[backend].cohort == Cohort::Canary
    }

    /// Whether attempts toward this backend that have no answer begin anew.
    #[must_use]
    pub fn spares(&self, backend: usize) -> bool {
        self.flipped.is_some() && self.backends[backend].cohort == Cohort::Canary
    }

    /// The canary's share as a threshold in 2³² places: weight · 2³² / 10,000, rounded.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        ((u64::from(self.weight) << 32) + 5_000) / 10_000
    }
}
