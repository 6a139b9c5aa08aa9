//! The agent's sign of life, and what follows if it was missing.
//!
//! It's given with each sample, by the core itself: a core that hangs gives none. Before each one the core looks whether the lease has run out meanwhile, its own (the
//! process was stopped, the machine was overloaded) or the last agent's. What went to stable thereby has to be decided about *before* the sign is given, for with it the weights
//! count again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{clock::Moment, core::Core};
use crate::{
    config::Resume,
    dataplane::Lease,
    model::{Existing, OnLeaseExpiry, ServiceName, Weight},
    store::{EventKind, FlipReason},
};

/// What is known of leases that ran out.
#[derive(Debug, Default)]
pub(super) struct Lapses {
    /// How many this agent has found.
    pub(super) count: u64,
    /// The last of them.
    pub(super) last: Option<Lapse>,
    /// It's told, and the lease not renewed yet.
    told: bool,
}

/// A time without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lapse {
    /// When the lease ran out.
    pub(super) since: Timestamp,
    /// Until it was found.
    pub(super) lasted: Duration,
}

impl Core {
    /// Gives the sign of life, after what a lease that has run out asks for.
    pub(super) fn keep_lease(&mut self, now: Moment) {
        let Some(dataplane) = &self.dataplane else { return };
        if let Lease::RanOut(ago) = dataplane.lease()
            && !self.settle_lapse(ago, now)
        {
            return;
        }
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.renew(Some(self.config.agent.lease));
        }
    }

    /// Gives the sign of life before something that may take long; not to a lease that has run out.
    pub(super) fn stretch_lease(&mut self) {
        if let Some(dataplane) = &mut self.dataplane
            && let Lease::Valid(_) = dataplane.lease()
        {
            dataplane.renew(Some(self.config.agent.lease));
        }
    }

    /// Tells of a lease that has run out, and flips what is not to resume by itself. Whether the lease may be renewed.
    fn settle_lapse(&mut self, ago: Duration, now: Moment) -> bool {
        // To the millisecond: the rest is noise between two clocks.
        let lasted = Duration::from_millis(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        let since = before(now.at, lasted);
        let (to_stable, held) = self.lapsed();
        let manual = self.config.agent.resume == Resume::Manual;
        if !self.lapses.told {
            let kind = EventKind::LeaseRanOut { since, lasted, to_stable: to_stable.clone(), held, resumed: !manual };
            self.record(now, None, kind);
            self.lapses.count += 1;
            self.lapses.told = true;
        }
        self.lapses.last = Some(Lapse { since, lasted });
        let flipped = !manual
            || to_stable.iter().all(|name| self.flip_by_itself(name, FlipReason::Lease { since, lasted }, Existing::Keep, now));
        // A service that can't be flipped is held on stable by the lease, which isn't renewed until it can.
        self.lapses.told = !flipped;
        flipped
    }

    /// The services whose canary gets connections, by what they do without a lease: those that went to stable, and those that didn't.
    fn lapsed(&self) -> (Vec<ServiceName>, Vec<ServiceName>) {
        let gets = |service: &crate::model::Service| service.weight > Weight::ZERO || !service.always_canary.is_empty();
        let services = self.desired.iter().filter(|desired| desired.flip.is_none() && gets(&desired.service));
        let (to_stable, held): (Vec<_>, Vec<_>) =
            services.partition(|desired| desired.service.on_lease_expiry == OnLeaseExpiry::Stable);
        let names = |list: Vec<&crate::desired::Desired>| list.iter().map(|desired| desired.service.name.clone()).collect();
        (names(to_stable), names(held))
    }
}

/// So long before. What no clock can tell is the beginning of time.
pub(super) fn before(at: Timestamp, ago: Duration) -> Timestamp {
    let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
    let rounded = |at: Timestamp| Timestamp::from_millisecond(at.as_millisecond());
    at.checked_sub(ago).and_then(rounded).unwrap_or(Timestamp::MIN)
}
