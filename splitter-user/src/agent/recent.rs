//! What the cohorts did lately, kept for whoever asks for the status.

use std::time::Duration;

use super::{
    core::{Core, key},
    observe::counts,
};
use crate::{
    api::wire::{Recent, Times},
    controller::{Cohorts, Happened, KINDS, Spread, Summary},
    dataplane::CohortTimes,
    desired::Desired,
    model::{Cohort, Mode, Protocol, Service},
};

/// With fewer known outcomes there is no share of failures.
const FEWEST: u64 = Spread::FEWEST;

impl Core {
    /// Notes what the last sample says.
    pub(super) fn note_recent(&mut self) {
        let Self { desired, sample, sampled_at, recents, .. } = self;
        let Some(at) = *sampled_at else { return };
        recents.retain(|name, _| desired.iter().any(|desired| desired.service.name == *name));
        for Desired { service, .. } in desired.iter() {
            let Some(sample) = sample.services.get(&key(service)) else { continue };
            let recent = recents.entry(service.name.clone()).or_default();
            if recent.read_at() == Some(at) {
                continue;
            }
            let times = Cohorts { stable: by_bucket(&sample.times.stable), canary: by_bucket(&sample.times.canary) };
            recent.read(at, &counts(sample), times);
        }
    }

    /// What a cohort did lately.
    pub(super) fn recent(&self, service: &Service, cohort: Cohort) -> Option<Recent> {
        self.dataplane.as_ref()?;
        let Summary { length, cohorts } = self.recents.get(&service.name)?.summary()?;
        let Happened { tally, times: [handshake, first_response] } = &cohorts[cohort];
        let (resolved, failed) = (tally.resolved(), tally.refused.saturating_add(tally.timed_out));
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let ratio = failed as f64 / resolved as f64;
        Some(Recent {
            window_ms: milliseconds(length),
            attempts: tally.opened,
            resolved,
            failed,
            failure_ratio: (resolved >= FEWEST).then_some(ratio),
            handshake: shows_handshakes(service).then(|| times(handshake)),
            first_response: shows_responses(service).then(|| times(first_response)),
        })
    }
}

/// Whether the data plane sees when an attempt is answered. Of UDP in `dsr` it sees the client's packets alone.
pub(super) fn shows_handshakes(service: &Service) -> bool {
    service.protocol == Protocol::Tcp || service.mode == Mode::Nat
}

/// Whether the data plane sees the first answer to the client's first octets.
pub(super) fn shows_responses(service: &Service) -> bool {
    service.protocol == Protocol::Tcp && service.mode == Mode::Nat
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn by_bucket(times: &CohortTimes) -> [&[u64]; KINDS] {
    [&times.handshake.counts, &times.first_response.counts]
}

fn times(spread: &Spread) -> Times {
    let quantile = |share| spread.quantile(share).map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    Times { count: spread.count(), p50_us: quantile(0.5), p90_us: quantile(0.9), p99_us: quantile(0.99) }
}
