//! The quick no.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    header::protocol,
    reason::{Drop, Refuse, Skip},
    refusal, tcp,
};

use super::{Exit, Stop, act, count, kernel::Kernel, maps};

/// Refuses the packet. Calls a global function: the verifier looks at it once, and not with every path that leads here.
#[inline(always)]
pub fn refuse<const FRAGS: bool>(frame: &Kernel<FRAGS>, service: u32, reason: Refuse) -> Result<Exit, Stop> {
    refuse_by_number(frame, service, reason as u32)
}

/// The same, by the number of a [`Refuse`].
#[inline(always)]
pub fn refuse_by_number<const FRAGS: bool>(frame: &Kernel<FRAGS>, service: u32, reason: u32) -> Result<Exit, Stop> {
    maps::leave(frame);
    Ok(Exit::Said(if FRAGS {
        splitter_refuse_frags(frame.context(), service, reason)
    } else {
        splitter_refuse(frame.context(), service, reason)
    }))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_refuse(context: *mut xdp_md, service: u32, reason: u32) -> u32 {
    act(answer(&mut Kernel::<false>::new(context), service, reason))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_refuse_frags(context: *mut xdp_md, service: u32, reason: u32) -> u32 {
    act(answer(&mut Kernel::<true>::new(context), service, reason))
}

/// Answers a packet with a RST or an ICMP error, out of the interface that it came by.
#[inline(always)]
fn answer<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, service: u32, reason: u32) -> Result<Exit, Stop> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
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
