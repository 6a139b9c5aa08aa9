//! What holds for the whole data plane.

use super::{SharedWord, assert_layout};
use crate::address::Address;

/// Which data plane this is; one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Identity {
    /// [`super::ABI_VERSION`] of whoever made the maps.
    pub abi_version: u32,
    /// Times that an agent has taken it over.
    pub adoptions: u32,
}

/// One element, read with every packet. Sizes are fixed when the maps are made.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Settings {
    /// The destination table in force: bit 0 its generation, the rest its seed.
    pub destinations: SharedWord,
    /// The first port of the NAT range.
    pub nat_low: u16,
    /// Ports in the NAT range.
    pub nat_count: u16,
    /// CPUs that may run the program; each hands out its own part of the NAT range.
    pub cpus: u32,
    /// Buckets of the `dsr` affinity table, less one.
    pub affinity_mask: u32,
    /// Buckets of the `nat` affinity table, less one.
    pub nat_mask: u32,
    /// Service counters per CPU.
    pub services: u32,
    /// Backend counters per CPU.
    pub backends: u32,
    /// Jiffies are shifted right by this to make a stamp, see [`crate::stamp`].
    pub stamp_shift: u32,
    /// NAT addresses per CPU in the cursors' map.
    pub nats: u32,
    /// Ports of the NAT range that each CPU hands out.
    pub nat_share: u32,
    /// Zero.
    pub _pad0: u32,
    /// The agent's sign of life: a moment of the monotonic clock in nanoseconds, after which the agent is held to be dead. Written by the agent, again and again;
    /// `u64::MAX`: it has stopped in order, and nothing runs out.
    pub lease: SharedWord,
    /// Zero.
    pub _pad: u64,
}

impl Settings {
    /// The destination table's seed: nobody outside knows it, so it serves as a key for other tables too. The first agent draws it; it
    /// is kept when tables are rebuilt wherever their entries still find places.
    #[inline(always)]
    #[must_use]
    pub fn destinations_secret(&self) -> u64 {
        self.destinations.load() >> 1
    }
}

/// One NAT address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Nat {
    /// In network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: Address,
    /// The slot of its first TCP port; those of UDP follow behind `nat_count` slots.
    pub first_slot: u32,
    /// Zero.
    pub _pad: [u8; 12],
}

impl Nat {
    /// The slot of the first TCP port of a NAT address, by its number.
    #[inline(always)]
    #[must_use]
    pub const fn first_slot(number: u32, nat_count: u16) -> u32 {
        number.wrapping_mul(2 * nat_count as u32)
    }
}

/// Where a CPU goes on looking for a free port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NatCursor {
    /// For TCP: offset in this CPU's part of the range.
    pub tcp: u32,
    /// For UDP.
    pub udp: u32,
}

/// Key of the prefix table, behind its prefix length of `32 + 96 + n` bits for IPv4 and `32 + n` for IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NetworkKey {
    /// The service's number.
    pub service: u32,
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// What the program reports while a service is traced; one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct TraceFilter {
    /// Clients whose address, under `mask`, is this. In network order; IPv4 as `::ffff:a.b.c.d`.
    pub address: Address,
    /// The bits of the address that count.
    pub mask: Address,
}

/// How many ICMP errors a CPU has sent in a unit of time; one element per CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RefusalBudget {
    /// The unit, see [`crate::stamp`].
    pub stamp: u32,
    /// Sent in it.
    pub sent: u32,
}

/// ICMP errors that a CPU sends in a unit of time (about a second) at most (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f).
pub const REFUSALS_PER_UNIT: u32 = 1_000;

/// Values of the prefix table.
pub mod verdict {
    /// The client always gets the canary.
    pub const ALWAYS_CANARY: u8 = 1;
    /// The client never gets the canary.
    pub const NEVER_CANARY: u8 = 2;
}

assert_layout!(Identity, size 8, abi_version @ 0, adoptions @ 4);
assert_layout!(Settings, size 64, destinations @ 0, nat_low @ 8, nat_count @ 10, cpus @ 12, affinity_mask @ 16, nat_mask @ 20,
    services @ 24, backends @ 28, stamp_shift @ 32, nats @ 36, nat_share @ 40, lease @ 48);
assert_layout!(Nat, size 32, address @ 0, first_slot @ 16);
assert_layout!(TraceFilter, size 32, address @ 0, mask @ 16);
assert_layout!(RefusalBudget, size 8, stamp @ 0, sent @ 4);
assert_layout!(NatCursor, size 8, tcp @ 0, udp @ 4);
assert_layout!(NetworkKey, size 20, service @ 0, address @ 4);
