//! A canary that breaks loses everything new by the packet that shows it, whatever the agent does; what the agent makes of it is in `net_breaker_agent`.

use std::time::Duration;

use splitter_tests::faults::{
    Agent, Kind, Plan, Run,
    report::{self, judge},
};

const AGENTS: [Agent; 3] = [Agent::Running, Agent::Stopped, Agent::Killed];

#[test]
fn a_canary_that_refuses_gets_nothing_new_after_the_trip() {
    trips(Kind::Refuse, &["refused"]);
}

#[test]
fn a_canary_whose_packets_vanish_gets_nothing_new_after_the_trip() {
    trips(Kind::Blackhole, &["timeout", "retransmit"]);
}

#[test]
fn a_canary_that_accepts_too_slowly_gets_nothing_new_after_the_trip() {
    for run in trips(Kind::Slow, &["timeout"]) {
        assert!(run.failed == 0 && run.held_up > 0, "nobody was turned away, only held up: {run:?}");
    }
}

#[test]
fn a_canary_that_resets_what_it_accepted_gets_nothing_new_after_the_trip() {
    trips(Kind::Reset, &["reset"]);
}

#[test]
fn a_canary_whose_process_was_killed_gets_nothing_new_after_the_trip() {
    trips(Kind::Killed, &["refused", "reset"]);
}

#[test]
fn a_canary_that_cannot_be_reached_gets_nothing_new_after_the_trip() {
    trips(Kind::Unreachable, &["refused"]);
}

#[test]
fn half_of_the_canarys_backends_broken_is_above_a_limit_of_a_twentieth() {
    trips(Kind::Half, &["refused"]);
}

#[test]
fn half_of_the_canarys_backends_broken_is_below_a_limit_of_four_fifths() {
    let plan = Plan {
        limit: "80%",
        // Of 50 attempts 41 are hardly ever those of one of two backends.
        min_attempts: 50,
        weight: "20%",
        patience: Duration::from_secs(2),
        ..quiet(Kind::Half, Agent::Running)
    };
    let run = Run::play(&plan).expect("played");
    // About 60; fewer than 25 once in a million times.
    assert!(run.flip.is_none() && run.failed >= 25, "{run:?}");
}

#[test]
fn stable_and_canary_broken_alike_trip_no_breaker_that_compares_them() {
    for agent in [Agent::Running, Agent::Killed] {
        let plan = quiet(Kind::Both, agent);
        let run = Run::play(&plan).expect("played");
        assert_eq!(judge(&plan, &run), Vec::<String>::new(), "{run:?}");
        assert!(run.failed > 100, "they were broken: {run:?}");
        // The same without a comparison: it's that which made the difference.
        let run = Run::play(&Plan { worse_than_stable: None, ..plan }).expect("played");
        assert_eq!(run.cause, Some("refused"), "{run:?}");
    }
}

#[test]
fn no_more_clients_see_a_failure_than_the_least_attempts_and_those_under_way() {
    for agent in AGENTS {
        let plan = Plan::new(Kind::Refuse, agent);
        assert_eq!((plan.rate, plan.weight, plan.limit, plan.min_attempts), (1_000.0, "5%", "5%", 20));
        let run = Run::play(&plan).expect("played");
        assert_eq!(judge(&plan, &run), Vec::<String>::new(), "{run:?}");
        assert!(run.failed - run.failed_under_way <= 20, "{run:?}");
        println!("{}", report::summary(&plan, &run).iter().map(|line| line.plain() + "\n").collect::<String>());
    }
}

#[test]
fn after_a_past_without_failures_the_first_that_is_above_the_limit_trips() {
    let plan = Plan { past: Duration::from_secs(3), ..Plan::new(Kind::Refuse, Agent::Killed) };
    let run = Run::play(&plan).expect("played");
    let (failures, samples) = (run.failures_at_trip.expect("tripped"), run.samples_at_trip.expect("tripped"));
    assert!(samples > 2 * 20, "its window had a past: {run:?}");
    assert!(failures * 20 > samples && (failures - 1) * 20 <= samples, "not sooner and not later: {run:?}");
    assert!(run.failed - run.failed_under_way <= u64::from(failures), "{run:?}");
    assert_eq!(run.canary_connections_after_trip, 0, "{run:?}");
}

/// With each agent: it trips for one of these reasons, and holds what it must.
fn trips(kind: Kind, causes: &[&str]) -> Vec<Run> {
    let play = |agent: Agent| {
        let plan = quiet(kind, agent);
        let run = Run::play(&plan).expect("played");
        assert_eq!(judge(&plan, &run), Vec::<String>::new(), "{agent:?}: {run:?}");
        assert!(run.cause.is_some_and(|cause| causes.contains(&cause)), "{agent:?}: {run:?}");
        run
    };
    AGENTS.map(play).to_vec()
}

/// With a load that leaves a machine air for other tests: as many connections for the canary, fewer for stable.
fn quiet(kind: Kind, agent: Agent) -> Plan {
    Plan { rate: 300.0, weight: "20%", ..Plan::new(kind, agent) }
}
