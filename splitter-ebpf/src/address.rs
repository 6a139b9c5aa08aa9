//! Addresses of both families as one type.

use crate::header::Family;

/// 128 bits in the machine's order as loaded from network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2), so that one comparison
/// and one hash serve both families. Tells nothing about the family: whoever must know, keeps it beside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(C)]
pub struct Address {
    /// Octets 0 to 7.
    pub high: u64,
    /// Octets 8 to 15.
    pub low: u64,
}

/// Octets 8 to 11 of a mapped IPv4 address, as loaded.
const MAPPED: u64 = u32::from_ne_bytes([0, 0, 0xff, 0xff]) as u64;

impl Address {
    /// From an IPv4 address as loaded.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(word: u32) -> Self {
        Self { high: 0, low: MAPPED | (word as u64) << 32 }
    }

    /// The last four octets as loaded: the whole of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn to_v4_word(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// Whether this is another address of the same family. (Where the family is known to be IPv4, half a comparison will do.)
    #[inline(always)]
    #[must_use]
    pub const fn is(self, other: Self, family: Family) -> bool {
        self.low == other.low && (matches!(family, Family::V4) || self.high == other.high)
    }

    /// From an IPv4 address's octets.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self { high: 0, low: MAPPED | (u32::from_ne_bytes(octets) as u64) << 32 }
    }

    /// From 16 octets: an IPv6 address, or an IPv4 address already mapped.
    #[inline(always)]
    #[must_use]
    pub fn v6(octets: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *octets;
        Self { high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]), low: u64::from_ne_bytes(rest) }
    }

    /// The 16 octets.
    #[inline(always)]
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        ((self.high as u128) | (self.low as u128) << 64).to_le_bytes()
    }

    /// The last four octets: the whole of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4_octets(self) -> [u8; 4] {
        ((self.low >> 32) as u32).to_ne_bytes()
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "addresses are loaded as little-endian words");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = Address::v6(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
        assert_eq!(mapped, Address::v4([10, 1, 2, 3]));
        assert_eq!(mapped.v4_octets(), [10, 1, 2, 3]);
        assert_eq!(Address::v6(&mapped.octets()), mapped);
    }
}
