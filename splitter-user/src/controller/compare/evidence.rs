//! How strongly counts speak against "the canary fails no more than ρ times as often as stable": an e-process.
//!
//! Of an interval are known each cohort's attempts, nᶜ and nˢ, and its failures, fᶜ and fˢ. The null says that in every interval pᶜ ≤ ρ · pˢ; the failure shares
//! themselves may be any, and others in every interval. If the canary failed exactly ρ times as often, a failure would be the canary's with the chance
//! q = ρ·nᶜ / (ρ·nᶜ + nˢ). Whoever holds that it fails k times as often as that bets on the canary's failures: his wealth is multiplied by
//!
//! ```text
//! rᶜ^fᶜ · rˢ^fˢ,   rˢ = 1 / (1 + q·(k − 1)),   rᶜ = k · rˢ,   so that q·rᶜ + (1 − q)·rˢ = 1.
//! ```
//!
//! Under the null that doesn't grow on average, whatever the shares are, and by no approximation:
//!
//! ```text
//! E = (1 + pᶜ(rᶜ − 1))^nᶜ · (1 + pˢ(rˢ − 1))^nˢ ≤ exp(pᶜ·nᶜ(rᶜ − 1) + pˢ·nˢ(rˢ − 1)) ≤ exp(pˢ·(ρ·nᶜ(rᶜ − 1) + nˢ(rˢ − 1))) = 1,
//! ```
//!
//! the second step because rᶜ ≥ 1. So the wealth is a supermartingale, a sum of such wealths for several k is one, and by Ville's inequality none that begins
//! with 1 ever reaches 1/α with a chance above α, however often one looks. See `docs/analysis.md` for where this comes from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{super::Cohorts, add};
use crate::store::Sample;

/// On how much worse a canary bets are laid, as factors above what is tolerated: from the lowest to the highest, evenly on a logarithmic scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    bets: u32,
    lowest: f64,
    highest: f64,
}

impl Grid {
    /// For failures.
    pub(super) const FAILURES: Self = Self { bets: 24, lowest: 1.25, highest: 1_000.0 };
    /// For times. Stable's 90th percentile is exceeded by a tenth, or by less where its bucket holds much, and can't be exceeded by more than all.
    pub(super) const TIMES: Self = Self { bets: 12, lowest: 1.25, highest: 16.0 };
}

/// What bets against the null have grown to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    /// What each bet has become, in the order of the grid.
    bets: Vec<f64>,
    /// What isn't bet yet: a canary may break late, when the first bets have long been lost.
    reserve: f64,
    /// The interval that isn't over.
    seen: Cohorts<Sample>,
    /// How long it has been going.
    lasted: Duration,
    /// The most that all of it ever was.
    peak: f64,
}

/// So much is bet at once.
const AT_ONCE: f64 = 0.5;
/// After so long half of the rest is bet, after twice as long two thirds, and so on.
const PATIENCE: Duration = Duration::from_secs(60);
/// An interval ends with the look that brings the canary's attempts to this. With one attempt of the canary in a look, and none in the next, it would be left to
/// chance what a failure of stable is held against.
const ENOUGH: u64 = 5;
/// After so long it ends in any case, for the shares of failures are taken to be the same all through it.
const LONGEST: Duration = Duration::from_secs(60);
/// More is not told apart.
const CAP: f64 = 1e300;
/// A bet that has lost as much is lost. Less is slow to reckon with, and leaving it out errs on the canary's side.
const LOST: f64 = 1e-290;

impl Evidence {
    /// Nothing known: 1.
    pub(super) fn new(grid: &Grid) -> Self {
        let each = AT_ONCE / f64::from(grid.bets);
        Self {
            bets: vec![each; grid.bets as usize],
            reserve: 1.0 - AT_ONCE,
            seen: Cohorts::default(),
            lasted: Duration::ZERO,
            peak: 1.0,
        }
    }

    /// How strongly the numbers speak against the null by now: 1: not at all.
    pub(super) fn value(&self) -> f64 {
        (self.reserve + self.bets.iter().sum::<f64>()).min(CAP)
    }

    /// The strongest that it ever was.
    pub(super) const fn peak(&self) -> f64 {
        self.peak
    }

    /// Takes a look into account: it belongs to the interval that isn't over, and may end it. `ratio` is ρ, `age` the rollout's when the look began.
    pub(super) fn look(&mut self, grid: &Grid, ratio: f64, age: Duration, elapsed: Duration, seen: Cohorts<Sample>) {
        add(&mut self.seen.stable, seen.stable);
        add(&mut self.seen.canary, seen.canary);
        self.lasted = self.lasted.saturating_add(elapsed);
        // Whether it's over depends on attempts and on time, and not on what fails.
        if self.seen.canary.attempts >= ENOUGH || self.lasted >= LONGEST {
            let seen = std::mem::take(&mut self.seen);
            self.lasted = Duration::ZERO;
            self.interval(grid, ratio, age, seen);
        }
    }

    fn interval(&mut self, grid: &Grid, ratio: f64, age: Duration, seen: Cohorts<Sample>) {
        let failures = Cohorts { canary: count(seen.canary.failures), stable: count(seen.stable.failures) };
        let all = failures.canary + failures.stable;
        // Where one cohort had no attempts, nothing is known about the other's failures; and without failures nothing changes.
        if all == 0.0 || seen.canary.attempts == 0 || seen.stable.attempts == 0 {
            return;
        }
        let weighted = ratio * count(seen.canary.attempts);
        let canarys = weighted / (weighted + count(seen.stable.attempts));
        // How the reserve shrinks depends on the age alone, which nobody can know the interval's failures by. So it may be put off to when there are any.
        let reserve = (1.0 - AT_ONCE) / (1.0 + age.as_secs_f64() / PATIENCE.as_secs_f64());
        let fresh = (self.reserve - reserve).max(0.0) / f64::from(grid.bets);
        self.reserve -= fresh * f64::from(grid.bets);

        let mut worse = grid.lowest;
        let mut ln_worse = worse.ln();
        let step = (grid.highest / grid.lowest).ln() / f64::from(grid.bets - 1);
        let growth = step.exp();
        for bet in &mut self.bets {
            let ln_factor = failures.canary * ln_worse - all * (1.0 + canarys * (worse - 1.0)).ln();
            let grown = (*bet + fresh) * ln_factor.min(LN_CAP).exp();
            *bet = if grown < LOST { 0.0 } else { grown.min(CAP) };
            ln_worse += step;
            worse *= growth;
        }
        self.peak = self.peak.max(self.value());
    }
}

/// What no bet grows by more than, at once: the logarithm of [`CAP`].
const LN_CAP: f64 = 690.0;

#[expect(clippy::cast_precision_loss, reason = "an interval has fewer than 2^53 connections")]
pub(super) const fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// All outcomes are gone through, each with its chance.
        #[test]
        fn under_the_null_no_bet_grows_on_average_and_neither_do_all_together(
            (canary, stable) in (1_u64..14, 1_u64..40),
            ratio in 1.0_f64..3.0,
            // Of the highest share that the null leaves to stable, and of what it leaves to the canary then.
            (stables, canarys) in (0.0_f64..=1.0, prop_oneof![Just(1.0), 0.0_f64..1.0]),
            worse in 1.01_f64..1_000.0,
            age in 0_u64..20_000,
        ) {
            let share = stables / ratio;
            let attempts = Cohorts { stable, canary };
            let shares = Cohorts { stable: share, canary: ratio * share * canarys };
            for grid in [Grid { bets: 2, lowest: worse, highest: worse }, Grid::FAILURES, Grid::TIMES] {
                let mean = mean(&grid, ratio, Duration::from_secs(age), attempts, shares);
                prop_assert!(mean <= 1.0 + 1e-12, "{mean}");
            }
        }

        /// What is bet when depends on the age alone: under the null the second interval doesn't grow on average either, whatever the first one brought.
        #[test]
        fn what_came_before_doesnt_matter(
            before in prop::collection::vec((0_u64..4, 0_u64..40, 1_u64..300), 1..20),
            share in 0.0_f64..0.8,
        ) {
            let (mut evidence, mut age) = (Evidence::new(&Grid::FAILURES), Duration::ZERO);
            for (canary, stable, seconds) in before {
                let elapsed = Duration::from_secs(seconds);
                evidence.look(&Grid::FAILURES, 1.2, age, elapsed, seen((canary, 5), (stable, 50)));
                age += elapsed;
            }
            let value = evidence.value();
            let shares = Cohorts { stable: share, canary: 1.2 * share };
            let mean = outcomes(Cohorts { stable: 30, canary: 6 }, shares)
                .map(|(chance, seen)| {
                    let mut evidence = evidence.clone();
                    evidence.look(&Grid::FAILURES, 1.2, age, Duration::from_secs(1), seen);
                    chance * evidence.value()
                })
                .sum::<f64>();
            prop_assert!(mean <= value * (1.0 + 1e-12), "{mean} after {value}");
        }

        #[test]
        fn no_numbers_are_too_large(
            looks in prop::collection::vec((any::<u32>(), any::<u32>(), 0.0_f64..=1.0, 0.0_f64..=1.0), 1..50),
        ) {
            let (mut evidence, mut age) = (Evidence::new(&Grid::FAILURES), Duration::ZERO);
            for (canary, stable, canarys, stables) in looks {
                let part = |all: u32, share: f64| ((f64::from(all) * share) as u64, u64::from(all));
                evidence.look(&Grid::FAILURES, 1.0, age, Duration::from_secs(1), seen(part(canary, canarys), part(stable, stables)));
                age += Duration::from_secs(1);
                let (value, peak) = (evidence.value(), evidence.peak());
                prop_assert!((0.0..=CAP).contains(&value) && (1.0..=CAP).contains(&peak) && value <= peak, "{evidence:?}");
            }
        }
    }

    #[test]
    fn a_canary_beyond_what_is_tolerated_makes_bets_grow_on_average() {
        let attempts = Cohorts { stable: 40, canary: 10 };
        let mean_at =
            |times: f64| mean(&Grid::FAILURES, 1.2, Duration::ZERO, attempts, Cohorts { stable: 0.02, canary: 0.02 * times });
        assert!(mean_at(1.2) <= 1.0 && mean_at(6.0) > 1.2 && mean_at(40.0) > 50.0, "{}, {}", mean_at(6.0), mean_at(40.0));
    }

    #[test]
    fn at_the_edge_of_the_null_a_bet_of_rare_failures_is_nearly_fair() {
        // So that the bound is no idle one: what is lost on average is but what the exponential function is above its tangent.
        let shares = Cohorts { stable: 1e-4, canary: 1.2e-4 };
        let mean =
            mean(&Grid { bets: 2, lowest: 5.0, highest: 5.0 }, 1.2, Duration::ZERO, Cohorts { stable: 40, canary: 10 }, shares);
        assert!((0.9999..=1.0).contains(&mean), "{mean}");
    }

    #[test]
    fn attempts_of_one_cohort_alone_say_nothing() {
        let mut evidence = Evidence::new(&Grid::FAILURES);
        for _ in 0..1_000 {
            evidence.look(&Grid::FAILURES, 1.0, Duration::ZERO, LONGEST, seen((50, 50), (0, 0)));
            evidence.look(&Grid::FAILURES, 1.0, Duration::ZERO, LONGEST, seen((0, 0), (50, 50)));
        }
        assert!((evidence.value() - 1.0).abs() < 1e-9, "{evidence:?}");
    }

    #[test]
    fn the_reserve_is_bet_as_time_goes_by_and_nothing_is_lost_on_the_way() {
        let mut evidence = Evidence::new(&Grid::FAILURES);
        // As many failures of each as were expected of a canary that is exactly at the edge: every bet loses.
        let mut bet = Vec::new();
        for minutes in [0, 1, 2, 9] {
            let before: f64 = evidence.bets.iter().sum();
            let mut paid = evidence.clone();
            paid.look(&Grid::FAILURES, 1.0, Duration::from_secs(60 * minutes), LONGEST, seen((0, 100), (0, 100)));
            assert_eq!(paid.bets, evidence.bets, "without failures it's put off");
            evidence.look(&Grid::FAILURES, 1.0, Duration::from_secs(60 * minutes), LONGEST, seen((1, 100), (1, 100)));
            assert!(evidence.value() < before + evidence.reserve + 0.5);
            bet.push(1.0 - AT_ONCE - evidence.reserve);
        }
        for (bet, part) in bet.iter().zip([0.0, 1.0 / 2.0, 2.0 / 3.0, 9.0 / 10.0]) {
            assert!((bet - (1.0 - AT_ONCE) * part).abs() < 1e-12, "{bet}");
        }
    }

    /// What the evidence is on average after one interval.
    fn mean(grid: &Grid, ratio: f64, age: Duration, attempts: Cohorts<u64>, shares: Cohorts<f64>) -> f64 {
        outcomes(attempts, shares)
            .map(|(chance, seen)| {
                let mut evidence = Evidence::new(grid);
                evidence.interval(grid, ratio, age, seen);
                chance * evidence.value()
            })
            .sum()
    }

    /// All that can happen, with its chance.
    fn outcomes(attempts: Cohorts<u64>, shares: Cohorts<f64>) -> impl Iterator<Item = (f64, Cohorts<Sample>)> {
        (0..=attempts.canary).flat_map(move |canary| {
            (0..=attempts.stable).map(move |stable| {
                let chance = binomial(attempts.canary, canary, shares.canary) * binomial(attempts.stable, stable, shares.stable);
                (chance, seen((canary, attempts.canary), (stable, attempts.stable)))
            })
        })
    }

    fn binomial(of: u64, number: u64, share: f64) -> f64 {
        let ways: f64 = (0..number).map(|k| count(of - k) / count(k + 1)).product();
        ways * share.powf(count(number)) * (1.0 - share).powf(count(of - number))
    }

    fn seen(canary: (u64, u64), stable: (u64, u64)) -> Cohorts<Sample> {
        let sample = |(failures, attempts)| Sample { failures, attempts };
        Cohorts { stable: sample(stable), canary: sample(canary) }
    }
}
