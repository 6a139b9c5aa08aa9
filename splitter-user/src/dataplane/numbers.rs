//! Which number a service, a backend and a NAT address has in the maps. What an earlier agent gave out is found there again.

use std::{
    collections::{BTreeMap, HashSet},
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    ops::RangeInclusive,
    sync::Arc,
};

use splitter_ebpf::abi::{Service, flags};

use super::{
    ServiceKey,
    destinations::ip,
    lines::{Lines, Run},
    loader::Maps,
    maglev::Member,
};
use crate::model::{Cohort, Protocol};

/// A service that has a number.
#[derive(Clone, Debug)]
pub struct NumberedService {
    pub number: u32,
    /// The runs of lines of both generations' tables.
    pub runs: [[Option<Run>; 2]; 2],
    /// What the tables in force were made from, by cohort. Unknown after an adoption.
    pub members: Option<Arc<[Vec<Member>; 2]>>,
}

/// A backend that has a number.
#[derive(Clone, Debug)]
pub struct NumberedBackend {
    pub number: u32,
    pub cohort: Cohort,
    /// Wanted; else only connections are left of it.
    pub wanted: bool,
    pub usable: bool,
    /// When it stopped being wanted.
    pub unwanted_since: Option<std::time::Instant>,
}

/// All numbers in use.
#[derive(Clone, Debug)]
pub struct Numbers {
    pub services: BTreeMap<ServiceKey, NumberedService>,
    pub backends: BTreeMap<(ServiceKey, SocketAddr), NumberedBackend>,
    pub nats: BTreeMap<IpAddr, u32>,
    pub lines: Lines,
}

impl Numbers {
    /// What the maps say.
    pub fn read(maps: &Maps) -> Self {
        let mut numbers = Self {
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            nats: BTreeMap::new(),
            lines: Lines::new(u32::try_from(maps.maglev.len()).unwrap_or(u32::MAX)),
        };
        let mut keys = BTreeMap::new();
        for number in 0..maps.services.len() {
            let service = maps.services.read(number);
            if service.in_use == 0 {
                continue;
            }
            let key = key_of(&service);
            let runs = service.tables.map(|generation| generation.map(Run::of));
            // Of two tables that claim the same lines the one in force is right; the other generation is written before it's used again.
            let in_force = service.control().generation();
            let mut claim = |generation: usize| runs[generation].map(|run| run.filter(|run| numbers.lines.claim(*run)));
            let first = claim(in_force);
            let second = claim(1 - in_force);
            let runs = if in_force == 0 { [first, second] } else { [second, first] };
            keys.insert(number, key);
            numbers.services.insert(key, NumberedService { number: number as u32, runs, members: None });
        }
        for number in 0..maps.backends.len() {
            let backend = maps.backends.read(number);
            let Some(key) = keys.get(&usize::from(backend.service)).filter(|_| backend.in_use != 0) else { continue };
            let address = SocketAddr::new(ip(backend.address, key.address.is_ipv6()), u16::from_be_bytes(backend.port));
            let cohort = if backend.cohort == 0 { Cohort::Stable } else { Cohort::Canary };
            let found = NumberedBackend { number: number as u32, cohort, wanted: false, usable: false, unwanted_since: None };
            numbers.backends.insert((*key, address), found);
        }
        for number in 0..maps.nats.len() {
            let nat = maps.nats.read(number);
            if nat.address != splitter_ebpf::address::Address::default() {
                let ipv6 = nat.address != splitter_ebpf::address::Address::v4(nat.address.v4_octets());
                numbers.nats.insert(ip(nat.address, ipv6), number as u32);
            }
        }
        numbers
    }

    /// Free numbers for services.
    pub fn free_services(&self, room: usize) -> Vec<u32> {
        free(self.services.values().map(|service| service.number), room)
    }

    /// Free numbers for backends.
    pub fn free_backends(&self, room: usize) -> Vec<u32> {
        free(self.backends.values().map(|backend| backend.number), room)
    }

    /// A service's backends.
    pub fn backends_of(&self, key: &ServiceKey) -> impl Iterator<Item = (&(ServiceKey, SocketAddr), &NumberedBackend)> {
        self.backends.range(backends_of(*key))
    }

    /// A service's backends, to be changed.
    pub fn backends_of_mut(
        &mut self,
        key: &ServiceKey,
    ) -> impl Iterator<Item = (&(ServiceKey, SocketAddr), &mut NumberedBackend)> {
        self.backends.range_mut(backends_of(*key))
    }

    /// The numbers of these NAT addresses, which have to follow each other; given out if they have none. `None`: there is no room.
    pub fn nats(&mut self, addresses: &[IpAddr], room: usize) -> Option<(u8, u8)> {
        let count = u8::try_from(addresses.len()).ok()?;
        let known: Option<Vec<u32>> = addresses.iter().map(|address| self.nats.get(address).copied()).collect();
        if let Some(known) = known
            && known.windows(2).all(|pair| pair[1] == pair[0] + 1)
        {
            return Some((u8::try_from(*known.first()?).ok()?, count));
        }
        if addresses.iter().any(|address| self.nats.contains_key(address)) {
            return None;
        }
        let first = self.nats.values().map(|number| number + 1).max().unwrap_or(0);
        if first as usize + addresses.len() > room {
            return None;
        }
        for (offset, address) in addresses.iter().enumerate() {
            self.nats.insert(*address, first + offset as u32);
        }
        Some((u8::try_from(first).ok()?, count))
    }
}

/// The numbers below `room` that aren't used.
fn free(used: impl Iterator<Item = u32>, room: usize) -> Vec<u32> {
    let used: HashSet<u32> = used.collect();
    (0..room as u32).filter(|number| !used.contains(number)).collect()
}

/// Where a service's backends lie in [`Numbers::backends`]: between the least address that there is and the greatest.
fn backends_of(key: ServiceKey) -> RangeInclusive<(ServiceKey, SocketAddr)> {
    let least = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let greatest = SocketAddrV6::new(Ipv6Addr::from([0xff; 16]), u16::MAX, u32::MAX, u32::MAX);
    (key, least)..=(key, greatest.into())
}

/// Where the clients of a service in the maps connect to.
/// What tells a service from others.
pub fn key_of(service: &Service) -> ServiceKey {
    let protocol = if service.has(flags::UDP) { Protocol::Udp } else { Protocol::Tcp };
    let address = SocketAddr::new(ip(service.address, service.has(flags::IPV6)), u16::from_be_bytes(service.port));
    ServiceKey { protocol, address }
}

/// Offsets that the agent stores single words to.
pub const CONTROL: usize = offset_of!(Service, control);
