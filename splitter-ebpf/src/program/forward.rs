//! What both modes share: choosing a backend, and the way out.

use splitter_ebpf::{
    abi::{Backend, Service, Settings, Way},
    bench::Step,
    cohort::{Hold, Rule},
    decision::{self, Subject},
    frame::Frame,
    hash::Hash,
    header::Packet,
    moment::Moment,
    reason::{Drop, Refuse, Skip},
    rewrite::{self, OutOfFrame},
    usual::Usual,
};

use super::{
    Exit, Stop, count,
    kernel::{Arrival, Kernel},
    maps, steps,
    usual::Asked,
};

impl From<OutOfFrame> for Stop {
    #[inline(always)]
    fn from(_: OutOfFrame) -> Self {
        Self::Drop(Drop::FrameFixed)
    }
}

/// The backend for a new connection, and its number.
#[inline(always)]
pub fn choose(
    settings: &Settings,
    packet: &Packet,
    number: u32,
    service: &Service,
    flow: Hash,
    now: Moment,
) -> Result<(u32, &'static Backend), Refuse> {
    let subject = Subject::of(number, service, Hold::of(settings, service, now));
    let decision = decision::decide(&maps::Maps, &subject, packet.source, flow);
    if matches!(decision.rule, Rule::Fallback) {
        count::fallback(settings, number);
    }
    let (_, backend) = decision.backend.ok_or(Refuse::NoBackend)?;
    let record = maps::backend(backend).ok_or(Refuse::NoBackend)?;
    Ok((backend, record))
}

/// The same for a usual packet; `None` where there is more to it: networks, a cohort without backends, what else keeps a service on stable.
#[inline(always)]
pub fn choose_usual(
    settings: &Settings,
    packet: &impl Usual,
    asked: &Asked,
    flow: Hash,
    now: Moment,
) -> Option<(u32, &'static Backend)> {
    if asked.control.has_networks() || !Hold::of(settings, asked.service, now).is_none() {
        return None;
    }
    let subject = Subject::under(asked.number, asked.service, asked.control);
    let decision = decision::decide(&maps::Maps, &subject, packet.source(), flow);
    let (_, backend) = decision.backend?;
    if matches!(decision.rule, Rule::Fallback) { None } else { maps::backend(backend).map(|record| (backend, record)) }
}

/// The way out to a backend, once it's clear that the frame can take it.
#[derive(Clone, Copy)]
pub struct WayOut {
    way: &'static Way,
    vlan: u16,
}

impl WayOut {
    /// The way to a backend, for this frame. Nothing is written yet.
    #[inline(always)]
    pub fn to<const FRAGS: bool>(frame: &Kernel<FRAGS>, packet: &Packet, backend: &'static Backend) -> Result<Self, Stop> {
        let (way, vlan) = backend.way().ok_or(Drop::NoWay)?;
        let fits = match (vlan, packet.tags) {
            (0, 0) => true,
            (0, _) => way.interface == frame.interface(),
            (_, tags) => tags != 0,
        };
        if fits { Ok(Self { way, vlan }) } else { Err(Stop::Skip(Skip::VlanMismatch)) }
    }

    /// The way to a backend that needs no VLAN, for a frame without tags.
    #[inline(always)]
    pub fn untagged(backend: &'static Backend) -> Option<Self> {
        match backend.way() {
            Some((way, 0)) => Some(Self { way, vlan: 0 }),
            Some(_) | None => None,
        }
    }

    /// Writes the link layer of an untagged frame, and says by which interface it leaves.
    #[inline(always)]
    pub fn write(self, head: &mut impl Frame) -> Result<u32, Stop> {
        if !steps::without(Step::NoMacs) {
            rewrite::macs(head, self.way.macs)?;
        }
        Ok(self.way.interface)
    }

    /// Writes the link layer, and says how the frame leaves.
    #[inline(always)]
    pub fn take<const FRAGS: bool>(self, frame: &mut Kernel<FRAGS>) -> Result<Exit, Stop> {
        rewrite::macs(frame, self.way.macs)?;
        if self.vlan != 0 {
            rewrite::vlan(frame, 0, self.vlan)?;
        }
        Ok(exit(frame.arrival(), self.way.interface))
    }
}

/// Back, or out by another interface.
#[inline(always)]
pub fn exit(arrival: Arrival, interface: u32) -> Exit {
    if interface == arrival.interface() { Exit::Back } else { Exit::Out(interface) }
}
