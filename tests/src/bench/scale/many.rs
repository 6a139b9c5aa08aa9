//! Many services and backends, as the agent tells them to a data plane. Pure.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use splitter_user::{
    dataplane::{ServiceKey, WantedBackend, WantedService},
    model::{Affinity, BackendWeight, Cohort, Mode, OnLeaseExpiry, Protocol, Seed, Timeouts, Weight},
    neighbor::Way,
};

use crate::{
    oracle::sample,
    packet::{Mac, Packet, SYN},
    rig::play::CLIENT_MAC,
};

/// So long that nothing expires while it's measured.
const HOUR: Duration = Duration::from_secs(3_600);

/// A TCP service with so many backends, a tenth of them (and one at least, where there are two) the canary's. `first` is the number of its first backend among all.
///
/// # Panics
/// When there are too many to have addresses.
#[must_use]
pub fn service(number: u32, first: u32, backends: u32, mode: Mode) -> WantedService {
    let canary = (backends / 10).max(u32::from(backends > 1));
    let cohort = |place| if place < backends - canary { Cohort::Stable } else { Cohort::Canary };
    WantedService {
        key: key(number),
        mode,
        affinity: Affinity::Connection,
        seed: Seed([0x0123_4567_89ab_cdef ^ u64::from(number), 0xfedc_ba98_7654_3210 ^ u64::from(number) << 32]),
        timeouts: Timeouts { connect: HOUR, established: HOUR, udp: HOUR, closing: HOUR },
        weight: Weight::from_basis_points(1_000).expect("a tenth is a weight"),
        flip: None,
        breaker: None,
        on_lease_expiry: OnLeaseExpiry::default(),
        backends: (0..backends).map(|place| backend(first + place, cohort(place), mode)).collect(),
        always_canary: BTreeSet::new(),
        never_canary: BTreeSet::new(),
    }
}

/// So many services with so many backends each.
#[must_use]
pub fn services(count: u32, backends: u32, mode: Mode) -> Vec<WantedService> {
    (0..count).map(|number| service(number, number * backends, backends, mode)).collect()
}

/// Where clients of a service connect to.
#[must_use]
pub fn key(service: u32) -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, address: SocketAddr::from((Ipv4Addr::from(0x0a64_0000 + service), 80)) }
}

/// A backend's address, by its number among all.
#[must_use]
pub fn address(backend: u32, mode: Mode) -> SocketAddr {
    let port = match mode {
        Mode::Nat => 8_080,
        Mode::Dsr => 80,
    };
    SocketAddr::from((Ipv4Addr::from(0x0a80_0001 + backend), port))
}

/// A backend's Ethernet address.
#[must_use]
pub const fn mac(backend: u32) -> Mac {
    Mac::local(0x10_0000 | backend)
}

/// A client's first packet: every port from 1,024 on is used before the next address.
#[must_use]
pub fn client(number: u32) -> SocketAddr {
    let port = u16::try_from(1_024 + number % 60_000).expect("below 61,024");
    SocketAddr::from((Ipv4Addr::from(0xc612_0000 + number / 60_000), port))
}

/// A client's SYN to a service.
#[must_use]
pub fn syn(service: u32, client: SocketAddr) -> Vec<u8> {
    let packet = Packet::tcp(client, key(service).address, SYN).ethernet(sample::node(sample::FRONT), CLIENT_MAC);
    packet.build().to_vec()
}

/// Where the client's address and port, and the flags, lie in [`syn`].
const SOURCE: std::ops::Range<usize> = 26..30;
const PORT: std::ops::Range<usize> = 34..36;
const FLAGS: usize = 47;

/// Makes a frame of [`syn`] another client's. Checksums stay as they were: the program doesn't verify them, it updates them.
///
/// # Panics
/// When the client isn't of IPv4.
pub fn set_client(frame: &mut [u8], client: SocketAddr) {
    let SocketAddr::V4(client) = client else { panic!("{client} isn't of IPv4") };
    frame[SOURCE].copy_from_slice(&client.ip().octets());
    frame[PORT].copy_from_slice(&client.port().to_be_bytes());
}

/// Changes a frame's TCP flags.
pub fn set_flags(frame: &mut [u8], flags: u8) {
    frame[FLAGS] = flags;
}

fn backend(number: u32, cohort: Cohort, mode: Mode) -> WantedBackend {
    let way = Way {
        interface: sample::BACK,
        interface_name: "back".to_owned(),
        vlan: None,
        source_mac: sample::node(sample::BACK).0,
        destination_mac: mac(number).0,
        source_address: Ipv4Addr::new(192, 0, 2, 1).into(),
        gateway: None,
        mtu: 1_500,
    };
    WantedBackend { address: address(number, mode), cohort, weight: BackendWeight::ONE, draining: false, way: Some(way) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_there_twice() {
        let services = services(1_000, 4, Mode::Nat);
        let backends: HashSet<_> = services.iter().flat_map(|service| &service.backends).map(|b| b.address).collect();
        let keys: HashSet<_> = services.iter().map(|service| service.key).collect();
        let clients: HashSet<_> = (0..200_000).map(client).collect();
        assert_eq!((backends.len(), keys.len(), clients.len()), (4_000, 1_000, 200_000));
    }

    #[test]
    fn a_tenth_of_the_backends_is_the_canarys() {
        for (backends, expected) in [(1, 0), (2, 1), (9, 1), (4_000, 400)] {
            let service = service(0, 0, backends, Mode::Dsr);
            let canary = service.backends.iter().filter(|backend| backend.cohort == Cohort::Canary).count();
            assert_eq!((service.backends.len(), canary), (backends as usize, expected));
        }
    }

    #[test]
    fn a_frame_becomes_another_clients() {
        let (first, other) = (client(7), client(70_000));
        let mut frame = syn(3, first);
        set_client(&mut frame, other);
        let seen = crate::rig::play::endpoints(&frame).expect("a TCP packet");
        assert_eq!(seen, (other, key(3).address));
        set_flags(&mut frame, crate::packet::ACK);
        let ack = Packet::tcp(other, key(3).address, crate::packet::ACK).build();
        assert_eq!(frame[FLAGS], ack[FLAGS]);
    }
}
