//! Many rollouts of one plan, played on all processors.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    Behaviour, Latency, Traffic,
    play::{Played, play},
    report::{Outcomes, Report},
};
use crate::{controller::Cohorts, model::Plan};

/// What is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The plan.
    pub plan: Plan,
    /// New connections a second, both cohorts together.
    pub rate: f64,
    /// The share of connections that fails, by cohort.
    pub failures: Cohorts<f64>,
    /// How many times as long as stable's the canary's handshakes take.
    pub latency: f64,
    /// How often the controller looks.
    pub every: Duration,
    /// How many rollouts.
    pub runs: u64,
    /// Of all chance: the same seed gives the same rollouts.
    pub seed: u64,
}

/// Half of stable's handshakes are faster than this.
const HANDSHAKE: Duration = Duration::from_millis(1);
/// See [`Latency::new`].
const STEEPNESS: f64 = 4.0;

/// What was played: with the canary as described, and with one as good as stable.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// As described.
    pub canary: Vec<Played>,
    /// As good as stable.
    pub equal: Vec<Played>,
}

impl Scenario {
    /// Plays all of it: `runs` rollouts with the canary as described, and as many with one as good as stable. `done` is told of each.
    #[must_use]
    pub fn simulate(&self, done: &(dyn Fn() + Sync)) -> Results {
        let worse = self.behaviour(self.failures.canary, self.latency);
        let equal = self.behaviour(self.failures.stable, 1.0);
        Results { canary: self.many(&worse, 0, done), equal: self.many(&equal, self.runs, done) }
    }

    /// What it comes to.
    #[must_use]
    pub fn report(&self, service: &str, results: &Results) -> Report {
        let steps = self.plan.steps.len();
        Report {
            service: service.to_owned(),
            rate: self.rate,
            stable_failures: self.failures.stable,
            canary_failures: self.failures.canary,
            canary_latency: self.latency,
            seed: self.seed,
            canary: Outcomes::of(&results.canary, steps),
            equal: Outcomes::of(&results.equal, steps),
        }
    }

    fn behaviour(&self, failures: f64, latency: f64) -> Behaviour {
        let compared = self.plan.compare.as_ref().is_some_and(|compare| compare.handshake_p90);
        let handshake = compared.then(|| Latency::new(HANDSHAKE.mul_f64(latency), STEEPNESS));
        Behaviour { failures, times: [handshake, None] }
    }

    fn many(&self, canary: &Behaviour, first: u64, done: &(dyn Fn() + Sync)) -> Vec<Played> {
        let cohorts = Cohorts { stable: self.behaviour(self.failures.stable, 1.0), canary: canary.clone() };
        let (next, all) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.runs {
                    return;
                }
                // Each rollout has chance of its own, whoever plays it.
                let seed = self.seed.wrapping_add((first + number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let mut traffic = Traffic::new(seed, self.rate, cohorts.clone());
                let played = play(&self.plan, self.every, |seen, weight, elapsed| traffic.look_into(seen, weight, elapsed));
                all.lock().unwrap_or_else(PoisonError::into_inner).push((number, played));
                done();
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
                scope.spawn(work);
            }
        });
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, played)| played).collect()
    }
}
