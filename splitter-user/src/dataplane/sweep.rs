//! The walk through the tables of connections.

use std::mem::offset_of;

use splitter_ebpf::{
    abi::{BUCKET, BackendCounters, Slot, flags},
    affinity::{self, Limits, Now, Word},
    moment::Moment,
    tcp::SlotWord,
};

use super::loader::Maps;

/// What was found, by backend's number.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Connections that live.
    pub live: Vec<u64>,
    /// Entries of any kind, those that are closing among them.
    pub held: Vec<u64>,
    /// Words in use in the `dsr` table.
    pub words: u64,
    /// Slots in use.
    pub slots: u64,
}

/// What to do with an entry.
enum Fate {
    Lives,
    Closing,
    /// Forget it, and count what that was.
    Gone(Loss),
}

/// What is forgotten.
#[derive(Clone, Copy)]
enum Loss {
    /// Nothing that counts.
    Nothing,
    /// An attempt that never completed.
    Attempt,
    /// A connection that lived until now.
    Connection,
}

/// A service, as far as the sweep needs it.
#[derive(Clone, Copy)]
struct Ages {
    limits: Limits,
    udp: bool,
}

/// So long after its beginning a walk still judges silence by the time that it began with. A stamp that is ahead by less than a minute is told from an old one.
const PATIENCE_NS: u64 = 30_000_000_000;

/// The time by which entries are judged.
///
/// A walk may take long: its process can be stopped in the middle, or find no processor. What is written meanwhile is ahead of the time with which the walk began, and by
/// clocks that wrap what is far ahead looks very old. So whatever seems to be over is judged once more by a time that is read *after* its word was.
pub struct Clock<F> {
    now: Now,
    began: Moment,
    read: F,
}

impl<F: Fn() -> Moment> Clock<F> {
    /// The present, `read` on the monotonic clock just before `now` was.
    pub fn new(now: Now, began: Moment, read: F) -> Self {
        Self { now, began, read }
    }

    /// Whether an entry whose word has been read is over.
    fn is_over(&self, word: Word, limits: Limits) -> bool {
        if !affinity::yields(word, limits, self.now).is_free() {
            return false;
        }
        let later = (self.read)();
        if later.0.saturating_sub(self.began.0) > PATIENCE_NS {
            // The next walk can tell.
            return false;
        }
        affinity::yields(word, limits, Now { stamp: self.now.stamp, fine: later.fine() }).is_free()
    }
}

/// Walks both tables. Entries of backends and services that aren't in use are forgotten.
pub fn sweep(maps: &Maps, clock: &Clock<impl Fn() -> Moment>) -> Found {
    let services: Vec<Option<Ages>> = (0..maps.services.len()).map(|number| ages(maps, number)).collect();
    let owners: Vec<Option<usize>> = (0..maps.backends.len()).map(|number| owner(maps, number)).collect();
    let mut found = Found { live: vec![0; owners.len()], held: vec![0; owners.len()], ..Found::default() };
    for bucket in 0..maps.affinity.len() {
        for cell in &maps.affinity.bucket(bucket).words {
            let raw = cell.load();
            if raw == 0 {
                continue;
            }
            let word = Word(raw);
            let backend = word.value() as usize;
            let ages = owners.get(backend).copied().flatten().and_then(|service| services[service]);
            let fate = ages.map_or(Fate::Gone(Loss::Nothing), |ages| word_fate(word, ages, clock));
            if settle(maps, &mut found, backend, fate, |new| cell.replace(raw, new)) {
                found.words += 1;
            }
        }
    }
    for index in 0..maps.slots.len() {
        let cell = maps.slots.word(index, offset_of!(Slot, word));
        let raw = cell.load();
        if raw == 0 {
            continue;
        }
        let backend = usize::from(maps.slots.field::<u16>(index, offset_of!(Slot, backend)));
        let service = usize::from(maps.slots.field::<u16>(index, offset_of!(Slot, service)));
        let home = maps.slots.field::<u32>(index, offset_of!(Slot, home));
        let belongs = owners.get(backend).copied().flatten() == Some(service);
        let ages = services.get(service).copied().flatten().filter(|_| belongs);
        let fate = ages.map_or(Fate::Gone(Loss::Nothing), |ages| slot_fate(SlotWord(raw), ages, clock));
        let forget = |new| {
            let forgotten = cell.replace(raw, new);
            if forgotten {
                clear_home(maps, home, index);
            }
            forgotten
        };
        if settle(maps, &mut found, backend, fate, forget) {
            found.slots += 1;
        }
    }
    found
}

/// Counts an entry or forgets it; says whether it's still there.
fn settle(maps: &Maps, found: &mut Found, backend: usize, fate: Fate, forget: impl FnOnce(u64) -> bool) -> bool {
    match fate {
        Fate::Lives => {
            found.live[backend] += 1;
            found.held[backend] += 1;
            true
        }
        Fate::Closing => {
            found.held[backend] += 1;
            true
        }
        // A packet may have come meanwhile: then the word is another one and stays.
        Fate::Gone(loss) => {
            let forgotten = forget(0);
            if forgotten {
                match loss {
                    Loss::Nothing => {}
                    Loss::Attempt => maps.sweep_counters.word(backend, offset_of!(BackendCounters, timed_out)).add(1),
                    Loss::Connection => maps.sweep_counters.word(backend, offset_of!(BackendCounters, ended)).add(1),
                }
            }
            !forgotten
        }
    }
}

fn ages(maps: &Maps, number: usize) -> Option<Ages> {
    let service = maps.services.read(number);
    if service.in_use == 0 {
        return None;
    }
    let udp = service.has(flags::UDP);
    let established = if udp { service.udp } else { service.established };
    Some(Ages { limits: Limits { embryonic: service.connect, established, closing: service.closing }, udp })
}

fn owner(maps: &Maps, number: usize) -> Option<usize> {
    let backend = maps.backends.read(number);
    (backend.in_use != 0).then_some(usize::from(backend.service))
}

fn word_fate(word: Word, ages: Ages, clock: &Clock<impl Fn() -> Moment>) -> Fate {
    if clock.is_over(word, ages.limits) {
        return Fate::Gone(match word.state() {
            // A UDP exchange of which only one side is seen can't be said to have failed.
            Some(affinity::State::Embryonic) if ages.udp => Loss::Nothing,
            Some(affinity::State::Embryonic) => Loss::Attempt,
            Some(affinity::State::Established) => Loss::Connection,
            Some(affinity::State::Closing) | None => Loss::Nothing,
        });
    }
    lives(word)
}

fn slot_fate(word: SlotWord, ages: Ages, clock: &Clock<impl Fn() -> Moment>) -> Fate {
    let seen = word.seen();
    if clock.is_over(seen, ages.limits) {
        return Fate::Gone(match seen.state() {
            Some(affinity::State::Embryonic) => Loss::Attempt,
            Some(affinity::State::Established) => Loss::Connection,
            Some(affinity::State::Closing) | None => Loss::Nothing,
        });
    }
    lives(seen)
}

fn lives(word: Word) -> Fate {
    match word.state() {
        Some(affinity::State::Closing) => Fate::Closing,
        Some(affinity::State::Embryonic | affinity::State::Established) | None => Fate::Lives,
    }
}

/// Clears the affinity word of a slot that was just freed, unless another connection has it by now.
fn clear_home(maps: &Maps, home: u32, index: usize) {
    let (bucket, way) = (home as usize / BUCKET, home as usize % BUCKET);
    if bucket >= maps.nat_affinity.len() {
        return;
    }
    let cell = &maps.nat_affinity.bucket(bucket).words[way];
    let raw = cell.load();
    if raw != 0 && Word(raw).value() as usize == index {
        // Lost to a packet that came meanwhile: then it's no longer this slot's.
        let _cleared = cell.replace(raw, 0);
    }
}

#[cfg(test)]
mod tests {
    use splitter_ebpf::{affinity::State, hash::Hash, moment::FINE_NS, stamp::Stamp};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BEGAN: Moment = Moment(5_000 * SECOND);
    const LIMITS: Limits = Limits { embryonic: (3 * SECOND / FINE_NS) as u16, established: 3_600, closing: 30 };

    /// A walk that began at [`BEGAN`] and has come to a word so many seconds later.
    fn after(seconds: u64) -> Clock<impl Fn() -> Moment> {
        let now = Now { stamp: Stamp::of(5_000 << 8, 8), fine: BEGAN.fine() };
        Clock::new(now, BEGAN, move || Moment(BEGAN.0 + seconds * SECOND))
    }

    fn attempt(begun: Moment) -> Word {
        Word::attempt(Hash(0x1234_5678_9abc_def0), 7, begun.fine())
    }

    fn established(seconds: u64) -> Word {
        attempt(BEGAN).touched(State::Established, Stamp::of(seconds << 8, 8))
    }

    #[test]
    fn what_begins_while_a_walk_is_held_up_is_not_taken_for_old() {
        for held_up in [0, 1, 2, 10, 29, 100, 300, 100_000] {
            let begun = Moment(BEGAN.0 + held_up * SECOND);
            assert!(!after(held_up).is_over(attempt(begun), LIMITS), "an attempt, {held_up} s");
            let alive = established(5_000 + held_up);
            assert!(!after(held_up).is_over(alive, LIMITS), "a connection, {held_up} s");
        }
    }

    #[test]
    fn what_is_over_is_over_however_long_the_walk_takes_unless_it_takes_too_long_to_tell() {
        let attempt = attempt(Moment(BEGAN.0 - 4 * SECOND));
        let silent = established(200);
        for (held_up, told) in [(0, true), (2, true), (29, true), (31, false)] {
            assert_eq!(after(held_up).is_over(attempt, LIMITS), told, "{held_up} s");
            assert_eq!(after(held_up).is_over(silent, LIMITS), told, "{held_up} s");
        }
    }
}
