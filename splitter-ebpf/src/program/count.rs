//! Counting. Every counter belongs to one CPU, so a plain addition will do.

use splitter_ebpf::{
    abi::{REFUSALS_PER_UNIT, Settings},
    bench::Step,
    reason::{REASONS, REFUSALS},
};

use super::{kernel::forget, maps, steps};

/// A packet that isn't forwarded.
#[inline(always)]
pub fn reason(counter: usize) {
    if let Some(counters) = maps::reason_counters()
        && counter < REASONS
    {
        counters.packets[counter] += 1;
    }
}

/// A packet sent to a backend.
#[inline(always)]
pub fn sent(settings: &Settings, backend: u32, bytes: u32) {
    if !steps::without(Step::NoCounters)
        && let Some(counters) = maps::backend_counters(settings, backend)
    {
        counters.packets_to += 1;
        counters.bytes_to += u64::from(bytes);
    }
}

/// A packet that came from a backend.
#[inline(always)]
pub fn received(settings: &Settings, backend: u32, bytes: u32) {
    if !steps::without(Step::NoCounters)
        && let Some(counters) = maps::backend_counters(settings, backend)
    {
        counters.packets_from += 1;
        counters.bytes_from += u64::from(bytes);
    }
}

/// A connection given to a backend.
#[inline(always)]
pub fn opened(settings: &Settings, backend: u32) {
    if let Some(counters) = maps::backend_counters(settings, backend) {
        counters.opened += 1;
    }
}

/// An attempt whose place was needed after it had not completed in time.
#[inline(always)]
pub fn timed_out(settings: &Settings, backend: u32) {
    if let Some(counters) = maps::backend_counters(settings, backend) {
        counters.timed_out += 1;
    }
}

/// A connection that became established without a handshake that is seen: UDP in `dsr`.
#[inline(always)]
pub fn established(settings: &Settings, backend: u32) {
    if let Some(counters) = maps::backend_counters(settings, backend) {
        counters.established += 1;
    }
}

/// An established connection that came to its end otherwise than by a packet of its own: by silence, by a flip.
#[inline(always)]
pub fn ended(settings: &Settings, backend: u32) {
    if let Some(counters) = maps::backend_counters(settings, backend) {
        counters.ended += 1;
    }
}

/// An attempt answered by ICMP destination unreachable.
#[inline(always)]
pub fn unreachable(settings: &Settings, backend: u32) {
    if let Some(counters) = maps::backend_counters(settings, backend) {
        counters.unreachable += 1;
    }
}

/// A connection of the canary's share that stable had to take.
#[inline(always)]
pub fn fallback(settings: &Settings, service: u32) {
    if let Some(counters) = maps::service_counters(settings, service) {
        counters.canary_fallback += 1;
    }
}

/// A connection that the affinity table had no room for.
#[inline(always)]
pub fn untracked(settings: &Settings, service: u32) {
    if let Some(counters) = maps::service_counters(settings, service) {
        counters.untracked += 1;
    }
}

/// A packet refused, by the number of a [`Refuse`](splitter_ebpf::reason::Refuse).
#[inline(always)]
pub fn refused(settings: &Settings, service: u32, reason: u32) {
    let index = forget(reason, REFUSALS as u32 - 1, u64::from(settings.cpus)) as usize;
    if let Some(counters) = maps::service_counters(settings, service) {
        counters.refused[index & (REFUSALS - 1)] += 1;
    }
}

/// Takes one ICMP error from this CPU's budget.
#[inline(always)]
pub fn take_refusal(settings: &Settings) -> bool {
    let Some(budget) = maps::budget(maps::cpu()) else { return false };
    let now = maps::now(settings).bits();
    if budget.stamp != now {
        budget.stamp = now;
        budget.sent = 0;
    }
    budget.sent += 1;
    budget.sent <= REFUSALS_PER_UNIT
}
