//! Decisions on matching packets, reported as they pass. Costs one bit test when it's off. Which rule led to a backend isn't said here: the agent
//! asks the same pure code.

use core::{ffi::c_void, ptr};

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use splitter_ebpf::{hash::Hash, header::Packet};

use super::maps;

/// Reports a decision, if the filter wants the client.
#[inline(always)]
pub fn decision(packet: &Packet, flow: Hash, backend: u32) {
    let words = u64::from(packet.source_port) << 8 | u64::from(packet.flags);
    splitter_trace(packet.source.high, packet.source.low, words, flow.0, backend);
}

/// No context: a log record isn't about a frame's octets.
struct Nothing;

impl EbpfContext for Nothing {
    fn as_ptr(&self) -> *mut c_void {
        ptr::null_mut()
    }
}

/// Writes the line that the agent parses. A global function, as it's large and rare.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_trace(high: u64, low: u64, words: u64, flow: u64, backend: u32) -> u32 {
    let Some(filter) = maps::trace() else { return 0 };
    let differs = (high ^ filter.address.high) & filter.mask.high | (low ^ filter.address.low) & filter.mask.low;
    if differs == 0 {
        info!(&Nothing, "{} {} {} {} {}", high, low, words, flow, backend);
    }
    0
}
