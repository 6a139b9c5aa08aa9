//! The rollout's state machine. Pure: a run and what came in become a run; time is an argument.
//!
//! ```text
//!   start, retry
//!        │
//!        ▼              time over and verdict healthy, promote
//!   Stepping(n) ──────────────────────────────────────────────────▶ Gate(n + 1)     (no gate: Stepping(n + 1) at once; first step's gate: n + 1 = 0)
//!    │   ▲   │                                                       │   ▲   │
//!    │   │   │                                                       │   │   └── approve, promote, its check passes ──▶ Stepping(n + 1)
//!    │   │   │                                                       │   │
//!    │   │   │ last step: as above; any step: promote --full         │   │
//!    │   │   └──────────────────────┐         promote --full         │   │
//!    │   │                          ▼     ┌──────────────────────────┤   │
//!    │   │                       Promoting◀                          │   │
//!    │   │                        ▲ │  ▲                             │   │
//!    │   │ resume  promote --full │ │  │ promote --full        pause │   │ resume
//!    ▼   │   ┌────────────────────┘ │  └──────────────────────┐      ▼   │
//!   Paused(in n)                    │                       Paused(at the gate of n + 1)
//!      ▲ pause                      │ the canary's backends are stable
//!                                   ▼
//!                                Promoted ──▶ start
//!
//!   from                                what                                          to
//!   Stepping, Gate, Paused, Promoting   canary worse, check bad                       Flipped; with on_breach = "pause" Paused, where it is
//!   Stepping, Gate, Paused, Promoting   flip by person, breaker, limit, lease, …      Flipped
//!   Stepping, Gate, Paused, Promoting   deadline                                      Aborted, or Flipped, as on_deadline says
//!   Stepping                            no verdict for no_data_for too long           as on_no_data says: nothing, Flipped, or as if healthy
//!   all of these, and Flipped           abort                                         Aborted
//!   Flipped, Aborted                    retry                                         the first step of another rollout
//!   Aborted, Promoted                   start                                         the first step of another rollout
//! ```
//!
//! [`look`] only measures, and says which [`Move`] is due; [`moved`] makes it, if it's still due then. So what is due can be kept before it's in force.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use super::compare::{Comparison, Seen, Standing};
use crate::{
    controller::{Cohorts, Tally},
    model::{Check, Cohort, Gate, OnBreach, OnDeadline, OnNoData, Plan, Weight},
    store::{Abort, Answer, Checked, FlipReason, Moved, Pause, Phase, Progress, Run, Sample, Stop},
};

/// What is seen at a look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Since the look before.
    pub elapsed: Duration,
    /// What the cohorts did meanwhile.
    pub seen: Cohorts<Seen>,
    /// What checks have answered meanwhile, by name.
    pub answers: Vec<(String, Answer)>,
}

/// What is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// The step is passed: on to the next, to its gate, or to promotion.
    Next,
    /// The gate opens by its check.
    Open,
    /// The rollout is stopped: everything to stable.
    Flip(Stop),
    /// The canary is worse, and the rollout pauses.
    Pause(Stop),
    /// The rollout is given up.
    Abort(Abort),
}

/// What somebody asks of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Stay at this weight.
    Pause,
    /// Go on.
    Resume,
    /// Open the gate.
    Approve,
    /// Leave this step; with `full`, make the canary stable now.
    Promote {
        /// All remaining steps are left out.
        full: bool,
    },
    /// Give up.
    Abort,
}

/// What the numbers of a step say.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Enough is known, and nothing speaks against the canary.
    Healthy,
    /// It's breached.
    Breached(Stop),
    /// Too little is known: what is missing.
    TooFewSamples(String),
    /// Stable itself fails, and nobody can tell anything.
    StableFailing(Sample),
}

/// Why a verb can't be carried out in this state, and what could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Cannot {
    /// What it is in the way.
    pub why: String,
    /// What to do instead.
    pub remedy: &'static str,
}

/// Begins a rollout.
#[must_use]
pub fn start(id: u64, plan: &Plan, by: &str, at: Timestamp) -> Run {
    let progress = Progress { comparison: plan.compare.as_ref().map(Comparison::new), ..Progress::default() };
    let mut run = Run {
        id,
        plan: plan.clone(),
        by: by.to_owned(),
        started_at: at,
        phase: Phase::Stepping { step: 0 },
        progress,
        log: Vec::new(),
    };
    run.note(at, Moved::Started { by: by.to_owned(), steps: plan.steps.len() });
    arrive(&mut run, 0, at);
    run
}

/// Measures, and says what is due.
#[must_use]
pub fn look(run: &mut Run, look: &Look) -> Option<Move> {
    let (step, _) = position(&run.phase)?;
    let progress = &mut run.progress;
    progress.age = progress.age.saturating_add(look.elapsed);
    for cohort in Cohort::ALL {
        progress.step[cohort] += look.seen[cohort].tally;
        progress.total[cohort] += look.seen[cohort].tally;
    }
    if let Some(comparison) = &mut progress.comparison {
        comparison.observe(&look.seen, look.elapsed);
    }
    let stepping = matches!(run.phase, Phase::Stepping { .. });
    if stepping {
        progress.in_step = progress.in_step.saturating_add(look.elapsed);
    }
    let mut failed = None;
    for (name, answer) in &look.answers {
        let Some(check) = run.plan.checks.iter().find(|check| check.name == *name) else { continue };
        hear(&mut run.progress, name, answer);
        // At once: what a check says after that doesn't undo it.
        failed = failed.or_else(|| failing(&run.progress, check));
    }

    if let Some(stop) = failed.or_else(|| breach(run)) {
        match (run.plan.on_breach, &run.phase) {
            (OnBreach::Flip, _) => return Some(Move::Flip(stop)),
            (OnBreach::Pause, Phase::Paused { why: Pause::Breach { .. }, .. }) => {}
            (OnBreach::Pause, _) => return Some(Move::Pause(stop)),
        }
    }
    let after = run.plan.deadline;
    if run.progress.age >= after {
        return Some(match run.plan.on_deadline {
            OnDeadline::Abort => Move::Abort(Abort::Deadline { after }),
            OnDeadline::Flip => Move::Flip(Stop::Deadline { after }),
        });
    }
    if stepping { onward(run, step) } else { opens(run).then_some(Move::Open) }
}

/// Whether the check that a gate waits for has passed. Like a step, a gate stays shut while stable itself fails.
fn opens(run: &Run) -> bool {
    let Phase::Gate { step } = run.phase else { return false };
    let passes = match run.plan.steps.get(step).and_then(|step| step.gate.as_ref()) {
        Some(Gate::Check(name)) => run.progress.checks.get(name).is_some_and(Checked::passes),
        Some(Gate::Manual) | None => false,
    };
    passes && !matches!(standing(run), Standing::StableFailing(_))
}

/// Whether a step whose time is over is left.
fn onward(run: &Run, step: usize) -> Option<Move> {
    let waited = run.progress.in_step.checked_sub(run.plan.steps.get(step)?.lasts)?;
    let what = match verdict(run) {
        Verdict::Healthy => return Some(Move::Next),
        // Told by `look` already; with `on_breach = "pause"` it isn't in a step any more.
        Verdict::Breached(_) => return None,
        // It neither condemns the canary nor speaks for it.
        Verdict::StableFailing(_) => return None,
        Verdict::TooFewSamples(what) => what,
    };
    if waited < run.plan.no_data_for {
        return None;
    }
    match run.plan.on_no_data {
        OnNoData::Hold => None,
        OnNoData::Flip => Some(Move::Flip(Stop::NoData { what, waited })),
        // A bad answer is not the absence of one, even if it takes more of them for a breach.
        OnNoData::Proceed => (!run.progress.checks.values().any(Checked::is_bad)).then_some(Move::Next),
    }
}

/// What the numbers say by now.
#[must_use]
pub fn verdict(run: &Run) -> Verdict {
    if let Some(stop) = breach(run) {
        return Verdict::Breached(stop);
    }
    let weight = weight(run);
    // With everything on canary there is nothing to compare with, and what stable did before would hold the rollout for ever.
    if weight < Weight::ALL
        && let Standing::StableFailing(sample) = standing(run)
    {
        return Verdict::StableFailing(sample);
    }
    let wanted = run.plan.min_connections;
    for cohort in Cohort::ALL {
        let gets = match cohort {
            Cohort::Stable => weight < Weight::ALL,
            Cohort::Canary => weight > Weight::ZERO,
        };
        let known = run.progress.step[cohort].resolved();
        if gets && known < wanted {
            return Verdict::TooFewSamples(format!("{known} of {wanted} connections on {cohort}"));
        }
    }
    for check in &run.plan.checks {
        let name = &check.name;
        match run.progress.checks.get(name) {
            Some(checked) if checked.passes() => {}
            Some(Checked { last: Answer::Pass { .. }, .. }) | None => {
                return Verdict::TooFewSamples(format!("check {name} has not answered in this step"));
            }
            Some(Checked { last: Answer::NoData { why }, .. }) => return Verdict::TooFewSamples(format!("check {name}: {why}")),
            Some(Checked { last: last @ Answer::Bad { .. }, bad, .. }) => {
                return Verdict::TooFewSamples(format!("check {name} {last} ({bad} of {} in a row)", check.failures));
            }
        }
    }
    Verdict::Healthy
}

/// What speaks against the canary strongly enough.
fn breach(run: &Run) -> Option<Stop> {
    if let Standing::Worse(difference) = standing(run) {
        return Some(Stop::Worse { difference });
    }
    run.plan.checks.iter().find_map(|check| failing(&run.progress, check))
}

/// What the comparison says; without one, nothing speaks against the canary.
fn standing(run: &Run) -> Standing {
    run.progress.comparison.as_ref().map_or(Standing::Fine, Comparison::standing)
}

/// Whether a check has been bad so often in a row that it's a breach.
fn failing(progress: &Progress, check: &Check) -> Option<Stop> {
    match progress.checks.get(&check.name)? {
        Checked { last: Answer::Bad { said }, bad, .. } if *bad >= check.failures => {
            Some(Stop::Check { name: check.name.clone(), said: said.clone() })
        }
        Checked { .. } => None,
    }
}

fn hear(progress: &mut Progress, name: &str, answer: &Answer) {
    let before = progress.checks.remove(name);
    let (bad, passed) = before.map_or((0, false), |before| (before.bad, before.passed));
    let last = answer.clipped();
    let checked = match answer {
        Answer::Pass { .. } => Checked { last, bad: 0, passed: true },
        Answer::Bad { .. } => Checked { last, bad: bad.saturating_add(1), passed: false },
        // No news: what was bad isn't better for it.
        Answer::NoData { .. } => Checked { last, bad, passed },
    };
    progress.checks.insert(name.to_owned(), checked);
}

/// The canary's share; none: the rollout is over, and doesn't decide.
#[must_use]
pub fn weight_of(run: &Run) -> Option<Weight> {
    match run.phase {
        Phase::Stepping { .. } | Phase::Gate { .. } | Phase::Paused { .. } | Phase::Promoting { .. } => Some(weight(run)),
        Phase::Flipped { .. } => Some(Weight::ZERO),
        Phase::Promoted | Phase::Aborted { .. } => None,
    }
}

fn weight(run: &Run) -> Weight {
    let Some((step, at_gate)) = position(&run.phase) else { return Weight::ZERO };
    let steps = &run.plan.steps;
    if at_gate {
        return step.checked_sub(1).and_then(|before| steps.get(before)).map_or(Weight::ZERO, |before| before.weight);
    }
    steps.get(step).map_or(Weight::ZERO, |step| step.weight_after(run.progress.in_step))
}

/// Whether it's looked at: it isn't over, and not everything goes to stable.
#[must_use]
pub const fn is_active(phase: &Phase) -> bool {
    position(phase).is_some()
}

/// The step that a rollout is in or behind whose gate it waits, from 0.
#[must_use]
pub fn step_of(phase: &Phase) -> Option<usize> {
    position(phase).map(|(step, _)| step)
}

/// The step that a rollout is in, or behind whose gate it waits; none if everything goes to stable, or it's over.
const fn position(phase: &Phase) -> Option<(usize, bool)> {
    match phase {
        Phase::Stepping { step } => Some((*step, false)),
        Phase::Gate { step } => Some((*step, true)),
        Phase::Paused { step, at_gate, .. } => Some((*step, *at_gate)),
        Phase::Promoting { step, at_gate } => Some((*step, *at_gate)),
        Phase::Flipped { .. } | Phase::Promoted | Phase::Aborted { .. } => None,
    }
}

/// Makes a move that is due. One that isn't any more, for somebody was faster, changes nothing. The flip itself is the service's: see [`flipped`].
#[must_use]
pub fn moved(run: &Run, due: &Move, at: Timestamp) -> Run {
    let mut next = run.clone();
    let Some((step, at_gate)) = position(&run.phase) else { return next };
    match due {
        Move::Next => {
            if matches!(run.phase, Phase::Stepping { .. }) && onward(run, step) == Some(Move::Next) {
                leave(&mut next, step, at);
            }
        }
        Move::Open => {
            if opens(run) {
                let gate = run.plan.steps.get(step).and_then(|step| step.gate.as_ref());
                let by = gate.map(Gate::to_string).unwrap_or_default();
                next.note(at, Moved::Opened { step: step + 1, of: run.plan.steps.len(), by });
                enter(&mut next, step, at);
            }
        }
        Move::Flip(stop) => return flipped(run, &FlipReason::Rollout { why: stop.clone() }, at),
        Move::Pause(stop) => {
            if !matches!(run.phase, Phase::Paused { why: Pause::Breach { .. }, .. }) {
                pause(&mut next, (step, at_gate), Pause::Breach { stop: stop.clone() }, at);
            }
        }
        Move::Abort(why) => abort(&mut next, why.clone(), at),
    }
    next
}

/// The service was flipped, for whatever reason. A rollout that is over, or flipped already, stays as it is.
#[must_use]
pub fn flipped(run: &Run, reason: &FlipReason, at: Timestamp) -> Run {
    let mut next = run.clone();
    if let Some((step, _)) = position(&run.phase) {
        next.phase = Phase::Flipped { step, reason: Box::new(reason.clone()) };
        next.note(at, Moved::Flipped { reason: reason.clone() });
    }
    next
}

/// The canary's backends are stable now. Only a rollout that was being promoted is.
#[must_use]
pub fn promoted(run: &Run, at: Timestamp) -> Run {
    let mut next = run.clone();
    if matches!(run.phase, Phase::Promoting { .. }) {
        next.phase = Phase::Promoted;
        next.note(at, Moved::Promoted);
    }
    next
}

/// Carries out what somebody asks.
///
/// # Errors
/// It can't be done in this state.
pub fn ask(run: &Run, verb: Verb, by: &str, at: Timestamp) -> Result<Run, Cannot> {
    let mut next = run.clone();
    let of = run.plan.steps.len();
    let by = by.to_owned();
    match &run.phase {
        Phase::Stepping { step } => match verb {
            Verb::Pause => pause(&mut next, (*step, false), Pause::Person { by }, at),
            Verb::Promote { full: false } => {
                next.note(at, Moved::Skipped { step: step + 1, of, by: by.clone() });
                go_on(&mut next, *step, Some(by), at);
            }
            Verb::Promote { full: true } => promote(&mut next, (*step, false), Some(by), at),
            Verb::Abort => abort(&mut next, Abort::Person { by }, at),
            Verb::Resume => return Err(Cannot::new("it isn't paused", "`splitter rollout status` shows where it is")),
            Verb::Approve => return Err(Cannot::new("it isn't at a gate", "`splitter rollout promote` leaves a step early")),
        },
        Phase::Gate { step } => match verb {
            Verb::Pause => pause(&mut next, (*step, true), Pause::Person { by }, at),
            Verb::Approve | Verb::Promote { full: false } => {
                next.note(at, Moved::Opened { step: step + 1, of, by });
                enter(&mut next, *step, at);
            }
            Verb::Promote { full: true } => promote(&mut next, (*step, true), Some(by), at),
            Verb::Abort => abort(&mut next, Abort::Person { by }, at),
            Verb::Resume => {
                return Err(Cannot::new("it waits at a gate, and isn't paused", "`splitter rollout approve` opens the gate"));
            }
        },
        Phase::Paused { step, at_gate, why } => match verb {
            Verb::Resume => {
                next.note(at, Moved::Resumed { by });
                pardon(&mut next, why);
                next.phase = if *at_gate { Phase::Gate { step: *step } } else { Phase::Stepping { step: *step } };
            }
            Verb::Promote { full: true } => {
                pardon(&mut next, why);
                promote(&mut next, (*step, *at_gate), Some(by), at);
            }
            Verb::Abort => abort(&mut next, Abort::Person { by }, at),
            Verb::Pause => return Err(Cannot::new("it's paused already", "`splitter rollout resume` lets it go on")),
            Verb::Approve | Verb::Promote { full: false } => {
                return Err(Cannot::new("it's paused", "`splitter rollout resume` first, or `promote --full`"));
            }
        },
        Phase::Promoting { .. } => match verb {
            Verb::Abort => abort(&mut next, Abort::Person { by }, at),
            Verb::Pause | Verb::Resume | Verb::Approve | Verb::Promote { .. } => {
                return Err(Cannot::new("it's being promoted", "wait for it, or `splitter rollout abort`"));
            }
        },
        Phase::Flipped { .. } => match verb {
            Verb::Abort => abort(&mut next, Abort::Person { by }, at),
            Verb::Pause | Verb::Resume | Verb::Approve | Verb::Promote { .. } => {
                return Err(Cannot::new(
                    "it was flipped: everything goes to stable",
                    "`splitter rollout retry` begins again with the first step, `splitter rollout abort` gives it up",
                ));
            }
        },
        Phase::Promoted | Phase::Aborted { .. } => match verb {
            Verb::Pause | Verb::Resume | Verb::Approve | Verb::Promote { .. } | Verb::Abort => {
                return Err(Cannot::new("it's over", "`splitter rollout start` begins another one"));
            }
        },
    }
    Ok(next)
}

/// Begins again with the first step: another rollout, by the plan that counts now.
///
/// # Errors
/// It's still going on, or it ended well.
pub fn retry(run: &Run, id: u64, plan: &Plan, by: &str, at: Timestamp) -> Result<Run, Cannot> {
    match run.phase {
        Phase::Flipped { .. } | Phase::Aborted { .. } => Ok(start(id, plan, by, at)),
        Phase::Stepping { .. } | Phase::Gate { .. } | Phase::Paused { .. } | Phase::Promoting { .. } => {
            Err(Cannot::new("it's still going on", "`splitter rollout abort` first"))
        }
        Phase::Promoted => Err(Cannot::new("it ended well: it was promoted", "`splitter rollout start` begins another one")),
    }
}

/// Leaves a step whose time is over.
fn leave(run: &mut Run, step: usize, at: Timestamp) {
    let of = run.plan.steps.len();
    let left = match verdict(run) {
        Verdict::TooFewSamples(what) => Moved::Proceeded { step: step + 1, of, what },
        Verdict::Healthy | Verdict::Breached(_) | Verdict::StableFailing(_) => {
            let sample =
                |tally: Tally| Sample { failures: tally.refused.saturating_add(tally.timed_out), attempts: tally.resolved() };
            let Cohorts { stable, canary } = run.progress.step;
            Moved::Passed { step: step + 1, of, canary: sample(canary), stable: sample(stable) }
        }
    };
    run.note(at, left);
    go_on(run, step, None, at);
}

/// On to the step behind, or to promotion.
fn go_on(run: &mut Run, step: usize, by: Option<String>, at: Timestamp) {
    if step + 1 < run.plan.steps.len() { arrive(run, step + 1, at) } else { promote(run, (step, false), by, at) }
}

/// Somebody has looked at what was found, and wants to go on: it's forgotten, or it would pause again at once. The verdict needs as many connections as in a
/// new step, for those that were counted are those of the breach.
fn pardon(run: &mut Run, why: &Pause) {
    match why {
        Pause::Person { .. } => {}
        Pause::Breach { .. } => {
            run.progress.comparison = run.plan.compare.as_ref().map(Comparison::new);
            run.progress.checks.clear();
            run.progress.step = Cohorts::default();
            // Nor may what was waited for before count as waited now.
            if let Some(step) = step_of(&run.phase).and_then(|step| run.plan.steps.get(step)) {
                run.progress.in_step = run.progress.in_step.min(step.lasts);
            }
        }
    }
}

/// Takes over into a run that was made from an earlier one what was measured of that one since: a move may wait for the disk. What a pardon forgets stays forgotten.
pub fn carry(before: &Run, after: &mut Run) {
    if before.id != after.id {
        return;
    }
    let goes_on = matches!(after.phase, Phase::Stepping { .. } | Phase::Gate { .. } | Phase::Promoting { .. });
    if goes_on && matches!(before.phase, Phase::Paused { why: Pause::Breach { .. }, .. }) {
        (after.progress.age, after.progress.total) = (before.progress.age, before.progress.total);
    } else if position(&before.phase) == position(&after.phase) {
        after.progress = before.progress.clone();
    } else {
        let Progress { age, total, comparison, mut checks, .. } = before.progress.clone();
        for (name, checked) in &mut checks {
            checked.passed &= after.progress.checks.get(name).is_some_and(|after| after.passed);
        }
        let (in_step, step) = (after.progress.in_step, after.progress.step);
        after.progress = Progress { age, in_step, step, total, comparison, checks };
    }
}

/// At a step: into it, or to its gate.
fn arrive(run: &mut Run, step: usize, at: Timestamp) {
    let of = run.plan.steps.len();
    match run.plan.steps.get(step).and_then(|step| step.gate.clone()) {
        None => enter(run, step, at),
        Some(gate) => {
            run.phase = Phase::Gate { step };
            // What a check said before says nothing about now.
            forget_passes(run);
            run.note(at, Moved::Gate { step: step + 1, of, gate: gate.to_string() });
        }
    }
}

/// Into a step.
fn enter(run: &mut Run, step: usize, at: Timestamp) {
    run.phase = Phase::Stepping { step };
    run.progress.in_step = Duration::ZERO;
    run.progress.step = Cohorts::default();
    forget_passes(run);
    let of = run.plan.steps.len();
    if let Some(plan) = run.plan.steps.get(step) {
        let (plan, weight) = (plan.to_string(), plan.weight_after(Duration::ZERO));
        run.note(at, Moved::Step { step: step + 1, of, plan, weight });
    }
}

fn forget_passes(run: &mut Run) {
    for checked in run.progress.checks.values_mut() {
        checked.passed = false;
    }
}

fn pause(run: &mut Run, (step, at_gate): (usize, bool), why: Pause, at: Timestamp) {
    run.note(at, Moved::Paused { why: why.clone() });
    run.phase = Phase::Paused { step, at_gate, why };
}

fn promote(run: &mut Run, (step, at_gate): (usize, bool), by: Option<String>, at: Timestamp) {
    run.note(at, Moved::Promoting { by });
    run.phase = Phase::Promoting { step, at_gate };
}

fn abort(run: &mut Run, why: Abort, at: Timestamp) {
    run.note(at, Moved::Aborted { why: why.clone() });
    run.phase = Phase::Aborted { why };
}

impl Cannot {
    fn new(why: &str, remedy: &'static str) -> Self {
        Self { why: why.to_owned(), remedy }
    }
}
