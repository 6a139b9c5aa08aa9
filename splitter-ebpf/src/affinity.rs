//! Known connections: a set-associative table of 64-bit words, eight to a bucket, a bucket to a cache line.
//!
//! | bits | word |
//! | --- | --- |
//! | 0–21 | value: the backend's number (`dsr`) or the slot's (`nat`) |
//! | 22–23 | state: 0 free, 1 embryonic, 2 established, 3 closing |
//! | 24–37 | established and closing: [stamp](crate::stamp) of the latest packet; embryonic: [when it began](crate::moment::Fine) |
//! | 38–63 | tag: the connection's hash's high bits |
//!
//! A word is read and written whole, so nobody sees half an entry. A connection may lie in either of two buckets. A new one takes a free
//! or expired place; where there is none, the oldest embryonic one; an established connection is never pushed out.

use crate::{
    abi::{BUCKET, Bucket},
    hash::Hash,
    moment::Fine,
    stamp::Stamp,
};

/// Bits of a value.
pub const VALUE_BITS: u32 = 22;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
const STATE: u64 = 3 << VALUE_BITS;
const ESTABLISHED: u64 = (State::Established as u64) << VALUE_BITS;
const TAG_SHIFT: u32 = 38;
const TAG: u64 = u64::MAX << TAG_SHIFT;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Opened, not known to be answered.
    Embryonic = 1,
    /// Both sides talk.
    Established = 2,
    /// FIN or RST was seen.
    Closing = 3,
}

/// An entry, or the lack of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Word(pub u64);

impl Word {
    /// An entry.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: Hash, value: u32, state: State, stamp: Stamp) -> Self {
        Self(value as u64 & VALUE | (state as u64) << 22 | (stamp.bits() as u64) << 24 | (hash.0 >> TAG_SHIFT) << TAG_SHIFT)
    }

    /// Backend or slot.
    #[inline(always)]
    #[must_use]
    pub const fn value(self) -> u32 {
        (self.0 & VALUE) as u32
    }

    /// `None`: free.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> Option<State> {
        match self.0 >> 22 & 3 {
            1 => Some(State::Embryonic),
            2 => Some(State::Established),
            3 => Some(State::Closing),
            _ => None,
        }
    }

    /// An attempt that begins.
    #[inline(always)]
    #[must_use]
    pub const fn attempt(hash: Hash, value: u32, begun: Fine) -> Self {
        Self::new(hash, value, State::Embryonic, Stamp::from_bits(begun.bits()))
    }

    /// When its latest packet came; not of an attempt.
    #[inline(always)]
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        Stamp::from_bits((self.0 >> 24) as u32)
    }

    /// When it began; of an attempt alone.
    #[inline(always)]
    #[must_use]
    pub const fn begun(self) -> Fine {
        Fine::from_bits((self.0 >> 24) as u32)
    }

    /// The same with another state and stamp.
    #[inline(always)]
    #[must_use]
    pub const fn touched(self, state: State, stamp: Stamp) -> Self {
        Self(self.0 & !(0xffff_u64 << 22) | (state as u64) << 22 | (stamp.bits() as u64) << 24)
    }

    /// Whether the hash's tag is this entry's.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, hash: Hash) -> bool {
        (self.0 ^ hash.0) >> TAG_SHIFT == 0 && self.0 >> 22 & 3 != 0
    }
}

/// The two buckets where a connection may lie, the first one preferred. `mask` is the number of buckets less one.
#[inline(always)]
#[must_use]
pub const fn buckets(hash: Hash, mask: u32) -> (u32, u32) {
    let first = hash.slot() & mask;
    // The step is odd, so the two differ in every table of more than one bucket.
    (first, first ^ (((hash.0 >> TAG_SHIFT) as u32).wrapping_mul(0x5bd1_e995) >> 6 | 1) & mask)
}

/// The way of a bucket that a connection prefers. Few buckets are so full that it has to take another: where a processor guesses that it hasn't, it goes on
/// with the next packet while this one's bucket is on its way from memory.
#[inline(always)]
const fn preferred(hash: Hash) -> usize {
    (hash.0 >> 32) as usize & (BUCKET - 1)
}

/// Where in a bucket a connection lies, and its word, which was read once.
#[inline(always)]
#[must_use]
pub fn find(bucket: &Bucket, hash: Hash) -> Option<(usize, Word)> {
    let way = preferred(hash);
    let word = Word(bucket.words[way].load());
    if word.is(hash) {
        return Some((way, word));
    }
    for way in 0..BUCKET {
        let word = Word(bucket.words[way].load());
        if word.is(hash) {
            return Some((way, word));
        }
    }
    None
}

/// Where in a bucket an established connection lies, and its word, which was read once. As [`find`], but that one comparison asks for tag and state.
#[inline(always)]
#[must_use]
pub fn find_established(bucket: &Bucket, hash: Hash) -> Option<(usize, Word)> {
    let wanted = hash.0 & TAG | ESTABLISHED;
    let preferred = preferred(hash);
    let word = bucket.words[preferred].load();
    if (word ^ wanted) & (TAG | STATE) == 0 {
        return Some((preferred, Word(word)));
    }
    for way in 0..BUCKET {
        let word = bucket.words[way].load();
        if (word ^ wanted) & (TAG | STATE) == 0 {
            return Some((way, Word(word)));
        }
    }
    None
}

/// A free place of a bucket: the connection's preferred one, or else the first.
#[inline(always)]
#[must_use]
pub fn free(bucket: &Bucket, hash: Hash) -> Option<usize> {
    let way = preferred(hash);
    if bucket.words[way].load() == 0 {
        return Some(way);
    }
    (0..BUCKET).find(|way| bucket.words[*way].load() == 0)
}

/// How willingly an entry gives way to a new connection: the greater, the sooner. (A number, not an `enum` with a payload: the
/// verifier refuses to copy a payload that isn't there.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Yield(u32);

impl Yield {
    /// Never.
    pub const NO: Self = Self(0);
    /// Free or expired.
    pub const FREE: Self = Self(u32::MAX);

    /// Embryonic, this many fine units old: under pressure, the oldest first.
    #[inline(always)]
    #[must_use]
    pub const fn embryonic(age: u32) -> Self {
        Self(1 + (age & 0xffff))
    }

    /// Over on both sides, this many units ago: sooner than any attempt, as nobody waits for it any more.
    #[inline(always)]
    #[must_use]
    pub const fn over(age: u16) -> Self {
        Self(1 << 16 | age as u32)
    }

    /// As a number, and from one.
    #[inline(always)]
    #[must_use]
    pub const fn rank(self) -> u32 {
        self.0
    }

    /// From [`Self::rank`].
    #[inline(always)]
    #[must_use]
    pub const fn from_rank(rank: u32) -> Self {
        Self(rank)
    }

    /// Whether the place is free, or as good as free.
    #[inline(always)]
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.0 == u32::MAX
    }
}

/// The present, on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// That of established connections.
    pub stamp: Stamp,
    /// That of attempts.
    pub fine: Fine,
}

/// How long entries live in silence, in stamp units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Embryonic: since they began, in fine units.
    pub embryonic: u16,
    /// Established.
    pub established: u16,
    /// Closing.
    pub closing: u16,
}

/// How willingly this entry gives way.
#[inline(always)]
#[must_use]
pub const fn yields(word: Word, limits: Limits, now: Now) -> Yield {
    let (age, since) = (word.stamp().age(now.stamp), word.begun().age(now.fine));
    match word.state() {
        None => Yield::FREE,
        Some(State::Embryonic) if since > limits.embryonic as u32 => Yield::FREE,
        Some(State::Embryonic) => Yield::embryonic(since),
        Some(State::Established) if age > limits.established => Yield::FREE,
        Some(State::Closing) if age > limits.closing => Yield::FREE,
        Some(State::Established | State::Closing) => Yield::NO,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::moment::Moment;

    proptest! {
        #[test]
        fn a_word_keeps_what_was_put_into_it(hash: u64, value in 0_u32..1 << VALUE_BITS, jiffies: u64, later: u64) {
            let (hash, stamp) = (Hash(hash), Stamp::of(jiffies, 10));
            for state in [State::Embryonic, State::Established, State::Closing] {
                let word = Word::new(hash, value, state, stamp);
                prop_assert!(word.is(hash));
                prop_assert_eq!((word.value(), word.state(), word.stamp()), (value, Some(state), stamp));
                let touched = word.touched(State::Closing, Stamp::of(later, 10));
                prop_assert!(touched.is(hash));
                prop_assert_eq!((touched.value(), touched.state(), touched.stamp()), (value, Some(State::Closing), Stamp::of(later, 10)));
            }
        }

        #[test]
        fn a_connection_has_two_different_buckets_inside_the_table(hash: u64, bits in 1_u32..20) {
            let mask = (1 << bits) - 1;
            let (first, second) = buckets(Hash(hash), mask);
            prop_assert!(first <= mask && second <= mask && first != second);
        }
    }

    #[test]
    fn a_free_word_is_nobodys() {
        assert!(!Word(0).is(Hash(0)));
        assert_eq!(find(&Bucket::default(), Hash(0)), None);
        assert_eq!(free(&Bucket::default(), Hash(5 << 32)), Some(5));
        let bucket = Bucket::default();
        bucket.words[5].store(1);
        assert_eq!(free(&bucket, Hash(5 << 32)), Some(0));
    }

    proptest! {
        #[test]
        fn of_all_that_lie_in_a_bucket_an_established_connection_is_found_and_no_other(
            hash: u64, tags in prop::collection::hash_set(0_u64..1 << 26, BUCKET..=BUCKET), states: [u8; BUCKET], rest: [u64; BUCKET],
        ) {
            let bucket = Bucket::default();
            let hashes: Vec<Hash> = tags.into_iter().map(|tag| Hash(tag << TAG_SHIFT | hash & !TAG)).collect();
            let state = |way: usize| match states[way] % 4 {
                0 => None,
                1 => Some(State::Embryonic),
                2 => Some(State::Established),
                _ => Some(State::Closing),
            };
            for (way, hash) in hashes.iter().enumerate() {
                let (value, stamp) = (rest[way] as u32 & VALUE as u32, Stamp::from_bits((rest[way] >> 32) as u32));
                let word = state(way).map_or(Word(0), |state| Word::new(*hash, value, state, stamp));
                bucket.words[way].store(word.0);
            }
            for (way, hash) in hashes.into_iter().enumerate() {
                let word = Word(bucket.words[way].load());
                prop_assert_eq!(find(&bucket, hash), state(way).map(|_| (way, word)));
                prop_assert_eq!(find_established(&bucket, hash), state(way).filter(|state| *state == State::Established).map(|_| (way, word)));
            }
        }
    }

    #[test]
    fn embryonic_entries_give_way_and_established_ones_only_when_expired() {
        let limits = Limits { embryonic: 3, established: 100, closing: 10 };
        let at = |units: u64| Now { stamp: Stamp::of(units << 10, 10), fine: Moment(units << 24).fine() };
        let aged = |state, age: u64| {
            let word = match state {
                State::Embryonic => Word::attempt(Hash(7 << 40), 1, at(1_000).fine),
                State::Established | State::Closing => Word::new(Hash(7 << 40), 1, state, at(1_000).stamp),
            };
            yields(word, limits, at(1_000 + age))
        };
        assert_eq!(aged(State::Embryonic, 2), Yield::embryonic(2));
        assert_eq!(aged(State::Embryonic, 4), Yield::FREE);
        assert_eq!(aged(State::Established, 100), Yield::NO);
        assert_eq!(aged(State::Established, 101), Yield::FREE);
        assert_eq!(aged(State::Closing, 10), Yield::NO);
        assert_eq!(aged(State::Closing, 11), Yield::FREE);
        assert!(
            Yield::FREE > Yield::over(u16::MAX) && Yield::over(1) > Yield::over(0) && Yield::over(0) > Yield::embryonic(16_000)
        );
        assert!(
            Yield::FREE > Yield::embryonic(9) && Yield::embryonic(9) > Yield::embryonic(2) && Yield::embryonic(0) > Yield::NO
        );
    }
}
