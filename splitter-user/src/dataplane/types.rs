//! What goes into a data plane and what comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use splitter_ebpf::{breaker::Cause, cohort::Rule};

use crate::{
    controller::Cohorts,
    model::{Affinity, BackendWeight, Breaker, Cohort, Existing, Mode, OnLeaseExpiry, Protocol, Seed, Timeouts, Weight},
    neighbor::Way,
};

/// What a service is to the data plane: where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its virtual address and port.
    pub address: SocketAddr,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)
    }
}

/// A service as it is to run.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedService {
    /// Where clients connect to.
    pub key: ServiceKey,
    /// How packets reach the backends. Another mode than before forgets the service's connections.
    pub mode: Mode,
    /// What of a client finds its place in hash space.
    pub affinity: Affinity,
    /// The secret of its hash.
    pub seed: Seed,
    /// When silent connections are forgotten.
    pub timeouts: Timeouts,
    /// The canary's share of new connections.
    pub weight: Weight,
    /// Flipped, and what happens to established canary connections.
    pub flip: Option<Existing>,
    /// Limits at which the data plane flips it by itself.
    pub breaker: Option<Breaker>,
    /// What it does while the lease has run out.
    pub on_lease_expiry: OnLeaseExpiry,
    /// Its backends.
    pub backends: Vec<WantedBackend>,
    /// Networks that always get the canary.
    pub always_canary: BTreeSet<IpNet>,
    /// Networks that never do.
    pub never_canary: BTreeSet<IpNet>,
}

/// A backend as it is to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedBackend {
    /// Address and port that it listens on.
    pub address: SocketAddr,
    /// The version it runs.
    pub cohort: Cohort,
    /// Its share inside the cohort.
    pub weight: BackendWeight,
    /// Gets no new connections.
    pub draining: bool,
    /// The way there; a backend without one gets no new connections, and packets of those that it has are dropped.
    pub way: Option<Way>,
}

impl WantedBackend {
    /// Whether it gets new connections.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.draining && self.way.is_some()
    }
}

/// What [`super::Dataplane::apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Services of which a cohort has no usable backend.
    pub without_backends: Vec<(ServiceKey, Cohort)>,
}

/// Why the data plane can't do what it's asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No such service.
    #[error("the data plane has no service {0}")]
    NoService(ServiceKey),
    /// A table is full.
    #[error(
        "{needed} {what} are needed, and the data plane was made for {room}; raise `{key}` in [tables], then `splitter detach` and start the agent again"
    )]
    NoRoom {
        /// What there is too much of.
        what: &'static str,
        /// How many are wanted, those included that wait for their last connections.
        needed: usize,
        /// How many there is room for.
        room: usize,
        /// The configuration's key.
        key: &'static str,
    },
    /// More NAT addresses than there are slots for.
    #[error(
        "{needed} NAT addresses are needed, and the data plane was made for {room}; name those to use in `addresses` of [nat], then `splitter detach` and \
         start the agent again"
    )]
    NoNat {
        /// How many are wanted, those of earlier ways included.
        needed: usize,
        /// How many there is room for.
        room: usize,
    },
    /// A backend is reached by an interface that the program isn't attached to.
    #[error(
        "backend {backend} is reached by {interface}, which isn't among the agent's interfaces, so its replies would pass by; add it to `interfaces`"
    )]
    NotAttached {
        /// The backend.
        backend: SocketAddr,
        /// The interface's name.
        interface: String,
    },
    /// The kernel refused something.
    #[error("{tried}: {why}")]
    Kernel {
        /// What was tried.
        tried: String,
        /// What the kernel said.
        why: String,
    },
}

/// What is loaded, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Agents that have taken the data plane over since it was made.
    pub adoptions: u32,
    /// Where the program is attached.
    pub interfaces: Vec<Attached>,
    /// Whether jumbo frames are taken.
    pub multi_buffer: bool,
    /// Instructions that the verifier looked at, where the kernel tells.
    pub verified_instructions: Option<u32>,
}

/// An interface with the program on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// How.
    pub mode: AttachedMode,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// By the kernel, behind the driver: slower.
    Generic,
}

/// Counters of one backend; what they mean stands in `splitter_ebpf::abi::BackendCounters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the ABI, where each is explained")]
pub struct Counters {
    pub packets_to: u64,
    pub bytes_to: u64,
    pub packets_from: u64,
    pub bytes_from: u64,
    pub opened: u64,
    pub completed: u64,
    pub refused: u64,
    pub timed_out: u64,
    pub reset_by_backend: u64,
    pub reset_by_client: u64,
    pub closed: u64,
    pub retransmitted: u64,
    pub unreachable: u64,
    pub established: u64,
    pub ended: u64,
}

impl Counters {
    /// Established connections that live. Exact: read from the same counters that the data plane counts their beginnings and ends by.
    #[must_use]
    pub const fn live(&self) -> u64 {
        self.established.saturating_sub(self.ended)
    }
}

/// How long something took, as counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// All of it together.
    pub sum: Duration,
    /// By bucket of [`splitter_ebpf::histogram`]; empty: nothing was measured yet.
    pub counts: Vec<u64>,
}

impl Times {
    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What is measured of a cohort's times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CohortTimes {
    /// TCP: from the SYN to the backend's answer (`nat`), or to the client's ACK (`dsr`). UDP: to the first answer (`nat`).
    pub handshake: Times,
    /// From the client's first octets to the backend's (TCP in `nat`).
    pub first_response: Times,
}

/// What a breaker's window held. What each number means stands in `splitter_ebpf::abi::WindowTally`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the ABI, where each is explained")]
pub struct BreakerTally {
    pub attempts: u32,
    pub completed: u32,
    pub refused: u32,
    pub reset: u32,
    pub retransmitted: u32,
    pub due: u32,
    pub timed_out: u32,
}

/// A breaker that has tripped: everything new goes to stable until it is armed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// So long ago.
    pub ago: Duration,
    /// The limit that was crossed.
    pub cause: Cause,
    /// That limit.
    pub limit: Weight,
    /// What the cohorts did in the breaker's window.
    pub tallies: Cohorts<BreakerTally>,
}

/// The agent's lease on the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Nobody holds one: no agent has begun, or the last one stopped in order. Nothing runs out.
    Released,
    /// It's valid for so long.
    Valid(Duration),
    /// It ran out so long ago.
    RanOut(Duration),
}

/// All counters of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// By service.
    pub services: BTreeMap<ServiceKey, ServiceSample>,
    /// Packets given to the kernel untouched, by reason's label.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Packets dropped, by reason's label.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// Counters of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSample {
    /// The weight in force, as the data plane has it: 0 while flipped.
    pub weight: Weight,
    /// Flipped, and what happens to established canary connections.
    pub flip: Option<Existing>,
    /// New connections of the canary's share that stable took, as the canary had no usable backend.
    pub canary_fallback: u64,
    /// Connections that found no room in the affinity table (`dsr`).
    pub untracked: u64,
    /// Packets refused, by reason's label.
    pub refused: BTreeMap<&'static str, u64>,
    /// Its breaker has tripped.
    pub trip: Option<Trip>,
    /// How long things took.
    pub times: Cohorts<CohortTimes>,
    /// Its backends, those included that aren't wanted any more but still have connections.
    pub backends: BTreeMap<SocketAddr, BackendSample>,
}

/// One backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSample {
    /// Its cohort.
    pub cohort: Cohort,
    /// Wanted; else it only has connections left.
    pub wanted: bool,
    /// Gets new connections.
    pub usable: bool,
    /// Its counters.
    pub counters: Counters,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Living connections (attempts that haven't completed among them, those that are closing not).
    pub connections: BTreeMap<(ServiceKey, SocketAddr), u64>,
    /// The table of `dsr` connections.
    pub affinity: TableUse,
    /// Ports of `nat` connections.
    pub nat: TableUse,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// Places.
    pub capacity: u64,
    /// Places taken.
    pub used: u64,
}

/// What would become of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The connection is known, and stays with this backend (and isn't reset). One of TCP that is over doesn't count: its client would begin a new one.
    pub known: Option<SocketAddr>,
    /// The connection is known, its backend is a canary, and the flip resets it.
    pub reset: bool,
    /// The rule that a new connection would fall under.
    pub rule: Rule,
    /// The hash that decides.
    pub hash: u64,
    /// Its place in hash space: the hash's high half.
    pub place: u32,
    /// Places below this are the canary's.
    pub threshold: u64,
    /// Entries of the cohort's Maglev table; 0: no usable backend.
    pub table_size: u32,
    /// The entry that the hash picks.
    pub entry: Option<u32>,
    /// The backend that a new connection would get.
    pub backend: Option<SocketAddr>,
}

/// A decision that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Whose packet.
    pub client: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its service and backend; none if the backend is gone meanwhile.
    pub to: Option<(ServiceKey, SocketAddr, Cohort)>,
    /// The hash of client address and port.
    pub hash: u64,
    /// TCP flags.
    pub tcp_flags: u8,
}
