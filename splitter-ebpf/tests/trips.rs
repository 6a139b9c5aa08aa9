//! Whether a breaker trips when it should and only then: millions of simulated handshakes through the code that the program runs, and what chance says of them.

use std::collections::VecDeque;

use splitter_ebpf::{
    abi::{Breaker, Window, WindowSlot, WindowTally},
    breaker::{Cause, begin, counts, in_time, judge, shape, slot, tally, time},
    moment::FINE_NS,
};

/// Each kind of failure, in both cohorts.
const BACKGROUND: f64 = 0.005;
/// In basis points.
const LIMIT: u16 = 500;
const MIN_ATTEMPTS: u32 = 20;
/// Of the connections.
const CANARY: f64 = 0.05;
/// Connections a second.
const RATE: u64 = 1_000;
/// Attempts of the canary within the window of 10 s, whose slots make it up to 10.4 s.
const FULL: usize = 520;

/// What chance says: with a full window the canary has 520 samples, and trips with a failure that is the 27th of them. At 0.5% that 26 or more of the other 519 failed has a
/// binomial tail of 7·10⁻¹⁸; the canary has 4 · 2,500 failures in 10,000,000 handshakes, so the chance that any of them trips is below 10⁻¹³.
///
/// Before the window is full it's otherwise: two failures among the first 39 attempts, three among the first 59 are above 5%. That happens in 1.4% of all starts for each kind
/// of failure, see `a_start_trips_as_often_as_chance_says`: 20 attempts are few for a limit of 5%. So it's the seed that spares this run's start.
#[test]
fn ten_million_handshakes_of_equal_quality_trip_nothing() {
    let mut lab = Lab::new(limits(), 1);
    let tripped = lab.run(10_000_000, |_| [Quality::background(); 2]);
    assert_eq!(tripped, None);
    // It isn't for lack of failures, or of looking at them.
    assert!(lab.judged > 180_000, "judged {} times", lab.judged);
    let tally = lab.tally(Canary);
    assert!((350..700).contains(&tally.attempts) && (350..700).contains(&tally.due), "{tally:?}");
}

#[test]
fn a_canary_that_fails_one_in_ten_trips_soon_whatever_the_failure_is() {
    let bad = |cause| match cause {
        Cause::Refused => Quality { refused: 0.1, ..Quality::background() },
        Cause::Timeout => Quality { lost: 0.1, ..Quality::background() },
        Cause::Reset => Quality { reset: 0.1, ..Quality::background() },
        Cause::Retransmit => Quality { retransmitted: 0.1, ..Quality::background() },
    };
    for cause in Cause::ALL {
        for seed in 0..100 {
            let mut lab = Lab::new(only(cause), seed);
            let trip = lab
                .run(60_000, |_| [Quality::background(), bad(cause)])
                .unwrap_or_else(|| panic!("{cause:?}: no trip in a minute"));
            assert_eq!(trip.cause, cause);
            // A timeout is seen three seconds late.
            let since = trip.at - if cause == Cause::Timeout { 3 * RATE } else { 0 };
            assert!(since < 10 * RATE, "{cause:?} with seed {seed}: after {since} connections");
        }
    }
}

#[test]
fn a_canary_that_fails_one_in_ten_from_some_time_on_trips_within_the_window() {
    for seed in 0..20 {
        let mut lab = Lab::new(only(Cause::Refused), 1_000 + seed);
        let onset = 60 * RATE;
        let bad = Quality { refused: 0.1, ..Quality::default() };
        let trip =
            lab.run(2 * onset, |at| [Quality::default(), if at < onset { Quality::default() } else { bad }]).expect("a trip");
        assert!(trip.at >= onset && trip.at < onset + 15 * RATE, "seed {seed}: at {}", trip.at);
    }
}

/// How many see a failure before it trips: as many as the limit's share of what the window holds, however few attempts are asked for. So a window that is to trip with the least
/// number of attempts holds no more than that many divided by the limit: 400, which is 8 s of this canary's traffic.
#[test]
fn a_canary_that_refuses_everything_trips_with_the_limits_share_of_the_window() {
    let all = Quality { refused: 1.0, ..Quality::default() };
    for seed in 0..50 {
        let mut lab = Lab::new(only(Cause::Refused), 2_000 + seed);
        let onset = 30 * RATE;
        let trip =
            lab.run(2 * onset, |at| [Quality::default(), if at < onset { Quality::default() } else { all }]).expect("a trip");
        let (refused, attempts) = (trip.canary.refused, trip.canary.attempts);
        // The first that is above it: one less wasn't. (While nothing leaves the window, as here within a slot or two.)
        assert!(refused * 10_000 > attempts * u32::from(LIMIT), "{refused} of {attempts}");
        assert!((refused - 2) * 10_000 <= attempts * u32::from(LIMIT), "{refused} of {attempts}");
        assert!(refused > MIN_ATTEMPTS && refused <= 33, "{refused} of {attempts}");

        // From the start there is nothing else in it.
        let mut lab = Lab::new(only(Cause::Refused), 3_000 + seed);
        let trip = lab.run(onset, |_| [Quality::default(), all]).expect("a trip");
        // Those under way when the twentieth was refused are attempts as well.
        assert!((MIN_ATTEMPTS - IN_FLIGHT as u32..=MIN_ATTEMPTS).contains(&trip.canary.refused), "{:?}", trip.canary);
    }
}

/// The exact chance of a trip while the window fills, by counting through all numbers of failures; and as often the code does it.
#[test]
fn a_start_trips_as_often_as_chance_says() {
    const STARTS: u32 = 4_000;
    let chance = chance_of_a_trip(MIN_ATTEMPTS as usize, FULL);
    let quality = Quality { refused: BACKGROUND, ..Quality::default() };
    let tripped = (0..STARTS)
        .filter(|seed| {
            // The canary alone, and each outcome before the next attempt, as the chance is computed.
            let mut lab =
                Lab { canary: 1.0, delay: 0, spacing: 20_000_000, ..Lab::new(only(Cause::Refused), 10_000 + u64::from(*seed)) };
            lab.run(FULL as u64, |_| [quality; 2]).is_some()
        })
        .count();
    let expected = chance * f64::from(STARTS);
    let deviation = (expected * (1.0 - chance)).sqrt();
    assert!(
        (tripped as f64 - expected).abs() < 4.0 * deviation,
        "{tripped} of {STARTS} starts, expected {expected:.1} ± {deviation:.1}"
    );
}

/// What more attempts are good for: a start that trips for nothing gets rarer by far.
#[test]
fn the_chance_that_a_start_trips_for_nothing_falls_with_the_least_number_of_attempts() {
    for (min_attempts, expected) in [(20, 1.4e-2), (50, 1.9e-3), (100, 2.6e-5), (200, 1.6e-8)] {
        let chance = chance_of_a_trip(min_attempts, FULL);
        assert!((chance / expected - 1.0).abs() < 0.05, "of at least {min_attempts}: {chance}");
    }
}

/// The network fails for both: what the comparison with stable is there for. At equal quality the canary's share is above stable's every other time, so a factor of 1 is as
/// none; the fewer samples the canary has, the further the two are apart.
#[test]
fn a_fault_of_both_cohorts_trips_a_breaker_that_compares_only_without_a_margin() {
    const RUNS: u64 = 30;
    let onset = 11 * RATE;
    let trips = |share: f64, hundredths: u16| {
        let bad = Quality { refused: share, ..Quality::default() };
        let quality = |at| [if at < onset { Quality::default() } else { bad }; 2];
        let tripped = |seed: &u64| {
            Lab::new(Breaker { stable_factor: hundredths, ..only(Cause::Refused) }, 20_000 + seed).run(2 * onset, quality)
        };
        (0..RUNS).filter(|seed| tripped(seed).is_some()).count() as u64
    };
    for share in [0.1, 1.0] {
        assert_eq!(trips(share, 0), RUNS, "without a comparison, at {share}");
        assert!(trips(share, 100) > RUNS / 2, "with a factor of 1, at {share}");
        assert_eq!(trips(share, 200), 0, "with a factor of 2, at {share}");
    }
}

use Cohort::{Canary, Stable};

/// Handshakes that begin before the outcome of the first of them is there, of the canary.
const IN_FLIGHT: u64 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cohort {
    Stable,
    Canary,
}

/// Chances.
#[derive(Clone, Copy, Default)]
struct Quality {
    refused: f64,
    /// Never answered.
    lost: f64,
    /// Of those completed.
    reset: f64,
    retransmitted: f64,
}

impl Quality {
    const fn background() -> Self {
        Self { refused: BACKGROUND, lost: BACKGROUND, reset: BACKGROUND, retransmitted: BACKGROUND }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Trip {
    /// Connections before it.
    at: u64,
    cause: Cause,
    canary: WindowTally,
    stable: WindowTally,
}

/// A service's windows, and traffic at a steady rate.
struct Lab {
    breaker: Breaker,
    windows: [Window; 2],
    random: SplitMix,
    now: u64,
    /// Between two connections, in nanoseconds.
    spacing: u64,
    /// From an attempt to its outcome.
    delay: u64,
    canary: f64,
    under_way: VecDeque<(u64, Cohort, Outcome)>,
    judged: u64,
}

#[derive(Clone, Copy)]
enum Outcome {
    Completed,
    Refused,
    CompletedAndReset,
}

impl Lab {
    fn new(breaker: Breaker, seed: u64) -> Self {
        Self {
            breaker,
            windows: Default::default(),
            random: SplitMix(seed),
            now: 1_000_000_000_000 + seed * 1_234_567,
            spacing: 1_000_000_000 / RATE,
            delay: 20_000_000,
            canary: CANARY,
            under_way: VecDeque::new(),
            judged: 0,
        }
    }

    /// Until a trip, or so many handshakes were begun.
    fn run(&mut self, handshakes: u64, quality: impl Fn(u64) -> [Quality; 2]) -> Option<Trip> {
        for at in 0..handshakes {
            self.now += self.spacing;
            while let Some((begun, cohort, outcome)) = self.under_way.pop_front_if(|(begun, ..)| *begun + self.delay <= self.now)
            {
                if self.outcome(begun, cohort, outcome)
                    && let Some(trip) = self.judge(at)
                {
                    return Some(trip);
                }
            }
            let cohort = if self.random.chance(self.canary) { Canary } else { Stable };
            let quality = quality(at)[cohort as usize];
            self.counting(cohort).attempts.add(1);
            let mut failed = false;
            if self.random.chance(quality.retransmitted) {
                self.counting(cohort).retransmitted.add(1);
                failed = true;
            }
            let outcome = if self.random.chance(quality.refused) {
                Outcome::Refused
            } else if self.random.chance(quality.reset) {
                Outcome::CompletedAndReset
            } else {
                Outcome::Completed
            };
            if self.random.chance(quality.lost) {
                // Its SYN is sent again, which is the packet that tells of other timeouts.
                failed = true;
            } else if self.delay == 0 {
                failed |= self.outcome(self.now, cohort, outcome);
            } else {
                self.under_way.push_back((self.now, cohort, outcome));
            }
            if failed && let Some(trip) = self.judge(at) {
                return Some(trip);
            }
        }
        None
    }

    /// Whether it's a failure.
    fn outcome(&mut self, begun: u64, cohort: Cohort, outcome: Outcome) -> bool {
        let slot_now = self.counting(cohort);
        let failed = match outcome {
            Outcome::Completed => {
                slot_now.completed.add(1);
                false
            }
            Outcome::Refused => {
                slot_now.refused.add(1);
                true
            }
            Outcome::CompletedAndReset => {
                slot_now.completed.add(1);
                slot_now.reset.add(1);
                true
            }
        };
        let (begun, now) = (self.time(begun), self.time(self.now));
        if in_time(&self.breaker, begun, now) {
            slot(&self.windows[cohort as usize], begun).resolved.add(1);
        }
        failed
    }

    fn counting(&self, cohort: Cohort) -> &WindowSlot {
        let now = self.time(self.now);
        let slot = slot(&self.windows[cohort as usize], now);
        if !counts(slot, now) {
            begin::<true>(slot, now);
        }
        slot
    }

    fn judge(&mut self, at: u64) -> Option<Trip> {
        self.judged += 1;
        let [stable, canary] = [Stable, Canary].map(|cohort| self.tally(cohort));
        judge(&self.breaker, &canary, &stable).map(|cause| Trip { at, cause, canary, stable })
    }

    fn tally(&self, cohort: Cohort) -> WindowTally {
        tally(&self.breaker, &self.windows[cohort as usize], self.time(self.now))
    }

    fn time(&self, nanoseconds: u64) -> u64 {
        time(&self.breaker, nanoseconds / FINE_NS)
    }
}

/// 5% of each, of at least 20 in 10 s, and a timeout of 3 s.
fn limits() -> Breaker {
    let units = |seconds: u64| (seconds * 1_000_000_000).div_ceil(FINE_NS);
    let (shift, deadline, window) = shape(units(3), units(10));
    Breaker {
        refused: LIMIT,
        timeout: LIMIT,
        reset: LIMIT,
        retransmit: LIMIT,
        min_attempts: MIN_ATTEMPTS,
        shift,
        deadline,
        window,
        ..Breaker::default()
    }
}

/// Of the limits, one alone.
fn only(cause: Cause) -> Breaker {
    let none = splitter_ebpf::abi::NO_LIMIT;
    let limit = |of| if of == cause { LIMIT } else { none };
    Breaker {
        refused: limit(Cause::Refused),
        timeout: limit(Cause::Timeout),
        reset: limit(Cause::Reset),
        retransmit: limit(Cause::Retransmit),
        ..limits()
    }
}

/// The chance that one of the first `attempts` is a failure that trips, each failing with the chance of the background.
fn chance_of_a_trip(min_attempts: usize, attempts: usize) -> f64 {
    let (mut tripped, mut by_failures) = (0.0, vec![0.0; attempts + 1]);
    by_failures[0] = 1.0;
    for samples in 1..=attempts {
        let mut next = vec![0.0; attempts + 1];
        for (failures, chance) in by_failures.iter().enumerate().take(samples) {
            next[failures] += chance * (1.0 - BACKGROUND);
            if samples >= min_attempts && (failures + 1) * 10_000 > samples * usize::from(LIMIT) {
                tripped += chance * BACKGROUND;
            } else {
                next[failures + 1] += chance * BACKGROUND;
            }
        }
        by_failures = next;
    }
    tripped
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014: here so that a seed means the same in every version.
struct SplitMix(u64);

impl SplitMix {
    fn chance(&mut self, chance: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) as f64) < chance * (1_u64 << 53) as f64
    }
}
