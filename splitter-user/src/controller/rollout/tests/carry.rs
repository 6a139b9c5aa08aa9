//! What is measured while a move waits for the disk isn't lost with it.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    controller::rollout::{self, Look, Move, Verb},
    model::{Compare, Existing, OnBreach, OnDeadline, OnNoData, Plan, Step, Weight},
    store::{Answer, Phase, Run},
};

#[test]
fn a_step_that_was_entered_meanwhile_has_the_evidence_and_not_the_counts_of_the_one_before() {
    let (before, mut after) = proposed(&Move::Next);
    rollout::carry(&before, &mut after);
    assert_eq!(after.phase, Phase::Stepping { step: 1 });
    assert_eq!(after.progress.comparison, before.progress.comparison, "what speaks against the canary stays");
    assert_eq!((after.progress.age, after.progress.total), (before.progress.age, before.progress.total));
    assert_eq!((after.progress.in_step, after.progress.step.canary.opened), (Duration::ZERO, 0), "a step of its own");
    assert!(after.progress.checks["c"].bad == 1 && !after.progress.checks["c"].passed, "{:?}", after.progress.checks);
}

#[test]
fn where_the_place_is_the_same_all_of_it_is_carried() {
    let mut before = running();
    let mut after = rollout::ask(&before, Verb::Pause, "bob", Timestamp::UNIX_EPOCH).expect("it runs");
    measure(&mut before);
    rollout::carry(&before, &mut after);
    assert!(matches!(after.phase, Phase::Paused { .. }));
    assert_eq!(after.progress, before.progress);
}

#[test]
fn what_a_pardon_forgot_stays_forgotten_and_another_run_gets_nothing() {
    let mut before = running();
    let stop = crate::store::Stop::Check { name: "c".to_owned(), said: "bad".to_owned() };
    before = rollout::moved(&before, &Move::Pause(stop), Timestamp::UNIX_EPOCH);
    let mut after = rollout::ask(&before, Verb::Resume, "bob", Timestamp::UNIX_EPOCH).expect("it's paused");
    let fresh = after.progress.comparison.clone();
    measure(&mut before);
    rollout::carry(&before, &mut after);
    assert_eq!(after.progress.comparison, fresh);
    assert!(after.progress.checks.is_empty() && after.progress.age == before.progress.age);

    let other = Run { id: 9, ..running() };
    let mut untouched = other.clone();
    rollout::carry(&before, &mut untouched);
    assert_eq!(untouched, other);
}

/// A run as it has gone on, and what a move made of it as it was.
fn proposed(due: &Move) -> (Run, Run) {
    let mut run = running();
    run.progress.in_step = Duration::from_secs(60);
    run.progress.checks.clear();
    let after = rollout::moved(&run, due, Timestamp::UNIX_EPOCH);
    assert_ne!(after.phase, run.phase, "it's due");
    measure(&mut run);
    (run, after)
}

fn running() -> Run {
    let step = |percent: &str| Step {
        from: None,
        weight: percent.parse::<Weight>().expect("a weight"),
        lasts: Duration::from_secs(60),
        gate: None,
    };
    let plan = Plan {
        steps: vec![step("10%"), step("50%")],
        min_connections: 0,
        on_breach: OnBreach::Pause,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: Duration::from_secs(60),
        deadline: Duration::from_secs(3_600),
        on_deadline: OnDeadline::Abort,
        compare: Some(Compare {
            false_alarm_rate: 0.01,
            failures: true,
            handshake_p90: false,
            tolerance: "1.2x".parse().expect("a factor"),
            stable_failing: "5%".parse().expect("a weight"),
        }),
        checks: vec![],
    };
    rollout::start(3, &plan, "alice", Timestamp::UNIX_EPOCH)
}

/// Some connections, some failures, and a bad answer.
fn measure(run: &mut Run) {
    let mut look = Look { elapsed: Duration::from_secs(1), ..Look::default() };
    (look.seen.stable.tally.opened, look.seen.stable.tally.completed) = (900, 900);
    let canary = &mut look.seen.canary.tally;
    (canary.opened, canary.completed, canary.refused) = (100, 99, 1);
    drop(rollout::look(run, &look));
    let said = Answer::Bad { said: "bad".to_owned() };
    run.progress.checks.insert("c".to_owned(), crate::store::Checked { last: said, bad: 1, passed: true });
}
