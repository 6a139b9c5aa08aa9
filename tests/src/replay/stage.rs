//! A lab with a splitter, servers behind it, and recorders on its links.

use std::{net::SocketAddr, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use splitter_user::model;

use super::{About, Passed, Program, Recording, Way};
use crate::{
    compare,
    lab::{Addresses, Capture, Direction, Frame, Lab, Namespace, Offload, SERVICE, Topology},
    node::{self, FAMILIES, Node},
    oracle::{Affinity, Backend, Cohort, Mode, Protocol, Service, Way as Path, World, sample},
    packet::{
        ACK, Mac, SYN, checksum, get_u16,
        parse::{Fragment, Transport, parse},
    },
    rig,
    workload::{
        Identity,
        tools::{self, Nginx, Speaks, SshKeys, TlsKey},
    },
};

/// Frames can't be longer: Ethernet, and the links' MTU.
const LONGEST: usize = 14 + 1_500;
/// Longer than everything that one program does.
const LIMIT: Duration = Duration::from_secs(120);
/// What is under way when a client has ended has passed by then.
const TAIL: Duration = Duration::from_millis(30);
/// Room in the node's table of services.
const SERVICES: u32 = 32;
/// Backends listen there above their service's port, in `nat`.
const ABOVE: u16 = 10_000;

/// A lab's shape and its services' mode.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// What it's called in tables and files.
    pub name: &'static str,
    topology: Topology,
    mode: Mode,
}

/// All of them.
pub const PLACES: [Place; 3] = [
    Place { name: "nat-two-arm", topology: Topology::TwoArmSwitched, mode: Mode::Nat },
    Place { name: "dsr-one-arm", topology: Topology::OneArm, mode: Mode::Dsr },
    Place { name: "nat-one-arm", topology: Topology::OneArm, mode: Mode::Nat },
];

/// How much is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How often each program does what it does.
    pub rounds: usize,
    /// How many frames are taken of each thing that it does, from each of the links, at most.
    pub frames: usize,
}

impl Size {
    /// For a test.
    pub const SHORT: Self = Self { rounds: 1, frames: 200 };
    /// For a longer look.
    pub const LONG: Self = Self { rounds: 1, frames: 1_500 };
}

/// A lab with a splitter and servers.
#[derive(Debug)]
pub struct Stage {
    // What runs goes before what it runs in.
    _servers: Vec<Servers>,
    node: Node,
    ssh: Option<SshKeys>,
    _tls: Option<TlsKey>,
    lab: Lab,
    place: Place,
    world: World,
}

/// One backend's.
#[derive(Debug, Default)]
struct Servers {
    nginx: Option<Nginx>,
    others: Vec<tools::Server>,
}

impl Stage {
    /// Builds it, for these programs.
    ///
    /// # Errors
    /// Something doesn't come up, or a program isn't installed.
    pub fn start(place: Place, programs: &[Program]) -> Result<Self> {
        let mut lab = Lab::builder(place.topology).backends(["stable1", "stable2", "canary1"]);
        lab = if place.mode == Mode::Dsr { lab.dsr() } else { lab };
        let lab = lab.start()?;
        // Frames are to be recorded as a wire has them: whole, each by itself, and with their checksums. Without this one a device doesn't get to segment either.
        for namespace in lab.backends().iter().map(|backend| &backend.namespace).chain([lab.client()]) {
            namespace.set_offload("eth0", Offload::TxChecksum, false)?;
        }
        let tls = TlsKey::new(lab.client())?;
        let ssh = programs.contains(&Program::Ssh).then(|| SshKeys::new(lab.client())).transpose()?;
        let world = world(&lab, place, programs)?;
        let servers = (0..lab.backends().len()).map(|number| servers(&lab, place, programs, number, &tls, ssh.as_ref()));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let mut node = Node::new(&lab)?;
        node.write_config(&format!("{}\n{}", node.agent_section_for(SERVICES), configuration(&world)))?;
        node.start()?;
        Ok(Self { _servers: servers, node, ssh, _tls: Some(tls), lab, place, world })
    }

    /// Where clients are.
    pub(super) fn client(&self) -> &Namespace {
        self.lab.client()
    }

    /// The file of ssh's key.
    pub(super) fn ssh_key(&self) -> Result<PathBuf> {
        Ok(self.ssh.as_ref().context("the stage was built without ssh")?.path("client"))
    }

    /// Lets a program talk, and records it.
    ///
    /// # Errors
    /// It fails, or what passed isn't as on a wire.
    pub fn record(&self, program: Program, size: Size) -> Result<Recording> {
        let what = || format!("{} ({})", program.name(), self.place.name);
        let (mut frames, mut lost) = (Vec::new(), 0);
        for family in (0..size.rounds).flat_map(|_| FAMILIES) {
            let target = SocketAddr::new(family.of(SERVICE), program.services()[0].1);
            for (number, step) in program.steps(self, target).into_iter().enumerate() {
                let at = || format!("{}, step {number}, to {target}", what());
                let captures = self.captures(size).with_context(at)?;
                step().with_context(|| format!("{}; the agent wrote: {}", at(), self.node.log()))?;
                thread::sleep(TAIL);
                lost += merge(captures, size, &mut frames).with_context(at)?;
            }
        }
        let place = self.place.name.to_owned();
        let about = About { program: program.name().into(), place, world: self.world.clone(), lost };
        let recording = Recording { about, frames };
        recording.replayed().try_for_each(|passed| as_on_a_wire(&passed.bytes)).with_context(what)?;
        Ok(recording)
    }

    /// One on each link, with the node's interface that it leads to.
    fn captures(&self, size: Size) -> Result<Vec<(u32, Capture)>> {
        let node = macs(&self.lab)?.map(|mac| mac.0);
        let to_node = move |frame: &Frame| {
            let destination = &frame.bytes[..6];
            frame.direction == Direction::Out && (destination[0] & 1 == 1 || node.iter().any(|mac| mac == destination))
        };
        let start = |namespace: &Namespace, filter: Box<dyn Fn(&Frame) -> bool + Send>| {
            Capture::start(namespace, "eth0", size.frames, LIMIT, filter)
        };
        let mut captures = vec![(sample::FRONT, start(self.lab.client(), Box::new(to_node))?)];
        for backend in self.lab.backends() {
            let own = backend.namespace.mac("eth0")?;
            let filter = move |frame: &Frame| {
                to_node(frame) || frame.direction == Direction::In && frame.bytes[..6] == own && opens(&frame.bytes)
            };
            captures.push((back(self.place), start(&backend.namespace, Box::new(filter))?));
        }
        Ok(captures)
    }
}

/// Ends captures and appends what they have, by time; how many frames they lost.
fn merge(captures: Vec<(u32, Capture)>, size: Size, to: &mut Vec<Passed>) -> Result<u32> {
    let (mut frames, mut lost, mut end) = (Vec::new(), 0, Duration::MAX);
    for (interface, capture) in captures {
        let captured = capture.stop()?;
        lost += captured.lost;
        if let Some(last) = captured.frames.last().filter(|_| captured.frames.len() >= size.frames) {
            // It had enough: what other links have from later on misses its frames.
            end = end.min(last.at);
        }
        frames.extend(captured.frames.into_iter().map(|Frame { bytes, direction, at }| {
            // The captures are at the other ends of the node's links.
            let way = if direction == Direction::Out { Way::In } else { Way::Out };
            Passed { at, interface, way, bytes }
        }));
    }
    frames.retain(|passed| passed.at <= end);
    frames.sort_by_key(|passed| passed.at);
    to.extend(frames);
    Ok(lost)
}

/// Whether it may open a connection.
fn opens(frame: &[u8]) -> bool {
    parse(frame).is_ok_and(|view| match view.transport {
        Transport::Tcp(tcp) => tcp.flags & (SYN | ACK) == SYN,
        Transport::Udp(_) => true,
        Transport::Icmp { .. } | Transport::None => false,
    })
}

/// Fails for what only a virtual link carries: segments merged or not yet cut, checksums not yet summed.
pub(super) fn as_on_a_wire(frame: &[u8]) -> Result<()> {
    ensure!(frame.len() <= LONGEST, "a frame of {} octets: not as on a wire", frame.len());
    let Ok(view) = parse(frame) else { return Ok(()) };
    let field = match view.transport {
        Transport::Tcp(_) => 16,
        Transport::Udp(udp) if udp.checksum != 0 => 6,
        Transport::Udp(_) | Transport::Icmp { .. } | Transport::None => return Ok(()),
    };
    let (segment, ip) = (&frame[view.ip.payload..view.ip.end], &view.ip);
    let right = checksum::transport(ip.source, ip.destination, ip.protocol, segment.len(), segment, field);
    let found = get_u16(segment, field);
    let whole = ip.fragment == Fragment::Whole;
    ensure!(
        !whole || checksum::same(right, found),
        "a checksum of {found:#06x}, not {right:#06x}: not as on a wire: {frame:02x?}"
    );
    Ok(())
}

/// The interface that backends are behind.
fn back(place: Place) -> u32 {
    if place.topology == Topology::OneArm { sample::FRONT } else { sample::BACK }
}

/// The node's Ethernet addresses: toward clients and toward backends.
fn macs(lab: &Lab) -> Result<[Mac; 2]> {
    let node = lab.node();
    let front = node.namespace.mac(&node.front)?;
    let back = node.backs.first().map_or(Ok(front), |back| node.namespace.mac(back))?;
    Ok([Mac(front), Mac(back)])
}

/// What the node is configured to do, in the oracle's words.
fn world(lab: &Lab, place: Place, programs: &[Program]) -> Result<World> {
    let [front, back_mac] = macs(lab)?;
    let source = if back(place) == sample::FRONT { front } else { back_mac };
    let mut wanted: Vec<(Protocol, u16)> = programs.iter().flat_map(|program| program.services()).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut services = Vec::new();
    for (protocol, port) in wanted {
        for family in FAMILIES {
            let mut backends = Vec::new();
            for (number, backend) in lab.backends().iter().enumerate() {
                let way = Path { interface: back(place), source, destination: Mac(backend.namespace.mac("eth0")?), vlan: None };
                let cohort = if number < 2 { Cohort::Stable } else { Cohort::Canary };
                let address = SocketAddr::new(family.of(backend.address), backend_port(place, port));
                backends.push(Backend { address, cohort, weight: 1, way: Some(way) });
            }
            let mut weight = 5_000;
            if is_iperf3(port) {
                // Its connections and datagrams belong together, so one server gets all of them.
                backends.remove(1);
                weight = 0;
            }
            let address = SocketAddr::new(family.of(SERVICE), port);
            let (mode, affinity) = (place.mode, Affinity::Connection);
            services.push(Service { address, protocol, mode, affinity, weight, flipped: None, networks: Vec::new(), backends });
        }
    }
    let toward_backends = *lab.node().addresses.last().context("a node has addresses")?;
    let nat_addresses = FAMILIES.map(|family| family.of(toward_backends)).to_vec();
    Ok(World { services, nat_addresses, nat_ports: Some(1_024..=32_767), leeway: compare::world().leeway })
}

const fn is_iperf3(port: u16) -> bool {
    port == Program::Iperf3.services()[0].1
}

fn backend_port(place: Place, port: u16) -> u16 {
    if place.mode == Mode::Nat { ABOVE + port } else { port }
}

/// The same in the agent's words. Seeds are those that a rig makes up, so that the replay chooses the same backends.
fn configuration(world: &World) -> String {
    let seeds = rig::wanted(world).into_iter().map(|service| String::from(service.seed));
    let services = world.services.iter().zip(seeds).enumerate().map(|(number, (service, seed))| {
        let protocol = match service.protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
        };
        let mode = match service.mode {
            Mode::Nat => model::Mode::Nat,
            Mode::Dsr => model::Mode::Dsr,
        };
        let weight = format!("{}%", f64::from(service.weight) / 100.0);
        let text = node::Service::new(&format!("service{number}"), protocol, service.address, mode).weight(&weight);
        // An agent that is kept from its work must not be a reason for other backends.
        let text = text.more(&format!("seed = {seed:?}\non_lease_expiry = \"hold\""));
        let text = service.backends.iter().fold(text, |text, backend| {
            let cohort = if backend.cohort == Cohort::Stable { model::Cohort::Stable } else { model::Cohort::Canary };
            text.backend(cohort, backend.address)
        });
        text.text()
    });
    services.collect()
}

/// Starts what a backend serves.
fn servers(lab: &Lab, place: Place, programs: &[Program], number: usize, tls: &TlsKey, ssh: Option<&SshKeys>) -> Result<Servers> {
    let backend = &lab.backends()[number];
    let namespace = &backend.namespace;
    let own: Addresses = if place.mode == Mode::Nat { backend.address } else { SERVICE };
    let at = |program: Program| -> Vec<SocketAddr> {
        let port = backend_port(place, program.services()[0].1);
        FAMILIES.map(|family| SocketAddr::new(family.of(own), port)).to_vec()
    };
    let mut servers = Servers::default();
    let mut listens = Vec::new();
    for (speaks, who) in
        [(Speaks::Http1, &[Program::Http1, Program::Wrk][..]), (Speaks::Http2, &[Program::Http2]), (Speaks::Tls, &[Program::Tls])]
    {
        if who.iter().any(|program| programs.contains(program)) {
            listens.extend(at(who[0]).into_iter().map(|address| (address, speaks)));
        }
    }
    if !listens.is_empty() {
        let identity = Identity::new("any", &backend.name);
        servers.nginx = Some(Nginx::start_speaking(namespace, &identity, &listens, Some(tls))?);
    }
    for program in programs {
        let addresses = at(*program);
        match program {
            Program::Http1 | Program::Http2 | Program::Tls | Program::Wrk => {}
            Program::Dns => servers.others.push(tools::dnsmasq(namespace, &addresses)?),
            Program::Redis => servers.others.push(tools::redis(namespace, &addresses)?),
            Program::Ssh => {
                let keys = ssh.context("keys are made where ssh is wanted")?;
                servers.others.push(tools::sshd(namespace, &addresses, keys)?);
            }
            Program::Iperf3 if number == 0 => {
                for address in addresses {
                    servers.others.push(tools::iperf3(namespace, address)?);
                }
            }
            Program::Iperf3 => {}
            Program::Quic => {
                for address in addresses {
                    servers.others.push(tools::quic(namespace, address, tls)?);
                }
            }
        }
    }
    Ok(servers)
}
