//! Limits: has the canary crossed one?

use super::window::{Cohorts, Tally};
use crate::{
    model::{Breach, Weight},
    store::{Check, Finding, Sample},
};

/// What the numbers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Every limit was looked at, and none is crossed.
    Healthy,
    /// A limit is crossed.
    Breached(Finding),
    /// No limit is known to be crossed, and for at least one there are too few samples to say.
    TooFewSamples {
        /// The one that is looked at first among those.
        check: Check,
        /// Samples that there are.
        samples: u64,
    },
}

/// What a cohort's tally means to each limit.
///
/// The share of attempts that were *refused* or *timed out* is that of the attempts whose outcome became known within the window, whenever they began: an
/// attempt that may still complete is neither a failure nor a sample, and a timeout, which is known `connect` after it began, meets the
/// outcomes of its own time. So no share is above 1.
///
/// *Reset* are connections that the backend reset, for a client may reset its own for reasons of its own; in `dsr`, where only the client's packets pass, there
/// are none to be seen. They are set against the connections that were completed within the window. A connection that is reset may be older than
/// the window; if more are reset than were completed, these are the samples.
#[derive(Clone, Copy, Debug)]
pub struct Shares(pub Tally);

impl Shares {
    /// One limit's failures and samples.
    #[must_use]
    pub fn of(self, check: Check) -> Sample {
        let tally = self.0;
        match check {
            Check::Refused => Sample { failures: tally.refused, attempts: tally.resolved() },
            Check::Timeout => Sample { failures: tally.timed_out, attempts: tally.resolved() },
            Check::Reset => Sample { failures: tally.reset, attempts: tally.completed.max(tally.reset) },
        }
    }
}

/// Holds what happened in a window against the limits, in the order of [`Check::ALL`].
pub fn judge(limits: &Breach, window: Cohorts<Tally>) -> Verdict {
    let mut verdict = Verdict::Healthy;
    for check in Check::ALL {
        let limit = match check {
            Check::Refused => limits.refused,
            Check::Reset => limits.reset,
            Check::Timeout => limits.timeout,
        };
        let Some(limit) = limit else { continue };
        let canary = Shares(window.canary).of(check);
        if canary.attempts < limits.min_attempts {
            if verdict == Verdict::Healthy {
                verdict = Verdict::TooFewSamples { check, samples: canary.attempts };
            }
        } else if crosses(canary, limit) {
            let stable = Shares(window.stable).of(check);
            return Verdict::Breached(Finding { check, canary, stable, limit, window: limits.window });
        }
    }
    verdict
}

/// Whether the share is above the limit, without rounding.
fn crosses(sample: Sample, limit: Weight) -> bool {
    let whole = u128::from(Weight::ALL.basis_points());
    u128::from(sample.failures) * whole > u128::from(limit.basis_points()) * u128::from(sample.attempts)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Existing;

    #[test]
    fn a_share_above_the_limit_is_a_breach_and_one_at_the_limit_is_not() {
        let refused = |refused| Tally { opened: 100, completed: 100 - refused, refused, ..Tally::default() };
        assert_eq!(judge(&limits(50), canary(refused(5))), Verdict::Healthy);
        let Verdict::Breached(finding) = judge(&limits(50), canary(refused(6))) else { panic!("6% is above 5%") };
        assert_eq!((finding.check, finding.canary), (Check::Refused, Sample { failures: 6, attempts: 100 }));
        assert_eq!(finding.stable, Sample::default(), "nothing is known of stable, and nothing is made up");
    }

    #[test]
    fn an_attempt_that_may_still_complete_is_no_sample() {
        let pending = Tally { opened: 1_000, ..Tally::default() };
        assert_eq!(judge(&limits(50), canary(pending)), Verdict::TooFewSamples { check: Check::Refused, samples: 0 });
        let silent = Tally { opened: 1_000, timed_out: 50, ..Tally::default() };
        let Verdict::Breached(finding) = judge(&limits(50), canary(silent)) else { panic!("all outcomes are timeouts") };
        assert_eq!((finding.check, finding.canary), (Check::Timeout, Sample { failures: 50, attempts: 50 }));
    }

    #[test]
    fn a_canary_that_drops_its_old_connections_is_a_breach_without_a_new_one() {
        let died = Tally { reset: 200, ..Tally::default() };
        let only_reset = Breach { refused: None, timeout: None, ..limits(50) };
        let Verdict::Breached(finding) = judge(&only_reset, canary(died)) else { panic!("all of them were reset") };
        assert_eq!((finding.check, finding.canary), (Check::Reset, Sample { failures: 200, attempts: 200 }));
    }

    #[test]
    fn one_check_with_too_few_samples_does_not_hide_another_that_is_crossed() {
        let tally = Tally { opened: 100, completed: 10, refused: 0, timed_out: 90, reset: 10 };
        let Verdict::Breached(finding) = judge(&limits(50), canary(tally)) else { panic!("90% timed out") };
        assert_eq!(finding.check, Check::Timeout);
    }

    proptest! {
        #[test]
        fn too_few_samples_are_never_a_breach(tally in tallies(49), stable in tallies(1_000)) {
            // Each share has at most 3 · 16 resolved attempts, or 16 established connections.
            let small = Tally { completed: tally.completed % 17, refused: tally.refused % 17, timed_out: tally.timed_out % 16, ..tally };
            let verdict = judge(&limits(50), Cohorts { canary: small, stable });
            prop_assert!(matches!(verdict, Verdict::TooFewSamples { samples, .. } if samples < 50), "{verdict:?}");
        }

        #[test]
        fn the_verdict_is_that_of_the_shares_whatever_the_size(tally in tallies(1_000), factor in 1_u64..1_000) {
            let one = Breach { min_attempts: 1, ..limits(1) };
            let scaled = Tally {
                opened: tally.opened * factor,
                completed: tally.completed * factor,
                refused: tally.refused * factor,
                timed_out: tally.timed_out * factor,
                reset: tally.reset * factor,
            };
            let breached = |tally| matches!(judge(&one, canary(tally)), Verdict::Breached(_));
            prop_assert_eq!(breached(tally), breached(scaled));
        }

        #[test]
        fn no_share_is_above_one(tally in tallies(u64::MAX / 4)) {
            for check in Check::ALL {
                let sample = Shares(tally).of(check);
                prop_assert!(sample.failures <= sample.attempts, "{check}: {sample}");
            }
        }
    }

    fn limits(min_attempts: u64) -> Breach {
        let five = Weight::from_basis_points(500).ok();
        let window = Duration::from_secs(10);
        Breach { refused: five, reset: five, timeout: five, min_attempts, window, existing: Existing::Reset }
    }

    fn canary(canary: Tally) -> Cohorts<Tally> {
        Cohorts { canary, stable: Tally::default() }
    }

    fn tallies(most: u64) -> impl Strategy<Value = Tally> {
        (0..=most, 0..=most, 0..=most, 0..=most, 0..=most).prop_map(|(opened, completed, refused, timed_out, reset)| Tally {
            opened,
            completed,
            refused,
            timed_out,
            reset,
        })
    }
}
