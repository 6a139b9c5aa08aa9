//! The main job from end to end, in few steps: what a kernel must be able to do. `cargo xtask vm` runs this on several.

use std::{
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Kind, Site},
    workload::tcp_echo,
};
use splitter_user::model::Mode;

/// Connections of either family: enough for both versions to have some (a chance of 2 to the -23 that one has none), and not too many, see below.
const CONNECTIONS: u64 = 24;
/// So seldom that an emulated processor has time for the agent besides: a word and its echo take it some 5 ms. Five times as often, an adoption takes five times as long.
const INTERVAL: Duration = Duration::from_secs(2);
/// Long enough for every connection to be heard of.
const WHILE: Duration = Duration::from_millis(2_500);
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn connections_are_split_and_live_through_death_adoption_replacement_and_flip_in_nat_mode() {
    whole_life(Topology::TwoArmSwitched, Mode::Nat);
}

#[test]
fn connections_are_split_and_live_through_death_adoption_replacement_and_flip_in_dsr_mode() {
    whole_life(Topology::OneArm, Mode::Dsr);
}

fn whole_life(topology: Topology, mode: Mode) {
    let mut site = Site::builder(topology, mode).kinds(&[Kind::Echo]).weight("50%").start().expect("a site");
    let running = FAMILIES.map(|family| load(&site, family));

    // Split: both versions answer.
    for running in &running {
        let report = running.report();
        assert_eq!((report.opened, report.broken), (CONNECTIONS, 0), "{mode}: {report:?}");
        assert!(is_split(&site, &report), "{mode}: {report:?}");
    }

    // The agent dies, traffic flows on; the next one adopts, and replaces the program.
    site.node.kill();
    thread::sleep(WHILE);
    site.node.start().expect("it adopts");
    assert_eq!(site.node.status().expect("a status").agent.adoptions, 1);
    thread::sleep(WHILE);

    // Once more, in good order.
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    site.node.start().expect("it adopts");
    assert_eq!(site.node.status().expect("a status").agent.adoptions, 2);

    // Flip: nobody new reaches the canary; who is there stays.
    for family in FAMILIES {
        steer(&site, &["flip", &Kind::Echo.service(family), "--existing", "keep"], true);
        let report = tcp_echo::Report::of(&load(&site, family).stop().expect("it stops"));
        assert_eq!((report.opened, report.broken), (CONNECTIONS, 0), "{mode}: {report:?}");
        assert!(!report.by_server.contains_key(&site.server("canary1").identity), "{mode}, flipped: {report:?}");
    }
    thread::sleep(WHILE);
    for running in running {
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!(
            (report.opened, report.broken, report.bytes_wrong, report.strangers),
            (CONNECTIONS, 0, 0, 0),
            "{mode}: {report:?}"
        );
        assert!(is_split(&site, &report), "{mode}, still: {report:?}");
    }

    // And reset: the canary's connections end, no others.
    for family in FAMILIES {
        let service = Kind::Echo.service(family);
        steer(&site, &["unflip", &service], false);
        let running = load(&site, family);
        let canary = running.report().by_server[&site.server("canary1").identity];
        steer(&site, &["flip", &service, "--existing", "reset"], true);
        let deadline = Instant::now() + LIMIT;
        while running.report().broken < canary && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(WHILE);
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.broken, report.bytes_wrong, report.strangers), (canary, 0, 0), "{mode}: {report:?}");
    }
}

/// Flips a service, or back. On an emulated processor the command line may have stopped waiting before the agent gets to answer: then its status says that it's done.
fn steer(site: &Site, arguments: &[&str], flipped: bool) {
    let Err(error) = site.node.run(arguments) else { return };
    assert!(error.to_string().contains("did not answer within"), "{error}");
    let service = arguments[1];
    let is_done = |status: &splitter_user::api::wire::Status| {
        status.services.iter().any(|found| found.name.to_string() == service && found.flip.is_some() == flipped)
    };
    site.node.wait_until("it is done", is_done).expect("done, late");
}

fn load(site: &Site, family: Family) -> tcp_echo::Running {
    let load = tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), CONNECTIONS as usize);
    tcp_echo::Load { interval: INTERVAL, ..load }.start(site.lab.client()).expect("a load")
}

/// Whether both versions have some of the connections. (That one of two stable backends has none of them happens once in some hundred runs.)
fn is_split(site: &Site, report: &tcp_echo::Report) -> bool {
    report.by_server.len() >= 2 && report.by_server.contains_key(&site.server("canary1").identity)
}
