//! Nobody is torn in two: long-lived connections through everything that is done to a running splitter.

use std::{fs, thread, time::Duration};

use nix::sys::signal::Signal;
use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Kind, Site},
    workload::{Identity, tcp_echo, udp_echo},
};
use splitter_user::{
    api::wire::BackendState,
    model::{Cohort, Mode},
    store::EventKind,
};

const CONNECTIONS: usize = 200;
/// Long enough for several exchanges on every connection.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn in_nat_mode_long_lived_connections_survive_all_that_is_done_to_the_splitter() {
    survive_everything(Topology::TwoArmSwitched, Mode::Nat);
}

#[test]
fn in_dsr_mode_long_lived_connections_survive_all_that_is_done_to_the_splitter() {
    survive_everything(Topology::OneArm, Mode::Dsr);
}

#[test]
fn a_ramp_moves_nobody_out_of_the_canary_and_back_nobody_in() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).kinds(&[Kind::Echo]).start().expect("a site");
    let service = Kind::Echo.service(Family::V4);
    let mut running = Vec::new();
    for weight in ["10%", "50%", "100%", "50%", "0%"] {
        site.node.run(&["weight", &service, weight]).expect("weighted");
        running.push(echo(&site, Family::V4, 40));
    }
    thread::sleep(A_WHILE);
    let mut reports = running.into_iter().map(|running| tcp_echo::Report::of(&running.stop().expect("it stops")));
    for report in reports.by_ref() {
        assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (40, 0, 0, 0), "{report:?}");
    }
}

#[test]
fn a_drained_backend_keeps_its_connections_until_they_end_and_shows_how_many_are_left() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).kinds(&[Kind::Echo]).start().expect("a site");
    let (service, family) = (Kind::Echo.service(Family::V4), Family::V4);
    let running = echo(&site, family, 60);
    let drained = site.server("stable1").backend(Kind::Echo, family);
    let before = running.report().by_server[&site.server("stable1").identity];
    site.node.run(&["backend", "drain", &service, &drained.to_string()]).expect("drained");
    let left = |wanted: u64| {
        site.node
            .wait_until(&format!("{wanted} connections left"), |status| {
                let backends = status.services.iter().flat_map(|service| &service.cohorts).flat_map(|cohort| &cohort.backends);
                let mut drained = backends.filter(|backend| backend.address == drained);
                drained.any(|backend| backend.state == BackendState::Draining && backend.connections == Some(wanted))
            })
            .expect("so many")
    };
    left(before);
    // New ones go elsewhere.
    let later = echo(&site, family, 40);
    assert_eq!(later.report().by_server.get(&site.server("stable2").identity), Some(&40), "{:?}", later.report());
    for running in [running, later] {
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.broken, report.bytes_wrong, report.strangers), (0, 0, 0), "{report:?}");
    }
    left(0);
    let events = site.node.events().expect("told");
    assert!(events.iter().any(|event| event.kind == EventKind::BackendDrained { backend: drained }), "{events:?}");
}

#[test]
fn traffic_flows_on_while_the_agent_is_stopped_or_killed() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let builder = Site::builder(topology, mode).kinds(&[Kind::Web, Kind::Echo]).weight("30%");
        let mut site = builder.start().expect("a site");
        let running = echo(&site, Family::V4, 50);
        site.node.signal(Signal::SIGSTOP).expect("stopped");
        all_answered(&site);
        site.node.signal(Signal::SIGCONT).expect("continued");
        all_answered(&site);
        site.node.kill();
        all_answered(&site);
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (50, 0, 0, 0), "{mode}: {report:?}");
        site.node.start().expect("it takes over");
        all_answered(&site);
        assert_eq!(site.node.status().expect("a status").agent.adoptions, 1);
    }
}

#[test]
fn a_lost_state_takes_no_connection_along() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let mut site = Site::builder(topology, mode).kinds(&[Kind::Echo]).weight("50%").start().expect("a site");
        let running = FAMILIES.map(|family| echo(&site, family, 30));
        let state = site.node.state().join("state.json");
        site.node.kill();
        fs::write(&state, "{ \"version\": 1, ").expect("damaged");
        site.node.start().expect("it takes over");
        thread::sleep(A_WHILE);
        site.node.kill();
        fs::remove_file(&state).expect("gone altogether");
        site.node.start().expect("it takes over");
        thread::sleep(A_WHILE);
        for running in running {
            let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
            assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (30, 0, 0, 0), "{mode}: {report:?}");
        }
    }
}

fn survive_everything(topology: Topology, mode: Mode) {
    let builder = Site::builder(topology, mode).kinds(&[Kind::Echo, Kind::Udp]).spare(1);
    let mut site = builder.start().expect("a site");
    let services = [Kind::Echo, Kind::Udp].map(|kind| kind.service(Family::V4)).into_iter();
    let services: Vec<String> = services.chain([Kind::Echo, Kind::Udp].map(|kind| kind.service(Family::V6))).collect();
    let (mut connections, mut exchanges) = (Vec::new(), Vec::new());
    let mut begin = |site: &Site| {
        for family in [Family::V4, Family::V6] {
            connections.push(echo(site, family, CONNECTIONS / 8));
            exchanges.push(udp(site, family, 10));
        }
    };
    let each = |site: &Site, arguments: &[&str]| {
        for service in &services {
            let filled: Vec<&str> =
                arguments.iter().map(|argument| if *argument == "SERVICE" { service } else { *argument }).collect();
            site.node.run(&filled).expect("done");
        }
    };
    let of_each = |site: &Site, server: &str, verb: &str, before: &[&str], more: &[&str]| {
        for kind in [Kind::Echo, Kind::Udp] {
            for family in [Family::V4, Family::V6] {
                let backend = site.server(server).backend(kind, family).to_string();
                site.node.run(&[&["backend", verb, &kind.service(family)], before, &[&backend], more].concat()).expect("done");
            }
        }
    };

    // Of 200 connections, a part is opened at each of four weights, so that both versions have some.
    begin(&site);
    each(&site, &["weight", "SERVICE", "100%"]);
    begin(&site);
    each(&site, &["weight", "SERVICE", "50%"]);
    begin(&site);
    each(&site, &["weight", "SERVICE", "0%"]);
    begin(&site);

    of_each(&site, "stable3", "add", &["stable"], &[]);
    of_each(&site, "stable1", "drain", &[], &[]);
    of_each(&site, "canary1", "remove", &[], &[]);
    thread::sleep(A_WHILE);
    of_each(&site, "stable1", "undrain", &[], &[]);
    of_each(&site, "canary1", "add", &["canary"], &[]);
    of_each(&site, "stable2", "weight", &[], &["7"]);

    // The configuration changes: by command and by signal.
    for service in &mut site.services {
        service.weight = "20%".into();
    }
    site.write_config().expect("written");
    site.node.run(&["reload"]).expect("reloaded");
    for service in &mut site.services {
        service.weight = "80%".into();
    }
    site.write_config().expect("written");
    site.node.signal(Signal::SIGHUP).expect("told");
    site.node
        .wait_until("the weight of the file", |status| status.services.iter().all(|s| s.weights.asked.to_string() == "80%"))
        .expect("reloaded");

    // A new agent, with a program loaded anew on the same maps; twice by force, once in order.
    site.node.kill_and_restart().expect("it takes over");
    site.node.kill_and_restart().expect("it takes over");
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    site.node.start().expect("it takes over");
    assert_eq!(site.node.status().expect("a status").agent.adoptions, 3);
    each(&site, &["flip", "SERVICE", "--existing", "keep"]);
    thread::sleep(A_WHILE);
    each(&site, &["unflip", "SERVICE"]);
    thread::sleep(A_WHILE);

    let live: u64 = connections.iter().map(|running| running.report().opened).sum();
    assert_eq!(live, CONNECTIONS as u64);
    let mut by_version = [0; 2];
    for running in connections {
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.not_opened, report.broken, report.bytes_wrong, report.strangers), (0, 0, 0, 0), "{mode}: {report:?}");
        assert!(report.exchanges > 20 * report.opened, "{mode}: it was in use: {report:?}");
        by_version[0] += of(&report.by_server, Cohort::Stable);
        by_version[1] += of(&report.by_server, Cohort::Canary);
    }
    assert!(by_version.iter().all(|count| *count > 30), "{mode}: both versions had connections: {by_version:?}");
    for running in exchanges {
        let report = udp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.reached, report.lost, report.wrong), (10, 0, 0), "{mode}: {report:?}");
        assert!(report.moves == 0 && report.errors.is_empty(), "{mode}: {report:?}");
    }
}

fn of(servers: &std::collections::BTreeMap<Identity, u64>, cohort: Cohort) -> u64 {
    servers.iter().filter(|(identity, _)| identity.version == cohort.as_str()).map(|(_, count)| count).sum()
}

fn echo(site: &Site, family: Family, connections: usize) -> tcp_echo::Running {
    let load = tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), connections);
    load.start(site.lab.client()).expect("a load")
}

fn udp(site: &Site, family: Family, sockets: usize) -> udp_echo::Running {
    udp_echo::Load::new(site.client(family), site.target(Kind::Udp, family), sockets).start(site.lab.client()).expect("a load")
}

fn all_answered(site: &Site) {
    let summary = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(summary.all_answered(), 200, "{}: {summary:?}", site.mode());
    assert!(summary.answered_by("canary") > 20, "{}: {summary:?}", site.mode());
}
