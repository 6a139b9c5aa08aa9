//! Routes and MAC addresses, with a real kernel: a node and a peer in network namespaces of their own, veth pairs
//! between them.
//!
//! The namespaces have no names; they live as long as the file descriptors that hold them, and so leave nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    io::Write as _,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    process::{Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use splitter_user::neighbor::{self, Change, Changes, Mac, NetlinkError, Settings, Watcher, Way, WayError};

const NODE_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
const PEER_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];
const SECOND_PEER_MAC: Mac = [0x02, 0, 0, 0, 1, 0x02];

/// Longer than anything here should take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_neighbor_on_the_link_is_found_in_both_families() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.2", "fd09::2"]);
        let ways = watcher.settled(LIMIT).await;
        let expected = |source: &str| Way {
            interface: lab.index,
            interface_name: "front".into(),
            vlan: None,
            source_mac: NODE_MAC,
            destination_mac: PEER_MAC,
            source_address: ip(source),
            gateway: None,
            mtu: 1500,
        };
        assert_eq!(ways[&ip("10.9.0.2")], Ok(expected("10.9.0.1")));
        assert_eq!(ways[&ip("fd09::2")], Ok(expected("fd09::1")));
        watcher.stop().await;
    });
}

#[test]
fn behind_a_gateway_the_way_has_the_gateways_mac_address_and_the_routes_mtu() {
    in_lab(|lab| async move {
        lab.node("route add 198.51.100.0/24 via 10.9.0.2 mtu 1400");
        lab.node("route add 203.0.113.0/24 via inet6 fd09::2");
        lab.node("route add 2001:db8::/32 via fd09::2 src fd09::1");
        let watcher = watching(&["198.51.100.7", "203.0.113.7", "2001:db8::7"]);
        let ways = watcher.settled(LIMIT).await;
        for (destination, gateway, source, mtu) in [
            ("198.51.100.7", "10.9.0.2", "10.9.0.1", 1400),
            ("203.0.113.7", "fd09::2", "10.9.0.1", 1500),
            ("2001:db8::7", "fd09::2", "fd09::1", 1500),
        ] {
            let way = ways[&ip(destination)].as_ref().unwrap_or_else(|error| panic!("{destination}: {error}"));
            assert_eq!(way.gateway, Some(ip(gateway)), "{destination}");
            assert_eq!(way.source_address, ip(source), "{destination}");
            assert_eq!((way.destination_mac, way.mtu), (PEER_MAC, mtu), "{destination}");
        }
        watcher.stop().await;
    });
}

#[test]
fn a_new_mac_address_of_the_peer_is_followed() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.2", "fd09::2"]);
        watcher.settled(LIMIT).await;
        // By default the kernel disbelieves a second answer within a second.
        lab.node_sysctl("ipv4/neigh/front/locktime", "0");
        lab.peer_sysctl("ipv4/conf/back/arp_notify", "1");
        lab.peer_sysctl("ipv6/conf/back/ndisc_notify", "1");
        lab.peer("link set back address 02:00:00:00:00:22");
        for destination in ["10.9.0.2", "fd09::2"] {
            until(&mut watcher.changes(), destination, |way| mac_of(way) == Some([0x02, 0, 0, 0, 0, 0x22])).await;
        }
        watcher.stop().await;
    });
}

#[test]
fn a_change_of_route_moves_the_way_to_the_other_interface() {
    in_lab(|lab| async move {
        lab.second_link();
        lab.node("route add 198.51.100.0/24 via 10.9.0.2");
        let watcher = watching(&["198.51.100.7"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        until(&mut changes, "198.51.100.7", |way| mac_of(way) == Some(PEER_MAC)).await;
        lab.node("route add 198.51.100.7/32 via 10.10.0.2");
        let change = until(&mut changes, "198.51.100.7", |way| mac_of(way) == Some(SECOND_PEER_MAC)).await;
        assert_eq!(change.way.expect("a way").interface_name, "front2");
        lab.node("route del 198.51.100.7/32");
        until(&mut changes, "198.51.100.7", |way| mac_of(way) == Some(PEER_MAC)).await;
        watcher.stop().await;
    });
}

#[test]
fn a_rule_that_selects_another_table_moves_the_way() {
    in_lab(|lab| async move {
        lab.second_link();
        lab.node("route add 198.51.100.0/24 via 10.9.0.2");
        lab.node("route add 198.51.100.0/24 via 10.10.0.2 table 7");
        let watcher = watching(&["198.51.100.7"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        lab.node("rule add to 198.51.100.0/24 lookup 7");
        until(&mut changes, "198.51.100.7", |way| mac_of(way) == Some(SECOND_PEER_MAC)).await;
        watcher.stop().await;
    });
}

#[test]
fn each_reason_for_having_no_way_has_its_own_name() {
    in_lab(|lab| async move {
        lab.node("route add prohibit 198.51.100.0/26");
        lab.node("route add blackhole 198.51.100.64/26");
        lab.node("route add unreachable 198.51.100.128/26");
        lab.node("route add prohibit 2001:db8:1::/48");
        lab.node("route add unreachable 2001:db8:2::/48");
        lab.node("tuntap add dev tunnel mode tun");
        lab.node("link set tunnel up");
        lab.node("route add 203.0.113.0/24 dev tunnel");
        let refused = |destination: &str, errno| (ip(destination), WayError::NoRoute { destination: ip(destination), errno });
        let here = |destination: &str| (ip(destination), WayError::LocalDestination { destination: ip(destination) });
        let expected = [
            refused("192.0.2.1", libc::ENETUNREACH),
            refused("2001:db8::1", libc::ENETUNREACH),
            refused("198.51.100.1", libc::EACCES),
            refused("198.51.100.65", libc::EINVAL),
            refused("198.51.100.129", libc::EHOSTUNREACH),
            refused("2001:db8:1::1", libc::EACCES),
            refused("2001:db8:2::1", libc::EHOSTUNREACH),
            here("10.9.0.1"),
            here("fd09::1"),
            here("127.0.0.1"),
            here("::1"),
            (ip("10.9.255.255"), WayError::NotUnicast { destination: ip("10.9.255.255") }),
            (ip("fe80::1"), WayError::LinkLocal { destination: ip("fe80::1") }),
            (ip("203.0.113.1"), WayError::NotEthernet { destination: ip("203.0.113.1"), interface: "tunnel".into() }),
        ];
        let watcher = Watcher::start(Settings::default()).expect("a watcher");
        watcher.watch(expected.iter().map(|(destination, _)| *destination).collect());
        let ways = watcher.settled(LIMIT).await;
        for (destination, error) in expected {
            assert_eq!(ways.get(&destination), Some(&Err(error)), "{destination}");
        }
        watcher.stop().await;
    });
}

#[test]
fn a_neighbor_that_never_answers_fails_and_is_back_with_its_first_answer() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.99", "fd09::99"]);
        for destination in ["10.9.0.99", "fd09::99"] {
            let mut changes = watcher.changes();
            let (neighbor, interface) = (ip(destination), "front".to_owned());
            let failed = Err(WayError::Failed { neighbor, interface });
            until(&mut changes, destination, |way| *way == failed).await;
        }
        lab.peer("addr add 10.9.0.99/16 dev back");
        lab.peer("addr add fd09::99/64 dev back nodad");
        for destination in ["10.9.0.99", "fd09::99"] {
            until(&mut watcher.changes(), destination, |way| mac_of(way) == Some(PEER_MAC)).await;
        }
        watcher.stop().await;
    });
}

#[test]
fn a_lost_carrier_takes_the_way_and_its_return_gives_it_back() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.2"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        until(&mut changes, "10.9.0.2", |way| way.is_ok()).await;

        lab.peer("link set back down");
        let down = Err(WayError::InterfaceDown { destination: ip("10.9.0.2"), interface: "front".into() });
        until(&mut changes, "10.9.0.2", |way| *way == down).await;
        lab.peer("link set back up");
        until(&mut changes, "10.9.0.2", |way| mac_of(way) == Some(PEER_MAC)).await;

        lab.node("link set front down");
        until(&mut changes, "10.9.0.2", |way| matches!(way, Err(WayError::NoRoute { .. }))).await;
        lab.node("link set front up");
        until(&mut changes, "10.9.0.2", |way| mac_of(way) == Some(PEER_MAC)).await;
        watcher.stop().await;
    });
}

#[test]
fn a_flushed_neighbor_is_resolved_again_without_its_way_being_lost() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.2", "fd09::2"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        assert_eq!(changes.next().await.map(|all| all.len()), Some(2), "what is known already comes first");
        for round in 0..20 {
            lab.node("neigh flush dev front");
            assert_silence(&mut changes, Duration::from_millis(100), &format!("flush {round}")).await;
        }
        assert_silence(&mut changes, Duration::from_secs(2), "after the last flush").await;
        for destination in ["10.9.0.2", "fd09::2"] {
            let entry = lab.node(&format!("neigh show {destination}"));
            assert!(entry.contains("02:00:00:00:00:02"), "resolved again: {entry:?}");
        }
        watcher.stop().await;
    });
}

#[test]
fn a_neighbor_that_is_forgotten_and_silent_fails_only_once_the_kernel_gave_up() {
    in_lab(|lab| async move {
        let watcher = watching(&["10.9.0.2"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        until(&mut changes, "10.9.0.2", |way| way.is_ok()).await;
        lab.peer("addr del 10.9.0.2/16 dev back");
        let flushed = Instant::now();
        lab.node("neigh flush dev front");
        let change = changes.next().await.expect("a change");
        assert!(matches!(change[0].way, Err(WayError::Failed { .. })), "{change:?}");
        // Three questions, 200 ms apart in this lab.
        assert!(flushed.elapsed() >= Duration::from_millis(500), "{:?}", flushed.elapsed());
        watcher.stop().await;
    });
}

#[test]
fn a_stale_neighbor_is_confirmed_though_nothing_is_sent_to_it_and_fails_when_it_is_gone() {
    in_lab(|lab| async move {
        lab.node_sysctl("ipv4/neigh/front/base_reachable_time_ms", "1000");
        lab.node_sysctl("ipv4/neigh/front/delay_first_probe_time", "1");
        let watcher = watching_with(&["10.9.0.2"], Settings { refresh: Duration::from_secs(1), ..Settings::default() });
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        until(&mut changes, "10.9.0.2", |way| way.is_ok()).await;
        // Through stale, delay, probe and back, several times over.
        assert_silence(&mut changes, Duration::from_secs(8), "while it is there").await;
        // Without a word: its address goes, its carrier stays.
        lab.peer("addr del 10.9.0.2/16 dev back");
        until(&mut changes, "10.9.0.2", |way| matches!(way, Err(WayError::Failed { .. }))).await;
        watcher.stop().await;
    });
}

#[test]
fn a_permanent_entry_is_used_and_stays_permanent() {
    in_lab(|lab| async move {
        lab.node("neigh add 10.9.0.50 lladdr 02:00:00:00:00:50 dev front nud permanent");
        let watcher = watching(&["10.9.0.50"]);
        let ways = watcher.settled(LIMIT).await;
        assert_eq!(mac_of(&ways[&ip("10.9.0.50")]), Some([0x02, 0, 0, 0, 0, 0x50]));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let entry = lab.node("neigh show 10.9.0.50");
        assert!(entry.contains("PERMANENT"), "{entry:?}");
        watcher.stop().await;
    });
}

#[test]
fn a_thousand_destinations_on_one_link_are_resolved_in_bounded_time() {
    in_lab(|lab| async move {
        // Half of each family: the kernel's two tables hold 1,024 entries each, for all namespaces of the machine together.
        let mut batch = String::new();
        let mut destinations = BTreeSet::new();
        for n in 0..500 {
            let (v4, v6) = (format!("10.9.{}.{}", 1 + n / 250, 1 + n % 250), format!("fd09::1:{n:x}"));
            batch.push_str(&format!("addr add {v4}/16 dev back\naddr add {v6}/64 dev back nodad\n"));
            destinations.extend([ip(&v4), ip(&v6)]);
        }
        lab.peer_batch(&batch);
        let watcher = Watcher::start(Settings::default()).expect("a watcher");
        let started = Instant::now();
        watcher.watch(destinations.clone());
        let ways = watcher.settled(LIMIT).await;
        let took = started.elapsed();
        eprintln!("1,000 destinations resolved in {took:?}");
        for destination in &destinations {
            assert_eq!(ways.get(destination).and_then(mac_of), Some(PEER_MAC), "{destination}: {:?}", ways.get(destination));
        }
        assert!(took < Duration::from_secs(10), "{took:?}");

        // And all of them follow one event.
        let started = Instant::now();
        lab.node("link set front mtu 1400");
        let mut changes = watcher.changes();
        let mut moved = BTreeSet::new();
        while moved.len() < destinations.len() {
            let next = tokio::time::timeout(LIMIT, changes.next()).await.expect("in time").expect("a live watcher");
            moved.extend(next.into_iter().filter(|change| mtu_of(change) == Some(1400)).map(|change| change.destination));
        }
        eprintln!("1,000 destinations followed an event in {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        watcher.stop().await;
    });
}

#[test]
fn lost_events_do_no_harm() {
    in_lab(|lab| async move {
        // No periodic look can help here, and hardly any event fits the buffer.
        let settings = Settings {
            event_buffer: 4096,
            recheck: Duration::from_secs(3600),
            refresh: Duration::from_secs(3600),
            ..Settings::default()
        };
        let watcher = watching_with(&["10.9.0.2", "198.51.100.7"], settings);
        watcher.settled(LIMIT).await;
        let mut flood = String::new();
        for n in 0..2000 {
            flood.push_str(&format!("route add 203.0.{}.{}/32 dev front\n", n / 250, n % 250));
        }
        // The runtime's only thread is kept busy meanwhile, so nobody reads events. The last ones find no room.
        lab.node_batch(&flood);
        lab.node("route add 198.51.100.0/24 via 10.9.0.2");
        lab.node("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:77 dev front nud permanent");
        let mut changes = watcher.changes();
        let mac = Some([0x02, 0, 0, 0, 0, 0x77]);
        until(&mut changes, "10.9.0.2", |way| mac_of(way) == mac).await;
        until(&mut watcher.changes(), "198.51.100.7", |way| mac_of(way) == mac).await;
        watcher.stop().await;
    });
}

#[test]
fn destinations_come_and_go_while_the_watcher_runs() {
    in_lab(|lab| async move {
        lab.peer("addr add 10.9.0.3/16 dev back");
        let watcher = watching(&["10.9.0.2"]);
        watcher.settled(LIMIT).await;
        let mut changes = watcher.changes();
        until(&mut changes, "10.9.0.2", |way| way.is_ok()).await;
        watcher.watch([ip("10.9.0.2"), ip("10.9.0.3")].into());
        let change = until(&mut changes, "10.9.0.3", |way| way.is_ok()).await;
        assert_eq!(mac_of(&change.way), Some(PEER_MAC));
        watcher.watch([ip("10.9.0.3")].into());
        assert_silence(&mut changes, Duration::from_millis(500), "those that go are not told of").await;
        assert_eq!(watcher.ways().keys().copied().collect::<Vec<_>>(), [ip("10.9.0.3")]);
        assert!(!watcher.is_dead());
        watcher.stop().await;
        assert_eq!(changes.next().await, None, "the end is told");
    });
}

#[test]
fn interfaces_and_addresses_are_told_as_they_are() {
    in_lab(|lab| async move {
        let front = neighbor::interface("front").await.expect("the interface");
        assert_eq!((front.index, front.mtu, front.up, front.mac), (lab.index, 1500, true, Some(NODE_MAC)));
        assert_eq!((front.kind.as_deref(), front.vlan, front.controller), (Some("veth"), None, None));
        assert_eq!(front.driver().expect("its driver"), "veth");
        let loopback = neighbor::interface("lo").await.expect("the loopback interface");
        assert_eq!((loopback.mac, loopback.driver().map_err(|error| error.raw_os_error())), (None, Err(Some(libc::EOPNOTSUPP))));
        let missing = neighbor::interface("missing").await;
        assert!(matches!(&missing, Err(NetlinkError::NoSuchInterface { name }) if name == "missing"), "{missing:?}");

        let held: Vec<String> = neighbor::addresses()
            .await
            .expect("addresses")
            .into_iter()
            .filter(|held| held.interface == lab.index && held.usable)
            .map(|held| held.address.to_string())
            .collect();
        assert!(["10.9.0.1/16", "fd09::1/64"].iter().all(|address| held.contains(&address.to_string())), "{held:?}");

        lab.node("route add local 192.0.2.0/24 dev lo");
        for (address, local) in
            [("10.9.0.1", true), ("192.0.2.9", true), ("fd09::1", true), ("10.9.0.2", false), ("8.8.8.8", false)]
        {
            assert_eq!(neighbor::is_local(ip(address)).await.expect("an answer"), local, "{address}");
        }
    });
}

/// Two namespaces. `front` of the node is joined to `back` of the peer.
struct Lab {
    node: OwnedFd,
    peer: OwnedFd,
    /// Index of `front`.
    index: u32,
}

/// Runs a test in a thread of its own, in the node's namespace, on a runtime that has no other thread.
fn in_lab<F: Future<Output = ()>>(test: impl FnOnce(Rc<Lab>) -> F + Send + 'static) {
    let node = new_namespace();
    let peer = new_namespace();
    let thread = thread::spawn(move || {
        setns(&node, CloneFlags::CLONE_NEWNET).expect("enter the node's namespace");
        let mut lab = Lab { node, peer, index: 0 };
        lab.first_link();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Held to the end, whatever the test's future keeps of it: without its descriptor the peer's namespace is gone.
        let lab = Rc::new(lab);
        runtime.block_on(test(Rc::clone(&lab)));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn new_namespace() -> OwnedFd {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace: these tests must run as root (CAP_SYS_ADMIN)");
        fs::File::open("/proc/thread-self/ns/net").expect("the namespace's file").into()
    })
    .join()
    .expect("the namespace's thread")
}

impl Lab {
    fn first_link(&mut self) {
        self.link("front", "00:00", "back", "10.9", "fd09");
        self.index = nix::net::if_::if_nametoindex("front").expect("the interface's index");
    }

    fn second_link(&self) {
        self.link("front2", "00:01", "back2", "10.10", "fd0a");
    }

    fn link(&self, front: &str, mac: &str, back: &str, v4: &str, v6: &str) {
        let peer = format!("/proc/{}/fd/{}", std::process::id(), self.peer.as_raw_fd());
        self.node_batch(&format!(
            "link set lo up\n\
             link add {front} address 02:00:00:{mac}:01 type veth peer name {back} address 02:00:00:{mac}:02 netns {peer}\n"
        ));
        for family in ["ipv4", "ipv6"] {
            // A fifth of the usual time, so that who does not answer fails sooner.
            self.node_sysctl(&format!("{family}/neigh/{front}/retrans_time_ms"), "200");
        }
        self.peer_batch(&format!("addr add {v4}.0.2/16 dev {back}\naddr add {v6}::2/64 dev {back} nodad\nlink set {back} up\n"));
        self.node_batch(&format!(
            "addr add {v4}.0.1/16 broadcast + dev {front}\naddr add {v6}::1/64 dev {front} nodad\nlink set {front} up\n"
        ));
        // The kernel makes a link ready in its own time.
        let ready = || {
            [(&self.node, front), (&self.peer, back)].iter().all(|(namespace, name)| {
                let link = ip_batch(namespace, &format!("link show {name}\n"));
                let addresses = ip_batch(namespace, &format!("addr show {name}\n"));
                link.contains("state UP") && addresses.contains("inet6 fe80:") && !addresses.contains("tentative")
            })
        };
        let began = Instant::now();
        while !ready() {
            assert!(began.elapsed() < LIMIT, "{front} does not get ready: {}", self.node("addr"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn node(&self, command: &str) -> String {
        ip_batch(&self.node, &format!("{command}\n"))
    }

    fn peer(&self, command: &str) -> String {
        ip_batch(&self.peer, &format!("{command}\n"))
    }

    fn node_batch(&self, commands: &str) {
        ip_batch(&self.node, commands);
    }

    fn peer_batch(&self, commands: &str) {
        ip_batch(&self.peer, commands);
    }

    fn node_sysctl(&self, name: &str, value: &str) {
        sysctl(&self.node, name, value);
    }

    fn peer_sysctl(&self, name: &str, value: &str) {
        sysctl(&self.peer, name, value);
    }
}

fn within<T: Send>(namespace: &OwnedFd, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            act()
        });
        thread.join().expect("the thread in the namespace")
    })
}

fn sysctl(namespace: &OwnedFd, name: &str, value: &str) {
    within(namespace, || fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}")));
}

fn ip_batch(namespace: &OwnedFd, commands: &str) -> String {
    within(namespace, || {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("iproute2's ip");
        child.stdin.take().expect("its input").write_all(commands.as_bytes()).expect("commands written");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "ip {commands}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    })
}

fn watching(destinations: &[&str]) -> Watcher {
    watching_with(destinations, Settings::default())
}

fn watching_with(destinations: &[&str], settings: Settings) -> Watcher {
    let watcher = Watcher::start(settings).expect("a watcher");
    watcher.watch(destinations.iter().map(|destination| ip(destination)).collect());
    watcher
}

/// Reads changes until one of this destination is as wanted.
async fn until(changes: &mut Changes, destination: &str, wanted: impl Fn(&Result<Way, WayError>) -> bool) -> Change {
    let destination = ip(destination);
    let mut last = None;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Ok(next) = tokio::time::timeout_at(deadline, changes.next()).await {
        for change in next.expect("a live watcher").into_iter().filter(|change| change.destination == destination) {
            if wanted(&change.way) {
                return change;
            }
            last = Some(change);
        }
    }
    panic!("{destination} did not get there in {LIMIT:?}; last: {last:?}");
}

async fn assert_silence(changes: &mut Changes, time: Duration, why: &str) {
    if let Ok(told) = tokio::time::timeout(time, changes.next()).await {
        panic!("{why}: {told:?}");
    }
}

fn mac_of(way: &Result<Way, WayError>) -> Option<Mac> {
    way.as_ref().ok().map(|way| way.destination_mac)
}

fn mtu_of(change: &Change) -> Option<u32> {
    change.way.as_ref().ok().map(|way| way.mtu)
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
