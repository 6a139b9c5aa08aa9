//! Rollouts as the history tells them.

use std::time::Duration;

use super::{name, time, weight};
use crate::{
    api::wire::{History, Rollout},
    controller::Tally,
    model::{Existing, Gate, OnBreach, OnDeadline, OnNoData, Plan, Step},
    store::{self, Answer, Checked, Compared, Difference, FlipReason, Moved, Phase, Progress, Sample, Stop},
};

/// Two steps, and a third behind a gate.
pub fn plan() -> Plan {
    let step =
        |bp: &str, minutes: u64, gate| Step { from: None, weight: weight(bp), lasts: Duration::from_secs(60 * minutes), gate };
    Plan {
        steps: vec![step("1%", 15, None), step("10%", 15, None), step("100%", 0, Some(Gate::Manual))],
        min_connections: 500,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: Duration::from_secs(300),
        deadline: Duration::from_secs(21_600),
        on_deadline: OnDeadline::Abort,
        compare: None,
        checks: vec![],
    }
}

/// One that waits at a gate, one that the comparison flipped, and one that was promoted before its time, of which part of the log is gone.
pub fn history() -> History {
    let plan = plan();
    let run = |id, by: &str, at: &str, phase, log: &[(&str, Moved)]| store::Run {
        id,
        plan: plan.clone(),
        by: by.to_owned(),
        started_at: time(at),
        phase,
        progress: Progress::default(),
        log: log.iter().map(|(at, what)| store::Entry { at: time(at), what: what.clone() }).collect(),
    };
    let started = |by: &str| Moved::Started { by: by.to_owned(), steps: 3 };
    let begun =
        |step: usize| Moved::Step { step, of: 3, plan: plan.steps[step - 1].to_string(), weight: plan.steps[step - 1].weight };
    let sample = |failures, attempts| Sample { failures, attempts };
    let passed = |step, canary, stable| Moved::Passed { step, of: 3, canary, stable };
    let waits = run(
        12,
        "alice",
        "2026-03-01T09:00:00Z",
        Phase::Gate { step: 2 },
        &[
            ("2026-03-01T09:00:00Z", started("alice")),
            ("2026-03-01T09:00:00Z", begun(1)),
            ("2026-03-01T09:15:00Z", passed(1, sample(1, 612), sample(48, 60_313))),
            ("2026-03-01T09:15:00Z", begun(2)),
            ("2026-03-01T09:30:00Z", passed(2, sample(6, 6_020), sample(51, 54_180))),
            ("2026-03-01T09:30:00Z", Moved::Gate { step: 3, of: 3, gate: "manual".to_owned() }),
        ],
    );
    let difference = Difference {
        what: Compared::Failures,
        canary: sample(31, 640),
        stable: sample(61, 62_000),
        slower_than: None,
        evidence: 412.7,
        proof: 100.0,
    };
    let reason = FlipReason::Rollout { why: Stop::Worse { difference } };
    let mut worse = run(
        11,
        "the pipeline of checkout-service",
        "2026-02-28T14:00:00Z",
        Phase::Flipped { step: 0, reason: Box::new(reason.clone()) },
        &[
            ("2026-02-28T14:00:00Z", started("the pipeline of checkout-service")),
            ("2026-02-28T14:00:00Z", begun(1)),
            ("2026-02-28T14:06:10Z", Moved::Flipped { reason }),
        ],
    );
    worse.progress.step.canary = Tally { opened: 642, completed: 609, refused: 30, timed_out: 1, reset: 0 };
    worse.progress.step.stable = Tally { opened: 62_010, completed: 61_939, refused: 60, timed_out: 1, reset: 4 };
    let no_data = Answer::NoData { why: "no series".to_owned() };
    worse.progress.checks.insert("http-5xx".to_owned(), Checked { last: no_data, bad: 0, passed: false });
    let early = run(
        9,
        "bob",
        "2026-02-20T08:00:00Z",
        Phase::Promoted,
        &[
            ("2026-02-20T08:00:00Z", started("bob")),
            ("2026-02-20T08:20:00Z", begun(2)),
            ("2026-02-20T08:21:00Z", Moved::Skipped { step: 2, of: 3, by: "bob".to_owned() }),
            ("2026-02-20T08:21:00Z", Moved::Promoted),
        ],
    );
    let record = |service: &str, run, left_out| Rollout::from(store::Record { service: name(service), run, left_out });
    History { rollouts: vec![record("web", waits, 0), record("web", worse, 0), record("dns", early, 140)] }
}
