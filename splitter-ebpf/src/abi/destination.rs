//! What a packet's destination is to us: a service, an address of ours that replies come to, or nothing.

use super::{DESTINATIONS, assert_layout};
use crate::{address::Address, header::Family};

/// [`Destination::kind`]: an empty entry.
pub const KIND_FREE: u8 = 0;
/// [`Destination::kind`]: a service; `index` is its number.
pub const KIND_SERVICE: u8 = 1;
/// [`Destination::kind`]: a NAT address (port 0, protocol 0); `index` is its number.
pub const KIND_NAT: u8 = 2;

/// One entry. Two generations of [`DESTINATIONS`] entries each lie in the map; which one is in force, and the seed that places
/// entries in it, stand in [`super::Settings::destinations`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Destination {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: Address,
    /// In network order.
    pub port: [u8; 2],
    /// 6 or 17; 0 for a NAT address.
    pub protocol: u8,
    /// 4 or 6: an IPv6 packet with a mapped address in it must not pass for IPv4.
    pub family: u8,
    /// `KIND_*`.
    pub kind: u8,
    /// Non-zero: a key whose first place this is lies at its second one. Where it's zero, nobody need look there.
    pub overflow: u8,
    /// Zero.
    pub _pad0: [u8; 2],
    /// By `kind`.
    pub index: u32,
    /// Zero.
    pub _pad1: u32,
}

impl Destination {
    /// Whether this is the entry of a key, all of it as loaded from a packet.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, address: Address, port: u16, protocol: u8, family: Family) -> bool {
        let [low, high] = self.port;
        let tail = u32::from_ne_bytes([low, high, self.protocol, self.family]);
        let wanted = port as u32 | (protocol as u32) << 16 | (family as u32) << 24;
        self.address.is(address, family) && tail == wanted
    }
}

/// The two entries where a key may lie, within one generation. The agent picks a seed with which every key finds a place.
///
/// Two multiplicative hashes (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem", 1997), each with its own odd
/// multiplier out of the seed: the first place, where most keys lie, takes one multiplication.
#[inline(always)]
#[must_use]
pub const fn destination_indexes(seed: u64, address: Address, port: u16, protocol: u8) -> (u32, u32) {
    let key = address.low ^ address.high.rotate_left(23) ^ port as u64 ^ (protocol as u64) << 16;
    let shift = 64 - DESTINATIONS.ilog2();
    // Shifted, as it stands in the word with the generation below it: so that word serves as it is.
    let first = key.wrapping_mul(seed << 1 | 1) >> shift;
    let second = key.wrapping_mul(seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15 | 1) >> shift;
    (first as u32, second as u32)
}

assert_layout!(Destination, size 32, address @ 0, port @ 16, protocol @ 18, family @ 19, kind @ 20, overflow @ 21, index @ 24);
const _: () = assert!(DESTINATIONS.is_power_of_two());
