//! What the data plane's breaker saw when it tripped, as it is kept, sent and told.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use splitter_ebpf::{
    abi::WindowTally,
    breaker::{self, Share},
};

use super::event::Sample;
use crate::model::Weight;

/// A trip with all its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripFinding {
    /// The limit that was crossed.
    pub cause: TripCause,
    /// When the packet came that crossed it.
    pub tripped_at: Timestamp,
    /// The limit for the canary's share.
    pub limit: Weight,
    /// What the canary did in the breaker's window.
    pub canary: TripTally,
    /// What stable did in it.
    pub stable: TripTally,
}

impl fmt::Display for TripFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, limit, canary, stable, .. } = self;
        let (canary, stable) = (canary.of(*cause), stable.of(*cause));
        write!(f, "{cause} {canary} on canary, above the breaker's limit of {limit}; {stable} on stable")
    }
}

/// The limits of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TripCause {
    /// Attempts refused.
    Refused,
    /// Attempts that did not complete in time.
    Timeout,
    /// Connections reset by the backend.
    Reset,
    /// SYNs sent again.
    Retransmit,
}

impl TripCause {
    /// The word, as in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Retransmit => "retransmit",
        }
    }
}

impl fmt::Display for TripCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<breaker::Cause> for TripCause {
    fn from(cause: breaker::Cause) -> Self {
        match cause {
            breaker::Cause::Refused => Self::Refused,
            breaker::Cause::Timeout => Self::Timeout,
            breaker::Cause::Reset => Self::Reset,
            breaker::Cause::Retransmit => Self::Retransmit,
        }
    }
}

/// What one cohort did in a breaker's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripTally {
    /// Attempts begun within it.
    pub attempts: u32,
    /// Completed within it.
    pub completed: u32,
    /// Refused within it.
    pub refused: u32,
    /// Reset by the backend within it.
    pub reset: u32,
    /// SYNs sent again within it.
    pub retransmitted: u32,
    /// Attempts whose time ran out within it, or would have.
    pub due: u32,
    /// Of those, the ones that did not complete in time.
    pub timed_out: u32,
}

impl TripTally {
    /// The share that a limit is held against, by the code that the data plane runs.
    #[must_use]
    pub fn of(self, cause: TripCause) -> Sample {
        let Self { attempts, completed, refused, reset, retransmitted, due, timed_out } = self;
        let tally = WindowTally { attempts, completed, refused, reset, retransmitted, due, timed_out, _pad: 0 };
        let cause = match cause {
            TripCause::Refused => breaker::Cause::Refused,
            TripCause::Timeout => breaker::Cause::Timeout,
            TripCause::Reset => breaker::Cause::Reset,
            TripCause::Retransmit => breaker::Cause::Retransmit,
        };
        let Share { failures, samples } = Share::of(&tally, cause);
        Sample { failures: failures.into(), attempts: samples.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trip_is_told_with_the_shares_that_the_limit_was_held_against() {
        let canary = TripTally { attempts: 40, due: 30, timed_out: 6, ..TripTally::default() };
        let stable = TripTally { attempts: 700, due: 0, ..TripTally::default() };
        let limit = Weight::from_basis_points(500).expect("in range");
        let finding = TripFinding { cause: TripCause::Timeout, tripped_at: Timestamp::UNIX_EPOCH, limit, canary, stable };
        assert_eq!(finding.to_string(), "timeout 6 of 30 (20.00%) on canary, above the breaker's limit of 5%; 0 of 0 on stable");
    }

    #[test]
    fn causes_are_those_of_the_data_plane_and_their_words_those_of_the_json() {
        let tally = TripTally { attempts: 9, completed: 9, refused: 1, timed_out: 2, reset: 3, retransmitted: 4, due: 9 };
        for (cause, failures) in breaker::Cause::ALL.into_iter().zip(1..) {
            assert_eq!(tally.of(TripCause::from(cause)), Sample { failures, attempts: 9 });
            assert_eq!(serde_json::to_value(TripCause::from(cause)).expect("JSON"), TripCause::from(cause).as_str());
        }
    }
}
