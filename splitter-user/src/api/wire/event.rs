//! What happened, as it is kept and told.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{request::NetworkList, status::FlipCause};
use crate::model::{BackendWeight, Cohort, Existing, ServiceName, Weight};

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1, across restarts of the agent. A gap means that events were lost.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// To which service, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Who did it: a user, or `agent`.
    pub by: String,
    /// It in words.
    pub message: String,
    /// It in values, told apart by `kind`.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// An agent took up its work.
    AgentStarted {
        /// Its version.
        version: String,
        /// Whether it took over a running data plane.
        adopted: bool,
    },
    /// The agent ended in order.
    AgentStopped {
        /// Whether it took the program off the interfaces.
        detached: bool,
    },
    /// The configuration was read anew.
    Reloaded {
        /// Whether it was taken over.
        ok: bool,
    },
    /// The program was taken off the interfaces by command.
    Detached,
    /// The canary's share was changed.
    WeightChanged {
        /// Before.
        from: Weight,
        /// After.
        to: Weight,
    },
    /// Everything goes to stable.
    Flipped {
        /// What kind of reason.
        cause: FlipCause,
        /// What became of established canary connections.
        existing: Existing,
        /// The numbers, where a limit was crossed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        breach: Option<BreachReport>,
    },
    /// The weight counts again.
    Unflipped,
    /// A backend came.
    BackendAdded {
        /// Its address.
        backend: SocketAddr,
        /// Its cohort.
        cohort: Cohort,
    },
    /// A backend went.
    BackendRemoved {
        /// Its address.
        backend: SocketAddr,
        /// Its cohort.
        cohort: Cohort,
    },
    /// A backend gets no new connections.
    BackendDraining {
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend that was being drained gets new connections again.
    BackendUndrained {
        /// Its address.
        backend: SocketAddr,
    },
    /// A backend's share inside its cohort was changed.
    BackendWeightChanged {
        /// Its address.
        backend: SocketAddr,
        /// Before.
        from: BackendWeight,
        /// After.
        to: BackendWeight,
    },
    /// The way to a backend was lost.
    BackendUnreachable {
        /// Its address.
        backend: SocketAddr,
    },
    /// The way to a backend was found again.
    BackendReachable {
        /// Its address.
        backend: SocketAddr,
    },
    /// A list of networks was changed.
    NetworksChanged {
        /// Which list.
        list: NetworkList,
        /// How many prefixes came.
        added: u64,
        /// How many went.
        removed: u64,
    },
}

impl EventKind {
    /// Every value of `kind`, in the order of the declaration.
    pub const NAMES: [&str; 15] = [
        "agent_started",
        "agent_stopped",
        "reloaded",
        "detached",
        "weight_changed",
        "flipped",
        "unflipped",
        "backend_added",
        "backend_removed",
        "backend_draining",
        "backend_undrained",
        "backend_weight_changed",
        "backend_unreachable",
        "backend_reachable",
        "networks_changed",
    ];
}

/// A limit that was crossed, with the numbers that crossed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreachReport {
    /// Which of the limits.
    pub check: BreachCheck,
    /// The limit: the highest share allowed.
    pub limit: Weight,
    /// How far back the numbers go, in milliseconds.
    pub window_ms: u64,
    /// The canary's numbers in that window.
    pub canary: CohortNumbers,
    /// Stable's in the same.
    pub stable: CohortNumbers,
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreachCheck {
    /// Attempts that were refused, of all attempts.
    Refused,
    /// Connections that were reset, of all that had been completed.
    Reset,
    /// Attempts that were not answered in time, of all attempts.
    Timeout,
}

/// How many failed of how many. The ratio is left to the reader: of none there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortNumbers {
    /// Attempts, or completed connections for `reset`.
    pub of: u64,
    /// Those of them that failed.
    pub failed: u64,
}
