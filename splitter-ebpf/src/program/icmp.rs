//! ICMP errors go to whom they concern.

use splitter_ebpf::{
    abi::{Settings, flags},
    hash,
    header::Packet,
    icmp::{self, Quote, Translation},
    reason::Skip,
    rewrite::End,
    tcp::{Event, SlotWord, State},
};

use super::{
    Exit, Stop, count, dsr,
    forward::WayOut,
    kernel::Kernel,
    maps::{self, Destination},
    nat::{self, Connection},
};

/// An ICMP message. What isn't an error about one of our connections is the kernel's.
#[inline(never)]
pub fn steer<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, settings: &'static Settings, packet: &Packet) -> Result<Exit, Stop> {
    let quote = icmp::quote(frame, packet)?;
    // An error goes to whoever sent the packet that it quotes.
    if quote.source.address != packet.destination {
        return Err(Stop::Skip(Skip::IcmpUnrelated));
    }
    if maps::nat_port(settings, quote.source.port).is_some()
        && let Some(Destination::Nat(nat)) = maps::destination(settings, quote.source.address, 0, 0, packet.family)
        && let Some(connection) = nat::by_port(settings, nat, quote.source.port, quote.protocol, quote.destination)
    {
        return to_client(frame, settings, packet, &quote, &connection);
    }
    match maps::destination(settings, quote.source.address, quote.source.port, quote.protocol, packet.family) {
        Some(Destination::Service(number, service)) => {
            let client = Packet { source: quote.destination.address, source_port: quote.destination.port, ..*packet };
            let flow = hash::client(service.seed, client.source, client.source_port);
            if service.has(flags::NAT) {
                let connection = nat::connection_of(settings, &client, number, flow).ok_or(Skip::IcmpUnrelated)?;
                return to_backend(frame, settings, packet, &quote, &connection);
            }
            let (number, backend) = dsr::backend_of(settings, number, flow).ok_or(Skip::IcmpUnrelated)?;
            let way_out = WayOut::to(frame, packet, backend)?;
            count::sent(settings, number, packet.length);
            way_out.take(frame)
        }
        Some(Destination::Nat(_)) | None => Err(Stop::Skip(Skip::IcmpUnrelated)),
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
    let (nat, backend) = (connection.nat_end(settings), connection.backend_end());
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
    if word.is_udp()
        && matches!(word.state(), Some(State::Embryonic))
        && icmp::is_port_unreachable(packet.family, packet.flags, quote.code)
    {
        connection.slot.word.store(word.with_state(State::Closing).0);
        count::event(settings, u32::from(connection.slot.backend), Event::Refused);
    }
    let (service, client): (End, End) = (connection.service_end(), connection.client());
    let translation =
        Translation { source: service.address, destination: client.address, quoted_source: client, quoted_destination: service };
    count::received(settings, u32::from(connection.slot.backend), packet.length);
    icmp::translate(frame, packet, quote, &translation)?;
    nat::way_back(frame, connection)
}
