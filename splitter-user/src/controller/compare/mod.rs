//! Is the canary worse than stable? The comparison of a rollout, which may be looked at as often as one likes. See `docs/analysis.md`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `evidence` | how strongly counts speak against the canary: the e-process |
//! | `times` | which times are too slow, and so become counts |
//! | `share` | how much of stable fails lately |

mod evidence;
mod share;
mod times;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::{
    evidence::{Evidence, Grid},
    share::Share,
    times::Times,
};
use super::{Cohorts, KINDS, Tally};
use crate::{
    model::Compare,
    store::{Compared, Difference, Sample},
};

/// How often something took how long: bucket of [`splitter_ebpf::histogram`] and number, in the order of buckets, none of them 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets(pub Vec<(u8, u32)>);

impl Buckets {
    /// What was added to counters by bucket since an earlier reading. Those that are lower than they were have begun anew.
    #[must_use]
    pub fn since(now: &[u64], before: &[u64]) -> Self {
        let grown = now.iter().enumerate().filter_map(|(bucket, count)| {
            let earlier = before.get(bucket).copied().unwrap_or_default();
            let grown = count.checked_sub(earlier).unwrap_or(*count);
            // There are 190 buckets, and nothing happens 2^32 times between two looks.
            (grown > 0).then(|| (u8::try_from(bucket).unwrap_or(u8::MAX), u32::try_from(grown).unwrap_or(u32::MAX)))
        });
        Self(grown.collect())
    }
}

/// What one cohort did since the look before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In counts.
    pub tally: Tally,
    /// How long handshakes took, and first responses; empty where that isn't measured.
    pub times: [Buckets; KINDS],
}

/// What the comparison says.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Standing {
    /// Nothing speaks against the canary strongly enough.
    Fine,
    /// The canary is worse.
    Worse(Difference),
    /// Stable itself fails too often to be compared with: its share lately.
    StableFailing(Sample),
}

/// The comparison of one rollout: what it has seen so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    how: Compare,
    /// How long it has been going.
    age: Duration,
    /// Failures and outcomes in all.
    failed: Cohorts<Sample>,
    /// Stable's, lately.
    stable: Share,
    /// What speaks against the canary's failures, if they are compared.
    failures: Option<Evidence>,
    /// The times, if they are compared.
    times: Option<[Times; KINDS]>,
}

impl Comparison {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(how: &Compare) -> Self {
        Self {
            how: *how,
            age: Duration::ZERO,
            failed: Cohorts::default(),
            stable: Share::default(),
            failures: how.failures.then(|| Evidence::new(&Grid::FAILURES)),
            times: how.handshake_p90.then(|| [Times::new(), Times::new()]),
        }
    }

    /// Looks at what happened in the last so-and-so long.
    pub fn observe(&mut self, seen: &Cohorts<Seen>, elapsed: Duration) {
        let failed = Cohorts { stable: failed(seen.stable.tally), canary: failed(seen.canary.tally) };
        add(&mut self.failed.stable, failed.stable);
        add(&mut self.failed.canary, failed.canary);
        self.stable.add(failed.stable, elapsed);
        if let Some(evidence) = &mut self.failures {
            evidence.look(&Grid::FAILURES, f64::from(self.how.tolerance.hundredths()) / 100.0, self.age, elapsed, failed);
        }
        for (kind, times) in self.times.iter_mut().flatten().enumerate() {
            let taken = Cohorts { stable: &seen.stable.times[kind], canary: &seen.canary.times[kind] };
            times.look(self.how.tolerance, self.age, elapsed, taken);
        }
        self.age = self.age.saturating_add(elapsed);
    }

    /// What the numbers say by now. A canary that was proven worse once stays worse.
    pub fn standing(&self) -> Standing {
        let proven = self.parts().find(|part| part.evidence.peak() >= self.proof(part.what));
        if let Some(part) = proven {
            return Standing::Worse(self.difference(&part));
        }
        self.stable.above(self.how.stable_failing.fraction()).map_or(Standing::Fine, Standing::StableFailing)
    }

    /// How the cohorts stand to each other in each respect that is compared, and that there is something to be seen of.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        self.parts().filter(|part| part.is_seen).map(|part| self.difference(&part)).collect()
    }

    /// What is compared.
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let failures = self.failures.iter().map(|evidence| Part {
            what: Compared::Failures,
            counts: self.failed,
            slower_than: None,
            evidence,
            is_seen: true,
        });
        let times = self.times.iter().flatten().zip(TIMES).map(|(times, what)| Part {
            what,
            counts: times.too_slow(),
            slower_than: times.slower_than(),
            evidence: times.evidence(),
            is_seen: times.are_known(),
        });
        failures.chain(times)
    }

    fn difference(&self, part: &Part<'_>) -> Difference {
        let proof = self.proof(part.what);
        let peak = part.evidence.peak();
        Difference {
            what: part.what,
            canary: part.counts.canary,
            stable: part.counts.stable,
            slower_than: part.slower_than,
            evidence: if peak >= proof { peak } else { part.evidence.value() },
            proof,
        }
    }

    /// As much evidence is proof: if the canary is no worse, it's reached in the whole rollout with a chance of at most this comparison's share of the
    /// false-alarm rate.
    fn proof(&self, what: Compared) -> f64 {
        let share = match (what, self.failures.is_some(), self.times.is_some()) {
            (Compared::Failures, _, true) => FAILURES_SHARE,
            (Compared::Failures, _, false) => 1.0,
            (Compared::Handshake | Compared::FirstResponse, true, _) => (1.0 - FAILURES_SHARE) / 2.0,
            (Compared::Handshake | Compared::FirstResponse, false, _) => 0.5,
        };
        1.0 / (self.how.false_alarm_rate * share)
    }
}

/// The failures' share of the false-alarm rate where times are compared as well; the two kinds of times get half the rest each.
const FAILURES_SHARE: f64 = 0.6;

/// What the kinds of times are called, in their order.
const TIMES: [Compared; KINDS] = [Compared::Handshake, Compared::FirstResponse];

/// One of the comparisons.
struct Part<'a> {
    what: Compared,
    counts: Cohorts<Sample>,
    slower_than: Option<Duration>,
    evidence: &'a Evidence,
    /// Whether there has been anything to compare.
    is_seen: bool,
}

/// Attempts that were refused or timed out, of those whose outcome is known.
const fn failed(tally: Tally) -> Sample {
    Sample { failures: tally.refused.saturating_add(tally.timed_out), attempts: tally.resolved() }
}

/// What is seen on top of what was.
const fn add(sum: &mut Sample, seen: Sample) {
    sum.failures = sum.failures.saturating_add(seen.failures);
    sum.attempts = sum.attempts.saturating_add(seen.attempts);
}

#[cfg(test)]
mod tests;
