//! The kernel's data plane under the agent's trait: made, adopted, changed, refused.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use splitter_tests::{
    lab::{Lab, Topology, Verdict, attach},
    workload::{Identity, http},
};
use splitter_user::{
    config::{Nat, PortRange, Tables, XdpMode},
    dataplane::{
        ApplyError, Dataplane, ServiceKey, WantedBackend, WantedService,
        kernel::{self, KernelDataplane, OpenError, Options},
    },
    model::{Affinity, BackendWeight, Cohort, Existing, Mode, OnLeaseExpiry, Protocol, Seed, Timeouts, Weight},
    neighbor::Way,
};

/// A lab with the servers of two versions, and a pin directory of its own.
struct Setting {
    lab: Lab,
    servers: Vec<http::Server>,
    pins: Pins,
}

struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = kernel::unpin(&self.0) {
            eprintln!("pins are left: {error}");
        }
    }
}

#[test]
fn a_connection_is_split_by_weight_and_adopted_with_all_its_state() {
    let setting = Setting::new();
    let key = setting.key();
    let counted = setting.in_node(|options| {
        let (mut dataplane, warnings) = kernel::open(options).expect("opened");
        assert_eq!(warnings, Vec::<String>::new());
        dataplane.apply(&[setting.wanted(Weight::ZERO)]).expect("applied");
        assert_eq!(setting.versions(50), ["stable"]);
        dataplane.steer(&key, Weight::ALL, None).expect("steered");
        assert_eq!(setting.versions(50), ["canary"]);
        dataplane.steer(&key, Weight::ZERO, Some(Existing::Keep)).expect("steered");
        assert_eq!(setting.versions(50), ["stable"]);
        let service = &dataplane.sample().services[&key];
        let opened: u64 = service.backends.values().map(|backend| backend.counters.opened).sum();
        let completed: u64 = service.backends.values().map(|backend| backend.counters.completed).sum();
        assert_eq!((opened, completed, service.flip), (150, 150, Some(Existing::Keep)));
        service.clone()
    });
    // The agent is gone, traffic flows on.
    assert_eq!(setting.versions(20), ["stable"]);
    setting.in_node(|options| {
        let (mut dataplane, warnings) = kernel::open(options).expect("adopted");
        assert_eq!((warnings, dataplane.info().adoptions), (Vec::new(), 1));
        let service = &dataplane.sample().services[&key];
        assert_eq!(service.flip, counted.flip, "what was asked stands in the data plane");
        assert_eq!(service.backends.keys().collect::<Vec<_>>(), counted.backends.keys().collect::<Vec<_>>());
        let opened: u64 = service.backends.values().map(|backend| backend.counters.opened).sum();
        assert_eq!(opened, 170, "counters go on");
        dataplane.apply(&[setting.wanted(Weight::ALL)]).expect("applied");
        assert_eq!(setting.versions(50), ["canary"]);
    });
}

#[test]
fn changes_that_do_not_fit_change_nothing() {
    let setting = Setting::new();
    let key = setting.key();
    setting.in_node(|options| {
        let small = Options { tables: Tables { services: 1, backends: 3, networks: 2, ..options.tables }, ..options.clone() };
        let (mut dataplane, _) = kernel::open(&small).expect("opened");
        dataplane.apply(&[setting.wanted(Weight::ALL)]).expect("applied");
        let before = dataplane.sample().services;
        let refused = |dataplane: &mut KernelDataplane, wanted: &[WantedService], what: &str| {
            let error = dataplane.apply(wanted).expect_err(what);
            assert!(matches!(error, ApplyError::NoRoom { what: found, .. } if found == what), "{what}: {error}");
        };
        let mut second = setting.wanted(Weight::ZERO);
        second.key.address.set_port(81);
        second.backends.clear();
        refused(&mut dataplane, &[setting.wanted(Weight::ZERO), second], "services");
        let mut more = setting.wanted(Weight::ZERO);
        more.backends[0].address.set_port(9_999);
        refused(&mut dataplane, &[more], "backends");
        let mut networks = setting.wanted(Weight::ZERO);
        networks.always_canary = (0..3).map(|n| format!("10.{n}.0.0/16").parse().expect("a network")).collect();
        refused(&mut dataplane, &[networks], "networks");
        let mut elsewhere = setting.wanted(Weight::ZERO);
        if let Some(way) = &mut elsewhere.backends[0].way {
            way.interface = 4_711;
        }
        let error = dataplane.apply(&[elsewhere]).expect_err("not attached there");
        assert!(matches!(error, ApplyError::NotAttached { .. }), "{error}");
        assert_eq!(dataplane.sample().services, before);
        assert_eq!(setting.versions(50), ["canary"]);
        assert!(matches!(
            dataplane.steer(&ServiceKey { protocol: Protocol::Udp, ..key }, Weight::ALL, None),
            Err(ApplyError::NoService(_))
        ));
    });
}

#[test]
fn a_removed_backend_keeps_its_connections_until_they_end() {
    let setting = Setting::new();
    let key = setting.key();
    setting.in_node(|options| {
        let (mut dataplane, _) = kernel::open(options).expect("opened");
        dataplane.apply(&[setting.wanted(Weight::ALL)]).expect("applied");
        let held = setting.lab.client().enter(|| TcpStream::connect_timeout(&key.address, Duration::from_secs(5)));
        let held = held.expect("entered").expect("connected");
        let canary = setting.wanted(Weight::ALL).backends.into_iter().find(|backend| backend.cohort == Cohort::Canary);
        let canary = canary.expect("there is one").address;
        let mut without = setting.wanted(Weight::ALL);
        without.backends.retain(|backend| backend.cohort == Cohort::Stable);
        dataplane.apply(&[without]).expect("applied");
        let sample = &dataplane.sample().services[&key].backends[&canary];
        assert!(!sample.wanted && !sample.usable);
        assert_eq!(dataplane.sweep().connections[&(key, canary)], 1);
        assert_eq!(setting.versions(20), ["stable"]);
        let local = held.local_addr().expect("connected");
        let explained = dataplane.explain(&key, local.ip(), Some(local.port()), None).expect("a service");
        assert_eq!(explained.known, Some(canary));
        drop(held);
    });
}

#[test]
fn explain_and_trace_name_what_the_program_did() {
    let setting = Setting::new();
    let key = setting.key();
    setting.in_node(|options| {
        let (mut dataplane, _) = kernel::open(options).expect("opened");
        dataplane.apply(&[setting.wanted("50%".parse().expect("a weight"))]).expect("applied");
        dataplane.trace(&key, Some("0.0.0.0/0".parse().expect("a network"))).expect("traced");
        let report = setting.load(64);
        let traced = dataplane.traced();
        for record in report {
            let local = record.local;
            let answered = version(&record);
            let explained = dataplane.explain(&key, local.ip(), Some(local.port()), None).expect("a service");
            let chosen = explained.backend.expect("there are backends");
            assert_eq!(setting.version_of(chosen), answered, "explain {local}");
            let opening = traced
                .iter()
                .find(|traced| (traced.client, traced.port) == (local.ip(), local.port()) && traced.tcp_flags & 2 != 0);
            let (_, backend, _) = opening.unwrap_or_else(|| panic!("{local} was traced")).to.expect("it has a backend");
            assert_eq!(backend, chosen, "trace {local}");
        }
        dataplane.trace(&key, None).expect("stopped");
        setting.versions(5);
        assert_eq!(dataplane.traced(), Vec::new(), "nothing is reported when nobody listens");
    });
}

#[test]
fn what_stands_in_the_way_is_named_and_what_ran_runs_on() {
    let setting = Setting::new();
    let front = setting.lab.node().front.clone();
    setting.in_node(|options| {
        let missing = Options { interfaces: vec!["nosuch0".to_owned()], ..options.clone() };
        assert!(matches!(open_error(&missing), OpenError::NoInterface { name } if name == "nosuch0"));
        let addresses = (1..=70).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let many = Options { nat: Nat { addresses, ports: PortRange { low: 1_024, high: 32_767 } }, ..options.clone() };
        assert!(matches!(open_error(&many), OpenError::TooManyPorts { addresses: 70, ports: 31_744 }));
        let off_bpffs = Options {
            pin_directory: PathBuf::from("/tmp").join(format!("splitter-pins-{}", std::process::id())),
            ..options.clone()
        };
        let error = open_error(&off_bpffs);
        fs::remove_dir_all(&off_bpffs.pin_directory).expect("it was made");
        assert!(matches!(error, OpenError::NoBpfFs { .. }), "{error}");
        let other = attach(&setting.lab.node().namespace, &front, Verdict::Pass).expect("attached");
        let error = open_error(options);
        assert!(matches!(&error, OpenError::Taken { name } if *name == front), "{error}");
        assert!(!options.pin_directory.join("maps").exists(), "nothing is left behind");
        drop(other);
        drop(kernel::open(options).expect("opened"));
        // A data plane of another version.
        let identity = options.pin_directory.join("maps/IDENTITY");
        set_version(&identity, 99);
        let error = open_error(options);
        assert!(matches!(error, OpenError::Abi { found: 99, .. }), "{error}");
        let remedy = format!("splitter detach --pins {}", options.pin_directory.display());
        assert!(error.to_string().contains(&remedy), "{error}");
        set_version(&identity, splitter_ebpf::abi::ABI_VERSION);
        // A table that the program would reach beyond.
        let (settings, kept) = (options.pin_directory.join("maps/SETTINGS"), options.pin_directory.join("kept"));
        fs::rename(&settings, &kept).expect("moved");
        let short = aya::maps::Array::<aya::maps::MapData, [u8; 32]>::create(1, 0).expect("made");
        short.pin(&settings).expect("pinned");
        let error = open_error(options);
        assert!(matches!(error, OpenError::Unadoptable { .. }), "{error}");
        assert!(error.to_string().contains("SETTINGS has 32 octets, and not 64"), "{error}");
        fs::remove_file(&settings).expect("removed");
        fs::rename(&kept, &settings).expect("moved back");
        let running = kernel::open(options).expect("adopted again");
        assert!(matches!(kernel::remove_abandoned(&options.pin_directory), Err(OpenError::InUse { .. })), "an agent runs");
        drop(running);
        assert!(kernel::remove_abandoned(&options.pin_directory).expect("removed"));
        assert!(!kernel::remove_abandoned(&options.pin_directory).expect("nothing is left"));
    });
}

fn version(record: &http::Record) -> String {
    let http::Outcome::Answered(identity) = &record.outcome else { panic!("{} was not answered: {record:?}", record.local) };
    identity.version.clone()
}

fn open_error(options: &Options) -> OpenError {
    kernel::open(options).map(drop).expect_err("refused")
}

fn set_version(pin: &Path, version: u32) {
    let map = aya::maps::Map::Array(aya::maps::MapData::from_pin(pin).expect("pinned"));
    let mut array: aya::maps::Array<_, [u32; 2]> = aya::maps::Array::try_from(map).expect("an array");
    let [_, adoptions] = array.get(&0, 0).expect("one element");
    array.set(0, [version, adoptions], 0).expect("written");
}

impl Setting {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::builder(Topology::TwoArmSwitched).backends(["stable1", "stable2", "canary"]).start().expect("a lab");
        let server = |backend: &splitter_tests::lab::Backend| {
            let version = if backend.name.starts_with("stable") { "stable" } else { "canary" };
            http::Server::start(&backend.namespace, Identity::new(version, &backend.name), &backend.address.sockets(8080))
                .expect("served")
        };
        let servers = lab.backends().iter().map(server).collect();
        let name = format!("splitter-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { lab, servers, pins: Pins(Path::new("/sys/fs/bpf").join(name)) }
    }

    fn key(&self) -> ServiceKey {
        ServiceKey { protocol: Protocol::Tcp, address: SocketAddr::new(IpAddr::V4(self.lab.service().v4), 80) }
    }

    fn in_node<T: Send>(&self, body: impl FnOnce(&Options) -> T + Send) -> T {
        let options = Options {
            interfaces: self.lab.node().interfaces().into_iter().map(str::to_owned).collect(),
            mode: XdpMode::Native,
            pin_directory: self.pins.0.clone(),
            tables: Tables { services: 4, backends: 16, connections: 4_096, networks: 64 },
            nat: Nat { addresses: Vec::new(), ports: PortRange { low: 10_000, high: 19_999 } },
        };
        self.lab.node().namespace.enter(move || body(&options)).expect("entered")
    }

    fn wanted(&self, weight: Weight) -> WantedService {
        let node = self.lab.node();
        let back = node.backs[0].clone();
        let backend = |backend: &splitter_tests::lab::Backend| WantedBackend {
            address: SocketAddr::new(IpAddr::V4(backend.address.v4), 8080),
            cohort: if backend.name == "canary" { Cohort::Canary } else { Cohort::Stable },
            weight: BackendWeight::ONE,
            draining: false,
            way: Some(Way {
                interface: node.namespace.ifindex(&back).expect("an interface"),
                interface_name: back.clone(),
                vlan: None,
                source_mac: node.namespace.mac(&back).expect("a MAC address"),
                destination_mac: backend.namespace.mac("eth0").expect("a MAC address"),
                source_address: IpAddr::V4(node.addresses[1].v4),
                gateway: None,
                mtu: 1_500,
            }),
        };
        WantedService {
            key: self.key(),
            mode: Mode::Nat,
            affinity: Affinity::Connection,
            seed: Seed([1, 2]),
            timeouts: Timeouts::default(),
            weight,
            flip: None,
            breaker: None,
            on_lease_expiry: OnLeaseExpiry::default(),
            backends: self.lab.backends().iter().map(backend).collect(),
            always_canary: BTreeSet::new(),
            never_canary: BTreeSet::new(),
        }
    }

    fn version_of(&self, backend: SocketAddr) -> &'static str {
        let found = self.lab.backends().iter().find(|b| IpAddr::V4(b.address.v4) == backend.ip()).expect("one of the lab's");
        if found.name == "canary" { "canary" } else { "stable" }
    }

    fn load(&self, connections: usize) -> Vec<http::Record> {
        let source = self.lab.client_addresses()[0].v4.into();
        let load = http::Load { ..http::Load::new(source, self.key().address, connections as u64) };
        load.run(self.lab.client()).expect("the load ran").records
    }

    /// The versions that answered so many connections, all of which were answered.
    fn versions(&self, connections: usize) -> Vec<String> {
        let records = self.load(connections);
        assert_eq!(records.len(), connections);
        let versions: BTreeSet<String> = records.iter().map(version).collect();
        assert!(!self.servers.is_empty());
        versions.into_iter().collect()
    }
}
