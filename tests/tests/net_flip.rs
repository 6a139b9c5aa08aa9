//! Back to stable, at once: by hand and by limits.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::{Namespace, Topology},
    node::{FAMILIES, Family, Kind, Site},
    workload::{
        http::{self, Outcome, Pace},
        tcp_echo, udp_echo,
    },
};
use splitter_user::{
    api::wire::FlipCause,
    model::{Existing, Mode, Weight},
    store::{Check, EventKind, FlipReason},
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn from_the_return_of_a_flip_on_no_new_connection_reaches_the_canary_in_nat_mode() {
    flip_is_immediate(Topology::TwoArmSwitched, Mode::Nat);
}

#[test]
fn from_the_return_of_a_flip_on_no_new_connection_reaches_the_canary_in_dsr_mode() {
    flip_is_immediate(Topology::OneArm, Mode::Dsr);
}

#[test]
fn a_flip_that_keeps_leaves_every_connection_alone() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = Site::builder(topology, mode).kinds(&[Kind::Echo]).weight("50%").start().expect("a site");
        let running = FAMILIES.map(|family| echo(&site, family, 40));
        for family in FAMILIES {
            site.node.run(&["flip", &Kind::Echo.service(family), "--existing", "keep"]).expect("flipped");
        }
        thread::sleep(Duration::from_millis(300));
        for running in running {
            let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
            assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (40, 0, 0, 0), "{mode}: {report:?}");
            assert!(report.by_server.contains_key(&site.server("canary1").identity), "{mode}: {report:?}");
        }
    }
}

#[test]
fn a_flip_that_resets_resets_the_canarys_connections_and_no_others() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Nat), (Topology::OneArm, Mode::Dsr)]
    {
        let site = Site::builder(topology, mode).kinds(&[Kind::Echo, Kind::Udp]).weight("50%").start().expect("a site");
        for family in FAMILIES {
            let what = format!("{topology:?}, {mode}, {family:?}");
            let running = echo(&site, family, 60);
            let canary = running.report().by_server[&site.server("canary1").identity];
            let service = Kind::Echo.service(family);
            site.node.run(&["flip", &service, "--existing", "reset", "--reason", "it smells"]).expect("flipped");
            let deadline = Instant::now() + LIMIT;
            while running.report().broken < canary && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(200));
            let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
            assert_eq!(report.broken, canary, "{what}: {report:?}");
            assert_eq!(report.broken_by_server.get(&site.server("canary1").identity), Some(&canary), "{what}: {report:?}");
            // The client's kernel took the RST for its connection's: nobody waited for a timeout.
            assert!(report.reasons.keys().all(|reason| reason.contains("reset by peer")), "{what}: {report:?}");
            assert_eq!((report.bytes_wrong, report.strangers), (0, 0), "{what}: {report:?}");
            let status = site.node.service(&service).expect("a status");
            let flip = status.flip.expect("it is flipped");
            assert_eq!(
                (flip.cause, flip.existing, flip.reason.as_deref()),
                (FlipCause::Command, Existing::Reset, Some("it smells"))
            );
            assert_eq!((status.weights.asked.to_string(), status.weights.in_force), ("50%".into(), Some(Weight::ZERO)));
            assert!(status.refusals["reset_by_flip"] >= canary, "{what}: {:?}", status.refusals);
        }
        // UDP exchanges move with their next packet.
        let running = udp(&site, Family::V4, 30);
        thread::sleep(Duration::from_millis(200));
        let before = running.report();
        assert!(before.by_server.contains_key(&site.server("canary1").identity), "{before:?}");
        site.node.run(&["flip", "udp4", "--existing", "reset"]).expect("flipped");
        let on_canary = || running.report().by_server.contains_key(&site.server("canary1").identity);
        let deadline = Instant::now() + LIMIT;
        while on_canary() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // Long enough for one that would come back.
        thread::sleep(Duration::from_millis(300));
        let report = udp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((report.reached, report.wrong), (30, 0), "{mode}: {report:?}");
        assert!(!report.by_server.contains_key(&site.server("canary1").identity), "{mode}: {report:?}");
        let moved = before.by_server[&site.server("canary1").identity];
        assert!(report.moves == moved && report.lost <= moved, "{mode}: at most the answer on its way is lost: {report:?}");
    }
}

#[test]
fn a_silent_connection_that_was_reset_is_told_with_its_next_packet() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("100%").start().expect("a site");
    let target = site.target(Kind::Web, Family::V4);
    let mut stream = connect(site.lab.client(), target);
    site.node.run(&["flip", "web4", "--existing", "reset"]).expect("flipped");
    thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("the kernel takes it");
    let error = stream.read(&mut [0; 100]).expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_canary_that_refuses_flips_its_service_and_stays_flipped_across_a_restart() {
    let breach = "[service.breach]\nrefused = \"5%\"\nmin_attempts = 50\nwindow = \"5s\"";
    let builder = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("50%").more(breach);
    let mut site = builder.start().expect("a site");
    let load = http::Load { pace: Pace::PerSecond(1_000.0), duration: LIMIT, ..site.web(Family::V4, u64::MAX) };
    let mut running = load.start(site.lab.client()).expect("a load");
    thread::sleep(Duration::from_millis(500));
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let refused_from = running.begun.elapsed();
    site.node.wait_until("a flip", |status| status.services.iter().any(|service| service.flip.is_some())).expect("flipped");
    let flipped_at = running.begun.elapsed();
    thread::sleep(Duration::from_millis(300));
    running.records.close();
    let report = running.stop().expect("it stops");
    let refused = |from: Duration, to: Duration| {
        report.records.iter().filter(|record| (from..to).contains(&record.begun) && record.outcome == Outcome::Refused).count()
    };
    let told = format!("refused from {refused_from:?}, flipped at {flipped_at:?}: {:?}", report.summary());
    // Half of 1,000 connections a second go to the canary: 5% of the window's are refused within a tenth of a second.
    assert!(flipped_at - refused_from < Duration::from_secs(2), "{told}");
    assert!(refused(refused_from, flipped_at) > 10, "{told}");
    assert_eq!(refused(flipped_at, Duration::MAX), 0, "{told}");

    let flip = site.node.service("web4").expect("a status").flip.expect("flipped");
    assert_eq!((flip.cause, flip.existing, flip.by.as_str()), (FlipCause::Refused, Existing::Reset, "the agent"));
    assert!(site.node.service("web6").expect("a status").flip.is_none(), "the other service is untouched");
    let findings = |site: &Site| {
        let events = site.node.events().expect("told");
        let finding = |kind| {
            if let EventKind::Flipped { reason: FlipReason::Breach { finding }, .. } = kind { Some(finding) } else { None }
        };
        events.into_iter().filter_map(|event| finding(event.kind)).collect::<Vec<_>>()
    };
    let [finding] = findings(&site)[..] else { panic!("one breach: {:?}", site.node.events()) };
    assert_eq!((finding.check, finding.limit.to_string(), finding.window), (Check::Refused, "5%".into(), Duration::from_secs(5)));
    assert!(finding.canary.failures > 0 && finding.canary.attempts >= 50 && finding.stable.failures == 0, "{finding:?}");
    assert!(finding.canary.failures * 20 > finding.canary.attempts, "above 5%: {finding:?}");

    site.node.kill_and_restart().expect("it takes over");
    let status = site.node.service("web4").expect("a status");
    assert_eq!(status.flip.map(|flip| flip.cause), Some(FlipCause::Refused));
    assert_eq!(findings(&site).len(), 1, "it is known, and not found anew");
    site.server("canary1").set_web(http::Mode::Serve).expect("it serves");
    assert_eq!(site.web_load(Family::V4, 300).expect("a load").summary().answered_by("stable"), 300);
    site.node.run(&["unflip", "web4"]).expect("unflipped");
    let summary = site.web_load(Family::V4, 300).expect("a load").summary();
    assert!(summary.all_answered() == 300 && summary.answered_by("canary") > 100, "{summary:?}");
    thread::sleep(Duration::from_millis(300));
    assert!(site.node.service("web4").expect("a status").flip.is_none(), "what was before the flip says nothing any more");
}

#[test]
fn a_canary_that_does_not_answer_flips_its_service() {
    let breach = "[service.timeouts]\nconnect = \"1s\"\n[service.breach]\ntimeout = \"10%\"\nmin_attempts = 20";
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = Site::builder(topology, mode).weight("50%").more(breach).start().expect("a site");
        let canary = site.server("canary1");
        // It has no way back to whom it hears.
        let back = if mode == Mode::Nat { site.lab.node().addresses[1].v4 } else { site.lab.client_addresses()[0].v4 };
        canary.namespace.ip(&[format!("route add blackhole {back}/32")]).expect("it is mute");
        let load = http::Load { pace: Pace::PerSecond(100.0), duration: LIMIT, ..site.web(Family::V4, u64::MAX) };
        let load = http::Load { timeout: Duration::from_millis(500), ..load };
        let running = load.start(site.lab.client()).expect("a load");
        let is_flipped = |status: &splitter_user::api::wire::Status| status.services.iter().any(|service| service.flip.is_some());
        site.node.wait_until("a flip", is_flipped).expect("flipped");
        drop(running);
        assert_eq!(site.node.service("web4").expect("a status").flip.map(|flip| flip.cause), Some(FlipCause::Timeout), "{mode}");
    }
}

#[test]
fn too_few_attempts_are_no_verdict() {
    let breach = "[service.breach]\nrefused = \"1%\"\nmin_attempts = 500";
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("100%").more(breach).start().expect("a site");
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let summary = site.web_load(Family::V4, 400).expect("a load").summary();
    assert_eq!(summary.refused, 400, "{summary:?}");
    thread::sleep(Duration::from_millis(400));
    assert!(site.node.service("web4").expect("a status").flip.is_none());
}

fn flip_is_immediate(topology: Topology, mode: Mode) {
    let site = Site::builder(topology, mode).clients(4).weight("100%").start().expect("a site");
    // Three times, so that the flip falls into other moments of the load.
    let mut after = 0;
    for _ in 0..3 {
        let load = http::Load { pace: Pace::Concurrent(32), ..site.web(Family::V4, u64::MAX) };
        let running = load.start(site.lab.client()).expect("a load");
        thread::sleep(Duration::from_millis(300));
        site.node.run(&["flip", "web4"]).expect("flipped");
        let flipped = running.begun.elapsed();
        thread::sleep(Duration::from_millis(1_300));
        let report = running.stop().expect("it stops");
        let summary = report.summary();
        assert_eq!(summary.unanswered(), 0, "{mode}: {summary:?}");
        let (before, later): (Vec<_>, Vec<_>) = report.records.iter().partition(|record| record.begun <= flipped);
        let canary = |records: Vec<&http::Record>| http::Summary::of(records).answered_by("canary");
        after += later.len();
        assert!(canary(before) > 100, "{mode}: {summary:?}");
        assert_eq!(canary(later), 0, "{mode}: {summary:?}");
        site.node.run(&["unflip", "web4"]).expect("unflipped");
    }
    let rest = 10_000_u64.saturating_sub(after as u64);
    site.node.run(&["flip", "web4"]).expect("flipped");
    let summary = site.web_load(Family::V4, rest).expect("a load").summary();
    assert_eq!((summary.answered_by("stable"), summary.answered_by("canary")), (rest, 0), "{mode}: {summary:?}");
    println!("{mode}: {after} connections after the return of a flip under load, {rest} after another");
}

fn echo(site: &Site, family: Family, connections: usize) -> tcp_echo::Running {
    let load = tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), connections);
    load.start(site.lab.client()).expect("a load")
}

fn udp(site: &Site, family: Family, sockets: usize) -> udp_echo::Running {
    udp_echo::Load::new(site.client(family), site.target(Kind::Udp, family), sockets).start(site.lab.client()).expect("a load")
}

fn connect(namespace: &Namespace, target: std::net::SocketAddr) -> TcpStream {
    let stream = namespace.enter(|| TcpStream::connect_timeout(&target, LIMIT)).expect("entered").expect("connected");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    stream
}
