//! What happened, what was looked at, and what didn't hold.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::rules::{Excuse, Harm, Served, Suffered};

/// How many events before a violation are told with it.
const HISTORY: usize = 5;
/// Violations of one kind that are told in full; the rest is counted.
const MOST_TOLD: u64 = 20;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// No established connection breaks but by an event that may break it.
    Connections,
    /// New connections are answered.
    Attempts,
    /// Datagrams are answered.
    Datagrams,
    /// What came back is what was sent, and from whom it was at first.
    Content,
    /// The canary gets its share.
    Share,
    /// What was asked is in force soon after each event.
    Asked,
    /// A wrong configuration, or a change that can't be kept, changes nothing.
    Refused,
    /// Metrics answer whenever an agent runs.
    Metrics,
    /// Counters never fall.
    Monotone,
    /// In the end counters are what clients saw.
    Totals,
    /// In the end nothing lives, and no table holds anything.
    Live,
    /// Programs and maps of the kernel: as many as in the beginning, in the end none.
    Objects,
    /// The agent's descriptors, threads and memory don't grow.
    Agent,
    /// In the end no namespace, pin, process or file is left.
    Leftovers,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Connections,
        Self::Attempts,
        Self::Datagrams,
        Self::Content,
        Self::Share,
        Self::Asked,
        Self::Refused,
        Self::Metrics,
        Self::Monotone,
        Self::Totals,
        Self::Live,
        Self::Objects,
        Self::Agent,
        Self::Leftovers,
    ];

    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Connections => "no established connection broke that had to live",
            Self::Attempts => "every new connection was answered that had to be",
            Self::Datagrams => "every datagram was answered that had to be",
            Self::Content => "every byte that came back was right",
            Self::Share => "the canary got its share",
            Self::Asked => "what was asked was in force",
            Self::Refused => "what was wrong changed nothing",
            Self::Metrics => "metrics answered",
            Self::Monotone => "no counter fell",
            Self::Totals => "counters are what clients saw",
            Self::Live => "nothing lives without a client",
            Self::Objects => "no program, no map too many in the kernel",
            Self::Agent => "descriptors, threads and memory of the agent didn't grow",
            Self::Leftovers => "nothing was left behind",
        }
    }
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// When, in milliseconds from the begin.
    pub at_ms: u128,
    /// What.
    pub invariant: Invariant,
    /// In words and numbers.
    pub what: String,
    /// The last events before, the newest last.
    pub history: Vec<String>,
}

/// What is known.
#[derive(Debug, Default)]
pub struct Known {
    /// Events that were begun, with their moments.
    pub events: Vec<(Duration, String)>,
    /// What was left out, and why.
    pub skipped: BTreeMap<String, String>,
    /// How often each invariant was looked at.
    pub looks: BTreeMap<Invariant, u64>,
    /// Violations, the first so many of each invariant.
    pub violations: Vec<Violation>,
    /// All violations.
    pub counts: BTreeMap<Invariant, u64>,
    /// Harms that events may do, with how often, by harm.
    pub excused: BTreeMap<Harm, u64>,
    excuses: Vec<Excuse>,
}

/// The journal; whoever runs writes into it.
#[derive(Debug)]
pub struct Journal {
    begun: Instant,
    /// Odd while an event goes on.
    turns: AtomicU64,
    known: Mutex<Known>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { begun: Instant::now(), turns: AtomicU64::new(0), known: Mutex::default() }
    }
}

impl Journal {
    /// Since the begin.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A moment, as time since the begin.
    #[must_use]
    pub fn since(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.begun)
    }

    /// What is known.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        // It is whole at any time, even if a holder of the lock panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event begins.
    pub fn event(&self, told: &str) {
        self.turns.fetch_add(1, Ordering::AcqRel);
        let now = self.now();
        let mut known = self.known();
        known.events.push((now, told.into()));
        let violations: u64 = known.counts.values().sum();
        drop(known);
        self.say(&format!("{told}{}", if violations == 0 { String::new() } else { format!("   [{violations} violations]") }));
    }

    /// A line of progress.
    pub fn say(&self, told: &str) {
        println!("[{:7.1} s] {told}", self.now().as_secs_f64());
    }

    /// An event was left out.
    pub fn skip(&self, kind: &str, why: &str) {
        self.known().skipped.insert(kind.into(), why.into());
        self.say(&format!("left out: {kind}: {why}"));
    }

    /// Looked at so often.
    pub fn looked(&self, invariant: Invariant, times: u64) {
        *self.known().looks.entry(invariant).or_default() += times;
    }

    /// Something did not hold.
    pub fn violate(&self, invariant: Invariant, what: impl Into<String>) {
        let what = what.into();
        let at_ms = self.now().as_millis();
        let mut known = self.known();
        let count = known.counts.entry(invariant).or_default();
        *count += 1;
        if *count > MOST_TOLD {
            return;
        }
        let from = known.events.len().saturating_sub(HISTORY);
        let history = known.events[from..].iter().map(|(at, told)| format!("{:.1} s: {told}", at.as_secs_f64())).collect();
        known.violations.push(Violation { at_ms, invariant, what: what.clone(), history });
        drop(known);
        self.say(&format!("VIOLATION: {}: {what}", invariant.told()));
    }

    /// Looked at once, and it held or didn't.
    pub fn check(&self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        self.looked(invariant, 1);
        if !holds {
            self.violate(invariant, what());
        }
    }

    /// From now on an event may do so.
    pub fn excuse(&self, event: u64, harms: &[Harm], services: Vec<String>, backends: &[&str]) {
        let backends = backends.iter().map(|name| (*name).to_owned()).collect();
        let excuse = Excuse { event, harms: harms.to_vec(), services, backends, from: self.now(), until: None };
        self.known().excuses.push(excuse);
    }

    /// An event may hurt nobody any more.
    pub fn no_excuse(&self, event: u64) {
        let now = self.now();
        let mut known = self.known();
        known.excuses.iter_mut().filter(|excuse| excuse.event == event).for_each(|excuse| {
            excuse.until.get_or_insert(now);
        });
    }

    /// The number of events that have begun and ended until now, if none goes on.
    #[must_use]
    pub fn calm(&self) -> Option<u64> {
        Some(self.turns.load(Ordering::Acquire)).filter(|turns| turns.is_multiple_of(2))
    }

    /// An event is over.
    pub fn is_over(&self) {
        self.turns.fetch_add(1, Ordering::AcqRel);
    }

    /// Somebody suffered; whether that was excused.
    pub fn suffered(&self, suffered: &Suffered) -> bool {
        let mut known = self.known();
        let excused = known.excuses.iter().any(|excuse| excuse.covers(suffered));
        if excused {
            *known.excused.entry(suffered.harm).or_default() += 1;
            return true;
        }
        drop(known);
        let invariant = match suffered.harm {
            Harm::Broken => Invariant::Connections,
            Harm::Failed => Invariant::Attempts,
            Harm::Lost | Harm::Moved => Invariant::Datagrams,
        };
        let Suffered { harm, service, backend, from, until, why } = suffered;
        let by = backend.as_deref().unwrap_or("nobody knows whom");
        let what =
            format!("{service}, {by}: {}, from {:.2} s to {:.2} s: {why}", harm.told(), from.as_secs_f64(), until.as_secs_f64());
        self.violate(invariant, what);
        false
    }

    /// Somebody suffered, with a service and perhaps a backend, between two moments.
    pub fn suffer(&self, harm: Harm, service: Served, backend: Option<String>, span: (Duration, Duration), why: &str) {
        let (from, until) = span;
        self.suffered(&Suffered { harm, service, backend, from, until, why: why.into() });
    }
}

#[cfg(test)]
mod tests {
    use splitter_user::model::Mode;

    use super::*;
    use crate::node::{Family, Kind};

    const SERVICE: Served = Served { kind: Kind::Echo, mode: Mode::Nat, family: Family::V4 };

    #[test]
    fn a_harm_without_an_excuse_is_a_violation_and_tells_what_happened_before() {
        let journal = Journal::default();
        for number in 0..7 {
            journal.event(&format!("event {number}"));
        }
        let span = (Duration::ZERO, journal.now());
        journal.suffer(Harm::Broken, SERVICE, Some("stable1".into()), span, "reset");
        let known = journal.known();
        let [violation] = &known.violations[..] else { panic!("{known:?}") };
        assert_eq!((violation.invariant, violation.history.len()), (Invariant::Connections, HISTORY));
        assert!(violation.history[HISTORY - 1].ends_with("event 6") && violation.what.contains("stable1"), "{violation:?}");
    }

    #[test]
    fn a_harm_with_an_excuse_is_counted_until_the_excuse_is_over() {
        let journal = Journal::default();
        journal.excuse(1, &[Harm::Broken], Vec::new(), &["stable1"]);
        let hurt = || journal.suffer(Harm::Broken, SERVICE, Some("stable1".into()), (journal.now(), journal.now()), "reset");
        hurt();
        journal.no_excuse(1);
        std::thread::sleep(Duration::from_millis(2));
        hurt();
        let known = journal.known();
        assert_eq!((known.excused.get(&Harm::Broken), known.counts.get(&Invariant::Connections)), (Some(&1), Some(&1)));
    }
}
