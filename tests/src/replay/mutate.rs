//! Recorded frames, cut short and changed.

use rand::{RngExt, rngs::Xoshiro256PlusPlus};

use crate::{packet::parse::parse, rig::SHORTEST};

/// Where most of what is read lies; behind it is payload.
const HEADERS: usize = 14 + 40 + 60;

/// The frame made wrong in one of several ways, and in which.
pub(super) fn mutate(frame: &[u8], rng: &mut Xoshiro256PlusPlus) -> (Vec<u8>, String) {
    let mut bytes = frame.to_vec();
    if rng.random_ratio(1, 2) {
        let length = cut(frame, rng);
        bytes.truncate(length);
        return (bytes, format!("cut to {length} octets"));
    }
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        let reach = if rng.random_ratio(4, 5) { HEADERS.min(frame.len()) } else { frame.len() };
        let (at, by) = (rng.random_range(0..reach), flip(rng));
        bytes[at] ^= by;
        changes.push(format!("octet {at} by {by:#04x}"));
    }
    (bytes, format!("changed {}", changes.join(", ")))
}

/// One bit, or several.
fn flip(rng: &mut Xoshiro256PlusPlus) -> u8 {
    if rng.random_ratio(1, 2) { 1 << rng.random_range(0..8) } else { rng.random_range(1..=u8::MAX) }
}

/// A length: around where a header begins or ends, or any.
fn cut(frame: &[u8], rng: &mut Xoshiro256PlusPlus) -> usize {
    let longest = frame.len() - 1;
    let edges = match parse(frame) {
        Ok(view) => [view.ip.at, view.ip.payload, view.ip.payload + 8, view.ip.payload + 20, view.ip.end],
        Err(_) => [SHORTEST; 5],
    };
    let length = match rng.random_range(0..3) {
        0 => rng.random_range(0..=longest),
        1 => rng.random_range(0..=HEADERS.min(longest)),
        _ => edges[rng.random_range(0..edges.len())] + rng.random_range(0..=2) - 1,
    };
    // The kernel runs no program on less.
    length.clamp(SHORTEST, longest.max(SHORTEST))
}
