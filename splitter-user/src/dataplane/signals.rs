//! What the data plane measures beside counters, its breakers and the lease, as values.

use std::{mem::offset_of, time::Duration};

use splitter_ebpf::{
    abi::{self, Breaker, HISTOGRAM_BUCKETS, NO_LIMIT, Service, Settings, Window, WindowTally, kind},
    breaker::{self, Cause},
    moment::{Moment, TICK_NS},
};

use super::{BreakerTally, CohortTimes, Lease, Times, Trip, clock, loader::Maps};
use crate::{
    controller::Cohorts,
    model::{self, Timeouts, Weight},
};

/// A breaker's record; of a service without one, nothing trips.
pub fn record(wanted: Option<&model::Breaker>, timeouts: &Timeouts) -> Breaker {
    let Some(wanted) = wanted else {
        let none = Breaker { refused: NO_LIMIT, timeout: NO_LIMIT, reset: NO_LIMIT, retransmit: NO_LIMIT, ..Breaker::default() };
        return none;
    };
    let limit = |weight: Option<Weight>| weight.map_or(NO_LIMIT, Weight::basis_points);
    let (shift, deadline, window) = breaker::shape(clock::fine(timeouts.connect).into(), clock::fine_long(wanted.window));
    Breaker {
        refused: limit(wanted.refused),
        timeout: limit(wanted.timeout),
        reset: limit(wanted.reset),
        retransmit: limit(wanted.retransmit),
        min_attempts: wanted.min_attempts,
        stable_factor: wanted.stable_factor.map_or(0, model::Factor::hundredths),
        shift,
        deadline,
        window,
        ..Breaker::default()
    }
}

/// Puts a breaker's record in force. Under another shape what was counted means nothing.
pub fn write(maps: &Maps, service: usize, record: Breaker) {
    let before = maps.breakers.read(service);
    if before == record {
        return;
    }
    maps.breakers.write(service, record);
    if (before.shift, before.deadline, before.window) != (record.shift, record.deadline, record.window) {
        forget(maps, service);
    }
}

/// What was counted by time is forgotten.
pub fn forget(maps: &Maps, service: usize) {
    for cohort in 0..2 {
        maps.windows.write(2 * service + cohort, Window::default());
    }
}

/// Nothing of whoever had this number before is left.
pub fn clear(maps: &Maps, service: usize) {
    forget(maps, service);
    maps.trips.write(service, abi::Trip::default());
    for index in 4 * service..4 * service + 4 {
        maps.histograms.write(index, abi::Histogram::default());
    }
}

/// Arms a breaker: first what it goes by is forgotten, then it may trip again.
pub fn arm(maps: &Maps, service: usize) {
    forget(maps, service);
    maps.services.word(service, offset_of!(Service, trip)).store(0);
}

/// Whether a service's breaker has tripped, and why.
pub fn trip(maps: &Maps, service: usize, now: Moment) -> Option<Trip> {
    let at = maps.services.word(service, offset_of!(Service, trip)).load();
    if at == 0 {
        return None;
    }
    // Written before the word; while another CPU writes the same, its numbers are as good.
    let record = maps.trips.read(service);
    Some(Trip {
        ago: Duration::from_nanos(now.0.saturating_sub(at)),
        cause: Cause::from_number(record.cause).unwrap_or(Cause::Refused),
        limit: Weight::from_basis_points(u16::try_from(record.limit).unwrap_or(u16::MAX)).unwrap_or(Weight::ALL),
        tallies: Cohorts { stable: tally(&record.stable), canary: tally(&record.canary) },
    })
}

fn tally(window: &WindowTally) -> BreakerTally {
    BreakerTally {
        attempts: window.attempts,
        completed: window.completed,
        refused: window.refused,
        reset: window.reset,
        retransmitted: window.retransmitted,
        due: window.due,
        timed_out: window.timed_out,
    }
}

/// How long things took, by cohort.
pub fn times(maps: &Maps, service: usize) -> Cohorts<CohortTimes> {
    let of = |cohort: usize| {
        let read = |kind: u32| histogram(maps, 2 * (2 * service + cohort) + kind as usize);
        CohortTimes { handshake: read(kind::HANDSHAKE), first_response: read(kind::FIRST_RESPONSE) }
    };
    Cohorts { stable: of(0), canary: of(1) }
}

fn histogram(maps: &Maps, index: usize) -> Times {
    let sum = maps.histograms.word(index, offset_of!(abi::Histogram, sum)).load();
    if sum == 0 {
        return Times::default();
    }
    let counts = offset_of!(abi::Histogram, counts);
    let count = |bucket: usize| maps.histograms.word(index, counts + bucket * size_of::<u64>()).load();
    Times { sum: Duration::from_nanos(sum.saturating_mul(TICK_NS)), counts: (0..HISTOGRAM_BUCKETS).map(count).collect() }
}

const LEASE: usize = offset_of!(Settings, lease);

/// How the lease stands.
pub fn lease(maps: &Maps, now: Moment) -> Lease {
    match maps.settings.word(0, LEASE).load() {
        u64::MAX => Lease::Released,
        until if until >= now.0 => Lease::Valid(Duration::from_nanos(until - now.0)),
        until => Lease::RanOut(Duration::from_nanos(now.0 - until)),
    }
}

/// A sign of life; see [`super::Dataplane::renew`].
pub fn renew(maps: &Maps, lease: Option<Duration>, now: Moment) {
    let until = lease.map_or(u64::MAX, |lease| now.0.saturating_add(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX)));
    maps.settings.word(0, LEASE).store(until);
}
