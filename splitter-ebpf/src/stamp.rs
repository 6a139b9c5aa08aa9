//! The data plane's coarse clock.
//!
//! A stamp is 14 bits of `jiffies >> shift`, with the shift chosen so that a unit is about a second (1.024 s at 1,000 and 250 Hz,
//! 1.28 s at 100 Hz). It wraps after four hours and a half; the agent's sweep, about once a second, clears what has expired long before.

/// Bits of a stamp.
pub const BITS: u32 = 14;
const MASK: u32 = (1 << BITS) - 1;

/// The longest age that can be told, in units; timeouts must be shorter.
pub const MAX_AGE: u16 = (MASK - 64) as u16;

/// A moment, in units of `2^shift` jiffies, modulo 2¹⁴.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp(u32);

impl Stamp {
    /// The stamp of a moment in jiffies.
    #[inline(always)]
    #[must_use]
    pub const fn of(jiffies: u64, shift: u32) -> Self {
        Self((jiffies >> (shift & 63)) as u32 & MASK)
    }

    /// From the bits where it is kept.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & MASK)
    }

    /// The bits to keep.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Units from `self` to `now`. A stamp that is slightly ahead of `now` (written meanwhile on another CPU) has age 0.
    #[inline(always)]
    #[must_use]
    pub const fn age(self, now: Self) -> u16 {
        let age = now.0.wrapping_sub(self.0) & MASK;
        if age > MAX_AGE as u32 { 0 } else { age as u16 }
    }
}

/// The shift at which a unit is nearest to a second, at most 1.28 s.
#[must_use]
pub const fn shift_for(hertz: u32) -> u32 {
    let mut shift = 0;
    while (1_u32 << (shift + 1)) as u64 * 100 <= hertz as u64 * 128 {
        shift += 1;
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_about_a_second_at_every_kernel_frequency() {
        for (hertz, shift) in [(100, 7), (250, 8), (300, 8), (1_000, 10)] {
            assert_eq!(shift_for(hertz), shift, "{hertz} Hz");
        }
    }

    #[test]
    fn an_age_survives_the_wrap_and_a_stamp_ahead_is_young() {
        let at = |seconds: u64| Stamp::of(seconds << 10, 10);
        assert_eq!(at(16_380).age(at(16_390)), 10);
        assert_eq!(at(5).age(at(4)), 0);
        assert_eq!(at(0).age(at(u64::from(MAX_AGE))), MAX_AGE);
    }
}
