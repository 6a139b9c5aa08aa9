//! The keyed hash that gives a client its place.
//!
//! A service's own address, port and protocol are the same for all its packets, so only the client's side is hashed; the service
//! is in the key. Three multiplications by odd numbers between xor-shifts, the shape of `SplitMix64`'s finaliser (Steele, Lea, Flood,
//! "Fast splittable pseudorandom number generators", 2014), with one half of the key before and the other as a multiplier.

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
#[inline(always)]
#[must_use]
pub const fn client(seed: [u64; 2], address: Address, port: u16) -> Hash {
    let mut hash = seed[0];
    // A mapped IPv4 address leaves 16 bits of its low word free: the port fits in, one round does for both.
    if address.high != 0 || address.low as u32 != u32::from_ne_bytes([0, 0, 0xff, 0xff]) {
        hash = (hash ^ address.high).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 32;
        hash = hash.wrapping_add(address.low).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 29;
        hash ^= port as u64;
    } else {
        hash ^= address.low ^ port as u64;
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(seed[1] | 1);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
