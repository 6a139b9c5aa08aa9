//! How many of a cohort's attempts failed lately.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::count;
use crate::store::Sample;

/// Failures and outcomes of a cohort, of which the older ones count less.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    failures: f64,
    outcomes: f64,
}

impl Share {
    /// So long ago counts half.
    const HALF_LIFE: Duration = Duration::from_secs(30);
    /// With fewer outcomes there is no share.
    const FEWEST: f64 = 20.0;

    pub(super) fn add(&mut self, seen: Sample, elapsed: Duration) {
        let left = (-elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64()).exp2();
        self.failures = self.failures * left + count(seen.failures);
        self.outcomes = self.outcomes * left + count(seen.attempts);
    }

    /// What it was lately, if it's above a limit.
    pub(super) fn above(&self, limit: f64) -> Option<Sample> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and sums of counts")]
        let whole = |count: f64| count.round() as u64;
        (self.outcomes >= Self::FEWEST && self.failures > limit * self.outcomes)
            .then(|| Sample { failures: whole(self.failures), attempts: whole(self.outcomes) })
    }
}
