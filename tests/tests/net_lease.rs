//! An agent that gives no sign of life loses its lease, and the data plane does what the configuration says.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Site},
    workload::http::{self, Outcome, Pace, Record},
};
use splitter_user::{
    api::wire::FlipCause,
    model::{Existing, Mode, ServiceName},
    store::EventKind,
};

/// Long enough for an agent on a machine with much else to do.
const LEASE: Duration = Duration::from_secs(2);
/// The longest tick of a kernel's clock.
const JIFFY: Duration = Duration::from_millis(10);
/// How long is looked at what comes after.
const AFTER: Duration = Duration::from_millis(700);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_agent_that_is_killed_or_stopped_loses_its_lease_and_nothing_new_reaches_the_canary() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut site = site("auto");
        let loads = FAMILIES.map(|family| load(&site, family));
        thread::sleep(Duration::from_millis(500));
        let quiet = Instant::now();
        if signal == Signal::SIGKILL {
            site.node.kill();
        } else {
            site.node.signal(signal).expect("it runs");
        }
        thread::sleep(LEASE + JIFFY + AFTER);
        let [falls, holds] = loads.map(|load| {
            let begun = load.begun;
            let records = load.stop().expect("it stops").records;
            // The last sign was given at the latest when the agent was still there.
            let over = quiet.saturating_duration_since(begun) + LEASE + JIFFY;
            let (before, after): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.begun < over);
            (cohorts(&before), cohorts(&after))
        });
        let ((_, canary_before), (stable_after, canary_after)) = falls;
        assert!(canary_before > 0 && stable_after > 0, "{signal}: {falls:?}");
        assert_eq!(canary_after, 0, "{signal}: {falls:?}");
        let ((stable_before, _), (stable_after, canary_after)) = holds;
        assert!((stable_before, stable_after) == (0, 0) && canary_after > 0, "{signal}: hold does not move: {holds:?}");
    }
}

#[test]
fn an_agent_that_comes_back_tells_of_it_and_the_weight_counts_again() {
    let mut site = site("auto");
    // The same process, and then another one.
    for goes_on in [true, false] {
        lose_lease(&mut site, goes_on);
        assert_eq!(by_cohort(&site, Family::V4), (50, 0), "without an agent");
        come_back(&mut site, goes_on);
        let (since, resumed) = wait_for_lapse(&site);
        assert!(since.0 == ["web4"] && since.1 == ["web6"] && resumed, "{since:?}");
        wait_until_canary(&site);
        assert!(site.node.service("web4").expect("a status").flip.is_none());
        let (_, metrics) = site.node.http("/metrics").expect("served");
        assert!(metrics.lines().any(|line| line == "splitter_agent_leases_ran_out_total 1"), "of this agent: {metrics}");
        let status = site.node.status().expect("a status");
        assert!(status.agent.lease.and_then(|lease| lease.ran_out).is_some(), "{status:?}");
    }
}

#[test]
fn where_somebody_is_to_decide_a_lost_lease_is_a_flip_before_any_weight_counts_again() {
    for goes_on in [true, false] {
        let mut site = site("manual");
        lose_lease(&mut site, goes_on);
        let running = load(&site, Family::V4);
        thread::sleep(Duration::from_millis(100));
        come_back(&mut site, goes_on);
        let (services, resumed) = wait_for_lapse(&site);
        assert!(services.0 == ["web4"] && !resumed, "{services:?}");
        site.node.wait_until("a flip", |status| status.services[0].flip.is_some()).expect("flipped");
        thread::sleep(Duration::from_millis(300));
        let (stable, canary) = cohorts(&running.stop().expect("it stops").records);
        assert!(stable > 0 && canary == 0, "not one in between: {stable} stable, {canary} canary");
        let flip = site.node.service("web4").expect("a status").flip.expect("flipped");
        assert_eq!((flip.cause, flip.existing), (FlipCause::Lease, Existing::Keep));
        assert!(site.node.service("web6").expect("a status").flip.is_none(), "what was held is not flipped");
        assert_eq!(by_cohort(&site, Family::V6), (0, 50));
        site.node.run(&["unflip", "web4"]).expect("unflipped");
        assert_eq!(by_cohort(&site, Family::V4), (0, 50));
    }
}

#[test]
fn a_clean_stop_a_restart_and_reloads_let_no_lease_run_out() {
    let mut site = site("auto");
    let running = load(&site, Family::V4);
    let reloads_until = Instant::now() + LEASE + AFTER;
    while Instant::now() < reloads_until {
        site.node.run(&["reload"]).expect("reloaded");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    thread::sleep(LEASE + AFTER);
    site.node.start().expect("the next agent");
    // An upgrade: the new program takes the old one's place.
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    site.node.start().expect("the next agent");
    thread::sleep(AFTER);
    let (stable, canary) = cohorts(&running.stop().expect("it stops").records);
    assert!(stable == 0 && canary > 300, "{stable} stable, {canary} canary");
    let events = site.node.events().expect("told");
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::LeaseRanOut { .. })), "{events:?}");
}

/// Everything to the canary; web4 falls back to stable without an agent, web6 holds.
fn site(resume: &str) -> Site {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("100%").prepare().expect("a site");
    let [falls, holds] = &mut site.services[..] else { panic!("two services") };
    falls.more.push_str("on_lease_expiry = \"stable\"\n");
    holds.more.push_str("on_lease_expiry = \"hold\"\n");
    let agent = format!("[agent]\nlease = \"{}ms\"\nresume = \"{resume}\"\n", LEASE.as_millis());
    let section = site.node.agent_section().replacen("[agent]\n", &agent, 1);
    site.node.write_config(&format!("{section}\n{}", site.config_text())).expect("written");
    site.node.start().expect("an agent");
    site
}

fn load(site: &Site, family: Family) -> http::Running {
    let load = http::Load { pace: Pace::PerSecond(100.0), duration: LIMIT, ..site.web(family, u64::MAX) };
    load.start(site.lab.client()).expect("a load")
}

/// The agent is stopped (if it is to go on) or killed until its lease has run out.
fn lose_lease(site: &mut Site, goes_on: bool) {
    match goes_on {
        true => site.node.signal(Signal::SIGSTOP).expect("it runs"),
        false => site.node.kill(),
    }
    thread::sleep(LEASE + JIFFY);
}

fn come_back(site: &mut Site, goes_on: bool) {
    match goes_on {
        true => site.node.signal(Signal::SIGCONT).expect("it is there"),
        false => site.node.start().expect("a new agent"),
    }
}

/// What went to stable and what was held, and whether the weight counts again.
type Lapse = ((Vec<String>, Vec<String>), bool);

/// Those that the running agent has found. (What one that was killed found in its last second needn't be kept.)
fn lapses(site: &Site) -> Vec<Lapse> {
    let lapse = |kind| {
        let EventKind::LeaseRanOut { to_stable, held, resumed, lasted, .. } = kind else { return None };
        assert!(lasted > Duration::ZERO);
        let names = |list: Vec<ServiceName>| list.iter().map(ToString::to_string).collect();
        Some(((names(to_stable), names(held)), resumed))
    };
    let events = site.node.events().expect("told");
    let started = events.iter().rposition(|event| matches!(event.kind, EventKind::AgentStarted { .. })).unwrap_or(0);
    events.into_iter().skip(started).filter_map(|event| lapse(event.kind)).collect()
}

fn wait_for_lapse(site: &Site) -> Lapse {
    let deadline = Instant::now() + LIMIT;
    loop {
        match &lapses(site)[..] {
            [] => {}
            [lapse] => return lapse.clone(),
            more => panic!("it is told once: {more:?}"),
        }
        assert!(Instant::now() < deadline, "not told: {:?}", site.node.events());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The event comes before the sign of life that gives the weight its force back, by an instant.
fn wait_until_canary(site: &Site) {
    let deadline = Instant::now() + LIMIT;
    while by_cohort(site, Family::V4) != (0, 50) {
        assert!(Instant::now() < deadline, "still on stable");
    }
}

/// Of 50 new connections: stable's and the canary's.
fn by_cohort(site: &Site, family: Family) -> (u64, u64) {
    cohorts(&site.web_load(family, 50).expect("a load").records)
}

fn cohorts(records: &[Record]) -> (u64, u64) {
    let summary = http::Summary::of(records);
    let failed: Vec<_> = records.iter().filter(|record| !matches!(record.outcome, Outcome::Answered(_))).collect();
    assert!(failed.is_empty(), "every connection is answered: {failed:?}");
    (summary.answered_by("stable"), summary.answered_by("canary"))
}
