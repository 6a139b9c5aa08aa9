//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4), with weights.
//!
//! Each backend walks the table in an order of its own, which depends on its address alone, and the backends take turns in claiming entries. So a backend that
//! comes or goes disturbs few entries of the others. A backend of weight *w* takes *w* turns for each turn of a backend of weight 1.
//!
//! Thousands of backends have tables of hundreds of thousands of entries, which are built while somebody waits. So whose turn it is comes out of a calendar
//! and isn't asked of every backend in every round; free entries are bits, which stay in the processor's cache; and once few are left, the next one
//! in a backend's order is computed from each of them, for walking would pass by nearly the whole table. What comes out is the same, entry by entry.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

/// Table sizes: primes, each for at most this many backends. Backends of one weight have the same number of entries, but for one; as there are 63 and more for each,
/// and a hundred and more where there are fewer than 2,600 backends, that's 1.6% at most.
const SIZES: [(usize, u32); 6] =
    [(40, 4_093), (160, 16_381), (650, 65_521), (4_096, 262_139), (8_192, 524_287), (16_384, 1_048_573)];

/// One backend of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the data plane.
    pub number: u16,
    /// What its order depends on.
    pub address: SocketAddr,
    /// Its share, at least 1.
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
    let size = size(members.len());
    let mut members = members.to_vec();
    // The order in which they were named must not matter.
    members.sort_by_key(|member| member.address);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::of(member, size)).collect();
    let mut turns = Turns::of(&members);
    let mut free = Free::all(size);
    let mut table = vec![0; size as usize];
    let few = size.isqrt();
    while free.count > few {
        let walk = &mut walks[turns.next()];
        table[walk.claim(&mut free) as usize] = walk.number;
    }
    let modulus = Modulus::of(size);
    let mut left = free.entries();
    while !left.is_empty() {
        let walk = &mut walks[turns.next()];
        table[walk.claim_of(&mut left, modulus) as usize] = walk.number;
    }
    table
}

/// Whose turn it is. In each round a backend is given its weight as credit, and claims an entry for as much as the heaviest one has, which is once a round at
/// most; who has waited longest goes first. So the round of its next turn is known, and it waits at the end of that round's list.
struct Turns {
    credits: Vec<Credit>,
    /// Who claims in the rounds to come; a ring, as nobody waits for longer than the lightest one does.
    rounds: Vec<Vec<u32>>,
    round: usize,
    /// This round's, and how many of them have had their turn.
    present: Vec<u32>,
    taken: usize,
}

/// One backend's, and the heaviest one's weight in terms of its own: `rounds` times, and `rest`.
struct Credit {
    weight: u32,
    rounds: u32,
    rest: u32,
    /// Left after its last turn: less than its weight.
    left: u32,
}

impl Credit {
    /// In how many rounds it can pay for its next turn, which is paid for then.
    const fn spend(&mut self) -> u32 {
        if self.left >= self.rest {
            self.left -= self.rest;
            self.rounds
        } else {
            self.left += self.weight - self.rest;
            self.rounds + 1
        }
    }
}

impl Turns {
    fn of(members: &[Member]) -> Self {
        let weights = || members.iter().map(|member| u32::from(member.weight.max(1)));
        let heaviest = weights().max().unwrap_or(1);
        let longest = heaviest.div_ceil(weights().min().unwrap_or(1)) as usize;
        let credit = |weight| Credit { weight, rounds: heaviest / weight, rest: heaviest % weight, left: 0 };
        let mut turns = Self {
            credits: weights().map(credit).collect(),
            rounds: vec![Vec::new(); longest + 1],
            round: 0,
            present: Vec::new(),
            taken: 0,
        };
        (0..members.len() as u32).for_each(|backend| turns.wait(backend));
        turns
    }

    /// The next backend. There is at least one, or this doesn't end.
    #[inline]
    fn next(&mut self) -> usize {
        while self.taken == self.present.len() {
            self.next_round();
        }
        let backend = self.present[self.taken];
        self.taken += 1;
        self.wait(backend);
        backend as usize
    }

    fn next_round(&mut self) {
        self.present.clear();
        self.taken = 0;
        self.round = (self.round + 1) % self.rounds.len();
        std::mem::swap(&mut self.present, &mut self.rounds[self.round]);
    }

    /// Puts a backend down for the round of its next turn.
    #[inline]
    fn wait(&mut self, backend: u32) {
        let mut round = self.round + self.credits[backend as usize].spend() as usize;
        if round >= self.rounds.len() {
            round -= self.rounds.len();
        }
        self.rounds[round].push(backend);
    }
}

/// The entries that nobody has, a bit each.
struct Free {
    words: Vec<u64>,
    count: u32,
}

impl Free {
    fn all(size: u32) -> Self {
        let mut words = vec![u64::MAX; size.div_ceil(64) as usize];
        if let Some(last) = words.last_mut()
            && !size.is_multiple_of(64)
        {
            *last = (1 << (size % 64)) - 1;
        }
        Self { words, count: size }
    }

    fn has(&self, entry: u32) -> bool {
        self.words[entry as usize / 64] >> (entry % 64) & 1 != 0
    }

    fn take(&mut self, entry: u32) {
        self.words[entry as usize / 64] &= !(1 << (entry % 64));
        self.count -= 1;
    }

    fn entries(&self) -> Vec<u32> {
        (0..self.words.len() as u32 * 64).filter(|entry| self.has(*entry)).collect()
    }
}

/// A backend on its way through the table: from `at` in steps of `step`, around a table whose size is prime, so that it comes by every entry.
struct Walk {
    at: u32,
    step: u32,
    /// What is left of the table's size without a step.
    back: u32,
    /// What undoes a multiplication by `step`, once it was needed.
    inverse: Option<u32>,
    number: u16,
}

impl Walk {
    fn of(member: &Member, size: u32) -> Self {
        let hash = |salt: u8| {
            // `DefaultHasher::new` is SipHash with fixed keys: the same in every agent of one Rust version, and only balance hangs on it.
            let mut hasher = DefaultHasher::new();
            (salt, member.address).hash(&mut hasher);
            hasher.finish()
        };
        // Both are below the size.
        let (at, step) = ((hash(0) % u64::from(size)) as u32, (hash(1) % u64::from(size - 1) + 1) as u32);
        Self { at, step, back: size - step, inverse: None, number: member.number }
    }

    /// One step on, around the table's end.
    const fn after(&self, entry: u32) -> u32 {
        // Both ways are computed side by side: most of the time goes into this.
        let (around, is_before) = entry.overflowing_sub(self.back);
        if is_before { entry + self.step } else { around }
    }

    /// Takes the next entry in its order that nobody has. There is one.
    fn claim(&mut self, free: &mut Free) -> u32 {
        let mut entry = self.at;
        while !free.has(entry) {
            entry = self.after(entry);
        }
        free.take(entry);
        self.at = self.after(entry);
        entry
    }

    /// The same, from a list of the entries that nobody has: the one that the fewest steps lead to.
    fn claim_of(&mut self, left: &mut Vec<u32>, modulus: Modulus) -> u32 {
        let inverse = *self.inverse.get_or_insert_with(|| modulus.inverse(self.step));
        let mut nearest = (u32::MAX, 0);
        for (place, entry) in left.iter().enumerate() {
            let steps = modulus.product(modulus.difference(*entry, self.at), inverse);
            nearest = nearest.min((steps, place));
        }
        let entry = left.swap_remove(nearest.1);
        self.at = self.after(entry);
        entry
    }
}

/// Arithmetic modulo a prime, without a division each time (Barrett, 1986).
#[derive(Clone, Copy)]
struct Modulus {
    prime: u32,
    /// 2⁶⁴ / `prime`, rounded down.
    reciprocal: u64,
}

impl Modulus {
    const fn of(prime: u32) -> Self {
        Self { prime, reciprocal: u64::MAX / if prime == 0 { 1 } else { prime as u64 } }
    }

    const fn difference(self, a: u32, b: u32) -> u32 {
        if a >= b { a - b } else { a + self.prime - b }
    }

    const fn product(self, a: u32, b: u32) -> u32 {
        let product = a as u64 * b as u64;
        // Too small by one at most.
        let quotient = ((product as u128 * self.reciprocal as u128) >> 64) as u64;
        let rest = product - quotient * self.prime as u64;
        (if rest >= self.prime as u64 { rest - self.prime as u64 } else { rest }) as u32
    }

    /// What, multiplied by `a`, is 1: `a` to the power of `prime − 2` (Fermat). `a` isn't 0.
    const fn inverse(self, a: u32) -> u32 {
        let (mut result, mut square, mut exponent) = (1, a, self.prime - 2);
        while exponent > 0 {
            if exponent & 1 != 0 {
                result = self.product(result, square);
            }
            square = self.product(square, square);
            exponent >>= 1;
        }
        result
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
        fn a_table_is_what_backends_make_that_walk_in_turns(weights in prop::collection::vec(prop_oneof![1_u16..=3, 1_u16..=1_000], 1..200)) {
            let members = members(&weights);
            prop_assert!(build(&members) == by_the_book(&members));
        }

        #[test]
        fn a_product_is_right_modulo_every_size(a: u32, b: u32, which in 0..SIZES.len()) {
            let size = SIZES[which].1;
            let (modulus, a, b) = (Modulus::of(size), a % size, b % size);
            prop_assert_eq!(u64::from(modulus.product(a, b)), u64::from(a) * u64::from(b) % u64::from(size));
            if a > 0 {
                prop_assert_eq!(modulus.product(a, modulus.inverse(a)), 1);
            }
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
    fn a_table_of_thousands_is_by_the_book_too() {
        for weights in [vec![1; 700], (0..3_000).map(|n| 1 + n % 7).collect::<Vec<_>>()] {
            let members = members(&weights);
            assert!(build(&members) == by_the_book(&members), "{} backends", weights.len());
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

    /// The same table, by the plainest of means.
    fn by_the_book(members: &[Member]) -> Vec<u16> {
        let size = size(members.len());
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.address);
        let heaviest = members.iter().map(|member| member.weight).max().expect("somebody");
        let mut backends: Vec<(Member, Walk, u16)> = members.into_iter().map(|m| (m, Walk::of(&m, size), 0)).collect();
        let mut table = vec![None; size as usize];
        let mut empty = size;
        while empty > 0 {
            backends.iter_mut().for_each(|(member, _, credit)| *credit += member.weight);
            let (mut claim, wait): (Vec<_>, Vec<_>) = backends.into_iter().partition(|(_, _, credit)| *credit >= heaviest);
            for (member, walk, credit) in claim.iter_mut().take(empty as usize) {
                *credit -= heaviest;
                while table[walk.at as usize].is_some() {
                    walk.at = (walk.at + walk.step) % size;
                }
                table[walk.at as usize] = Some(member.number);
                empty -= 1;
            }
            backends = wait.into_iter().chain(claim).collect();
        }
        table.into_iter().flatten().collect()
    }
}
