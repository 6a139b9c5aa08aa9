//! Who gets whom: networks, affinity, cohorts without backends, ports used up; and that what is explained and traced is what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Kind, Site, share},
    workload::{
        http::{self, Outcome, Pace},
        tcp_echo, udp_echo,
    },
};
use splitter_user::{
    api::wire::{CheckResult, DoctorReport, ExplainRequest, Rule, TraceRecord, Verdict},
    model::{Cohort, Mode, Weight},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHAPES: [(Topology, Mode); 2] = [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)];
/// A connection that is refused learns of it within this.
const QUICKLY: Duration = Duration::from_millis(100);

#[test]
fn networks_decide_before_the_weight_and_change_while_traffic_flows() {
    for (topology, mode) in SHAPES {
        let site = Site::builder(topology, mode).clients(4).start().expect("a site");
        for family in FAMILIES {
            let service = Kind::Web.service(family);
            let clients: Vec<IpAddr> = site.lab.client_addresses().iter().map(|own| family.of(*own)).collect();
            let but_one: Vec<IpAddr> = clients.iter().copied().filter(|client| *client != clients[1]).collect();
            let (net, host) = if family == Family::V4 { ("10.70.0.0/16", 32) } else { ("fd70::/64", 128) };
            let one = format!("{}/{host}", clients[1]);
            let load = http::Load { pace: Pace::PerSecond(400.0), ..site.web(family, u64::MAX) };
            let mut running = load.start(site.lab.client()).expect("a load");
            for (verb, list, prefix, canary) in [
                ("add", "always-canary", net, &clients[..]),
                ("add", "never-canary", &one, &but_one[..]),
                ("remove", "always-canary", net, &[]),
                ("remove", "never-canary", &one, &[]),
                ("add", "always-canary", &one, &clients[1..2]),
                ("remove", "always-canary", &one, &[]),
            ] {
                let what = format!("{mode}, {verb} {list} {prefix}");
                site.node.run(&["network", verb, &service, list, prefix]).expect("done");
                let from = running.begun.elapsed();
                thread::sleep(Duration::from_millis(300));
                let mut heard = BTreeSet::new();
                // Longer only on a machine that has no processor left for the load.
                let deadline = Instant::now() + Duration::from_secs(10);
                while heard.len() < clients.len() && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(10));
                    while let Ok(record) = running.records.try_recv() {
                        let Outcome::Answered(identity) = &record.outcome else { panic!("{what}: {record:?}") };
                        // What was begun before the change may be of either side of it.
                        if record.begun > from {
                            assert_eq!(identity.version == "canary", canary.contains(&record.local.ip()), "{what}: {record:?}");
                            heard.insert(record.local.ip());
                        }
                    }
                }
                assert_eq!(heard.len(), clients.len(), "{what}: every client was heard");
            }
        }
    }
}

#[test]
fn a_hundred_thousand_networks_are_read_from_a_file_and_work() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).clients(2).prepare().expect("a site");
    let [first, second] = [0, 1].map(|n| site.lab.client_addresses()[n].v4);
    let mut text: String = (0..99_999_u32).map(|n| format!("11.{}.{}.{}/32\n", n >> 16, n >> 8 & 0xff, n & 0xff)).collect();
    text += &format!("# the office\n{first}/32\n");
    site.node.write("networks.txt", &text).expect("written");
    site.services[0].more.push_str("always_canary_file = \"networks.txt\"\n");
    site.write_config().expect("written");
    let begun = Instant::now();
    site.node.start().expect("it starts");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let by_client = |site: &Site| {
        let report = site.web_load(Family::V4, 100).expect("a load");
        let of = |own: std::net::Ipv4Addr| {
            let records = report.records.iter().filter(move |record| record.local.ip() == IpAddr::from(own));
            http::Summary::of(records)
        };
        [first, second].map(|own| (of(own).answered_by("canary"), of(own).answered_by("stable")))
    };
    assert_eq!(by_client(&site), [(50, 0), (0, 50)]);
    let listed = site.node.run(&["network", "list", "web4", "-o", "json"]).expect("listed");
    assert_eq!(listed.matches("/32").count(), 100_000);
    // A reload with another file.
    site.node.write("networks.txt", &text.replace(&first.to_string(), &second.to_string())).expect("written");
    let begun = Instant::now();
    site.node.run(&["reload"]).expect("reloaded");
    let reloaded = begun.elapsed();
    assert_eq!(by_client(&site), [(0, 50), (50, 0)]);
    // One more by command takes no longer than for a short list, give or take.
    let begun = Instant::now();
    site.node.run(&["network", "add", "web4", "always-canary", &format!("{first}/32")]).expect("added");
    println!("100,000 networks: start {took:?}, reload {reloaded:?}, one more {:?}", begun.elapsed());
    assert_eq!(by_client(&site), [(50, 0), (50, 0)]);
    assert!(reloaded < Duration::from_secs(10));
}

#[test]
fn with_affinity_client_a_client_stays_with_one_backend_whatever_its_port() {
    for (topology, mode) in SHAPES {
        let site = Site::builder(topology, mode).clients(60).weight("50%").more("affinity = \"client\"").start().expect("a site");
        for family in FAMILIES {
            let report = site.web_load(family, 900).expect("a load");
            let mut servers: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
            for record in &report.records {
                let Outcome::Answered(identity) = &record.outcome else { panic!("{mode}: {record:?}") };
                servers.entry(record.local.ip()).or_default().insert(identity.to_string());
            }
            assert!(servers.len() == 60 && servers.values().all(|of_one| of_one.len() == 1), "{mode}: {servers:?}");
            let canary = servers.values().filter(|of_one| of_one.contains("canary/canary1")).count() as u64;
            assert!(share::fits(canary, 60, 0.5), "{mode}, {family:?}: {canary} of 60");
        }
    }
}

#[test]
fn without_a_usable_canary_its_share_goes_to_stable_and_is_counted() {
    for (topology, mode) in SHAPES {
        let site = Site::builder(topology, mode).weight("100%").start().expect("a site");
        let canary = site.server("canary1").backend(Kind::Web, Family::V4).to_string();
        site.node.run(&["backend", "drain", "web4", &canary]).expect("drained");
        let summary = site.web_load(Family::V4, 100).expect("a load").summary();
        assert_eq!(summary.answered_by("stable"), 100, "{mode}: {summary:?}");
        let status = site.node.service("web4").expect("a status");
        assert_eq!(status.canary_fallback, Some(100), "{mode}");
        assert!(status.alerts.iter().any(|alert| alert.contains("no canary backend can be used")), "{:?}", status.alerts);
        site.node.run(&["backend", "undrain", "web4", &canary]).expect("undrained");
        assert_eq!(site.web_load(Family::V4, 100).expect("a load").summary().answered_by("canary"), 100);
    }
}

#[test]
fn without_a_usable_stable_backend_clients_are_refused_quickly_and_it_is_counted() {
    for (topology, mode) in SHAPES {
        let site = Site::builder(topology, mode).kinds(&[Kind::Web, Kind::Udp]).start().expect("a site");
        for family in FAMILIES {
            for stable in ["stable1", "stable2"] {
                let address = family.of(site.server(stable).address);
                site.node.namespace().ip(&[format!("route add unreachable {address}")]).expect("unreachable");
            }
            let service = Kind::Web.service(family);
            let is_lost = |status: &splitter_user::api::wire::Status| {
                let of_family = status.services.iter().filter(|status| status.address.is_ipv4() == (family == Family::V4));
                of_family
                    .flat_map(|status| &status.alerts)
                    .filter(|alert| alert.contains("no stable backend can be used"))
                    .count()
                    == 2
            };
            site.node.wait_until("both services have nobody", is_lost).expect("told");
            let report = site.web_load(family, 50).expect("a load");
            assert_eq!(report.summary().refused, 50, "{mode}, {family:?}: {:?}", report.summary());
            let slowest = report.records.iter().map(|record| record.took).max();
            assert!(slowest < Some(QUICKLY), "{mode}, {family:?}: {slowest:?}");
            let status = site.node.service(&service).expect("a status");
            assert_eq!(status.refusals["no_backend"], 50, "{mode}, {family:?}: {:?}", status.refusals);

            // UDP is told by an ICMP error.
            let load = udp_echo::Load::new(site.client(family), site.target(Kind::Udp, family), 5);
            let running = load.start(site.lab.client()).expect("a load");
            thread::sleep(Duration::from_millis(200));
            let report = udp_echo::Report::of(&running.stop().expect("it stops"));
            let refused: u64 = report.errors.iter().filter(|(why, _)| why.contains("refused")).map(|(_, count)| count).sum();
            assert!(report.answered == 0 && refused == report.sent && refused >= 5, "{mode}, {family:?}: {report:?}");
        }
    }
}

#[test]
fn when_its_ports_are_used_up_the_nat_refuses_and_does_not_hang() {
    let builder = Site::builder(Topology::TwoArmSwitched, Mode::Nat).kinds(&[Kind::Web, Kind::Echo]);
    let mut site = builder.prepare().expect("a site");
    // For each protocol: 40 ports, divided among the CPUs.
    site.node.configure(&format!("[nat]\nports = \"2000-2039\"\n{}", site.config_text())).expect("written");
    site.node.start().expect("it starts");
    let family = Family::V4;
    let held =
        tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), 80).start(site.lab.client()).expect("a load");
    let report = held.report();
    assert!((10..=40).contains(&report.opened) && report.opened + report.not_opened == 80, "{report:?}");
    assert!(report.reasons.keys().all(|why| why.contains("refused")), "{report:?}");
    let status = site.node.service("echo4").expect("a status");
    assert!(status.refusals["ports_exhausted"] >= report.not_opened, "{status:?}");
    let is_told = |alert: &String| alert.contains("ports_exhausted");
    let alerts =
        |status: &splitter_user::api::wire::Status| status.services.iter().flat_map(|status| &status.alerts).any(is_told);
    site.node.wait_until("an alert", alerts).expect("told");
    // The other family has ports of its own address.
    assert_eq!(site.web_load(Family::V6, 1).expect("a load").summary().all_answered(), 1);
    let more = http::Load { pace: Pace::Concurrent(1), ..site.web(family, 40) }.run(site.lab.client()).expect("a load");
    assert!(more.records.iter().all(|record| record.took < Duration::from_secs(1)), "nobody waits: {:?}", more.summary());
    thread::sleep(Duration::from_millis(300));
    let report = tcp_echo::Report::of(&held.stop().expect("it stops"));
    assert_eq!((report.broken, report.bytes_wrong, report.strangers), (0, 0, 0), "who has a port keeps it: {report:?}");
}

#[test]
fn ports_of_connections_that_are_over_are_given_to_new_ones_before_anybody_is_refused() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).kinds(&[Kind::Web, Kind::Echo]).prepare().expect("a site");
    site.node.configure(&format!("[nat]\nports = \"2000-2199\"\n{}", site.config_text())).expect("written");
    site.node.start().expect("it starts");
    let family = Family::V4;
    let held =
        tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), 30).start(site.lab.client()).expect("a load");
    // Ten times as many as there are ports, in a part of the time that a closed connection is remembered.
    let summary = site.web_load(family, 2_000).expect("a load").summary();
    assert_eq!(summary.all_answered(), 2_000, "{summary:?}, {:?}", site.node.service("web4"));
    let report = tcp_echo::Report::of(&held.stop().expect("it stops"));
    assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (30, 0, 0, 0), "{report:?}");
}

#[test]
fn what_explain_says_is_what_happens() {
    for (topology, mode) in SHAPES {
        let mut site = Site::builder(topology, mode).weight("35%").start().expect("a site");
        for family in FAMILIES {
            let service = Kind::Web.service(family);
            let report = site.web_load(family, 500).expect("a load");
            let ask = report.records.iter().map(|record| record.local).collect::<Vec<_>>();
            // Both for the connections that it still knows, and for those that would be new.
            let asked = Some(Weight::from_basis_points(3_500).expect("in range"));
            let explained = site.node.api(async |client| {
                let (mut all, name) = (Vec::new(), service.parse().expect("a name"));
                for local in ask {
                    let request = ExplainRequest { client: local.ip(), port: Some(local.port()), at: asked };
                    all.push(client.explain(&name, &request).await?);
                }
                Ok(all)
            });
            let explained = explained.expect("explained");
            let mut by_rule = BTreeMap::new();
            for (record, explanation) in report.records.iter().zip(explained) {
                let Outcome::Answered(identity) = &record.outcome else { panic!("{mode}: {record:?}") };
                let backend = Some(site.server(&identity.name).backend(Kind::Web, family));
                assert_eq!(explanation.decision.backend, backend, "{mode}: {record:?}, {explanation:?}");
                let anew = explanation.at.expect("asked for").decision;
                assert_eq!(anew.backend, backend, "{mode}: {record:?}, {anew:?}");
                *by_rule.entry(format!("{:?}", anew.rule)).or_insert(0) += 1;
            }
            assert_eq!(by_rule.into_keys().collect::<Vec<_>>(), ["PlaceAboveWeight", "PlaceBelowWeight"], "{mode}");
        }
        // What it says of a client is the same for the next agent, and reads well.
        let from = SocketAddr::new(site.client(Family::V4), 40_000).to_string();
        let told = site.node.run(&["explain", "web4", "--from", &from, "--at", "100%"]).expect("explained");
        assert!(told.contains("web4") && told.lines().all(|line| line.chars().count() <= 80), "{told}");
        site.node.kill_and_restart().expect("it takes over");
        assert_eq!(site.node.run(&["explain", "web4", "--from", &from, "--at", "100%"]).expect("explained"), told);
    }
}

#[test]
fn a_trace_shows_the_decisions_on_matching_packets_alone() {
    for (topology, mode) in SHAPES {
        let site = Site::builder(topology, mode).clients(2).weight("50%").start().expect("a site");
        let clients: Vec<IpAddr> = site.lab.client_addresses().iter().map(|own| Family::V4.of(*own)).collect();
        let prefix = format!("{}/32", clients[1]);
        let (traced, report) = thread::scope(|scope| {
            let trace = scope.spawn(|| site.node.run(&["trace", "web4", "--from", &prefix, "--count", "50", "-o", "json"]));
            thread::sleep(Duration::from_millis(500));
            let report = site.web_load(Family::V4, 200).expect("a load");
            (trace.join().expect("it ends").expect("traced"), report)
        });
        let traced: Vec<TraceRecord> = traced.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
        assert_eq!(traced.len(), 50, "{mode}");
        for record in traced {
            assert_eq!((record.client.ip(), record.service.as_str()), (clients[1], "web4"), "{mode}: {record:?}");
            let Verdict::Forwarded { cohort, backend, .. } = &record.verdict else { panic!("{mode}: {record:?}") };
            let real = report.records.iter().find(|real| real.local == record.client).expect("one of the load's");
            let Outcome::Answered(identity) = &real.outcome else { panic!("{mode}: {real:?}") };
            assert_eq!(*backend, site.server(&identity.name).backend(Kind::Web, Family::V4), "{mode}: {record:?}");
            assert_eq!(identity.version, cohort.as_str(), "{mode}: {record:?}");
        }
    }
}

#[test]
fn doctor_finds_a_healthy_node_healthy_and_names_what_is_broken() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).start().expect("a site");
    site.web_load(Family::V4, 50).expect("a load");
    let report: DoctorReport = site.node.json(&["doctor"]).expect("healthy: it ends with 0");
    let bad: Vec<_> = report.checks.iter().filter(|check| check.result == CheckResult::Fail).collect();
    assert!(bad.is_empty() && report.checks.len() > 10, "{report:?}");
    let told = site.node.run(&["doctor"]).expect("healthy");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");

    site.node.namespace().ip(&["link set dev back down"]).expect("down");
    let named = |what: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let outcome = site.node.cli(&["doctor", "-o", "json"]).expect("it ran");
            let report: DoctorReport = serde_json::from_str(&outcome.stdout).expect("a report");
            let failed: Vec<_> = report.checks.into_iter().filter(|check| check.result == CheckResult::Fail).collect();
            let is_named = failed.iter().any(|check| format!("{check:?}").contains(what));
            if is_named && outcome.code == Some(1) {
                assert!(failed.iter().all(|check| check.remedy.is_some()), "each has a remedy: {failed:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{what} is not named: {failed:?}, {:?}", outcome.code);
            thread::sleep(Duration::from_millis(100));
        }
    };
    named("back");
    named(&site.server("stable1").backend(Kind::Web, Family::V4).to_string());
}

#[test]
fn a_known_connection_is_explained_as_known() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).kinds(&[Kind::Echo]).weight("100%").start().expect("a site");
    let load = tcp_echo::Load::new(site.client(Family::V4), site.target(Kind::Echo, Family::V4), 1);
    let running = load.start(site.lab.client()).expect("a load");
    site.node.run(&["weight", "echo4", "0%"]).expect("weighted");
    let local = running.connections()[0].local;
    let explain = |address: SocketAddr| {
        let request = ExplainRequest { client: address.ip(), port: Some(address.port()), at: None };
        let name = "echo4".parse().expect("a name");
        site.node.api(async |client| client.explain(&name, &request).await).expect("explained").decision
    };
    let known = explain(local);
    assert_eq!((known.rule, known.cohort), (Rule::KnownConnection, Some(Cohort::Canary)));
    let stranger = explain(SocketAddr::new(local.ip(), local.port() ^ 1));
    assert_eq!((stranger.rule, stranger.cohort), (Rule::PlaceAboveWeight, Some(Cohort::Stable)));
}

#[test]
fn services_that_share_a_seed_do_not_take_each_others_connections() {
    for (topology, mode) in SHAPES {
        let builder = Site::builder(topology, mode).kinds(&[Kind::Web, Kind::Echo]);
        let site = builder.more("seed = \"00112233445566778899aabbccddeeff\"").start().expect("a site");
        site.node.run(&["weight", "echo4", "100%"]).expect("weighted");
        let own = site.client(Family::V4);
        let connected = |port: u16, kind: Kind| {
            let target = site.target(kind, Family::V4);
            async move {
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                // The same port toward two addresses.
                socket.set_reuseaddr(true).expect("set");
                socket.bind((own, port).into()).expect("bound");
                socket.connect(target).await
            }
        };
        let ended = site.lab.client().block_on(async {
            for port in 30_000..30_030 {
                let mut canary = connected(port, Kind::Echo).await?;
                let mut greeting = [0; 15];
                canary.read_exact(&mut greeting).await?;
                assert_eq!(&greeting[1..], b"canary/canary1");
                let mut stable = connected(port, Kind::Web).await?;
                stable.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
                let mut answer = String::new();
                stable.read_to_string(&mut answer).await?;
                assert!(answer.contains("x-version: stable"), "{answer}");
            }
            std::io::Result::Ok(())
        });
        ended.expect("entered").unwrap_or_else(|error| panic!("{mode}: {error}"));
        for service in ["web4", "echo4"] {
            let status = site.node.service(service).expect("a status");
            let completed: u64 = status.cohorts.iter().filter_map(|cohort| cohort.sums).map(|sums| sums.completed).sum();
            assert_eq!(completed, 30, "{mode}: {service}");
        }
    }
}
