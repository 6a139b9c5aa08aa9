//! Moments of what is rare: connection attempts, and what comes of them. Read from the kernel's monotonic clock by a helper call, which no packet of an
//! established connection pays for; that one's clock is [`crate::stamp`].

/// A moment or a span in units of 256 ns, modulo 2³² (18 minutes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ticks(pub u32);

/// Nanoseconds of a tick.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
const TICK_SHIFT: u32 = 8;
const FINE_SHIFT: u32 = 24;

/// Nanoseconds of a unit of [`Fine`].
pub const FINE_NS: u64 = 1 << FINE_SHIFT;

/// Bits of a [`Fine`] moment where it's kept.
pub const FINE_BITS: u32 = 14;
const FINE_MASK: u32 = (1 << FINE_BITS) - 1;

/// The oldest age that a [`Fine`] moment tells: about 274 s.
pub const MAX_FINE_AGE: u32 = FINE_MASK - 64;

/// A moment of the monotonic clock, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub u64);

/// A moment in units of 2²⁴ ns (16.8 ms), modulo 2¹⁴ (275 s): what a word of the affinity table has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fine(u32);

impl Moment {
    /// In ticks.
    #[inline(always)]
    #[must_use]
    pub const fn ticks(self) -> Ticks {
        Ticks((self.0 >> TICK_SHIFT) as u32)
    }

    /// In fine units.
    #[inline(always)]
    #[must_use]
    pub const fn fine(self) -> Fine {
        Fine((self.0 >> FINE_SHIFT) as u32 & FINE_MASK)
    }

    /// In whole fine units since the clock began.
    #[inline(always)]
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0 >> FINE_SHIFT
    }
}

impl Ticks {
    /// From `earlier` to `self`. One that is slightly ahead (written meanwhile on another CPU) is no time away.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        let span = self.0.wrapping_sub(earlier.0);
        if span > u32::MAX - (1 << 20) { Self(0) } else { Self(span) }
    }

    /// The same moment in fine units.
    #[inline(always)]
    #[must_use]
    pub const fn fine(self) -> Fine {
        Fine::from_bits(self.0 >> (FINE_SHIFT - TICK_SHIFT))
    }

    /// A span in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        (self.0 as u64) << TICK_SHIFT
    }
}

impl Fine {
    /// From the bits where it is kept.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & FINE_MASK)
    }

    /// The bits to keep.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Units from `self` to `now`; one slightly ahead of `now` has age 0.
    #[inline(always)]
    #[must_use]
    pub const fn age(self, now: Self) -> u32 {
        let age = now.0.wrapping_sub(self.0) & FINE_MASK;
        if age > MAX_FINE_AGE { 0 } else { age }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A month of uptime, and far beyond every wrap.
    const UPTIME: u64 = 1 << 52;

    proptest! {
        #[test]
        fn ticks_fine_and_units_tell_the_same_moment(nanoseconds: u64) {
            let moment = Moment(nanoseconds);
            prop_assert_eq!(u64::from(moment.ticks().0), nanoseconds / TICK_NS % (1 << 32));
            prop_assert_eq!(moment.units(), nanoseconds / FINE_NS);
            prop_assert_eq!(u64::from(moment.fine().bits()), moment.units() % (1 << FINE_BITS));
            prop_assert_eq!(moment.ticks().fine(), moment.fine());
            prop_assert_eq!(Fine::from_bits(moment.fine().bits()), moment.fine());
        }

        #[test]
        fn bits_beside_a_fine_moment_do_not_reach_it(bits: u32) {
            let fine = Fine::from_bits(bits);
            prop_assert_eq!(fine.bits(), bits % (1 << FINE_BITS));
        }

        #[test]
        fn a_span_in_ticks_is_within_a_tick_of_the_nanoseconds(from in 0..UPTIME, span in 0_u64..1_099_000_000_000) {
            let ticks = Moment(from + span).ticks().since(Moment(from).ticks());
            prop_assert!(ticks.nanoseconds().abs_diff(span) < TICK_NS, "{} of {span}", ticks.nanoseconds());
        }

        #[test]
        fn where_something_began_is_found_again_by_its_fine_moment(from in 0..UPTIME, span in 0..u64::from(MAX_FINE_AGE) * FINE_NS) {
            let (begun, now) = (Moment(from), Moment(from + span));
            prop_assert_eq!(now.units() - u64::from(begun.fine().age(now.fine())), begun.units());
        }

        #[test]
        fn what_is_slightly_ahead_is_no_time_away(from in UPTIME / 2..UPTIME, ahead in 1_u64..250_000_000) {
            let (now, written) = (Moment(from), Moment(from + ahead));
            prop_assert_eq!(now.ticks().since(written.ticks()), Ticks(0));
            prop_assert_eq!(written.fine().age(written.fine()), 0);
            prop_assert_eq!(written.fine().age(now.fine()), 0);
        }
    }

    #[test]
    fn a_span_survives_the_wrap_of_its_ticks() {
        assert_eq!(Ticks(5).since(Ticks(u32::MAX - 4)), Ticks(10));
        assert_eq!(Ticks(7).since(Ticks(7)), Ticks(0));
    }

    #[test]
    fn ahead_ends_where_the_longest_span_begins() {
        // 2²⁰ ticks are 0.27 s.
        assert_eq!(Ticks(0).since(Ticks(1 << 20)), Ticks(0));
        assert_eq!(Ticks(0).since(Ticks((1 << 20) + 1)), Ticks(u32::MAX - (1 << 20)));
    }

    #[test]
    fn a_fine_age_survives_the_wrap_and_ends_at_its_maximum() {
        let fine = Fine::from_bits;
        assert_eq!(fine((1 << FINE_BITS) - 3).age(fine(4)), 7);
        assert_eq!(fine(0).age(fine(MAX_FINE_AGE)), MAX_FINE_AGE);
        // What is older reads as just begun, and from the wrap on as younger than it is: whoever keeps one has to forget it before.
        assert_eq!(fine(0).age(fine(MAX_FINE_AGE + 1)), 0);
        assert_eq!(fine(0).age(fine(1 << FINE_BITS)), 0);
        assert_eq!(fine(0).age(fine((1 << FINE_BITS) + 9)), 9);
    }

    #[test]
    fn units_are_as_long_as_they_are_said_to_be() {
        assert_eq!((TICK_NS, FINE_NS), (256, 16_777_216));
        assert_eq!(u64::from(MAX_FINE_AGE) * FINE_NS / 1_000_000_000, 273);
        assert_eq!((1_u64 << 32) * TICK_NS / 60_000_000_000, 18);
        assert_eq!(Ticks(u32::MAX).nanoseconds(), u64::from(u32::MAX) * 256);
    }
}
