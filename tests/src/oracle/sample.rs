//! A world with something of everything, for the tests of the oracle and of the program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::world::{Affinity, Backend, Cohort, Leeway, Mode, Protocol, Rule, Service, Way, World};
use crate::packet::Mac;

/// The interface that clients come by.
pub const FRONT: u32 = 2;
/// The interface that most backends are behind.
pub const BACK: u32 = 3;
/// The VLAN that each service's third stable backend is in.
pub const VLAN: u16 = 300;

/// The node's Ethernet address on an interface.
#[must_use]
pub const fn node(interface: u32) -> Mac {
    Mac::local(interface << 8)
}

/// Sixteen services: both families, protocols and modes, each once with everything (three stable and two canary backends,
/// a tenth for the canary) and once with something missing. In each, one backend is behind another interface, one behind the
/// clients' own, one in a VLAN.
#[must_use]
pub fn world() -> World {
    let mut services = Vec::new();
    for ipv4 in [true, false] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for mode in [Mode::Nat, Mode::Dsr] {
                services.push(service(services.len(), ipv4, protocol, mode));
                let mut odd = service(services.len(), ipv4, protocol, mode);
                spoil(&mut odd, services.len());
                services.push(odd);
            }
        }
    }
    let nat_addresses = vec![v4(10, 0, 250), v4(10, 0, 251), v6(0xff, 250)];
    World { services, nat_addresses, nat_ports: Some(20_000..=59_999), leeway: Leeway::default() }
}

fn service(number: usize, ipv4: bool, protocol: Protocol, mode: Mode) -> Service {
    let octet = u8::try_from(number).expect("a handful of services");
    let ip = if ipv4 { v4(192, octet, 1) } else { v6(0x192, octet) };
    let networks: &[(&str, Rule)] = if ipv4 {
        &[
            ("198.51.100.0/26", Rule::AlwaysCanary),
            ("198.51.100.32/27", Rule::NeverCanary),
            ("198.51.100.40/32", Rule::AlwaysCanary),
        ]
    } else {
        &[("2001:db8:c::/124", Rule::AlwaysCanary), ("2001:db8:c::8/125", Rule::NeverCanary)]
    };
    let backends = (0..5_u8).map(|index| backend(octet, index, ipv4)).collect();
    Service {
        address: SocketAddr::new(ip, 80),
        protocol,
        mode,
        affinity: if number.is_multiple_of(4) { Affinity::Client } else { Affinity::Connection },
        weight: 1_000,
        flipped: None,
        networks: networks.iter().map(|(network, rule)| (network.parse().expect("a network"), *rule)).collect(),
        backends,
    }
}

fn backend(service: u8, index: u8, ipv4: bool) -> Backend {
    let ip = if ipv4 { v4(10, service, index + 1) } else { v6(0x10, (service << 4) + index + 1) };
    let interface = if index == 1 { FRONT } else { BACK };
    let way = Way {
        interface,
        source: node(interface),
        destination: Mac::local(0x10_0000 | u32::from(service) << 8 | u32::from(index)),
        vlan: (index == 2).then_some(VLAN),
    };
    let cohort = if index < 3 { Cohort::Stable } else { Cohort::Canary };
    Backend { address: SocketAddr::new(ip, 8000 + u16::from(index)), cohort, weight: 1, way: Some(way) }
}

/// Something is missing, another thing for each of four.
fn spoil(service: &mut Service, number: usize) {
    // Another assignment in each family.
    let cohort = match (number / 2 + number / 8 * 2) % 4 {
        0 => Cohort::Stable,
        1 => Cohort::Canary,
        2 => {
            service.weight = 5_000;
            service.backends[3].way = None;
            return;
        }
        _ => {
            service.weight = 10_000;
            return;
        }
    };
    service.backends.iter_mut().filter(|backend| backend.cohort == cohort).for_each(|backend| backend.weight = 0);
}

fn v4(a: u8, b: u8, c: u8) -> IpAddr {
    Ipv4Addr::new(a, b, 0, c).into()
}

fn v6(a: u16, b: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, a, 0, u16::from(b)).into()
}
