//! What an agent makes of a breaker that has tripped: at once, when it comes back, and when it's told to forget it.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use splitter_tests::{
    faults::{Tripped, Trips},
    lab::Topology,
    node::{Family, Kind, Site},
    workload::http::{
        self, Summary,
        kept::{self, Kept, State},
    },
};
use splitter_user::{
    api::wire::FlipCause,
    model::{Cohort, Existing, Mode},
    store::{EventKind, FlipReason, TripCause, TripFinding},
};

const LIMIT: Duration = Duration::from_secs(20);
const BREAKER: &str = "on_lease_expiry = \"hold\"\n[service.breaker]\nrefused = \"5%\"\nmin_attempts = 20\n";

#[test]
fn the_agent_makes_a_flip_of_a_trip_and_an_unflip_arms_the_breaker_again() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(BREAKER).start().expect("a site");
    for time in 1..=2 {
        refuse_until_tripped(&site);
        let status = site.node.wait_until("a flip", |status| status.services[0].flip.is_some()).expect("flipped");
        let (service, other) = (&status.services[0], &status.services[1]);
        let flip = service.flip.as_ref().expect("flipped");
        assert_eq!((flip.cause, flip.existing, flip.by.as_str()), (FlipCause::Breaker, Existing::Reset, "the agent"));
        assert_eq!(service.breaker.as_ref().map(|breaker| breaker.tripped), Some(true));
        assert!(other.flip.is_none() && other.breaker.as_ref().is_some_and(|breaker| !breaker.tripped), "the other is untouched");
        let findings = findings(&site);
        assert_eq!(findings.len(), time, "one record each: {findings:?}");
        let finding = findings.last().expect("there is one");
        assert_eq!((finding.cause, finding.limit.to_string()), (TripCause::Refused, "5%".into()));
        assert!(finding.canary.refused >= 20 || finding.canary.attempts > 20, "{finding:?}");
        assert!(finding.canary.refused * 20 > finding.canary.attempts && finding.stable.refused == 0, "{finding:?}");
        let metrics = metrics(&site);
        assert_eq!(metric(&metrics, "splitter_service_flips_total", "reason=\"breaker\""), time as f64, "{metrics}");
        assert_eq!(metric(&metrics, "splitter_service_breaker_tripped", "service=\"web4\""), 1.0, "{metrics}");
        assert_eq!(all_stable(&site, 200), 200);

        site.server("canary1").set_web(http::Mode::Serve).expect("it serves");
        site.node.run(&["unflip", "web4"]).expect("unflipped");
        assert!(trips(&site).look().expect("read").is_none(), "armed");
        let summary = site.web_load(Family::V4, 300).expect("a load").summary();
        assert!(summary.all_answered() == 300 && summary.answered_by("canary") > 80, "{summary:?}");
        let service = site.node.service("web4").expect("a status");
        assert!(
            service.flip.is_none() && service.breaker.is_some_and(|breaker| !breaker.tripped),
            "what was says nothing any more"
        );
    }
}

#[test]
fn a_trip_outlives_agents_and_programs_until_it_is_told_to_go() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(BREAKER).start().expect("a site");
    site.node.kill();
    let tripped = refuse_until_tripped(&site);
    site.server("canary1").set_web(http::Mode::Serve).expect("it serves");
    assert_eq!(all_stable(&site, 200), 200, "without an agent");

    site.node.start().expect("a new agent, with a new program on the same maps");
    let flip = site.node.service("web4").expect("a status").flip.expect("the new one flips at its start");
    assert_eq!(flip.cause, FlipCause::Breaker);
    assert_eq!(all_stable(&site, 200), 200, "with a new agent");
    for stop in [Site::stop_in_order as fn(&mut Site), Site::kill_it] {
        stop(&mut site);
        assert_eq!(trips(&site).look().expect("read"), Some(tripped), "the same trip");
        assert_eq!(all_stable(&site, 100), 100, "between agents");
        site.node.start().expect("the next agent");
        assert_eq!(trips(&site).look().expect("read"), Some(tripped), "the same trip");
        assert_eq!(all_stable(&site, 100), 100, "with the next agent");
        assert_eq!(findings(&site).len(), 1, "it's known, and not found anew");
    }
    site.node.run(&["weight", "web4", "100%"]).expect("a weight");
    assert_eq!(all_stable(&site, 100), 100, "another weight arms nothing");
    site.node.run(&["reload"]).expect("reloaded");
    assert_eq!(all_stable(&site, 100), 100, "a reload arms nothing");
    site.node.run(&["unflip", "web4"]).expect("unflipped");
    assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("canary"), 100);
}

#[test]
fn established_connections_of_a_tripped_canary_are_reset_and_come_back_on_stable() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(BREAKER).start().expect("a site");
    let kept = Long::open(&site, 40);
    let canary = kept.on(&site, Cohort::Canary);
    assert!(canary > 5, "{canary} of 40 on the canary");
    refuse_until_tripped(&site);
    kept.wait("all have come back", |connections| open_on(connections, "stable") == 40);
    let ended = kept.running.stop().expect("it stops");
    let broken: Vec<_> = ended
        .iter()
        .filter_map(|one| if let State::Broken(failure) = &one.state { Some((one, failure)) } else { None })
        .collect();
    assert_eq!(broken.len(), canary, "{broken:?}");
    for (connection, failure) in broken {
        assert_eq!(connection.identity.as_ref().map(|identity| identity.version.as_str()), Some("canary"));
        // Its kernel took the RST for this connection's: nobody waited for a timeout.
        assert!(failure.reset, "{failure:?}");
    }
    assert!(ended.iter().all(|one| one.strangers == 0 && one.bytes_wrong == 0), "{ended:?}");
}

#[test]
fn without_an_agent_established_connections_go_on_until_one_hears_of_the_trip() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(BREAKER).start().expect("a site");
    let kept = Long::open(&site, 40);
    let canary = kept.on(&site, Cohort::Canary);
    site.node.signal(Signal::SIGSTOP).expect("it runs");
    refuse_until_tripped(&site);
    let before = exchanges(&kept.running.connections());
    kept.wait("each was used since", |connections| exchanges(connections).iter().zip(&before).all(|(now, before)| now > before));
    assert_eq!(open_on(&kept.running.connections(), "canary"), canary, "nothing has become of them");
    site.node.signal(Signal::SIGCONT).expect("it is there");
    kept.wait("all have come back", |connections| open_on(connections, "stable") == 40);
    let ended = kept.running.stop().expect("it stops");
    let reset = ended.iter().filter(|one| matches!(&one.state, State::Broken(failure) if failure.reset)).count();
    assert_eq!(reset, canary, "{ended:?}");
}

#[test]
fn a_trip_that_keeps_leaves_established_connections_alone() {
    let keep = format!("{BREAKER}existing = \"keep\"\n");
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(&keep).start().expect("a site");
    let kept = Long::open(&site, 40);
    let canary = kept.on(&site, Cohort::Canary);
    refuse_until_tripped(&site);
    site.node.wait_until("a flip", |status| status.services[0].flip.is_some()).expect("flipped");
    let before = exchanges(&kept.running.connections());
    kept.wait("each was used since", |connections| exchanges(connections).iter().zip(&before).all(|(now, before)| now > before));
    assert_eq!(open_on(&kept.running.connections(), "canary"), canary);
    assert!(kept.running.stop().expect("it stops").iter().all(|one| one.state == State::Closed));
}

/// Lets the canary refuse, and clients come until the breaker has tripped.
fn refuse_until_tripped(site: &Site) -> Tripped {
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let trips = trips(site);
    let deadline = Instant::now() + LIMIT;
    loop {
        let summary = site.web_load(Family::V4, 20).expect("a load").summary();
        match trips.look().expect("read") {
            Some(tripped) => return tripped,
            None => assert!(Instant::now() < deadline, "not tripped: {summary:?}"),
        }
    }
}

fn trips(site: &Site) -> Trips {
    Trips::of(site.node.pins().path(), site.target(Kind::Web, Family::V4)).expect("the service is there")
}

/// How many of so many new connections stable answers.
fn all_stable(site: &Site, connections: u64) -> u64 {
    let summary: Summary = site.web_load(Family::V4, connections).expect("a load").summary();
    assert_eq!(summary.unanswered(), 0, "{summary:?}");
    summary.answered_by("stable")
}

/// What breakers were found to have seen.
fn findings(site: &Site) -> Vec<TripFinding> {
    let events = site.node.events().expect("told").into_iter();
    let finding = |kind| {
        let EventKind::Flipped { reason, .. } = kind else { return None };
        let FlipReason::Breaker { finding } = reason else { panic!("another flip: {reason:?}") };
        Some(finding)
    };
    events.filter_map(|event| finding(event.kind)).collect()
}

fn metrics(site: &Site) -> String {
    let (status, body) = site.node.http("/metrics").expect("served");
    assert_eq!(status, 200);
    body
}

fn metric(metrics: &str, name: &str, label: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name) && line.contains("service=\"web4\"") && line.contains(label));
    let value = line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse());
    value.unwrap_or_else(|| panic!("no {name} with {label} in {metrics}")).expect("a number")
}

trait Ends {
    fn stop_in_order(&mut self);
    fn kill_it(&mut self);
}

impl Ends for Site {
    fn stop_in_order(&mut self) {
        assert_eq!(self.node.stop().expect("it stops"), Some(0));
    }

    fn kill_it(&mut self) {
        self.node.kill();
    }
}

/// Connections that live long.
struct Long {
    running: kept::Running,
}

impl Long {
    fn open(site: &Site, count: usize) -> Self {
        let load = site.web(Family::V4, 0);
        let running = Kept::new(load.sources, load.target).start(site.lab.client()).expect("a load");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(running.open(count)).expect("they are open");
        Self { running }
    }

    fn on(&self, site: &Site, cohort: Cohort) -> usize {
        assert!(site.of(cohort).count() > 0);
        open_on(&self.running.connections(), cohort.as_str())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&[kept::Connection]) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(&self.running.connections()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.running.connections());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn open_on(connections: &[kept::Connection], version: &str) -> usize {
    let is_on = |one: &&kept::Connection| {
        one.state == State::Open && one.identity.as_ref().is_some_and(|identity| identity.version == version)
    };
    connections.iter().filter(is_on).count()
}

fn exchanges(connections: &[kept::Connection]) -> Vec<u64> {
    connections.iter().map(|one| one.exchanges).collect()
}
