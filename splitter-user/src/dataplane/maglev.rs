//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4), with weights.
//!
//! Each backend walks the table in an order of its own, which depends on its address alone, and the backends take turns in claiming entries. So a backend that
//! comes or goes disturbs few entries of the others. A backend of weight *w* takes *w* turns for each turn of a backend of weight 1.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

/// Table sizes: primes, each for at most this many backends, a hundred entries and more for each (the paper's table 5.3: under 2% imbalance).
const SIZES: [(usize, u32); 5] = [(40, 4_093), (160, 16_381), (650, 65_521), (2_600, 262_139), (16_384, 1_048_573)];

/// One backend of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the data plane.
    pub number: u16,
    /// What its order depends on.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u16,
}

/// Entries of a table for so many backends; 0 for none.
#[must_use]
pub fn size(members: usize) -> u32 {
    if members == 0 {
        return 0;
    }
    SIZES.iter().find(|(most, _)| members <= *most).map_or(SIZES[SIZES.len() - 1].1, |(_, size)| *size)
}

/// The backend's number of each entry.
#[must_use]
pub fn build(members: &[Member]) -> Vec<u16> {
    let size = size(members.len()) as usize;
    let mut members = members.to_vec();
    // The order in which they were named must not matter.
    members.sort_by_key(|member| member.address);
    let heaviest = members.iter().map(|member| u32::from(member.weight)).max().unwrap_or(1);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::of(member, size)).collect();
    let mut table = vec![None; size];
    let mut empty = size;
    while empty > 0 {
        for walk in &mut walks {
            walk.credit += u32::from(walk.member.weight);
            if walk.credit < heaviest {
                continue;
            }
            walk.credit -= heaviest;
            let entry = walk.next_free(&table);
            table[entry] = Some(walk.member.number);
            empty -= 1;
            if empty == 0 {
                break;
            }
        }
    }
    table.into_iter().flatten().collect()
}

/// A backend on its way through the table.
struct Walk {
    member: Member,
    at: usize,
    step: usize,
    size: usize,
    credit: u32,
}

impl Walk {
    fn of(member: &Member, size: usize) -> Self {
        let hash = |salt: u8| {
            // `DefaultHasher::new` is SipHash with fixed keys: the same in every agent of one Rust version, and only balance hangs on it.
            let mut hasher = DefaultHasher::new();
            (salt, member.address).hash(&mut hasher);
            hasher.finish() as usize
        };
        Self { member: *member, at: hash(0) % size, step: hash(1) % (size - 1) + 1, size, credit: 0 }
    }

    /// The next entry in its order that nobody has. There is one, since the size is prime and an entry is empty.
    fn next_free(&mut self, table: &[Option<u16>]) -> usize {
        loop {
            let entry = self.at;
            self.at = (self.at + self.step) % self.size;
            if table[entry].is_none() {
                return entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(index, weight): (usize, &u16)| Member {
            number: index as u16 + 100,
            address: SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + index as u32), 80)),
            weight: *weight,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn counts(table: &[u16], members: &[Member]) -> Vec<usize> {
        members.iter().map(|member| table.iter().filter(|number| **number == member.number).count()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn entries_are_shared_by_weight_to_within_one_turn(weights in prop::collection::vec(1_u16..=50, 1..30)) {
            let members = members(&weights);
            let table = build(&members);
            prop_assert_eq!(table.len(), size(members.len()) as usize);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (count, weight) in counts(&table, &members).iter().zip(&weights) {
                let share = f64::from(*weight) / total;
                let fair = table.len() as f64 * share;
                // A backend is behind by less than one entry of credit and one turn, which is 2 at most; what each of the others is behind,
                // it's ahead by its share of.
                let most = 2.0 + members.len() as f64 * share;
                prop_assert!((*count as f64 - fair).abs() <= most, "{} of {} for weight {}", count, table.len(), weight);
            }
        }

        #[test]
        fn a_backend_that_goes_disturbs_few_of_the_others(count in 3_usize..30, gone in 0_usize..30) {
            let before = members(&vec![1; count]);
            let mut after = before.clone();
            let gone = after.remove(gone % count);
            let (old, new) = (build(&before), build(&after));
            let moved = old.iter().zip(&new).filter(|(a, b)| **a != gone.number && a != b).count();
            // Those of the others that moved although they needn't: the paper's figure is a few percent.
            prop_assert!((moved as f64) < old.len() as f64 * 0.12, "{} of {} moved", moved, old.len());
        }

        #[test]
        fn the_order_of_naming_does_not_matter(weights in prop::collection::vec(1_u16..=5, 2..20)) {
            let members = members(&weights);
            let mut reversed = members.clone();
            reversed.reverse();
            prop_assert_eq!(build(&members), build(&reversed));
        }
    }

    #[test]
    fn nobody_has_no_table() {
        assert_eq!(build(&[]), Vec::<u16>::new());
    }

    #[test]
    fn sizes_are_primes() {
        for (_, size) in SIZES {
            assert!((2..).take_while(|n| n * n <= size).all(|n| size % n != 0), "{size}");
        }
    }
}
