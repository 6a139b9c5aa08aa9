//! `nat`: both ends are rewritten on the way there, and back on the way back. A reply finds its connection by its port.

mod open;

use splitter_ebpf::{
    abi::{BUCKET, Backend, Nat, Service, Settings, Slot, flags, kind},
    affinity,
    bench::Step,
    checksum::Delta,
    frame::Frame,
    hash::{self, Hash},
    header::{Fragment, Packet, protocol},
    moment::Moment,
    reason::{Drop, Refuse, Skip},
    rewrite::{self, Deltas, End},
    stamp::Stamp,
    tcp::{self, Change, Event, Side, SlotWord, Timing},
    usual::Usual,
};

use self::open::{NO_PLACE, NO_SLOT, open, open_usual};
use super::{
    Exit, Stop, act, connection, count,
    forward::{WayOut, exit},
    fragment,
    kernel::{Arrival, Kernel},
    maps, opening, refuse, signal, steps, trace,
    usual::{Asked, family_of, protocol_of},
};

/// A connection, by whichever side its packet came.
#[derive(Clone, Copy)]
pub struct Connection {
    /// Its slot's number.
    pub index: u32,
    /// Its slot.
    pub slot: &'static Slot,
    /// Its service.
    pub service: &'static Service,
    /// Its backend.
    pub backend: &'static Backend,
    /// Its NAT address.
    pub nat: &'static Nat,
}

impl Connection {
    /// What a slot in use says, all of its numbers looked up.
    #[inline(always)]
    pub fn of(index: u32, slot: &'static Slot) -> Option<Self> {
        SlotWord(slot.word.load()).state()?;
        let service = maps::service(u32::from(slot.service))?;
        let backend = maps::backend(u32::from(slot.backend))?;
        let nat = maps::nat(u32::from(slot.nat))?;
        Some(Self { index, slot, service, backend, nat })
    }

    /// The client.
    #[inline(always)]
    pub fn client(&self) -> End {
        End { address: self.slot.client, port: u16::from_ne_bytes(self.slot.client_port) }
    }

    /// What the client connected to.
    #[inline(always)]
    pub fn service_end(&self) -> End {
        End { address: self.service.address, port: u16::from_ne_bytes(self.service.port) }
    }

    /// Where the backend sees the connection come from.
    #[inline(always)]
    pub fn nat_end(&self) -> End {
        End { address: self.nat.address, port: u16::from_ne_bytes(self.slot.nat_port) }
    }

    /// The backend.
    #[inline(always)]
    pub fn backend_end(&self) -> End {
        End { address: self.backend.address, port: u16::from_ne_bytes(self.backend.port) }
    }

    /// What the way there does to checksums.
    #[inline(always)]
    fn deltas(&self) -> Deltas {
        Deltas { network: Delta::from_folded(self.slot.network_delta), transport: Delta::from_folded(self.slot.transport_delta) }
    }

    /// Whether a flip has ended it.
    #[inline(always)]
    fn is_reset(&self) -> bool {
        self.backend.cohort != 0 && self.service.control().resets_canary()
    }

    /// Lets it be forgotten soon: whoever sends on it from now on is told that it's over.
    #[inline(always)]
    fn end<const EXACT: bool>(&self, settings: &Settings) {
        let word = SlotWord(self.slot.word.load());
        let over = word.with_state(tcp::State::Closing).touched(maps::now(settings));
        if self.slot.word.exchange::<EXACT>(word.0, over.0) && matches!(word.state(), Some(tcp::State::Established)) {
            count::ended(settings, u32::from(self.slot.backend));
        }
    }

    /// Stores state and stamp, where they have changed, and counts what that means.
    #[inline(always)]
    fn advance<const EXACT: bool>(&self, settings: &Settings, side: Side, packet: &Packet) {
        let cell = &self.slot.word;
        let stamp = maps::now(settings);
        let mut before = SlotWord(cell.load());
        let (mut step, mut now) = step(before, side, packet, stamp);
        if step.word != before && !cell.exchange::<EXACT>(before.0, step.word.0) {
            // Another CPU has a packet of the same connection. What it has made of the word is where this one goes on.
            before = SlotWord(cell.load());
            (step, now) = self::step(before, side, packet, stamp);
            if step.word != before && !cell.exchange::<EXACT>(before.0, step.word.0) {
                return;
            }
        }
        let backend = u32::from(self.slot.backend);
        match step.timing {
            Timing::Nothing | Timing::Asked => {}
            Timing::Answered => signal::took(backend, kind::HANDSHAKE, now.ticks().since(before.time())),
            Timing::Replied => signal::took(backend, kind::FIRST_RESPONSE, now.ticks().since(before.time())),
        }
        if let Some(event) = step.event {
            signal::event::<EXACT>(backend, event, before.time().fine(), now);
        }
    }

    /// An attempt that never was answered, and never will be: what is sent to its port from now on is nobody's.
    #[inline(always)]
    fn give_up<const EXACT: bool>(&self, settings: &'static Settings) {
        let word = SlotWord(self.slot.word.load());
        // A datagram that is under way to the client of an exchange that has moved is still known for what it is.
        if !word.is_udp() && matches!(word.state(), Some(tcp::State::Embryonic | tcp::State::Answered)) {
            connection::release::<EXACT>(settings, self.slot);
        }
    }
}

/// What a packet makes of a slot's word, and the moment, where it has to be known (else nothing that means anything).
#[inline(always)]
fn step(word: SlotWord, side: Side, packet: &Packet, stamp: Stamp) -> (Change, Moment) {
    let step = if packet.protocol == protocol::UDP {
        match (word.state(), side) {
            (Some(tcp::State::Embryonic), Side::Backend) => {
                Change { word: word.with_state(tcp::State::Established), event: Some(Event::Completed), timing: Timing::Answered }
            }
            _ => Change { word, event: None, timing: Timing::Nothing },
        }
    } else {
        tcp::segment(word, side, packet.flags, packet.data)
    };
    let now = if step.is_timed() { maps::moment() } else { Moment(0) };
    let next = if matches!(step.timing, Timing::Asked) { step.word.with_time(now.ticks()) } else { step.word };
    (Change { word: next.touched(stamp), ..step }, now)
}

/// A packet from a client to a `nat` service.
#[inline(always)]
pub fn forward<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    number: u32,
    service: &'static Service,
) -> Result<Exit, Stop> {
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let (connection, goes_on) =
        match find(frame, settings, End { address: packet.source, port: packet.source_port }, number, flow) {
            Some((connection, place)) => match next(settings, packet, &connection) {
                Next::Goes => {
                    if packet.ttl <= 1 {
                        return Err(Stop::Skip(Skip::TtlExpired));
                    }
                    (connection, true)
                }
                Next::Reset => {
                    connection.end::<FRAGS>(settings);
                    return refuse::refuse(frame, number, Refuse::ResetByFlip);
                }
                Next::BeginsAnew => match open(frame, number, place, connection.index, flow) {
                    Ok(anew) => {
                        if anew.index != connection.index {
                            connection.give_up::<FRAGS>(settings);
                        }
                        (anew, false)
                    }
                    Err(instead) => return instead,
                },
            },
            None => match open(frame, number, NO_PLACE, NO_SLOT, flow) {
                Ok(connection) => (connection, false),
                Err(instead) => return instead,
            },
        };
    let way_out = WayOut::to(frame, packet, connection.backend)?;
    // The packet that opened it has had its effect.
    if goes_on {
        connection.advance::<FRAGS>(settings, Side::Client, packet);
    }
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(frame, fragment::TO_BACKEND, connection.index);
    }
    if service.control().traces() {
        trace::decision(packet, flow, u32::from(connection.slot.backend));
    }
    toward_backend(frame, settings, packet, &connection, way_out)
}

/// A usual packet from a client to a `nat` service that does nothing special.
#[inline(always)]
pub fn usual<const EXACT: bool>(
    mut packet: impl Usual,
    arrival: Arrival,
    settings: &'static Settings,
    asked: &Asked,
) -> Option<u32> {
    let &Asked { number, service, .. } = asked;
    if packet.ttl() <= 1 {
        return None;
    }
    let flow = hash::client(service.seed, packet.source(), packet.source_port());
    let key = flow.of_service(number);
    steps::end(Step::Hashed, || key.0);
    let (first, second) = affinity::buckets(key, settings.nat_mask);
    let first = maps::nat_affinity(first)?;
    // A word's state here is never another, its slot's word has the connection's.
    let known = match affinity::find_established(first, key) {
        Some((_, word)) => Some(word.value()),
        None => affinity::find_established(maps::nat_affinity(second)?, key).map(|(_, word)| word.value()),
    };
    steps::end(Step::Known, || known.unwrap_or(0).into());
    let index = match known {
        Some(index) => index,
        None => open_usual::<EXACT>(&mut packet, arrival, settings, asked, flow)?,
    };
    let slot = maps::slot(index)?;
    let is_its_slot = slot.client.is(packet.source(), family_of(&packet))
        && u16::from_ne_bytes(slot.client_port) == packet.source_port()
        && u32::from(slot.service) == number;
    if !is_its_slot {
        return None;
    }
    steps::end(Step::Slot, || slot.backend.into());
    let backend = maps::backend(u32::from(slot.backend))?;
    let connection = Connection { index, slot, service, backend, nat: maps::nat(u32::from(slot.nat))? };
    let way_out = WayOut::untagged(backend)?;
    steps::end(Step::Backend, || 0);
    if known.is_some() {
        passes(settings, &packet, service, slot, Side::Client)?.store::<EXACT>(slot);
    }
    steps::end(Step::Kept, || 0);
    count::sent(settings, u32::from(slot.backend), packet.length());
    steps::end(Step::Counted, || 0);
    let (from, to) = (connection.nat_end(), connection.backend_end());
    let read = packet.packet();
    let head = &mut packet.head();
    let written = rewrite::ends(head, &read, from, to, connection.deltas()).map_err(Stop::from).and_then(|()| {
        steps::end(Step::Rewritten, || 0);
        way_out.write(head)
    });
    Some(act(written.map(|interface| exit(arrival, interface))))
}

/// A usual packet to one of this NAT address's ports.
#[inline(always)]
pub fn usual_reply<const EXACT: bool>(
    mut packet: impl Usual,
    arrival: Arrival,
    settings: &'static Settings,
    nat: u32,
) -> Option<u32> {
    let index = slot_at(settings, nat, packet.destination_port(), protocol_of(&packet))?;
    let slot = maps::slot(index)?;
    steps::end(Step::Slot, || slot.backend.into());
    let service = maps::service(u32::from(slot.service))?;
    let backend = maps::backend(u32::from(slot.backend))?;
    let connection = Connection { index, slot, service, backend, nat: maps::nat(nat)? };
    let is_reply = connection.backend_end() == End { address: packet.source(), port: packet.source_port() };
    if !is_reply || packet.ttl() <= 1 || slot.tag_count != 0 || service.control().is_special() {
        return None;
    }
    steps::end(Step::Backend, || 0);
    passes(settings, &packet, service, slot, Side::Backend)?.store::<EXACT>(slot);
    steps::end(Step::Kept, || 0);
    count::received(settings, u32::from(slot.backend), packet.length());
    steps::end(Step::Counted, || 0);
    let (from, to) = (connection.service_end(), connection.client());
    let read = packet.packet();
    let head = &mut packet.head();
    let written = rewrite::ends(head, &read, from, to, connection.deltas().reversed()).and_then(|()| {
        steps::end(Step::Rewritten, || 0);
        rewrite::macs(head, slot.macs)
    });
    Some(act(written.map(|()| exit(arrival, slot.interface)).map_err(Stop::from)))
}

/// A slot's word after a packet that changes nothing in it but the stamp.
struct Touched {
    before: SlotWord,
    after: SlotWord,
}

impl Touched {
    #[inline(always)]
    fn store<const EXACT: bool>(&self, slot: &Slot) {
        if self.after != self.before {
            // Whoever has written meanwhile has the newer word.
            let _written = slot.word.exchange::<EXACT>(self.before.0, self.after.0);
        }
    }
}

/// The word after this packet, if its connection is established and goes on.
#[inline(always)]
fn passes(settings: &Settings, packet: &impl Usual, service: &Service, slot: &Slot, side: Side) -> Option<Touched> {
    let udp = protocol_of(packet) == protocol::UDP;
    let before = SlotWord(slot.word.load());
    let now = maps::now(settings);
    let goes_on = if udp {
        before.stamp() == now || before.stamp().age(now) <= service.udp
    } else {
        tcp::goes_on(packet.flags()) && (before.is_settled(side) || packet.data() == 0)
    };
    if goes_on && matches!(before.state(), Some(tcp::State::Established)) {
        Some(Touched { before, after: before.touched(now) })
    } else {
        None
    }
}

/// What becomes of a known connection with a packet of its client.
enum Next {
    Goes,
    Reset,
    BeginsAnew,
}

#[inline(always)]
fn next(settings: &Settings, packet: &Packet, connection: &Connection) -> Next {
    let udp = connection.service.has(flags::UDP);
    let reset = connection.is_reset();
    // Only what may open a connection asks whether the old one is over.
    if udp || tcp::opens(packet.flags) {
        let state = SlotWord(connection.slot.word.load()).state();
        let closing = matches!(state, Some(tcp::State::Closing));
        let expired = connection::slot_yields(connection.index).is_free();
        // Answered, the attempt is as good as established: its client may have the answer.
        let spared = !udp
            && matches!(state, Some(tcp::State::Embryonic))
            && opening::spares(settings, connection.service, connection.backend);
        if expired || closing && !udp || spared || reset && udp {
            return Next::BeginsAnew;
        }
    }
    if reset { Next::Reset } else { Next::Goes }
}

/// Looks a client's connection up: the connection, and the place of its word.
#[inline(always)]
fn find<const FRAGS: bool>(
    frame: &Kernel<FRAGS>,
    settings: &Settings,
    client: End,
    service: u32,
    flow: Hash,
) -> Option<(Connection, u32)> {
    let flow = flow.of_service(service);
    let (first, second) = affinity::buckets(flow, settings.nat_mask);
    let (bucket, way, word) = match affinity::find(maps::nat_affinity(first)?, flow) {
        Some((way, word)) => (first, way, word),
        None => {
            let (way, word) = affinity::find(maps::nat_affinity(second)?, flow)?;
            (second, way, word)
        }
    };
    let place = bucket * BUCKET as u32 + frame.forget(way as u32, BUCKET as u32 - 1);
    let slot = maps::slot(word.value())?;
    let same = slot.client == client.address
        && u16::from_ne_bytes(slot.client_port) == client.port
        && u32::from(slot.service) == service;
    if same { Connection::of(word.value(), slot).map(|connection| (connection, place)) } else { None }
}

/// The connection between a client and a service, for those who quote it.
#[inline(always)]
pub fn connection_of<const FRAGS: bool>(
    frame: &Kernel<FRAGS>,
    settings: &Settings,
    client: End,
    service: u32,
    flow: Hash,
) -> Option<Connection> {
    find(frame, settings, client, service, flow).map(|(connection, _)| connection)
}

/// Writes a packet for the backend and sends it there.
#[inline(always)]
pub fn toward_backend<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: &Connection,
    way_out: WayOut,
) -> Result<Exit, Stop> {
    count::sent(settings, u32::from(connection.slot.backend), packet.length);
    rewrite::ends(frame, packet, connection.nat_end(), connection.backend_end(), connection.deltas())?;
    way_out.take(frame)
}

/// The connection that a packet answers, if it is a reply.
#[inline(always)]
pub fn reply_of(settings: &Settings, packet: &Packet) -> Option<Connection> {
    maps::nat_port(settings, packet.destination_port)?;
    let nat = maps::nat_at(settings, packet.destination, packet.family)?;
    let source = End { address: packet.source, port: packet.source_port };
    by_port(settings, nat, packet.destination_port, packet.protocol, source)
}

/// The connection that has this port of a NAT address, if its backend is this one.
#[inline(always)]
pub fn by_port(settings: &Settings, nat: u32, port: u16, protocol: u8, backend: End) -> Option<Connection> {
    let index = slot_at(settings, nat, port, protocol)?;
    let connection = Connection::of(index, maps::slot(index)?)?;
    if connection.backend_end() == backend { Some(connection) } else { None }
}

/// The slot of a port (as loaded) of a NAT address.
#[inline(always)]
fn slot_at(settings: &Settings, nat: u32, port: u16, protocol: u8) -> Option<u32> {
    let udp = if protocol == protocol::UDP { u32::from(settings.nat_count) } else { 0 };
    Some(Nat::first_slot(nat, settings.nat_count) + udp + maps::nat_port(settings, port)?)
}

/// A reply.
#[inline(always)]
pub fn reply<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: Connection,
) -> Result<Exit, Stop> {
    if connection.is_reset() {
        connection.end::<FRAGS>(settings);
        if packet.protocol == protocol::UDP {
            return Err(Stop::Drop(Drop::FlippedReply));
        }
        return refuse::refuse(frame, u32::from(connection.slot.service), Refuse::ResetByFlip);
    }
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    if packet.tags != u32::from(connection.slot.tag_count) {
        return Err(Stop::Skip(Skip::VlanMismatch));
    }
    connection.advance::<FRAGS>(settings, Side::Backend, packet);
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(frame, fragment::TO_CLIENT, connection.index);
    }
    toward_client(frame, settings, packet, &connection)
}

/// Writes a reply and sends it the way that the request came.
#[inline(always)]
pub fn toward_client<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: &Connection,
) -> Result<Exit, Stop> {
    count::received(settings, u32::from(connection.slot.backend), packet.length);
    rewrite::ends(frame, packet, connection.service_end(), connection.client(), connection.deltas().reversed())?;
    way_back(frame, connection)
}

/// Writes the link layer of the way back to a client.
#[inline(always)]
pub fn way_back<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, connection: &Connection) -> Result<Exit, Stop> {
    let slot = connection.slot;
    rewrite::macs(frame, slot.macs)?;
    if slot.tag_count > 0 {
        rewrite::vlan(frame, 0, u16::from_be_bytes(slot.tags[0]))?;
    }
    if slot.tag_count > 1 {
        rewrite::vlan(frame, 1, u16::from_be_bytes(slot.tags[1]))?;
    }
    Ok(exit(frame.arrival(), slot.interface))
}
