//! What the data plane is configured for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use splitter_user::config::Tables;

use crate::{
    oracle::{Affinity, Backend, Cohort, Mode, Protocol, Rule, Service, Way, World, sample},
    packet::Mac,
};

/// The flows of the largest cases: they are to fit into the data plane's tables, ports included.
pub const MILLION: usize = 1_000_000;

/// Services of one kind, and what is particular about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// How packets reach backends.
    pub mode: Mode,
    /// IPv4; else IPv6.
    pub ipv4: bool,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How many services.
    pub services: usize,
    /// What else.
    pub setting: Setting,
}

/// What is particular about a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Backends are reached by the interface that clients come by: `XDP_TX`.
    OneArm,
    /// By another one: `XDP_REDIRECT`.
    TwoArm,
    /// As one-armed, in a VLAN.
    Vlan,
    /// As one-armed, with [`PREFIXES`] in the services' lists of networks.
    Networks,
    /// No backend is usable.
    NoBackend,
    /// So few ports that they are soon used up.
    FewPorts,
    /// Tables with room for [`MILLION`] connections.
    Million,
}

/// Prefixes in the lists of networks.
pub const PREFIXES: usize = 1_000;

/// The VLAN of [`Setting::Vlan`].
pub const VLAN: u16 = 300;

impl Stage {
    /// The data plane's configuration.
    pub fn world(&self) -> World {
        let nats = if self.setting == Setting::Million { 32 } else { 1 };
        let nat_ports = match self.setting {
            Setting::Million => 1_024..=u16::MAX,
            Setting::FewPorts => 20_000..=20_063,
            Setting::OneArm | Setting::TwoArm | Setting::Vlan | Setting::Networks | Setting::NoBackend => 20_000..=59_999,
        };
        World {
            services: (0..self.services).map(|number| self.service(number)).collect(),
            nat_addresses: (0..nats).map(|number| self.address(3, number)).collect(),
            nat_ports: Some(nat_ports),
            ..World::default()
        }
    }

    /// Tables with as much room as that needs.
    pub fn tables(&self) -> Tables {
        let services = u32::try_from(self.services).expect("at most a few thousand");
        let connections = if self.setting == Setting::Million { 1 << 21 } else { 1 << 20 };
        Tables { services, backends: 4 * services, connections, networks: 2_048 }
    }

    /// An address that is nobody's.
    pub fn stranger(&self) -> IpAddr {
        self.address(4, 0)
    }

    fn service(&self, number: usize) -> Service {
        let (weight, usable) = if self.setting == Setting::NoBackend { (0, 0) } else { (1_000, 1) };
        let backend = |index: usize| {
            let number = 4 * number + index;
            let interface = if self.setting == Setting::TwoArm { sample::BACK } else { sample::FRONT };
            let cohort = if index < 3 { Cohort::Stable } else { Cohort::Canary };
            let destination = Mac::local(0x10_0000 + u32::try_from(number).expect("a few thousand"));
            let vlan = (self.setting == Setting::Vlan).then_some(VLAN);
            let way = Way { interface, source: sample::node(interface), destination, vlan };
            Backend { address: SocketAddr::new(self.address(2, number), 8_080), cohort, weight: usable, way: Some(way) }
        };
        Service {
            address: SocketAddr::new(self.address(1, number), 80),
            protocol: self.protocol,
            mode: self.mode,
            affinity: Affinity::Connection,
            weight,
            flipped: None,
            networks: if self.setting == Setting::Networks { self.networks() } else { Vec::new() },
            backends: (0..4).map(backend).collect(),
        }
    }

    /// Among the clients' own addresses, so that the prefix table is walked.
    fn networks(&self) -> Vec<(IpNet, Rule)> {
        let network = |number: usize| {
            let bits = u32::try_from(number).expect("a thousand");
            let network = if self.ipv4 {
                IpNet::new(Ipv4Addr::from(0x6440_0000 | bits << 8).into(), 24)
            } else {
                IpNet::new(Ipv6Addr::from(0x2001_0db8_00c0_0000_u128 << 64 | u128::from(bits) << 48).into(), 80)
            };
            let rule = if number.is_multiple_of(2) { Rule::AlwaysCanary } else { Rule::NeverCanary };
            (network.expect("a length of its family"), rule)
        };
        (0..PREFIXES).map(network).collect()
    }

    /// The address of this number among those for one use: 1 services, 2 backends, 3 the node's own, 4 nobody's.
    fn address(&self, usage: u8, number: usize) -> IpAddr {
        let number = u16::try_from(number).expect("a few thousand");
        let [high, low] = number.to_be_bytes();
        if self.ipv4 {
            Ipv4Addr::new(10, usage, high, low).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(usage), 0, 0, 0, number).into()
        }
    }
}
