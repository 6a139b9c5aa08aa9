//! The numbers of one moment.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use jiff::Timestamp;

use crate::{
    api::wire::{Counters, FlipCause, RolloutStatus},
    model::{Cohort, ServiceName, Weight},
};

/// Everything that the metrics tell, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The agent's version.
    pub version: String,
    /// How many agents have taken over the running data plane.
    pub adoptions: u64,
    /// The last time that the configuration was read anew.
    pub last_reload: Option<LastReload>,
    /// How long the last reading of the counters took.
    pub sampling: Option<Duration>,
    /// How long the agent's last sign of life still counts; none if it has no lease.
    pub lease_left: Option<Duration>,
    /// How often this agent found that the lease had run out.
    pub leases_ran_out: u64,
    /// When it last had.
    pub lease_ran_out: Option<Timestamp>,
    /// Packets that the kernel got untouched, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// The tables of connections.
    pub tables: Vec<TableSnapshot>,
    /// The services.
    pub services: Vec<ServiceSnapshot>,
}

/// What became of the last reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReload {
    /// When.
    pub at: Timestamp,
    /// Whether the configuration was taken over.
    pub ok: bool,
}

/// The tables of connections; the label `table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Connections and their backends.
    Affinity,
    /// Ports of `nat` connections.
    Nat,
}

impl Table {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::Nat => "nat",
        }
    }
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSnapshot {
    /// Which.
    pub table: Table,
    /// How many entries there is room for.
    pub capacity: u64,
    /// How many are in use; none if they weren't counted.
    pub used: Option<u64>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSnapshot {
    /// Its name.
    pub name: ServiceName,
    /// The weight that is asked for.
    pub weight_asked: Weight,
    /// The weight that the data plane has; none if it couldn't be read.
    pub weight_in_force: Option<Weight>,
    /// Why it is flipped, while it is.
    pub flip: Option<FlipCause>,
    /// How often it was flipped, by cause.
    pub flips: BTreeMap<FlipCause, u64>,
    /// Whether its breaker has tripped; none if it has no breaker.
    pub breaker_tripped: Option<bool>,
    /// New connections that were to go to the canary and went to stable.
    pub canary_fallback: Option<u64>,
    /// Packets refused, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Its cohorts.
    pub cohorts: Vec<CohortSnapshot>,
    /// The rollout that goes on, or its last one; none if it had none.
    pub rollout: Option<RolloutStatus>,
}

/// One cohort of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortSnapshot {
    /// Which.
    pub cohort: Cohort,
    /// How long handshakes took; none where that isn't seen.
    pub handshake: Option<Histogram>,
    /// How long first responses took; none where that isn't seen.
    pub first_response: Option<Histogram>,
    /// Backends that get new connections.
    pub usable_backends: u64,
    /// All its backends.
    pub backends: Vec<BackendSnapshot>,
}

/// How long something took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// All of it together.
    pub sum: Duration,
    /// By bucket of [`splitter_ebpf::histogram`]; empty: nothing was measured yet.
    pub counts: Vec<u64>,
}

/// One backend of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendSnapshot {
    /// Its address.
    pub address: SocketAddr,
    /// Connections that live now; none if they weren't counted.
    pub connections: Option<u64>,
    /// What the data plane has counted; none if it couldn't be read.
    pub counters: Option<Counters>,
}
