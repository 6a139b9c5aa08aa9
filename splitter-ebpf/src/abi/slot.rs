//! Connections.

use super::{BUCKET, MAGLEV_LINE, Macs, SharedWord, assert_layout};
use crate::address::Address;

/// A bucket of an affinity table: a cache line of words, see [`crate::affinity`].
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// Zero: free.
    pub words: [SharedWord; BUCKET],
}

/// A line of a Maglev table: backend numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct MaglevLine {
    /// Backend numbers.
    pub backends: [u16; MAGLEV_LINE as usize],
}

/// One `nat` connection, found by the port that replies come to. A cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    /// State and stamp, see [`crate::tcp::SlotWord`]. Stored last when a slot is taken; zero: free.
    pub word: SharedWord,
    /// The interface that the opening packet came by.
    pub interface: u32,
    /// In network order.
    pub client_port: [u8; 2],
    /// Its backend's number.
    pub backend: u16,
    /// IPv4 as `::ffff:a.b.c.d`.
    pub client: Address,
    /// Its service's number.
    pub service: u16,
    /// Its NAT address's number.
    pub nat: u16,
    /// Of replies: the opening packet's, exchanged.
    pub macs: Macs,
    /// Its VLAN tags' TCIs in network order, outermost first.
    pub tags: [[u8; 2]; 2],
    /// How many it had.
    pub tag_count: u8,
    /// Zero.
    pub _pad0: u8,
    /// What the way to the backend adds to a network header's checksum for its addresses (one's complement, native order).
    pub network_delta: u16,
    /// What it adds to a transport checksum for addresses and ports.
    pub transport_delta: u16,
    /// Its port of the NAT address, in network order.
    pub nat_port: [u8; 2],
    /// Its place in the affinity table: `bucket · 8 + way`.
    pub home: u32,
}

assert_layout!(Bucket, size 64, words @ 0);
assert_layout!(MaglevLine, size 64, backends @ 0);
assert_layout!(Slot, size 64, word @ 0, interface @ 8, client_port @ 12, backend @ 14, client @ 16, service @ 32, nat @ 34,
    macs @ 36, tags @ 48, tag_count @ 52, network_delta @ 54, transport_delta @ 56, nat_port @ 58, home @ 60);
