use std::time::Duration;

use super::*;
use crate::{
    api::fake::rollout::{asked, at, at_gate, flipped, healthy, plan, promoted, started, told},
    controller::rollout::{Look, Move, Verb, look, moved, retry},
    model::{Gate, OnDeadline, OnNoData, Plan, Weight},
    store::{Answer, Run, Stop},
};

#[test]
fn every_phase_says_where_it_is_what_it_weighs_and_what_comes_next() {
    let aborted = asked(&healthy(), Verb::Abort, 27);
    let worse = Stop::Check { name: "http-5xx".to_owned(), said: "0.031 is above 0.01".to_owned() };
    let by_breach = moved(&healthy(), &Move::Pause(worse), at(26));
    for (run, phase, step, weight, next) in [
        (started(), "stepping", 1, Some("1%"), "step 2 of 4 (5% for 15m) in 15m if healthy"),
        (healthy(), "stepping", 2, Some("5%"), "step 3 of 4 (50% for 15m) in 4m 12s if healthy"),
        (at_gate(), "gate", 4, Some("50%"), "somebody approves: `splitter rollout approve web`"),
        (asked(&at_gate(), Verb::Approve, 46), "stepping", 4, Some("100%"), "promotion as soon as the verdict is healthy"),
        (asked(&healthy(), Verb::Pause, 27), "paused", 2, Some("5%"), "somebody lets it go on: `splitter rollout resume web`"),
        (
            by_breach,
            "paused",
            2,
            Some("5%"),
            "somebody decides: `splitter rollout resume web` goes on and judges anew, `splitter rollout abort web` gives it up",
        ),
        (
            flipped(),
            "flipped",
            2,
            Some("0%"),
            "somebody decides: `splitter rollout retry web` begins again with the first step, `splitter rollout abort web` gives it up",
        ),
        (asked(&healthy(), Verb::Promote { full: true }, 27), "promoting", 2, Some("5%"), "the canary's backends become stable"),
        (promoted(), "promoted", 4, None, "nothing; `splitter rollout start web` begins another one"),
        (aborted, "aborted", 2, None, "nothing; `splitter rollout retry web` begins again with the first step"),
    ] {
        let status = told(&run);
        let weight = weight.map(|weight: &str| weight.parse::<Weight>().expect("a weight"));
        let got = (status.phase.as_str(), status.step, status.weight.0, status.next.as_str());
        assert_eq!(got, (phase, Some(step), weight, next));
        let over = matches!(phase, "flipped" | "promoted" | "aborted");
        assert_eq!((status.verdict.is_none(), status.deadline_in_ms.is_none()), (over, over), "{phase}");
        assert_eq!(status.needs_approval, phase == "gate", "{phase}");
        let json = serde_json::to_string(&status).expect("it can be written");
        assert_eq!(serde_json::from_str::<RolloutStatus>(&json).expect("it can be read"), status, "{phase}");
    }
}

#[test]
fn the_plan_shows_what_was_passed_what_was_skipped_and_where_it_stopped() {
    use StepState::{Ahead, AtGate, Now, Passed, Skipped, Stopped};
    let states = |run: &Run| told(run).steps.iter().map(|step| step.state).collect::<Vec<_>>();
    assert_eq!(states(&started()), [Now, Ahead, Ahead, Ahead]);
    assert_eq!(states(&asked(&started(), Verb::Promote { full: false }, 1)), [Skipped, Now, Ahead, Ahead]);
    assert_eq!(states(&healthy()), [Passed, Now, Ahead, Ahead]);
    assert_eq!(states(&at_gate()), [Passed, Passed, Passed, AtGate]);
    assert_eq!(states(&flipped()), [Passed, Stopped, Ahead, Ahead]);
    assert_eq!(states(&asked(&healthy(), Verb::Abort, 27)), [Passed, Stopped, Ahead, Ahead]);
    assert_eq!(states(&promoted()), [Passed, Passed, Passed, Skipped], "made stable before its gate");
    let again = retry(&flipped(), 4, &plan(), "bob", at(60)).expect("it was flipped");
    assert_eq!(states(&again), [Now, Ahead, Ahead, Ahead]);
}

#[test]
fn what_is_waited_for_when_a_steps_time_is_over_is_what_the_plan_says() {
    let late = |on_no_data| {
        let mut run = Run { plan: Plan { on_no_data, ..plan() }, ..started() };
        assert_eq!(look(&mut run, &Look { elapsed: Duration::from_millis(1_140_500), ..Look::default() }), None);
        told(&run)
    };
    let held = late(OnNoData::Hold);
    assert_eq!(held.next, "step 2 of 4 (5% for 15m) as soon as the verdict is healthy");
    assert_eq!((held.in_step_ms, held.step_lasts_ms), (Some(1_140_500), Some(900_000)));
    let verdict = held.verdict.expect("there is one");
    assert_eq!((verdict.word, verdict.text.as_str()), (VerdictWord::TooFewSamples, "0 of 500 connections on stable"));
    assert_eq!(
        late(OnNoData::Flip).next,
        "step 2 of 4 (5% for 15m) as soon as the verdict is healthy; everything to stable if it isn't within 6m"
    );
    assert_eq!(
        late(OnNoData::Proceed).next,
        "step 2 of 4 (5% for 15m) as soon as the verdict is healthy, and all the same in 6m"
    );
}

#[test]
fn a_deadline_that_comes_before_the_steps_end_is_what_comes_next() {
    let mut run = healthy();
    run.progress.age = run.plan.deadline - Duration::from_secs(60);
    assert_eq!(told(&run).next, "it's given up in 1m, when its time is over");
    run.plan.on_deadline = OnDeadline::Flip;
    assert_eq!(told(&run).next, "everything goes to stable in 1m, when its time is over");
}

#[test]
fn a_gate_that_a_check_opens_says_so_and_needs_nobody() {
    let mut run = at_gate();
    run.plan.steps[3].gate = Some(Gate::Check("http-5xx".to_owned()));
    let status = told(&run);
    assert_eq!((status.needs_approval, status.gate.as_deref()), (false, Some("check http-5xx")));
    assert_eq!(
        status.next,
        "step 4 of 4 (100%) when check http-5xx passes, or somebody approves: `splitter rollout approve web`"
    );
    let before = told(&asked(&at_gate(), Verb::Pause, 46));
    assert_eq!((before.phase, before.needs_approval), (RolloutPhase::Paused, false), "it's to be resumed first");
}

#[test]
fn a_check_is_told_in_its_words_and_before_its_answer_as_one_without() {
    let check = |run: &Run| told(run).checks.remove(0);
    let (none, some) = (check(&started()), check(&healthy()));
    assert_eq!((none.answer, none.text.as_str()), (None, "has not answered yet"));
    assert_eq!((some.answer, some.text.as_str()), (Some(AnswerWord::Pass), "0.002 is not above 0.01"));
    let mut run = healthy();
    let bad = vec![("http-5xx".to_owned(), Answer::Bad { said: "0.031 is above 0.01".to_owned() })];
    assert_eq!(look(&mut run, &Look { answers: bad, ..Look::default() }), None, "one of three");
    let bad = check(&run);
    assert_eq!((bad.answer, bad.bad, bad.failures), (Some(AnswerWord::Bad), 1, 3));
}

#[test]
fn evidence_beyond_all_numbers_is_still_one() {
    let sample = Sample { failures: 1, attempts: 2 };
    let difference = store::Difference {
        what: store::Compared::Failures,
        canary: sample,
        stable: sample,
        slower_than: None,
        evidence: f64::INFINITY,
        proof: 300.0,
    };
    let told = DifferenceStatus::from(difference);
    let json = serde_json::to_string(&told).expect("it can be written");
    assert_eq!(serde_json::from_str::<DifferenceStatus>(&json).expect("it can be read"), told);
}
