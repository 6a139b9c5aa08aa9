//! The workloads themselves, without Splitter: over plain routing and switching, and against servers that lie.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::{Lab, LabError, Topology},
    workload::{
        Identity,
        http::{self, Mode, Outcome, Pace},
        tcp_echo, tools, udp_echo,
    },
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn every_request_is_answered_and_counted_at_both_ends() {
    for topology in [Topology::OneArm, Topology::TwoArm] {
        let lab = Lab::builder(topology).backends(["stable1"]).client_addresses(2).start().expect("a lab");
        let server = http_server(&lab, &stable());
        for target in server.addresses().to_vec() {
            let before = server.counts();
            let sources = lab.client_addresses().iter().map(|own| family(target, *own)).collect();
            let load = http::Load { sources, ..http::Load::new(own(&lab, target), target, 2000) };
            let report = load.run(lab.client()).expect("a load");
            let summary = report.summary();
            assert_eq!(summary.answered.get(&stable()), Some(&2000), "{topology:?}, {target}: {summary:?}");
            assert_eq!((summary.connections, summary.unanswered()), (2000, 0));
            assert_eq!(server.counts().connections - before.connections, 2000);
            assert_eq!(server.counts().requests - before.requests, 2000);
            let mut locals: Vec<SocketAddr> = report.records.iter().map(|record| record.local).collect();
            locals.sort_unstable();
            locals.dedup();
            assert_eq!(locals.len(), 2000, "each connection has a local address and port of its own");
            let firsts = locals.iter().filter(|local| local.ip() == own(&lab, target)).count();
            assert_eq!(firsts, 1000, "the sources are taken in turn");
        }
    }
}

#[test]
fn a_server_that_refuses_is_seen_as_refusing_and_serves_again() {
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let server = http_server(&lab, &stable());
    for target in server.addresses().to_vec() {
        let load = |count| http::Load::new(own(&lab, target), target, count).run(lab.client()).expect("a load");
        assert_eq!(load(50).summary().all_answered(), 50);
        // A connection from before is served on.
        let mut kept = lab.client().enter(|| TcpStream::connect(target)).expect("entered").expect("connected");
        assert!(ask(&mut kept).contains("stable1"));

        server.set(Mode::Refuse).expect("it refuses");
        let refused = load(50);
        assert_eq!(refused.summary().refused, 50, "{:?}", refused.summary());
        assert!(refused.records.iter().all(|record| record.connected.is_none() && record.local.port() != 0));
        assert!(ask(&mut kept).contains("stable1"));

        server.set(Mode::Serve).expect("it serves");
        assert_eq!(load(50).summary().all_answered(), 50);
    }
}

#[test]
fn a_server_that_hangs_is_connected_to_and_times_out() {
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let server = http_server(&lab, &stable());
    let target = server.addresses()[0];
    let load = http::Load { timeout: Duration::from_millis(300), ..http::Load::new(own(&lab, target), target, 20) };
    server.set(Mode::Hang).expect("it hangs");
    let hung = load.clone().run(lab.client()).expect("a load");
    assert_eq!(hung.summary().timed_out, 20, "{:?}", hung.summary());
    assert!(hung.records.iter().all(|record| record.connected.is_some() && record.took >= load.timeout));
    // Waiting connections are reset when the socket goes.
    let waiting = http::Load { timeout: LIMIT, ..load }.start(lab.client()).expect("a load");
    thread::sleep(Duration::from_millis(300));
    server.set(Mode::Refuse).expect("it refuses");
    let summary = waiting.finish().expect("it ends").summary();
    assert_eq!((summary.reset, summary.refused), (16, 4), "{summary:?}");
}

#[test]
fn a_silent_path_times_out_in_the_handshake_and_a_wrong_status_fails() {
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let server = http_server(&lab, &stable());
    let target = server.addresses()[0];
    let load = http::Load { timeout: Duration::from_millis(300), ..http::Load::new(own(&lab, target), target, 5) };
    let bad = http::Load { path: "/bytes/many".into(), ..load.clone() }.run(lab.client()).expect("a load").summary();
    assert_eq!(bad.failed.values().sum::<u64>(), 5);
    assert!(bad.failed.contains_key("status 400 Bad Request"), "{bad:?}");
    lab.node().namespace.ip(&["route add blackhole 10.72.100.1/32"]).expect("a black hole");
    let silent = load.run(lab.client()).expect("a load");
    assert_eq!(silent.summary().timed_out, 5, "{:?}", silent.summary());
    assert!(silent.records.iter().all(|record| record.connected.is_none()));
}

#[test]
fn a_load_keeps_its_pace_and_its_bounds_and_shows_its_records_as_they_come() {
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let server = http_server(&lab, &stable());
    let target = server.addresses()[0];
    let pace = Pace::PerSecond(200.0);
    let load = http::Load { pace, duration: Duration::from_millis(500), ..http::Load::new(own(&lab, target), target, 10_000) };
    let mut running = load.clone().start(lab.client()).expect("a load");
    let first = running.records.blocking_recv().expect("a record");
    assert!(matches!(&first.outcome, Outcome::Answered(identity) if *identity == stable()));
    let report = running.finish().expect("it ends");
    // 200 a second for half a second, the one at either end included; the first was taken above. A busy machine
    // may wake the load too late for the last ones.
    assert!((90..=100).contains(&report.records.len()), "{:?}", report.summary());
    let early = report.records.iter().filter(|record| record.begun < Duration::from_millis(250)).count();
    assert!((20..=51).contains(&early), "{early}");

    let running = http::Load { duration: LIMIT, ..load }.start(lab.client()).expect("a load");
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(100));
    let stopped = running.stop().expect("it stops").summary();
    assert!(begun.elapsed() < Duration::from_secs(5) && stopped.connections < 1000 && stopped.unanswered() == 0, "{stopped:?}");
}

#[test]
fn long_lived_connections_are_checked_byte_by_byte() {
    let lab = Lab::builder(Topology::OneArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let server = tcp_echo::Server::start(&backend.namespace, &stable(), &backend.address.sockets(0)).expect("a server");
    for target in server.addresses() {
        let running = tcp_echo::Load::new(own(&lab, *target), *target, 200).start(lab.client()).expect("a load");
        assert_eq!(running.report().opened, 200);
        thread::sleep(Duration::from_millis(500));
        let connections = running.stop().expect("it stops");
        let report = tcp_echo::Report::of(&connections);
        assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (200, 0, 0, 0), "{report:?}");
        assert_eq!(report.by_server.get(&stable()), Some(&200));
        assert_eq!(report.bytes, report.exchanges * 512);
        assert!(report.exchanges > 400, "{report:?}");
        assert!(connections.iter().all(|connection| connection.state == tcp_echo::State::Closed && connection.local.port() != 0));
    }
}

#[test]
fn connections_whose_server_ends_are_broken() {
    let lab = Lab::builder(Topology::OneArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let server = tcp_echo::Server::start(&backend.namespace, &stable(), &backend.address.sockets(0)).expect("a server");
    let target = server.addresses()[0];
    let load = tcp_echo::Load { timeout: Duration::from_secs(1), ..tcp_echo::Load::new(own(&lab, target), target, 10) };
    let running = load.clone().start(lab.client()).expect("a load");
    drop(server);
    let deadline = Instant::now() + LIMIT;
    while running.report().broken < 10 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let report = running.report();
    assert_eq!((report.opened, report.broken, report.broken_by_server.get(&stable())), (10, 10, Some(&10)), "{report:?}");
    let report = tcp_echo::Report::of(&load.start(lab.client()).expect("a load").stop().expect("it stops"));
    assert_eq!((report.opened, report.not_opened, report.broken), (0, 10, 0), "{report:?}");
}

#[test]
fn a_server_that_garbles_or_is_swapped_under_a_connection_is_found_out() {
    let lab = Lab::builder(Topology::OneArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let listener = backend.namespace.enter(|| TcpListener::bind((backend.address.v4, 0))).expect("entered").expect("bound");
    let target = listener.local_addr().expect("bound");
    let liar = thread::spawn(move || {
        let mut stream = listener.accept().expect("accepted").0;
        stream.write_all(b"\x0estable/stable1").expect("written");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("read");
        let mut piece = vec![0; u32::from_be_bytes(length) as usize];
        while stream.read_exact(&mut piece).is_ok() {
            piece[100] ^= 0x10;
            // Not the tag of who it said it was.
            stream.write_all(&[&[7; 8], &piece[..]].concat()).expect("written");
        }
    });
    let running = tcp_echo::Load::new(own(&lab, target), target, 1).start(lab.client()).expect("a load");
    thread::sleep(Duration::from_millis(200));
    let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
    liar.join().expect("it ended well");
    assert!(report.exchanges > 1, "{report:?}");
    assert_eq!((report.bytes_wrong, report.strangers, report.broken), (report.exchanges, report.exchanges, 0), "{report:?}");
}

#[test]
fn udp_exchanges_are_checked_by_content_and_by_who_answers() {
    let lab = Lab::builder(Topology::OneArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    for address in backend.address.sockets(5300) {
        let server = udp_echo::Server::start(&backend.namespace, &stable(), &[address]).expect("a server");
        let load = udp_echo::Load { interval: Duration::from_millis(5), ..udp_echo::Load::new(own(&lab, address), address, 20) };
        let running = load.start(lab.client()).expect("a load");
        thread::sleep(Duration::from_millis(300));
        let before = running.report();
        assert_eq!((before.reached, before.lost, before.wrong, before.moves), (20, 0, 0, 0), "{before:?}");
        assert!(before.answered > 100, "{before:?}");
        // Nobody there: the kernel's ICMP error comes to the socket.
        drop(server);
        thread::sleep(Duration::from_millis(300));
        let without = running.report();
        assert!(without.lost > 0 && !without.errors.is_empty(), "{without:?}");
        let canary = Identity::new("canary", "canary1");
        let _server = udp_echo::Server::start(&backend.namespace, &canary, &[address]).expect("a server");
        thread::sleep(Duration::from_millis(1500));
        let after = udp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!((after.moves, after.wrong), (20, 0), "each socket saw the change once: {after:?}");
        assert_eq!(after.by_server.get(&canary), Some(&20));
    }
}

#[test]
fn a_garbled_datagram_is_wrong() {
    let lab = Lab::builder(Topology::OneArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let socket = backend.namespace.enter(|| UdpSocket::bind((backend.address.v4, 0))).expect("entered").expect("bound");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let target = socket.local_addr().expect("bound");
    let running = udp_echo::Load::new(own(&lab, target), target, 1).start(lab.client()).expect("a load");
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).expect("a request");
    buffer[length - 1] ^= 1;
    socket.send_to(&[b"\x0estable/stable1", &buffer[..length]].concat(), from).expect("sent");
    socket.recv_from(&mut buffer).expect("the next request");
    let report = running.report();
    assert_eq!((report.answered, report.wrong), (1, 1), "{report:?}");
}

#[test]
fn nginx_answers_curl_and_wrk_in_both_families() {
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let addresses = backend.address.sockets(80);
    let _nginx = tools::Nginx::start(&backend.namespace, &stable(), &addresses).expect("nginx");
    for target in addresses {
        let answer = tools::curl(lab.client(), target, "/", LIMIT).expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "stable\n"));
        assert_eq!((answer.version.as_str(), answer.backend.as_str()), ("stable", "stable1"));
        assert_eq!(answer.local.ip(), own(&lab, target));
        assert_eq!(tools::curl(lab.client(), target, "/1M", LIMIT).expect("an answer").body.len(), 1 << 20);
        assert_eq!(tools::curl(lab.client(), target, "/no", LIMIT).expect("an answer").status, 404);
        for close in [false, true] {
            let load = tools::WrkLoad { target, connections: 8, threads: 1, duration: Duration::from_secs(1), close };
            let report = tools::wrk(lab.client(), load, "/").expect("a report");
            assert!(report.requests > 100 && report.errors() == 0 && report.median_us > 0.0, "{report:?}");
        }
        let ours = http::Load::new(own(&lab, target), target, 200).run(lab.client()).expect("a load").summary();
        assert_eq!(ours.answered.get(&stable()), Some(&200), "{ours:?}");
    }
    let nobody = SocketAddr::new(addresses[0].ip(), 81);
    let refused = tools::curl(lab.client(), nobody, "/", LIMIT).expect_err("nobody is there");
    assert!(matches!(&refused, LabError::Command { status, .. } if status.code() == Some(7)), "{refused}");
}

#[test]
fn prometheus_scrapes_what_is_there_and_promtool_finds_fault() {
    const PAGE: &str = "# HELP lab_answers_total Answers.\n# TYPE lab_answers_total counter\nlab_answers_total{to=\"all\"} 42\n";
    let lab = Lab::builder(Topology::TwoArm).backends(["stable1"]).start().expect("a lab");
    let backend = &lab.backends()[0];
    let listener = backend.namespace.enter(|| TcpListener::bind((backend.address.v4, 9100))).expect("entered").expect("bound");
    // Ends with the test's process: it holds nothing but its socket.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            assert!(stream.read(&mut [0; 4096]).expect("a request") > 0);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n{PAGE}", PAGE.len()).expect("answered");
        }
    });
    let [there, missing] = [9100, 9101].map(|port| SocketAddr::from((backend.address.v4, port)));
    let prometheus = tools::Prometheus::start(lab.client(), &[there, missing]).expect("prometheus");
    let deadline = Instant::now() + LIMIT;
    while prometheus.query("sum(up) + count(up)").expect("an answer").first().map(|sample| sample.value) != Some(3.0) {
        assert!(Instant::now() < deadline, "{:?}", prometheus.query("up"));
        thread::sleep(Duration::from_millis(100));
    }
    let samples = prometheus.query("lab_answers_total{to=\"all\"}").expect("an answer");
    assert_eq!((samples.len(), samples[0].value), (1, 42.0));
    assert_eq!(samples[0].labels["instance"], there.to_string());
    assert!(prometheus.query("sum(").expect_err("not an expression").to_string().contains("parse error"));

    tools::promtool_check_metrics(lab.client(), PAGE).expect("no fault");
    let faults = tools::promtool_check_metrics(lab.client(), &PAGE.replace("_total", "")).expect_err("a fault");
    assert!(faults.to_string().contains("_total"), "{faults}");
}

fn stable() -> Identity {
    Identity::new("stable", "stable1")
}

/// An HTTP server on the first backend, on port 80 of both its addresses.
fn http_server(lab: &Lab, identity: &Identity) -> http::Server {
    let backend = &lab.backends()[0];
    http::Server::start(&backend.namespace, identity.clone(), &backend.address.sockets(80)).expect("a server")
}

/// The client's first address in a target's family.
fn own(lab: &Lab, target: SocketAddr) -> IpAddr {
    family(target, lab.client_addresses()[0])
}

fn family(target: SocketAddr, own: splitter_tests::lab::Addresses) -> IpAddr {
    match target {
        SocketAddr::V4(_) => own.v4.into(),
        SocketAddr::V6(_) => own.v6.into(),
    }
}

/// A request on a connection that is kept.
fn ask(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").expect("written");
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
