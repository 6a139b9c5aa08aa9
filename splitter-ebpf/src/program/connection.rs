//! Places in the two affinity tables.

use splitter_ebpf::{
    abi::{BUCKET, Bucket, Service, Settings, Slot, flags},
    affinity::{self, Limits, Word, Yield},
    hash::Hash,
    stamp::Stamp,
    tcp::{self, SlotWord},
};

use super::{count, maps};

/// How long a service's connections live in silence.
#[inline(always)]
pub fn limits(service: &Service) -> Limits {
    let established = if service.has(flags::UDP) { service.udp } else { service.established };
    Limits { embryonic: service.connect, established, closing: service.closing }
}

/// A place for a new `dsr` connection: its bucket and way. The place is the caller's to write.
#[inline(always)]
pub fn place(settings: &'static Settings, service: &'static Service, flow: Hash) -> Option<(u32, usize)> {
    let (first, second) = affinity::buckets(flow, settings.affinity_mask);
    if let Some(way) = affinity::free(maps::affinity(first)?) {
        return Some((first, way));
    }
    if let Some(way) = affinity::free(maps::affinity(second)?) {
        return Some((second, way));
    }
    let packed = yielding(settings, first, second);
    unpack(first, second, packed, service)
}

/// A place for a new `nat` connection.
#[inline(always)]
pub fn nat_place(settings: &'static Settings, service: &'static Service, flow: Hash) -> Option<(u32, usize)> {
    let (first, second) = affinity::buckets(flow, settings.nat_mask);
    if let Some(way) = affinity::free(maps::nat_affinity(first)?) {
        return Some((first, way));
    }
    if let Some(way) = affinity::free(maps::nat_affinity(second)?) {
        return Some((second, way));
    }
    let packed = nat_yielding(settings, first, second);
    unpack(first, second, packed, service)
}

/// `0`: none; else 1 + the way, counted through both buckets.
#[inline(always)]
fn unpack(first: u32, second: u32, packed: u32, _service: &Service) -> Option<(u32, usize)> {
    match packed {
        0 => None,
        1..=8 => Some((first, packed as usize - 1)),
        _ => Some((second, (packed as usize - 9) & (BUCKET - 1))),
    }
}

/// Which of the entries in two full buckets gives way first. Rare, and so a function of its own.
#[inline(never)]
fn yielding(settings: &'static Settings, first: u32, second: u32) -> u32 {
    let now = maps::now(settings);
    let (mut best, mut chosen) = (Yield::NO, 0);
    let mut number = 0;
    while number < 2 * BUCKET as u32 {
        let index = if number < BUCKET as u32 { first } else { second };
        if let Some(word) = maps::affinity(index).and_then(|bucket| word_at(bucket, number)) {
            let willing = word_yields(word, now);
            if willing > best {
                (best, chosen) = (willing, number + 1);
            }
        }
        number += 1;
    }
    if chosen != 0
        && let Some(word) =
            maps::affinity(if chosen <= 8 { first } else { second }).and_then(|bucket| word_at(bucket, chosen - 1))
    {
        if matches!(word.state(), Some(affinity::State::Embryonic)) && best.is_free() {
            count_timeout(settings, word.value());
        }
    }
    chosen
}

/// An attempt of TCP that never completed; a UDP exchange in `dsr` can't be said to have failed.
#[inline(always)]
fn count_timeout(settings: &'static Settings, backend: u32) {
    if let Some(record) = maps::backend(backend)
        && let Some(service) = maps::service(u32::from(record.service))
        && !service.has(flags::UDP)
    {
        count::timed_out(settings, backend);
    }
}

#[inline(always)]
fn word_at(bucket: &Bucket, number: u32) -> Option<Word> {
    bucket.words.get(number as usize & (BUCKET - 1)).map(|cell| Word(cell.load()))
}

/// By the limits of the service that the entry belongs to, whoever asks.
#[inline(always)]
fn word_yields(word: Word, now: Stamp) -> Yield {
    let Some(backend) = maps::backend(word.value()) else { return Yield::FREE };
    let Some(service) = maps::service(u32::from(backend.service)) else { return Yield::FREE };
    affinity::yields(word, limits(service), now)
}

/// The same for `nat`, where the slot knows. The slot of the entry that gives way is freed.
#[inline(never)]
fn nat_yielding(settings: &'static Settings, first: u32, second: u32) -> u32 {
    let now = maps::now(settings);
    let (mut best, mut chosen, mut chosen_slot) = (Yield::NO, 0, 0);
    let mut number = 0;
    while number < 2 * BUCKET as u32 {
        let index = if number < BUCKET as u32 { first } else { second };
        if let Some(word) = maps::nat_affinity(index).and_then(|bucket| word_at(bucket, number)) {
            let willing = maps::slot(word.value()).map_or(Yield::FREE, |slot| slot_yields(slot, now));
            if willing > best {
                (best, chosen, chosen_slot) = (willing, number + 1, word.value());
            }
        }
        number += 1;
    }
    if chosen != 0
        && let Some(slot) = maps::slot(chosen_slot)
    {
        release(settings, slot, best.is_free());
    }
    chosen
}

/// How willingly a slot gives way.
#[inline(always)]
pub fn slot_yields(slot: &Slot, now: Stamp) -> Yield {
    let word = SlotWord(slot.word.load());
    let Some(state) = word.state() else { return Yield::FREE };
    let Some(service) = maps::service(u32::from(slot.service)) else { return Yield::FREE };
    let state = match state {
        tcp::State::Embryonic | tcp::State::Answered => affinity::State::Embryonic,
        tcp::State::Established => affinity::State::Established,
        tcp::State::Closing => affinity::State::Closing,
    };
    affinity::yields(Word::new(Hash(0), 0, state, word.stamp()), limits(service), now)
}

/// Frees a slot; counts the attempt as timed out when it is one that has outlived its time.
#[inline(always)]
pub fn release(settings: &'static Settings, slot: &Slot, expired: bool) {
    let word = SlotWord(slot.word.load());
    if expired && matches!(word.state(), Some(tcp::State::Embryonic | tcp::State::Answered)) {
        count::timed_out(settings, u32::from(slot.backend));
    }
    slot.word.store(0);
}

/// Clears the affinity word of a slot that is taken for another connection.
#[inline(always)]
pub fn forget(slot: &Slot, index: u32) {
    if let Some(bucket) = maps::nat_affinity(slot.home / BUCKET as u32)
        && let Some(cell) = bucket.words.get(slot.home as usize & (BUCKET - 1))
    {
        let word = cell.load();
        if word != 0 && Word(word).value() == index {
            cell.store(0);
        }
    }
}
