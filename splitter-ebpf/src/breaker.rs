//! When a breaker trips. Pure; the program asks with every packet that reports a failure, the agent to explain.

use crate::abi::{Breaker, NO_LIMIT, WINDOW_SLOTS, Window, WindowSlot, WindowTally};

/// A [`WindowSlot::turn`] that is nobody's: somebody is emptying the slot.
const BEING_EMPTIED: u64 = u64::MAX;

/// The limit that was crossed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Cause {
    /// Attempts refused.
    Refused = 1,
    /// Attempts that did not complete in time.
    Timeout = 2,
    /// Connections reset by the backend.
    Reset = 3,
    /// SYNs sent again.
    Retransmit = 4,
}

impl Cause {
    /// In the order in which they are looked at.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Timeout, Self::Reset, Self::Retransmit];

    /// From a number; `None`: no cause has it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u32 == number)
    }
}

/// Failures among samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Failures.
    pub failures: u32,
    /// All of them. A failure may be of a connection older than the window, so there are at least as many as failures.
    pub samples: u32,
}

impl Share {
    /// What a tally says to one limit.
    #[inline(always)]
    #[must_use]
    pub const fn of(tally: &WindowTally, cause: Cause) -> Self {
        let (failures, samples) = match cause {
            Cause::Refused => (tally.refused, tally.attempts),
            Cause::Timeout => (tally.timed_out, tally.due),
            Cause::Reset => (tally.reset, tally.completed),
            Cause::Retransmit => (tally.retransmitted, tally.attempts),
        };
        Self { failures, samples: if samples < failures { failures } else { samples } }
    }

    /// Whether it's above so many basis points, without rounding.
    #[inline(always)]
    #[must_use]
    pub const fn is_above(self, basis_points: u16) -> bool {
        self.failures as u64 * 10_000 > basis_points as u64 * self.samples as u64
    }

    /// Whether it's above so many hundredths of another share, without rounding. A share without samples is 0.
    #[inline(always)]
    #[must_use]
    pub const fn is_above_share(self, hundredths: u16, other: Self) -> bool {
        if other.samples == 0 {
            return self.failures > 0;
        }
        let (mine, mine_low) = times(self.failures as u64 * other.samples as u64, 100);
        let (theirs, theirs_low) = times(other.failures as u64 * self.samples as u64, hundredths);
        mine > theirs || mine == theirs && mine_low > theirs_low
    }
}

/// A product of up to 80 bits: what is above its low 32 bits, and those. By hand: the kernel's instruction set has no wider multiplication than 64 bits.
#[inline(always)]
const fn times(number: u64, factor: u16) -> (u64, u64) {
    const LOW: u64 = u32::MAX as u64;
    let low = (number & LOW) * factor as u64;
    ((number >> 32) * factor as u64 + (low >> 32), low & LOW)
}

/// Whether one limit is crossed.
///
/// It is when the canary's share is above the limit, with at least `min_attempts` samples; where the breaker compares (`stable_factor` is not 0), its share has also to be
/// above that many hundredths of stable's share of the same window, however few samples that has: a broken network must not look like a broken canary, and when all fail
/// stable's few say so. Stable without samples has a share of 0, and the limit alone decides.
#[inline(always)]
#[must_use]
pub const fn crosses(breaker: &Breaker, cause: Cause, canary: &WindowTally, stable: &WindowTally) -> bool {
    let limit = limit(breaker, cause);
    if limit == NO_LIMIT {
        return false;
    }
    let (share, other) = (Share::of(canary, cause), Share::of(stable, cause));
    share.samples >= breaker.min_attempts
        && share.is_above(limit)
        && (breaker.stable_factor == 0 || share.is_above_share(breaker.stable_factor, other))
}

/// A limit, in basis points.
#[inline(always)]
#[must_use]
pub const fn limit(breaker: &Breaker, cause: Cause) -> u16 {
    match cause {
        Cause::Refused => breaker.refused,
        Cause::Timeout => breaker.timeout,
        Cause::Reset => breaker.reset,
        Cause::Retransmit => breaker.retransmit,
    }
}

/// The first limit that is crossed.
#[inline(always)]
#[must_use]
pub const fn judge(breaker: &Breaker, canary: &WindowTally, stable: &WindowTally) -> Option<Cause> {
    if crosses(breaker, Cause::Refused, canary, stable) {
        Some(Cause::Refused)
    } else if crosses(breaker, Cause::Timeout, canary, stable) {
        Some(Cause::Timeout)
    } else if crosses(breaker, Cause::Reset, canary, stable) {
        Some(Cause::Reset)
    } else if crosses(breaker, Cause::Retransmit, canary, stable) {
        Some(Cause::Retransmit)
    } else {
        None
    }
}

/// The number of the time that a moment (in units of [`crate::moment::Fine`] since the clock began) belongs to.
#[inline(always)]
#[must_use]
pub const fn time(breaker: &Breaker, units: u64) -> u64 {
    units >> (breaker.shift & 31)
}

/// Whether an outcome at the time `now` is in time for an attempt begun at the time `begun`.
#[inline(always)]
#[must_use]
pub const fn in_time(breaker: &Breaker, begun: u64, now: u64) -> bool {
    now <= begun + breaker.deadline as u64
}

/// The slot of a time.
#[inline(always)]
#[must_use]
pub fn slot(window: &Window, time: u64) -> &WindowSlot {
    // Masked, so that it's never out of bounds.
    &window.slots[time as usize & (WINDOW_SLOTS - 1)]
}

/// Whether a slot counts this time now. If not, whoever finds it so empties it with [`begin`].
#[inline(always)]
#[must_use]
pub fn counts(slot: &WindowSlot, time: u64) -> bool {
    slot.turn.load() == time + 1
}

/// Empties a slot for a new time. `EXACT`: by compare and swap, so that one CPU of several does it. What other CPUs add to the slot in that same instant may be lost.
///
/// While it's being emptied it counts no time: else a judge would take what happened a whole turn ago for the present.
#[inline(always)]
pub fn begin<const EXACT: bool>(slot: &WindowSlot, time: u64) {
    let before = slot.turn.load();
    let ahead = before.wrapping_sub(time + 1);
    // A CPU whose clock is a little behind doesn't take the slot back. A turn that is further ahead is of a window with shorter slots, whose limits were replaced.
    if before == BEING_EMPTIED || ahead <= WINDOW_SLOTS as u64 {
        return;
    }
    if slot.turn.exchange::<EXACT>(before, BEING_EMPTIED) {
        // Outcomes before attempts: no attempt is kept whose outcome is lost. Failures behind what they are a share of: as few as can be are kept whose sample is lost.
        for count in [&slot.resolved, &slot.attempts, &slot.completed, &slot.refused, &slot.reset, &slot.retransmitted] {
            count.store(0);
        }
        // Where there is a compare and swap, it also orders: the counts are seen empty before the turn is. It fails when the agent has emptied the window meanwhile;
        // then whoever comes next begins the slot again.
        let _published = slot.turn.exchange::<EXACT>(BEING_EMPTIED, time + 1);
    }
}

/// Adds one slot of a window to a tally. `back` is how many slots the slot lies behind the present one.
#[inline(always)]
pub fn add(breaker: &Breaker, tally: &mut WindowTally, slot: &WindowSlot, now: u64, back: u64) {
    if back > now || !counts(slot, now - back) {
        return;
    }
    let attempts = slot.attempts.load();
    let (window, deadline) = (breaker.window as u64, breaker.deadline as u64);
    if back < window {
        tally.attempts += attempts;
        tally.completed += slot.completed.load();
        tally.refused += slot.refused.load();
        tally.reset += slot.reset.load();
        tally.retransmitted += slot.retransmitted.load();
    }
    if back > deadline && back <= deadline + window {
        // Read after `attempts`: an outcome in between makes it less than nothing.
        let resolved = slot.resolved.load();
        tally.due += attempts;
        tally.timed_out += attempts.saturating_sub(resolved);
    }
}

/// What a window holds at the time `now`.
#[must_use]
pub fn tally(breaker: &Breaker, window: &Window, now: u64) -> WindowTally {
    let mut sum = WindowTally::default();
    for back in 0..WINDOW_SLOTS as u64 {
        if back <= now {
            add(breaker, &mut sum, slot(window, now - back), now, back);
        }
    }
    sum
}

/// The shape of a window for a timeout and a length, in units of [`crate::moment::Fine`]: shift, deadline and window of a [`Breaker`]. Slots are as short as
/// the number of slots allows, and an attempt is out of time no sooner than after `timeout`, no later than two slots after that.
#[must_use]
pub fn shape(timeout: u64, window: u64) -> (u8, u8, u8) {
    let mut shift = 0;
    loop {
        let deadline = timeout.max(1).div_ceil(1 << shift);
        // Of the present slot only a part is over: one more makes up for it.
        let length = window.max(1).div_ceil(1 << shift) + 1;
        // The present slot, those before the deadline, those of the window behind it, and one to spare for CPUs whose clocks differ.
        if 1 + deadline + length < WINDOW_SLOTS as u64 {
            return (shift, deadline as u8, length as u8);
        }
        shift += 1;
    }
}

#[cfg(test)]
mod tests {
    use core::ops::RangeInclusive;

    use proptest::prelude::*;

    use super::*;
    use crate::moment::FINE_NS;

    proptest! {
        #[test]
        fn a_share_is_compared_with_a_limit_exactly(failures in number(), samples in number(), basis_points: u16) {
            let share = Share { failures, samples };
            prop_assert_eq!(
                share.is_above(basis_points),
                u128::from(failures) * 10_000 > u128::from(basis_points) * u128::from(samples)
            );
        }

        #[test]
        fn a_share_is_compared_with_another_exactly(mine in (number(), number()), theirs in (number(), number()), hundredths: u16) {
            compares_exactly(mine, theirs, hundredths)?;
        }

        #[test]
        fn shares_that_differ_by_one_failure_are_told_apart(samples in 1_u32.., other in 1_u32.., at: u32, hundredths in 1_u16..=1_000) {
            // As many failures as make the two sides equal, or miss that by less than one.
            let failures = at % samples;
            let equal = u128::from(failures) * u128::from(other) * 100 / (u128::from(samples) * u128::from(hundredths));
            if let Ok(theirs) = u32::try_from(equal) {
                compares_exactly((failures, samples), (theirs, other), hundredths)?;
                compares_exactly((failures, samples), (theirs.saturating_add(1), other), hundredths)?;
            }
        }

        #[test]
        fn a_limit_is_crossed_as_the_rule_says(canary in tallies(), stable in tallies(), breaker in breakers()) {
            let mut first = None;
            for cause in Cause::ALL {
                let expected = by_the_rule(&breaker, cause, &canary, &stable);
                prop_assert_eq!(crosses(&breaker, cause, &canary, &stable), expected, "{:?}", cause);
                first = first.or(expected.then_some(cause));
            }
            prop_assert_eq!(judge(&breaker, &canary, &stable), first);
        }

        #[test]
        fn cohorts_that_fail_alike_trip_no_breaker_that_compares(tally in tallies(), breaker in breakers(), hundredths in 100_u16..) {
            let breaker = Breaker { stable_factor: hundredths, ..breaker };
            prop_assert_eq!(judge(&breaker, &tally, &tally), None);
            // Nor when stable has a hundred times the traffic.
            let small = scaled(&tally, |count| count / 100);
            prop_assert_eq!(judge(&breaker, &small, &scaled(&small, |count| count * 100)), None);
        }

        #[test]
        fn without_a_factor_stable_does_not_matter(canary in tallies(), stable in tallies(), other in tallies(), breaker in breakers()) {
            let breaker = Breaker { stable_factor: 0, ..breaker };
            prop_assert_eq!(judge(&breaker, &canary, &stable), judge(&breaker, &canary, &other));
        }

        #[test]
        fn without_samples_of_stable_every_factor_is_as_none(canary in tallies(), breaker in breakers()) {
            let stable = WindowTally::default();
            prop_assert_eq!(
                judge(&breaker, &canary, &stable),
                judge(&Breaker { stable_factor: 0, ..breaker }, &canary, &stable)
            );
        }

        #[test]
        fn a_shape_fits_at_any_length(timeout in 0..u64::MAX >> 8, window in 0..u64::MAX >> 8) {
            fits(timeout, window);
        }
    }

    #[test]
    fn the_limit_itself_is_not_above_it() {
        let share = |failures, samples| Share { failures, samples };
        assert!(!share(5, 100).is_above(500));
        assert!(share(51, 1_000).is_above(500));
        assert!(share(1, u32::MAX).is_above(0));
        assert!(!share(0, 0).is_above(0));
        // All of them is no more than all of them.
        assert!(!share(u32::MAX, u32::MAX).is_above(10_000));
        assert!(share(u32::MAX, u32::MAX).is_above(9_999));
    }

    #[test]
    fn stable_with_few_failures_among_very_many_is_not_taken_for_faultless() {
        let (canary, stable) = (Share { failures: 10, samples: 1_000_000 }, Share { failures: 255, samples: 20_000_000 });
        assert!(!canary.is_above_share(100, stable));
        assert!(!Share { failures: 3, samples: 100_000 }.is_above_share(300, stable));
        assert!(Share { failures: 4, samples: 100_000 }.is_above_share(300, stable));
    }

    #[test]
    fn each_limit_looks_at_its_own_failures_and_samples() {
        let tally =
            WindowTally { attempts: 1, completed: 2, refused: 3, reset: 4, retransmitted: 5, due: 60, timed_out: 7, _pad: 0 };
        let share = |cause| {
            let Share { failures, samples } = Share::of(&tally, cause);
            (failures, samples)
        };
        // A share has at least as many samples as failures.
        assert_eq!(share(Cause::Refused), (3, 3));
        assert_eq!(share(Cause::Timeout), (7, 60));
        assert_eq!(share(Cause::Reset), (4, 4));
        assert_eq!(share(Cause::Retransmit), (5, 5));
        let tally = WindowTally { attempts: 100, completed: 90, ..tally };
        assert_eq!(Share::of(&tally, Cause::Refused).samples, 100);
        assert_eq!(Share::of(&tally, Cause::Reset).samples, 90);
        assert_eq!(Share::of(&tally, Cause::Retransmit).samples, 100);
    }

    #[test]
    fn too_few_samples_trip_nothing_and_one_more_does() {
        let breaker = Breaker { refused: 500, min_attempts: 20, ..without_limits() };
        let refused = |attempts| WindowTally { attempts, refused: attempts, ..WindowTally::default() };
        assert_eq!(judge(&breaker, &refused(19), &WindowTally::default()), None);
        assert_eq!(judge(&breaker, &refused(20), &WindowTally::default()), Some(Cause::Refused));
    }

    #[test]
    fn a_breaker_without_limits_never_trips() {
        let worst = WindowTally {
            attempts: 1_000,
            completed: 1_000,
            refused: 1_000,
            reset: 1_000,
            retransmitted: 1_000,
            due: 1_000,
            timed_out: 1_000,
            _pad: 0,
        };
        assert_eq!(judge(&without_limits(), &worst, &WindowTally::default()), None);
    }

    #[test]
    fn of_several_limits_crossed_the_first_in_order_is_the_cause() {
        let tally =
            WindowTally { attempts: 9, completed: 9, refused: 9, reset: 9, retransmitted: 9, due: 9, timed_out: 9, _pad: 0 };
        let mut breaker = Breaker { refused: 0, timeout: 0, reset: 0, retransmit: 0, ..without_limits() };
        let judged = |breaker: &Breaker| judge(breaker, &tally, &WindowTally::default());
        assert_eq!(judged(&breaker), Some(Cause::Refused));
        breaker.refused = NO_LIMIT;
        assert_eq!(judged(&breaker), Some(Cause::Timeout));
        breaker.timeout = NO_LIMIT;
        assert_eq!(judged(&breaker), Some(Cause::Reset));
        breaker.reset = NO_LIMIT;
        assert_eq!(judged(&breaker), Some(Cause::Retransmit));
        breaker.retransmit = NO_LIMIT;
        assert_eq!(judged(&breaker), None);
    }

    #[test]
    fn a_cause_is_found_by_its_number_and_nothing_else_is() {
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at + 1);
            assert_eq!(Cause::from_number(cause as u32), Some(cause));
        }
        for number in [0, 5, u32::MAX] {
            assert_eq!(Cause::from_number(number), None);
        }
    }

    #[test]
    fn every_timeout_up_to_two_minutes_fits_with_every_window_up_to_five() {
        let (timeouts, windows) = (units(1..=120), units(1..=300));
        // Every timeout with every 97th window, and the other way round: each border of a shift is passed by both.
        let mut shapes = 0_u32;
        for (timeouts, windows) in [((timeouts.clone(), 1), (windows.clone(), 97)), ((timeouts, 97), (windows, 1))] {
            for timeout in timeouts.0.step_by(timeouts.1) {
                for window in windows.0.clone().step_by(windows.1) {
                    fits(timeout, window);
                    shapes += 1;
                }
            }
        }
        assert!(shapes > 2_000_000, "{shapes}");
    }

    #[test]
    fn the_shapes_of_usual_windows_are_these() {
        // Slots of 16.8 ms · 2^shift.
        let shape_of = |timeout: f64, window: f64| {
            let units = |seconds: f64| (seconds * 1e9 / FINE_NS as f64).ceil() as u64;
            shape(units(timeout), units(window))
        };
        assert_eq!(shape_of(3.0, 10.0), (4, 12, 39));
        assert_eq!(shape_of(1.0, 1.0), (1, 30, 31));
        assert_eq!(shape_of(120.0, 300.0), (9, 14, 36));
    }

    #[test]
    fn a_slot_that_is_being_emptied_counts_no_time_and_is_left_to_who_does_it() {
        let slot = WindowSlot::default();
        slot.turn.store(BEING_EMPTIED);
        slot.refused.add(9);
        for time in [0, 63, u64::MAX >> 24] {
            assert!(!counts(&slot, time));
            begin::<true>(&slot, time);
            assert_eq!((slot.turn.load(), slot.refused.load()), (BEING_EMPTIED, 9));
        }
    }

    fn fits(timeout: u64, window: u64) {
        let (shift, deadline, slots) = shape(timeout, window);
        let (timeout, window) = (timeout.max(1), window.max(1));
        // With the slot of the present, and one to spare.
        let needed = |deadline: u64, slots: u64| 1 + deadline + slots + 1;
        assert!(needed(deadline.into(), slots.into()) <= WINDOW_SLOTS as u64, "{timeout}, {window}");
        let whole = |slots: u64| u128::from(slots) << shift;
        let (from, to) = (whole(deadline.into()), whole(u64::from(deadline) + 1));
        // An attempt's age when it's first seen as expired: more than the whole slots between, at most two slots' parts besides.
        assert!(from >= timeout.into() && to <= u128::from(timeout) + whole(2), "{timeout}, {window}");
        let (from, to) = (whole(u64::from(slots) - 1), whole(slots.into()));
        assert!(from >= window.into() && to <= u128::from(window) + whole(2), "{timeout}, {window}");
        if shift > 0 {
            let half = 1_u64 << (shift - 1);
            assert!(
                needed(timeout.div_ceil(half), window.div_ceil(half) + 1) > WINDOW_SLOTS as u64,
                "{timeout}, {window}: shorter slots would do"
            );
        }
    }

    fn by_the_rule(breaker: &Breaker, cause: Cause, canary: &WindowTally, stable: &WindowTally) -> bool {
        let limit = match cause {
            Cause::Refused => breaker.refused,
            Cause::Timeout => breaker.timeout,
            Cause::Reset => breaker.reset,
            Cause::Retransmit => breaker.retransmit,
        };
        let share = |tally: &WindowTally| {
            let (failures, samples) = match cause {
                Cause::Refused => (tally.refused, tally.attempts),
                Cause::Timeout => (tally.timed_out, tally.due),
                Cause::Reset => (tally.reset, tally.completed),
                Cause::Retransmit => (tally.retransmitted, tally.attempts),
            };
            (u128::from(failures), u128::from(samples.max(failures)))
        };
        let ((failures, samples), (theirs, of)) = (share(canary), share(stable));
        // Of no samples at all the share is 0, which is what 0 of 1 is.
        let of = of.max(1);
        limit != NO_LIMIT
            && samples >= breaker.min_attempts.into()
            && failures * 10_000 > samples * u128::from(limit)
            && (breaker.stable_factor == 0 || failures * of * 100 > u128::from(breaker.stable_factor) * theirs * samples)
    }

    fn compares_exactly(mine: (u32, u32), theirs: (u32, u32), hundredths: u16) -> Result<(), TestCaseError> {
        let [a, b, c, d] = [mine.0, mine.1, theirs.0, theirs.1].map(u128::from);
        let expected = if d == 0 { a > 0 } else { a * d * 100 > u128::from(hundredths) * c * b };
        let share = |(failures, samples)| Share { failures, samples };
        prop_assert_eq!(share(mine).is_above_share(hundredths, share(theirs)), expected);
        Ok(())
    }

    fn without_limits() -> Breaker {
        Breaker { refused: NO_LIMIT, timeout: NO_LIMIT, reset: NO_LIMIT, retransmit: NO_LIMIT, ..Breaker::default() }
    }

    /// Seconds in units of [`crate::moment::Fine`].
    fn units(seconds: RangeInclusive<u64>) -> RangeInclusive<u64> {
        *seconds.start() * 1_000_000_000 / FINE_NS..=(*seconds.end() * 1_000_000_000).div_ceil(FINE_NS)
    }

    /// Of every magnitude, the ends among them.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(u32::MAX), any::<u32>(), (any::<u32>(), 0_u32..32).prop_map(|(number, shift)| number >> shift)]
    }

    fn tallies() -> impl Strategy<Value = WindowTally> {
        prop::array::uniform7(number()).prop_map(|[attempts, completed, refused, reset, retransmitted, due, timed_out]| {
            WindowTally { attempts, completed, refused, reset, retransmitted, due, timed_out, _pad: 0 }
        })
    }

    fn breakers() -> impl Strategy<Value = Breaker> {
        let limit = || prop_oneof![Just(NO_LIMIT), Just(0), 0..=10_000_u16, any::<u16>()];
        let factor = prop_oneof![Just(0), Just(100), any::<u16>()];
        ([limit(), limit(), limit(), limit()], number(), factor).prop_map(
            |([refused, timeout, reset, retransmit], min_attempts, stable_factor)| Breaker {
                refused,
                timeout,
                reset,
                retransmit,
                min_attempts,
                stable_factor,
                ..Breaker::default()
            },
        )
    }

    fn scaled(tally: &WindowTally, by: impl Fn(u32) -> u32) -> WindowTally {
        WindowTally {
            attempts: by(tally.attempts),
            completed: by(tally.completed),
            refused: by(tally.refused),
            reset: by(tally.reset),
            retransmitted: by(tally.retransmitted),
            due: by(tally.due),
            timed_out: by(tally.timed_out),
            _pad: 0,
        }
    }
}
