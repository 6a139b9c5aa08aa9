//! The path of the usual packet of a known connection, and of the usual first one: no helper call but a redirect's, and of an attempt the clock's; no subprogram, all in registers.
//!
//! It may only do sooner what the path for every packet does. Whatever it isn't sure of, it leaves to that one, before it has written anything: `None`.

use splitter_ebpf::{
    abi::{Control, Service, Settings, flags},
    bench::Step,
    frame::{Frame, Octets},
    header::{Packet, protocol},
    reason::Skip,
    usual::{self, Head},
};

use super::{
    Exit, Stop, dsr,
    forward::exit,
    kernel::{Arrival, Kernel},
    maps, nat, steps,
};

/// The service that a client asks for, as it stands.
pub struct Asked {
    /// Its number.
    pub number: u32,
    /// The service.
    pub service: &'static Service,
    /// Its steering word, read once.
    pub control: Control,
}

/// What becomes of the frame, if it's a usual one.
#[inline(always)]
pub fn split<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> Option<Result<Exit, Stop>> {
    let settings = maps::settings_as_they_are()?;
    steps::end(Step::Entered, || 0);
    let head = Head::of(frame)?;
    // Four paths, each of which knows its kind, and so where everything lies.
    if let Some(protocol) = head.protocol4() {
        match protocol {
            protocol::TCP => steer(frame, settings, usual::tcp4),
            protocol::UDP => steer(frame, settings, usual::udp4),
            _ => None,
        }
    } else {
        match head.protocol6()? {
            protocol::TCP => steer(frame, settings, usual::tcp6),
            protocol::UDP => steer(frame, settings, usual::udp6),
            _ => None,
        }
    }
}

#[inline(always)]
fn steer<const FRAGS: bool, const N: usize>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    read: impl FnOnce(&[u8; N], usize) -> Option<Packet>,
) -> Option<Result<Exit, Stop>> {
    let (linear, arrival) = (frame.linear(), frame.arrival());
    // All headers in one piece that's asked for once.
    let head: &mut [u8; N] = frame.get_mut(0)?;
    let packet = read(head, linear)?;
    steps::end(Step::Parsed, || packet.length.into());
    match interface::<FRAGS>(&mut Octets(head), arrival, settings, &packet)? {
        Ok(interface) => Some(Ok(exit(frame, interface))),
        Err(stop) => Some(Err(stop)),
    }
}

/// Rewrites the headers and says by which interface they leave.
#[inline(always)]
fn interface<const EXACT: bool>(
    head: &mut Octets,
    arrival: Arrival,
    settings: &'static Settings,
    packet: &Packet,
) -> Option<Result<u32, Stop>> {
    if maps::nat_port(settings, packet.destination_port).is_some()
        && let Some(nat) = maps::nat_at(settings, packet.destination, packet.family)
    {
        steps::end(Step::Asked, || nat.into());
        return nat::usual_reply::<EXACT>(head, settings, packet, nat);
    }
    let Some((number, service)) = maps::service_of(settings, packet) else {
        // Before an agent has filled in the settings, nothing is found either, for another reason.
        return if settings.cpus == 0 { None } else { Some(Err(Stop::Skip(Skip::NotOurs))) };
    };
    let control = service.control();
    steps::end(Step::Asked, || u64::from(number) + control.0);
    if control.is_special() {
        None
    } else if service.has(flags::NAT) {
        nat::usual::<EXACT>(head, arrival, settings, packet, &Asked { number, service, control })
    } else {
        dsr::usual::<EXACT>(head, settings, packet, &Asked { number, service, control })
    }
}
