//! What a packet's destination is to us: a service, an address of ours that replies come to, or nothing.

use super::{DESTINATIONS, assert_layout};
use crate::address::Address;

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
    /// Zero.
    pub _pad0: [u8; 3],
    /// By `kind`.
    pub index: u32,
    /// Zero.
    pub _pad1: u32,
}

/// The two entries where a key may lie, within one generation. The agent picks a seed with which every key finds a place.
#[inline(always)]
#[must_use]
pub const fn destination_indexes(seed: u64, address: Address, port: u16, protocol: u8) -> (u32, u32) {
    let mut hash = address.low ^ seed ^ port as u64 ^ (protocol as u64) << 16;
    hash = (hash ^ address.high.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mask = DESTINATIONS - 1;
    ((hash >> 44) as u32 & mask, (hash >> 20) as u32 & mask)
}

assert_layout!(Destination, size 32, address @ 0, port @ 16, protocol @ 18, family @ 19, kind @ 20, index @ 24);
const _: () = assert!(DESTINATIONS.is_power_of_two());
