//! Rollouts for tests: made by the state machine itself.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};

use super::{name, time, weight};
use crate::{
    api::wire::{DifferenceStatus, RolloutStatus},
    controller::{
        Cohorts, Seen, Tally,
        rollout::{self, Look, Move, Verb},
    },
    model::{Check, Existing, Gate, OnBreach, OnDeadline, OnNoData, Plan, Probe, Step},
    store::{Answer, Compared, FlipReason, Run, Sample, Stop},
};

/// Four steps, the last behind a gate, with a check.
pub fn plan() -> Plan {
    let step = |share: &str, minutes: u64| Step {
        from: None,
        weight: weight(share),
        lasts: Duration::from_secs(60 * minutes),
        gate: None,
    };
    Plan {
        steps: vec![step("1%", 15), step("5%", 15), step("50%", 15), Step { gate: Some(Gate::Manual), ..step("100%", 0) }],
        min_connections: 500,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: Duration::from_secs(600),
        deadline: Duration::from_secs(6 * 3600),
        on_deadline: OnDeadline::Abort,
        compare: None,
        checks: vec![Check {
            name: "http-5xx".to_owned(),
            probe: Probe::Webhook { url: "http://127.0.0.1:9/".to_owned() },
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            retries: 1,
            failures: 3,
            token_file: None,
        }],
    }
}

/// The third rollout of the agent, at its start.
pub fn started() -> Run {
    rollout::start(3, &plan(), "alice", began())
}

/// So many minutes after its start.
pub fn at(minutes: i64) -> Timestamp {
    began() + minutes.minutes()
}

/// In its second step for 10 min 48 s, and healthy.
pub fn healthy() -> Run {
    let mut run = passed(&started(), at(15));
    see(&mut run, Duration::from_secs(648), [10_260, 540]);
    run
}

/// At the gate of its last step.
pub fn at_gate() -> Run {
    passed(&passed(&healthy(), at(30)), at(45))
}

/// After the flip that its check asked for.
pub fn flipped() -> Run {
    let stop = Stop::Check { name: "http-5xx".to_owned(), said: "0.031 is above 0.01".to_owned() };
    rollout::flipped(&healthy(), &FlipReason::Rollout { why: stop }, at(26))
}

/// What somebody asks, and that can be done.
pub fn asked(run: &Run, verb: Verb, minutes: i64) -> Run {
    rollout::ask(run, verb, "bob", at(minutes)).expect("it can be done in this state")
}

/// Its steps done, and its canary stable.
pub fn promoted() -> Run {
    rollout::promoted(&asked(&at_gate(), Verb::Promote { full: true }, 50), at(50))
}

/// As the API tells it.
pub fn told(run: &Run) -> RolloutStatus {
    RolloutStatus::new(&name("web"), run)
}

/// [`healthy`] as the API tells it, with what it is compared in.
pub fn status() -> RolloutStatus {
    let sample = |failures, attempts| Sample { failures, attempts };
    let differences = vec![
        DifferenceStatus {
            what: Compared::Failures,
            canary: sample(1, 690),
            stable: sample(18, 25_110),
            slower_than_us: None,
            evidence: 0.73,
            proof: 300.0,
        },
        DifferenceStatus {
            what: Compared::Handshake,
            canary: sample(84, 689),
            stable: sample(2_503, 25_092),
            slower_than_us: Some(1_234),
            evidence: 6.4,
            proof: 300.0,
        },
    ];
    RolloutStatus { differences, ..told(&healthy()) }
}

fn began() -> Timestamp {
    time("2026-03-01T09:00:00Z")
}

/// Leaves a step whose time is over.
fn passed(run: &Run, at: Timestamp) -> Run {
    let mut run = run.clone();
    see(&mut run, Duration::from_secs(900), [14_850, 550]);
    rollout::moved(&run, &Move::Next, at)
}

/// So many connections come, of which few fail, and the check passes.
fn see(run: &mut Run, elapsed: Duration, [stable, canary]: [u64; 2]) {
    let seen = |completed, refused| Seen {
        tally: Tally { opened: completed + refused, completed, refused, ..Tally::default() },
        ..Seen::default()
    };
    let seen = Cohorts { stable: seen(stable, 9), canary: seen(canary, 1) };
    let answers = vec![("http-5xx".to_owned(), Answer::Pass { said: "0.002 is not above 0.01".to_owned() })];
    // What is due is for the caller to say.
    drop(rollout::look(run, &Look { elapsed, seen, answers }));
}
