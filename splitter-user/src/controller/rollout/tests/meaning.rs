//! What the answers of checks, pauses and too little data mean, where it could be thought otherwise.

use super::*;

#[test]
fn what_was_found_is_forgotten_by_whoever_goes_on_in_spite_of_it_and_counted_anew() {
    for full in [false, true] {
        let mut run = begun(&paused_by_breaches());
        let due = looked(&mut run, &after(11 * MINUTE, 800, answers("smoke", [bad(), bad()])));
        assert!(matches!(due, Some(Move::Pause(Stop::Check { .. }))), "{due:?}");
        let verb = if full { Verb::Promote { full } } else { Verb::Resume };
        run = ask(&run, verb, "alice", AT).expect("goes on");
        assert_eq!(
            looked(&mut run, &after(MINUTE, 0, Vec::new())),
            None,
            "neither paused again nor passed on the numbers of the breach"
        );
        if !full {
            assert_eq!(verdict(&run), Verdict::TooFewSamples("0 of 500 connections on stable".to_owned()));
            assert_eq!(looked(&mut run, &after(MINUTE, 500, answers("smoke", [pass()]))), Some(Move::Next));
        }
    }
}

#[test]
fn who_pauses_for_another_reason_is_told_of_a_breach_meanwhile() {
    let run = begun(&paused_by_breaches());
    let mut run = ask(&run, Verb::Pause, "alice", AT).expect("paused");
    let due = looked(&mut run, &after(MINUTE, 0, answers("smoke", [bad(), bad()])));
    assert!(matches!(due, Some(Move::Pause(_))), "{due:?}");
    assert!(matches!(run.phase, Phase::Paused { why: Pause::Breach { .. }, .. }), "{:?}", run.phase);
    let noted = run.log.len();
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [bad()]))), None, "once is enough");
    assert_eq!(run.log.len(), noted);
}

#[test]
fn so_many_bad_answers_in_a_row_are_a_breach_whatever_comes_behind_them_in_the_same_look() {
    for last in [pass(), no_data(), bad()] {
        let mut run = begun(&checked(OnNoData::Hold));
        let due = look(&mut run, &after(MINUTE, 0, answers("smoke", [bad(), no_data(), bad(), last])));
        assert!(matches!(due, Some(Move::Flip(Stop::Check { .. }))), "{due:?}");
    }
    let mut run = begun(&checked(OnNoData::Hold));
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [bad(), pass(), bad()]))), None, "not in a row");
}

#[test]
fn a_check_must_have_passed_in_this_step_and_be_passing_at_its_end() {
    let mut run = begun(&checked(OnNoData::Hold));
    assert_eq!(looked(&mut run, &after(9 * MINUTE, 500, answers("smoke", [pass()]))), None, "not over yet");
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [no_data()]))), None);
    assert_eq!(verdict(&run), Verdict::TooFewSamples("check smoke: no sample".to_owned()));
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [pass()]))), Some(Move::Next));
    assert_eq!(run.phase, Phase::Stepping { step: 1 });
    assert_eq!(looked(&mut run, &after(10 * MINUTE, 500, Vec::new())), None);
    let expected = "check smoke has not answered in this step";
    assert_eq!(verdict(&run), Verdict::TooFewSamples(expected.to_owned()), "what it said in the step before doesn't count");
}

#[test]
fn answers_to_checks_that_the_plan_does_not_have_are_not_kept() {
    let mut run = begun(&checked(OnNoData::Hold));
    assert_eq!(looked(&mut run, &after(MINUTE, 500, answers("other", [bad(), bad(), bad()]))), None);
    assert!(run.progress.checks.is_empty());
}

#[test]
fn a_gate_opens_by_a_check_that_passes_now_and_has_done_so_since_the_wait_began() {
    let gate = Some(Gate::Check("smoke".to_owned()));
    let plan = Plan { steps: vec![step(None, 10, 10, None), step(None, 20, 10, gate)], ..checked(OnNoData::Hold) };
    let mut run = begun(&plan);
    assert_eq!(looked(&mut run, &after(10 * MINUTE, 500, answers("smoke", [pass()]))), Some(Move::Next));
    assert_eq!(run.phase, Phase::Gate { step: 1 });
    assert_eq!(looked(&mut run, &after(MINUTE, 0, Vec::new())), None, "that was before the gate");
    run = ask(&run, Verb::Pause, "alice", AT).expect("paused");
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [pass(), no_data()]))), None);
    run = ask(&run, Verb::Resume, "alice", AT).expect("resumed");
    assert_eq!(looked(&mut run, &after(MINUTE, 0, Vec::new())), None, "nobody knows now");
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [pass()]))), Some(Move::Open));
    assert_eq!(run.phase, Phase::Stepping { step: 1 });
}

#[test]
fn a_step_that_is_left_without_a_verdict_is_not_said_to_have_passed() {
    let mut run = begun(&checked(OnNoData::Proceed));
    assert_eq!(looked(&mut run, &after(10 * MINUTE, 500, Vec::new())), None);
    assert_eq!(looked(&mut run, &after(5 * MINUTE - Duration::from_nanos(1), 0, Vec::new())), None, "not waited for long enough");
    assert_eq!(looked(&mut run, &after(Duration::from_nanos(1), 0, Vec::new())), Some(Move::Next));
    assert_eq!(
        said(&run),
        [
            "started with 2 steps, by eve",
            "step 1 of 2: 10% for 10m",
            "step 1 of 2 was left without a verdict: check smoke has not answered in this step",
            "step 2 of 2: 20% for 10m"
        ]
    );
}

#[test]
fn no_data_is_waited_for_as_long_as_a_check_is_bad() {
    let mut run = begun(&checked(OnNoData::Proceed));
    assert_eq!(looked(&mut run, &after(60 * MINUTE, 500, answers("smoke", [bad()]))), None);
    let expected = "check smoke fails: 0.2 is above 0.01 (1 of 2 in a row)";
    assert_eq!(verdict(&run), Verdict::TooFewSamples(expected.to_owned()));
    // What was bad isn't better for no news.
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [no_data()]))), None);
    assert_eq!(looked(&mut run, &after(MINUTE, 0, answers("smoke", [pass()]))), Some(Move::Next));
}

#[test]
fn a_cohort_that_gets_nothing_need_not_have_had_connections() {
    for (weight, stable, canary, expected) in [
        (0, 500, 0, Verdict::Healthy),
        (0, 499, 0, Verdict::TooFewSamples("499 of 500 connections on stable".to_owned())),
        (100, 0, 500, Verdict::Healthy),
        (100, 0, 499, Verdict::TooFewSamples("499 of 500 connections on canary".to_owned())),
        (50, 500, 499, Verdict::TooFewSamples("499 of 500 connections on canary".to_owned())),
        (50, 500, 500, Verdict::Healthy),
    ] {
        let plan = Plan { min_connections: 500, ..plain(vec![step(None, weight, 10, None)]) };
        let mut run = begun(&plan);
        let seen = Cohorts { stable: connections(stable).stable, canary: connections(canary).canary };
        assert_eq!(look(&mut run, &Look { elapsed: MINUTE, seen, answers: Vec::new() }), None);
        assert_eq!(verdict(&run), expected, "at {weight}%");
    }
}

#[test]
fn with_everything_on_canary_a_stable_cohort_that_failed_before_holds_nothing_up() {
    for (weight, held) in [(99, true), (100, false)] {
        let plan = Plan { compare: Some(compare()), ..plain(vec![step(None, weight, 10, None)]) };
        let mut run = begun(&plan);
        let due = looked(&mut run, &Look { elapsed: 10 * MINUTE, seen: stable_fails(), answers: Vec::new() });
        assert_eq!(due.is_none(), held, "at {weight}%: {due:?}");
        assert_eq!(matches!(verdict(&run), Verdict::StableFailing(_)), held, "at {weight}%");
    }
}

#[test]
fn a_canary_proven_worse_pauses_once_and_is_judged_anew_by_whoever_goes_on() {
    let plan = Plan { on_breach: OnBreach::Pause, compare: Some(compare()), ..plain(vec![step(None, 10, 10, None)]) };
    let worse = Look { elapsed: MINUTE, seen: worse(), answers: Vec::new() };
    for verb in [Verb::Resume, Verb::Promote { full: true }] {
        let mut run = begun(&plan);
        assert!(matches!(looked(&mut run, &worse), Some(Move::Pause(Stop::Worse { .. }))), "{:?}", run.phase);
        assert_eq!(looked(&mut run, &worse), None);
        assert_eq!(serde_json::from_slice::<Run>(&serde_json::to_vec(&run).expect("JSON")).expect("read"), run);
        run = ask(&run, verb, "alice", AT).expect("goes on");
        assert_eq!(looked(&mut run, &after(MINUTE, 0, Vec::new())), None, "what was found is forgotten");
        assert!(matches!(looked(&mut run, &worse), Some(Move::Pause(Stop::Worse { .. }))), "and may be found again");
    }
}

#[test]
fn at_the_gate_of_the_first_step_the_canary_gets_nothing_yet() {
    let mut run = begun(&plain(vec![step(Some(10), 50, 10, Some(Gate::Manual))]));
    assert_eq!((run.phase.clone(), weight_of(&run)), (Phase::Gate { step: 0 }, Some(Weight::ZERO)));
    assert_eq!(looked(&mut run, &after(60 * MINUTE, 0, Vec::new())), None);
    run = ask(&run, Verb::Approve, "alice", AT).expect("opened");
    assert_eq!(weight_of(&run), Some(percent(10)), "its ramp begins with the step, not with the wait");
}

#[test]
fn time_passes_in_a_step_only_while_it_is_gone_on_with() {
    let mut run = begun(&plain(vec![step(Some(10), 50, 10, None)]));
    assert_eq!(looked(&mut run, &after(5 * MINUTE, 0, Vec::new())), None);
    assert_eq!(weight_of(&run), Some(percent(30)));
    run = ask(&run, Verb::Pause, "alice", AT).expect("paused");
    assert_eq!(looked(&mut run, &after(60 * MINUTE, 0, Vec::new())), None);
    assert_eq!(weight_of(&run), Some(percent(30)), "a ramp stays where it was paused");
    run = ask(&run, Verb::Resume, "alice", AT).expect("resumed");
    assert_eq!((run.progress.in_step, run.progress.age), (5 * MINUTE, 65 * MINUTE));
    assert_eq!(looked(&mut run, &after(5 * MINUTE, 0, Vec::new())), Some(Move::Next));
    assert_eq!((run.phase.clone(), weight_of(&run)), (Phase::Promoting { step: 0, at_gate: false }, Some(percent(50))));
}

#[test]
fn who_leaves_the_last_step_early_is_named_as_the_one_who_promotes() {
    let mut run = begun(&plain(vec![step(None, 100, 10, None)]));
    run = ask(&run, Verb::Promote { full: false }, "alice", AT).expect("left");
    let expected = ["step 1 of 1: 100% for 10m", "step 1 of 1 was left early, by alice", "is being promoted, by alice"];
    assert_eq!(said(&run)[1..], expected);
}

#[test]
fn the_log_forgets_the_middle_and_never_how_it_began() {
    let mut run = begun(&plain(vec![step(None, 10, 10, None)]));
    for _ in 0..Run::LOG {
        run = ask(&run, Verb::Pause, "alice", AT).expect("paused");
        run = ask(&run, Verb::Resume, "bob", AT).expect("resumed");
    }
    assert_eq!(run.log.len(), Run::LOG);
    assert_eq!((said(&run)[0].as_str(), said(&run)[Run::LOG - 1].as_str()), ("started with 1 step, by eve", "goes on, by bob"));
}

/// Two steps, 500 connections and a check that is bad when it's bad twice.
fn checked(on_no_data: OnNoData) -> Plan {
    let steps = vec![step(None, 10, 10, None), step(None, 20, 10, None)];
    Plan { min_connections: 500, on_no_data, checks: vec![check("smoke", 2)], ..plain(steps) }
}

fn paused_by_breaches() -> Plan {
    Plan { on_breach: OnBreach::Pause, ..checked(OnNoData::Hold) }
}

fn begun(plan: &Plan) -> Run {
    start(1, plan, "eve", AT)
}

fn after(elapsed: Duration, each: u64, answers: Vec<(String, Answer)>) -> Look {
    Look { elapsed, seen: connections(each), answers }
}

fn said(run: &Run) -> Vec<String> {
    run.log.iter().map(|entry| entry.what.to_string()).collect()
}
