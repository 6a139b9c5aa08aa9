//! The internet checksum (RFC 1071), summed over everything each time.

use std::net::IpAddr;

/// A one's complement sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    #[must_use]
    pub const fn new() -> Sum {
        Sum(0)
    }

    /// Adds octets as big-endian 16-bit words; an odd last one is padded with a zero behind (RFC 1071, section 1), so all
    /// but the last piece must be of even length.
    #[must_use]
    pub fn octets(self, octets: &[u8]) -> Sum {
        let (words, rest) = octets.as_chunks::<2>();
        let sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
        let odd = rest.first().map_or(0, |last| u64::from(*last) << 8);
        Sum(self.0 + sum + odd)
    }

    /// Adds one word.
    #[must_use]
    pub fn word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word))
    }

    /// Adds an address's octets.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(v4) => self.octets(&v4.octets()),
            IpAddr::V6(v6) => self.octets(&v6.octets()),
        }
    }

    /// The sum with its carries folded in (end-around carry).
    #[must_use]
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).expect("folded until it fits")
    }

    /// The checksum: the complement of the folded sum.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The checksum over `octets`, whose own checksum field at `field` (an even offset) counts as zero.
#[must_use]
pub fn plain(octets: &[u8], field: usize) -> u16 {
    without(Sum::new(), octets, field).checksum()
}

/// The checksum of a transport segment with its pseudo-header (RFC 9293, 3.1; RFC 768; RFC 8200, 8.1).
///
/// `length` is the pseudo-header's length, usually that of `segment`; `field` is the checksum field's even offset, or one
/// behind the end where the segment is too short to hold it. A UDP checksum of zero means "none", so callers that compute
/// one for UDP apply [`udp`].
#[must_use]
pub fn transport(source: IpAddr, destination: IpAddr, protocol: u8, length: usize, segment: &[u8], field: usize) -> u16 {
    let length = u32::try_from(length).expect("a packet's length fits 32 bits");
    let pseudo = Sum::new().address(source).address(destination).word(u16::from(protocol)).octets(&length.to_be_bytes());
    without(pseudo, segment, field).checksum()
}

/// What is written for a computed UDP checksum: all ones in place of zero (RFC 768).
#[must_use]
pub const fn udp(computed: u16) -> u16 {
    if computed == 0 { 0xffff } else { computed }
}

/// Whether two checksums mean the same sum: equal modulo 0xffff.
#[must_use]
pub const fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

/// `checksum` with the error that `found` has against `right`, in one's complement arithmetic.
#[must_use]
pub fn with_error_of(checksum: u16, found: u16, right: u16) -> u16 {
    Sum::new().word(checksum).word(found).word(!right).folded()
}

fn without(sum: Sum, octets: &[u8], field: usize) -> Sum {
    debug_assert!(field.is_multiple_of(2), "a checksum field lies at an even offset");
    if octets.len() < field + 2 {
        return sum.octets(octets);
    }
    sum.octets(&octets[..field]).octets(&octets[field + 2..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_example_in_rfc_1071_is_ddf2() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().octets(&example).folded(), 0xddf2);
        assert_eq!(Sum::new().octets(&example).checksum(), 0x220d);
    }

    #[test]
    fn an_odd_last_octet_is_the_high_half_of_a_word() {
        assert_eq!(Sum::new().octets(&[0x12, 0x34, 0x56]).folded(), 0x1234 + 0x5600);
    }

    #[test]
    fn the_checksum_field_itself_does_not_count() {
        // A widely printed IPv4 header: 192.168.0.1 to 192.168.0.199, UDP, checksum b861.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00,
            0xc7,
        ];
        assert_eq!(plain(&header, 10), 0xb861);
    }

    #[test]
    fn an_error_is_carried_over_exactly() {
        for (checksum, right, error) in [(0x1234_u16, 0x8000_u16, 7_u16), (0xfff0, 0xfffe, 0x20), (0, 0xffff, 1), (5, 5, 0)] {
            let found = Sum::new().word(right).word(error).folded();
            let carried = with_error_of(checksum, found, right);
            assert!(same(carried, Sum::new().word(checksum).word(error).folded()), "{checksum:#x} {right:#x} {error:#x}");
        }
    }

    #[test]
    fn zero_and_all_ones_are_the_same_sum_and_nothing_else_is() {
        assert!(same(0, 0xffff));
        assert!((1..0xffff).all(|other| !same(0, other) && !same(0xffff, other)));
    }
}
