//! What is measured of attempts and their outcomes, and the breaker that goes by it. Nothing here is run for a packet that changes nothing in its connection.
//!
//! In global functions: the verifier looks at each once, and not with every path that leads here.

use splitter_ebpf::{
    abi::{Service, WINDOW_SLOTS, WindowSlot, WindowTally, flags, kind},
    breaker, handshake,
    hash::Hash,
    histogram,
    moment::{Fine, Moment, Ticks},
    tcp::{Event, Side},
};

use super::{
    count,
    kernel::{forget, in_memory},
    maps,
};

/// Where an attempt of a usual packet is counted, if that takes no more than an addition. `None`: it does.
pub enum Place {
    /// The service has no breaker.
    Nowhere,
    /// Here.
    At(&'static WindowSlot),
}

impl Place {
    /// Of an attempt of a cohort that begins now.
    #[inline(always)]
    pub fn usual(number: u32, service: &Service, cohort: u8, now: Moment) -> Option<Self> {
        if !service.has(flags::BREAKER) {
            return Some(Self::Nowhere);
        }
        let (breaker, window) = (maps::breaker(number)?, maps::window(number, cohort.into())?);
        let time = breaker::time(breaker, now.units());
        let slot = breaker::slot(window, time);
        if breaker::counts(slot, time) { Some(Self::At(slot)) } else { None }
    }

    /// Counts it.
    #[inline(always)]
    pub fn count(&self) {
        match self {
            Self::Nowhere => {}
            Self::At(slot) => slot.attempts.add(1),
        }
    }
}

/// An attempt has begun, at the moment that its word says.
#[inline(always)]
pub fn attempt<const EXACT: bool>(backend: u32, begun: Fine) {
    if EXACT {
        splitter_attempt_exact(backend, begun.bits());
    } else {
        splitter_attempt(backend, begun.bits());
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_attempt(backend: u32, begun: u32) -> u32 {
    begin::<false>(backend, Fine::from_bits(begun)).map_or(0, |()| 1)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_attempt_exact(backend: u32, begun: u32) -> u32 {
    begin::<true>(backend, Fine::from_bits(begun)).map_or(0, |()| 1)
}

#[inline(always)]
fn begin<const EXACT: bool>(backend: u32, begun: Fine) -> Option<()> {
    let settings = maps::settings()?;
    count::opened(settings, backend);
    let record = maps::backend(backend)?;
    let number = u32::from(record.service);
    if !maps::service(number)?.has(flags::BREAKER) {
        return None;
    }
    let (breaker, window) = (maps::breaker(number)?, maps::window(number, record.cohort.into())?);
    let now = maps::moment();
    // The outcome is set against the time that the word says, so the attempt is counted in that one.
    let time = breaker::time(breaker, now.units().wrapping_sub(u64::from(begun.age(now.fine()))));
    let slot = breaker::slot(window, time);
    let anew = !breaker::counts(slot, time);
    if anew {
        breaker::begin::<EXACT>(slot, time);
    }
    slot.attempts.add(1);
    // With every slot the time of others is over: whoever begins one looks whether that was too much.
    if anew { judge::<EXACT>(number, now) } else { Some(()) }
}

/// Something became of a connection. `begun`: when its attempt began.
#[inline(always)]
pub fn event<const EXACT: bool>(backend: u32, event: Event, begun: Fine, now: Moment) {
    let (number, age) = (event.number(), begun.age(now.fine()));
    if EXACT {
        splitter_event_exact(backend, number, age, now.0);
    } else {
        splitter_event(backend, number, age, now.0);
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_event(backend: u32, event: u32, age: u32, now: u64) -> u32 {
    become_of::<false>(backend, event, age, Moment(now)).map_or(0, |()| 1)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_event_exact(backend: u32, event: u32, age: u32, now: u64) -> u32 {
    become_of::<true>(backend, event, age, Moment(now)).map_or(0, |()| 1)
}

/// `age`: of the attempt, in units of [`Fine`]. An attempt that is out of time has failed, whatever comes of it after.
#[inline(always)]
fn become_of<const EXACT: bool>(backend: u32, event: u32, age: u32, now: Moment) -> Option<()> {
    let (settings, record) = (maps::settings()?, maps::backend(backend)?);
    let number = u32::from(record.service);
    let service = maps::service(number)?;
    let counters = maps::backend_counters(settings, backend)?;
    let event = Event::from_number(event)?;
    let late = age > u32::from(service.connect);
    match event {
        Event::Completed | Event::CompletedAndClosed => {
            if late {
                counters.timed_out += 1;
            } else {
                counters.completed += 1;
            }
            counters.established += 1;
            if matches!(event, Event::CompletedAndClosed) {
                counters.closed += 1;
                counters.ended += 1;
            }
        }
        Event::Refused if late => counters.timed_out += 1,
        Event::Refused => counters.refused += 1,
        Event::Abandoned if late => counters.timed_out += 1,
        Event::Abandoned => {}
        Event::Reset(Side::Backend) => {
            counters.reset_by_backend += 1;
            counters.ended += 1;
        }
        Event::Reset(Side::Client) => {
            counters.reset_by_client += 1;
            counters.ended += 1;
        }
        Event::Closed => {
            counters.closed += 1;
            counters.ended += 1;
        }
        Event::Retransmitted => counters.retransmitted += 1,
        Event::Revived | Event::Recognized => counters.established += 1,
    }
    if !service.has(flags::BREAKER) {
        return None;
    }
    let cohort = u32::from(record.cohort);
    let (breaker, window) = (maps::breaker(number)?, maps::window(number, cohort)?);
    let time = breaker::time(breaker, now.units());
    let slot = breaker::slot(window, time);
    let anew = !breaker::counts(slot, time);
    if anew {
        breaker::begin::<EXACT>(slot, time);
    }
    let resolved = match event {
        Event::Completed | Event::CompletedAndClosed => {
            slot.completed.add(1);
            true
        }
        Event::Refused => {
            slot.refused.add(1);
            true
        }
        Event::Abandoned | Event::Recognized => true,
        Event::Reset(Side::Backend) => {
            slot.reset.add(1);
            false
        }
        Event::Retransmitted => {
            slot.retransmitted.add(1);
            false
        }
        Event::Reset(Side::Client) | Event::Closed | Event::Revived => false,
    };
    if resolved && !late {
        let begun = breaker::time(breaker, now.units().wrapping_sub(u64::from(age)));
        let slot = breaker::slot(window, begun);
        if breaker::counts(slot, begun) {
            slot.resolved.add(1);
        }
    }
    let failed = matches!(event, Event::Refused | Event::Reset(Side::Backend) | Event::Retransmitted);
    if anew || failed && cohort != 0 { judge::<EXACT>(number, now) } else { Some(()) }
}

/// Something took so long.
#[inline(always)]
pub fn took(backend: u32, kind: u32, span: Ticks) {
    splitter_took(backend, kind, span.0);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_took(backend: u32, kind: u32, span: u32) -> u32 {
    let Some(record) = maps::backend(backend) else { return 0 };
    let Some(histogram) = maps::histogram(record.service.into(), record.cohort.into(), kind) else { return 0 };
    let bucket = forget(histogram::bucket(Ticks(span)) as u32, 0xff, u64::from(span)) as usize;
    if let Some(count) = histogram.counts.get(bucket) {
        count.add(1);
        // A sum of 0 says that nothing was measured.
        histogram.sum.add(u64::from(span) | u64::from(span == 0));
    }
    1
}

/// A `dsr` connection's attempt begins: when, is kept in the table of handshakes.
#[inline(always)]
pub fn begins(key: Hash, now: Moment) {
    splitter_begins(key.0, now.ticks().0);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_begins(key: u64, now: u32) -> u32 {
    let Some(times) = maps::handshakes(handshake::bucket(Hash(key))) else { return 0 };
    handshake::remember(times, Hash(key), Ticks(now));
    1
}

/// A `dsr` connection's handshake is complete.
#[inline(always)]
pub fn completes(backend: u32, key: Hash, now: Moment) {
    splitter_completes(backend, key.0, now.ticks().0);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_completes(backend: u32, key: u64, now: u32) -> u32 {
    let Some(times) = maps::handshakes(handshake::bucket(Hash(key))) else { return 0 };
    let Some(began) = handshake::take(times, Hash(key)) else { return 0 };
    took(backend, kind::HANDSHAKE, Ticks(now).since(began));
    1
}

/// Trips the breaker of a service whose canary has crossed a limit. Part of the functions that call it, as another frame below theirs would be too much for the
/// stack of kernels that count each in steps of 32 octets.
#[inline(always)]
fn judge<const EXACT: bool>(number: u32, now: Moment) -> Option<()> {
    let (service, breaker) = (maps::service(number)?, maps::breaker(number)?);
    // Whoever is on stable already has nothing to trip for.
    if service.trip.load() != 0 || service.control().flipped() {
        return None;
    }
    let time = breaker::time(breaker, now.units());
    splitter_tally(number, 1, time);
    splitter_tally(number, 0, time);
    let scales = maps::scales()?;
    let cause = breaker::judge(breaker, &scales.canary, &scales.stable)?;
    // Never 0, which would be "not tripped".
    let at = now.0 | 1;
    scales.at = at;
    scales.service = number;
    scales.cause = cause as u32;
    scales.limit = u32::from(breaker::limit(breaker, cause));
    scales._pad = 0;
    let said = maps::trip_of(number)?;
    // SAFETY: the lookup gave a pointer into the map. Another CPU that writes at the same time writes of the same crossing.
    unsafe { said.write(*scales) };
    if service.trip.exchange::<EXACT>(0, at) && !maps::ring(scales) {
        // The ring is full of trips that nobody has heard of. This one is in the maps all the same, where whoever hears of the others finds it.
        return None;
    }
    Some(())
}

/// Sums a cohort's window up, onto this CPU's scales.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_tally(number: u32, cohort: u32, time: u64) -> u32 {
    let (Some(scales), Some(breaker)) = (maps::scales(), maps::breaker(number)) else { return 0 };
    let Some(window) = maps::window(number, cohort) else { return 0 };
    // On the scales and not on the stack, of which there is little.
    let sum = if cohort == 0 { &mut scales.stable } else { &mut scales.canary };
    *sum = WindowTally::default();
    // 64 bits wide: a spilled 32-bit counter can share its stack slot with a map key, and the verifier then loses count.
    let mut back = 0_u64;
    while back < WINDOW_SLOTS as u64 {
        breaker::add(breaker, sum, breaker::slot(window, time.wrapping_sub(back)), time, back);
        // Keeps the sums where they are: in registers they'd be spilled, all of them.
        back = in_memory(back) + 1;
    }
    1
}
