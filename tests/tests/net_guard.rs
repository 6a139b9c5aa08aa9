//! Breaker and lease, with the real agent stopped, killed and started again.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use splitter_tests::{
    lab::Topology,
    node::{Family, Site},
    workload::http,
};
use splitter_user::{
    api::wire::{Event, FlipCause},
    model::{Existing, Mode},
    store::{EventKind, FlipReason, TripCause},
};

#[test]
fn a_breaker_trips_while_the_agent_is_stopped_and_the_agent_does_the_rest_when_it_goes_on() {
    let breaker = "[service.breaker]\nrefused = \"5%\"\nexisting = \"keep\"";
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(breaker).start().expect("a site");
    site.node.signal(Signal::SIGSTOP).expect("stopped");
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let summary = site.web_load(Family::V4, 500).expect("a load").summary();
    assert!((1..=60).contains(&summary.refused), "it needs 20 attempts, and some were under way: {summary:?}");
    site.server("canary1").set_web(http::Mode::Serve).expect("it serves");
    let summary = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(summary.answered_by("stable"), 200, "{summary:?}");

    site.node.signal(Signal::SIGCONT).expect("it goes on");
    site.node.wait_until("a flip", |status| status.services.iter().any(|service| service.flip.is_some())).expect("flipped");
    let flip = site.node.service("web4").expect("a status").flip.expect("flipped");
    assert_eq!((flip.cause, flip.existing, flip.by.as_str()), (FlipCause::Breaker, Existing::Keep, "the agent"));
    assert!(site.node.service("web6").expect("a status").flip.is_none(), "the other service is untouched");
    let events = site.node.events().expect("told");
    let finding = |event: &Event| {
        if let EventKind::Flipped { reason: FlipReason::Breaker { finding }, .. } = &event.kind { Some(*finding) } else { None }
    };
    let findings = events.iter().filter_map(finding);
    let [finding] = findings.collect::<Vec<_>>()[..] else { panic!("one trip: {events:?}") };
    assert_eq!(finding.cause, TripCause::Refused);
    let (canary, stable) = (finding.canary.of(finding.cause), finding.stable.of(finding.cause));
    assert!(canary.attempts >= 20 && canary.failures * 20 > canary.attempts && stable.failures == 0, "{finding:?}");

    // Neither a restart nor a weight arms it.
    site.node.kill_and_restart().expect("it takes over");
    site.node.run(&["weight", "web4", "100%"]).expect("set");
    let status = site.node.service("web4").expect("a status");
    assert!(status.flip.is_some() && status.breaker.is_some_and(|breaker| breaker.tripped));
    assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("stable"), 100);
    site.node.run(&["unflip", "web4"]).expect("unflipped");
    assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("canary"), 100);
    let status = site.node.service("web4").expect("a status");
    assert!(status.flip.is_none() && status.breaker.is_some_and(|breaker| !breaker.tripped));
}

#[test]
fn an_agent_that_samples_seldom_hears_of_a_trip_at_once() {
    let breaker = "[service.breaker]\nrefused = \"5%\"";
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(breaker).prepare().expect("a site");
    start_with(&mut site, "sample_interval = \"10s\"\nlease = \"30s\"");
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    site.web_load(Family::V4, 200).expect("a load");
    let tripped = Instant::now();
    // The events alone: the status takes a sample of its own.
    let flipped = |event: &Event| matches!(event.kind, EventKind::Flipped { reason: FlipReason::Breaker { .. }, .. });
    while !site.node.events().expect("told").iter().any(flipped) {
        assert!(tripped.elapsed() < Duration::from_secs(1), "the next sample is too far away");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_stopped_agents_lease_runs_out_and_its_services_are_back_when_it_goes_on() {
    let mut site = leased("");
    site.node.signal(Signal::SIGSTOP).expect("stopped");
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(answered_by_canary(&site), 0);
    site.node.signal(Signal::SIGCONT).expect("it goes on");
    wait_for_lapse(&site);
    assert_eq!(answered_by_canary(&site), 100);
    assert!(site.node.service("web4").expect("a status").flip.is_none());
}

#[test]
fn a_killed_agents_services_stay_flipped_until_somebody_decides_if_that_is_configured() {
    let mut site = leased("resume = \"manual\"");
    site.node.kill();
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(answered_by_canary(&site), 0);
    site.node.start().expect("it takes over");
    wait_for_lapse(&site);
    assert_eq!(answered_by_canary(&site), 0);
    let flip = site.node.service("web4").expect("a status").flip.expect("flipped");
    assert_eq!((flip.cause, flip.existing), (FlipCause::Lease, Existing::Keep));
    site.node.run(&["unflip", "web4"]).expect("unflipped");
    assert_eq!(answered_by_canary(&site), 100);
}

#[test]
fn a_stop_in_order_and_a_reload_let_no_lease_run_out() {
    let mut site = leased("");
    site.node.run(&["reload"]).expect("reloaded");
    site.node.stop().expect("stopped");
    thread::sleep(Duration::from_millis(1_200));
    assert_eq!(answered_by_canary(&site), 100);
    site.node.start().expect("it takes over");
    assert_eq!(lapses(&site), 0);
}

/// A site whose canary gets everything, with a lease of 600 ms.
fn leased(agent: &str) -> Site {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("100%").prepare().expect("a site");
    start_with(&mut site, &format!("lease = \"600ms\"\n{agent}"));
    assert_eq!(answered_by_canary(&site), 100);
    site
}

/// Starts the agent with more in its section.
fn start_with(site: &mut Site, agent: &str) {
    let head = site.node.agent_section().replace("[agent]", &format!("[agent]\n{agent}"));
    site.node.write_config(&format!("{head}\n{}", site.config_text())).expect("written");
    site.node.start().expect("it starts");
}

fn answered_by_canary(site: &Site) -> u64 {
    let summary = site.web_load(Family::V4, 100).expect("a load").summary();
    assert_eq!(summary.all_answered(), 100, "{summary:?}");
    summary.answered_by("canary")
}

fn wait_for_lapse(site: &Site) {
    site.node.wait_until("a lapse", |status| status.agent.lease.is_some_and(|lease| lease.ran_out.is_some())).expect("found");
    assert_eq!(lapses(site), 1);
}

fn lapses(site: &Site) -> usize {
    let is = |event: &&Event| matches!(event.kind, EventKind::LeaseRanOut { .. });
    site.node.events().expect("told").iter().filter(is).count()
}
