//! What others do, as models of it.

use std::time::Duration;

use splitter_user::{
    controller::{Cohorts, Seen, Tally},
    store::Sample,
};

/// Attempts that were refused or timed out, of those whose outcome is known.
#[must_use]
pub const fn failed(tally: Tally) -> Sample {
    Sample { failures: tally.refused + tally.timed_out, attempts: tally.resolved() }
}

/// A fixed threshold for the canary's failures, as Flagger holds its canary against one.
///
/// Of Flagger (`pkg/controller/scheduler.go`, with `interval: 10s`, `threshold: 5` and the usual `request-success-rate` of at least 99%) is modelled: every interval the
/// share of failures in that interval is looked at; more than 1% is a failed check; five failed checks roll back. Flagger counts them over the whole analysis: a check
/// that passes doesn't take one back. A model that wants them in a row is judged beside it. Not modelled: an interval without connections, which is no check
/// here; the delay of a scrape; webhooks; that the weight grows meanwhile.
#[derive(Clone, Debug)]
pub struct Thresholds {
    in_a_row: bool,
    since: Duration,
    seen: Sample,
    failed_checks: u32,
}

impl Thresholds {
    const INTERVAL: Duration = Duration::from_secs(10);
    const LIMIT: f64 = 0.01;
    const FAILED_CHECKS: u32 = 5;

    /// Nothing seen yet.
    #[must_use]
    pub fn new(in_a_row: bool) -> Self {
        Self { in_a_row, since: Duration::ZERO, seen: Sample::default(), failed_checks: 0 }
    }

    /// Looks at what happened; whether it rolls back.
    pub fn look(&mut self, seen: &Cohorts<Seen>, elapsed: Duration) -> bool {
        let canary = failed(seen.canary.tally);
        self.seen.failures += canary.failures;
        self.seen.attempts += canary.attempts;
        self.since += elapsed;
        if self.since >= Self::INTERVAL {
            if self.seen.attempts > 0 && share(self.seen) > Self::LIMIT {
                self.failed_checks += 1;
            } else if self.in_a_row && self.seen.attempts > 0 {
                self.failed_checks = 0;
            }
            (self.since, self.seen) = (Duration::ZERO, Sample::default());
        }
        self.failed_checks >= Self::FAILED_CHECKS
    }
}

/// A Mann–Whitney U test, repeated each minute, as Kayenta's judge decides about a metric.
///
/// Of Kayenta (`MannWhitney.scala` and `MannWhitneyClassifier.scala`, confidence 98%) is modelled: the metric is the share of failures, one value of each cohort for every
/// ten seconds since the start; the canary is called worse when the lower end of the 98% interval for the shift of its values is above zero. That is so if the
/// normal approximation of U, with average ranks, corrected for ties and for continuity, is more than 2.326 standard deviations above what is expected of equals.
/// Not modelled: the interval's end must also be beyond a quarter of the estimated shift; several metrics and their score. Kayenta itself judges
/// at intervals that its user sets, and each time all of the data: so does this.
#[derive(Clone, Debug)]
pub struct MannWhitney {
    since: Duration,
    values: u32,
    seen: Cohorts<Sample>,
    /// Ascending.
    shares: Cohorts<Vec<f64>>,
}

impl MannWhitney {
    const EVERY: Duration = Duration::from_secs(10);
    /// Values between two tests.
    const TEST: u32 = 6;
    /// The normal distribution's 99th percentile.
    const LIMIT: f64 = 2.326_347_874_040_841;

    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self { since: Duration::ZERO, values: 0, seen: Cohorts::default(), shares: Cohorts::default() }
    }

    /// Looks at what happened; whether it says that the canary is worse.
    pub fn look(&mut self, seen: &Cohorts<Seen>, elapsed: Duration) -> bool {
        for (sum, tally) in [(&mut self.seen.stable, seen.stable.tally), (&mut self.seen.canary, seen.canary.tally)] {
            let sample = failed(tally);
            sum.failures += sample.failures;
            sum.attempts += sample.attempts;
        }
        self.since += elapsed;
        if self.since < Self::EVERY {
            return false;
        }
        for (sum, shares) in [(&mut self.seen.stable, &mut self.shares.stable), (&mut self.seen.canary, &mut self.shares.canary)]
        {
            if sum.attempts > 0 {
                let share = share(*sum);
                shares.insert(shares.partition_point(|other| *other < share), share);
            }
            *sum = Sample::default();
        }
        self.since = Duration::ZERO;
        self.values += 1;
        self.values.is_multiple_of(Self::TEST) && deviations(&self.shares.canary, &self.shares.stable) > Self::LIMIT
    }
}

impl Default for MannWhitney {
    fn default() -> Self {
        Self::new()
    }
}

/// By how many standard deviations U of the first values is above what is expected of equals; 0 if nothing can be told. Both are ascending.
fn deviations(first: &[f64], second: &[f64]) -> f64 {
    let (m, n) = (first.len(), second.len());
    let (mut i, mut j) = (0, 0);
    let (mut u, mut ties) = (0.0, 0.0);
    while i < m || j < n {
        let next = match (first.get(i), second.get(j)) {
            (Some(a), Some(b)) => a.min(*b),
            (Some(one), None) | (None, Some(one)) => *one,
            (None, None) => break,
        };
        let alike = |values: &[f64]| values.iter().take_while(|value| **value <= next).count();
        let (a, b) = (alike(&first[i..]), alike(&second[j..]));
        // Each of the first beats all of the second that came before, and half of those that are alike.
        u += as_f64(a) * (as_f64(j) + as_f64(b) / 2.0);
        ties += as_f64(a + b).powi(3) - as_f64(a + b);
        (i, j) = (i + a, j + b);
    }
    let (m, n) = (as_f64(m), as_f64(n));
    let all = m + n;
    let variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    let above = u - m * n / 2.0;
    if variance > 0.0 && above != 0.0 { (above - 0.5 * above.signum()) / variance.sqrt() } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(sample: Sample) -> f64 {
    sample.failures as f64 / sample.attempts as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failed_checks_roll_back_in_a_row_or_not() {
        let played = |in_a_row, intervals: &str| {
            let mut thresholds = Thresholds::new(in_a_row);
            intervals.chars().any(|interval| {
                let failures = if interval == 'f' { 2 } else { 1 };
                // 10 looks; all failures are in the first.
                (0..10).fold(false, |_, look| thresholds.look(&look_of(0, if look == 0 { failures } else { 0 }, 10), SECOND))
            })
        };
        assert!(played(false, "fffff") && played(true, "fffff"));
        assert!(!played(false, "ffff") && !played(true, "ffff"));
        assert!(played(false, "ffffpf") && !played(true, "ffffpf"), "one passed");
    }

    #[test]
    fn the_test_says_what_r_says() {
        // wilcox.test(c(1.1, 2.2, 3.3, 4.4), c(0.5, 0.6, 0.7, 2.0), exact = FALSE): W = 15, p = 0.0606 two-sided, so 1.8764 deviations.
        let z = deviations(&[1.1, 2.2, 3.3, 4.4], &[0.5, 0.6, 0.7, 2.0]);
        assert!((z - (15.0 - 8.0 - 0.5) / 12.0_f64.sqrt()).abs() < 1e-12, "{z}");
        // With ties: ranks 1.5, 1.5, 4, 4, 4, 6; W = 4 + 4 + 6 - 6 = 8; variance 9/12 · (7 - (6 + 24) / 30) = 4.5.
        let z = deviations(&[2.0, 2.0, 3.0], &[1.0, 1.0, 2.0]);
        assert!((z - (8.0 - 4.5 - 0.5) / 4.5_f64.sqrt()).abs() < 1e-12, "{z}");
        assert_eq!((deviations(&[0.0, 0.0], &[0.0, 0.0]), deviations(&[], &[1.0])), (0.0, 0.0));
    }

    #[test]
    fn a_canary_that_fails_in_every_interval_is_worse_after_a_minute_and_not_before() {
        let mut test = MannWhitney::new();
        let found = (1..=120).find(|_| test.look(&look_of(0, 1, 10), SECOND));
        assert_eq!(found, Some(60));
    }

    fn look_of(stable: u64, canary: u64, attempts: u64) -> Cohorts<Seen> {
        let seen = |refused| Seen {
            tally: Tally { opened: attempts, completed: attempts - refused, refused, ..Tally::default() },
            ..Seen::default()
        };
        Cohorts { stable: seen(stable), canary: seen(canary) }
    }
}
