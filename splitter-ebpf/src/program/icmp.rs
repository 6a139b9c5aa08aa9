//! ICMP errors go to whom they concern.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    abi::{Settings, flags},
    hash,
    header::Packet,
    icmp::{self, Quote, Translation},
    reason::Skip,
    rewrite::End,
    tcp::{Event, Side, SlotWord, State},
};

use super::{
    Exit, Stop, act, count, dsr,
    forward::WayOut,
    kernel::Kernel,
    maps,
    nat::{self, Connection},
    opening::{self, Not},
    signal,
};

/// An ICMP message. What isn't an error about one of our connections is the kernel's. Two global functions, one to find the connection and one to
/// translate: the verifier looks at each once, and neither has the other's stack.
#[inline(always)]
pub fn steer<const FRAGS: bool>(frame: &Kernel<FRAGS>) -> Result<Exit, Stop> {
    maps::leave(frame);
    let context = frame.context();
    let said = if FRAGS { splitter_icmp_frags(context) } else { splitter_icmp(context) };
    // Nothing is refused here, so no service has to be named.
    let index = match opening::hear(frame, 0, said) {
        Ok(index) => index,
        Err(instead) => return instead,
    };
    Ok(Exit::Said(if FRAGS { splitter_icmp_translate_frags(context, index) } else { splitter_icmp_translate(context, index) }))
}

/// The error goes to the client; else to the backend. Above the bits of a slot's number.
const TO_CLIENT: u32 = 1 << 24;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_icmp(context: *mut xdp_md) -> u32 {
    opening::say(find(&mut Kernel::<false>::new(context)))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_icmp_frags(context: *mut xdp_md) -> u32 {
    opening::say(find(&mut Kernel::<true>::new(context)))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_icmp_translate(context: *mut xdp_md, index: u32) -> u32 {
    act(translate(&mut Kernel::<false>::new(context), index))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_icmp_translate_frags(context: *mut xdp_md, index: u32) -> u32 {
    act(translate(&mut Kernel::<true>::new(context), index))
}

/// The slot of the connection that an error is about, and whom the error is for. An error about a `dsr` connection is sent on here.
#[inline(always)]
fn find<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> Result<u32, Not> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
    let quote = maps::keep_quote(icmp::quote(frame, packet)?).ok_or(Skip::NotReady)?;
    // An error goes to whoever sent the packet that it quotes.
    if quote.source.address != packet.destination {
        return Err(Not::from(Skip::IcmpUnrelated));
    }
    if maps::nat_port(settings, quote.source.port).is_some()
        && let Some(nat) = maps::nat_at(settings, quote.source.address, packet.family)
        && let Some(connection) = nat::by_port(settings, nat, quote.source.port, quote.protocol, quote.destination)
    {
        return Ok(connection.index | TO_CLIENT);
    }
    let found = maps::service_at(settings, quote.source.address, quote.source.port, quote.protocol, packet.family);
    let (number, service) = found.ok_or(Skip::IcmpUnrelated)?;
    let flow = hash::client(service.seed, quote.destination.address, quote.destination.port);
    if service.has(flags::NAT) {
        let connection = nat::connection_of(frame, settings, quote.destination, number, flow).ok_or(Skip::IcmpUnrelated)?;
        return Ok(connection.index);
    }
    let (number, backend) = dsr::backend_of(frame, settings, number, flow).ok_or(Skip::IcmpUnrelated)?;
    let way_out = WayOut::to(frame, packet, backend)?;
    count::sent(settings, number, packet.length);
    Err(Not::Sent(way_out.take(frame)?))
}

/// Writes an error about a `nat` connection.
#[inline(always)]
fn translate<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, index: u32) -> Result<Exit, Stop> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
    let quote = maps::quote().ok_or(Skip::NotReady)?;
    let slot = maps::slot(index & !TO_CLIENT).ok_or(Skip::IcmpUnrelated)?;
    let connection = Connection::of(index & !TO_CLIENT, slot).ok_or(Skip::IcmpUnrelated)?;
    if index & TO_CLIENT == 0 {
        to_backend(frame, settings, packet, quote, &connection)
    } else {
        to_client(frame, settings, packet, quote, &connection)
    }
}

/// From the client's side, about what a backend sent.
#[inline(always)]
fn to_backend<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    quote: &Quote,
    connection: &Connection,
) -> Result<Exit, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    let way_out = WayOut::to(frame, packet, connection.backend)?;
    let (nat, backend) = (connection.nat_end(), connection.backend_end());
    let translation =
        Translation { source: nat.address, destination: backend.address, quoted_source: backend, quoted_destination: nat };
    count::sent(settings, u32::from(connection.slot.backend), packet.length);
    icmp::translate(frame, packet, quote, &translation)?;
    way_out.take(frame)
}

/// From the backend's side, about what we sent there for a client.
#[inline(always)]
fn to_client<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    quote: &Quote,
    connection: &Connection,
) -> Result<Exit, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    if packet.tags != u32::from(connection.slot.tag_count) {
        return Err(Stop::Skip(Skip::VlanMismatch));
    }
    let word = SlotWord(connection.slot.word.load());
    // An exchange is refused by its port alone: nobody waits for a host that is unreachable at the moment. To a client that is about to connect, it says no.
    let refuses = match word.is_udp() {
        true => icmp::is_port_unreachable(packet.family, packet.flags, quote.code),
        false => icmp::is_unreachable(packet.family, packet.flags, quote.code),
    };
    if refuses
        && matches!(word.state(), Some(State::Embryonic))
        && connection.slot.word.exchange::<FRAGS>(word.0, word.ended_by(Side::Backend).0)
    {
        let backend = u32::from(connection.slot.backend);
        let (begun, now) = (word.time().fine(), maps::moment());
        // Of those refused: an attempt that is out of time has timed out.
        if begun.age(now.fine()) <= u32::from(connection.service.connect) {
            count::unreachable(settings, backend);
        }
        signal::event::<FRAGS>(backend, Event::Refused, begun, now);
    }
    let (service, client): (End, End) = (connection.service_end(), connection.client());
    let translation =
        Translation { source: service.address, destination: client.address, quoted_source: client, quoted_destination: service };
    count::received(settings, u32::from(connection.slot.backend), packet.length);
    icmp::translate(frame, packet, quote, &translation)?;
    nat::way_back(frame, connection)
}
