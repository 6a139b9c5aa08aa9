//! What is done, and when: nothing but the seed determines it. Pure.
//!
//! Kinds of events come in rounds. In a round each kind comes once, in an order of its own, so that a short run sees most of them. Of four rounds the first alone ends the agent's process,
//! so that there are processes that live long enough for a leak to show.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use serde::Serialize;

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Other weights.
    Weights,
    /// A backend is removed by command, and added again.
    BackendRemoved,
    /// A backend that the configuration doesn't have is added by command, and removed.
    BackendAdded,
    /// A backend is drained, and undrained.
    BackendDrained,
    /// A backend's process is killed, and started again.
    ServerKilled,
    /// A backend's process is stopped (SIGSTOP), and goes on.
    ServerFrozen,
    /// A backend's link goes down, and up.
    BackendLinkDown,
    /// The node's only link goes down, and up.
    NodeLinkDown,
    /// A backend gets another MAC address.
    MacChanged,
    /// The node forgets its neighbours.
    NeighborsDeleted,
    /// A route to a backend comes and goes.
    RouteChanged,
    /// The agent is killed, and started again.
    AgentKilled,
    /// The agent is stopped (SIGSTOP), and goes on.
    AgentStopped,
    /// The agent is stopped in order, and started again.
    AgentRestarted,
    /// The agent is stopped in order, and another binary takes over.
    AgentUpgraded,
    /// The configuration is changed, and read anew.
    Reloaded,
    /// A wrong configuration is refused.
    ReloadRefused,
    /// The state file is damaged while the agent is dead.
    StateDamaged,
    /// The disk that keeps the state is full for a while.
    DiskFull,
    /// The agent's wall clock is stepped.
    ClockStepped,
    /// A service is flipped, established connections stay; and unflipped.
    FlippedKeep,
    /// A service is flipped, established canary connections are reset; and unflipped.
    FlippedReset,
    /// All canaries refuse until the breaker trips; they are mended, and the breaker is armed again.
    BreakerTripped,
    /// A rollout is started, and aborted.
    RolloutAborted,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Weights,
        Self::BackendRemoved,
        Self::BackendAdded,
        Self::BackendDrained,
        Self::ServerKilled,
        Self::ServerFrozen,
        Self::BackendLinkDown,
        Self::NodeLinkDown,
        Self::MacChanged,
        Self::NeighborsDeleted,
        Self::RouteChanged,
        Self::AgentKilled,
        Self::AgentStopped,
        Self::AgentRestarted,
        Self::AgentUpgraded,
        Self::Reloaded,
        Self::ReloadRefused,
        Self::StateDamaged,
        Self::DiskFull,
        Self::ClockStepped,
        Self::FlippedKeep,
        Self::FlippedReset,
        Self::BreakerTripped,
        Self::RolloutAborted,
    ];

    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Weights => "weights changed",
            Self::BackendRemoved => "backend removed",
            Self::BackendAdded => "backend added",
            Self::BackendDrained => "backend drained",
            Self::ServerKilled => "server killed",
            Self::ServerFrozen => "server frozen",
            Self::BackendLinkDown => "backend's link down",
            Self::NodeLinkDown => "node's link down",
            Self::MacChanged => "MAC address changed",
            Self::NeighborsDeleted => "neighbours deleted",
            Self::RouteChanged => "route changed",
            Self::AgentKilled => "agent killed",
            Self::AgentStopped => "agent stopped",
            Self::AgentRestarted => "agent restarted",
            Self::AgentUpgraded => "agent upgraded",
            Self::Reloaded => "reloaded",
            Self::ReloadRefused => "reload refused",
            Self::StateDamaged => "state damaged",
            Self::DiskFull => "disk full",
            Self::ClockStepped => "clock stepped",
            Self::FlippedKeep => "flipped, keep",
            Self::FlippedReset => "flipped, reset",
            Self::BreakerTripped => "breaker tripped",
            Self::RolloutAborted => "rollout aborted",
        }
    }

    /// Whether it ends the agent's process.
    #[must_use]
    pub const fn ends_agent(self) -> bool {
        match self {
            Self::AgentKilled | Self::AgentRestarted | Self::AgentUpgraded | Self::StateDamaged | Self::ClockStepped => true,
            Self::Weights
            | Self::BackendRemoved
            | Self::BackendAdded
            | Self::BackendDrained
            | Self::ServerKilled
            | Self::ServerFrozen
            | Self::BackendLinkDown
            | Self::NodeLinkDown
            | Self::MacChanged
            | Self::NeighborsDeleted
            | Self::RouteChanged
            | Self::AgentStopped
            | Self::Reloaded
            | Self::ReloadRefused
            | Self::DiskFull
            | Self::FlippedKeep
            | Self::FlippedReset
            | Self::BreakerTripped
            | Self::RolloutAborted => false,
        }
    }

    /// How long its trouble lasts, in milliseconds: shortest and longest.
    const fn lasts(self) -> (u64, u64) {
        match self {
            Self::NodeLinkDown => (200, 1_500),
            Self::BackendLinkDown | Self::ServerFrozen => (300, 2_500),
            // From well within the lease to well past it.
            Self::AgentKilled | Self::AgentStopped => (200, 9_000),
            Self::BreakerTripped | Self::StateDamaged | Self::ReloadRefused | Self::Reloaded => (100, 500),
            Self::Weights
            | Self::BackendRemoved
            | Self::BackendAdded
            | Self::BackendDrained
            | Self::ServerKilled
            | Self::MacChanged
            | Self::NeighborsDeleted
            | Self::RouteChanged
            | Self::AgentRestarted
            | Self::AgentUpgraded
            | Self::DiskFull
            | Self::ClockStepped
            | Self::FlippedKeep
            | Self::FlippedReset
            | Self::RolloutAborted => (700, 2_500),
        }
    }
}

/// Of so many rounds one ends the agent's process.
const ROUNDS: u64 = 4;

/// What may happen while no agent looks.
const BESIDE: [Kind; 5] =
    [Kind::ServerKilled, Kind::ServerFrozen, Kind::BackendLinkDown, Kind::MacChanged, Kind::NeighborsDeleted];

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counted from 1.
    pub number: u64,
    /// What is done.
    pub kind: Kind,
    /// For how long.
    pub lasts: Duration,
    /// How long nothing is done afterwards.
    pub rest: Duration,
    /// What happens while the agent is away.
    pub beside: Option<Kind>,
    /// Chooses whom it befalls, and how.
    pub choice: u64,
}

impl Event {
    /// One of so many, by one of several independent choices.
    #[must_use]
    pub fn choose(&self, which: u32, of: usize) -> usize {
        let mixed = self.choice.rotate_left(which * 13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> 33).unwrap_or(0) % of.max(1)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} for {:.1} s", self.number, self.kind.told(), self.lasts.as_secs_f64())?;
        match self.beside {
            Some(beside) => write!(f, ", and meanwhile {}", beside.told()),
            None => Ok(()),
        }
    }
}

/// All events of a seed, without an end.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Xoshiro256PlusPlus,
    round: Vec<Kind>,
    rounds: u64,
    events: u64,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(seed), round: Vec::new(), rounds: 0, events: 0 }
    }
}

impl Iterator for Schedule {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.round.is_empty() {
            let leaves_agent = !self.rounds.is_multiple_of(ROUNDS);
            self.rounds += 1;
            self.round = Kind::ALL.into_iter().filter(|kind| !(leaves_agent && kind.ends_agent())).collect();
            self.round.shuffle(&mut self.random);
        }
        let kind = self.round.pop()?;
        self.events += 1;
        let (least, most) = kind.lasts();
        let lasts = Duration::from_millis(self.random.random_range(least..=most));
        let rest = Duration::from_millis(self.random.random_range(500..=2_000));
        let is_away = matches!(kind, Kind::AgentKilled | Kind::AgentStopped);
        let beside = BESIDE[self.random.random_range(0..BESIDE.len())];
        let beside = Some(beside).filter(|_| is_away && self.random.random_bool(0.5));
        Some(Event { number: self.events, kind, lasts, rest, beside, choice: self.random.random() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_has_one_schedule_and_another_seed_another() {
        let events = |seed| Schedule::new(seed).take(200).collect::<Vec<_>>();
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
    }

    #[test]
    fn every_kind_comes_before_any_comes_twice_and_the_next_rounds_leave_the_agent_alone() {
        let kinds = |skip: usize, take: usize| Schedule::new(3).skip(skip).take(take).map(|event| event.kind).collect::<Vec<_>>();
        let first = kinds(0, Kind::ALL.len());
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), Kind::ALL.len(), "{first:?}");
        let leaves = Kind::ALL.iter().filter(|kind| !kind.ends_agent()).count();
        let next = kinds(Kind::ALL.len(), 3 * leaves);
        assert!(next.iter().all(|kind| !kind.ends_agent()), "{next:?}");
        assert!(kinds(Kind::ALL.len() + 3 * leaves, Kind::ALL.len()).iter().any(|kind| kind.ends_agent()));
    }

    #[test]
    fn something_happens_besides_only_while_the_agent_is_away() {
        let besides: Vec<_> = Schedule::new(5).take(2_000).filter(|event| event.beside.is_some()).collect();
        assert!(besides.len() > 20);
        assert!(besides.iter().all(|event| matches!(event.kind, Kind::AgentKilled | Kind::AgentStopped)));
    }

    #[test]
    fn choices_of_one_event_are_independent() {
        let pairs: BTreeSet<_> =
            Schedule::new(1).take(400).map(|event| (event.choose(0, 3), event.choose(1, 3), event.choose(2, 2))).collect();
        assert_eq!(pairs.len(), 18);
    }
}
