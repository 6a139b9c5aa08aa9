//! How things stand.

use std::{collections::BTreeMap, iter::Sum, net::SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    rollout::RolloutBrief,
    signals::{BreakerStatus, LeaseStatus, Recent},
};
use crate::{
    desired,
    model::{Affinity, BackendWeight, Cohort, Existing, Mode, NetworkList, OnLeaseExpiry, Protocol, ServiceName, Weight},
    store::{self, FlipReason},
};

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The agent's version.
    pub version: String,
    /// The API's version.
    pub api: u32,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent itself.
    pub agent: AgentStatus,
    /// Its services (or the one that was asked for), by name.
    pub services: Vec<ServiceStatus>,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When this process started.
    pub started_at: Timestamp,
    /// How many agents have taken over the running data plane since it was loaded; 0: this agent loaded it.
    pub adoptions: u64,
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// Its lease on the data plane; left out when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
    /// The last time that the configuration was read anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<Reload>,
    /// What somebody should look at, and that belongs to no service.
    pub alerts: Vec<String>,
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachMode,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's stack: works with every driver, slowly.
    Generic,
}

impl AttachMode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What became of reading the configuration anew; `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When.
    pub at: Timestamp,
    /// Whether it was taken over. If not, nothing was changed.
    pub ok: bool,
    /// What was changed, or why nothing was.
    pub message: String,
}

/// `POST /v1/detach`: the interfaces that the program was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// Their names.
    pub interfaces: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// Its protocol.
    pub protocol: Protocol,
    /// What clients connect to.
    pub address: SocketAddr,
    /// How packets reach the backends.
    pub mode: Mode,
    /// What of a client finds its cohort.
    pub affinity: Affinity,
    /// `weight_asked`, `weight_in_force` (each also with `_bp`), and `weight_source`.
    #[serde(flatten)]
    pub weights: Weights,
    /// There while the service is flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<Flip>,
    /// Its breaker; left out when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// What happens while the agent's lease has run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_lease_expiry: Option<OnLeaseExpiry>,
    /// New connections that were to go to the canary and went to stable, because no canary was usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_fallback: Option<u64>,
    /// Packets that were refused, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, u64>,
    /// Stable, then canary.
    pub cohorts: Vec<CohortStatus>,
    /// What somebody should look at.
    pub alerts: Vec<String>,
    /// The rollout that goes on, or the last one; left out when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutBrief>,
}

impl ServiceStatus {
    /// One of its cohorts.
    #[must_use]
    pub fn cohort(&self, cohort: Cohort) -> Option<&CohortStatus> {
        self.cohorts.iter().find(|c| c.cohort == cohort)
    }
}

/// The canary's share of new connections, asked for and in force. Text and number come from one value and cannot disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WeightsText", into = "WeightsText")]
pub struct Weights {
    /// What the configuration or a command asks for.
    pub asked: Weight,
    /// What the data plane does; 0% while the service is flipped. `None`: it could not be read.
    pub in_force: Option<Weight>,
    /// Who asked for it.
    pub source: WeightSource,
}

/// Where the weight that is asked for comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightSource {
    /// The configuration file.
    Configuration,
    /// `splitter weight`.
    Command,
    /// `splitter rollout`.
    Rollout,
}

impl WeightSource {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Command => "command",
            Self::Rollout => "rollout",
        }
    }
}

/// [`Weights`] as they travel.
#[derive(Serialize, Deserialize)]
struct WeightsText {
    weight_asked: Weight,
    weight_asked_bp: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_in_force: Option<Weight>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_in_force_bp: Option<u16>,
    weight_source: WeightSource,
}

impl From<Weights> for WeightsText {
    fn from(weights: Weights) -> Self {
        Self {
            weight_asked: weights.asked,
            weight_asked_bp: weights.asked.basis_points(),
            weight_in_force: weights.in_force,
            weight_in_force_bp: weights.in_force.map(Weight::basis_points),
            weight_source: weights.source,
        }
    }
}

impl TryFrom<WeightsText> for Weights {
    type Error = &'static str;

    fn try_from(text: WeightsText) -> Result<Self, Self::Error> {
        let agree = text.weight_asked.basis_points() == text.weight_asked_bp
            && text.weight_in_force.map(Weight::basis_points) == text.weight_in_force_bp;
        if !agree {
            return Err("a weight and its basis points differ");
        }
        Ok(Self { asked: text.weight_asked, in_force: text.weight_in_force, source: text.weight_source })
    }
}

/// Everything goes to stable, whatever the weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// Since when.
    pub at: Timestamp,
    /// The user who flipped it, or `the agent`.
    pub by: String,
    /// What kind of reason.
    pub cause: FlipCause,
    /// The reason in words, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What became of established canary connections.
    pub existing: Existing,
}

/// What kinds of reasons there are for a flip. Also the label `reason` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipCause {
    /// `splitter flip`.
    Command,
    /// The canary refused too many attempts.
    Refused,
    /// The canary reset too many established connections.
    Reset,
    /// The canary left too many attempts unanswered.
    Timeout,
    /// The breaker in the data plane tripped.
    Breaker,
    /// The agent's lease had run out, and the service is not to resume by itself.
    Lease,
    /// The rollout found the canary worse than stable, a check failed, it had no data, or its time was over.
    Rollout,
    /// The saved state was damaged, so that nobody knows whether the service was flipped; or the data plane was found flipped, and nobody knows why.
    StateLost,
}

impl FlipCause {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Command, Self::Refused, Self::Reset, Self::Timeout, Self::Breaker, Self::Lease, Self::Rollout, Self::StateLost];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Breaker => "breaker",
            Self::Lease => "lease",
            Self::Rollout => "rollout",
            Self::StateLost => "state_lost",
        }
    }
}

impl From<&FlipReason> for FlipCause {
    fn from(reason: &FlipReason) -> Self {
        match reason {
            FlipReason::Person { .. } => Self::Command,
            FlipReason::Breach { finding } => match finding.check {
                store::Check::Refused => Self::Refused,
                store::Check::Reset => Self::Reset,
                store::Check::Timeout => Self::Timeout,
            },
            FlipReason::Breaker { .. } => Self::Breaker,
            FlipReason::Lease { .. } => Self::Lease,
            FlipReason::Rollout { .. } => Self::Rollout,
            FlipReason::StateLost { .. } | FlipReason::Found => Self::StateLost,
        }
    }
}

impl From<store::Flip> for Flip {
    fn from(flip: store::Flip) -> Self {
        let reason = match &flip.reason {
            FlipReason::Person { text } => text.clone(),
            FlipReason::Breach { .. }
            | FlipReason::Breaker { .. }
            | FlipReason::Lease { .. }
            | FlipReason::Rollout { .. }
            | FlipReason::StateLost { .. }
            | FlipReason::Found => Some(flip.reason.to_string()),
        };
        Self { at: flip.at, by: flip.by, cause: FlipCause::from(&flip.reason), reason, existing: flip.existing }
    }
}

impl From<desired::WeightSource> for WeightSource {
    fn from(source: desired::WeightSource) -> Self {
        match source {
            desired::WeightSource::Config => Self::Configuration,
            desired::WeightSource::Command => Self::Command,
            desired::WeightSource::Rollout => Self::Rollout,
        }
    }
}

/// One cohort of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CohortStatus {
    /// Which.
    pub cohort: Cohort,
    /// Its backends, in the order of the configuration; removed ones with connections left come last.
    pub backends: Vec<BackendStatus>,
    /// Live connections of all its backends; left out when one of them is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Its backends' counters added up; left out when one of them is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Counters>,
    /// What it did lately; left out where that isn't known, and in lists of backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent: Option<Recent>,
}

impl CohortStatus {
    /// A cohort with its sums.
    #[must_use]
    pub fn new(cohort: Cohort, backends: Vec<BackendStatus>) -> Self {
        let connections = backends.iter().map(|b| b.connections).sum();
        let sums = backends.iter().map(|b| b.counters).sum();
        Self { cohort, backends, connections, sums, recent: None }
    }
}

/// `GET /v1/services/{service}/backends`, and the answer to every change of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendList {
    /// Whose.
    pub service: ServiceName,
    /// Stable, then canary.
    pub cohorts: Vec<CohortStatus>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// What it listens on; its identity inside the service.
    pub address: SocketAddr,
    /// Its share inside the cohort.
    pub weight: BackendWeight,
    /// Whether it gets connections.
    pub state: BackendState,
    /// Connections that live now. A drain is over when none is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// How packets get there, or why they don't.
    pub way: Way,
    /// What the data plane has counted since the backend was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

/// Whether a backend gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// New ones and those it has.
    Active,
    /// Only those it has.
    Draining,
    /// None: there is no way to it.
    Unreachable,
    /// Not asked for any more; it has connections left.
    Removed,
}

impl BackendState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Removed => "removed",
        }
    }
}

/// How packets get to a backend: `{interface, mac}`, or `{missing}` with the reason why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Way {
    /// It is known.
    Known {
        /// The interface that frames leave by.
        interface: String,
        /// The next hop's MAC address, as in `02:00:00:00:00:01`.
        mac: String,
    },
    /// It isn't.
    Missing {
        /// Why, as in `no route to 10.1.0.2`.
        missing: String,
    },
}

/// Packets and octets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Their octets, from the IP header on.
    pub bytes: u64,
}

/// What the data plane counts for a backend. Numbers only grow, as long as the backend is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Toward the backend.
    pub to_backend: Traffic,
    /// From the backend (`nat` only: in `dsr` replies don't pass the node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_backend: Option<Traffic>,
    /// Connections assigned to it.
    pub opened: u64,
    /// Of these, those whose handshake was completed; for UDP, those that were answered.
    pub completed: u64,
    /// Attempts that it answered with a RST or that ended by ICMP destination unreachable (`nat` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// Attempts that it did not answer in time.
    pub timed_out: u64,
    /// Connections that were reset after their handshake.
    pub reset: u64,
    /// Connections that ended in order.
    pub closed: u64,
    /// Of those reset, the ones that the backend reset (`nat` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_by_backend: Option<u64>,
    /// Of those refused, the ones that ended by ICMP destination unreachable (`nat` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<u64>,
    /// SYNs that were sent again before the attempt was answered (TCP only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted: Option<u64>,
    /// Connections that became established, in time or late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established: Option<u64>,
    /// Established connections that ended, however. `established` less these are those that live, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}

impl Traffic {
    fn plus(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// What one addend doesn't know, the sum doesn't know.
impl Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.reduce(Self::plus).unwrap_or_default()
    }
}

impl Counters {
    fn plus(self, other: Self) -> Self {
        Self {
            to_backend: self.to_backend.plus(other.to_backend),
            from_backend: self.from_backend.zip(other.from_backend).map(|(a, b)| a.plus(b)),
            opened: self.opened + other.opened,
            completed: self.completed + other.completed,
            refused: both(self.refused, other.refused),
            timed_out: self.timed_out + other.timed_out,
            reset: self.reset + other.reset,
            closed: self.closed + other.closed,
            reset_by_backend: both(self.reset_by_backend, other.reset_by_backend),
            unreachable: both(self.unreachable, other.unreachable),
            retransmitted: both(self.retransmitted, other.retransmitted),
            established: both(self.established, other.established),
            ended: both(self.ended, other.ended),
        }
    }

    /// Established connections that live.
    #[must_use]
    pub fn live(&self) -> Option<u64> {
        Some(self.established?.saturating_sub(self.ended?))
    }
}

fn both(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one + other)
}

/// `GET /v1/services/{service}/networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// Whose.
    pub service: ServiceName,
    /// Networks whose clients always get the canary.
    pub always_canary: Vec<IpNet>,
    /// Networks whose clients never get the canary.
    pub never_canary: Vec<IpNet>,
}

/// The answer to a change of a service's networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChanged {
    /// Whose.
    pub service: ServiceName,
    /// Which list.
    pub list: NetworkList,
    /// How many prefixes came in that weren't there before.
    pub added: u64,
    /// How many went.
    pub removed: u64,
    /// How many are in the list now.
    pub total: u64,
}
