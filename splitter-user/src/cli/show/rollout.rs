//! A rollout.

use std::time::Duration;

use anstyle::Style;

use super::layout::{BAD, BOLD, DIM, GOOD, PLAIN, WARN, count, field, known, left, paint, right, row, span, time, wrap};
use crate::{
    api::wire::{
        AnswerWord, BothCohorts, CheckStatus, DifferenceStatus, Judgement, RolloutBrief, RolloutEntry, RolloutPhase,
        RolloutStatus, StepState, StepStatus, VerdictWord,
    },
    store::{Compared, Sample},
};

/// Names of fields.
const FIELD: usize = 12;
const NAME: usize = 15;
const NUMBER: usize = 9;
/// A bar of evidence.
const BAR: usize = 10;
/// So many entries of the log are shown.
const LAST: usize = 6;

/// `rollout status`.
pub fn rollout(status: &RolloutStatus) -> String {
    let RolloutStatus { service, number, by, started_at, .. } = status;
    let name = paint(BOLD, service.as_str());
    let mut text = format!("{name}: rollout {number}, started {} by {by}\n", time(*started_at));
    let (word, style) = phase(status.phase);
    text += &field(2, word, FIELD - 2, style, &standing(status));
    for (index, step) in status.steps.iter().enumerate() {
        text += &one_step(index, step, status);
    }
    if let Some(judged) = &status.verdict {
        text += &field(2, "verdict", FIELD - 2, judgement_style(judged.word), &verdict(judged));
    }
    text += &connections(status);
    text += &differences(&status.differences);
    text += &checks(&status.checks);
    text += &field(2, "next", FIELD - 2, BOLD, &status.next);
    let left_out = status.log.len().saturating_sub(LAST);
    for entry in status.log.iter().skip(left_out) {
        text += &happened(entry);
    }
    text
}

/// In a service's status: one field.
pub fn brief(rollout: &RolloutBrief) -> String {
    let (word, style) = phase(rollout.phase);
    let step = rollout.step.map(|step| format!(", step {step} of {}", rollout.of)).unwrap_or_default();
    let share = rollout.weight.0.map(|weight| format!(", {weight}")).unwrap_or_default();
    let why = rollout.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let judged = rollout.verdict.as_ref().map(|judged| format!("; {}", verdict(judged))).unwrap_or_default();
    let text = format!("{} {word}{step}{share}{why}{judged}; next: {}", rollout.number, rollout.next);
    field(2, "rollout", FIELD - 2, style, &text)
}

/// The step or the gate that a rollout is at, or was.
pub fn place(status: &RolloutStatus) -> String {
    let Some(step) = status.step else { return "no step".to_owned() };
    let of = status.of;
    let plan = step.checked_sub(1).and_then(|index| status.steps.get(index)).map(|step| step.plan.as_str()).unwrap_or_default();
    match &status.gate {
        Some(gate) => format!("the gate of step {step} of {of} ({gate})"),
        None => format!("step {step} of {of} ({plan})"),
    }
}

/// A verdict in words.
pub fn verdict(judged: &Judgement) -> String {
    let word = match judged.word {
        VerdictWord::Healthy => "healthy",
        VerdictWord::Breached => "breached",
        VerdictWord::TooFewSamples => "too few samples",
        VerdictWord::StableFailing => "stable itself fails",
    };
    format!("{word}: {}", judged.text)
}

/// What happened, and when.
fn happened(entry: &RolloutEntry) -> String {
    const HANG: usize = 24;
    format!("  {}  {}", paint(DIM, &time(entry.at)), wrap(&entry.message, HANG))
}

const fn phase(phase: RolloutPhase) -> (&'static str, Style) {
    match phase {
        RolloutPhase::Stepping | RolloutPhase::Promoting | RolloutPhase::Promoted => (phase.as_str(), GOOD),
        RolloutPhase::Gate => ("AT GATE", WARN),
        RolloutPhase::Paused | RolloutPhase::Aborted => (phase.as_str(), WARN),
        RolloutPhase::Flipped => ("FLIPPED", BAD),
    }
}

const fn judgement_style(word: VerdictWord) -> Style {
    match word {
        VerdictWord::Healthy => GOOD,
        VerdictWord::TooFewSamples | VerdictWord::StableFailing => WARN,
        VerdictWord::Breached => BAD,
    }
}

/// Where it is, since when, and why.
fn standing(status: &RolloutStatus) -> String {
    let mut words = vec![place(status)];
    words.extend(status.weight.0.map(|weight| format!("{weight} to the canary")));
    words.push(format!("after {}", spoken(status.age_ms)));
    words.extend(status.deadline_in_ms.map(|left| format!("{} to its deadline", spoken(left))));
    let why = status.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    words.join(", ") + &why
}

fn one_step(index: usize, step: &StepStatus, status: &RolloutStatus) -> String {
    let (mark, style) = match step.state {
        StepState::Passed => ("passed", DIM),
        StepState::Skipped => ("skipped", DIM),
        StepState::Proceeded => ("no data", WARN),
        StepState::Now => ("now", BOLD),
        StepState::AtGate => ("at gate", BOLD),
        StepState::Stopped => ("stopped", BAD),
        StepState::Ahead => ("", PLAIN),
    };
    let gate = step.gate.as_ref().map(|gate| format!("gate: {gate}"));
    let so_far = status.in_step_ms.zip(status.step_lasts_ms).filter(|_| step.state == StepState::Now);
    let so_far = so_far.map(|(passed, lasts)| format!("{} of {}", spoken(passed), spoken(lasts)));
    let about: Vec<String> = so_far.into_iter().chain(gate).collect();
    let pointer = if matches!(step.state, StepState::Now | StepState::AtGate | StepState::Stopped) { ">" } else { " " };
    let cells = [
        left(format!("{pointer} {}", index + 1), FIELD - 3, style),
        left(step.plan.as_str(), 24, style),
        left(mark, 8, style),
        left(about.join(", "), 0, PLAIN),
    ];
    row(2, &cells)
}

fn connections(status: &RolloutStatus) -> String {
    let titles = ["STEP", "FAILED", "SHARE", "TOTAL", "FAILED", "SHARE"];
    let mut cells = vec![left("CONNECTIONS", NAME, DIM)];
    cells.extend(titles.iter().map(|title| right(*title, NUMBER)));
    let BothCohorts { stable: stable_step, canary: canary_step } = status.connections.step;
    let BothCohorts { stable, canary } = status.connections.total;
    let mut text = row(2, &cells);
    for (cohort, step, total) in [("stable", stable_step, stable), ("canary", canary_step, canary)] {
        let mut cells = vec![left(cohort, NAME, BOLD)];
        for sample in [step, total] {
            cells.extend([count(sample.attempts), count(sample.failures), share(sample)].map(|number| right(number, NUMBER)));
        }
        text += &row(2, &cells);
    }
    text
}

fn differences(differences: &[DifferenceStatus]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    let cells = [left("COMPARED", NAME, DIM), right("STABLE", NUMBER), right("CANARY", NUMBER), left("EVIDENCE", BAR + 2, DIM)];
    let mut text = row(2, &cells);
    for difference in differences {
        let DifferenceStatus { canary, stable, evidence, proof, .. } = difference;
        let beyond = difference.slower_than_us.map(|us| format!(", over {}", span(us))).unwrap_or_default();
        let style = if evidence >= proof { BAD } else { PLAIN };
        let cells = [
            left(compared(difference.what), NAME, BOLD),
            right(share(*stable), NUMBER),
            right(share(*canary), NUMBER),
            left(format!("[{}]", bar(*evidence, *proof)), BAR + 2, style),
            left(format!("{} of {}{beyond}", amount(*evidence), amount(*proof)), 0, PLAIN),
        ];
        text += &row(2, &cells);
    }
    text
}

const fn compared(what: Compared) -> &'static str {
    match what {
        Compared::Failures => "failures",
        Compared::Handshake => "slow handshakes",
        Compared::FirstResponse => "slow responses",
    }
}

/// Evidence multiplies, so that the way to proof is told in powers: none at 1, full at proof.
fn bar(evidence: f64, proof: f64) -> String {
    let way = if evidence > 1.0 && proof > 1.0 { (evidence.ln() / proof.ln()).min(1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to BAR")]
    let marks = (way * BAR as f64) as usize;
    format!("{}{}", "#".repeat(marks), ".".repeat(BAR.saturating_sub(marks)))
}

fn amount(number: f64) -> String {
    if number < 1_000_000.0 { super::layout::rate(number) } else { format!("{number:.0e}") }
}

fn checks(checks: &[CheckStatus]) -> String {
    let mut text = String::new();
    for check in checks {
        let (word, style) = match check.answer {
            Some(AnswerWord::Pass) => (" passes", GOOD),
            Some(AnswerWord::Bad) => (" FAILS", BAD),
            Some(AnswerWord::NoData) => (" has no data", WARN),
            None => ("", PLAIN),
        };
        let bad = if check.bad > 0 { format!(" ({} bad of {})", check.bad, check.failures) } else { String::new() };
        text += &field(2, "check", FIELD - 2, style, &format!("{}{word}{bad}: {}", check.name, check.text));
    }
    text
}

/// Without attempts there is no share.
fn share(sample: Sample) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let share = (sample.attempts > 0).then(|| sample.failures as f64 / sample.attempts as f64 * 100.0);
    known(share, |share| format!("{share:.2}%"))
}

fn spoken(milliseconds: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(milliseconds / 1_000))
}
