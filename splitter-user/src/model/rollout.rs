//! A rollout's plan: the steps of the weight, and what must hold before the next one.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Existing, Factor, Weight};

/// How a service goes from its first share for the canary to promotion (`[service.rollout]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// At least one; the weights don't fall from one to the next.
    pub steps: Vec<Step>,
    /// A step isn't passed before each cohort that gets connections has had so many with a known outcome in it.
    pub min_connections: u64,
    /// What follows when the canary is worse.
    pub on_breach: OnBreach,
    /// What a flip of the rollout does to established canary connections.
    pub existing: Existing,
    /// What follows when a step's time is over and there is no verdict for `no_data_for` longer.
    pub on_no_data: OnNoData,
    /// How long a verdict is waited for.
    pub no_data_for: Duration,
    /// So long after its start a rollout that hasn't ended is ended.
    pub deadline: Duration,
    /// How it's ended.
    pub on_deadline: OnDeadline,
    /// How the canary is held against stable; none: it isn't.
    pub compare: Option<Compare>,
    /// What the application knows better.
    pub checks: Vec<Check>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Where a ramp begins; none: the weight is the same for the whole step.
    pub from: Option<Weight>,
    /// The canary's share, and where a ramp ends.
    pub weight: Weight,
    /// How long it lasts at least.
    pub lasts: Duration,
    /// What must happen before it begins.
    pub gate: Option<Gate>,
}

impl Step {
    /// The canary's share after so much of the step.
    #[must_use]
    pub fn weight_after(&self, elapsed: Duration) -> Weight {
        let Some(from) = self.from else { return self.weight };
        if elapsed >= self.lasts {
            return self.weight;
        }
        let rise = u128::from(self.weight.basis_points().saturating_sub(from.basis_points()));
        // Below `rise`, which is a weight's, for elapsed < lasts.
        let risen = rise * elapsed.as_nanos() / self.lasts.as_nanos().max(1);
        let basis_points = u128::from(from.basis_points()) + risen;
        u16::try_from(basis_points).ok().and_then(|bp| Weight::from_basis_points(bp).ok()).unwrap_or(self.weight)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = humantime::format_duration(self.lasts);
        match self.from {
            Some(from) => write!(f, "{from} to {} over {lasts}", self.weight),
            None if self.lasts.is_zero() => write!(f, "{}", self.weight),
            None => write!(f, "{} for {lasts}", self.weight),
        }
    }
}

/// What must happen before a step begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Somebody agrees.
    Manual,
    /// The check of this name passes, at the step before; or somebody agrees.
    Check(String),
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("manual"),
            Self::Check(name) => write!(f, "check {name}"),
        }
    }
}

/// What follows when the canary is worse than stable, or fails a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    /// Everything goes to stable.
    Flip,
    /// The weight stays until somebody decides.
    Pause,
}

/// What follows when there is no verdict for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNoData {
    /// The step goes on until there is one, or the deadline comes.
    Hold,
    /// Everything goes to stable.
    Flip,
    /// The next step begins all the same.
    Proceed,
}

/// What follows when a rollout's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadline {
    /// The weight goes to 0; established canary connections are kept.
    Abort,
    /// Everything goes to stable, with what `existing` says.
    Flip,
}

/// How the canary is held against stable (`[service.rollout.compare]`). What it means stands in `docs/analysis.md`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The chance that a canary that is no worse is taken for worse, in the whole rollout, by all comparisons together: above 0, below 1.
    pub false_alarm_rate: f64,
    /// Attempts that were refused or timed out.
    pub failures: bool,
    /// How often stable's 90th percentile is exceeded: handshakes, and first responses where they are measured.
    pub handshake_p90: bool,
    /// Worse by less than this is not a breach.
    pub tolerance: Factor,
    /// With a higher share of failed attempts stable itself is held to be failing, and nothing goes on.
    pub stable_failing: Weight,
}

/// A check of the application's own (`[[service.rollout.check]]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What it's called; unique in its plan.
    pub name: String,
    /// What is asked.
    pub probe: Probe,
    /// How often.
    pub interval: Duration,
    /// How long an answer is waited for, each time.
    pub timeout: Duration,
    /// How often it's asked again before there is no data.
    pub retries: u32,
    /// So many bad answers in a row are a breach.
    pub failures: u32,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A Prometheus, for one number.
    PromQl {
        /// Where it is: the part before `/api/v1/query`.
        url: String,
        /// The expression: one series or a scalar.
        query: String,
        /// Above is bad.
        max: Option<f64>,
        /// Below is bad.
        min: Option<f64>,
    },
    /// Whoever answers a POST with JSON.
    Webhook {
        /// Where it is.
        url: String,
    },
}

/// Somebody who is told what happens (`[[notify]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// What errors call it; unique.
    pub name: String,
    /// Where to POST to.
    pub to: NotifyTo,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// How long an answer is waited for, each time.
    pub timeout: Duration,
}

/// Where a notification goes.
#[derive(Clone, PartialEq, Eq)]
pub enum NotifyTo {
    /// To this URL.
    Url(String),
    /// To the URL in this file, for it may be a secret.
    File(PathBuf),
}

impl fmt::Debug for NotifyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its path may be a secret.
            Self::Url(_) => f.write_str("Url(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
