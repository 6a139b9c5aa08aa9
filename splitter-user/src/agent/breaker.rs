//! What follows from a breaker that has tripped: the program sends everything to stable already, the agent does the rest.

use super::{
    clock::Moment,
    core::{Core, key},
    lease::before,
};
use crate::{
    dataplane::{ApplyError, BreakerTally, Trip},
    desired::Desired,
    model::{Existing, ServiceName},
    store::{FlipReason, TripFinding, TripTally},
};

impl Core {
    /// Flips the services whose breaker has tripped, unless they are flipped already.
    pub(super) fn flip_tripped(&mut self, now: Moment) {
        let tripped = self.desired.iter().filter(|desired| desired.flip.is_none()).filter_map(|Desired { service, .. }| {
            let trip = self.sample.services.get(&key(service))?.trip?;
            // A breaker that isn't configured any more tripped all the same; its default counts.
            let existing = service.breaker.map_or(Existing::Reset, |breaker| breaker.existing);
            Some((service.name.clone(), existing, finding(&trip, now)))
        });
        for (name, existing, finding) in tripped.collect::<Vec<(ServiceName, Existing, TripFinding)>>() {
            self.flip_by_itself(&name, FlipReason::Breaker { finding }, existing, now);
        }
    }

    /// The bell has rung.
    pub(super) fn hear(&mut self, now: Moment) {
        let Some(dataplane) = &mut self.dataplane else { return };
        dataplane.heard();
        self.observe(now);
    }

    /// Arms the breakers of the services that are flipped now and aren't to be. Nothing else does.
    pub(super) fn arm_unflipped(&mut self, next: &[Desired]) -> Result<(), ApplyError> {
        let Some(dataplane) = &mut self.dataplane else { return Ok(()) };
        for before in self.desired.iter().filter(|before| before.flip.is_some()) {
            let unflipped = next.iter().find(|next| next.service.name == before.service.name && next.flip.is_none());
            if let Some(unflipped) = unflipped {
                dataplane.arm(&key(&unflipped.service))?;
            }
        }
        Ok(())
    }
}

/// A trip as it's kept and told.
pub(super) fn finding(trip: &Trip, now: Moment) -> TripFinding {
    TripFinding {
        cause: trip.cause.into(),
        tripped_at: before(now.at, trip.ago),
        limit: trip.limit,
        canary: tally(&trip.tallies.canary),
        stable: tally(&trip.tallies.stable),
    }
}

const fn tally(tally: &BreakerTally) -> TripTally {
    let BreakerTally { attempts, completed, refused, reset, retransmitted, due, timed_out } = *tally;
    TripTally { attempts, completed, refused, reset, retransmitted, due, timed_out }
}
