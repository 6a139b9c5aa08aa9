//! Counters that only grow become what happened within a time.

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Sum,
    net::SocketAddr,
    ops::{Add, AddAssign, Index, IndexMut, SubAssign},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::model::Cohort;

/// What became of connections, as counts. A value that adds up: over backends, over time, over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Attempts (UDP: exchanges) begun.
    pub opened: u64,
    /// Handshakes completed (UDP: exchanges answered).
    pub completed: u64,
    /// Attempts answered by a RST.
    pub refused: u64,
    /// Attempts that were not answered in time.
    pub timed_out: u64,
    /// Connections that the backend reset after they were established.
    pub reset: u64,
}

impl Tally {
    /// What happened between an earlier reading of the same counters and this one. A counter that is lower than it was has begun anew (another
    /// data plane, or a backend that was forgotten and came back), so that all it shows is new.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        const fn grown(now: u64, before: u64) -> u64 {
            if now >= before { now - before } else { now }
        }
        Self {
            opened: grown(self.opened, earlier.opened),
            completed: grown(self.completed, earlier.completed),
            refused: grown(self.refused, earlier.refused),
            timed_out: grown(self.timed_out, earlier.timed_out),
            reset: grown(self.reset, earlier.reset),
        }
    }

    /// Attempts whose outcome is known.
    #[must_use]
    pub const fn resolved(self) -> u64 {
        self.completed.saturating_add(self.refused).saturating_add(self.timed_out)
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            opened: self.opened.saturating_add(other.opened),
            completed: self.completed.saturating_add(other.completed),
            refused: self.refused.saturating_add(other.refused),
            timed_out: self.timed_out.saturating_add(other.timed_out),
            reset: self.reset.saturating_add(other.reset),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

/// One value for each cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohorts<T> {
    /// Of the version in service.
    pub stable: T,
    /// Of the version on trial.
    pub canary: T,
}

impl<T> Index<Cohort> for Cohorts<T> {
    type Output = T;

    fn index(&self, cohort: Cohort) -> &T {
        match cohort {
            Cohort::Stable => &self.stable,
            Cohort::Canary => &self.canary,
        }
    }
}

impl<T> IndexMut<Cohort> for Cohorts<T> {
    fn index_mut(&mut self, cohort: Cohort) -> &mut T {
        match cohort {
            Cohort::Stable => &mut self.stable,
            Cohort::Canary => &mut self.canary,
        }
    }
}

impl AddAssign for Cohorts<Tally> {
    fn add_assign(&mut self, other: Self) {
        self.stable += other.stable;
        self.canary += other.canary;
    }
}

impl SubAssign for Cohorts<Tally> {
    /// Of a sum that has the other in it.
    fn sub_assign(&mut self, other: Self) {
        for cohort in Cohort::ALL {
            self[cohort] = self[cohort].since(other[cohort]);
        }
    }
}

/// One backend's counters of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The cohort that it is in.
    pub cohort: Cohort,
    /// Since it was added.
    pub tally: Tally,
}

/// Reads a service's counters again and again, and says what happened in between.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// None before the first reading, of which it isn't known when it happened.
    before: Option<BTreeMap<SocketAddr, Tally>>,
}

impl Meter {
    /// What happened since the last reading; nothing at the first. A backend that wasn't there then has all it shows from the time in between.
    pub fn read(&mut self, now: &BTreeMap<SocketAddr, Count>) -> Cohorts<Tally> {
        let mut happened = Cohorts::default();
        if let Some(before) = &self.before {
            for (backend, count) in now {
                let earlier = before.get(backend).copied().unwrap_or_default();
                happened[count.cohort] += count.tally.since(earlier);
            }
        }
        self.before = Some(now.iter().map(|(backend, count)| (*backend, count.tally)).collect());
        happened
    }
}

/// What happened within the last so-and-so long. Old entries are dropped when something is asked or added.
#[derive(Clone, Debug)]
pub struct Window {
    length: Duration,
    entries: VecDeque<Entry>,
    sum: Cohorts<Tally>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Of its first addition.
    began: Instant,
    /// Of its last one.
    at: Instant,
    happened: Cohorts<Tally>,
}

impl Window {
    /// A window has so many entries at most: additions that are closer together share one, which expires as a whole. So it looks back up to a
    /// sixty-fourth farther than its length, and its size doesn't depend on how often it's added to.
    const ENTRIES: u32 = 64;

    /// An empty one.
    #[must_use]
    pub const fn new(length: Duration) -> Self {
        Self { length, entries: VecDeque::new(), sum: Cohorts { stable: EMPTY, canary: EMPTY } }
    }

    /// How far back it looks.
    #[must_use]
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// Adds what happened up to now.
    pub fn add(&mut self, now: Instant, happened: Cohorts<Tally>) {
        self.expire(now);
        if happened.stable.is_empty() && happened.canary.is_empty() {
            return;
        }
        self.sum += happened;
        let width = self.length / Self::ENTRIES;
        match self.entries.back_mut() {
            Some(last) if now.saturating_duration_since(last.began) < width => {
                last.at = now;
                last.happened += happened;
            }
            Some(_) | None => self.entries.push_back(Entry { began: now, at: now, happened }),
        }
    }

    /// What is in it now.
    pub fn sum(&mut self, now: Instant) -> Cohorts<Tally> {
        self.expire(now);
        self.sum
    }

    /// Forgets everything: what happened before says nothing about what comes.
    pub fn clear(&mut self) {
        *self = Self::new(self.length);
    }

    fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.entries.front()
            && now.saturating_duration_since(entry.at) >= self.length
        {
            self.sum -= entry.happened;
            self.entries.pop_front();
        }
    }
}

const EMPTY: Tally = Tally { opened: 0, completed: 0, refused: 0, timed_out: 0, reset: 0 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_reading_is_where_counting_begins_and_a_new_backend_counts_from_zero() {
        let mut meter = Meter::default();
        let old = backends(&[(1, Cohort::Stable, 1_000)]);
        assert_eq!(meter.read(&old), Cohorts::default(), "nobody knows when those were opened");
        let happened = meter.read(&backends(&[(1, Cohort::Stable, 1_005), (2, Cohort::Canary, 3)]));
        assert_eq!((happened.stable.opened, happened.canary.opened), (5, 3));
    }

    #[test]
    fn counters_that_begin_anew_count_from_zero() {
        let mut meter = Meter::default();
        meter.read(&backends(&[(1, Cohort::Canary, 1_000)]));
        assert_eq!(meter.read(&backends(&[(1, Cohort::Canary, 7)])).canary.opened, 7);
        assert_eq!(meter.read(&backends(&[])).canary.opened, 0, "gone");
        assert_eq!(meter.read(&backends(&[(1, Cohort::Canary, 2)])).canary.opened, 2, "back");
    }

    #[test]
    fn what_happened_is_forgotten_after_the_window() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(10));
        window.add(start, opened(5));
        window.add(start + Duration::from_secs(6), opened(2));
        let sum = |window: &mut Window, after| window.sum(start + Duration::from_millis(after)).canary.opened;
        assert_eq!(sum(&mut window, 9_999), 7);
        assert_eq!(sum(&mut window, 10_000), 2);
        assert_eq!(sum(&mut window, 16_000), 0);
    }

    proptest! {
        #[test]
        fn a_window_has_what_its_time_has_and_at_most_one_entry_more(
            steps in prop::collection::vec((0_u64..3_000, 0_u64..50), 1..300),
            length in 1_000_u64..10_000,
        ) {
            let (start, length) = (Instant::now(), Duration::from_millis(length));
            let mut window = Window::new(length);
            let mut all = Vec::new();
            let mut now = start;
            for (pause, count) in steps {
                now += Duration::from_millis(pause);
                window.add(now, opened(count));
                all.push((now, count));
                let within = |limit: Duration| all.iter().filter(|(at, _)| now - *at < limit).map(|(_, n)| n).sum::<u64>();
                let sum = window.sum(now).canary.opened;
                prop_assert!(sum >= within(length));
                prop_assert!(sum <= within(length + length / Window::ENTRIES));
                prop_assert!(window.entries.len() <= Window::ENTRIES as usize + 1);
            }
        }

        #[test]
        fn no_reading_ever_gives_more_than_it_shows(readings in prop::collection::vec(0_u64..1_000, 2..20)) {
            let mut meter = Meter::default();
            for (index, reading) in readings.iter().enumerate() {
                let happened = meter.read(&backends(&[(1, Cohort::Canary, *reading)])).canary.opened;
                prop_assert!(happened <= *reading);
                if index > 0 && *reading >= readings[index - 1] {
                    prop_assert_eq!(happened, reading - readings[index - 1]);
                }
            }
        }
    }

    fn opened(count: u64) -> Cohorts<Tally> {
        Cohorts { canary: Tally { opened: count, ..EMPTY }, stable: EMPTY }
    }

    fn backends(list: &[(u8, Cohort, u64)]) -> BTreeMap<SocketAddr, Count> {
        let count = |opened| Tally { opened, ..EMPTY };
        list.iter()
            .map(|(n, cohort, opened)| (([10, 0, 0, *n], 80).into(), Count { cohort: *cohort, tally: count(*opened) }))
            .collect()
    }
}
