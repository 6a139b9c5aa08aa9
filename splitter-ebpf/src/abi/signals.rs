//! What the breaker goes by, and times.

use super::{SharedCount, SharedWord, assert_layout};

/// Slots of a [`Window`]; a power of two.
pub const WINDOW_SLOTS: usize = 64;

/// Counters of a [`Histogram`]: see [`crate::histogram`].
pub const HISTOGRAM_BUCKETS: usize = 190;

/// Buckets of the table of handshakes; a power of two.
pub const HANDSHAKE_BUCKETS: u32 = 16_384;

/// A breaker's limits, per service. Written by the agent. Shares in basis points; [`NO_LIMIT`]: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Breaker {
    /// Of the attempts, those refused.
    pub refused: u16,
    /// Of the attempts whose time is over, those that did not complete in time.
    pub timeout: u16,
    /// Of the connections completed, those that the backend reset.
    pub reset: u16,
    /// SYNs sent again, per attempts.
    pub retransmit: u16,
    /// With fewer samples in the window nothing trips.
    pub min_attempts: u32,
    /// The canary's share has to be more than so many hundredths of stable's; 0: nobody compares.
    pub stable_factor: u16,
    /// A slot of the window is `2^shift` units of [`crate::moment::Fine`] long.
    pub shift: u8,
    /// So many slots after its own an attempt is out of time.
    pub deadline: u8,
    /// Slots that the shares look back, the present one included.
    pub window: u8,
    /// Zero.
    pub _pad: [u8; 15],
}

/// In a [`Breaker`]: no limit.
pub const NO_LIMIT: u16 = u16::MAX;

/// What happened within one slot's time to one cohort of one service. Added to by every CPU.
#[derive(Debug, Default)]
#[repr(C)]
pub struct WindowSlot {
    /// 1 + the number of the time that is counted here; 0: none yet; all ones: somebody is emptying it.
    pub turn: SharedWord,
    /// Attempts begun.
    pub attempts: SharedCount,
    /// Handshakes completed.
    pub completed: SharedCount,
    /// Attempts refused.
    pub refused: SharedCount,
    /// Connections that the backend reset.
    pub reset: SharedCount,
    /// SYNs sent again.
    pub retransmitted: SharedCount,
    /// Of the attempts begun here, those whose outcome came in time, whenever that was.
    pub resolved: SharedCount,
}

/// One cohort of one service; element `2 · service + cohort`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Window {
    /// By time, modulo their number.
    pub slots: [WindowSlot; WINDOW_SLOTS],
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: core::array::from_fn(|_| WindowSlot::default()) }
    }
}

/// What a window holds at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct WindowTally {
    /// Attempts begun within the window.
    pub attempts: u32,
    /// Completed within it.
    pub completed: u32,
    /// Refused within it.
    pub refused: u32,
    /// Reset by the backend within it.
    pub reset: u32,
    /// SYNs sent again within it.
    pub retransmitted: u32,
    /// Attempts whose time ran out within it, or would have.
    pub due: u32,
    /// Of those, the ones that did not complete in time.
    pub timed_out: u32,
    /// Zero.
    pub _pad: u32,
}

/// Why a breaker tripped, with all numbers; one element per service, and what an event says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Trip {
    /// When, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The service's number.
    pub service: u32,
    /// See [`crate::breaker::Cause`]; 0: never.
    pub cause: u32,
    /// The limit, in basis points.
    pub limit: u32,
    /// Zero.
    pub _pad: u32,
    /// What the canary did.
    pub canary: WindowTally,
    /// What stable did in the same time.
    pub stable: WindowTally,
}

/// Times of one cohort of one service; element `2 · (2 · service + cohort) + kind`. Added to by every CPU.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Histogram {
    /// All of them together, in [`crate::moment::Ticks`].
    pub sum: SharedWord,
    /// Zero.
    pub _pad: u64,
    /// By bucket.
    pub counts: [SharedWord; HISTOGRAM_BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { sum: SharedWord::default(), _pad: 0, counts: core::array::from_fn(|_| SharedWord::default()) }
    }
}

/// Kinds of histograms.
pub mod kind {
    /// TCP: from the SYN to the backend's answer (`nat`), or to the client's ACK (`dsr`). UDP: to the first answer (`nat`).
    pub const HANDSHAKE: u32 = 0;
    /// From the client's first octets to the backend's (TCP in `nat`).
    pub const FIRST_RESPONSE: u32 = 1;
}

assert_layout!(Breaker, size 32, refused @ 0, timeout @ 2, reset @ 4, retransmit @ 6, min_attempts @ 8, stable_factor @ 12, shift @ 14,
    deadline @ 15, window @ 16);
assert_layout!(WindowSlot, size 32, turn @ 0, attempts @ 8, completed @ 12, refused @ 16, reset @ 20, retransmitted @ 24, resolved @ 28);
assert_layout!(Window, size 2048, slots @ 0);
assert_layout!(WindowTally, size 32, attempts @ 0, completed @ 4, refused @ 8, reset @ 12, retransmitted @ 16, due @ 20, timed_out @ 24);
assert_layout!(Trip, size 88, at @ 0, service @ 8, cause @ 12, limit @ 16, canary @ 24, stable @ 56);
assert_layout!(Histogram, size 1536, sum @ 0, counts @ 16);
