//! The life of a packet. What it means word by word stands in `docs/packet-path.md`.

mod connection;
mod count;
mod dsr;
mod forward;
mod fragment;
mod icmp;
mod kernel;
mod maps;
mod nat;
mod opening;
mod refuse;
mod signal;
mod steps;
mod trace;
mod usual;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use splitter_ebpf::{
    abi::{Settings, flags},
    header::{self, Fragment, protocol},
    reason::{Drop, Skip},
};

use self::kernel::{Kernel, redirect};

/// How a packet leaves.
enum Exit {
    /// By the interface that it came by.
    Back,
    /// By another one.
    Out(u32),
    /// As a subprogram has said, by the same table of outcomes.
    Said(u32),
}

/// Why it doesn't.
enum Stop {
    /// To the kernel, untouched.
    Skip(Skip),
    /// Nowhere.
    Drop(Drop),
}

impl From<Skip> for Stop {
    #[inline(always)]
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

impl From<Drop> for Stop {
    #[inline(always)]
    fn from(drop: Drop) -> Self {
        Self::Drop(drop)
    }
}

/// Without multi-buffer frames, for kernels before 5.18 and drivers that have none.
#[xdp]
#[inline(always)]
pub fn splitter(context: XdpContext) -> u32 {
    run(&mut Kernel::<false>::new(context.ctx))
}

/// With multi-buffer (jumbo) frames.
#[xdp(frags)]
#[inline(always)]
pub fn splitter_frags(context: XdpContext) -> u32 {
    run(&mut Kernel::<true>::new(context.ctx))
}

/// Every packet that [`splitter`] leaves to it.
#[xdp]
#[inline(always)]
pub fn splitter_any(context: XdpContext) -> u32 {
    split_any(&mut Kernel::<false>::new(context.ctx))
}

/// Every packet that [`splitter_frags`] leaves to it.
#[xdp(frags)]
#[inline(always)]
pub fn splitter_any_frags(context: XdpContext) -> u32 {
    split_any(&mut Kernel::<true>::new(context.ctx))
}

/// Lets frames through: native XDP on a veth transmits only to an end that has a program itself.
#[xdp(frags)]
pub fn splitter_pass(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// Tells the agent the data plane's time: the low half of jiffies.
#[xdp]
pub fn splitter_clock(_context: XdpContext) -> u32 {
    maps::jiffies() as u32
}

/// The usual packet in one go, every other one by the program that takes them all.
#[inline(always)]
fn run<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> u32 {
    match usual::split(frame) {
        Some(action) => action,
        None => {
            maps::leave_to_any(frame);
            // Nobody is there only before the agent has put it there.
            act(Err(Stop::Skip(Skip::NotReady)))
        }
    }
}

#[inline(always)]
fn split_any<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> u32 {
    let outcome = match maps::settings() {
        Some(settings) => split(frame, settings),
        None => Err(Stop::Skip(Skip::NotReady)),
    };
    act(outcome)
}

/// The one place where outcomes become XDP actions.
#[inline(always)]
fn act(outcome: Result<Exit, Stop>) -> u32 {
    match outcome {
        Ok(Exit::Back) => XDP_TX,
        Ok(Exit::Out(interface)) => redirect(interface),
        Ok(Exit::Said(action)) => action,
        Err(Stop::Skip(reason)) => {
            count::reason(reason.counter());
            XDP_PASS
        }
        Err(Stop::Drop(reason)) => {
            count::reason(reason.counter());
            XDP_DROP
        }
    }
}

#[inline(always)]
fn split<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, settings: &'static Settings) -> Result<Exit, Stop> {
    let packet = header::decode(frame)?;
    if packet.protocol == protocol::ICMP || packet.protocol == protocol::ICMPV6 {
        return icmp::steer(frame);
    }
    if matches!(packet.fragment, Fragment::Later) {
        return Ok(Exit::Said(fragment::call(frame)));
    }
    if let Some(reply) = nat::reply_of(settings, &packet) {
        return nat::reply(frame, settings, &packet, reply);
    }
    match maps::service_of(settings, &packet) {
        Some((number, service)) if service.has(flags::NAT) => nat::forward(frame, settings, &packet, number, service),
        Some((number, service)) => dsr::forward(frame, settings, &packet, number, service),
        None => Err(Stop::Skip(Skip::NotOurs)),
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
