//! What two cohorts would do: connections that come at random, fail at random, and take random times.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use rand_distr::{Binomial, Distribution, Poisson};
use splitter_ebpf::{histogram, moment::TICK_NS};

use crate::{
    controller::{Buckets, Cohorts, KINDS, Seen, Tally},
    model::{Cohort, Weight},
};

/// How long something takes: the chance of each bucket of [`histogram`] that has one worth speaking of.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    shares: Vec<Share>,
}

/// Of one bucket. They are in the order of buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    bucket: u8,
    /// The chance that it's this one, if it's none of those before.
    here: f64,
    /// The chance that it's this one or one of those before.
    upto: f64,
}

impl Latency {
    /// Shares below this are left out.
    const LEAST: f64 = 1e-3;

    /// Times that are log-logistic: half of them are below the median, and the odds of taking x times as long fall with the power `steepness` of x. With 4, a
    /// tenth takes 1.7 times the median, and a hundredth 3.2 times; that is how the times of services usually are: most alike, a few long.
    #[must_use]
    pub fn new(median: Duration, steepness: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a bucket is wider than what is lost")]
        let below = |bucket: usize| {
            let ratio = (histogram::begins(bucket) * TICK_NS) as f64 / median.as_nanos().max(1) as f64;
            ratio.powf(steepness) / (1.0 + ratio.powf(steepness))
        };
        let shares = (0..=histogram::LAST).filter_map(|bucket| {
            let upto = if bucket == histogram::LAST { 1.0 } else { below(bucket + 1) };
            let share = upto - below(bucket);
            Some((u8::try_from(bucket).ok()?, share)).filter(|(_, share)| *share >= Self::LEAST)
        });
        Self::from_shares(&shares.collect::<Vec<_>>())
    }

    /// From the shares of buckets, in their order, whatever they sum up to.
    #[must_use]
    pub fn from_shares(shares: &[(u8, f64)]) -> Self {
        let all: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut before = 0.0;
        let mut shares: Vec<_> = shares
            .iter()
            .map(|(bucket, share)| {
                let here = (share / (all - before)).clamp(0.0, 1.0);
                before += share;
                Share { bucket: *bucket, here, upto: before / all }
            })
            .collect();
        // Whatever rounding says: nothing is left after the last.
        if let Some(last) = shares.last_mut() {
            (last.here, last.upto) = (1.0, 1.0);
        }
        Self { shares }
    }

    /// So many samples.
    fn draw(&self, samples: u64, random: &mut Xoshiro256PlusPlus, buckets: &mut Vec<(u8, u32)>) {
        buckets.clear();
        if samples < 2 * self.shares.len() as u64 {
            self.draw_each(samples, random, buckets);
        } else {
            self.draw_all(samples, random, buckets);
        }
    }

    /// Each by itself, which is sooner done where they are few.
    fn draw_each(&self, samples: u64, random: &mut Xoshiro256PlusPlus, buckets: &mut Vec<(u8, u32)>) {
        buckets.extend(self.shares.iter().map(|share| (share.bucket, 0)));
        for _ in 0..samples {
            let place: f64 = random.random();
            let at = self.shares.partition_point(|share| share.upto <= place);
            if let Some((_, count)) = buckets.get_mut(at) {
                *count += 1;
            }
        }
        buckets.retain(|(_, count)| *count > 0);
    }

    /// Bucket by bucket: how many of those that are left.
    fn draw_all(&self, samples: u64, random: &mut Xoshiro256PlusPlus, buckets: &mut Vec<(u8, u32)>) {
        let mut left = samples;
        for share in &self.shares {
            if left == 0 {
                return;
            }
            let here = binomial(left, share.here, random);
            if here > 0 {
                buckets.push((share.bucket, u32::try_from(here).unwrap_or(u32::MAX)));
                left -= here;
            }
        }
    }
}

/// What a cohort's backends do.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// The share of connections that is refused.
    pub failures: f64,
    /// How long handshakes take, and first responses; none: that isn't measured.
    pub times: [Option<Latency>; KINDS],
}

/// Connections of clients that know nothing of each other, at the same rate all the time.
#[derive(Clone, Debug)]
pub struct Traffic {
    random: Xoshiro256PlusPlus,
    rate: f64,
    cohorts: Cohorts<Behaviour>,
}

impl Traffic {
    /// So many connections a second on average.
    #[must_use]
    pub fn new(seed: u64, rate: f64, cohorts: Cohorts<Behaviour>) -> Self {
        Self { random: Xoshiro256PlusPlus::seed_from_u64(seed), rate, cohorts }
    }

    /// From now on a cohort behaves like this.
    pub fn change(&mut self, cohort: Cohort, behaviour: Behaviour) {
        self.cohorts[cohort] = behaviour;
    }

    /// What happens in so much time, while the canary has this weight.
    pub fn look(&mut self, weight: Weight, elapsed: Duration) -> Cohorts<Seen> {
        let mut seen = Cohorts::default();
        self.look_into(&mut seen, weight, elapsed);
        seen
    }

    /// The same, where something is at hand already, whose room is used again.
    pub fn look_into(&mut self, seen: &mut Cohorts<Seen>, weight: Weight, elapsed: Duration) {
        let expected = self.rate * elapsed.as_secs_f64();
        for (cohort, share) in [(Cohort::Stable, 1.0 - weight.fraction()), (Cohort::Canary, weight.fraction())] {
            let attempts = poisson(expected * share, &mut self.random);
            let behaviour = &self.cohorts[cohort];
            let refused = binomial(attempts, behaviour.failures, &mut self.random);
            let completed = attempts - refused;
            let Seen { tally, times } = &mut seen[cohort];
            *tally = Tally { opened: attempts, completed, refused, ..Tally::default() };
            for (latency, buckets) in behaviour.times.iter().zip(times) {
                match latency {
                    Some(latency) => latency.draw(completed, &mut self.random, &mut buckets.0),
                    None => *buckets = Buckets::default(),
                }
            }
        }
    }
}

/// How many come, of clients that know nothing of each other.
fn poisson(expected: f64, random: &mut Xoshiro256PlusPlus) -> u64 {
    // Where none are expected there is no such distribution.
    Poisson::new(expected).map_or(0, |distribution| whole(distribution.sample(random)))
}

/// How many of so many it happens to.
fn binomial(of: u64, chance: f64, random: &mut Xoshiro256PlusPlus) -> u64 {
    if of == 0 || chance <= 0.0 {
        return 0;
    }
    if chance >= 1.0 {
        return of;
    }
    Binomial::new(of, chance).map_or(0, |distribution| distribution.sample(random))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number that isn't negative")]
const fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_seed_gives_the_same_traffic_each_time_and_another_one_other_traffic() {
        let looks = |seed| {
            let mut traffic = traffic(seed, 0.01);
            (0..50).map(|_| traffic.look(weight(1_000), SECOND)).collect::<Vec<_>>()
        };
        assert_eq!(looks(1), looks(1));
        assert_ne!(looks(1), looks(2));
    }

    #[test]
    fn rate_weight_failures_and_times_are_what_was_asked_for() {
        let mut traffic = traffic(3, 0.02);
        let (mut stable, mut canary, mut slow, mut timed) = (Tally::default(), Tally::default(), 0.0, 0.0);
        for _ in 0..10_000 {
            let seen = traffic.look(weight(1_000), SECOND);
            stable += seen.stable.tally;
            canary += seen.canary.tally;
            for seen in [&seen.stable, &seen.canary] {
                assert!(seen.times[0].0.is_sorted_by_key(|(bucket, _)| *bucket), "{seen:?}");
                assert_eq!(seen.times[0].0.iter().map(|(_, count)| u64::from(*count)).sum::<u64>(), seen.tally.completed);
                assert!(seen.times[1].0.is_empty());
                let median = histogram::bucket(splitter_ebpf::moment::Ticks((400_000 / TICK_NS) as u32));
                for (bucket, count) in &seen.times[0].0 {
                    slow += if usize::from(*bucket) > median { f64::from(*count) } else { 0.0 };
                    timed += f64::from(*count);
                }
            }
        }
        // Five standard deviations of each.
        for (what, found, expected, off) in [
            ("connections", (stable.opened + canary.opened) as f64, 1_000_000.0, 5_000.0),
            ("of the canary", canary.opened as f64, 100_000.0, 1_600.0),
            ("failed on canary", canary.refused as f64, 2_000.0, 225.0),
            ("failed on stable", stable.refused as f64, 9_000.0, 475.0),
            // The median's bucket ends at 1.0107 times the median: 1 / (1 + 1.0107^6) is left.
            ("slow", slow / timed, 0.484, 0.003),
        ] {
            assert!((found - expected).abs() < off, "{what}: {found}, expected {expected}");
        }
    }

    #[test]
    fn samples_drawn_one_by_one_are_spread_like_those_drawn_by_bucket() {
        let latency = Latency::new(Duration::from_millis(1), 4.0);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let (mut one_by_one, mut by_bucket) = (Vec::new(), Vec::new());
        latency.draw_each(1_000_000, &mut random, &mut one_by_one);
        latency.draw_all(1_000_000, &mut random, &mut by_bucket);
        assert_eq!(one_by_one.len(), by_bucket.len());
        for ((bucket, a), (other, b)) in one_by_one.into_iter().zip(by_bucket) {
            assert_eq!(bucket, other);
            // Six standard deviations of the difference.
            let off = 6.0 * f64::from(a + b).sqrt();
            assert!((f64::from(a) - f64::from(b)).abs() < off, "bucket {bucket}: {a} and {b}");
        }
    }

    #[test]
    fn nothing_comes_where_nothing_is_sent_and_all_fails_where_all_fails() {
        let mut traffic = traffic(1, 1.0);
        let seen = traffic.look(Weight::ZERO, SECOND);
        assert!(seen.canary == Seen::default() && seen.stable.tally.opened > 0, "{seen:?}");
        let seen = traffic.look(Weight::ALL, SECOND);
        assert_eq!(seen.stable, Seen::default());
        assert!(seen.canary.tally.refused == seen.canary.tally.opened && seen.canary.tally.opened > 0, "{seen:?}");
        assert_eq!(traffic.look(weight(5_000), Duration::ZERO), Cohorts::default());
    }

    /// 100 connections a second, of which 1% fail on stable.
    fn traffic(seed: u64, canary: f64) -> Traffic {
        let latency = Latency::new(Duration::from_micros(400), 6.0);
        let behaviour = |failures| Behaviour { failures, times: [Some(latency.clone()), None] };
        Traffic::new(seed, 100.0, Cohorts { stable: behaviour(0.01), canary: behaviour(canary) })
    }

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).expect("in range")
    }
}
