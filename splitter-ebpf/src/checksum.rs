//! The internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Sums are over 16-bit words as loaded by the machine: the one's complement sum doesn't mind the byte order as long as it is the same
//! throughout (RFC 1071, 2 B).

use crate::address::Address;

/// A one's complement sum or difference, not folded yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// Nothing changes.
    pub const ZERO: Self = Self(0);
    /// A TTL (the first octet of its word) less by one: `m' - m = -1` in a word loaded little-endian.
    pub const TTL: Self = Self(0xfffe);

    /// From a folded value.
    #[inline(always)]
    pub const fn from_folded(folded: u16) -> Self {
        Self(folded as u64)
    }

    /// One word of 16 bits replaced by another.
    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old as u64) + new as u64)
    }

    /// Two words replaced by two.
    #[inline(always)]
    pub const fn double_word(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old as u64) + new as u64)
    }

    /// One address replaced by another. Mapped IPv4 addresses differ in their last four octets alone, so this is right for both families.
    #[inline(always)]
    pub const fn address(self, old: Address, new: Address) -> Self {
        self.double_word(old.high as u32, new.high as u32)
            .double_word((old.high >> 32) as u32, (new.high >> 32) as u32)
            .double_word(old.low as u32, new.low as u32)
            .double_word((old.low >> 32) as u32, (new.low >> 32) as u32)
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Words added where there were none.
    #[inline(always)]
    pub const fn add_word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// 16 bits, end-around carries done.
    #[inline(always)]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }

    /// The change that undoes this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(!self.fold() as u64)
    }

    /// The checksum after the change: `~(~HC + ~m + m')`.
    #[inline(always)]
    #[must_use]
    pub const fn update(self, checksum: u16) -> u16 {
        !Self(self.0 + (!checksum as u64)).fold()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// From scratch, RFC 1071.
    fn whole(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_update_equals_a_sum_from_scratch(mut data in prop::collection::vec(any::<u8>(), 32..96), new: [u8; 16], port: u16) {
            prop_assume!(data.iter().any(|o| *o != 0) && data.len() % 2 == 0);
            let before = whole(&data);
            let old: [u8; 16] = data[0..16].try_into().expect("16 octets");
            let old_port = u16::from_ne_bytes([data[16], data[17]]);
            data[0..16].copy_from_slice(&new);
            data[16..18].copy_from_slice(&port.to_ne_bytes());
            prop_assume!(data.iter().any(|o| *o != 0));
            let delta = Delta::ZERO.address(Address::v6(&old), Address::v6(&new)).word(old_port, port);
            prop_assert_eq!(delta.update(before), whole(&data));
            // And back again; folded in between, as it is kept in a slot.
            let kept = Delta::from_folded(delta.fold());
            let rest: Vec<u8> = [&old[..], &old_port.to_ne_bytes(), &data[18..]].concat();
            prop_assert_eq!(kept.reversed().update(whole(&data)), whole(&rest));
        }

        #[test]
        fn a_ttl_less_by_one_is_its_delta(ttl in 1_u8.., protocol: u8, rest: u64) {
            let octets = |ttl: u8| [&[ttl, protocol][..], &rest.to_ne_bytes()].concat();
            prop_assert_eq!(Delta::TTL.update(whole(&octets(ttl))), whole(&octets(ttl - 1)));
        }
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // HC = 0xDD2F, m = 0x5555, m' = 0x3285: equation 3 gives 0x0000, where equation 2 gave 0xFFFF.
        assert_eq!(Delta::ZERO.word(0x5555, 0x3285).update(0xdd2f), 0x0000);
    }
}
