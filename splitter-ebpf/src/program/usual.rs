//! The path of the usual packet of a known connection, and of the usual first one: no helper call but a redirect's, and of an attempt the clock's; no subprogram, all in registers.
//!
//! It may only do sooner what the path for every packet does. Whatever it isn't sure of, it leaves to that one, before it has written anything: `None`.

use splitter_ebpf::{
    abi::{Control, Service, Settings, flags},
    bench::Step,
    header::{Family, protocol},
    reason::Skip,
    usual::{Head, TCP4, TCP6, UDP4, UDP6, Usual, V4, V6},
};

use super::{Stop, act, dsr, kernel::Kernel, maps, nat, steps};

/// The service that a client asks for, as it stands.
pub struct Asked {
    /// Its number.
    pub number: u32,
    /// The service.
    pub service: &'static Service,
    /// Its steering word, read once.
    pub control: Control,
}

/// What becomes of the frame, as an action, if it's a usual one. Each path says so at its own end: brought together, they'd pass on what they know by memory.
#[inline(always)]
pub fn split<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> Option<u32> {
    let settings = maps::settings_as_they_are();
    steps::end(Step::Entered, || 0);
    let head = Head(frame.front()?);
    // Four paths, each of which knows its kind, and so where everything lies.
    if let Some(protocol) = head.protocol4() {
        match protocol {
            protocol::TCP => steer(frame, settings, V4::<TCP4>::of),
            protocol::UDP => steer(frame, settings, V4::<UDP4>::of),
            _ => None,
        }
    } else {
        match head.protocol6()? {
            protocol::TCP => steer(frame, settings, V6::<TCP6>::of),
            protocol::UDP => steer(frame, settings, V6::<UDP6>::of),
            _ => None,
        }
    }
}

#[inline(always)]
fn steer<'a, const FRAGS: bool, const N: usize, U: Usual>(
    frame: &'a mut Kernel<FRAGS>,
    settings: &'static Settings,
    read: impl FnOnce(&'a mut [u8; N], usize) -> Option<U>,
) -> Option<u32> {
    let (linear, arrival) = (frame.linear(), frame.arrival());
    // All headers in one piece that's asked for once.
    let packet = read(frame.front()?, linear)?;
    steps::end(Step::Parsed, || packet.length().into());
    if maps::nat_port(settings, packet.destination_port()).is_some()
        && let Some(nat) = maps::nat_at(settings, packet.destination(), U::FAMILY)
    {
        steps::end(Step::Asked, || nat.into());
        return nat::usual_reply::<FRAGS>(packet, arrival, settings, nat);
    }
    let Some((number, service)) = service_of(settings, &packet) else {
        // Before an agent has filled in the settings, nothing is found either, for another reason.
        return if settings.cpus == 0 { None } else { Some(act(Err(Stop::Skip(Skip::NotOurs)))) };
    };
    let control = service.control();
    steps::end(Step::Asked, || u64::from(number) + control.0);
    if control.is_special() {
        None
    } else if service.has(flags::NAT) {
        nat::usual::<FRAGS>(packet, arrival, settings, &Asked { number, service, control })
    } else {
        dsr::usual::<FRAGS>(packet, arrival, settings, &Asked { number, service, control })
    }
}

#[inline(always)]
fn service_of<U: Usual>(settings: &Settings, packet: &U) -> Option<(u32, &'static Service)> {
    maps::service_at(settings, packet.destination(), packet.destination_port(), U::PROTOCOL, U::FAMILY)
}

/// A usual packet's family.
#[inline(always)]
pub fn family_of<U: Usual>(_packet: &U) -> Family {
    U::FAMILY
}

/// A usual packet's protocol.
#[inline(always)]
pub fn protocol_of<U: Usual>(_packet: &U) -> u8 {
    U::PROTOCOL
}
