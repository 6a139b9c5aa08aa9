//! Networks always or never canary: the prefix table, changed prefix by prefix while traffic flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;
use splitter_ebpf::abi::verdict;

use super::{ApplyError, destinations::address};

/// Service number and address, as `abi::NetworkKey`.
type RawKey = [u8; 20];

/// A service's prefixes and their verdicts.
pub type Lists = BTreeMap<IpNet, u8>;

/// The prefix table.
#[derive(Debug)]
pub struct Networks {
    map: LpmTrie<MapData, RawKey, u8>,
    room: usize,
    held: BTreeMap<u32, Lists>,
}

/// Both lists as one.
#[must_use]
pub fn lists(always: &BTreeSet<IpNet>, never: &BTreeSet<IpNet>) -> Lists {
    let always = always.iter().map(|network| (*network, verdict::ALWAYS_CANARY));
    always.chain(never.iter().map(|network| (*network, verdict::NEVER_CANARY))).collect()
}

impl Networks {
    /// The table with what an earlier agent left in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(map: LpmTrie<MapData, RawKey, u8>, room: usize) -> Result<Self, MapError> {
        let mut held: BTreeMap<u32, Lists> = BTreeMap::new();
        for entry in map.iter() {
            let (key, value) = entry?;
            let (service, network) = unpack(&key);
            held.entry(service).or_default().insert(network, value);
        }
        Ok(Self { map, room, held })
    }

    /// Whether a service has any.
    #[must_use]
    pub fn has(&self, service: u32) -> bool {
        self.held.get(&service).is_some_and(|lists| !lists.is_empty())
    }

    /// What the table says of a client, as the program asks it.
    #[must_use]
    pub fn verdict(&self, service: u32, client: splitter_ebpf::address::Address) -> u8 {
        self.map.get(&Key::new(160, raw(service, client.octets())), 0).unwrap_or(0)
    }

    /// Makes each service's lists these; services that aren't named lose theirs. On failure the table is as before.
    ///
    /// # Errors
    /// There are more than there is room for, or the kernel refuses one.
    pub fn apply(&mut self, wanted: BTreeMap<u32, Lists>) -> Result<(), ApplyError> {
        let needed = wanted.values().map(Lists::len).sum();
        if needed > self.room {
            return Err(ApplyError::NoRoom { what: "networks", needed, room: self.room, key: "networks" });
        }
        let empty = Lists::new();
        let services: BTreeSet<u32> = wanted.keys().chain(self.held.keys()).copied().collect();
        let mut done: Vec<(u32, IpNet, Option<u8>)> = Vec::new();
        for service in services {
            let (old, new) = (self.held.get(&service).unwrap_or(&empty), wanted.get(&service).unwrap_or(&empty));
            // What goes, goes first: the table may be full.
            let gone = old.iter().filter(|(network, _)| !new.contains_key(network)).map(|(network, _)| (*network, None));
            let come = new.iter().filter(|(network, verdict)| old.get(network) != Some(verdict)).map(|(n, v)| (*n, Some(*v)));
            for (network, verdict) in gone.chain(come).collect::<Vec<_>>() {
                let before = old.get(&network).copied();
                if let Err(error) = set(&mut self.map, service, network, verdict) {
                    for (service, network, before) in done.into_iter().rev() {
                        if let Err(error) = set(&mut self.map, service, network, before) {
                            tracing::error!(%network, %error, "a network could not be put back; the next change tries again");
                        }
                    }
                    return Err(ApplyError::Kernel { tried: format!("writing network {network}"), why: error.to_string() });
                }
                done.push((service, network, before));
            }
        }
        self.held = wanted;
        Ok(())
    }
}

fn set(map: &mut LpmTrie<MapData, RawKey, u8>, service: u32, network: IpNet, verdict: Option<u8>) -> Result<(), MapError> {
    let length = 32 + u32::from(network.prefix_len()) + if network.addr().is_ipv4() { 96 } else { 0 };
    let key = Key::new(length, raw(service, address(network.network()).octets()));
    match verdict {
        Some(verdict) => map.insert(&key, verdict, 0),
        None => map.remove(&key),
    }
}

fn raw(service: u32, address: [u8; 16]) -> RawKey {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&service.to_ne_bytes());
    key[4..].copy_from_slice(&address);
    key
}

fn unpack(key: &Key<RawKey>) -> (u32, IpNet) {
    let (length, data) = (key.prefix_len(), key.data());
    let service = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]);
    let mut octets = [0; 16];
    octets.copy_from_slice(&data[4..]);
    let bits = length.saturating_sub(32);
    let mapped = octets[..10] == [0; 10] && octets[10..12] == [0xff; 2] && bits >= 96;
    let (address, bits) = if mapped {
        (IpAddr::from([octets[12], octets[13], octets[14], octets[15]]), bits - 96)
    } else {
        (IpAddr::from(octets), bits)
    };
    // Only prefixes that were written from an `IpNet` are here, so the length is in range.
    (service, IpNet::new_assert(address, bits.min(128) as u8))
}
