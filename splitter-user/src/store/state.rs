//! The state as a value, and its form on disk: versioned JSON.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::{Event, EventKind, Finding},
    rollout::{Run, Stop},
    trip::TripFinding,
};
use crate::model::{BackendWeight, Cohort, Existing, NetworkList, Seed, ServiceName, Weight};

/// The version of the form on disk that this agent writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// So many events are kept; older ones are forgotten.
pub const MAX_EVENTS: usize = 1_000;

/// Everything that outlives the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// What was asked of each service. A service may be here that the configuration doesn't name (any more).
    pub services: BTreeMap<ServiceName, ServiceState>,
    /// How often an agent took over a running data plane.
    pub adoptions: u64,
    /// How many rollouts have begun.
    #[serde(default)]
    pub rollouts: u64,
    next_event: u64,
    events: VecDeque<Event>,
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, services: BTreeMap::new(), adoptions: 0, rollouts: 0, next_event: 1, events: VecDeque::new() }
    }
}

impl State {
    /// Notes what happened, and gives the event its number: 1, 2, 3 … over all restarts.
    pub fn record(&mut self, at: Timestamp, service: Option<ServiceName>, kind: EventKind) -> u64 {
        let id = self.next_event;
        self.next_event += 1;
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { id, at, service, kind });
        id
    }

    /// Fails if it holds what no agent wrote, and what the agent goes on from would overflow or lead nowhere.
    fn sound(&self) -> Result<(), Unsound> {
        for (name, number) in [("adoptions", self.adoptions), ("rollouts", self.rollouts), ("next_event", self.next_event)] {
            if number >= MOST {
                return Err(Unsound::new(name, "it can't have got so large"));
            }
        }
        let ids = self.events.iter().map(|event| event.id);
        if self.next_event == 0 || !ids.clone().chain([self.next_event]).is_sorted_by(|one, next| one < next) {
            return Err(Unsound::new("events", "their numbers don't rise, up to `next_event`"));
        }
        for (name, asked) in &self.services {
            for run in asked.rollout.iter().map(Box::as_ref).chain(&asked.past) {
                run.sound().map_err(|Unsound { place, what }| Unsound { place: format!("services.{name}: {place}"), what })?;
            }
        }
        Ok(())
    }

    /// The events that are kept, oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.events.iter()
    }

    /// The events after one that is known already; after 0: all that are kept.
    pub fn events_after(&self, id: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.id > id)
    }

    /// The number of the latest event, 0 before the first.
    #[must_use]
    pub const fn last_event(&self) -> u64 {
        self.next_event - 1
    }

    /// What was asked of a service: nothing, if it isn't known.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceState> {
        self.services.get(name)
    }
}

/// What was asked of one service by command, and what the agent made for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceState {
    /// The seed that the agent made, for want of one in the configuration.
    pub seed: Option<Seed>,
    /// A weight that overrides the configuration's.
    pub weight: Option<AskedWeight>,
    /// Everything goes to stable.
    pub flip: Option<Flip>,
    /// Changes to the backends.
    pub backends: BackendOverlay,
    /// Changes to the networks.
    pub networks: NetworkOverlay,
    /// The rollout that is going on, or the last one.
    pub rollout: Option<Box<Run>>,
    /// Those before it that the history doesn't have yet, oldest first: at most [`ServiceState::PAST`].
    pub past: Vec<Run>,
}

impl ServiceState {
    /// So many rollouts wait for the history; if it can't be written for long, older ones are forgotten.
    pub const PAST: usize = 20;

    /// Begins another rollout.
    pub fn begin(&mut self, run: Run) {
        if let Some(before) = self.rollout.replace(Box::new(run)) {
            if self.past.len() >= Self::PAST {
                self.past.remove(0);
            }
            self.past.push(*before);
        }
    }
}

/// A weight set by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedWeight {
    /// The weight.
    pub weight: Weight,
    /// The configured weight that it overrode: when the configuration's is another, this one is void.
    pub configured: Weight,
}

/// A service that was sent to stable as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// When.
    pub at: Timestamp,
    /// Who did it: a user, or the agent.
    pub by: String,
    /// Why.
    pub reason: FlipReason,
    /// What happens to established canary connections.
    pub existing: Existing,
}

/// Why a service was flipped. A tag names the kind, so that later kinds can be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FlipReason {
    /// Somebody asked for it.
    Person {
        /// In their words.
        text: Option<String>,
    },
    /// The canary crossed a limit.
    Breach {
        /// What was found.
        finding: Finding,
    },
    /// The data plane's breaker tripped.
    Breaker {
        /// What it saw.
        finding: TripFinding,
    },
    /// The agent's lease had run out, and the configuration has it that somebody decides before the weight counts again.
    Lease {
        /// When it ran out.
        since: Timestamp,
        /// Until an agent found it.
        lasted: Duration,
    },
    /// The state was damaged, so that nobody knew whether the service was flipped.
    StateLost {
        /// Where the damaged state is kept.
        kept_as: PathBuf,
    },
    /// The rollout was stopped.
    Rollout {
        /// By what.
        why: Stop,
    },
    /// The data plane was found flipped: whoever flipped it ended before the reason was kept.
    Found,
}

impl fmt::Display for FlipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { text: Some(text) } => f.write_str(text),
            Self::Person { text: None } => f.write_str("no reason given"),
            Self::Breach { finding } => finding.fmt(f),
            Self::Breaker { finding } => finding.fmt(f),
            Self::Lease { since, lasted } => {
                let lasted = humantime::format_duration(*lasted);
                write!(f, "the agent's lease had run out at {since}, for {lasted}, and `resume` is manual")
            }
            Self::StateLost { kept_as } => {
                write!(f, "the saved state was damaged (kept as {}), so it is held on stable", kept_as.display())
            }
            Self::Rollout { why } => why.fmt(f),
            Self::Found => f.write_str("the data plane was found flipped, and the reason was not kept"),
        }
    }
}

/// Changes to a service's backends by command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendOverlay {
    /// Backends that the configuration doesn't have, or has and that were removed and then added anew.
    pub added: BTreeMap<SocketAddr, AddedBackend>,
    /// Backends of the configuration that are out of use.
    pub removed: BTreeSet<SocketAddr>,
    /// Weights of backends of the configuration.
    pub weights: BTreeMap<SocketAddr, AskedBackendWeight>,
    /// Backends that get no new connections.
    pub draining: BTreeSet<SocketAddr>,
    /// Backends of the configuration whose cohort a promotion changed.
    pub promoted: BTreeMap<SocketAddr, PromotedBackend>,
    /// Those of `draining` that a promotion took out of use: the next rollout takes them back.
    pub retired: BTreeSet<SocketAddr>,
}

/// A backend of the configuration that a promotion put into the other cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromotedBackend {
    /// Its cohort now.
    pub cohort: Cohort,
    /// The configured one: when the configuration's is another, this is void.
    pub configured: Cohort,
}

/// A backend added by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedBackend {
    /// Its cohort.
    pub cohort: Cohort,
    /// Its weight.
    pub weight: BackendWeight,
}

/// A backend's weight set by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedBackendWeight {
    /// The weight.
    pub weight: BackendWeight,
    /// The configured one that it overrode: when the configuration's is another, this one is void.
    pub configured: BackendWeight,
}

/// Changes to a service's lists of networks by command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkOverlay {
    /// Networks that the configuration doesn't have, or has in the other list, from which they were removed.
    pub added: BTreeMap<IpNet, NetworkList>,
    /// Networks of the configuration that don't count.
    pub removed: BTreeSet<IpNet>,
}

/// Why bytes aren't a state.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or not the fields of a state.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Another version's.
    #[error("it is of version {found}, this agent reads version {VERSION}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// A state, but not the one that was written.
    #[error("its octets don't fit its checksum")]
    Changed,
    /// A state's fields, with a value that no agent wrote.
    #[error("{0}")]
    Unsound(#[from] Unsound),
}

/// A value that no agent wrote, so that nothing can be built on what it stands in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Unsound {
    /// Where it stands.
    pub place: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Unsound {
    pub(super) fn new(place: impl Into<String>, what: &'static str) -> Self {
        Self { place: place.into(), what }
    }
}

/// Numbers that only grow, by one at a time, don't get here.
const MOST: u64 = 1 << 53;

/// The form on disk.
///
/// # Errors
/// A value that JSON can't say; none is known.
pub fn encode(state: &State) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec_pretty(state)
}

/// Reads the form on disk.
///
/// # Errors
/// Damage, or an unknown version.
pub fn decode(bytes: &[u8]) -> Result<State, Unreadable> {
    /// All that any version has.
    #[derive(Deserialize)]
    struct Header {
        version: u32,
    }
    let Header { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(Unreadable::Version { found: version });
    }
    let state: State = serde_json::from_slice(bytes)?;
    state.sound()?;
    Ok(state)
}

/// A new seed, from the system's randomness by way of a generator that is fit for secrets.
#[must_use]
pub fn fresh_seed() -> Seed {
    Seed(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_for_ever_and_the_oldest_are_forgotten() {
        let mut state = State::default();
        assert_eq!(state.last_event(), 0);
        for expected in 1..=MAX_EVENTS as u64 + 5 {
            assert_eq!(state.record(Timestamp::UNIX_EPOCH, None, EventKind::AgentStarted { adopted: false }), expected);
        }
        assert_eq!(state.events().len(), MAX_EVENTS);
        assert_eq!(state.events().next().map(|event| event.id), Some(6));
        assert_eq!(state.events_after(1_003).map(|event| event.id).collect::<Vec<_>>(), [1_004, 1_005]);
        let read = decode(&encode(&state).expect("encoded")).expect("decoded");
        assert_eq!(read.last_event(), 1_005);
    }

    #[test]
    fn another_version_and_unknown_fields_are_not_guessed_at() {
        let version = decode(br#"{"version": 2, "services": {}}"#).expect_err("another version").to_string();
        assert_eq!(version, "it is of version 2, this agent reads version 1");
        let field = br#"{"version": 1, "services": {}, "adoptions": 0, "next_event": 1, "events": [], "leases": {}}"#;
        let field = decode(field).expect_err("an unknown field").to_string();
        assert!(field.contains("unknown field `leases`"), "{field}");
    }

    #[test]
    fn numbers_that_no_agent_wrote_are_not_gone_on_from() {
        let state = |next_event: u64, ids: &[u64], adoptions: u64| {
            let event = |id: &u64| {
                format!(
                    r#"{{"id": {id}, "at": "1970-01-01T00:00:00Z", "service": null, "kind": "agent_started", "adopted": false}}"#
                )
            };
            let events = ids.iter().map(event).collect::<Vec<_>>().join(", ");
            format!(
                r#"{{"version": 1, "services": {{}}, "adoptions": {adoptions}, "next_event": {next_event}, "events": [{events}]}}"#
            )
        };
        let rows = [
            (state(1, &[], 0), None),
            (state(3, &[1, 2], 7), None),
            (state(0, &[], 0), Some("events: their numbers don't rise, up to `next_event`")),
            (state(2, &[1, 2], 0), Some("events: their numbers don't rise, up to `next_event`")),
            (state(3, &[2, 1], 0), Some("events: their numbers don't rise, up to `next_event`")),
            (state(u64::MAX, &[], 0), Some("next_event: it can't have got so large")),
            (state(1, &[], u64::MAX), Some("adoptions: it can't have got so large")),
        ];
        for (text, wrong) in rows {
            let read = decode(text.as_bytes());
            assert_eq!(read.as_ref().err().map(ToString::to_string).as_deref(), wrong, "{text}");
            if let Ok(mut state) = read {
                let last = state.last_event();
                assert_eq!(state.record(Timestamp::UNIX_EPOCH, None, EventKind::AgentStarted { adopted: true }), last + 1);
            }
        }
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(fresh_seed(), fresh_seed());
    }
}
