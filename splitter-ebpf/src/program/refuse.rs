//! The quick no.

use splitter_ebpf::{
    abi::Settings,
    header::{Packet, protocol},
    reason::{Drop, Refuse, Skip},
    refusal, tcp,
};

use super::{Exit, Stop, count, kernel::Kernel};

/// Answers a packet with a RST or an ICMP error, out of the interface that it came by.
#[inline(never)]
pub fn refuse<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    service: u32,
    reason: Refuse,
) -> Result<Exit, Stop> {
    let length = if packet.protocol == protocol::TCP {
        if packet.flags & tcp::flag::RST != 0 {
            return Err(Stop::Skip(Skip::UnknownReset));
        }
        refusal::reset(frame, packet)?
    } else {
        if !count::take_refusal(settings) {
            return Err(Stop::Drop(Drop::RefusalSuppressed));
        }
        frame.grow(refusal::unreachable_growth(packet.family))?;
        refusal::unreachable(frame, packet)?
    };
    frame.cut(length)?;
    count::refused(settings, service, reason);
    Ok(Exit::Back)
}
