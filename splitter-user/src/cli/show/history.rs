//! Rollouts: one block each.

use super::layout::{BAD, BOLD, DIM, GOOD, PLAIN, WARN, field, known, left, paint, row, time};
use crate::api::wire::{History, Rollout, RolloutStep, Stage, StepVerdict};

/// Where what belongs to a name begins.
const NAME: usize = 12;

/// Number and service, when, by whom, how it ended and why, and each step with its verdict and numbers.
pub fn history(history: &History) -> String {
    if history.rollouts.is_empty() {
        return "no rollout is known\n".to_owned();
    }
    let blocks: Vec<String> = history.rollouts.iter().map(rollout).collect();
    blocks.join("\n")
}

fn rollout(rollout: &Rollout) -> String {
    let style = match rollout.stage {
        Stage::Promoted => GOOD,
        Stage::Flipped => BAD,
        Stage::Gate | Stage::Paused | Stage::Aborted => WARN,
        Stage::Stepping | Stage::Promoting => PLAIN,
    };
    let title = format!("rollout {} of {}", rollout.number, rollout.service);
    let mut text = format!("{}: {}\n", paint(BOLD, &title), paint(style, rollout.stage.as_str()));
    text += &field(2, "started", NAME, DIM, &format!("{}, by {}", time(rollout.started_at), rollout.by));
    text += &field(2, "ended", NAME, DIM, &known(rollout.ended_at, time));
    text += &field(2, "how", NAME, DIM, &rollout.message);
    let title = |text: &str, width| left(text, width, DIM);
    text += &row(2, &[title("STEP", 27), title("VERDICT", 8), title("FAILED ON CANARY", 20), title("ON STABLE", 20)]);
    for step in &rollout.steps {
        text += &step_row(step);
    }
    for check in &rollout.checks {
        text += &field(2, "check", NAME, DIM, &format!("{} {}", check.name, check.message));
    }
    if rollout.left_out > 0 {
        text += &field(2, "log", NAME, DIM, &format!("{} lines were left out for want of room", rollout.left_out));
    }
    text
}

fn step_row(step: &RolloutStep) -> String {
    let gate = step.gate.as_ref().map(|gate| format!(", {gate}")).unwrap_or_default();
    let style = match step.verdict {
        Some(StepVerdict::Passed) => GOOD,
        Some(StepVerdict::Stopped | StepVerdict::Proceeded) => WARN,
        Some(StepVerdict::Skipped | StepVerdict::Running) | None => PLAIN,
    };
    row(
        2,
        &[
            left(format!("{} {}{gate}", step.step, step.plan), 27, PLAIN),
            left(known(step.verdict, |verdict| verdict.as_str().to_owned()), 8, style),
            left(known(step.canary, |sample| sample.to_string()), 20, PLAIN),
            left(known(step.stable, |sample| sample.to_string()), 20, PLAIN),
        ],
    )
}
