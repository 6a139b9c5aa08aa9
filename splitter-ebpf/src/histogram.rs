//! Buckets for times: eight to an octave, each beginning 9.05% above the one before, from 8.192 µs to 68.7 s.
//!
//! Bucket 0 has what is shorter, bucket [`LAST`] what is longer. Bucket `1 + 8 · o + s` has what is at least `32 · 2^o · 2^(s/8)` ticks of 256 ns, and less than the next.
//! Where that isn't a whole number of ticks, or of 2⁻¹⁵ of the octave, the bucket begins at the next one, so that those of the first octaves are up to 11.5% wide. [`begins`]
//! says it exactly.

use crate::{abi::HISTOGRAM_BUCKETS, moment::Ticks};

/// Octaves.
const OCTAVES: u32 = 23;
/// Ticks at which the first octave begins, as a power of two.
const FIRST: u32 = 5;
/// Buckets to an octave.
const STEPS: u32 = 8;
/// The bucket of all that is longer.
pub const LAST: usize = (1 + OCTAVES * STEPS) as usize;

const _: () = assert!(LAST < HISTOGRAM_BUCKETS);

/// `2^15 · 2^(s/8)`, rounded up: where the steps of an octave begin, for a number whose highest bit is bit 15.
const BEGINS: [u32; 8] = [32_768, 35_734, 38_968, 42_495, 46_341, 50_536, 55_109, 60_097];

/// The bucket of a span.
#[inline(always)]
#[must_use]
pub const fn bucket(span: Ticks) -> usize {
    let ticks = span.0;
    if ticks < 1 << FIRST {
        return 0;
    }
    if ticks >= 1 << (FIRST + OCTAVES) {
        return LAST;
    }
    // The highest bit, by halving: the instruction set has no instruction for it.
    let (mut rest, mut high) = (ticks, 0);
    if rest >= 1 << 16 {
        rest >>= 16;
        high += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        high += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        high += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        high += 2;
    }
    if rest >= 1 << 1 {
        high += 1;
    }
    let mantissa = (((ticks as u64) << 15) >> high) as u32;
    // Written out: an indexed table would be a map of its own.
    let step = (mantissa >= BEGINS[1]) as u32
        + (mantissa >= BEGINS[2]) as u32
        + (mantissa >= BEGINS[3]) as u32
        + (mantissa >= BEGINS[4]) as u32
        + (mantissa >= BEGINS[5]) as u32
        + (mantissa >= BEGINS[6]) as u32
        + (mantissa >= BEGINS[7]) as u32;
    (1 + (high - FIRST) * STEPS + step) as usize
}

/// The least span that falls into a bucket, in ticks. Of [`LAST`] and those behind it: where they begin.
#[must_use]
pub fn begins(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let (octave, step) = ((bucket as u32 - 1) / STEPS, (bucket as u32 - 1) % STEPS);
    let (begin, shift) = (u64::from(BEGINS[step as usize]), 15 - FIRST);
    // Rounded up: the first whole tick that is in it.
    if octave >= shift { begin << (octave - shift) } else { begin.div_ceil(1 << (shift - octave)) }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_span_lies_between_its_buckets_ends(ticks: u32) {
            lies_between_the_ends(ticks)?;
        }

        #[test]
        fn a_span_of_any_magnitude_lies_where_the_exact_formula_puts_it(magnitude in 0.0_f64..32.0) {
            let ticks = magnitude.exp2() as u32;
            lies_between_the_ends(ticks)?;
            let (found, exact) = (bucket(Ticks(ticks)), reference(ticks));
            // Where a bucket's exact beginning is no whole 2⁻¹⁵ of the octave, or no whole tick, what lies between it and the next whole one is still in the bucket before.
            let next = begins(exact) as f64;
            prop_assert!(
                found == exact || (found + 1 == exact && f64::from(ticks) < next && f64::from(ticks) * (1.0 + 1.0 / 32_768.0) >= next),
                "{ticks} ticks: bucket {found}, exactly {exact}"
            );
        }

        #[test]
        fn a_longer_span_is_in_no_earlier_bucket(a: u32, b: u32) {
            prop_assert!(bucket(Ticks(a.min(b))) <= bucket(Ticks(a.max(b))));
        }
    }

    #[test]
    fn a_bucket_begins_where_it_says() {
        for at in 1..=LAST {
            let begin = u32::try_from(begins(at)).expect("2³² ticks are 18 minutes");
            assert_eq!(bucket(Ticks(begin)), at, "at {begin}");
            assert_eq!(bucket(Ticks(begin - 1)), at - 1, "before {begin}");
        }
        assert_eq!((begins(0), bucket(Ticks(0))), (0, 0));
    }

    #[test]
    fn every_bucket_is_at_most_12_percent_wide() {
        for at in 1..LAST {
            let (begin, end) = (begins(at), begins(at + 1));
            assert!(begin < end && (end - begin) * 100 <= begin * 12, "bucket {at}: {begin} to {end}");
        }
    }

    #[test]
    fn a_bucket_begins_at_the_first_whole_step_from_the_formula_on() {
        for at in 1..=LAST {
            let exact = formula(at);
            let begin = begins(at) as f64;
            // 32 ticks · 2^octave / 2¹⁵.
            let step = ((at - 1) / 8) as f64 - 10.0;
            assert!(begin >= exact && begin - exact < 1.0_f64.max(step.exp2()), "bucket {at}: {begin}, exactly {exact}");
        }
    }

    #[test]
    fn the_ends_are_8_192_microseconds_and_68_7_seconds() {
        let nanoseconds = |bucket| Ticks(u32::try_from(begins(bucket)).expect("in 32 bits")).nanoseconds();
        assert_eq!(nanoseconds(1), 8_192);
        assert_eq!(nanoseconds(LAST), 68_719_476_736);
        assert_eq!(bucket(Ticks(31)), 0);
        assert_eq!(bucket(Ticks(u32::MAX)), LAST);
        // 10 µs and 60 s, which have to be told from what is shorter and longer.
        assert!(bucket(Ticks((10_000 / 256) as u32)) > 0);
        assert!(bucket(Ticks((60_000_000_000_u64 / 256) as u32)) < LAST);
    }

    #[test]
    fn the_buckets_hold_every_short_span_in_order() {
        let mut before = 0;
        for ticks in 0..1 << 20 {
            let at = bucket(Ticks(ticks));
            assert!(at == before || at == before + 1, "{ticks} ticks: {at} after {before}");
            before = at;
        }
        assert_eq!(before, 1 + 15 * 8 - 1);
    }

    fn lies_between_the_ends(ticks: u32) -> Result<(), TestCaseError> {
        let at = bucket(Ticks(ticks));
        prop_assert!(at <= LAST && begins(at) <= u64::from(ticks), "{ticks} ticks are not in bucket {at}");
        prop_assert!(at == LAST || u64::from(ticks) < begins(at + 1), "{ticks} ticks are behind bucket {at}");
        Ok(())
    }

    /// Where a bucket begins, in ticks.
    fn formula(bucket: usize) -> f64 {
        32.0 * ((bucket - 1) as f64 / 8.0).exp2()
    }

    /// The bucket by logarithms, and by comparison where they are too coarse.
    fn reference(ticks: u32) -> usize {
        if ticks < 32 {
            return 0;
        }
        let guess = 1 + ((f64::from(ticks) / 32.0).log2() * 8.0) as usize;
        let at = if f64::from(ticks) >= formula(guess + 1) { guess + 1 } else { guess };
        at.min(LAST)
    }
}
