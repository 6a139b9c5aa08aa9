//! Decisions on matching packets, reported as they pass. Costs one bit test when it's off.

use aya_log_ebpf::info;
use splitter_ebpf::{cohort::Rule, hash::Hash, header::Packet};

use super::{kernel::Kernel, maps};

/// The affinity table knew the connection.
pub const KNOWN: u32 = 0;

/// A rule's number in a report.
#[inline(always)]
pub const fn rule(rule: Rule) -> u32 {
    match rule {
        Rule::Flipped => 1,
        Rule::NeverCanary => 2,
        Rule::AlwaysCanary => 3,
        Rule::Below => 4,
        Rule::NotBelow => 5,
        Rule::Fallback => 6,
    }
}

/// Reports a decision, if the filter wants the client. The agent parses the line.
#[inline(never)]
pub fn decision<const FRAGS: bool>(frame: &Kernel<FRAGS>, packet: &Packet, flow: Hash, backend: u32, rule: u32) {
    let Some(filter) = maps::trace() else { return };
    let client = packet.source.octets();
    let mut differs = 0;
    let mut at = 0;
    while at < 16 {
        differs |= (client[at] ^ filter.address[at]) & filter.mask[at];
        at += 1;
    }
    if differs != 0 {
        return;
    }
    info!(
        frame,
        "{} {} {} {} {} {} {}",
        packet.source.high,
        packet.source.low,
        packet.source_port,
        flow.0,
        backend,
        rule,
        u32::from(packet.flags)
    );
}
