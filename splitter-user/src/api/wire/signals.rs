//! What is measured of cohorts, breakers and the lease.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{config::Resume, store::TripCause};

/// What a cohort did lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// So far back the numbers look, in milliseconds: about a minute, less after the agent's start.
    pub window_ms: u64,
    /// Attempts (UDP: exchanges) begun.
    pub attempts: u64,
    /// Attempts whose outcome became known: completed, refused or timed out.
    pub resolved: u64,
    /// Of those, the ones that were refused or timed out.
    pub failed: u64,
    /// The share of those; left out when too few are resolved to speak of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<f64>,
    /// How long handshakes took (UDP: first answers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Times>,
    /// How long it took from the client's first octets to the backend's (TCP in `nat` mode).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_response: Option<Times>,
}

/// How long something took, in microseconds. A quantile is left out for which there are too few samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Samples.
    pub count: u64,
    /// Half of them took less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    /// 90% of them took less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90_us: Option<u64>,
    /// 99% of them took less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
}

/// A service's breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// Whether it has tripped, and was not armed again.
    pub tripped: bool,
    /// When and why it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
}

/// A breaker's trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// When.
    pub at: Timestamp,
    /// The limit that was crossed.
    pub cause: TripCause,
    /// With numbers, in words.
    pub reason: String,
}

/// The agent's lease on the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// How long a sign of life counts, in milliseconds.
    pub length_ms: u64,
    /// How long the last one still counts.
    pub left_ms: u64,
    /// What becomes of services that went to stable when it had run out.
    pub resume: ResumeWord,
    /// The last time that this agent found that it had run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_out: Option<RanOut>,
}

/// A lease that had run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanOut {
    /// When.
    pub at: Timestamp,
    /// Until an agent found it, in milliseconds.
    pub lasted_ms: u64,
}

/// See `resume` in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeWord {
    /// The weight counts again.
    Auto,
    /// They stay flipped.
    Manual,
}

impl ResumeWord {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

impl From<Resume> for ResumeWord {
    fn from(resume: Resume) -> Self {
        match resume {
            Resume::Auto => Self::Auto,
            Resume::Manual => Self::Manual,
        }
    }
}
