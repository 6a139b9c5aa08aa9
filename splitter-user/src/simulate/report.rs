//! What many simulated rollouts come to.

use std::time::Duration;

use serde::Serialize;

use super::play::{End, Played};

/// What a plan does with a canary, told by simulated rollouts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The service.
    pub service: String,
    /// New connections a second.
    pub rate: f64,
    /// Stable's share of failed connections.
    pub stable_failures: f64,
    /// The canary's.
    pub canary_failures: f64,
    /// How many times as long as stable the canary takes.
    pub canary_latency: f64,
    /// The seed: the same one gives the same report.
    pub seed: u64,
    /// With the canary as described.
    pub canary: Outcomes,
    /// With a canary that is as good as stable: who is caught is caught wrongly.
    pub equal: Outcomes,
}

/// How a number of rollouts went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcomes {
    /// How many there were.
    pub runs: u64,
    /// How many were stopped because the canary was found worse.
    pub caught: u64,
    /// Their share.
    pub caught_share: f64,
    /// The share is between these, with 99% confidence (Wilson's interval).
    pub caught_99: [f64; 2],
    /// How many ended in promotion.
    pub promoted: u64,
    /// How many came to no verdict within their time.
    pub undecided: u64,
    /// At which step they were caught, from 1.
    pub steps: Vec<AtStep>,
    /// How long it took until they were caught, in seconds.
    pub seconds: Option<Quantiles>,
    /// Connections that the canary had had by the end.
    pub connections: Option<Quantiles>,
    /// Those of them that failed: who was hurt.
    pub hurt: Option<Quantiles>,
}

/// How many were caught in a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtStep {
    /// The step, from 1.
    pub step: usize,
    /// How many.
    pub caught: u64,
}

/// Where the middle and the bad end of something lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are below.
    pub median: f64,
    /// 95% are below.
    pub p95: f64,
}

impl Outcomes {
    /// Adds up how rollouts by a plan of so many steps went.
    #[must_use]
    pub fn of(played: &[Played], steps: usize) -> Self {
        let caught: Vec<&Played> = played.iter().filter(|one| matches!(one.end, End::Caught { .. })).collect();
        let at = |step: usize| caught.iter().filter(|one| matches!(one.end, End::Caught { step: at, .. } if at == step)).count();
        let (runs, found) = (played.len() as u64, caught.len() as u64);
        Self {
            runs,
            caught: found,
            caught_share: share(found, runs),
            caught_99: wilson(found, runs),
            promoted: played.iter().filter(|one| one.end == End::Promoted).count() as u64,
            undecided: played.iter().filter(|one| matches!(one.end, End::Undecided { .. })).count() as u64,
            steps: (1..=steps).map(|step| AtStep { step, caught: at(step) as u64 }).collect(),
            seconds: quantiles(caught.iter().map(|one| one.after.as_secs_f64())),
            connections: quantiles(played.iter().map(|one| whole(one.canary))),
            hurt: quantiles(played.iter().map(|one| whole(one.hurt))),
        }
    }

    /// The share of these rollouts that had been caught after so long.
    #[must_use]
    pub fn caught_within(played: &[Played], time: Duration) -> f64 {
        let caught = played.iter().filter(|one| matches!(one.end, End::Caught { .. }) && one.after <= time).count();
        share(caught as u64, played.len() as u64)
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
const fn whole(count: u64) -> f64 {
    count as f64
}

fn share(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { whole(some) / whole(all) }
}

/// Between which shares so many of so many lie, with 99% confidence: Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and statistical
/// inference", JASA 22, 1927).
fn wilson(some: u64, all: u64) -> [f64; 2] {
    /// Of the normal distribution, two-sided.
    const Z: f64 = 2.575_829_303_548_901;
    if all == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (whole(all), share(some, all));
    let middle = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - spread) / scale).max(0.0), ((middle + spread) / scale).min(1.0)]
}

/// None of nothing.
fn quantiles(of: impl Iterator<Item = f64>) -> Option<Quantiles> {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = |share: f64| sorted[(share * whole(last as u64)).round() as usize];
    Some(Quantiles { median: at(0.5), p95: at(0.95) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_adds_up_and_says_nothing_of_nothing() {
        let caught = |step, after, hurt| Played {
            end: End::Caught { step, by: crate::store::Stop::Deadline { after: Duration::ZERO } },
            after: Duration::from_secs(after),
            canary: 10 * hurt,
            hurt,
        };
        let promoted = Played { end: End::Promoted, after: Duration::from_secs(3_600), canary: 1_000, hurt: 1 };
        let played = [caught(1, 10, 5), caught(1, 20, 7), caught(2, 900, 50), promoted.clone()];
        let outcomes = Outcomes::of(&played, 3);
        assert_eq!((outcomes.runs, outcomes.caught, outcomes.promoted, outcomes.undecided), (4, 3, 1, 0));
        assert_eq!(outcomes.steps.iter().map(|at| at.caught).collect::<Vec<_>>(), [2, 1, 0]);
        assert_eq!(outcomes.seconds.map(|seconds| seconds.median), Some(20.0), "of those that were caught");
        assert_eq!(Outcomes::caught_within(&played, Duration::from_secs(20)), 0.5);
        let none = Outcomes::of(&[promoted], 3);
        assert_eq!((none.caught_share, none.seconds), (0.0, None));
        assert_eq!(Outcomes::of(&[], 1).caught_99, [0.0, 1.0]);
    }

    #[test]
    fn wilsons_interval_is_that_of_the_literature() {
        // Newcombe 1998, table I: 81 of 263 at 95% are 0.2553 to 0.3662; at 99% it is wider, and 0 of 20 has an end.
        let [low, high] = wilson(81, 263);
        assert!((0.23..0.2553).contains(&low) && (0.3662..0.39).contains(&high), "{low} {high}");
        let [low, high] = wilson(0, 20);
        assert!(low == 0.0 && (0.2..0.3).contains(&high), "{high}");
    }
}
