//! Services, and the one word that steers each.

use super::{SharedWord, assert_layout};
use crate::address::Address;

/// Bits of [`Service::flags`].
pub mod flags {
    /// `nat`; clear: `dsr`.
    pub const NAT: u32 = 1;
    /// The place in hash space comes from the client's address alone.
    pub const CLIENT_AFFINITY: u32 = 1 << 1;
    /// UDP; clear: TCP.
    pub const UDP: u32 = 1 << 2;
    /// IPv6; clear: IPv4.
    pub const IPV6: u32 = 1 << 3;
    /// It has a breaker: what happens is counted by time.
    pub const BREAKER: u32 = 1 << 4;
    /// When the agent's lease runs out, its weight stays in force; clear: everything new goes to stable.
    pub const LEASE_HOLD: u32 = 1 << 5;
}

/// The word that steers a service: read once per packet, written by the agent with one 64-bit store, so that no packet sees
/// half a change.
///
/// | bits | |
/// | --- | --- |
/// | 0–32 | threshold: a place below it is the canary's; 0 (nobody) to 2³² (everybody) |
/// | 33 | flipped: new connections go to stable whatever else is said |
/// | 34 | with *flipped*: established canary connections are reset |
/// | 35 | generation: which half of [`Service::tables`] is in force |
/// | 36 | the service has networks: ask the prefix table |
/// | 37 | trace: report decisions |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Control(pub u64);

impl Control {
    const THRESHOLD: u64 = (1 << 33) - 1;
    const FLIPPED: u64 = 1 << 33;
    const RESET: u64 = 1 << 34;
    const GENERATION: u64 = 1 << 35;
    const NETWORKS: u64 = 1 << 36;
    const TRACE: u64 = 1 << 37;

    /// The threshold of a weight in basis points (hundredths of a percent, at most 10,000): weight · 2³² / 10,000, rounded.
    #[must_use]
    pub const fn threshold_of(basis_points: u16) -> u64 {
        (((basis_points as u64) << 32) + 5_000) / 10_000
    }

    /// Places below this are the canary's.
    #[inline(always)]
    #[must_use]
    pub const fn threshold(self) -> u64 {
        self.0 & Self::THRESHOLD
    }

    /// Everything new goes to stable.
    #[inline(always)]
    #[must_use]
    pub const fn flipped(self) -> bool {
        self.0 & Self::FLIPPED != 0
    }

    /// Flipped, and established canary connections are reset.
    #[inline(always)]
    #[must_use]
    pub const fn resets_canary(self) -> bool {
        self.0 & (Self::FLIPPED | Self::RESET) == Self::FLIPPED | Self::RESET
    }

    /// Which half of [`Service::tables`] is in force: 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> usize {
        (self.0 >> 35 & 1) as usize
    }

    /// The prefix table has to be asked.
    #[inline(always)]
    #[must_use]
    pub const fn has_networks(self) -> bool {
        self.0 & Self::NETWORKS != 0
    }

    /// Decisions are to be reported.
    #[inline(always)]
    #[must_use]
    pub const fn traces(self) -> bool {
        self.0 & Self::TRACE != 0
    }

    /// Something is to be done beyond forwarding: connections are reset, or decisions reported.
    #[inline(always)]
    #[must_use]
    pub const fn is_special(self) -> bool {
        self.0 & (Self::RESET | Self::TRACE) != 0
    }

    /// The same with another threshold.
    #[must_use]
    pub const fn with_threshold(self, threshold: u64) -> Self {
        Self(self.0 & !Self::THRESHOLD | threshold & Self::THRESHOLD)
    }

    /// The same, flipped or not, with or without resetting established canary connections.
    #[must_use]
    pub const fn with_flip(self, flipped: bool, reset: bool) -> Self {
        let word = self.0 & !(Self::FLIPPED | Self::RESET);
        Self(word | if flipped { Self::FLIPPED } else { 0 } | if flipped && reset { Self::RESET } else { 0 })
    }

    /// The same with the tables of this generation (0 or 1) in force.
    #[must_use]
    pub const fn with_generation(self, generation: usize) -> Self {
        Self(self.0 & !Self::GENERATION | ((generation as u64) & 1) << 35)
    }

    /// The same, with or without networks.
    #[must_use]
    pub const fn with_networks(self, has: bool) -> Self {
        Self(self.0 & !Self::NETWORKS | if has { Self::NETWORKS } else { 0 })
    }

    /// The same, traced or not.
    #[must_use]
    pub const fn with_trace(self, traced: bool) -> Self {
        Self(self.0 & !Self::TRACE | if traced { Self::TRACE } else { 0 })
    }
}

/// Where a cohort's Maglev table lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Table {
    /// The first element of the Maglev map that is this table's.
    pub first_line: u32,
    /// Entries; 0: the cohort has no usable backend.
    pub size: u32,
}

/// One service. Two cache lines; a packet of a known connection reads the first alone.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Service {
    /// See [`Control`].
    pub control: SharedWord,
    /// The secret that keys the hash.
    pub seed: [u64; 2],
    /// By generation, then cohort (0 stable, 1 canary).
    pub tables: [[Table; 2]; 2],
    /// See [`flags`].
    pub flags: u32,
    /// The port that clients connect to, in network order.
    pub port: [u8; 2],
    /// Non-zero: in use.
    pub in_use: u8,
    /// Zero.
    pub _pad0: u8,
    /// The address that clients connect to; IPv4 as `::ffff:a.b.c.d`.
    pub address: Address,
    /// Attempts have this time to complete, in units of [`crate::moment::Fine`].
    pub connect: u16,
    /// Timeouts in stamp units (see [`crate::stamp`]): established TCP.
    pub established: u16,
    /// UDP.
    pub udp: u16,
    /// After FIN or RST.
    pub closing: u16,
    /// Non-zero: the breaker has tripped, and everything new goes to stable. Written by the program when it trips: the moment in nanoseconds; cleared by the
    /// agent when somebody arms it again.
    pub trip: SharedWord,
    /// Zero.
    pub _pad1: [u64; 4],
}

impl Service {
    /// The steering word.
    #[inline(always)]
    #[must_use]
    pub fn control(&self) -> Control {
        Control(self.control.load())
    }

    /// Whether a bit of [`flags`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

assert_layout!(Table, size 8, first_line @ 0, size @ 4);
assert_layout!(Service, size 128, control @ 0, seed @ 8, tables @ 24, flags @ 56, port @ 60, in_use @ 62,
    address @ 64, connect @ 80, established @ 82, udp @ 84, closing @ 86, trip @ 88, _pad1 @ 96);
