//! The rollouts, on all cores.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use splitter_user::{
    controller::Cohorts,
    model::Weight,
    simulate::{Behaviour, Latency, Traffic},
};

use super::method::{Judge, Method};

/// Between two looks.
pub const LOOK: Duration = Duration::from_secs(1);
/// Looks of an hour.
pub const HOUR: u32 = 3_600;

/// One kind of rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene {
    /// New connections a second.
    pub rate: u32,
    /// The canary's weight.
    pub weight: Weight,
    /// The share of failures on stable.
    pub stable: f64,
    /// On canary.
    pub canary: f64,
    /// How long a rollout goes on, in looks.
    pub looks: u32,
}

/// What a method did in a rollout: the canary's connections until it called the canary worse; none: it never did.
pub type Found = Option<u64>;

impl Scene {
    /// Plays rollouts, each with a seed of its own, and says what these methods found in each. `played` is called after each.
    #[must_use]
    pub fn play(&self, rollouts: u64, methods: &[Method], played: &(dyn Fn() + Sync)) -> Vec<Vec<Found>> {
        let next = AtomicU64::new(0);
        let all = Mutex::new(vec![Vec::new(); usize::try_from(rollouts).unwrap_or(0)]);
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= rollouts {
                            return;
                        }
                        let found = self.rollout(number, methods);
                        if let Ok(mut all) = all.lock() {
                            all[number as usize] = found;
                        }
                        played();
                    }
                });
            }
        });
        all.into_inner().expect("nobody panics with the lock: an assignment can't")
    }

    fn rollout(&self, number: u64, methods: &[Method]) -> Vec<Found> {
        let mut traffic = self.traffic(number);
        let mut judges: Vec<(Judge, Found)> = methods.iter().map(|method| (method.begin(), None)).collect();
        let mut seen = Cohorts::default();
        let mut connections = 0;
        for _ in 0..self.looks {
            traffic.look_into(&mut seen, self.weight, LOOK);
            connections += seen.canary.tally.resolved();
            for (judge, found) in &mut judges {
                if found.is_none() && judge.look(&seen, LOOK) {
                    *found = Some(connections);
                }
            }
            if judges.iter().all(|(_, found)| found.is_some()) {
                break;
            }
        }
        judges.into_iter().map(|(_, found)| found).collect()
    }

    /// The traffic of a rollout. Another scene has other seeds, so that no two rollouts have the same luck.
    #[must_use]
    pub fn traffic(&self, number: u64) -> Traffic {
        let Self { rate, weight, stable, canary, looks: _ } = *self;
        let scene = u64::from(rate) << 16 | u64::from(weight.basis_points());
        let seed = (scene << 24 | number) ^ canary.to_bits();
        let behaviour = |failures| Behaviour { failures, times: [Some(latency()), None] };
        Traffic::new(seed, f64::from(rate), Cohorts { stable: behaviour(stable), canary: behaviour(canary) })
    }
}

/// How long handshakes take, on both cohorts: a tenth more than 1.15 times the median, which is narrow, so that there are few buckets to be drawn.
fn latency() -> Latency {
    Latency::new(Duration::from_micros(400), 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_the_same_each_time_and_another_one_is_not() {
        let scene = Scene {
            rate: 1_000,
            weight: Weight::from_basis_points(1_000).expect("in range"),
            stable: 0.001,
            canary: 0.01,
            looks: HOUR,
        };
        let methods = [Method::Splitter, Method::Thresholds];
        let all = scene.play(8, &methods, &|| ());
        assert_eq!(all, (0..8).map(|number| scene.rollout(number, &methods)).collect::<Vec<_>>());
        assert!(all.iter().any(|found| found[0] != all[0][0]), "{all:?}");
        assert!(all.iter().all(|found| found[0].is_some()), "{all:?}");
    }
}
