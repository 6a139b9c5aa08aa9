//! One clock for everybody: the kernel's monotonic one, by which the data plane notes when a breaker trips.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_MONOTONIC))
    }

    /// So much later; less than nothing: `None`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// What leads from other clocks to the monotonic one, as it was when this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    /// Of the monotonic and of the wall clock, at that instant.
    monotonic: u64,
    wall: u64,
}

impl Clock {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        // Whoever is interrupted between the readings would have clocks that differ by that.
        let read = || (read(ClockId::CLOCK_MONOTONIC), Instant::now(), read(ClockId::CLOCK_REALTIME), Monotonic::now());
        let readings = (0..5).map(|_| read());
        let (monotonic, instant, wall, _) = readings.min_by_key(|(begun, .., ended)| ended.0 - begun).expect("there are five");
        Self { instant, monotonic, wall }
    }

    /// Of an instant.
    #[must_use]
    pub fn of(&self, instant: Instant) -> Monotonic {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).expect("centuries");
        Monotonic(match instant.checked_duration_since(self.instant) {
            Some(later) => self.monotonic + nanos(later),
            None => self.monotonic - nanos(self.instant.duration_since(instant)),
        })
    }

    /// Of a moment of the wall clock, in nanoseconds since 1970.
    #[must_use]
    pub const fn of_wall(&self, wall: u64) -> Monotonic {
        Monotonic((self.monotonic + wall).saturating_sub(self.wall))
    }
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("every kernel has this clock");
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clocks_tell_the_same_moment() {
        let clock = Clock::now();
        let (before, instant, wall, after) = (Monotonic::now(), Instant::now(), read(ClockId::CLOCK_REALTIME), Monotonic::now());
        // The wall clock may be steered a little meanwhile.
        let slack = 100_000;
        for moment in [clock.of(instant), clock.of_wall(wall)] {
            assert!(moment.0 + slack >= before.0 && moment.0 <= after.0 + slack, "{before:?} {moment:?} {after:?}");
        }
        let earlier = clock.of(instant - Duration::from_secs(1));
        assert_eq!(clock.of(instant).since(earlier), Some(Duration::from_secs(1)));
        assert_eq!(earlier.since(clock.of(instant)), None);
    }
}
