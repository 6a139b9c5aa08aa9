//! Everything that can arrive: large transfers over narrow paths, fragments, pings.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use splitter_tests::{
    lab::{Namespace, Topology},
    node::{FAMILIES, Family, Kind, Site},
    workload::{tcp_echo, udp_echo},
};
use splitter_user::model::Mode;

const LIMIT: Duration = Duration::from_secs(10);
/// Fits into no single packet of any link here.
const PIECE: usize = 200_000;
const NARROW: u32 = 1_300;
/// So many that chance gives none of two versions nothing.
const CONNECTIONS: usize = 24;

#[test]
fn in_nat_mode_large_transfers_pass_a_path_that_is_narrow_toward_the_client() {
    let site = builder(Topology::TwoArmSwitched, Mode::Nat).router().start().expect("a site");
    site.lab.narrow_path_to_client(NARROW).expect("narrow");
    transfers(&site);
    learned(&site);
}

#[test]
fn in_dsr_mode_large_transfers_pass_a_path_that_is_narrow_toward_the_client() {
    let site = builder(Topology::OneArm, Mode::Dsr).router().start().expect("a site");
    site.lab.narrow_path_to_client(NARROW).expect("narrow");
    transfers(&site);
    learned(&site);
}

#[test]
fn large_transfers_pass_a_path_that_is_narrow_toward_the_node() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = builder(topology, mode).router().start().expect("a site");
        site.lab.narrow_path_to_node(NARROW).expect("narrow");
        transfers(&site);
    }
}

#[test]
fn large_transfers_reach_backends_on_narrow_links() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        transfers(&builder(topology, mode).backend_mtu(NARROW).start().expect("a site"));
    }
}

#[test]
fn jumbo_frames_pass() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = builder(topology, mode).mtu(9_000).start().expect("a site");
        transfers(&site);
        datagrams(&site, 8_000);
    }
}

#[test]
fn datagrams_in_fragments_arrive_whole_in_both_directions() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Nat), (Topology::OneArm, Mode::Dsr)]
    {
        let site = builder(topology, mode).start().expect("a site");
        datagrams(&site, 4_000);
    }
}

#[test]
fn a_ping_to_the_service_address_is_answered_by_the_node() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = builder(topology, mode).start().expect("a site");
        // The backends are gone: only the node is left to answer.
        for server in &site.servers {
            server.namespace.ip(&["link set dev eth0 down"]).expect("down");
        }
        for family in FAMILIES {
            let target = SocketAddr::new(site.target(Kind::Web, family).ip(), 0);
            for number in 1..=3 {
                assert!(ping(site.lab.client(), target, number), "{mode}, {family:?}");
            }
        }
    }
}

fn builder(topology: Topology, mode: Mode) -> splitter_tests::node::SiteBuilder {
    Site::builder(topology, mode).kinds(&[Kind::Echo, Kind::Udp]).weight("50%")
}

/// Pieces that need many packets go both ways, on connections to every backend.
fn transfers(site: &Site) {
    for family in FAMILIES {
        let load = tcp_echo::Load { piece: PIECE, interval: Duration::from_millis(1), timeout: LIMIT, ..echo(site, family) };
        let running = load.start(site.lab.client()).expect("a load");
        let deadline = Instant::now() + LIMIT;
        let enough = |report: &tcp_echo::Report| report.exchanges >= 3 * CONNECTIONS as u64;
        while !enough(&running.report()) && running.report().broken == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        let what = format!("{}, {family:?}: {report:?}", site.mode());
        assert_eq!((report.opened, report.broken, report.bytes_wrong, report.strangers), (CONNECTIONS as u64, 0, 0, 0), "{what}");
        assert!(enough(&report) && report.by_server.len() >= 2, "{what}");
    }
}

/// The errors of the router were steered: a backend knows the path to the client, or to the node that hides it.
fn learned(site: &Site) {
    assert_eq!(skipped(site, "icmp_unrelated"), 0, "{}", site.mode());
    let toward = if site.mode() == Mode::Nat { site.lab.node().addresses[1] } else { site.lab.client_addresses()[0] };
    for family in FAMILIES {
        let mut knows = 0;
        for server in &site.servers {
            let mut ask = Command::new("ip");
            ask.args(["route", "get", &family.of(toward).to_string()]);
            knows += usize::from(server.namespace.run(ask).expect("asked").contains(&format!("mtu {NARROW}")));
        }
        assert!(knows >= 2, "{}, {family:?}: {knows} backends know the path", site.mode());
    }
}

/// Packets that the kernel got untouched, for this reason.
fn skipped(site: &Site, reason: &str) -> u64 {
    let (_, page) = site.node.http("/metrics").expect("a page");
    let series = format!("splitter_packets_skipped_total{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).expect("it is counted")
}

fn datagrams(site: &Site, length: usize) {
    for family in FAMILIES {
        // Who reassembles tells datagrams in IPv4 by addresses, protocol and 16 bits that each sender chooses for itself (RFC 6864, 5.2). Backends share the service's address toward
        // the client, and in `nat` clients share the node's: of many exchanges at once some would be mixed up, however they're forwarded. So one comes after the other there;
        // IPv6 has 32 bits.
        let (turns, sockets) = if family == Family::V4 { (20, 1) } else { (1, 20) };
        let mut exchanges = Vec::new();
        for _ in 0..turns {
            let load = udp_echo::Load::new(site.client(family), site.target(Kind::Udp, family), sockets);
            let load = udp_echo::Load { length, interval: Duration::from_millis(5), ..load };
            let running = load.start(site.lab.client()).expect("a load");
            let deadline = Instant::now() + LIMIT;
            while running.report().answered < 6 * sockets as u64 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            exchanges.extend(running.stop().expect("it stops"));
        }
        let report = udp_echo::Report::of(&exchanges);
        let what = format!("{}, {family:?}: {report:?}", site.mode());
        assert_eq!((report.reached, report.wrong, report.moves), (20, 0, 0), "{what}");
        let unknown = skipped(site, "fragment_unknown");
        assert_eq!((report.lost, unknown), (0, 0), "{what}");
        // By chance, one of three may get none of twenty; that one gets all is one in a million.
        assert!(report.answered >= 120 && report.by_server.len() >= 2, "{what}");
    }
}

fn echo(site: &Site, family: Family) -> tcp_echo::Load {
    tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), CONNECTIONS)
}

/// Whether an echo request is answered with what it held.
fn ping(namespace: &Namespace, target: SocketAddr, number: u8) -> bool {
    // Who may ping without being root, this group included: a socket of its own kind, whose identifier the kernel fills in.
    namespace.sysctl("net.ipv4.ping_group_range", "0 0").expect("set");
    let made = namespace.enter(|| match target {
        SocketAddr::V4(_) => socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp),
        SocketAddr::V6(_) => socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6),
    });
    let socket = UdpSocket::from(made.expect("entered").expect("a socket"));
    let (request, reply) = if target.is_ipv4() { (8, 0) } else { (128, 129) };
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    socket.connect(target).expect("connected");
    socket.send(&[request, 0, 0, 0, 0, 0, 0, number, b'h', b'i']).expect("sent");
    let mut answer = [0; 100];
    socket.recv(&mut answer).is_ok_and(|length| length == 10 && answer[0] == reply && answer[7..10] == [number, b'h', b'i'])
}
