//! The destination table: which address and port is what. Every key lies at one of two places that a seed gives it; here a seed and the places are found.

use std::net::IpAddr;

use splitter_ebpf::{
    abi::{DESTINATIONS, Destination, KIND_NAT, KIND_SERVICE, destination_indexes},
    address::Address,
};

use super::ServiceKey;

/// One entry to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A service and its number.
    Service(ServiceKey, u32),
    /// A NAT address and its number.
    Nat(IpAddr, u32),
}

/// An address as it stands in maps.
#[must_use]
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(&v6.octets()),
    }
}

/// The address that stands in a map.
#[must_use]
pub fn ip(address: Address, ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::from(address.octets()) } else { IpAddr::from(address.v4_octets()) }
}

/// A port as loaded from network order.
#[must_use]
pub fn raw_port(port: u16) -> u16 {
    port.to_be()
}

impl Entry {
    fn record(self) -> Destination {
        match self {
            Self::Service(ServiceKey { protocol, address: socket }, index) => Destination {
                address: address(socket.ip()),
                port: socket.port().to_be_bytes(),
                protocol: protocol.number(),
                family: family(socket.ip()),
                kind: KIND_SERVICE,
                index,
                ..Destination::default()
            },
            Self::Nat(ip, index) => {
                Destination { address: address(ip), family: family(ip), kind: KIND_NAT, index, ..Destination::default() }
            }
        }
    }

    fn places(self, seed: u64) -> (u32, u32) {
        match self {
            Self::Service(ServiceKey { protocol, address: socket }, _) => {
                destination_indexes(seed, address(socket.ip()), raw_port(socket.port()), protocol.number())
            }
            Self::Nat(ip, _) => destination_indexes(seed, address(ip), 0, 0),
        }
    }
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    }
}

/// Places every entry under this seed; `None`: they don't all find one, another seed has to be tried. Cuckoo hashing (Pagh and Rodler, 2001).
#[must_use]
pub fn place(entries: &[Entry], seed: u64) -> Option<Vec<Destination>> {
    const KICKS: usize = 1_000;
    let mut table: Vec<Option<Entry>> = vec![None; DESTINATIONS as usize];
    for entry in entries {
        let mut homeless = *entry;
        let mut at = homeless.places(seed).0;
        let mut placed = false;
        for _ in 0..KICKS {
            let Some(evicted) = table[at as usize].replace(homeless) else {
                placed = true;
                break;
            };
            let (first, second) = evicted.places(seed);
            at = if at == first { second } else { first };
            homeless = evicted;
        }
        if !placed {
            return None;
        }
    }
    let mut records: Vec<_> = table.iter().map(|entry| entry.map_or_else(Destination::default, Entry::record)).collect();
    for (at, entry) in table.iter().enumerate() {
        if let Some((first, second)) = entry.map(|entry| entry.places(seed))
            && first != second
            && at == second as usize
        {
            records[first as usize].overflow = 1;
        }
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::model::Protocol;

    fn services(count: u32) -> Vec<Entry> {
        let key = |n: u32| match n % 2 {
            0 => {
                ServiceKey { protocol: Protocol::Tcp, address: (Ipv4Addr::from(0x0a00_0000 + n / 7), 80 + (n % 7) as u16).into() }
            }
            _ => ServiceKey {
                protocol: Protocol::Udp,
                address: (Ipv6Addr::from(0xfd00 << 112 | u128::from(n / 7)), 80 + (n % 7) as u16).into(),
            },
        };
        (0..count).map(|n| Entry::Service(key(n), n)).collect()
    }

    #[test]
    fn every_entry_lies_where_the_program_looks() {
        let mut entries = services(4_096);
        entries.push(Entry::Nat(Ipv4Addr::new(10, 0, 0, 1).into(), 3));
        let (seed, table) = (1..100).find_map(|seed| Some((seed, place(&entries, seed)?))).expect("a seed that fits");
        for entry in entries {
            // As the program looks: at the second place only where the first one says that it's worth it.
            let (first, second) = entry.places(seed);
            let is_at = |at: u32| Destination { overflow: 0, ..table[at as usize] } == entry.record();
            assert!(is_at(first) || table[first as usize].overflow != 0 && is_at(second), "{entry:?}");
        }
    }

    #[test]
    fn a_quarter_full_table_fits_under_nearly_every_seed() {
        let entries = services(4_096);
        let fits = (0..50_u64).filter(|seed| place(&entries, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).is_some()).count();
        assert!(fits >= 45, "{fits} of 50");
    }
}
