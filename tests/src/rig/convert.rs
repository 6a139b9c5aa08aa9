//! The oracle's world, as the agent tells it to a data plane.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use splitter_user::{
    dataplane::{ServiceKey, WantedBackend, WantedService},
    model::{self, BackendWeight, Seed, Timeouts, Weight},
    neighbor,
};

use crate::oracle::{Affinity, Backend, Cohort, Existing, Mode, Protocol, Rule, Service, Way, World};

/// So long that nothing expires during a test.
const HOUR: Duration = Duration::from_secs(3_600);

/// The world's services. Their seeds are made up from their place in it.
///
/// # Panics
/// When a weight is none that the model knows.
#[must_use]
pub fn wanted(world: &World) -> Vec<WantedService> {
    world.services.iter().enumerate().map(|(index, wanted)| service(wanted, index as u64)).collect()
}

/// What a service is called by.
#[must_use]
pub const fn key(service: &Service) -> ServiceKey {
    let protocol = match service.protocol {
        Protocol::Tcp => model::Protocol::Tcp,
        Protocol::Udp => model::Protocol::Udp,
    };
    ServiceKey { protocol, address: service.address }
}

fn service(service: &Service, index: u64) -> WantedService {
    let networks = |wanted: Rule| {
        let listed = service.networks.iter().filter(|(_, rule)| *rule == wanted);
        listed.map(|(network, _)| network.trunc()).collect::<std::collections::BTreeSet<IpNet>>()
    };
    WantedService {
        key: key(service),
        mode: match service.mode {
            Mode::Nat => model::Mode::Nat,
            Mode::Dsr => model::Mode::Dsr,
        },
        affinity: match service.affinity {
            Affinity::Connection => model::Affinity::Connection,
            Affinity::Client => model::Affinity::Client,
        },
        seed: Seed([0x0123_4567_89ab_cdef ^ index, 0xfedc_ba98_7654_3210 ^ index << 32]),
        timeouts: Timeouts { connect: HOUR, established: HOUR, udp: HOUR, closing: HOUR },
        weight: Weight::from_basis_points(service.weight).expect("a world's weight is at most 10,000"),
        flip: service.flipped.map(|existing| match existing {
            Existing::Keep => model::Existing::Keep,
            Existing::Reset => model::Existing::Reset,
        }),
        breaker: None,
        on_lease_expiry: model::OnLeaseExpiry::default(),
        backends: service.backends.iter().map(backend).collect(),
        always_canary: networks(Rule::AlwaysCanary),
        never_canary: networks(Rule::NeverCanary),
    }
}

/// A weight of 0 is how a world says that a backend is drained.
fn backend(backend: &Backend) -> WantedBackend {
    WantedBackend {
        address: backend.address,
        cohort: match backend.cohort {
            Cohort::Stable => model::Cohort::Stable,
            Cohort::Canary => model::Cohort::Canary,
        },
        weight: BackendWeight::try_from(backend.weight.max(1)).expect("a world's weights are small"),
        draining: backend.weight == 0,
        way: backend.way.map(|way| self::way(way, backend.address.ip())),
    }
}

fn way(way: Way, backend: IpAddr) -> neighbor::Way {
    neighbor::Way {
        interface: way.interface,
        interface_name: format!("rig{}", way.interface),
        vlan: way.vlan,
        source_mac: way.source.0,
        destination_mac: way.destination.0,
        // Only looked at where no NAT addresses of the family are configured.
        source_address: match backend {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
        },
        gateway: None,
        mtu: 1_500,
    }
}
