//! Counters: one set per CPU, side by side in one map, summed by the agent. An element is written by one CPU alone.

use super::assert_layout;
use crate::reason::{REASONS, REFUSALS};

/// Per backend; element `cpu · backends + backend`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct BackendCounters {
    /// Packets sent to the backend.
    pub packets_to: u64,
    /// Their octets, from the network header on.
    pub bytes_to: u64,
    /// Packets that came from it (`nat`).
    pub packets_from: u64,
    /// Their octets, from the network header on.
    pub bytes_from: u64,
    /// Connections (TCP: attempts; UDP: exchanges) given to it.
    pub opened: u64,
    /// Handshakes completed; in UDP exchanges answered (`nat`).
    pub completed: u64,
    /// Attempts answered by a RST, or by ICMP destination unreachable, before completion; UDP exchanges by the latter (`nat`).
    pub refused: u64,
    /// Attempts without completion in time.
    pub timed_out: u64,
    /// Connections reset by the backend after completion (`nat`).
    pub reset_by_backend: u64,
    /// Connections reset by the client after completion.
    pub reset_by_client: u64,
    /// Connections that ended by FIN (`nat`: from both sides; `dsr`: from the client).
    pub closed: u64,
    /// SYNs sent again while an attempt was not answered.
    pub retransmitted: u64,
    /// Of those refused, attempts answered by ICMP destination unreachable (`nat`).
    pub unreachable: u64,
    /// Connections that became established, in time or late.
    pub established: u64,
    /// Established connections that came to any end: by FIN, by RST, by silence, by a flip. Less than `established` by those that live.
    pub ended: u64,
    /// Zero.
    pub _pad: u64,
}

/// Per service; element `cpu · services + service`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct ServiceCounters {
    /// New connections of the canary's share that went to stable because the canary had no usable backend.
    pub canary_fallback: u64,
    /// Connections that found no room in the affinity table and went by hash alone (`dsr`).
    pub untracked: u64,
    /// By [`crate::reason::Refuse`]; a power of two, so that an index can be masked.
    pub refused: [u64; REFUSALS],
    /// Zero.
    pub _pad: [u64; 6],
}

/// Per CPU: packets by [`crate::reason::Reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct ReasonCounters {
    /// By index.
    pub packets: [u64; REASONS],
}

impl Default for ReasonCounters {
    fn default() -> Self {
        Self { packets: [0; REASONS] }
    }
}

assert_layout!(BackendCounters, size 128, packets_to @ 0, bytes_to @ 8, packets_from @ 16, bytes_from @ 24, opened @ 32,
    completed @ 40, refused @ 48, timed_out @ 56, reset_by_backend @ 64, reset_by_client @ 72, closed @ 80, retransmitted @ 88, unreachable @ 96, established @ 104, ended @ 112);
assert_layout!(ServiceCounters, size 128, canary_fallback @ 0, untracked @ 8, refused @ 16, _pad @ 80);
assert_layout!(ReasonCounters, size 256, packets @ 0);
