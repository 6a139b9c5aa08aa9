//! What happened, as it is kept, sent and told.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{rollout::Moved, state::FlipReason};
use crate::model::{BackendWeight, Cohort, Existing, NetworkList, ServiceName, Weight};

/// Something that happened. Its [`Display`](fmt::Display) is one sentence, without the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: each event has one more than the one before.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// To which service; `None`: to the agent.
    pub service: Option<ServiceName>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. `by` is who asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence that each variant becomes says what its fields are")]
pub enum EventKind {
    /// The agent runs.
    AgentStarted { adopted: bool },
    /// The agent stops in order.
    AgentStopped { detached: bool },
    /// The saved state can't be read.
    StateDamaged { kept_as: PathBuf, why: String },
    /// A configuration was put in force.
    Reloaded { services: usize },
    /// A configuration was refused; the one before stays in force.
    ReloadRefused { errors: Vec<String> },
    /// The data plane was taken away.
    Detached { by: String },
    /// A weight was set by command.
    WeightChanged { from: Weight, to: Weight, by: String },
    /// The configuration's weight changed while one set by command overrode it.
    WeightFromConfiguration { asked: Weight, configured: Weight },
    /// Everything goes to stable.
    Flipped { reason: FlipReason, existing: Existing, by: String },
    /// A flipped service treats established connections otherwise.
    FlipChanged { existing: Existing, by: String },
    /// Nobody gave a sign of life in time; `to_stable` are the services that went to stable, `held` those that stayed as they were, `resumed` whether the former get their
    /// weight back by themselves.
    LeaseRanOut { since: Timestamp, lasted: Duration, to_stable: Vec<ServiceName>, held: Vec<ServiceName>, resumed: bool },
    /// A rollout has come on, or has ended; `rollout` is its number.
    Rollout { rollout: u64, what: Moved },
    /// The weight counts again.
    Unflipped { weight: Weight, by: String },
    /// A backend was added.
    BackendAdded { backend: SocketAddr, cohort: Cohort, weight: BackendWeight, by: String },
    /// A backend was removed.
    BackendRemoved { backend: SocketAddr, cohort: Cohort, by: String },
    /// A backend gets no new connections any more.
    BackendDraining { backend: SocketAddr, by: String },
    /// A draining backend has no connections left.
    BackendDrained { backend: SocketAddr },
    /// A backend gets new connections again.
    BackendUndrained { backend: SocketAddr, by: String },
    /// A backend's weight was set by command.
    BackendWeightChanged { backend: SocketAddr, from: BackendWeight, to: BackendWeight, by: String },
    /// The way to a backend is gone.
    BackendUnreachable { backend: SocketAddr, why: String },
    /// There is a way to a backend again.
    BackendReachable { backend: SocketAddr },
    /// New connections are refused.
    NoStableBackend,
    /// They are answered again.
    StableBackendBack,
    /// The canary's share goes to stable.
    NoCanaryBackend,
    /// A network was added to a list.
    NetworkAdded { network: IpNet, list: NetworkList, by: String },
    /// A network was removed from a list.
    NetworkRemoved { network: IpNet, list: NetworkList, by: String },
    /// Several networks were added to a list or removed from it, at once.
    NetworksChanged { list: NetworkList, added: usize, removed: usize, by: String },
    /// What a command had asked is void.
    RequestDropped { what: String, why: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStarted { adopted: true } => f.write_str("the agent started and took over the running data plane"),
            Self::AgentStarted { adopted: false } => f.write_str("the agent started with a new data plane"),
            Self::AgentStopped { detached: true } => f.write_str("the agent stopped and took the data plane away"),
            Self::AgentStopped { detached: false } => f.write_str("the agent stopped, traffic flows on"),
            Self::StateDamaged { kept_as, why } => {
                write!(f, "the saved state was damaged ({why}), it is kept as {}", kept_as.display())
            }
            Self::Reloaded { services: 1 } => f.write_str("the configuration was reloaded: 1 service"),
            Self::Reloaded { services } => write!(f, "the configuration was reloaded: {services} services"),
            Self::ReloadRefused { errors } => write!(f, "the configuration was refused: {}", errors.join("; ")),
            Self::Detached { by } => write!(f, "the data plane was taken away, by {by}"),
            Self::WeightChanged { from, to, by } => write!(f, "weight from {from} to {to}, by {by}"),
            Self::WeightFromConfiguration { asked, configured } => {
                write!(f, "the configured weight changed to {configured}, which replaces the {asked} set by command")
            }
            Self::Flipped { reason, existing, by } => {
                write!(f, "flipped to stable, by {by}: {reason} (established canary connections: {existing})")
            }
            Self::FlipChanged { existing, by } => write!(f, "still flipped; established canary connections: {existing}, by {by}"),
            Self::LeaseRanOut { since, lasted, to_stable, held, resumed } => {
                let lasted = humantime::format_duration(*lasted);
                write!(f, "the agent's lease had run out at {since}, for {lasted}; to stable meanwhile: {}", names(to_stable))?;
                if !held.is_empty() {
                    write!(f, ", held: {}", names(held))?;
                }
                f.write_str(match (to_stable.is_empty(), resumed) {
                    (true, _) => "",
                    (false, true) => "; the weight counts again",
                    (false, false) => "; flipped from now on",
                })
            }
            Self::Rollout { rollout, what } => write!(f, "rollout {rollout} {what}"),
            Self::Unflipped { weight, by } => write!(f, "unflipped, the canary gets {weight} again, by {by}"),
            Self::BackendAdded { backend, cohort, weight, by } => {
                write!(f, "{cohort} backend {backend} added with weight {}, by {by}", weight.get())
            }
            Self::BackendRemoved { backend, cohort, by } => write!(f, "{cohort} backend {backend} removed, by {by}"),
            Self::BackendDraining { backend, by } => write!(f, "backend {backend} is draining, by {by}"),
            Self::BackendDrained { backend } => write!(f, "backend {backend} is drained: no connections left"),
            Self::BackendUndrained { backend, by } => write!(f, "backend {backend} takes new connections again, by {by}"),
            Self::BackendWeightChanged { backend, from, to, by } => {
                write!(f, "backend {backend}: weight from {} to {}, by {by}", from.get(), to.get())
            }
            Self::BackendUnreachable { backend, why } => write!(f, "backend {backend} cannot be reached: {why}"),
            Self::BackendReachable { backend } => write!(f, "backend {backend} can be reached again"),
            Self::NoStableBackend => f.write_str("no stable backend can be used: new connections are refused"),
            Self::StableBackendBack => f.write_str("a stable backend can be used again"),
            Self::NoCanaryBackend => f.write_str("no canary backend can be used: the canary's share goes to stable"),
            Self::NetworkAdded { network, list, by } => write!(f, "{network} added to {list}, by {by}"),
            Self::NetworkRemoved { network, list, by } => write!(f, "{network} removed from {list}, by {by}"),
            Self::NetworksChanged { list, added, removed, by } => {
                write!(f, "{list}: {added} networks added, {removed} removed, by {by}")
            }
            Self::RequestDropped { what, why } => write!(f, "dropped: {what}, asked by command ({why})"),
        }
    }
}

fn names(services: &[ServiceName]) -> String {
    if services.is_empty() {
        return "nothing".to_owned();
    }
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

/// A limit that was crossed: the check, both cohorts' numbers, the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// The canary's numbers in the window.
    pub canary: Sample,
    /// The stable cohort's, in the same window.
    pub stable: Sample,
    /// The limit for the canary's share.
    pub limit: Weight,
    /// How far back was looked.
    pub window: Duration,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, canary, stable, limit, window } = self;
        let window = humantime::format_duration(*window);
        write!(f, "{check} {canary} on canary, above the limit of {limit} within {window}; {stable} on stable")
    }
}

/// What a limit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Attempts refused with a RST.
    Refused,
    /// Connections reset after they were established.
    Reset,
    /// Attempts that weren't answered in time.
    Timeout,
}

impl Check {
    /// All, in the order in which they are looked at.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Reset, Self::Timeout];

    /// The word, as in the configuration and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Failures out of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// How many failed.
    pub failures: u64,
    /// Of how many.
    pub attempts: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without attempts there is no share, not a share of 0%.
        if self.attempts == 0 {
            return write!(f, "{} of 0", self.failures);
        }
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let share = self.failures as f64 / self.attempts as f64 * 100.0;
        write!(f, "{} of {} ({share:.2}%)", self.failures, self.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_is_told_with_the_check_both_cohorts_and_the_limit() {
        let finding = Finding {
            check: Check::Refused,
            canary: Sample { failures: 12, attempts: 100 },
            stable: Sample { failures: 0, attempts: 0 },
            limit: Weight::from_basis_points(500).expect("in range"),
            window: Duration::from_secs(10),
        };
        let kind =
            EventKind::Flipped { reason: FlipReason::Breach { finding }, existing: Existing::Reset, by: "the agent".to_owned() };
        let event = Event { id: 7, at: Timestamp::UNIX_EPOCH, service: Some("checkout".parse().expect("a name")), kind };
        assert_eq!(
            event.to_string(),
            "checkout: flipped to stable, by the agent: refused 12 of 100 (12.00%) on canary, above the limit of 5% within 10s; \
             0 of 0 on stable (established canary connections: reset)"
        );
        let json = serde_json::to_value(&event).expect("JSON");
        assert_eq!(json["kind"], "flipped");
        assert_eq!(json["reason"]["finding"]["check"], "refused");
        assert_eq!(serde_json::from_value::<Event>(json).expect("the same"), event);
    }
}
