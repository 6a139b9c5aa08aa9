//! When the attempts of `dsr` connections began: a table of its own, beside that of the connections, as a word of that one has no room for a time in microseconds.
//!
//! A word is half tag, half [`Ticks`]. Words are overwritten when there is no room: then a time isn't measured, and nothing else happens.

use crate::{
    abi::{BUCKET, Bucket, HANDSHAKE_BUCKETS},
    hash::Hash,
    moment::Ticks,
};

/// So old an attempt no longer matters, in ticks: 64 s.
const OLD: u32 = 250_000_000;

/// The bucket of a connection, by its hash with the service in it.
#[inline(always)]
#[must_use]
pub const fn bucket(hash: Hash) -> u32 {
    hash.slot() & (HANDSHAKE_BUCKETS - 1)
}

#[inline(always)]
const fn tag(hash: Hash) -> u64 {
    // Never 0, so that no word in use is.
    (hash.0 >> 32 | 1) << 32
}

/// Remembers that an attempt began.
#[inline(always)]
pub fn remember(bucket: &Bucket, hash: Hash, now: Ticks) {
    let (tag, mut place) = (tag(hash), (hash.0 >> 61) as usize & (BUCKET - 1));
    let mut free = false;
    for way in 0..BUCKET {
        let word = bucket.words[way].load();
        // Its own word wherever that is, before any free one: else the older of two would be taken later.
        if word >> 32 == tag >> 32 {
            place = way;
            break;
        }
        if !free && (word == 0 || now.since(Ticks(word as u32)).0 > OLD) {
            (place, free) = (way, true);
        }
    }
    bucket.words[place & (BUCKET - 1)].store(tag | now.0 as u64);
}

/// When an attempt began; it's forgotten with that.
#[inline(always)]
#[must_use]
pub fn take(bucket: &Bucket, hash: Hash) -> Option<Ticks> {
    let tag = tag(hash);
    for way in 0..BUCKET {
        let word = bucket.words[way].load();
        if word >> 32 == tag >> 32 {
            bucket.words[way].store(0);
            return Some(Ticks(word as u32));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u32 = 1_000_000_000 / 256;

    proptest! {
        #[test]
        fn what_is_remembered_is_taken_once(hash: u64, now: u32) {
            let bucket = Bucket::default();
            remember(&bucket, Hash(hash), Ticks(now));
            prop_assert_eq!(take(&bucket, Hash(hash)), Some(Ticks(now)));
            prop_assert_eq!(take(&bucket, Hash(hash)), None);
            prop_assert!(bucket.words.iter().all(|word| word.load() == 0));
        }

        #[test]
        fn a_bucket_is_inside_the_table_and_tells_apart_what_the_tag_does_not(hash: u64) {
            prop_assert!(super::bucket(Hash(hash)) < HANDSHAKE_BUCKETS);
            prop_assert_eq!(super::bucket(Hash(hash)), super::bucket(Hash(hash ^ 0xffff_ffff << 32)));
            prop_assert_ne!(super::bucket(Hash(hash)), super::bucket(Hash(hash ^ 1)));
        }

        /// Against a list of everyone's latest attempt: whatever is taken is what that connection remembered last, at most once.
        #[test]
        fn nobody_takes_an_older_or_another_ones_time(steps in prop::collection::vec((0_u64..12, any::<bool>(), 0_u32..20 * SECOND), 1..200), start: u32) {
            let (bucket, mut now, mut last) = (Bucket::default(), Ticks(start), [None; 12]);
            for (who, takes, gap) in steps {
                now = Ticks(now.0.wrapping_add(gap));
                if takes {
                    let (taken, remembered) = (take(&bucket, of(who)), last[who as usize].take());
                    // It may have been overwritten.
                    prop_assert!(taken.is_none() || taken == remembered, "took {taken:?}, remembered {remembered:?}");
                } else {
                    remember(&bucket, of(who), now);
                    last[who as usize] = Some(now);
                }
                for who in 0..12 {
                    let words = bucket.words.iter().filter(|word| word.load() >> 32 == tag(of(who)) >> 32).count();
                    prop_assert!(words <= 1, "{words} words of one connection");
                }
            }
        }
    }

    #[test]
    fn as_many_as_there_are_places_are_remembered_together() {
        let bucket = Bucket::default();
        for who in 0..BUCKET as u64 {
            remember(&bucket, of(who), Ticks(100 + who as u32));
        }
        for who in (0..BUCKET as u64).rev() {
            assert_eq!(take(&bucket, of(who)), Some(Ticks(100 + who as u32)));
        }
    }

    #[test]
    fn in_a_full_bucket_one_attempt_takes_the_place_of_one_other() {
        let bucket = full(Ticks(100));
        remember(&bucket, of(99), Ticks(200));
        assert_eq!(take(&bucket, of(99)), Some(Ticks(200)));
        assert_eq!((0..BUCKET as u64).filter(|who| take(&bucket, of(*who)).is_some()).count(), BUCKET - 1);
    }

    #[test]
    fn who_is_pushed_out_of_a_full_bucket_differs_by_hash() {
        let pushed: Vec<usize> = (0..64_u64)
            .map(|high| {
                let bucket = full(Ticks(100));
                remember(&bucket, Hash(high << 58 | 0x77 << 32), Ticks(200));
                (0..BUCKET).find(|way| bucket.words[*way].load() as u32 == 200).expect("it is remembered")
            })
            .collect();
        assert!((0..BUCKET).all(|way| pushed.iter().filter(|place| **place == way).count() == 8), "{pushed:?}");
    }

    #[test]
    fn a_syn_sent_again_is_remembered_in_the_place_of_the_first() {
        let bucket = full(Ticks(100));
        // A place before its own gets free meanwhile.
        assert!(take(&bucket, of(0)).is_some());
        remember(&bucket, of(5), Ticks(300));
        assert_eq!(bucket.words[0].load(), 0);
        assert_eq!(take(&bucket, of(5)), Some(Ticks(300)));
        assert_eq!(take(&bucket, of(5)), None);
    }

    #[test]
    fn an_old_word_gives_way_before_one_that_matters() {
        let bucket = full(Ticks(u32::MAX - 10 * SECOND));
        let now = Ticks(60 * SECOND);
        bucket.words[3].store(tag(of(3)) | u64::from(now.0));
        // 70 s after the others, across the wrap.
        for who in 50..57 {
            remember(&bucket, of(who), now);
        }
        assert_eq!(take(&bucket, of(3)), Some(now));
        assert!((50..57).all(|who| take(&bucket, of(who)) == Some(now)));
    }

    #[test]
    fn what_is_not_64_seconds_old_is_not_old() {
        for (age, gives_way) in [(OLD, false), (OLD + 1, true)] {
            let bucket = full(Ticks(9));
            remember(&bucket, Hash(7 << 61 | 0x55 << 32), Ticks(9 + age));
            // The first that is old, or the one by hash.
            let place = if gives_way { 0 } else { 7 };
            assert_eq!(bucket.words[place].load() as u32, 9 + age, "after {age} ticks");
        }
        assert_eq!(u64::from(OLD) * 256, 64_000_000_000);
    }

    #[test]
    fn a_word_of_a_clock_slightly_ahead_is_not_old() {
        let bucket = full(Ticks(1_000));
        remember(&bucket, Hash(7 << 61 | 0x55 << 32), Ticks(0));
        assert_eq!(take(&bucket, of(0)), Some(Ticks(1_000)));
    }

    #[test]
    fn hashes_that_share_a_tag_share_a_word() {
        // 31 bits tell connections of one bucket apart; the lowest bit of the tag is given to "in use".
        let (one, other, third) = (Hash(6 << 32), Hash(7 << 32), Hash(8 << 32));
        let bucket = Bucket::default();
        remember(&bucket, one, Ticks(1));
        assert_eq!(take(&bucket, third), None);
        remember(&bucket, other, Ticks(2));
        assert_eq!(take(&bucket, one), Some(Ticks(2)));
        assert_eq!(take(&bucket, other), None);
    }

    #[test]
    fn no_word_in_use_is_zero() {
        let bucket = Bucket::default();
        remember(&bucket, Hash(0), Ticks(0));
        assert_eq!(take(&bucket, Hash(0)), Some(Ticks(0)));
        assert_eq!(take(&Bucket::default(), Hash(0)), None);
    }

    /// Different tags in any bucket.
    fn of(who: u64) -> Hash {
        Hash((who + 1).wrapping_mul(0x1234_5678_0000_0000) ^ who << 33)
    }

    /// Every place taken, by `of(0)` and following.
    fn full(at: Ticks) -> Bucket {
        let bucket = Bucket::default();
        for way in 0..BUCKET {
            bucket.words[way].store(tag(of(way as u64)) | u64::from(at.0));
        }
        bucket
    }
}
