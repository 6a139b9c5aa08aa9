//! Places in the two affinity tables.

use splitter_ebpf::{
    abi::{BUCKET, Bucket, Service, Settings, SharedWord, Slot, flags},
    affinity::{self, Limits, Now, Word, Yield},
    frame::Frame,
    hash::Hash,
    moment::Fine,
    tcp::{self, SlotWord},
};

use super::{
    count,
    kernel::{Kernel, forget},
    maps,
};

/// How long a service's connections live in silence.
#[inline(always)]
pub fn limits(service: &Service) -> Limits {
    let established = if service.has(flags::UDP) { service.udp } else { service.established };
    Limits { embryonic: service.connect, established, closing: service.closing }
}

/// A place for the word of a new `dsr` connection. A place's number is `bucket · 8 + way`.
#[inline(always)]
pub fn place<const FRAGS: bool>(frame: &Kernel<FRAGS>, settings: &'static Settings, flow: Hash) -> Option<u32> {
    let (first, second) = affinity::buckets(flow, settings.affinity_mask);
    if let Some(way) = affinity::free(maps::affinity(first)?, flow) {
        return Some(number(first, frame.forget(way as u32, BUCKET as u32 - 1)));
    }
    if let Some(way) = affinity::free(maps::affinity(second)?, flow) {
        return Some(number(second, frame.forget(way as u32, BUCKET as u32 - 1)));
    }
    chosen(first, second, if FRAGS { splitter_yielding_exact(first, second) } else { splitter_yielding(first, second) })
}

/// A place for the word of a new `nat` connection.
#[inline(always)]
pub fn nat_place<const FRAGS: bool>(frame: &Kernel<FRAGS>, settings: &'static Settings, flow: Hash) -> Option<u32> {
    let (first, second) = affinity::buckets(flow, settings.nat_mask);
    if let Some(way) = affinity::free(maps::nat_affinity(first)?, flow) {
        return Some(number(first, frame.forget(way as u32, BUCKET as u32 - 1)));
    }
    if let Some(way) = affinity::free(maps::nat_affinity(second)?, flow) {
        return Some(number(second, frame.forget(way as u32, BUCKET as u32 - 1)));
    }
    chosen(first, second, if FRAGS { splitter_nat_yielding_exact(first, second) } else { splitter_nat_yielding(first, second) })
}

#[inline(always)]
const fn number(bucket: u32, way: u32) -> u32 {
    bucket * BUCKET as u32 + way
}

/// The place that was chosen out of two buckets' sixteen, counted from 1; 0: none.
#[inline(always)]
const fn chosen(first: u32, second: u32, chosen: u32) -> Option<u32> {
    match chosen {
        0 => None,
        1..=8 => Some(number(first, chosen - 1)),
        _ => Some(number(second, chosen - 9)),
    }
}

/// The word at a place of the `dsr` table.
#[inline(always)]
pub fn cell(place: u32) -> Option<&'static SharedWord> {
    maps::affinity(place / BUCKET as u32)?.words.get(place as usize & (BUCKET - 1))
}

/// The word at a place of the `nat` table.
#[inline(always)]
pub fn nat_cell(place: u32) -> Option<&'static SharedWord> {
    maps::nat_affinity(place / BUCKET as u32)?.words.get(place as usize & (BUCKET - 1))
}

/// Which of the entries in two full buckets gives way first: 1 + its number through both, 0: none. A global function, so that the verifier
/// looks at its loop once and not with every path that leads here.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_yielding(first: u32, second: u32) -> u32 {
    yielding::<false>(first, second)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_yielding_exact(first: u32, second: u32) -> u32 {
    yielding::<true>(first, second)
}

#[inline(always)]
fn yielding<const EXACT: bool>(first: u32, second: u32) -> u32 {
    let Some(settings) = maps::settings() else { return 0 };
    let (mut best, mut chosen) = (Yield::NO, 0);
    // 64 bits wide: a spilled 32-bit counter can share its stack slot with a map key, and the verifier then loses count.
    let mut count = 0_u64;
    while count < 2 * BUCKET as u64 {
        let number = count as u32;
        let index = if number < BUCKET as u32 { first } else { second };
        if let Some(word) = maps::affinity(index).and_then(|bucket| word_at(bucket, number)) {
            let willing = Yield::from_rank(splitter_word_rank(word.0));
            if willing > best {
                (best, chosen) = (willing, number + 1);
            }
            best = Yield::from_rank(forget(best.rank(), u32::MAX, u64::from(first)));
            chosen = forget(chosen, 31, u64::from(first));
        }
        count += 1;
    }
    let bucket = if chosen <= 8 { first } else { second };
    if chosen != 0
        && best.is_free()
        && let Some(cell) = maps::affinity(bucket).and_then(|bucket| cell_at(bucket, chosen - 1))
    {
        let word = cell.load();
        // Whoever empties it counts it: the agent's sweep may do it at this moment.
        if word != 0 && cell.exchange::<EXACT>(word, 0) {
            forget_word(settings, Word(word));
        }
    }
    chosen
}

/// Counts what is forgotten with the word of a `dsr` connection: an attempt of TCP that never completed (a UDP exchange can't be said to have failed), or a
/// connection that lived until now.
#[inline(always)]
pub fn forget_word(settings: &'static Settings, word: Word) {
    let backend = word.value();
    match word.state() {
        Some(affinity::State::Embryonic) => {
            if let Some(record) = maps::backend(backend)
                && let Some(service) = maps::service(u32::from(record.service))
                && !service.has(flags::UDP)
            {
                count::timed_out(settings, backend);
            }
        }
        Some(affinity::State::Established) => count::ended(settings, backend),
        Some(affinity::State::Closing) | None => {}
    }
}

#[inline(always)]
fn cell_at(bucket: &Bucket, number: u32) -> Option<&SharedWord> {
    bucket.words.get(number as usize & (BUCKET - 1))
}

#[inline(always)]
fn word_at(bucket: &Bucket, number: u32) -> Option<Word> {
    cell_at(bucket, number).map(|cell| Word(cell.load()))
}

/// The present, on both clocks. That of attempts is a helper call: it's asked for attempts alone.
#[inline(always)]
pub fn now(settings: &Settings, state: Option<affinity::State>) -> Now {
    let fine = if matches!(state, Some(affinity::State::Embryonic)) { maps::moment().fine() } else { Fine::default() };
    Now { stamp: maps::now(settings), fine }
}

/// How willingly an entry gives way, by the limits of the service that it belongs to, whoever asks. A global function for the loop's sake.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_word_rank(word: u64) -> u32 {
    let word = Word(word);
    let Some(settings) = maps::settings() else { return Yield::NO.rank() };
    let Some(backend) = maps::backend(word.value()) else { return Yield::FREE.rank() };
    let Some(service) = maps::service(u32::from(backend.service)) else { return Yield::FREE.rank() };
    affinity::yields(word, limits(service), now(settings, word.state())).rank()
}

/// The same for `nat`, where the slot knows. The slot of the entry that gives way is freed.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_yielding(first: u32, second: u32) -> u32 {
    nat_yielding::<false>(first, second)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_yielding_exact(first: u32, second: u32) -> u32 {
    nat_yielding::<true>(first, second)
}

#[inline(always)]
fn nat_yielding<const EXACT: bool>(first: u32, second: u32) -> u32 {
    let Some(settings) = maps::settings() else { return 0 };
    let (mut best, mut chosen, mut chosen_slot) = (Yield::NO, 0, 0);
    // 64 bits wide: a spilled 32-bit counter can share its stack slot with a map key, and the verifier then loses count.
    let mut count = 0_u64;
    while count < 2 * BUCKET as u64 {
        let number = count as u32;
        let index = if number < BUCKET as u32 { first } else { second };
        if let Some(word) = maps::nat_affinity(index).and_then(|bucket| word_at(bucket, number)) {
            let willing = slot_yields(word.value());
            if willing > best {
                (best, chosen, chosen_slot) = (willing, number + 1, word.value());
            }
            best = Yield::from_rank(forget(best.rank(), u32::MAX, u64::from(first)));
            chosen = forget(chosen, 31, u64::from(first));
            chosen_slot = forget(chosen_slot, u32::MAX, u64::from(first));
        }
        count += 1;
    }
    if chosen != 0
        && let Some(slot) = maps::slot(chosen_slot)
    {
        release::<EXACT>(settings, slot);
    }
    chosen
}

/// How willingly a slot gives way. By a global function, so that the verifier looks at it once and not with every
/// turn of the loops that ask.
#[inline(always)]
pub fn slot_yields(index: u32) -> Yield {
    Yield::from_rank(splitter_slot_rank(index))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_slot_rank(index: u32) -> u32 {
    let (Some(settings), Some(slot)) = (maps::settings(), maps::slot(index)) else { return Yield::NO.rank() };
    slot_yield(settings, slot).rank()
}

/// A connection that is closing has had RST, or FIN from both sides. Under pressure it goes before anybody is refused, or a NAT address would take no
/// more new connections within `closing` than it has ports.
#[inline(always)]
fn slot_yield(settings: &Settings, slot: &Slot) -> Yield {
    let word = SlotWord(slot.word.load());
    if word.state().is_none() {
        return Yield::FREE;
    }
    let Some(service) = maps::service(u32::from(slot.service)) else { return Yield::FREE };
    let seen = word.seen();
    let now = now(settings, seen.state());
    let yields = affinity::yields(seen, limits(service), now);
    let is_over = matches!(seen.state(), Some(affinity::State::Closing)) && !yields.is_free();
    if is_over { Yield::over(word.stamp().age(now.stamp)) } else { yields }
}

/// Frees a slot. An attempt that it held will never be known to have completed: it has timed out, be it before its time. A connection that lived until now has ended.
#[inline(always)]
pub fn release<const EXACT: bool>(settings: &'static Settings, slot: &Slot) {
    let word = SlotWord(slot.word.load());
    // Whoever empties it counts it: the agent's sweep may do it at this moment.
    if word.0 == 0 || !slot.word.exchange::<EXACT>(word.0, 0) {
        return;
    }
    match word.state() {
        Some(tcp::State::Embryonic | tcp::State::Answered) => count::timed_out(settings, u32::from(slot.backend)),
        Some(tcp::State::Established) => count::ended(settings, u32::from(slot.backend)),
        Some(tcp::State::Closing) | None => {}
    }
}

/// Clears the affinity word of a slot that is taken for another connection.
#[inline(always)]
pub fn clear_home(slot: &Slot, index: u32) {
    if let Some(cell) = nat_cell(slot.home) {
        let word = cell.load();
        if word != 0 && Word(word).value() == index {
            cell.store(0);
        }
    }
}
