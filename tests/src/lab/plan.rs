//! What a lab consists of, worked out from its options before anything is made. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::{LabError, Result};

/// How client, node and backends are joined. All addresses are the lab's own: nothing leaves its namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Everybody is on one Ethernet segment, made of a bridge in a namespace `switch`. The node has one
    /// interface, `eth0`: what it forwards leaves by where it came in.
    ///
    /// ```text
    ///  client ─┐            ┌─ backend
    ///          ├─ (switch) ─┼─ backend
    ///    node ─┘            └─ backend
    /// ```
    OneArm,
    /// The node stands between the client (interface `front`) and the backends, each on a link and in a
    /// network of its own (interfaces `back1`, `back2`, …).
    ///
    /// ```text
    ///  client ── node ─┬─ backend
    ///                  └─ backend
    /// ```
    TwoArm,
    /// As [`Topology::TwoArm`], but the backends share one segment behind one interface, `back`.
    ///
    /// ```text
    ///  client ── node ── (switch) ─┬─ backend
    ///                              └─ backend
    /// ```
    TwoArmSwitched,
}

/// The addresses that one party has in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both, IPv4 first, with a port.
    #[must_use]
    pub fn sockets(&self, port: u16) -> [SocketAddr; 2] {
        [SocketAddr::from((self.v4, port)), SocketAddr::from((self.v6, port))]
    }
}

/// The address that clients connect to. It is in no network of the lab's: clients have a route by the node.
pub const SERVICE: Addresses = Addresses { v4: Ipv4Addr::new(10, 79, 0, 1), v6: Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 1) };

/// The options of a lab.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub topology: Topology,
    pub backends: Vec<String>,
    pub clients: u16,
    pub router: bool,
    pub dsr: bool,
    pub mtu: u32,
    pub backend_mtu: Option<u32>,
}

/// What is to be made.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub namespaces: Vec<Made>,
    pub cables: Vec<Cable>,
    pub client: Vec<Addresses>,
    pub node_front: &'static str,
    pub node_backs: Vec<String>,
    pub node_addresses: Vec<Addresses>,
    pub backends: Vec<(String, Addresses)>,
}

/// A namespace to be made: its label, and what is to be said to `ip` and to the kernel inside it.
#[derive(Debug)]
pub(crate) struct Made {
    pub label: String,
    pub sysctls: Vec<(String, String)>,
    pub ip: Vec<String>,
}

/// A veth pair.
#[derive(Debug)]
pub(crate) struct Cable {
    pub ends: [End; 2],
    pub mtu: u32,
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub namespace: String,
    pub device: String,
    /// Whether the node is at the other end, so that an XDP program may send to this one.
    pub faces_node: bool,
}

/// A network with room for everybody: `10.<n>.0.0/16` and `fd<n>::/64`.
#[derive(Clone, Copy)]
struct Net(u8);

impl Net {
    const fn address(self, group: u8, host: u8) -> Addresses {
        // fd70 for network 70: the decimal digits read the same in both families.
        let prefix = 0xfd00 | (self.0 / 10 * 16 + self.0 % 10) as u16;
        Addresses {
            v4: Ipv4Addr::new(10, self.0, group, host),
            v6: Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, group as u16, host as u16),
        }
    }

    fn prefixes(self) -> [String; 2] {
        let zero = self.address(0, 0);
        [format!("{}/16", zero.v4), format!("{}/64", zero.v6)]
    }
}

const NODE: (u8, u8) = (0, 1);
const ROUTER: (u8, u8) = (0, 2);
/// Where the client and the front of the node are.
const FRONT: Net = Net(70);
/// Where the client is when a router stands before the node.
const FAR: Net = Net(71);
/// [`FAR`]'s prefixes, for routes that are changed later.
pub(crate) const FAR_PREFIXES: [&str; 2] = ["10.71.0.0/16", "fd71::/64"];
/// Where the backends are, when not at the front. With a link for each: this one and those that follow.
const BACK: Net = Net(72);
/// Networks are numbered by one decimal digit from 72, up to the service's.
const MOST_LINKED_BACKENDS: usize = 7;

impl Plan {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        check(options)?;
        let mut plan =
            Self { node_front: if options.topology == Topology::OneArm { "eth0" } else { "front" }, ..Self::default() };
        let switched = options.topology != Topology::TwoArm;
        plan.add("node");
        plan.add("client");
        if options.router {
            plan.add("router");
        }
        if switched {
            plan.add("switch");
            plan.switch();
        }
        plan.node(options);
        plan.client(options);
        for (number, name) in options.backends.iter().enumerate() {
            plan.backend(options, number, name);
        }
        for made in &mut plan.namespaces {
            made.ip.push("link set dev lo up".into());
        }
        Ok(plan)
    }

    fn add(&mut self, label: &str) {
        let router = matches!(label, "node" | "router");
        let sysctls = sysctls(router).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.namespaces.push(Made { label: label.into(), sysctls, ip: Vec::new() });
    }

    fn of(&mut self, label: &str) -> &mut Made {
        self.namespaces.iter_mut().find(|made| made.label == label).expect("namespaces are added before they are used")
    }

    fn switch(&mut self) {
        let switch = self.of("switch");
        for scope in ["all", "default"] {
            switch.sysctls.push((format!("net.ipv6.conf.{scope}.disable_ipv6"), "1".into()));
        }
        // No learning phase, no snooping that waits for a querier, no netfilter: a dumb switch.
        switch.ip.push("link add name br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0".into());
        switch.ip.push("link set dev br0 up".into());
    }

    /// Lays a cable between two (namespace, device), with these addresses at the ends that have some.
    fn cable(&mut self, mtu: u32, ends: [(&str, &str, Option<Addresses>); 2]) {
        let faces = [ends[1].0 == "node", ends[0].0 == "node"];
        let mut cable = Vec::new();
        for ((namespace, device, addresses), faces_node) in ends.into_iter().zip(faces) {
            let made = self.of(namespace);
            if namespace == "switch" {
                made.ip.push(format!("link set dev {device} master br0"));
            }
            if let Some(Addresses { v4, v6 }) = addresses {
                made.ip.push(format!("addr add {v4}/16 dev {device}"));
                made.ip.push(format!("addr add {v6}/64 dev {device} nodad"));
            }
            made.ip.push(format!("link set dev {device} up"));
            cable.push(End { namespace: namespace.into(), device: device.into(), faces_node });
        }
        let ends = cable.try_into().expect("two ends were given");
        self.cables.push(Cable { ends, mtu });
    }

    fn route(&mut self, label: &str, [v4, v6]: &[String; 2], via: Addresses) {
        let made = self.of(label);
        made.ip.push(format!("route add {v4} via {}", via.v4));
        made.ip.push(format!("route add {v6} via {}", via.v6));
    }

    fn node(&mut self, options: &Options) {
        let address = FRONT.address(NODE.0, NODE.1);
        self.of("node").ip.push(format!("addr add {}/32 dev lo", SERVICE.v4));
        self.of("node").ip.push(format!("addr add {}/128 dev lo nodad", SERVICE.v6));
        self.node_addresses.push(address);
        if options.topology == Topology::OneArm {
            self.cable(options.mtu, [("node", "eth0", Some(address)), ("switch", "node", None)]);
        }
        if options.topology == Topology::TwoArmSwitched {
            let back = BACK.address(NODE.0, NODE.1);
            let mtu = options.backend_mtu.unwrap_or(options.mtu);
            self.cable(mtu, [("node", "back", Some(back)), ("switch", "node", None)]);
            self.node_backs.push("back".into());
            self.node_addresses.push(back);
        }
    }

    fn client(&mut self, options: &Options) {
        let (net, gateway) =
            if options.router { (FAR, FAR.address(ROUTER.0, ROUTER.1)) } else { (FRONT, self.node_addresses[0]) };
        // Group 1 and up; the last byte stays clear of 0 and 255.
        self.client = (0..options.clients).map(|n| net.address(1 + (n / 250) as u8, 1 + (n % 250) as u8)).collect();
        let first = self.client[0];
        let front = ["client", "router"][usize::from(options.router)];
        let near = options.router.then(|| FRONT.address(ROUTER.0, ROUTER.1));
        let (device, address) = if options.router { ("node", near) } else { ("eth0", Some(first)) };
        if options.router {
            self.cable(options.mtu, [("client", "eth0", Some(first)), ("router", "client", Some(gateway))]);
        }
        if options.topology == Topology::OneArm {
            self.cable(options.mtu, [(front, device, address), ("switch", front, None)]);
        } else {
            self.cable(options.mtu, [("node", "front", Some(self.node_addresses[0])), (front, device, address)]);
        }
        let more = self.client[1..]
            .iter()
            .flat_map(|Addresses { v4, v6 }| [format!("addr add {v4}/16 dev eth0"), format!("addr add {v6}/64 dev eth0 nodad")]);
        let more: Vec<String> = more.collect();
        self.of("client").ip.extend(more);
        self.route("client", &everywhere(), gateway);
        if let Some(near) = near {
            self.route("router", &everywhere(), self.node_addresses[0]);
            self.route("node", &FAR.prefixes(), near);
        }
    }

    fn backend(&mut self, options: &Options, number: usize, name: &str) {
        self.add(name);
        let mtu = options.backend_mtu.unwrap_or(options.mtu);
        let host = u8::try_from(number + 1).expect("checked: at most 250 backends");
        let (address, gateway) = match options.topology {
            Topology::OneArm => (FRONT.address(100, host), FRONT.address(NODE.0, NODE.1)),
            Topology::TwoArmSwitched => (BACK.address(100, host), BACK.address(NODE.0, NODE.1)),
            Topology::TwoArm => {
                let net = Net(BACK.0 + host - 1);
                (net.address(100, 1), net.address(NODE.0, NODE.1))
            }
        };
        if options.topology == Topology::TwoArm {
            let device = format!("back{host}");
            self.cable(mtu, [("node", &device, Some(gateway)), (name, "eth0", Some(address))]);
            self.node_backs.push(device);
            self.node_addresses.push(gateway);
        } else {
            self.cable(mtu, [("switch", &format!("b{host}"), None), (name, "eth0", Some(address))]);
        }
        self.route(name, &everywhere(), gateway);
        if options.dsr {
            if options.router {
                // Straight back, past the node.
                self.route(name, &FAR.prefixes(), FRONT.address(ROUTER.0, ROUTER.1));
            }
            let made = self.of(name);
            // The address is the backend's own, but it must not be heard of: the segment's only owner of it
            // is the node. IPv6 keeps to the device's own addresses when it answers a solicitation.
            for scope in ["all", "default"] {
                made.sysctls.push((format!("net.ipv4.conf.{scope}.arp_ignore"), "1".into()));
                made.sysctls.push((format!("net.ipv4.conf.{scope}.arp_announce"), "2".into()));
            }
            made.ip.push(format!("addr add {}/32 dev lo", SERVICE.v4));
            made.ip.push(format!("addr add {}/128 dev lo nodad", SERVICE.v6));
        }
        self.backends.push((name.into(), address));
    }
}

/// The default routes. `ip` tells the family by the prefix, so it is not called `default`.
fn everywhere() -> [String; 2] {
    ["0.0.0.0/0".into(), "::/0".into()]
}

fn check(options: &Options) -> Result<()> {
    let names = &options.backends;
    let impossible = |why| Err(LabError::Impossible(why));
    if names.len() > 250 {
        return impossible("at most 250 backends have room in a network");
    }
    if options.topology == Topology::TwoArm && names.len() > MOST_LINKED_BACKENDS {
        return impossible("with a link for each there is room for 7 backends; TwoArmSwitched takes more");
    }
    if options.dsr && options.topology != Topology::OneArm {
        return impossible("dsr needs a way from backend to client past the node: one-arm");
    }
    if !(1..=2500).contains(&options.clients) {
        return impossible("a client has between 1 and 2500 addresses");
    }
    let taken = |name: &str| matches!(name, "node" | "client" | "router" | "switch");
    for (number, name) in names.iter().enumerate() {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain || taken(name) || names[..number].contains(name) {
            return impossible("backends are named by letters, digits and hyphens, each once, and not as a part of the lab");
        }
    }
    Ok(())
}

fn sysctls(router: bool) -> Vec<(&'static str, &'static str)> {
    let mut sysctls = vec![
        // Connections that were closed leave nothing behind: a load that opens thousands a second would else
        // meet its own ports in TIME_WAIT and have its SYNs dropped.
        ("net.ipv4.tcp_max_tw_buckets", "0"),
        ("net.ipv4.ip_local_port_range", "1024 65535"),
        ("net.core.somaxconn", "16384"),
        ("net.ipv4.tcp_max_syn_backlog", "16384"),
        // Addresses are usable at once.
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.accept_ra", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // Every packet that deserves an ICMP error gets one: tests count them.
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
    ];
    if router {
        sysctls.extend([
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            // One-arm: what comes in leaves the same way, and the senders are not to be told of shortcuts.
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
        ]);
    }
    sysctls
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_networks_read_the_same_in_both_families() {
        assert_eq!(FRONT.prefixes(), ["10.70.0.0/16", "fd70::/64"]);
        assert_eq!(FAR.prefixes(), FAR_PREFIXES);
        assert_eq!(Net(78).prefixes(), ["10.78.0.0/16", "fd78::/64"]);
    }

    #[test]
    fn no_address_is_given_twice_in_a_full_lab() {
        for topology in [Topology::OneArm, Topology::TwoArm, Topology::TwoArmSwitched] {
            let plan = Plan::new(&Options { clients: 2500, ..options(topology, 7) }).expect("a possible lab");
            let mut seen = HashSet::from([SERVICE.v4]);
            let all = plan.client.iter().chain(&plan.node_addresses).chain(plan.backends.iter().map(|(_, address)| address));
            for address in all {
                assert!(seen.insert(address.v4), "{topology:?}: {} twice", address.v4);
            }
        }
    }

    #[test]
    fn every_end_that_faces_the_node_is_marked() {
        let marked = |topology| {
            let plan = Plan::new(&options(topology, 2)).expect("a possible lab");
            let ends = plan.cables.iter().flat_map(|cable| &cable.ends).filter(|end| end.faces_node);
            ends.map(|end| format!("{}/{}", end.namespace, end.device)).collect::<Vec<_>>()
        };
        assert_eq!(marked(Topology::OneArm), ["switch/node"]);
        assert_eq!(marked(Topology::TwoArm), ["client/eth0", "b1/eth0", "b2/eth0"]);
        assert_eq!(marked(Topology::TwoArmSwitched), ["switch/node", "client/eth0"]);
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let refused = |options: Options, why: &str| {
            let error = Plan::new(&options).expect_err(why);
            assert!(matches!(error, LabError::Impossible(_)), "{error}");
        };
        refused(options(Topology::TwoArm, 8), "one link too many");
        refused(options(Topology::OneArm, 251), "one backend too many");
        refused(Options { dsr: true, ..options(Topology::TwoArm, 1) }, "dsr through the node");
        refused(Options { clients: 0, ..options(Topology::OneArm, 1) }, "nobody there");
        for names in [vec!["a", "a"], vec!["node"], vec![""], vec!["a b"]] {
            let backends = names.into_iter().map(String::from).collect();
            refused(Options { backends, ..options(Topology::OneArm, 0) }, "bad names");
        }
    }

    fn options(topology: Topology, backends: usize) -> Options {
        Options {
            topology,
            backends: (1..=backends).map(|number| format!("b{number}")).collect(),
            clients: 1,
            router: false,
            dsr: false,
            mtu: 1500,
            backend_mtu: None,
        }
    }
}
