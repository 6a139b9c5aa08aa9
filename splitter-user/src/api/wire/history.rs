//! Rollouts, those that are over and those that go on, as they are told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    controller::{Comparison, Tally},
    model::ServiceName,
    store::{Answer, Compared, Difference, Left, Moved, Phase, Record, Run, Sample},
};

/// The answer to `GET /v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Those that go on first, then the newest first.
    pub rollouts: Vec<Rollout>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Counts up over all services and restarts.
    pub number: u64,
    /// Of which service.
    pub service: ServiceName,
    /// Where it is, or how it ended.
    pub stage: Stage,
    /// The same in words, with why.
    pub message: String,
    /// Who started it.
    pub by: String,
    /// When.
    pub started_at: Timestamp,
    /// When it was promoted, flipped or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Its plan's steps, and what came of them.
    pub steps: Vec<RolloutStep>,
    /// How the cohorts stood to each other in the end, in each respect that was compared.
    pub comparison: Vec<Standing>,
    /// What its checks said last.
    pub checks: Vec<CheckSaid>,
    /// What happened, oldest first.
    pub log: Vec<LogLine>,
    /// So many lines, after the first, are left out for want of room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
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

/// A step, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStep {
    /// Counted from 1.
    pub step: usize,
    /// As in the configuration: `1% for 15m`.
    pub plan: String,
    /// What had to happen before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// When it began, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// What came of it; nothing is said of one that didn't begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<StepVerdict>,
    /// Failed connections in it, out of those with a known outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Sample>,
    /// The same on stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Sample>,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepVerdict {
    /// It was passed.
    Passed,
    /// Somebody had it left early.
    Skipped,
    /// Its time was over, and it was left without a verdict, as the plan has it.
    Proceeded,
    /// It's still going on.
    Running,
    /// The rollout ended in it.
    Stopped,
}

/// How the cohorts stand to each other in one respect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// In what.
    pub what: Compared,
    /// Failures, or what took too long, on canary.
    pub canary: Sample,
    /// The same on stable.
    pub stable: Sample,
    /// What took longer than this, in microseconds, was too slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_than_us: Option<u64>,
    /// How strongly the numbers speak against "the canary is no worse": 1: not at all.
    pub evidence: f64,
    /// As much is proof.
    pub proof: f64,
}

/// What a check said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSaid {
    /// Which.
    pub name: String,
    /// Whether all is well; left out if the check had no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// In words.
    pub message: String,
}

/// One line of a rollout's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// What.
    pub message: String,
}

impl Stage {
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

impl StepVerdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Proceeded => "no data",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Record> for Rollout {
    fn from(record: Record) -> Self {
        let Record { service, run, left_out } = record;
        let (stage, message) = told(&run);
        let has_ended = matches!(stage, Stage::Flipped | Stage::Promoted | Stage::Aborted);
        Self {
            number: run.id,
            service,
            stage,
            message,
            by: run.by.clone(),
            started_at: run.started_at,
            ended_at: run.log.last().filter(|_| has_ended).map(|entry| entry.at),
            steps: steps(&run, stage),
            comparison: run
                .progress
                .comparison
                .as_ref()
                .map(Comparison::differences)
                .into_iter()
                .flatten()
                .map(standing)
                .collect(),
            checks: run.progress.checks.iter().map(|(name, checked)| said(name, &checked.last)).collect(),
            log: run.log.iter().map(|entry| LogLine { at: entry.at, message: entry.what.to_string() }).collect(),
            left_out,
        }
    }
}

fn told(run: &Run) -> (Stage, String) {
    let of = run.plan.steps.len();
    match &run.phase {
        Phase::Stepping { step } => (Stage::Stepping, format!("in step {} of {of}", step + 1)),
        Phase::Gate { step } => (Stage::Gate, format!("waits at the gate of step {} of {of}", step + 1)),
        Phase::Paused { why, .. } => (Stage::Paused, format!("paused: {why}")),
        Phase::Flipped { reason, .. } => (Stage::Flipped, format!("flipped to stable: {reason}")),
        Phase::Promoting { .. } => (Stage::Promoting, "is being promoted".to_owned()),
        Phase::Promoted => (Stage::Promoted, "promoted: the canary's backends are stable".to_owned()),
        Phase::Aborted { why } => (Stage::Aborted, format!("aborted: {why}")),
    }
}

/// Each step, from what the log says of it; the numbers of one that wasn't left are those that were measured last.
fn steps(run: &Run, stage: Stage) -> Vec<RolloutStep> {
    let fresh = |(index, step): (usize, &crate::model::Step)| RolloutStep {
        step: index + 1,
        plan: step.to_string(),
        gate: step.gate.as_ref().map(ToString::to_string),
        began_at: None,
        verdict: None,
        canary: None,
        stable: None,
    };
    let mut steps: Vec<RolloutStep> = run.plan.steps.iter().enumerate().map(fresh).collect();
    let place = |step: usize| step.checked_sub(1);
    let mut current = None;
    for entry in &run.log {
        if let Moved::Step { step, .. } = entry.what
            && let Some(of) = place(step).and_then(|index| steps.get_mut(index))
        {
            of.began_at = Some(entry.at);
            current = Some(step);
        }
        if let Some((step, how)) = entry.what.left()
            && let Some(of) = place(step).and_then(|index| steps.get_mut(index))
        {
            of.verdict = Some(match how {
                Left::Passed => StepVerdict::Passed,
                Left::Skipped => StepVerdict::Skipped,
                Left::Proceeded => StepVerdict::Proceeded,
            });
            // The log has the numbers of those that passed alone.
            if let Moved::Passed { canary, stable, .. } = entry.what {
                (of.canary, of.stable) = (Some(canary), Some(stable));
            }
            current = None;
        }
    }
    if let Some(of) = current.and_then(place).and_then(|index| steps.get_mut(index)) {
        of.verdict = Some(match stage {
            Stage::Stepping | Stage::Gate | Stage::Paused => StepVerdict::Running,
            Stage::Flipped | Stage::Aborted => StepVerdict::Stopped,
            // Promoted as a whole, before its time was over.
            Stage::Promoting | Stage::Promoted => StepVerdict::Skipped,
        });
        let measured = &run.progress.step;
        (of.canary, of.stable) = (Some(failed(measured.canary)), Some(failed(measured.stable)));
    }
    steps
}

fn failed(tally: Tally) -> Sample {
    Sample { failures: tally.refused.saturating_add(tally.timed_out), attempts: tally.resolved() }
}

fn standing(difference: Difference) -> Standing {
    let Difference { what, canary, stable, slower_than, evidence, proof } = difference;
    Standing {
        what,
        canary,
        stable,
        slower_than_us: slower_than.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        // JSON has no infinity.
        evidence: evidence.min(f64::MAX),
        proof: proof.min(f64::MAX),
    }
}

fn said(name: &str, answer: &Answer) -> CheckSaid {
    let ok = match answer {
        Answer::Pass { .. } => Some(true),
        Answer::Bad { .. } => Some(false),
        Answer::NoData { .. } => None,
    };
    CheckSaid { name: name.to_owned(), ok, message: answer.to_string() }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}
