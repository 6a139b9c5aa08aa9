//! The keyed hash that gives a client its place.
//!
//! A service's own address, port and protocol are the same for all its packets, so only the client's side is hashed; the service
//! is in the key. Multiplications by odd numbers, most of them secret, with a xor-shift or a swap of octets in between: a difference behind one of them depends on the
//! seed, so nobody who has read this chooses it. What is public, the last multiplication, only spreads what is behind.
//!
//! Not a pseudo-random function, and not claimed to be one: `tests/adversary.rs` has what was tried against it.

use crate::address::Address;

/// A hash over a client. The high half is its place in hash space, the low half picks the backend within the cohort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(pub u64);

impl Hash {
    /// Place in hash space, compared with the canary's threshold.
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Picks the entry of a Maglev table.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// What finds a connection of this service in a table that all services share: services may have the same seed, and a client may use one port
    /// toward several of them.
    #[inline(always)]
    #[must_use]
    pub const fn of_service(self, number: u32) -> Self {
        Self(self.0 ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The port that stands for "whatever port" under client affinity.
pub const ANY_PORT: u16 = 0;

/// Hashes a client's address and port (as loaded from network order; [`ANY_PORT`] for the address alone).
///
/// An IPv4 client lies in 48 bits of one word, so all of them have different hashes. In IPv6 an outsider who owns a /64 chooses 64 bits and the port: were the low half not
/// multiplied by a secret before the port comes in, he'd know which addresses the port makes equal again.
#[inline(always)]
#[must_use]
pub const fn client(seed: [u64; 2], address: Address, port: u16) -> Hash {
    let mut hash = seed[0];
    // A mapped IPv4 address leaves 16 bits of its low word free: the port fits in.
    if address.high != 0 || address.low as u32 != u32::from_ne_bytes([0, 0, 0xff, 0xff]) {
        hash = (hash ^ address.high).wrapping_mul(seed[1] | 1);
        hash ^= hash >> 32;
        hash = (hash ^ address.low).wrapping_mul(seed[0] | 1);
        hash ^= port as u64;
    } else {
        hash ^= address.low ^ port as u64;
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(seed[1] | 1);
    // The best mixed octets come lowest, from where the next multiplication spreads them.
    hash = hash.swap_bytes().wrapping_mul(seed[0] | 1);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    Hash(hash ^ hash >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: [u64; 2] = [0x0f1e_2d3c_4b5a_6978, 0x8796_a5b4_c3d2_e1f0];

    proptest! {
        #[test]
        fn every_input_bit_moves_about_half_of_the_output(high: u64, low: u64, port: u16, bit in 0_u32..144, seed: [u64; 2]) {
            // One pair may be off by chance; far fewer than an eighth of the bits moved would be a weak mix.
            let a = client(seed, Address { high, low }, port);
            let (high, low, port) = match bit {
                0..64 => (high ^ 1 << bit, low, port),
                64..128 => (high, low ^ 1 << (bit - 64), port),
                _ => (high, low, port ^ 1 << (bit - 128)),
            };
            let b = client(seed, Address { high, low }, port);
            prop_assert!((a.0 ^ b.0).count_ones() >= 8);
        }
    }

    #[test]
    fn neighbouring_ports_and_addresses_spread_evenly() {
        for octets in [[10, 0, 0, 1], [192, 168, 7, 9]] {
            let mut cells = [0_u32; 256];
            for port in 0..=u16::MAX {
                cells[(client(SEED, Address::v4(octets), port).place() >> 24) as usize] += 1;
            }
            // 256 expected in each cell; 255 degrees of freedom: chi-square above 330.5 has a chance of 1 in 1,000.
            let chi: f64 = cells.iter().map(|c| (f64::from(*c) - 256.0).powi(2) / 256.0).sum();
            assert!(chi < 330.5, "chi-square {chi}");
        }
    }

    #[test]
    fn the_seed_changes_every_place() {
        let address = Address::v4([10, 0, 0, 1]);
        let same = (0..10_000_u16).filter(|p| client(SEED, address, *p).place() == client([1, 2], address, *p).place()).count();
        assert_eq!(same, 0);
    }
}
