//! One rollout of the very controller, on a clock that isn't one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    controller::{
        Cohorts, Seen,
        rollout::{self, Look, Move, Verb},
    },
    model::{Plan, Weight},
    store::{Answer, Phase, Run, Stop},
};

/// Who simulated people are.
const SOMEBODY: &str = "somebody";

/// How a simulated rollout went.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// How it ended.
    pub end: End,
    /// After how long.
    pub after: Duration,
    /// Connections of the canary whose outcome was known by then.
    pub canary: u64,
    /// Those of them that failed.
    pub hurt: u64,
}

/// How a rollout ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The canary became stable.
    Promoted,
    /// The canary was found worse in this step, from 1.
    Caught {
        /// The step.
        step: usize,
        /// By what.
        by: Stop,
    },
    /// There was no verdict, until its time was over or nobody would wait any longer.
    Undecided {
        /// The step that it had come to, from 1.
        step: usize,
    },
}

/// Plays a plan to its end. `traffic` says what the cohorts do at a weight within a time. Gates are opened at once, and the application's own checks always pass: what is looked
/// at is the comparison.
pub fn play(plan: &Plan, every: Duration, mut traffic: impl FnMut(&mut Cohorts<Seen>, Weight, Duration)) -> Played {
    let mut now = Timestamp::UNIX_EPOCH;
    let mut run = rollout::start(1, plan, SOMEBODY, now);
    let answers = plan.checks.iter().map(|check| (check.name.clone(), Answer::Pass { said: String::new() })).collect();
    let mut look = Look { elapsed: every, seen: Cohorts::default(), answers };
    loop {
        if matches!(run.phase, Phase::Gate { .. })
            && let Ok(opened) = rollout::ask(&run, Verb::Approve, SOMEBODY, now)
        {
            run = opened;
        }
        traffic(&mut look.seen, rollout::weight_of(&run).unwrap_or_default(), every);
        // A plan's times are hours at most, and end within a run.
        now = now.saturating_add(SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
        let due = rollout::look(&mut run, &look);
        let step = step(&run);
        let end = match due {
            Some(Move::Flip(by @ (Stop::Worse { .. } | Stop::Check { .. })) | Move::Pause(by)) => Some(End::Caught { step, by }),
            Some(Move::Flip(Stop::NoData { .. } | Stop::Deadline { .. }) | Move::Abort(_)) => Some(End::Undecided { step }),
            Some(due @ (Move::Next | Move::Open)) => {
                run = rollout::moved(&run, &due, now);
                matches!(run.phase, Phase::Promoting { .. }).then_some(End::Promoted)
            }
            None => None,
        };
        if let Some(end) = end {
            let canary = run.progress.total.canary;
            let hurt = canary.refused.saturating_add(canary.timed_out);
            return Played { end, after: run.progress.age, canary: canary.resolved(), hurt };
        }
    }
}

fn step(run: &Run) -> usize {
    match run.phase {
        Phase::Stepping { step }
        | Phase::Gate { step }
        | Phase::Paused { step, .. }
        | Phase::Promoting { step, .. }
        | Phase::Flipped { step, .. } => step + 1,
        Phase::Promoted | Phase::Aborted { .. } => run.plan.steps.len(),
    }
}
