//! Is the canary slower? Held against stable's 90th percentile, as it was known before.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use splitter_ebpf::{histogram, moment::TICK_NS};

use super::{
    super::Cohorts,
    Buckets, add,
    evidence::{Evidence, Grid},
};
use crate::{model::Factor, store::Sample};

/// The comparison of one kind of times.
///
/// Too slow is on stable what took longer than its 90th percentile, on canary what took longer than so many times that. The percentile is that of the looks
/// before, so that no look decides what it's held against; the null is that the canary exceeds its time no more often than stable does its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Times {
    lately: Lately,
    too_slow: Cohorts<Sample>,
    /// The bucket that stable's slow ones began with, in the last look that could tell.
    slow_from: Option<u8>,
    evidence: Evidence,
}

impl Times {
    pub(super) fn new() -> Self {
        Self { lately: Lately::default(), too_slow: Cohorts::default(), slow_from: None, evidence: Evidence::new(&Grid::TIMES) }
    }

    /// Takes a look into account that began at this age of the rollout.
    pub(super) fn look(&mut self, tolerance: Factor, age: Duration, elapsed: Duration, times: Cohorts<&Buckets>) {
        if let Some(slow) = self.lately.percentile().and_then(|percentile| Slow::beyond(percentile, tolerance)) {
            self.slow_from = Some(slow.stable);
            let seen = Cohorts { stable: from(times.stable, slow.stable), canary: from(times.canary, slow.canary) };
            add(&mut self.too_slow.stable, seen.stable);
            add(&mut self.too_slow.canary, seen.canary);
            self.evidence.look(&Grid::TIMES, 1.0, age, elapsed, seen);
        }
        self.lately.add(times.stable, elapsed);
    }

    /// Whether stable has shown any times at all.
    pub(super) fn are_known(&self) -> bool {
        !self.lately.buckets.is_empty()
    }

    pub(super) const fn too_slow(&self) -> Cohorts<Sample> {
        self.too_slow
    }

    /// What took longer than this was too slow on stable.
    pub(super) fn slower_than(&self) -> Option<Duration> {
        self.slow_from.map(|bucket| Duration::from_nanos(histogram::begins(usize::from(bucket)).saturating_mul(TICK_NS)))
    }

    pub(super) const fn evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// The first buckets that are too slow.
struct Slow {
    stable: u8,
    canary: u8,
}

impl Slow {
    /// Beyond the bucket with stable's percentile, and beyond as many times its end, at a bucket's edge that isn't nearer. None if there is nothing beyond.
    fn beyond(percentile: u8, tolerance: Factor) -> Option<Self> {
        let stable = percentile.checked_add(1).filter(|bucket| usize::from(*bucket) <= histogram::LAST)?;
        let ends = |bucket: u8| histogram::begins(usize::from(bucket));
        let far_enough = ends(stable) * u64::from(tolerance.hundredths());
        let canary = (stable..)
            .take_while(|bucket| usize::from(*bucket) <= histogram::LAST)
            .find(|bucket| ends(*bucket) * 100 >= far_enough)?;
        Some(Self { stable, canary })
    }
}

/// How many of the samples are in this bucket, or behind it.
fn from(buckets: &Buckets, first: u8) -> Sample {
    let mut sample = Sample::default();
    for (bucket, count) in &buckets.0 {
        sample.attempts += u64::from(*count);
        sample.failures += if *bucket >= first { u64::from(*count) } else { 0 };
    }
    sample
}

/// Stable's times, of which the older ones count less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lately {
    /// In the order of buckets.
    buckets: Vec<(u8, f64)>,
    /// What one sample counts that comes now. It grows with time, for that is less work than to let all others shrink.
    one: f64,
}

impl Default for Lately {
    fn default() -> Self {
        Self { buckets: Vec::new(), one: 1.0 }
    }
}

impl Lately {
    /// So long ago counts half.
    const HALF_LIFE: Duration = Duration::from_secs(180);
    /// With less there is no percentile.
    const FEWEST: f64 = 200.0;
    /// When a sample counts more, all of them are made smaller again.
    const LARGE: f64 = 1e9;

    fn add(&mut self, times: &Buckets, elapsed: Duration) {
        self.one *= (elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64()).min(HALF_LIVES).exp2();
        if self.one > Self::LARGE {
            for (_, weight) in &mut self.buckets {
                *weight /= self.one;
            }
            // What is left of a sample after so long is nothing.
            self.buckets.retain(|(_, weight)| *weight > 1.0 / Self::LARGE);
            self.one = 1.0;
        }
        for (bucket, number) in &times.0 {
            let weight = self.one * f64::from(*number);
            match self.buckets.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => self.buckets[at].1 += weight,
                Err(at) => self.buckets.insert(at, (*bucket, weight)),
            }
        }
    }

    /// The bucket with the 90th percentile.
    fn percentile(&self) -> Option<u8> {
        let all: f64 = self.buckets.iter().map(|(_, weight)| weight).sum();
        if all < Self::FEWEST * self.one {
            return None;
        }
        let mut upto = 0.0;
        self.buckets
            .iter()
            .find(|(_, weight)| {
                upto += weight;
                upto >= all * 0.9
            })
            .map(|(bucket, _)| *bucket)
    }
}

/// More of them at once are no more: all is forgotten.
const HALF_LIVES: f64 = 200.0;
