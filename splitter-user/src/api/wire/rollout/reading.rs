//! What is kept of a rollout, in the API's words. Pure: what was measured is in it, and no clock is read.

use std::time::Duration;

use super::{
    AnswerWord, CheckStatus, DifferenceStatus, RolloutConnections, RolloutPhase, RolloutStatus, RolloutWeight, StepState,
    StepStatus,
};
use crate::{
    controller::rollout,
    model::{Check, Gate, OnBreach, OnDeadline, OnNoData, Plan, ServiceName},
    store::{Answer, Left, Moved, Pause, Phase, Run},
};

impl RolloutStatus {
    /// A rollout as it's kept, in the API's words.
    #[must_use]
    pub fn new(service: &ServiceName, run: &Run) -> Self {
        let phase = RolloutPhase::from(&run.phase);
        let at = position(run);
        let judged = !matches!(phase, RolloutPhase::Flipped | RolloutPhase::Promoted | RolloutPhase::Aborted);
        let now = at.and_then(|at| run.plan.steps.get(at.step));
        let in_step = now.filter(|_| judged && !at.is_some_and(|at| at.gate));
        let gate = now.filter(|_| judged && at.is_some_and(|at| at.gate)).and_then(|step| step.gate.as_ref());
        let progress = &run.progress;
        Self {
            service: service.clone(),
            number: run.id,
            phase,
            step: at.map(|at| at.step + 1),
            of: run.plan.steps.len(),
            steps: steps(run, phase),
            weight: RolloutWeight(rollout::weight_of(run)),
            by: run.by.clone(),
            started_at: run.started_at,
            age_ms: milliseconds(progress.age),
            deadline_in_ms: judged.then(|| milliseconds(run.plan.deadline.saturating_sub(progress.age))),
            in_step_ms: in_step.map(|_| milliseconds(progress.in_step)),
            step_lasts_ms: in_step.map(|step| milliseconds(step.lasts)),
            gate: gate.map(Gate::to_string),
            needs_approval: phase == RolloutPhase::Gate && gate == Some(&Gate::Manual),
            verdict: judged.then(|| rollout::verdict(run).into()),
            why: why(&run.phase),
            min_connections: run.plan.min_connections,
            connections: RolloutConnections { step: progress.step.into(), total: progress.total.into() },
            differences: progress.comparison.iter().flat_map(|c| c.differences()).map(DifferenceStatus::from).collect(),
            checks: run.plan.checks.iter().map(|check| answered(check, run)).collect(),
            next: next(service, run),
            log: run.log.iter().map(|entry| entry.clone().into()).collect(),
        }
    }
}

/// A step, counted from 0, or its gate.
#[derive(Clone, Copy)]
struct Position {
    step: usize,
    gate: bool,
}

/// Where a rollout is, or was when it ended.
fn position(run: &Run) -> Option<Position> {
    match run.phase {
        Phase::Stepping { step } => Some(Position { step, gate: false }),
        Phase::Gate { step } => Some(Position { step, gate: true }),
        Phase::Paused { step, at_gate, .. } | Phase::Promoting { step, at_gate } => Some(Position { step, gate: at_gate }),
        Phase::Flipped { step, .. } => Some(Position { step, gate: false }),
        Phase::Promoted | Phase::Aborted { .. } => run.log.iter().rev().find_map(|entry| {
            let (step, gate) = match entry.what {
                Moved::Gate { step, .. } => (step, true),
                Moved::Step { step, .. }
                | Moved::Passed { step, .. }
                | Moved::Opened { step, .. }
                | Moved::Proceeded { step, .. }
                | Moved::Skipped { step, .. } => (step, false),
                Moved::Started { .. }
                | Moved::Paused { .. }
                | Moved::Resumed { .. }
                | Moved::Flipped { .. }
                | Moved::Promoting { .. }
                | Moved::Promoted
                | Moved::Aborted { .. } => return None,
            };
            Some(Position { step: step.checked_sub(1)?, gate })
        }),
    }
}

fn steps(run: &Run, phase: RolloutPhase) -> Vec<StepStatus> {
    let at = position(run);
    let left = |index: usize| {
        let (_, how) = run.log.iter().rev().filter_map(|entry| entry.what.left()).find(|(step, _)| *step == index + 1)?;
        Some(match how {
            Left::Passed => StepState::Passed,
            Left::Skipped => StepState::Skipped,
            Left::Proceeded => StepState::Proceeded,
        })
    };
    let here = |gate: bool| match phase {
        RolloutPhase::Flipped | RolloutPhase::Aborted => StepState::Stopped,
        RolloutPhase::Stepping | RolloutPhase::Gate | RolloutPhase::Paused | RolloutPhase::Promoting if gate => StepState::AtGate,
        RolloutPhase::Stepping | RolloutPhase::Gate | RolloutPhase::Paused | RolloutPhase::Promoting => StepState::Now,
        // Made stable from within it: what it still had to come was left out.
        RolloutPhase::Promoted => StepState::Skipped,
    };
    let state = |index: usize| match (left(index), at) {
        (Some(left), _) => left,
        (None, Some(at)) if index == at.step => here(at.gate),
        // Its end has left the log.
        (None, Some(at)) if index < at.step => StepState::Passed,
        (None, Some(_) | None) => StepState::Ahead,
    };
    let told = run.plan.steps.iter().enumerate();
    told.map(|(index, step)| StepStatus {
        plan: step.to_string(),
        gate: step.gate.as_ref().map(Gate::to_string),
        state: state(index),
    })
    .collect()
}

fn why(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Paused { why, .. } => Some(why.to_string()),
        Phase::Flipped { reason, .. } => Some(reason.to_string()),
        Phase::Aborted { why } => Some(why.to_string()),
        Phase::Stepping { .. } | Phase::Gate { .. } | Phase::Promoting { .. } | Phase::Promoted => None,
    }
}

fn answered(check: &Check, run: &Run) -> CheckStatus {
    let checked = run.progress.checks.get(&check.name);
    let (answer, text) = match checked.map(|checked| &checked.last) {
        Some(Answer::Pass { said }) => (Some(AnswerWord::Pass), said.clone()),
        Some(Answer::Bad { said }) => (Some(AnswerWord::Bad), said.clone()),
        Some(Answer::NoData { why }) => (Some(AnswerWord::NoData), why.clone()),
        None => (None, "has not answered yet".to_owned()),
    };
    let bad = checked.map_or(0, |checked| checked.bad);
    CheckStatus { name: check.name.clone(), answer, text, bad, failures: check.failures }
}

/// What happens next.
fn next(service: &ServiceName, run: &Run) -> String {
    let verb = |verb: &str| format!("`splitter rollout {verb} {service}`");
    let plan = &run.plan;
    match &run.phase {
        Phase::Stepping { step } => behind(*step, run),
        Phase::Gate { step } => match plan.steps.get(*step).and_then(|step| step.gate.as_ref()) {
            Some(Gate::Check(name)) => {
                let step = described(*step, plan);
                format!("{step} when check {name} passes, or somebody approves: {}", verb("approve"))
            }
            Some(Gate::Manual) | None => format!("somebody approves: {}", verb("approve")),
        },
        Phase::Paused { why: Pause::Person { .. }, .. } => format!("somebody lets it go on: {}", verb("resume")),
        Phase::Paused { why: Pause::Breach { .. }, .. } => {
            format!("somebody decides: {} goes on and judges anew, {} gives it up", verb("resume"), verb("abort"))
        }
        Phase::Flipped { .. } => {
            format!("somebody decides: {} begins again with the first step, {} gives it up", verb("retry"), verb("abort"))
        }
        Phase::Promoting { .. } => "the canary's backends become stable".to_owned(),
        Phase::Promoted => format!("nothing; {} begins another one", verb("start")),
        Phase::Aborted { .. } => format!("nothing; {} begins again with the first step", verb("retry")),
    }
}

/// What comes behind a step, and when.
fn behind(step: usize, run: &Run) -> String {
    let plan = &run.plan;
    let what = match plan.steps.get(step + 1) {
        None => "promotion".to_owned(),
        Some(after) => match &after.gate {
            None => described(step + 1, plan),
            Some(gate) => format!("the gate of step {} of {} ({gate})", step + 2, plan.steps.len()),
        },
    };
    let lasts = plan.steps.get(step).map_or(Duration::ZERO, |step| step.lasts);
    let left = lasts.saturating_sub(run.progress.in_step);
    let verdict = rollout::verdict(run);
    if let rollout::Verdict::Breached(_) = verdict {
        return match plan.on_breach {
            OnBreach::Flip => "everything goes to stable".to_owned(),
            OnBreach::Pause => "it pauses until somebody decides".to_owned(),
        };
    }
    if plan.deadline.saturating_sub(run.progress.age) < left {
        let how = match plan.on_deadline {
            OnDeadline::Abort => "it's given up",
            OnDeadline::Flip => "everything goes to stable",
        };
        let left = plan.deadline.saturating_sub(run.progress.age);
        return format!("{how} in {}, when its time is over", spoken(left));
    }
    if !left.is_zero() {
        return format!("{what} in {} if healthy", spoken(left));
    }
    if verdict == rollout::Verdict::Healthy {
        return format!("{what} at once");
    }
    let waited = run.progress.in_step.saturating_sub(lasts);
    let patience = spoken(plan.no_data_for.saturating_sub(waited));
    match plan.on_no_data {
        OnNoData::Hold => format!("{what} as soon as the verdict is healthy"),
        OnNoData::Flip => format!("{what} as soon as the verdict is healthy; everything to stable if it isn't within {patience}"),
        OnNoData::Proceed => format!("{what} as soon as the verdict is healthy, and all the same in {patience}"),
    }
}

fn described(step: usize, plan: &Plan) -> String {
    let text = plan.steps.get(step).map(ToString::to_string).unwrap_or_default();
    format!("step {} of {} ({text})", step + 1, plan.steps.len())
}

/// To the second, and never 0 for what is still to come.
fn spoken(duration: Duration) -> humantime::FormattedDuration {
    let up = duration + Duration::from_secs(1) - Duration::from_nanos(1);
    humantime::format_duration(Duration::from_secs(up.as_secs()))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
