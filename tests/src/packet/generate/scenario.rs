//! What the generator is told: whom to send to, from where, and how much of what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::twist::Twist;
use crate::oracle::World;
use crate::packet::Mac;

/// The world as the generator needs it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The services.
    pub targets: Vec<Target>,
    /// The backends' addresses.
    pub backends: Vec<SocketAddr>,
    /// The NAT addresses.
    pub nat: Vec<IpAddr>,
    /// The NAT ports.
    pub ports: RangeInclusive<u16>,
    /// Clients, of each family that a target has.
    pub clients: Vec<IpAddr>,
    /// The interfaces that frames come by, with the node's address there. Clients come by the first, sometimes by another.
    pub interfaces: Vec<(u32, Mac)>,
    /// How much of what.
    pub mix: Mix,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
}

/// How much of what, as weights relative to each other: first the bases, then the twists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of bases and twists say it")]
pub struct Mix {
    pub opening: u32,
    pub follow_up: u32,
    pub reply: u32,
    pub dead_reply: u32,
    pub stranger: u32,
    pub icmp_error: u32,
    pub icmp_other: u32,
    pub other_protocol: u32,
    pub not_ip: u32,
    pub noise: u32,
    pub no_twist: u32,
    pub ttl: u32,
    pub checksum: u32,
    pub tags: u32,
    pub extensions: u32,
    pub lie: u32,
    pub truncated: u32,
    pub fragments: u32,
    pub flipped_bits: u32,
    pub moved: u32,
    /// Of a hundred packets, so many have something odd done to them before their twist.
    pub also: u32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            opening: 25,
            follow_up: 30,
            reply: 20,
            dead_reply: 3,
            stranger: 5,
            icmp_error: 8,
            icmp_other: 2,
            other_protocol: 2,
            not_ip: 2,
            noise: 2,
            no_twist: 55,
            ttl: 5,
            checksum: 6,
            tags: 4,
            extensions: 6,
            lie: 5,
            truncated: 5,
            fragments: 8,
            flipped_bits: 3,
            moved: 3,
            also: 15,
        }
    }
}

impl Mix {
    /// Nothing but what a peaceful network sends.
    #[must_use]
    pub fn valid() -> Mix {
        Mix {
            dead_reply: 0,
            noise: 0,
            not_ip: 0,
            checksum: 0,
            lie: 0,
            truncated: 0,
            flipped_bits: 0,
            tags: 0,
            ttl: 0,
            also: 0,
            ..Mix::default()
        }
    }

    pub(super) const fn bases(&self) -> [(&'static str, u32); 9] {
        [
            ("opening", self.opening),
            ("follow-up", self.follow_up),
            ("reply", self.reply),
            ("dead reply", self.dead_reply),
            ("stranger", self.stranger),
            ("ICMP error", self.icmp_error),
            ("ICMP other", self.icmp_other),
            ("other protocol", self.other_protocol),
            ("not IP", self.not_ip),
        ]
    }

    pub(super) const fn twists(&self) -> [(Twist, u32); 10] {
        [
            (Twist::None, self.no_twist),
            (Twist::Ttl, self.ttl),
            (Twist::Checksum, self.checksum),
            (Twist::Tags, self.tags),
            (Twist::Extensions, self.extensions),
            (Twist::Lie, self.lie),
            (Twist::Truncated, self.truncated),
            (Twist::Fragments, self.fragments),
            (Twist::FlippedBits, self.flipped_bits),
            (Twist::Moved, self.moved),
        ]
    }

    pub(super) fn weigh_noise(&self, rng: &mut Xoshiro256PlusPlus) -> bool {
        let total = self.noise + self.bases().iter().map(|(_, weight)| weight).sum::<u32>();
        total > 0 && rng.random_range(0..total) < self.noise
    }
}

impl Scenario {
    pub(super) fn assert_usable(&self) {
        assert!(!self.targets.is_empty(), "a scenario needs a service to send to");
        assert!(!self.interfaces.is_empty(), "a scenario needs an interface for frames to come by");
        for target in &self.targets {
            let served = self.clients.iter().any(|client| client.is_ipv4() == target.address.is_ipv4());
            assert!(served, "{} needs a client of its family", target.address);
        }
    }
}

impl From<&World> for Scenario {
    /// The world's services, backends and NAT addresses; its ways' interfaces, by ascending index; clients inside and
    /// beside the networks that its lists name.
    fn from(world: &World) -> Scenario {
        let services = &world.services;
        let targets = services.iter().map(|s| Target { address: s.address, protocol: s.protocol.number() }).collect();
        let backends: Vec<_> = services.iter().flat_map(|service| &service.backends).collect();
        let mut interfaces: Vec<_> = backends.iter().filter_map(|b| b.way).map(|way| (way.interface, way.source)).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        if interfaces.is_empty() {
            interfaces.push((1, Mac::local(1)));
        }
        let mut clients: Vec<IpAddr> = Vec::new();
        for index in 0..48 {
            clients.push(Ipv4Addr::new(203, 0, 113, index).into());
            clients.push(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, u16::from(index)).into());
        }
        for (network, _) in services.iter().flat_map(|service| &service.networks) {
            clients.extend([network.network(), network.broadcast()]);
        }
        clients.sort_unstable();
        clients.dedup();
        Scenario {
            targets,
            backends: backends.iter().map(|backend| backend.address).collect(),
            nat: world.nat_addresses.clone(),
            ports: world.nat_ports.clone().unwrap_or(32_768..=60_999),
            clients,
            interfaces,
            mix: Mix::default(),
        }
    }
}
