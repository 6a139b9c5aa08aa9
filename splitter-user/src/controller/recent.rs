//! What the cohorts did lately, for people: attempts, failures, and how long things took.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use splitter_ebpf::{histogram, moment::TICK_NS};

use super::window::{Cohorts, Count, Meter, Tally};
use crate::model::Cohort;

/// Times that are kept apart: see [`Happened::times`].
pub const KINDS: usize = 2;

/// How often something took how long: the number of each bucket of [`histogram`] that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread(BTreeMap<usize, u64>);

impl Spread {
    /// With fewer samples there is no quantile, whichever.
    pub const FEWEST: u64 = 10;

    /// What was added to counters by bucket since an earlier reading. Those that are lower than they were have begun anew.
    #[must_use]
    fn since(now: &[u64], before: &[u64]) -> Self {
        let earlier = |bucket| before.get(bucket).copied().unwrap_or_default();
        let grown = now.iter().enumerate().map(|(bucket, count)| (bucket, count.checked_sub(earlier(bucket)).unwrap_or(*count)));
        Self(grown.filter(|(_, count)| *count > 0).collect())
    }

    fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// How many samples there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time that a share of the samples is below, interpolated inside its bucket as if the samples lay evenly on a logarithmic scale. None if there are
    /// fewer than [`Self::FEWEST`], or so few that not even one is expected above it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a bucket is wider than what is lost")]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count < Self::FEWEST || count as f64 * (1.0 - share) < 1.0 - 1e-9 {
            return None;
        }
        let wanted = share * count as f64;
        let mut below = 0.0;
        for (bucket, count) in &self.0 {
            let count = *count as f64;
            if below + count >= wanted {
                return Some(inside(*bucket, (wanted - below) / count));
            }
            below += count;
        }
        None
    }
}

/// A point inside a bucket. Of the last one, which has no end, where it begins.
#[expect(clippy::cast_precision_loss, reason = "a bucket is wider than what is lost")]
fn inside(bucket: usize, part: f64) -> Duration {
    let edge = |bucket| (histogram::begins(bucket) * TICK_NS) as f64;
    let nanoseconds = match bucket {
        0 => edge(1) * part,
        bucket if bucket >= histogram::LAST => edge(histogram::LAST),
        bucket => edge(bucket) * (edge(bucket + 1) / edge(bucket)).powf(part),
    };
    Duration::from_secs_f64(nanoseconds / 1e9)
}

/// What one cohort did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// In counts.
    pub tally: Tally,
    /// How long handshakes took, and first responses.
    pub times: [Spread; KINDS],
}

impl Happened {
    fn add(&mut self, other: &Self) {
        self.tally += other.tally;
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            mine.add(theirs);
        }
    }
}

/// What the cohorts did, and in how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// So far back it looks.
    pub length: Duration,
    /// What they did.
    pub cohorts: Cohorts<Happened>,
}

/// Readings of counters that only grow become what happened lately: in the last [`Recent::LENGTH`], or since the first reading.
#[derive(Debug, Default)]
pub struct Recent {
    meter: Meter,
    /// Of the last reading.
    read: Option<(Instant, Cohorts<[Vec<u64>; KINDS]>)>,
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    from: Instant,
    to: Instant,
    cohorts: Cohorts<Happened>,
}

impl Recent {
    /// So far back it looks at most, and at least this less a slot once there were as many readings.
    pub const LENGTH: Duration = Duration::from_secs(60);
    /// What lies closer together is kept together, and forgotten together.
    const SLOT: Duration = Duration::from_secs(5);

    /// When it was read last.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        self.read.as_ref().map(|(at, _)| *at)
    }

    /// A reading: the backends' counters, and the cohorts' times by bucket (empty: nothing was measured yet).
    pub fn read(&mut self, now: Instant, backends: &BTreeMap<SocketAddr, Count>, times: Cohorts<[&[u64]; KINDS]>) {
        let tallies = self.meter.read(backends);
        if let Some((from, before)) = &self.read {
            let of = |cohort: Cohort| Happened {
                tally: tallies[cohort],
                times: std::array::from_fn(|kind| Spread::since(times[cohort][kind], &before[cohort][kind])),
            };
            let happened = Cohorts { stable: of(Cohort::Stable), canary: of(Cohort::Canary) };
            match self.slots.back_mut() {
                Some(slot) if now.saturating_duration_since(slot.from) <= Self::SLOT => {
                    slot.to = now;
                    for cohort in Cohort::ALL {
                        slot.cohorts[cohort].add(&happened[cohort]);
                    }
                }
                Some(_) | None => self.slots.push_back(Slot { from: *from, to: now, cohorts: happened }),
            }
        }
        let kept = |cohort: Cohort| times[cohort].map(<[u64]>::to_vec);
        self.read = Some((now, Cohorts { stable: kept(Cohort::Stable), canary: kept(Cohort::Canary) }));
        while self.slots.front().is_some_and(|slot| now.saturating_duration_since(slot.from) > Self::LENGTH) {
            self.slots.pop_front();
        }
    }

    /// What happened lately; none before the second reading.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let (first, last) = (self.slots.front()?, self.slots.back()?);
        let mut cohorts = Cohorts::<Happened>::default();
        for slot in &self.slots {
            for cohort in Cohort::ALL {
                cohorts[cohort].add(&slot.cohorts[cohort]);
            }
        }
        Some(Summary { length: last.to.saturating_duration_since(first.from), cohorts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use splitter_ebpf::moment::Ticks;

    use super::*;

    #[test]
    fn the_first_reading_is_where_it_begins_and_a_minute_is_all_it_looks_back() {
        let (start, mut recent) = (Instant::now(), Recent::default());
        let mut counts = vec![0; histogram::LAST + 1];
        for second in 0..200_u64 {
            counts[40] = 1_000 + second;
            recent.read(
                start + Duration::from_secs(second),
                &opened(500 + 10 * second),
                Cohorts { stable: [&[], &[]], canary: [&counts, &[]] },
            );
            let Some(summary) = recent.summary() else {
                assert_eq!(second, 0, "nobody knows when what was there before happened");
                continue;
            };
            let seconds = summary.length.as_secs();
            assert!(seconds == second || (55..=60).contains(&seconds), "{seconds} of {second}");
            assert_eq!(summary.cohorts.canary.tally.opened, 10 * seconds);
            assert_eq!(summary.cohorts.canary.times[0].count(), seconds);
            assert_eq!((summary.cohorts.stable.tally.opened, summary.cohorts.stable.times[0].count()), (0, 0));
        }
    }

    #[test]
    fn too_few_samples_have_no_quantile() {
        let spread = |count| Spread([(40, count)].into());
        for (count, known) in
            [(0, [false; 3]), (9, [false; 3]), (10, [true, true, false]), (99, [true, true, false]), (100, [true; 3])]
        {
            assert_eq!([0.5, 0.9, 0.99].map(|share| spread(count).quantile(share).is_some()), known, "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_as_exact_as_its_bucket(mut spans in prop::collection::vec(0_u32..400_000_000, 100..400), share in 0.1_f64..0.98) {
            let mut counts = vec![0; histogram::LAST + 1];
            for span in &spans {
                counts[histogram::bucket(Ticks(*span))] += 1;
            }
            spans.sort_unstable();
            let rank = ((share * spans.len() as f64).ceil() as usize).clamp(1, spans.len());
            let exact = histogram::bucket(Ticks(spans[rank - 1]));
            let told = Spread::since(&counts, &[]).quantile(share).expect("enough samples").as_nanos();
            let edge = |bucket| u128::from(histogram::begins(bucket) * TICK_NS);
            prop_assert!(edge(exact.min(histogram::LAST)) <= told + 1, "{told} is below bucket {exact}");
            prop_assert!(exact >= histogram::LAST || told <= edge(exact + 1) + 1, "{told} is above bucket {exact}");
        }
    }

    fn opened(opened: u64) -> BTreeMap<SocketAddr, Count> {
        [(([10, 0, 0, 1], 80).into(), Count { cohort: Cohort::Canary, tally: Tally { opened, ..Tally::default() } })].into()
    }
}
