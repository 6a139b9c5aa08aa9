//! What is judged.

use std::time::Duration;

use serde::{Serialize, Serializer};
use splitter_user::{
    controller::{Cohorts, Comparison, Seen, Standing},
    model::{Compare, Factor, Weight},
};

use super::peers::{MannWhitney, Thresholds};

/// A way to tell whether the canary is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The product's comparison as it is where nothing else is configured.
    Splitter,
    /// The same without tolerance: a canary that is as good as stable is right at the edge of what is allowed.
    SplitterExact,
    /// Fixed thresholds; failed checks are counted over the whole rollout.
    Thresholds,
    /// The same; failed checks must follow each other.
    ThresholdsInARow,
    /// A Mann–Whitney test each minute.
    MannWhitney,
}

impl Method {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Splitter, Self::SplitterExact, Self::Thresholds, Self::ThresholdsInARow, Self::MannWhitney];

    /// What it's called.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Splitter => "splitter",
            Self::SplitterExact => "splitter-1x",
            Self::Thresholds => "thresholds",
            Self::ThresholdsInARow => "thresholds-in-a-row",
            Self::MannWhitney => "mann-whitney",
        }
    }

    /// Whether it's held to what is promised.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        match self {
            Self::Splitter | Self::SplitterExact => true,
            Self::Thresholds | Self::ThresholdsInARow | Self::MannWhitney => false,
        }
    }

    /// At the start of a rollout.
    #[must_use]
    pub fn begin(self) -> Judge {
        match self {
            Self::Splitter => Judge::Comparison(Box::new(Comparison::new(&compare(120)))),
            Self::SplitterExact => Judge::Comparison(Box::new(Comparison::new(&compare(100)))),
            Self::Thresholds => Judge::Thresholds(Thresholds::new(false)),
            Self::ThresholdsInARow => Judge::Thresholds(Thresholds::new(true)),
            Self::MannWhitney => Judge::MannWhitney(MannWhitney::new()),
        }
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The chance of a false alarm that is promised.
pub const FALSE_ALARM_RATE: f64 = 0.01;

/// The comparison as it is where nothing else is configured, but for this tolerance in hundredths.
#[must_use]
pub fn compare(tolerance: u16) -> Compare {
    Compare {
        false_alarm_rate: FALSE_ALARM_RATE,
        failures: true,
        handshake_p90: true,
        tolerance: Factor::from_hundredths(tolerance).expect("a literal in range"),
        stable_failing: Weight::from_basis_points(500).expect("a literal in range"),
    }
}

/// A method, and what it has seen of a rollout.
#[derive(Clone, Debug)]
pub enum Judge {
    /// The product's.
    Comparison(Box<Comparison>),
    /// Thresholds.
    Thresholds(Thresholds),
    /// The test.
    MannWhitney(MannWhitney),
}

impl Judge {
    /// Looks at what happened in the last so-and-so long; whether the canary is held to be worse.
    pub fn look(&mut self, seen: &Cohorts<Seen>, elapsed: Duration) -> bool {
        match self {
            Self::Comparison(comparison) => {
                comparison.observe(seen, elapsed);
                match comparison.standing() {
                    Standing::Worse(_) => true,
                    Standing::Fine | Standing::StableFailing(_) => false,
                }
            }
            Self::Thresholds(thresholds) => thresholds.look(seen, elapsed),
            Self::MannWhitney(test) => test.look(seen, elapsed),
        }
    }
}
