//! Whether the canary gets its share of new connections: counted while the weight is steady, each weight of each service for itself, and held against the binomial distribution. Pure.

use std::{collections::BTreeMap, time::Duration};

use splitter_user::model::Weight;

use crate::demo::binomial;

/// Less happens by chance once in a billion looks, and so does more: there are some ten thousand looks in an hour.
const TAIL: f64 = 1e-9;

/// A time in which a service's weight was steady.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steady {
    from: Duration,
    until: Option<Duration>,
    share: Weight,
}

/// Steady times, and what was counted in them.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    times: BTreeMap<String, Vec<Steady>>,
    /// New connections, and those of the canary, by service and share.
    pub counts: BTreeMap<(String, u16), (u64, u64)>,
    /// The same, since somebody last said that nothing came in between.
    lately: BTreeMap<(String, u16), (u64, u64)>,
}

impl Shares {
    /// From here on the service's canary has this share.
    pub fn begin(&mut self, service: &str, share: Weight, now: Duration) {
        self.end(service, now);
        self.times.entry(service.into()).or_default().push(Steady { from: now, until: None, share });
    }

    /// From here on nobody says what share it has.
    pub fn end(&mut self, service: &str, now: Duration) {
        if let Some(last) = self.times.get_mut(service).and_then(|times| times.last_mut()) {
            last.until.get_or_insert(now);
        }
    }

    /// The share that a connection's cohort was drawn by, if it was steady from the connection's begin until it was established.
    #[must_use]
    pub fn of(&self, service: &str, begun: Duration, established: Duration) -> Option<Weight> {
        let times = self.times.get(service)?;
        let steady = times.iter().rev().find(|steady| steady.from <= begun)?;
        steady.until.is_none_or(|until| established <= until).then_some(steady.share)
    }

    /// Nothing came in between: what was counted lately counts.
    pub fn keep(&mut self) {
        for (which, (all, canary)) in std::mem::take(&mut self.lately) {
            let sums = self.counts.entry(which).or_default();
            *sums = (sums.0 + all, sums.1 + canary);
        }
    }

    /// Something did, that nobody had planned.
    pub fn forget(&mut self) {
        self.lately.clear();
    }

    /// Counts a connection; the share that it was drawn by, if that's known.
    pub fn count(&mut self, service: &str, begun: Duration, established: Duration, is_canary: bool) -> Option<Weight> {
        let share = self.of(service, begun, established)?;
        let (all, canary) = self.lately.entry((service.into(), share.basis_points())).or_default();
        *all += 1;
        *canary += u64::from(is_canary);
        Some(share)
    }

    /// Each count that can't be by chance, in words.
    #[must_use]
    pub fn odd(&self) -> Vec<((String, u16), String)> {
        let odd = self.counts.iter().filter_map(|((service, share), (all, canary))| {
            let fraction = f64::from(*share) / f64::from(Weight::ALL.basis_points());
            let (least, most) = binomial::bounds_beyond(*all, fraction, TAIL);
            let told = || {
                let percent = fraction * 100.0;
                format!("{service}: the canary got {canary} of {all} new connections at {percent}%: {least} to {most} happen by chance")
            };
            (!(least..=most).contains(canary)).then(|| ((service.clone(), *share), told()))
        });
        odd.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).expect("a weight")
    }

    #[test]
    fn a_connection_belongs_to_the_steady_time_that_holds_it_whole() {
        let mut shares = Shares::default();
        shares.begin("web", weight(500), S(10));
        shares.end("web", S(20));
        shares.begin("web", weight(1_000), S(30));
        for (why, begun, established, share) in [
            ("before", 5, 11, None),
            ("within", 10, 20, Some(500)),
            ("it was drawn nobody knows when", 19, 21, None),
            ("between", 25, 26, None),
            ("in the one that lasts", 40, 99, Some(1_000)),
        ] {
            let found = shares.of("web", S(begun), S(established)).map(Weight::basis_points);
            assert_eq!(found, share, "{why}");
        }
        assert_eq!(shares.of("other", S(10), S(11)), None);
    }

    #[test]
    fn a_share_that_is_moved_is_found_and_one_that_is_not_isnt() {
        let mut shares = Shares::default();
        shares.begin("web", weight(2_000), S(0));
        for number in 0..500 {
            shares.count("web", S(1), S(1), number % 5 == 0);
        }
        shares.keep();
        assert_eq!(shares.odd(), []);
        for _ in 0..100 {
            shares.count("web", S(1), S(1), true);
        }
        let mut in_between = shares.clone();
        in_between.forget();
        in_between.keep();
        assert_eq!(in_between.odd(), []);
        shares.keep();
        let [((service, 2_000), told)] = &shares.odd()[..] else { panic!("{:?}", shares.odd()) };
        assert!(service == "web" && told.contains("200 of 600"), "{told}");
    }

    #[test]
    fn at_nothing_a_single_connection_of_the_canary_is_odd() {
        let mut shares = Shares::default();
        shares.begin("web", Weight::ZERO, S(0));
        shares.count("web", S(1), S(1), false);
        shares.keep();
        assert_eq!(shares.odd(), []);
        shares.count("web", S(1), S(1), true);
        shares.keep();
        assert_eq!(shares.odd().len(), 1);
    }
}
