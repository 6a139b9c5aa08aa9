//! Rollouts as they are told.

mod reading;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    controller::{Cohorts, Tally, rollout},
    model::{ServiceName, Weight},
    store::{self, Moved, Phase, Sample},
};

/// `GET /v1/services/{service}/rollout`, and the answer to every change of one: the rollout that goes on, or the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Whose.
    pub service: ServiceName,
    /// Each rollout of an agent has a higher one than the one before.
    pub number: u64,
    /// Where it is.
    pub phase: RolloutPhase,
    /// The step that it's in, behind whose gate it waits, or that it was in when it ended; counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// So many steps the plan has.
    pub of: usize,
    /// The plan.
    pub steps: Vec<StepStatus>,
    /// `weight` and `weight_bp`: the canary's share; left out when it's over, for then it decides no more.
    #[serde(flatten)]
    pub weight: RolloutWeight,
    /// Who started it.
    pub by: String,
    /// When.
    pub started_at: Timestamp,
    /// How long it has been going; time without an agent isn't counted.
    pub age_ms: u64,
    /// In so long its time is over; left out once it's flipped or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_in_ms: Option<u64>,
    /// How much of the step has passed, and how long it lasts at least; left out when it's in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_step_ms: Option<u64>,
    /// See `in_step_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_lasts_ms: Option<u64>,
    /// What opens the gate that it stands at: `manual`, or `check` and a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// It waits at a gate that only a person opens.
    pub needs_approval: bool,
    /// What the numbers say; left out once it's flipped or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Judgement>,
    /// Why it's paused, flipped or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// So many connections with a known outcome each cohort must have had in the step before a verdict counts.
    pub min_connections: u64,
    /// What the cohorts did in the step, and in the whole rollout.
    pub connections: RolloutConnections,
    /// How the canary stands to stable in each respect that is compared.
    pub differences: Vec<DifferenceStatus>,
    /// What checks said, in the plan's order.
    pub checks: Vec<CheckStatus>,
    /// What happens next, and when: one sentence.
    pub next: String,
    /// What happened, oldest first.
    pub log: Vec<RolloutEntry>,
}

/// The short form of [`RolloutStatus`], in a service's status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutBrief {
    /// Its number.
    pub number: u64,
    /// Where it is.
    pub phase: RolloutPhase,
    /// The step, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// So many there are.
    pub of: usize,
    /// `weight` and `weight_bp`, as in [`RolloutStatus`].
    #[serde(flatten)]
    pub weight: RolloutWeight,
    /// What the numbers say; left out once it's flipped or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Judgement>,
    /// Why it's paused, flipped or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What happens next, and when: one sentence.
    pub next: String,
}

/// Where a rollout is. Also the label `phase` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPhase {
    /// In a step.
    Stepping,
    /// Before a step, until its gate opens.
    Gate,
    /// It stays as it is until somebody decides.
    Paused,
    /// Everything goes to stable.
    Flipped,
    /// The canary's backends are about to become stable.
    Promoting,
    /// They are.
    Promoted,
    /// It was given up.
    Aborted,
}

impl RolloutPhase {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Stepping, Self::Gate, Self::Paused, Self::Flipped, Self::Promoting, Self::Promoted, Self::Aborted];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stepping => "stepping",
            Self::Gate => "gate",
            Self::Paused => "paused",
            Self::Flipped => "flipped",
            Self::Promoting => "promoting",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
        }
    }
}

impl From<&Phase> for RolloutPhase {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Stepping { .. } => Self::Stepping,
            Phase::Gate { .. } => Self::Gate,
            Phase::Paused { .. } => Self::Paused,
            Phase::Flipped { .. } => Self::Flipped,
            Phase::Promoting { .. } => Self::Promoting,
            Phase::Promoted => Self::Promoted,
            Phase::Aborted { .. } => Self::Aborted,
        }
    }
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// As in the configuration: `10% for 15m`.
    pub plan: String,
    /// What opens its gate, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// How far the rollout has come with it.
    pub state: StepState,
}

/// How far a rollout has come with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Its verdict was healthy.
    Passed,
    /// Somebody had it left early.
    Skipped,
    /// Its time was over, and it was left without a verdict, as the plan has it.
    Proceeded,
    /// It's the one.
    Now,
    /// The rollout stands before its gate.
    AtGate,
    /// The rollout was flipped or given up in it.
    Stopped,
    /// It's to come, or never came.
    Ahead,
}

/// The canary's share as text and number, which come from one value and cannot disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RolloutWeightText", into = "RolloutWeightText")]
pub struct RolloutWeight(pub Option<Weight>);

/// [`RolloutWeight`] as it travels.
#[derive(Serialize, Deserialize)]
struct RolloutWeightText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<Weight>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_bp: Option<u16>,
}

impl From<RolloutWeight> for RolloutWeightText {
    fn from(RolloutWeight(weight): RolloutWeight) -> Self {
        Self { weight, weight_bp: weight.map(Weight::basis_points) }
    }
}

impl TryFrom<RolloutWeightText> for RolloutWeight {
    type Error = &'static str;

    fn try_from(text: RolloutWeightText) -> Result<Self, Self::Error> {
        if text.weight.map(Weight::basis_points) == text.weight_bp {
            Ok(Self(text.weight))
        } else {
            Err("a weight and its basis points differ")
        }
    }
}

/// What the numbers of a step say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// In a word.
    pub word: VerdictWord,
    /// With the numbers.
    pub text: String,
}

/// A verdict in a word. Also the label `verdict` of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// Enough is known, and nothing speaks against the canary.
    Healthy,
    /// The canary is worse, or a check failed.
    Breached,
    /// Too little is known.
    TooFewSamples,
    /// Stable itself fails, and nobody can tell anything.
    StableFailing,
}

impl VerdictWord {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Breached, Self::TooFewSamples, Self::StableFailing];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Breached => "breached",
            Self::TooFewSamples => "too_few_samples",
            Self::StableFailing => "stable_failing",
        }
    }
}

impl From<rollout::Verdict> for Judgement {
    fn from(verdict: rollout::Verdict) -> Self {
        let (word, text) = match verdict {
            rollout::Verdict::Healthy => (VerdictWord::Healthy, "nothing speaks against the canary".to_owned()),
            rollout::Verdict::Breached(stop) => (VerdictWord::Breached, stop.to_string()),
            rollout::Verdict::TooFewSamples(what) => (VerdictWord::TooFewSamples, what),
            rollout::Verdict::StableFailing(sample) => {
                (VerdictWord::StableFailing, format!("failed connections on stable: {sample}"))
            }
        };
        Self { word, text }
    }
}

/// What the cohorts did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutConnections {
    /// In this step; at a gate, in the one before.
    pub step: BothCohorts,
    /// In the whole rollout.
    pub total: BothCohorts,
}

/// Attempts with a known outcome, and how many of them failed: were refused or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BothCohorts {
    /// On stable.
    pub stable: Sample,
    /// On canary.
    pub canary: Sample,
}

impl From<Cohorts<Tally>> for BothCohorts {
    fn from(Cohorts { stable, canary }: Cohorts<Tally>) -> Self {
        let sample =
            |tally: Tally| Sample { failures: tally.refused.saturating_add(tally.timed_out), attempts: tally.resolved() };
        Self { stable: sample(stable), canary: sample(canary) }
    }
}

/// How the canary stands to stable in one respect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DifferenceStatus {
    /// In what.
    pub what: store::Compared,
    /// What failed or took too long, of how many.
    pub canary: Sample,
    /// The same on stable.
    pub stable: Sample,
    /// What took longer was too slow; left out for failures, or before there is such a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_than_us: Option<u64>,
    /// How strongly the numbers speak against the canary: an e-value. 1: not at all.
    pub evidence: f64,
    /// As much is proof.
    pub proof: f64,
}

impl From<store::Difference> for DifferenceStatus {
    fn from(difference: store::Difference) -> Self {
        let store::Difference { what, canary, stable, slower_than, evidence, proof } = difference;
        let slower_than_us = slower_than.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        // JSON has no infinity, and what is beyond the largest number is as good as it.
        Self { what, canary, stable, slower_than_us, evidence: evidence.min(f64::MAX), proof }
    }
}

/// What a check said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its name.
    pub name: String,
    /// In a word; left out before its first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerWord>,
    /// In its own words.
    pub text: String,
    /// Bad answers in a row.
    pub bad: u32,
    /// So many are a breach.
    pub failures: u32,
}

/// A check's answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerWord {
    /// All is well.
    Pass,
    /// It isn't.
    Bad,
    /// Nothing is known.
    NoData,
}

impl AnswerWord {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Bad => "bad",
            Self::NoData => "no_data",
        }
    }
}

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutEntry {
    /// When.
    pub at: Timestamp,
    /// It in words.
    pub message: String,
    /// It in values, told apart by `moved`.
    #[serde(flatten)]
    pub what: Moved,
}

impl From<RolloutStatus> for RolloutBrief {
    fn from(status: RolloutStatus) -> Self {
        let RolloutStatus { number, phase, step, of, weight, verdict, why, next, .. } = status;
        Self { number, phase, step, of, weight, verdict, why, next }
    }
}

impl From<store::Entry> for RolloutEntry {
    fn from(entry: store::Entry) -> Self {
        Self { at: entry.at, message: entry.what.to_string(), what: entry.what }
    }
}

#[cfg(test)]
mod tests;
