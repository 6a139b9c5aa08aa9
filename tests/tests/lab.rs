//! The lab itself, without Splitter: plain routing and switching.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use splitter_tests::lab::{
    Backend, Capture, Captured, Direction, Frame, Lab, LabError, Namespace, Offload, Topology, Verdict, attach, inject,
};

const TOPOLOGIES: [Topology; 3] = [Topology::OneArm, Topology::TwoArm, Topology::TwoArmSwitched];
const LIMIT: Duration = Duration::from_secs(10);
/// Set for this very binary when a test starts it to be killed.
const VICTIM: &str = "SPLITTER_LAB_VICTIM";

#[test]
fn every_backend_is_reached_from_every_client_address_in_both_families() {
    for topology in TOPOLOGIES {
        for router in [false, true] {
            let builder = Lab::builder(topology).backends(["a", "b", "c"]).client_addresses(3);
            let lab = if router { builder.router() } else { builder }.start().expect("a lab");
            for backend in lab.backends() {
                for client in lab.client_addresses() {
                    let what = format!("{topology:?}, router {router}, {}", backend.name);
                    echo_over_udp(lab.client(), client.v4.into(), backend, backend.address.v4.into(), &what);
                    echo_over_udp(lab.client(), client.v6.into(), backend, backend.address.v6.into(), &what);
                }
            }
        }
    }
}

#[test]
fn the_service_address_is_the_nodes_own() {
    for topology in TOPOLOGIES {
        let lab = Lab::builder(topology).start().expect("a lab");
        for address in lab.service().sockets(80) {
            let listener = lab.node().namespace.enter(|| TcpListener::bind(address)).expect("entered").expect("bound");
            lab.client().enter(|| TcpStream::connect_timeout(&address, LIMIT)).expect("entered").expect("connected");
            drop(listener);
        }
    }
}

#[test]
fn a_backend_answers_a_client_directly_from_the_service_address_and_keeps_silent_about_it() {
    let lab = Lab::builder(Topology::OneArm).backends(["a"]).dsr().router().start().expect("a lab");
    let backend = &lab.backends()[0];
    // What the node will do: the frame's destination becomes the backend's MAC address, and nothing else changes.
    let router = lab.ns("router").expect("it has a router");
    let mac = mac_text(backend.namespace.mac("eth0").expect("it has one"));
    let node = lab.node().addresses[0];
    for address in lab.service().sockets(4000) {
        let server = backend.namespace.enter(|| UdpSocket::bind(address)).expect("entered").expect("bound");
        let own = lab.client_addresses()[0];
        let (own, gateway): (IpAddr, IpAddr) = match address {
            SocketAddr::V4(_) => (own.v4.into(), node.v4.into()),
            SocketAddr::V6(_) => (own.v6.into(), node.v6.into()),
        };
        let client = lab.client().enter(|| connected(own, address)).expect("entered");
        router.ip(&[format!("neigh replace {gateway} lladdr {mac} dev node")]).expect("steered");
        exchange(&client, &server, "dsr");
        router.ip(&[format!("neigh del {gateway} dev node")]).expect("no longer steered");
        // Asked who has the service address, only the node answers.
        let seen = Capture::start(router, "node", 1000, LIMIT, |_| true).expect("a capture");
        router.ip(&[format!("route replace {} dev node", address.ip())]).expect("the service is on the link");
        client.send(b"who has it?").expect("sent");
        thread::sleep(Duration::from_millis(200));
        let (asked, answers) = neighbour_questions(&seen.stop().expect("captured"));
        assert!(asked > 0, "{address}");
        // IPv6 answers for the addresses of the device asked only, and the node's is on its loopback.
        let node_mac = lab.node().namespace.mac("eth0").expect("it has one");
        assert_eq!(answers, if address.is_ipv4() { vec![node_mac] } else { vec![] }, "{address}");
    }
}

#[test]
fn a_lab_comes_up_fast_and_leaves_nothing_behind() {
    let begun = Instant::now();
    let lab = Lab::builder(Topology::OneArm).backends(["a", "b", "c", "d"]).start().expect("a lab");
    let took = begun.elapsed();
    let paths: Vec<PathBuf> = lab.namespaces().map(|namespace| Path::new("/run/netns").join(namespace.name())).collect();
    assert_eq!(paths.len(), 7);
    assert!(paths.iter().all(|path| path.exists()));
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000");
    // Forgotten, so that only the lab can end it.
    let mut sleeper = std::mem::ManuallyDrop::new(lab.client().spawn(sleeper).expect("started"));
    assert!(sleeper.runs().expect("asked"));
    drop(lab);
    assert!(!paths.iter().any(|path| path.exists()), "{paths:?}");
    assert!(!sleeper.wait(LIMIT).expect("it ended").success());
    // Well under a second when alone; here other tests share the cores.
    assert!(took < Duration::from_secs(5), "{took:?}");
    println!("a lab of 7 namespaces took {took:?}");
}

#[test]
fn a_panicking_test_takes_its_lab_down() {
    let (sender, names) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let lab = Lab::builder(Topology::TwoArm).start().expect("a lab");
        sender.send(lab.client().name().to_owned()).expect("someone listens");
        lab.client().enter(|| std::panic::resume_unwind(Box::new("on purpose"))).expect("entered")
    });
    panicked.join().expect_err("it panics, through the namespace's thread");
    let name = names.recv().expect("it had a lab");
    assert!(!Path::new("/run/netns").join(name).exists());
}

#[test]
fn two_labs_stand_side_by_side_with_the_same_addresses() {
    let labs = [(); 2].map(|()| Lab::builder(Topology::TwoArm).backends(["a"]).start().expect("a lab"));
    let address = labs[0].backends()[0].address;
    assert_eq!(address, labs[1].backends()[0].address);
    let servers = labs.each_ref().map(|lab| {
        let backend = &lab.backends()[0].namespace;
        backend.enter(|| TcpListener::bind((address.v4, 80))).expect("entered").expect("bound")
    });
    for ((lab, server), greeting) in labs.iter().zip(&servers).zip([b"one", b"two"]) {
        let mut client = lab.client().enter(|| TcpStream::connect((address.v4, 80))).expect("entered").expect("connected");
        server.accept().expect("accepted").0.write_all(greeting).expect("written");
        let mut read = Vec::new();
        client.read_to_end(&mut read).expect("read");
        assert_eq!(read, greeting);
    }
}

#[test]
fn what_a_killed_process_left_is_reaped_and_nothing_else() {
    if std::env::var_os(VICTIM).is_some() {
        return be_the_victim();
    }
    let mine = Lab::builder(Topology::OneArm).start().expect("a lab");
    let mut victim = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "what_a_killed_process_left_is_reaped_and_nothing_else", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut output = io::BufReader::new(victim.stdout.take().expect("a pipe"));
    let (mut name, mut child) = (String::new(), String::new());
    let mut line = String::new();
    while io::BufRead::read_line(&mut output, &mut line).expect("it speaks") > 0 {
        if let Some((found, id)) = line.trim().strip_prefix("victim ").and_then(|rest| rest.split_once(' ')) {
            (name, child) = (found.into(), id.into());
            break;
        }
        line.clear();
    }
    let path = Path::new("/run/netns").join(&name);
    assert!(!name.is_empty() && path.exists(), "{name:?}");

    let reaped = Lab::reap().expect("reaped");
    assert!(!reaped.contains(&name), "its owner lives");
    victim.kill().expect("killed");
    victim.wait().expect("gone");
    // Another process's lab may start in this moment and be first; what counts is that it goes.
    Lab::reap().expect("reaped");
    assert!(!path.exists());
    assert!(lives_not(&child), "the process it left in the namespace is ended too");
    assert!(mine.namespaces().all(|namespace| Path::new("/run/netns").join(namespace.name()).exists()));
}

/// Builds a lab with a process in it, tells of it, and waits to be killed.
fn be_the_victim() {
    let lab = Lab::builder(Topology::OneArm).start().expect("a lab");
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000").stdout(Stdio::null());
    let sleeper = lab.client().spawn(sleeper).expect("started");
    println!("\nvictim {} {}", lab.client().name(), sleeper.id().expect("it runs"));
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_capture_sees_each_frame_once_with_its_tags_and_stops_at_its_bounds() {
    let lab = Lab::builder(Topology::OneArm).backends(["a"]).start().expect("a lab");
    let backend = &lab.backends()[0].namespace;
    let (from, to) = (lab.client().mac("eth0").expect("it has one"), backend.mac("eth0").expect("it has one"));
    let ours = |frame: &Frame| frame.bytes.ends_with(b"lab");
    let all = Capture::start(backend, "eth0", 1000, LIMIT, ours).expect("a capture");
    let three = Capture::start(backend, "eth0", 3, LIMIT, ours).expect("a capture");
    let sent = Capture::start(lab.client(), "eth0", 5, LIMIT, ours).expect("a capture");
    // Experimental EtherType 1 (IEEE 802), untagged, in one tag and in two.
    let kinds: [&[u8]; 3] =
        [&[0x88, 0xb5], &[0x81, 0x00, 0x20, 0x07, 0x88, 0xb5], &[0x88, 0xa8, 0x00, 0x01, 0x81, 0x00, 0x00, 0x02, 0x88, 0xb5]];
    let frames: Vec<Vec<u8>> =
        (0..5_u8).map(|number| [&to[..], &from, kinds[usize::from(number) % 3], &[0; 46], &[number], b"lab"].concat()).collect();
    for frame in &frames {
        inject(lab.client(), "eth0", frame).expect("sent");
    }
    let bytes = |captured: &Captured| captured.frames.iter().map(|frame| frame.bytes.clone()).collect::<Vec<_>>();
    let three = three.finish().expect("captured");
    assert_eq!(bytes(&three), frames[..3]);
    assert!(three.frames.iter().all(|frame| frame.direction == Direction::In));
    let sent = sent.finish().expect("captured");
    assert_eq!(bytes(&sent), frames);
    assert!(sent.frames.iter().all(|frame| frame.direction == Direction::Out));
    thread::sleep(Duration::from_millis(50));
    let all = all.stop().expect("captured");
    assert_eq!(bytes(&all), frames);
    assert_eq!(all.lost, 0);
}

#[test]
fn what_a_program_on_the_node_sends_arrives_at_every_facing_end() {
    for (topology, facing) in [
        (Topology::OneArm, vec![("switch", "node", "eth0")]),
        (Topology::TwoArm, vec![("client", "eth0", "front"), ("a", "eth0", "back1")]),
    ] {
        let lab = Lab::builder(topology).backends(["a"]).start().expect("a lab");
        let node = &lab.node().namespace;
        for (label, end, device) in facing {
            for verdict in [Verdict::Tx, Verdict::Redirect(node.ifindex(device).expect("it is there"))] {
                let _attached = attach(node, device, verdict).expect("attached");
                assert_eq!(bounced(lab.ns(label).expect("it is there"), end), 10, "{topology:?}, {device}, {verdict:?}");
            }
        }
    }
}

#[test]
fn a_bare_veth_swallows_what_a_program_sends_unless_the_other_end_polls() {
    let lab = Lab::builder(Topology::TwoArm).backends(["a"]).start().expect("a lab");
    let (client, node) = (lab.client(), &lab.node().namespace);
    for (redirect, gro, pass, arrives) in [
        (false, false, false, Some(0)),
        // Up to Linux 6.18 at least, veth_xdp_flush wakes the other end only for the sake of a program: frames
        // wait in the ring for something else to wake it. Not held against a kernel that does better.
        (false, true, false, None),
        (false, false, true, Some(10)),
        (true, false, false, Some(0)),
        (true, true, false, Some(10)),
        (true, false, true, Some(10)),
    ] {
        client
            .ip(&[&format!("link add t0 type veth peer name t1 netns {}", node.name()), "link set t0 up"])
            .expect("a bare pair");
        node.ip(&["link set t1 up"]).expect("up");
        client.set_offload("t0", Offload::Gro, gro).expect("switched");
        let verdict = if redirect { Verdict::Redirect(node.ifindex("t1").expect("it is there")) } else { Verdict::Tx };
        let _sends = attach(node, "t1", verdict).expect("attached");
        let _polls = pass.then(|| attach(client, "t0", Verdict::Pass).expect("attached"));
        let arrived = bounced(client, "t0");
        println!("redirect {redirect}, GRO {gro}, program {pass}: {arrived} of 10 arrived");
        assert!(arrives.is_none_or(|arrives| arrives == arrived), "redirect {redirect}, GRO {gro}, program {pass}: {arrived}");
        client.ip(&["link del t0"]).expect("deleted");
    }
}

#[test]
fn what_reaches_the_node_carries_whole_checksums_even_through_a_switch() {
    for topology in [Topology::OneArm, Topology::TwoArm] {
        let lab = Lab::builder(topology).backends(["a"]).start().expect("a lab");
        let node = lab.node();
        let to = SocketAddr::from((lab.service().v4, 9));
        let is_ours = |frame: &Frame| frame.direction == Direction::In && frame.bytes.ends_with(b"checked");
        let seen = Capture::start(&node.namespace, &node.front, 1, LIMIT, is_ours).expect("a capture");
        let client = lab.client().enter(|| connected(lab.client_addresses()[0].v4.into(), to)).expect("entered");
        client.send(b"checked").expect("sent");
        let seen = seen.finish().expect("captured").frames;
        let [frame] = &seen[..] else { panic!("{topology:?}: {seen:?}") };
        // The pseudo header and the datagram of an IPv4 packet without options add up to all ones (RFC 768).
        let ip = &frame.bytes[14..];
        let udp = &ip[20..];
        let sum = [&ip[12..20], &[0, 17], &udp[4..6], udp, &[0]]
            .concat()
            .chunks_exact(2)
            .fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{topology:?}");
    }
}

#[test]
fn a_narrow_path_to_the_client_is_reported_to_the_sender() {
    let lab = Lab::builder(Topology::TwoArm).backends(["a"]).router().start().expect("a lab");
    lab.narrow_path_to_client(1300).expect("narrowed");
    let backend = &lab.backends()[0];
    let client = lab.client_addresses()[0];
    for (client, own) in
        [(IpAddr::from(client.v4), IpAddr::from(backend.address.v4)), (client.v6.into(), backend.address.v6.into())]
    {
        let socket = backend.namespace.enter(|| connected(own, (client, 9).into())).expect("entered");
        // Fits the link, so the first attempts leave; the router's answer is then met at the socket.
        let too_big = (0..50).any(|_| {
            thread::sleep(Duration::from_millis(10));
            socket.send(&[0; 1400]).is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE))
        });
        assert!(too_big, "{client}");
    }
}

#[test]
fn a_runtimes_threads_and_blocking_threads_are_all_inside() {
    let lab = Lab::builder(Topology::TwoArm).backends(["a"]).start().expect("a lab");
    let here = || fs::read_link("/proc/thread-self/ns/net").expect("readable");
    let inside = lab.client().enter(here).expect("entered");
    assert_ne!(inside, here());
    let runtime = lab.client().runtime(2).expect("a runtime");
    let seen = runtime.block_on(async {
        let tasks = (0..20).flat_map(|_| [tokio::spawn(async move { here() }), tokio::task::spawn_blocking(here)]);
        futures::future::try_join_all(tasks).await.expect("none panicked")
    });
    assert!(seen.iter().all(|namespace| *namespace == inside));
    assert_eq!(lab.client().block_on(async { here() }).expect("entered"), inside);
}

#[test]
fn what_fails_says_what_it_was() {
    let lab = Lab::builder(Topology::TwoArm).backends(["a"]).start().expect("a lab");
    let error = |result: Result<(), LabError>| result.expect_err("it cannot work").to_string();
    assert!(error(lab.ns("moon").map(drop)).contains("it has a, client, node"));
    assert!(error(lab.client().mac("eth7").map(drop)).contains("eth7"));
    let ip = error(lab.client().ip(&["link set dev lo up", "route add 10.9.0.0/16 via 10.8.0.1"]));
    assert!(ip.contains("route add 10.9.0.0/16 via 10.8.0.1") && !ip.contains("lo up"), "{ip}");
    assert!(error(lab.client().sysctl("net.ipv4.no_such_thing", 1)).contains("no_such_thing"));
    let mut fails = Command::new("sh");
    fails.args(["-c", "echo the reason >&2; exit 3"]);
    let fails = error(lab.client().run(fails).map(drop));
    assert!(fails.contains("the reason") && fails.contains("exit status: 3"), "{fails}");
    assert!(error(lab.narrow_path_to_client(1300)).contains("router"));
}

fn echo_over_udp(client: &Namespace, from: IpAddr, backend: &Backend, to: IpAddr, what: &str) {
    let server = backend.namespace.enter(|| UdpSocket::bind((to, 0))).expect("entered").expect("bound");
    let client = client.enter(|| connected(from, server.local_addr().expect("bound"))).expect("entered");
    exchange(&client, &server, &format!("{what}: {from} to {to}"));
}

fn connected(from: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).expect("bound");
    socket.connect(to).expect("connected");
    socket
}

fn exchange(client: &UdpSocket, server: &UdpSocket, what: &str) {
    let mut buffer = [0; 16];
    for socket in [client, server] {
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    }
    client.send(b"ping").expect("sent");
    let (length, from) = server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{what}: no request: {error}"));
    assert_eq!(from, client.local_addr().expect("bound"), "{what}");
    server.send_to(&buffer[..length], from).expect("sent");
    let length = client.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
    assert_eq!(&buffer[..length], b"ping", "{what}");
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// How many ARP requests (RFC 826) and neighbour solicitations (RFC 4861) asked for the service address, and who
/// answered them.
fn neighbour_questions(captured: &Captured) -> (usize, Vec<[u8; 6]>) {
    let service = splitter_tests::lab::SERVICE;
    let arp = |frame: &[u8], operation: u8, address: std::ops::Range<usize>| {
        frame.get(12..14) == Some(&[8, 6])
            && frame.get(21) == Some(&operation)
            && frame.get(address) == Some(&service.v4.octets()[..])
    };
    let discovery = |frame: &[u8], kind| {
        frame.get(12..14) == Some(&[0x86, 0xdd])
            && frame.get(54) == Some(&kind)
            && frame.get(62..78) == Some(&service.v6.octets())
    };
    let frames = || captured.frames.iter().map(|frame| &frame.bytes[..]);
    let asked = frames().filter(|frame| arp(frame, 1, 38..42) || discovery(frame, 135)).count();
    let answers = frames().filter(|frame| arp(frame, 2, 28..32) || discovery(frame, 136));
    (asked, answers.map(|frame| frame[6..12].try_into().expect("six bytes")).collect())
}

fn lives_not(process: &str) -> bool {
    // Killed, it may stay a zombie for as long as init takes to look after it.
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match fs::read_to_string(format!("/proc/{process}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => thread::sleep(Duration::from_millis(10)),
            Ok(_) | Err(_) => return true,
        }
    }
    false
}

/// How many of ten frames that are sent into the node come back to where they were sent from.
fn bounced(sender: &Namespace, device: &str) -> usize {
    let is_ours = |frame: &Frame| frame.direction == Direction::In && frame.bytes.ends_with(b"bounce");
    let back = Capture::start(sender, device, 10, Duration::from_millis(500), is_ours).expect("a capture");
    // Locally administered addresses that nobody has.
    let frame = [&[2, 0, 0, 0, 0, 9][..], &[2, 0, 0, 0, 0, 8], &[0x88, 0xb5], &[0; 46], b"bounce"].concat();
    for _ in 0..10 {
        inject(sender, device, &frame).expect("sent");
    }
    back.finish().expect("captured").frames.len()
}
