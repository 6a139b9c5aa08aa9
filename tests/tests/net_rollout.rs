//! A rollout goes by its plan, with real connections: on when the canary is as good as stable, back when it's worse, and on after the agent was killed, from wherever it was.

use std::{
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    faults::Quality,
    lab::Topology,
    node::{Family, Kind, METRICS, Outcome, Site},
    workload::{
        http::{
            self, Pace, Running, Summary,
            kept::{self, Kept, State},
        },
        tools::Prometheus,
    },
};
use splitter_user::{
    api::wire::{BackendState, FlipCause, RolloutStatus},
    model::{Cohort, Mode, Weight},
    store::{EventKind, Moved},
};

const LIMIT: Duration = Duration::from_secs(60);
/// New connections a second: enough for the comparison to see 2% against 0.1% within seconds.
const RATE: f64 = 500.0;
/// What is usual: one of a thousand.
const USUAL: u16 = 10;
/// A bad canary: one of fifty.
const BAD: u16 = 200;

/// Three steps, as short as a test may be.
const PLAN: &str = r#"
[service.rollout]
steps = ["10% for 2s", "20% to 50% over 2s", "100% for 1s"]
min_connections = 50
existing = "reset"

# One server does at 50% what two do on the other side: it may well be slower.
[service.rollout.compare]
handshake_p90 = false
"#;

/// One step for a while, and a gate.
const GATED: &str = r#"
[service.rollout]
steps = ["30% for 2s", { weight = "60%", for = "2s", gate = "manual" }]
min_connections = 50

[service.rollout.compare]
handshake_p90 = false
"#;

#[test]
fn a_canary_as_good_as_stable_is_promoted_and_no_connection_breaks() {
    let site = site(&format!("{PLAN}\n"), Mode::Nat);
    let (_stable, _canary) = (fail(&site, Cohort::Stable, USUAL), fail(&site, Cohort::Canary, USUAL));
    let load = Load::start(&site);
    let kept = Kept::new(vec![site.client(Family::V4)], site.target(Kind::Web, Family::V4));
    let kept = kept.start(site.lab.client()).expect("it starts");
    open(&kept, 30);
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    until(&site, "the second step", |status| status.step == Some(2));
    open(&kept, 30);
    let told = wait(&site, &[]);
    assert_eq!(told.code, Some(0), "{told:?}");

    let status = rollout(&site);
    assert_eq!((status.phase.as_str(), status.by.as_str()), ("promoted", "root"), "{status:?}");
    let steps: Vec<_> =
        log(&site).into_iter().filter_map(|moved| if let Moved::Step { step, .. } = moved { Some(step) } else { None }).collect();
    assert_eq!(steps, [1, 2, 3]);
    // What was the canary is stable; what was stable drains, and is the next canary.
    let service = site.node.service("web4").expect("a status");
    let of = |cohort| service.cohort(cohort).expect("there").backends.clone();
    assert_eq!(of(Cohort::Stable).iter().map(|backend| backend.address).collect::<Vec<_>>(), [backend(&site, "canary1")]);
    assert!(of(Cohort::Canary).iter().all(|backend| backend.state == BackendState::Draining), "{:?}", of(Cohort::Canary));
    assert_eq!(service.weights.asked, Weight::ZERO);
    // One of a thousand is refused, and nobody else is turned away while the versions change places.
    let summary = load.stop();
    assert!(summary.all_answered() > 1_000 && summary.unanswered() * 200 < summary.all_answered(), "{summary:?}");
    let ended = kept.stop().expect("it stops");
    // One of a thousand isn't let in to begin with.
    let (let_in, refused): (Vec<_>, Vec<_>) = ended.iter().partition(|one| one.exchanges > 0);
    assert!(refused.len() < 6 && let_in.iter().all(|one| one.state == State::Closed && one.strangers == 0), "{ended:?}");
    let on = |version: &str| let_in.iter().filter(|one| one.identity.as_ref().is_some_and(|by| by.version == version)).count();
    assert!(on("stable") > 30 && on("canary") > 0, "{ended:?}");
    let after = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(after.answered_by("stable"), 0, "all new connections go to the new version: {after:?}");

    // Ready for the next release: the old backends are the canary.
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    site.node.run(&["rollout", "promote", "--full", "web4"]).expect("promoted");
    assert_eq!(wait(&site, &[]).code, Some(0));
    let back = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(back.answered_by("canary"), 0, "{back:?}");
}

#[test]
fn a_canary_that_fails_more_often_than_stable_is_flipped_by_the_comparison() {
    let site = site(
        "[service.rollout]\nsteps = [\"20% for 60s\", \"50% for 60s\"]\nmin_connections = 50\n[service.rollout.compare]\nhandshake_p90 = false\n",
        Mode::Nat,
    );
    let (_stable, _canary) = (fail(&site, Cohort::Stable, USUAL), fail(&site, Cohort::Canary, BAD));
    let load = Load::start(&site);
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    let told = wait(&site, &[]);
    assert_eq!(told.code, Some(7), "{told:?}");
    assert!(told.stdout.contains("failed connections"), "it says why: {told:?}");
    let service = site.node.service("web4").expect("a status");
    let flip = service.flip.expect("flipped");
    assert_eq!((flip.cause, flip.by.as_str()), (FlipCause::Rollout, "the agent"));
    load.stop();
    assert_eq!(site.web_load(Family::V4, 200).expect("a load").summary().answered_by("canary"), 0);
    // Only a decision about the rollout takes it back.
    assert_eq!(site.node.cli(&["unflip", "web4"]).expect("it ends").code, Some(6));
    assert_eq!(site.node.cli(&["weight", "web4", "5%"]).expect("it ends").code, Some(6));
    site.node.run(&["rollout", "abort", "web4"]).expect("given up");
    let service = site.node.service("web4").expect("a status");
    assert!(service.flip.is_none() && service.weights.in_force == Some(Weight::ZERO), "{service:?}");
}

#[test]
fn a_gate_waits_for_somebody_and_a_breach_at_the_gate_flips() {
    let site = site(GATED, Mode::Nat);
    let _stable = fail(&site, Cohort::Stable, USUAL);
    let canary = fail(&site, Cohort::Canary, USUAL);
    let load = Load::start(&site);
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    let told = wait(&site, &[]);
    assert_eq!(told.code, Some(9), "{told:?}");
    thread::sleep(Duration::from_secs(1));
    let status = rollout(&site);
    assert_eq!((status.phase.as_str(), status.step), ("gate", Some(2)), "{status:?}");
    assert_eq!(site.node.service("web4").expect("a status").weights.in_force, Some(weight("30%")), "as the step before");
    drop(canary);
    let _canary = fail(&site, Cohort::Canary, 2_000);
    let told = wait(&site, &["--past-gates"]);
    assert_eq!(told.code, Some(7), "{told:?}");
    drop(_canary);

    site.node.run(&["rollout", "retry", "web4"]).expect("again");
    assert_eq!(wait(&site, &[]).code, Some(9));
    site.node.run(&["rollout", "approve", "web4"]).expect("opened");
    assert_eq!(wait(&site, &[]).code, Some(0));
    load.stop();
}

#[test]
fn an_agent_that_is_killed_goes_on_where_the_rollout_was() {
    let mut site = site(GATED, Mode::Nat);
    let load = Load::start(&site);
    let phase = |site: &Site| {
        let status = rollout(site);
        (status.phase, status.step)
    };
    let killed = |site: &mut Site| {
        let before = (phase(site), site.node.service("web4").expect("a status").weights.in_force);
        site.node.kill_and_restart().expect("a new agent");
        let after = (phase(site), site.node.service("web4").expect("a status").weights.in_force);
        assert_eq!(before, after);
        after.0.0.as_str()
    };
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    assert_eq!(killed(&mut site), "stepping");
    site.node.run(&["rollout", "pause", "web4"]).expect("paused");
    assert_eq!(killed(&mut site), "paused");
    site.node.run(&["rollout", "resume", "web4"]).expect("resumed");
    assert_eq!(wait(&site, &[]).code, Some(9));
    assert_eq!(killed(&mut site), "gate");
    site.node.run(&["flip", "web4"]).expect("flipped");
    assert_eq!(killed(&mut site), "flipped");
    assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("canary"), 0);
    site.node.run(&["rollout", "retry", "web4"]).expect("again");
    site.node.run(&["rollout", "abort", "web4"]).expect("given up");
    assert_eq!(killed(&mut site), "aborted");
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    site.node.run(&["rollout", "promote", "--full", "web4"]).expect("promoted");
    assert_eq!(wait(&site, &[]).code, Some(0));
    assert_eq!(killed(&mut site), "promoted");
    load.stop();
    assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("stable"), 0, "the roles outlive the agent");
}

#[test]
fn a_check_by_a_real_prometheus_lets_a_step_pass_and_a_bad_answer_flips() {
    const CHECKED: &str = r#"
[service.rollout]
steps = ["30% for 1s", { weight = "50%", for = "600s" }]
min_connections = 10

[service.rollout.compare]
handshake_p90 = false

[[service.rollout.check]]
name = "refusals"
promql = 'sum(splitter_backend_connections_refused_total{service="web4",cohort="canary"}) or vector(0)'
max = 20
url = "http://127.0.0.1:9090"
interval = "1s"
timeout = "900ms"
"#;
    let site = site(CHECKED, Mode::Nat);
    let load = Load::start(&site);
    site.node.run(&["rollout", "start", "web4"]).expect("started");
    thread::sleep(Duration::from_secs(3));
    let status = rollout(&site);
    assert_eq!((status.phase.as_str(), status.step), ("stepping", Some(1)), "no Prometheus, no verdict: {status:?}");
    assert!(status.verdict.as_ref().is_some_and(|verdict| verdict.text.contains("refusals")), "{status:?}");
    let address = "127.0.0.1:9090".parse().expect("an address");
    let _prometheus = Prometheus::start_at(site.node.namespace(), address, &[METRICS]).expect("a Prometheus");
    until(&site, "the second step", |status| status.step == Some(2));
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let told = wait(&site, &[]);
    assert_eq!(told.code, Some(7), "{told:?}");
    load.stop();
    let flips: Vec<_> =
        site.node.events().expect("told").into_iter().filter(|event| matches!(event.kind, EventKind::Flipped { .. })).collect();
    assert_eq!(flips.len(), 1, "{flips:?}");
}

/// A load that comes in until it's stopped.
struct Load(Running);

impl Load {
    fn start(site: &Site) -> Self {
        let load = http::Load { pace: Pace::PerSecond(RATE), duration: LIMIT * 3, ..site.web(Family::V4, 1_000_000) };
        Self(load.start(site.lab.client()).expect("it starts"))
    }

    fn stop(self) -> Summary {
        self.0.stop().expect("it stops").summary()
    }
}

fn site(more: &str, mode: Mode) -> Site {
    Site::builder(Topology::TwoArmSwitched, mode).clients(8).more(more).start().expect("a site")
}

/// Opens connections that live until the load is stopped.
fn open(kept: &kept::Running, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(kept.open(count)).expect("they are open, or refused");
}

/// A share of a cohort's connections fails, in hundredths of a percent.
fn fail(site: &Site, cohort: Cohort, of_10_000: u16) -> Vec<Quality> {
    site.of(cohort).map(|server| Quality::refuse(server, of_10_000).expect("told")).collect()
}

fn rollout(site: &Site) -> RolloutStatus {
    site.node.json(&["rollout", "status", "web4"]).expect("a rollout")
}

fn wait(site: &Site, more: &[&str]) -> Outcome {
    let command = site.node.command(&[&["rollout", "wait", "web4", "--timeout", "60s"], more].concat());
    site.node.finish(command, LIMIT + Duration::from_secs(10)).expect("it ends")
}

fn until(site: &Site, what: &str, is_so: impl Fn(&RolloutStatus) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so(&rollout(site)) {
        assert!(Instant::now() < deadline, "{what}: {:?}", rollout(site));
        thread::sleep(Duration::from_millis(50));
    }
}

fn log(site: &Site) -> Vec<Moved> {
    let events = site.node.events().expect("told").into_iter();
    events.filter_map(|event| if let EventKind::Rollout { what, .. } = event.kind { Some(what) } else { None }).collect()
}

fn backend(site: &Site, name: &str) -> std::net::SocketAddr {
    site.server(name).backend(Kind::Web, Family::V4)
}

fn weight(text: &str) -> Weight {
    text.parse().expect("a weight")
}
