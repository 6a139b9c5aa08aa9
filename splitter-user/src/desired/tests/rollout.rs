//! A rollout's way through the state: what it does to weight, flip and backends, and what is refused meanwhile.

use std::time::Duration;

use super::*;
use crate::{
    controller::rollout::{Move, Verb, is_active, weight_of},
    model::{Gate, OnBreach, OnDeadline, OnNoData, Plan, Step},
    store::{Abort, Moved, Phase, Run, Stop},
};

const PROMOTE: Verb = Verb::Promote { full: true };

#[test]
fn a_rollout_decides_about_the_weight_until_it_is_over() {
    let config = planned("weight = \"5%\"");
    let state = set_weight(&config, &seeded(&config), &name(), percent("9%"), BY).expect("set");
    let state = start_rollout(&config, &state, &name(), BY).expect("started");
    let desired = only(&config, &state);
    assert_eq!((desired.weight_in_force, desired.weight_source), (percent("10%"), WeightSource::Rollout));
    assert_eq!(told(&state), ["rollout 1 started with 2 steps, by alice", "rollout 1 step 1 of 2: 10% for 10m"]);
    assert_eq!(
        set_weight(&config, &state, &name(), percent("3%"), BY).expect_err("it decides").to_string(),
        "rollout 1 of service \"checkout\" is not over: `splitter rollout status checkout` shows it, `splitter rollout abort checkout` ends it"
    );

    let other = planned("weight = \"6%\"");
    let state = reconcile(&other, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(only(&other, &state).weight_in_force, percent("10%"), "a configured weight changes nothing meanwhile");
    let state = asked(&other, &state, Verb::Abort);
    let desired = only(&other, &state);
    assert_eq!((desired.weight_in_force, desired.weight_source), (Weight::ZERO, WeightSource::Command), "nor comes it back");
    assert_eq!(reconcile(&other, &state, Timestamp::UNIX_EPOCH), state);
    let third = planned("weight = \"7%\"");
    assert_eq!(only(&third, &reconcile(&third, &state, Timestamp::UNIX_EPOCH)).weight_in_force, percent("7%"));

    let state = set_weight(&other, &state, &name(), percent("2%"), BY).expect("it's over");
    let late =
        [Move::Next, Move::Open, Move::Pause(bad()), Move::Flip(bad()), Move::Abort(Abort::Deadline { after: Duration::ZERO })];
    for due in late {
        assert_eq!(move_rollout(&other, &state, &name(), &due, BY).expect("nothing to do"), state, "{due:?}");
    }
}

#[test]
fn a_flip_by_anybody_is_the_rollouts_and_ends_with_what_is_decided_about_it() {
    let config = planned("weight = \"5%\"");
    let started = begun(&config);
    let person = FlipReason::Person { text: Some("pager".to_owned()) };
    let by_person = flip(&config, &started, &name(), person, Existing::Keep, BY).expect("flipped");
    let by_itself = move_rollout(&config, &started, &name(), &Move::Flip(bad()), BY).expect("flipped");
    for (flipped, reason, existing) in
        [(&by_person, "pager", Existing::Keep), (&by_itself, "check smoke: 0.2 is above 0.01", Existing::Reset)]
    {
        let desired = only(&config, flipped);
        let flip = desired.flip.expect("flipped");
        assert_eq!((flip.reason.to_string().as_str(), flip.existing), (reason, existing));
        assert_eq!(desired.weight_in_force, Weight::ZERO);
        assert!(matches!(&run(flipped).phase, Phase::Flipped { step: 0, reason } if **reason == flip.reason));
        assert_eq!(told(flipped)[2..], [format!("rollout 1 flipped to stable: {reason}")]);

        let decide = "rollout 1 of service \"checkout\" was flipped: `splitter rollout retry checkout` begins again with the first step, \
                      `splitter rollout abort checkout` gives it up";
        for refused in [
            unflip(&config, flipped, &name(), BY),
            set_weight(&config, flipped, &name(), percent("1%"), BY),
            start_rollout(&config, flipped, &name(), BY),
        ] {
            assert_eq!(refused.expect_err("to be decided about").to_string(), decide);
        }

        let aborted = asked(&config, flipped, Verb::Abort);
        let desired = only(&config, &aborted);
        assert_eq!((desired.flip, desired.weight_in_force), (None, Weight::ZERO));
        let events: Vec<String> = aborted.events_after(flipped.last_event()).map(ToString::to_string).collect();
        assert_eq!(events, ["checkout: unflipped, the canary gets 0% again, by alice", "checkout: rollout 1 aborted: by alice"]);

        let again = retry_rollout(&config, flipped, &name(), BY).expect("begins again");
        let desired = only(&config, &again);
        assert_eq!((desired.flip, desired.weight_in_force, run(&again).id), (None, percent("10%"), 2));
        let events: Vec<String> = again.events_after(flipped.last_event()).map(ToString::to_string).collect();
        assert_eq!(
            events,
            [
                "checkout: unflipped, the canary gets 10% again, by alice",
                "checkout: rollout 2 started with 2 steps, by alice",
                "checkout: rollout 2 step 1 of 2: 10% for 10m"
            ]
        );
    }
    let reset = flip(&config, &by_person, &name(), FlipReason::Found, Existing::Reset, BY).expect("another fate");
    assert_eq!((run(&reset), told(&reset)), (run(&by_person), told(&by_person)), "the rollout was flipped once");
}

#[test]
fn each_refusal_of_a_rollout_says_why() {
    let plain = config("");
    let config = planned("");
    let fresh = seeded(&config);
    let no_canary = drain(&config, &fresh, &name(), address("10.0.1.9:80"), BY).expect("draining");
    let flipped = flip(&config, &fresh, &name(), FlipReason::Found, Existing::Keep, BY).expect("flipped");
    let running = begun(&config);
    let aborted = asked(&config, &running, Verb::Abort);
    let aborted_and_flipped = flip(&config, &aborted, &name(), FlipReason::Found, Existing::Keep, BY).expect("flipped");
    let promoting = asked(&config, &running, PROMOTE);
    let promoted = promote_rollout(&config, &promoting, &name(), BY).expect("promoted");
    let drained = drain(&config, &promoting, &name(), address("10.0.1.9:80"), BY).expect("draining");
    let ask = |state: &State, verb| ask_rollout(&config, state, &name(), verb, BY);
    let unflip_first = "service \"checkout\" is flipped, since 1970-01-01T00:00:00Z, by alice: the data plane was found flipped, and the reason was \
                        not kept; `splitter unflip checkout` first, when that is settled";
    let other: ServiceName = "chekout".parse().expect("a name");
    for (refused, expected) in [
        (start_rollout(&config, &fresh, &other, BY), "no service is named \"chekout\", did you mean \"checkout\"?"),
        (
            start_rollout(&plain, &fresh, &name(), BY),
            "service \"checkout\" has no plan: write [service.rollout] into the configuration, see docs/rollouts.md",
        ),
        (
            start_rollout(&config, &no_canary, &name(), BY),
            "service \"checkout\" has no canary backend that takes connections: add one, or undrain one",
        ),
        (start_rollout(&config, &flipped, &name(), BY), unflip_first),
        (
            start_rollout(&config, &running, &name(), BY),
            "rollout 1 of service \"checkout\" is not over: `splitter rollout status checkout` shows it, `splitter rollout abort checkout` ends it",
        ),
        (
            retry_rollout(&config, &fresh, &name(), BY),
            "service \"checkout\" has no rollout: `splitter rollout start checkout` begins one",
        ),
        (
            retry_rollout(&config, &running, &name(), BY),
            "rollout 1 of service \"checkout\": it's still going on: `splitter rollout abort` first",
        ),
        (
            retry_rollout(&config, &promoted, &name(), BY),
            "rollout 1 of service \"checkout\": it ended well: it was promoted: `splitter rollout start` begins another one",
        ),
        (retry_rollout(&config, &aborted_and_flipped, &name(), BY), unflip_first),
        (ask(&fresh, Verb::Pause), "service \"checkout\" has no rollout: `splitter rollout start checkout` begins one"),
        (
            ask(&running, Verb::Approve),
            "rollout 1 of service \"checkout\": it isn't at a gate: `splitter rollout promote` leaves a step early",
        ),
        (ask(&promoted, PROMOTE), "rollout 1 of service \"checkout\": it's over: `splitter rollout start` begins another one"),
        (
            promote_rollout(&config, &fresh, &name(), BY),
            "service \"checkout\" has no rollout: `splitter rollout start checkout` begins one",
        ),
        (
            promote_rollout(&config, &drained, &name(), BY),
            "service \"checkout\": every stable backend is draining: keep at least one that takes new connections",
        ),
        (unflip(&config, &running, &name(), BY), "service \"checkout\" is not flipped"),
    ] {
        assert_eq!(refused.expect_err(expected).to_string(), expected);
    }
    assert_eq!(promote_rollout(&config, &running, &name(), BY).expect("nothing to do"), running, "it isn't being promoted");
    let back = undrain(&config, &drained, &name(), address("10.0.1.9:80"), BY).expect("back");
    assert_eq!(run(&promote_rollout(&config, &back, &name(), BY).expect("promoted now")).phase, Phase::Promoted);
}

#[test]
fn a_promotion_makes_every_canary_backend_stable_at_once_and_the_next_release_goes_the_other_way() {
    let config = planned("weight = \"5%\"");
    let (one, two, three, own, added) =
        (address("10.0.1.1:80"), address("10.0.1.2:80"), address("10.0.1.3:80"), address("10.0.1.9:80"), address("10.0.1.8:80"));
    let weight = BackendWeight::try_from(3).expect("in range");
    let state = add_backend(&config, &seeded(&config), &name(), added, Cohort::Canary, BackendWeight::ONE, BY).expect("added");
    let state = add_backend(&config, &state, &name(), three, Cohort::Stable, BackendWeight::ONE, BY).expect("added");
    let state = remove_backend(&config, &state, &name(), two, BY).expect("removed");
    let state = set_backend_weight(&config, &state, &name(), own, weight, BY).expect("weighted");
    let before = start_rollout(&config, &state, &name(), BY).expect("started");
    let promoted = promote_rollout(&config, &asked(&config, &before, PROMOTE), &name(), BY).expect("promoted");

    let stable = |address, weight| (address, (Cohort::Stable, weight, false));
    let canary = |address, draining| (address, (Cohort::Canary, BackendWeight::ONE, draining));
    let expected = [canary(one, true), canary(three, true), stable(own, weight), stable(added, BackendWeight::ONE)];
    assert_eq!(backends(&config, &promoted), BTreeMap::from(expected));
    assert_eq!(only(&config, &promoted).weight_in_force, Weight::ZERO);
    assert_eq!(
        told(&promoted)[2..],
        ["rollout 1 is being promoted, by alice", "rollout 1 promoted: the canary's backends are stable"]
    );
    assert_eq!(reconcile(&config, &promoted, Timestamp::UNIX_EPOCH), promoted);

    let back = undrain(&config, &promoted, &name(), one, BY).expect("by hand");
    assert_eq!(backends(&config, &back)[&one], canary(one, false).1);
    let by_hand = drain(&config, &back, &name(), one, BY).expect("by hand");

    let second = start_rollout(&config, &promoted, &name(), BY).expect("started");
    let expected = [canary(one, false), canary(three, false), stable(own, weight), stable(added, BackendWeight::ONE)];
    assert_eq!(backends(&config, &second), BTreeMap::from(expected), "what was taken out of use is back");
    let one_less = start_rollout(&config, &by_hand, &name(), BY).expect("started");
    assert_eq!(backends(&config, &one_less)[&one], canary(one, true).1, "but not what somebody drained");
    let second = promote_rollout(&config, &asked(&config, &second, PROMOTE), &name(), BY).expect("promoted");
    let third = start_rollout(&config, &second, &name(), BY).expect("started");
    assert_eq!(backends(&config, &third), backends(&config, &before), "as it was");
    assert_eq!((run(&third).id, third.rollouts), (3, 3));
    assert!(third.services[&name()].backends.promoted.is_empty(), "and as it's configured");
}

#[test]
fn a_backend_that_was_added_to_the_other_cohort_is_the_configurations_again_when_a_promotion_puts_it_there() {
    let config = planned("");
    let (stable, three) = (address("10.0.1.1:80"), BackendWeight::try_from(3).expect("in range"));
    let removed = remove_backend(&config, &promoted(&config), &name(), stable, BY).expect("removed");
    let added = add_backend(&config, &removed, &name(), stable, Cohort::Canary, three, BY).expect("added");
    let started = start_rollout(&config, &added, &name(), BY).expect("started");
    let back = promote_rollout(&config, &asked(&config, &started, PROMOTE), &name(), BY).expect("promoted");
    assert_eq!(backends(&config, &back)[&stable], (Cohort::Stable, three, false));
    let overlay = &back.services[&name()].backends;
    assert!(overlay.added.is_empty() && overlay.removed.is_empty(), "{overlay:?}");
    assert_eq!(reconcile(&config, &back, Timestamp::UNIX_EPOCH), back, "there is nothing to reconcile");
}

#[test]
fn a_configuration_that_catches_up_with_a_promotion_replaces_it() {
    let config = planned("");
    let state = promoted(&config);
    let mut after = config.clone();
    for backend in &mut after.services[0].backends {
        backend.cohort = if backend.cohort == Cohort::Stable { Cohort::Canary } else { Cohort::Stable };
    }
    let caught_up = reconcile(&after, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(backends(&after, &caught_up), backends(&config, &state));
    assert!(caught_up.services[&name()].backends.promoted.is_empty());
    assert_eq!(
        last(&caught_up),
        "checkout: dropped: the promotion of backend 10.0.1.9:80 to stable, asked by command (the configuration changed its cohort, or no longer lists it)"
    );
}

#[test]
fn a_configuration_without_the_promoted_backends_takes_the_promotion_back_and_nothing_else() {
    let config = planned("");
    let kept = address("10.0.1.5:80");
    let state = add_backend(&config, &promoted(&config), &name(), kept, Cohort::Canary, BackendWeight::ONE, BY).expect("added");
    let state = drain(&config, &state, &name(), kept, BY).expect("drained");
    let mut after = config.clone();
    after.services[0].backends.retain(|backend| backend.cohort == Cohort::Stable);
    let fitting = reconcile(&after, &state, Timestamp::UNIX_EPOCH);
    let stable = (Cohort::Stable, BackendWeight::ONE, false);
    let expected =
        [(address("10.0.1.1:80"), stable), (address("10.0.1.2:80"), stable), (kept, (Cohort::Canary, BackendWeight::ONE, true))];
    assert_eq!(backends(&after, &fitting), BTreeMap::from(expected));
}

#[test]
fn a_service_that_comes_back_is_as_its_rollout_left_it() {
    let config = planned("weight = \"5%\"");
    let none = Config::parse("[agent]\ninterfaces = [\"eth0\"]\n", "x").expect("valid");
    let by_command = |state| add_backend(&config, state, &name(), address("10.0.1.8:80"), Cohort::Canary, BackendWeight::ONE, BY);
    let running = start_rollout(&config, &by_command(&seeded(&config)).expect("added"), &name(), BY).expect("started");
    let flipped = flip(&config, &running, &name(), FlipReason::Found, Existing::Keep, BY).expect("flipped");
    let aborted = asked(&config, &running, Verb::Abort);
    let promoted = promote_rollout(&config, &asked(&config, &running, PROMOTE), &name(), BY).expect("promoted");
    for state in [running, flipped, aborted, promoted] {
        let gone = reconcile(&none, &state, Timestamp::UNIX_EPOCH);
        let back = reconcile(&config, &gone, Timestamp::UNIX_EPOCH);
        assert_eq!(only(&config, &back), only(&config, &state), "{:?}", run(&state).phase);
        assert_eq!(run(&back), run(&state));
    }
}

#[test]
fn a_state_from_before_there_were_rollouts_is_read() {
    let old = r#"{"version": 1, "services": {"checkout": {
        "seed": "00000000000000010000000000000002", "weight": {"weight": "9%", "configured": "0%"}, "flip": null,
        "backends": {"added": {}, "removed": [], "weights": {}, "draining": ["10.0.1.2:80"]}, "networks": {"added": {}, "removed": []}
    }}, "adoptions": 3, "next_event": 8, "events": []}"#;
    let state = decode(old.as_bytes()).expect("read");
    let config = planned("");
    assert_eq!(only(&config, &state).weight_in_force, percent("9%"));
    assert_eq!((state.rollouts, &state.services[&name()].rollout), (0, &None));
    assert_eq!(run(&start_rollout(&config, &state, &name(), BY).expect("started")).id, 1);
}

#[test]
fn what_is_kept_of_a_rollout_does_not_grow_without_end() {
    let config = planned("");
    let mut state = begun(&config);
    let mut sizes = Vec::new();
    for round in 0..2 * crate::store::MAX_EVENTS {
        let why = Stop::Check { name: "smoke".to_owned(), said: "x".repeat(crate::store::Answer::LONGEST) };
        state = move_rollout(&config, &state, &name(), &Move::Pause(why), BY).expect("paused");
        state = asked(&config, &state, Verb::Resume);
        if round % 500 == 499 {
            sizes.push(encode(&state).expect("encoded").len());
        }
    }
    assert_eq!(run(&state).log.len(), Run::LOG);
    assert!(sizes[3] < 1_000_000 && sizes[3] - sizes[1] < 10_000, "{sizes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rollouts_and_commands_leave_a_state_that_fits_and_tells_what_happened(
        start in configuration().prop_map(with_plan), asks in prop::collection::vec(asking(), 0..60),
    ) {
        let mut state = seeded(&start);
        for ask in asks {
            let Ok(next) = ask.of(&start, &state) else { continue };
            let desired = services(&start, &next);
            prop_assert!(desired.is_ok(), "{ask:?}: {desired:?}");
            prop_assert_eq!(&reconcile(&start, &next, Timestamp::UNIX_EPOCH), &next, "{:?}: there was nothing to reconcile", ask);
            tells(&state, &next)?;
            decides(&only(&start, &next), &next)?;
            state = next;
        }
        prop_assert_eq!(decode(&encode(&state).expect("encoded")).expect("decoded"), state);
    }

    #[test]
    fn any_state_with_rollouts_fits_any_configuration_once_it_is_reconciled(
        start in configuration().prop_map(with_plan), asks in prop::collection::vec(asking(), 0..60), other in configuration(),
        planned in any::<bool>(), away in any::<bool>(),
    ) {
        let mut state = asks.iter().fold(seeded(&start), |state, ask| ask.of(&start, &state).unwrap_or(state));
        let before = state.services[&name()].clone();
        if away {
            let none = Config::parse("[agent]\ninterfaces = [\"eth0\"]\n", "x").expect("valid");
            state = reconcile(&none, &state, Timestamp::UNIX_EPOCH);
        }
        let other = if planned { with_plan(other) } else { other };
        let fitting = reconcile(&other, &state, Timestamp::UNIX_EPOCH);
        let desired = services(&other, &give_seeds(&other, &fitting, || Seed([1, 2])));
        prop_assert!(desired.is_ok(), "{desired:?}");
        prop_assert_eq!(&reconcile(&other, &fitting, Timestamp::UNIX_EPOCH), &fitting, "once is enough");
        let after = &fitting.services[&name()];
        prop_assert_eq!((&after.flip, &after.rollout), (&before.flip, &before.rollout), "neither is ever dropped");
        decides(&only(&other, &fitting), &fitting)?;
        for asked in fitting.services.values() {
            prop_assert!(asked.backends.retired.is_subset(&asked.backends.draining));
        }
    }
}

/// Each new entry of a rollout's log is an event, in order, and nothing else is.
fn tells(before: &State, after: &State) -> Result<(), TestCaseError> {
    let log = |state: &State| state.services.get(&name()).and_then(|asked| asked.rollout.clone()).map(|run| (run.id, run.log));
    let (id, log, known) = match (log(before), log(after)) {
        (_, None) => return Ok(()),
        (Some((before, known)), Some((id, log))) if before == id => (id, log, known.len()),
        (_, Some((id, log))) => (id, log, 0),
    };
    let told: Vec<(u64, Moved)> = after
        .events_after(before.last_event())
        .filter_map(|event| {
            let EventKind::Rollout { rollout, what } = &event.kind else { return None };
            Some((*rollout, what.clone()))
        })
        .collect();
    let new: Vec<(u64, Moved)> = log.into_iter().skip(known).map(|entry| (id, entry.what)).collect();
    prop_assert_eq!(told, new);
    Ok(())
}

/// Who decides about the weight.
fn decides(desired: &Desired, state: &State) -> Result<(), TestCaseError> {
    let Some(run) = state.services.get(&name()).and_then(|asked| asked.rollout.as_deref()) else { return Ok(()) };
    if desired.flip.is_some() {
        prop_assert_eq!(desired.weight_in_force, Weight::ZERO);
        prop_assert!(!is_active(&run.phase), "flipped, and the rollout goes on: {:?}", run.phase);
    }
    prop_assert!(!matches!(run.phase, Phase::Flipped { .. }) || desired.flip.is_some(), "its flip is gone");
    if let Some(weight) = weight_of(run) {
        prop_assert_eq!((desired.weight_in_force, desired.weight_source), (weight, WeightSource::Rollout));
    }
    Ok(())
}

/// What is asked of the service, or of its rollout.
#[derive(Clone, Debug)]
enum Asking {
    Op(Op),
    Start,
    Retry,
    Verb(Verb),
    Move(Move),
    Promote,
}

impl Asking {
    fn of(&self, config: &Config, state: &State) -> Result<State, Refusal> {
        match self {
            Self::Op(op) => op.ask(config, state),
            Self::Start => start_rollout(config, state, &name(), BY),
            Self::Retry => retry_rollout(config, state, &name(), BY),
            Self::Verb(verb) => ask_rollout(config, state, &name(), *verb, BY),
            Self::Move(due) => move_rollout(config, state, &name(), due, BY),
            Self::Promote => promote_rollout(config, state, &name(), BY),
        }
    }
}

fn asking() -> impl Strategy<Value = Asking> {
    let verb = vec![Verb::Pause, Verb::Resume, Verb::Approve, Verb::Promote { full: false }, PROMOTE, PROMOTE, Verb::Abort];
    let due = vec![
        Move::Next,
        Move::Open,
        Move::Flip(bad()),
        Move::Pause(bad()),
        Move::Abort(Abort::Deadline { after: Duration::from_secs(1) }),
    ];
    prop_oneof![
        4 => op().prop_map(Asking::Op),
        2 => Just(Asking::Start),
        1 => Just(Asking::Retry),
        3 => prop::sample::select(verb).prop_map(Asking::Verb),
        1 => prop::sample::select(due).prop_map(Asking::Move),
        2 => Just(Asking::Promote),
    ]
}

fn bad() -> Stop {
    Stop::Check { name: "smoke".to_owned(), said: "0.2 is above 0.01".to_owned() }
}

fn planned(more: &str) -> Config {
    with_plan(config(more))
}

/// 10%, and 50% behind a gate.
fn with_plan(mut config: Config) -> Config {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let step = |weight, gate| Step { from: None, weight: percent(weight), lasts: minutes(10), gate };
    config.services[0].rollout = Some(Plan {
        steps: vec![step("10%", None), step("50%", Some(Gate::Manual))],
        min_connections: 500,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: minutes(10),
        deadline: minutes(600),
        on_deadline: OnDeadline::Abort,
        compare: None,
        checks: Vec::new(),
    });
    config
}

fn begun(config: &Config) -> State {
    start_rollout(config, &seeded(config), &name(), BY).expect("started")
}

fn promoted(config: &Config) -> State {
    promote_rollout(config, &asked(config, &begun(config), PROMOTE), &name(), BY).expect("promoted")
}

fn asked(config: &Config, state: &State, verb: Verb) -> State {
    ask_rollout(config, state, &name(), verb, BY).expect("as asked")
}

fn run(state: &State) -> &Run {
    state.service(&name()).and_then(|asked| asked.rollout.as_deref()).expect("a rollout")
}

fn backends(config: &Config, state: &State) -> BTreeMap<SocketAddr, (Cohort, BackendWeight, bool)> {
    Model::of_service(&only(config, state)).backends
}

/// The events that are the rollout's.
fn told(state: &State) -> Vec<String> {
    let of = |event: &crate::store::Event| matches!(event.kind, EventKind::Rollout { .. }).then(|| event.kind.to_string());
    state.events().filter_map(of).collect()
}
