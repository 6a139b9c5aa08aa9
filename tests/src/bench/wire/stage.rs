//! A lab with one way through its node. The network is the same for every way.
//!
//! ```text
//!           ┌──────────── direct1 ───────────┐
//!  client ──┤                 ┌─ back1 ── stable1
//!           ├── front  node ──┤
//!           │                 └─ back2 ── canary1
//!           └──────────── direct2 ───────────┘
//! ```
//!
//! The links called direct carry the replies of `dsr` and nothing else, as a network's own way from backend to client would. There is no
//! switch: a bridge in the middle would cost every path more than what is compared.
//!
//! Every device that feeds the node has its TX checksum offload off (and with it segmentation): a program that rewrites packets can't do
//! with the partial checksums that a veth would hand it. GRO is on at every end. That is so for every way but [`Path::RoutingOffloads`].

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use splitter_user::model::{Cohort, Mode, Protocol};

use super::{
    flood,
    path::Path,
    peers::{self, Proxy},
};
use crate::{
    lab::{Attached, Lab, Namespace, Offload, SERVICE, Topology, Verdict, attach, xdp},
    node::{Node, Service},
    workload::{Identity, tools::Nginx},
};

/// The port of HTTP.
const WEB: u16 = 80;
/// What reaches the canary of Splitter's: half, as the peers divide.
const WEIGHT: &str = "50%";

/// Everything that stands while one way is measured; dropping it takes it down.
pub(super) struct Stage {
    /// Before the lab, so that it goes first.
    _way: Way,
    _servers: Vec<Nginx>,
    pub lab: Lab,
}

/// What makes the way, to be held as long as it is to be there.
enum Way {
    Splitter {
        _agent: Node,
    },
    Redirects {
        _programs: Vec<Attached>,
    },
    Proxy {
        _process: Proxy,
    },
    /// It goes with the node's namespace.
    Kernel,
}

impl Stage {
    /// Builds it.
    ///
    /// # Errors
    /// Something does not come up, or is not installed.
    pub fn build(path: Path) -> Result<Self> {
        let lab = network(path)?;
        let servers = servers(&lab)?;
        let node = &lab.node().namespace;
        let backends: Vec<_> = lab.backends().iter().map(|backend| SocketAddr::from((backend.address.v4, WEB))).collect();
        let way = match path {
            Path::SplitterDsr => {
                direct(&lab)?;
                Way::Splitter { _agent: splitter(&lab, Mode::Dsr)? }
            }
            Path::SplitterNat => Way::Splitter { _agent: splitter(&lab, Mode::Nat)? },
            Path::XdpRedirect => Way::Redirects { _programs: redirects(&lab)? },
            Path::XdpMinimal => Way::Redirects { _programs: vec![minimal(&lab)?] },
            Path::Routing | Path::RoutingOffloads => {
                routes(&lab)?;
                Way::Kernel
            }
            Path::NftablesDnat => {
                peers::nftables(node, target(), &backends)?;
                Way::Kernel
            }
            Path::HaproxyTcp => Way::Proxy { _process: Proxy::haproxy(node, target(), &backends)? },
            Path::NginxStream => Way::Proxy { _process: Proxy::nginx(node, target(), &backends)? },
        };
        Ok(Self { _way: way, _servers: servers, lab })
    }
}

/// Where HTTP clients connect to.
pub(super) fn target() -> SocketAddr {
    (SERVICE.v4, WEB).into()
}

fn network(path: Path) -> Result<Lab> {
    let mut lab = Lab::builder(Topology::TwoArm).backends(["stable1", "canary1"]).start()?;
    lab.bare_ends();
    let node = lab.node();
    let outer = std::iter::once(lab.client()).chain(lab.backends().iter().map(|backend| &backend.namespace));
    if path == Path::RoutingOffloads {
        // What the kernel gives is what the node's own ends still have.
        for end in outer {
            for offload in [Offload::TxChecksum, Offload::Gro] {
                end.set_offload("eth0", offload, node.namespace.offload_is_on(&node.front, offload)?)?;
            }
        }
    } else {
        // The outer ends have theirs from the lab. A front that polls is also what the generator needs.
        for device in node.interfaces() {
            node.namespace.set_offload(device, Offload::Gro, true)?;
        }
    }
    // The splitter's own ports are to be kept clear of the node's.
    node.namespace.sysctl("net.ipv4.ip_local_port_range", "32768 60999")?;
    for backend in lab.backends() {
        // For the ways that keep the destination's address.
        backend.namespace.ip(&[format!("addr add {}/32 dev lo", SERVICE.v4)])?;
    }
    Ok(lab)
}

fn servers(lab: &Lab) -> Result<Vec<Nginx>> {
    let start = |backend: &crate::lab::Backend| {
        let cohort = if backend.name.starts_with("canary") { Cohort::Canary } else { Cohort::Stable };
        let addresses = [SocketAddr::from((backend.address.v4, WEB)), target()];
        Nginx::start(&backend.namespace, &Identity::new(cohort.as_str(), &backend.name), &addresses)
    };
    Ok(lab.backends().iter().map(start).collect::<crate::lab::Result<_>>()?)
}

/// Lays the links that replies take in `dsr` mode.
fn direct(lab: &Lab) -> Result<()> {
    let client = lab.client();
    for (number, backend) in lab.backends().iter().enumerate() {
        let near = format!("direct{}", number + 1);
        let (namespace, far) = (&backend.namespace, "direct");
        // Indices of their own, see the lab.
        let index = 1_000 + 2 * number;
        client.ip(&[
            format!("link add {near} index {index} type veth peer name {far} index {} netns {}", index + 1, namespace.name()),
            format!("link set {near} up"),
        ])?;
        // More specific than the way by the node.
        let way = lab.client_addresses()[0].v4;
        namespace.ip(&[format!("link set {far} up"), format!("route add {way}/32 dev {far}")])?;
        for (end, device) in [(client, near.as_str()), (namespace, far)] {
            end.set_offload(device, Offload::TxChecksum, false)?;
            end.set_offload(device, Offload::Gro, true)?;
        }
    }
    Ok(())
}

fn splitter(lab: &Lab, mode: Mode) -> Result<Node> {
    let mut node = Node::new(lab)?;
    let services = [("web", Protocol::Tcp, WEB), ("flood", Protocol::Udp, flood::PORT)].map(|(name, protocol, port)| {
        let service = Service::new(name, protocol, (SERVICE.v4, port).into(), mode).weight(WEIGHT);
        lab.backends().iter().zip([Cohort::Stable, Cohort::Canary]).fold(service, |service, (backend, cohort)| {
            service.backend(cohort, SocketAddr::new(IpAddr::V4(backend.address.v4), port))
        })
    });
    // Everything that is not named is left to its default, the sizes of the tables too.
    let agent = format!(
        "[agent]\ninterfaces = {:?}\nsocket = {:?}\nstate_directory = {:?}\npin_directory = {:?}\n\n",
        lab.node().interfaces(),
        node.socket(),
        node.state(),
        node.pins().path()
    );
    node.write_config(&services.iter().fold(agent, |text, service| text + &service.text()))?;
    node.start().context("start the agent")?;
    Ok(node)
}

/// Everything from the front goes to the first backend and the other way round. Nothing is rewritten, so each side believes the other's
/// Ethernet address to be its gateway's.
fn redirects(lab: &Lab) -> Result<Vec<Attached>> {
    let node = lab.node();
    let (front, back) = (&node.front, &node.backs[0]);
    let backend = &lab.backends()[0].namespace;
    let neighbour = |of: &Namespace, gateway: std::net::Ipv4Addr, other: &Namespace| -> Result<()> {
        let mac = other.mac("eth0")?.map(|octet| format!("{octet:02x}")).join(":");
        Ok(of.ip(&[format!("neighbour replace {gateway} lladdr {mac} dev eth0 nud permanent")])?)
    };
    neighbour(lab.client(), node.addresses[0].v4, backend)?;
    neighbour(backend, node.addresses[1].v4, lab.client())?;
    let index = |device| node.namespace.ifindex(device);
    Ok(vec![
        attach(&node.namespace, front, Verdict::Redirect(index(back)?))?,
        attach(&node.namespace, back, Verdict::Redirect(index(front)?))?,
    ])
}

/// Each packet goes to one of the backends and is addressed to it.
fn minimal(lab: &Lab) -> Result<Attached> {
    let node = lab.node();
    let choice = |number: usize| -> Result<flood::Choice> {
        let device = &node.backs[number];
        Ok(flood::Choice {
            to: lab.backends()[number].namespace.mac("eth0")?,
            from: node.namespace.mac(device)?,
            device: node.namespace.ifindex(device)?,
        })
    };
    let program = xdp::load(&flood::choose([choice(0)?, choice(1)?])).context("load a program")?;
    Ok(xdp::attach_loaded(&node.namespace, &node.front, &program)?)
}

/// The service's address lies behind both backends; a flow's hash picks one.
fn routes(lab: &Lab) -> Result<()> {
    let node = &lab.node().namespace;
    node.sysctl("net.ipv4.fib_multipath_hash_policy", 1)?;
    let hops: String = lab.backends().iter().map(|backend| format!(" nexthop via {}", backend.address.v4)).collect();
    node.ip(&[format!("addr del {}/32 dev lo", SERVICE.v4), format!("route add {}/32{hops}", SERVICE.v4)])?;
    Ok(())
}
