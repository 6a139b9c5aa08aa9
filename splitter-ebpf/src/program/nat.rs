//! `nat`: both ends are rewritten on the way there, and back on the way back. A reply finds its connection by its port.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    abi::{BUCKET, Backend, Macs, Nat, Service, Settings, Slot, flags},
    affinity::{self, State, Word, Yield},
    checksum::Delta,
    frame::{Frame, Octets},
    hash::{self, Hash},
    header::{Fragment, Packet, protocol},
    reason::{Drop, Refuse, Skip},
    rewrite::{self, Deltas, End},
    tcp::{self, Event, Side, SlotWord},
};

use super::{
    Exit, Stop, connection, count,
    forward::{self, WayOut, exit},
    fragment,
    kernel::{Arrival, Kernel, forget},
    maps::{self, Opening},
    opening::{self, Not},
    refuse, trace,
    usual::Asked,
};

/// How many ports are looked at for a free one.
const PROBES: u64 = 64;
/// How many of them lie side by side, so that ports are used in turn and each rests for as long as it can. The others are spread over the range: connections that
/// were opened one after the other and live long have their ports side by side, too, and must not make all seem taken.
const NEAR: u64 = 8;

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
    fn end(&self, settings: &Settings) {
        let word = SlotWord(self.slot.word.load()).with_state(tcp::State::Closing).touched(maps::now(settings));
        self.slot.word.store(word.0);
    }

    /// Stores state and stamp, where they have changed, and counts what that means.
    #[inline(always)]
    fn advance(&self, settings: &Settings, side: Side, packet: &Packet) {
        let word = SlotWord(self.slot.word.load());
        let (next, event) = if packet.protocol == protocol::UDP {
            match (word.state(), side) {
                (Some(tcp::State::Embryonic), Side::Backend) => {
                    (word.with_state(tcp::State::Established), Some(Event::Completed))
                }
                _ => (word, None),
            }
        } else {
            tcp::segment(word, side, packet.flags)
        };
        let next = next.touched(maps::now(settings));
        if next != word {
            self.slot.word.store(next.0);
        }
        if let Some(event) = event {
            count::event(settings, u32::from(self.slot.backend), event);
        }
    }
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
    let connection = match find(frame, settings, End { address: packet.source, port: packet.source_port }, number, flow) {
        Some((connection, place)) => match next(packet, &connection) {
            Next::Goes => {
                if packet.ttl <= 1 {
                    return Err(Stop::Skip(Skip::TtlExpired));
                }
                connection
            }
            Next::Reset => {
                connection.end(settings);
                return refuse::refuse(frame, number, Refuse::ResetByFlip);
            }
            Next::BeginsAnew => match open(frame, number, place, flow) {
                Ok(connection) => connection,
                Err(instead) => return instead,
            },
        },
        None => match open(frame, number, NO_PLACE, flow) {
            Ok(connection) => connection,
            Err(instead) => return instead,
        },
    };
    let way_out = WayOut::to(frame, packet, connection.backend)?;
    connection.advance(settings, Side::Client, packet);
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
pub fn usual(
    head: &mut Octets,
    arrival: Arrival,
    settings: &'static Settings,
    packet: &Packet,
    asked: &Asked,
) -> Option<Result<u32, Stop>> {
    let &Asked { number, service, .. } = asked;
    if packet.ttl <= 1 {
        return None;
    }
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let key = flow.of_service(number);
    let (first, second) = affinity::buckets(key, settings.nat_mask);
    let first = maps::nat_affinity(first)?;
    let known = match affinity::find(first, key) {
        Some((_, word)) => Some(word.value()),
        None => affinity::find(maps::nat_affinity(second)?, key).map(|(_, word)| word.value()),
    };
    let index = match known {
        Some(index) => index,
        None => open_usual(head, arrival, settings, packet, asked, flow)?,
    };
    let slot = maps::slot(index)?;
    let is_its_slot = slot.client.is(packet.source, packet.family)
        && u16::from_ne_bytes(slot.client_port) == packet.source_port
        && u32::from(slot.service) == number;
    if !is_its_slot {
        return None;
    }
    let backend = maps::backend(u32::from(slot.backend))?;
    let connection = Connection { index, slot, service, backend, nat: maps::nat(u32::from(slot.nat))? };
    let way_out = WayOut::untagged(backend)?;
    if known.is_some() {
        passes(settings, packet, service, slot)?.store(slot);
    }
    count::sent(settings, u32::from(slot.backend), packet.length);
    let (from, to) = (connection.nat_end(), connection.backend_end());
    Some(rewrite::ends(head, packet, from, to, connection.deltas()).map_err(Stop::from).and_then(|()| way_out.write(head)))
}

/// Opens a connection whose bucket has room and whose turn's port is free; returns its slot's number.
#[inline(always)]
fn open_usual(
    head: &Octets,
    arrival: Arrival,
    settings: &'static Settings,
    packet: &Packet,
    asked: &Asked,
    flow: Hash,
) -> Option<u32> {
    let udp = packet.protocol == protocol::UDP;
    if !udp && !tcp::opens(packet.flags) {
        return None;
    }
    let (backend, record) = forward::choose_usual(packet, asked, flow)?;
    WayOut::untagged(record)?;
    let key = flow.of_service(asked.number);
    let (bucket, _) = affinity::buckets(key, settings.nat_mask);
    let way = affinity::free(maps::nat_affinity(bucket)?, key)? as u32;
    let (nat, cpu) = (nat_of(record, flow), maps::cpu());
    if record.nat_count == 0 || settings.nat_share == 0 || cpu >= settings.cpus {
        return None;
    }
    let first = Nat::first_slot(nat, settings.nat_count) + if udp { u32::from(settings.nat_count) } else { 0 };
    let cursor = maps::cursor(settings, cpu, nat)?;
    let turn = if udp { &mut cursor.udp } else { &mut cursor.tcp };
    let offset = cpu * settings.nat_share + if *turn < settings.nat_share { *turn } else { 0 };
    let (index, port) = (first + offset, u32::from(settings.nat_low) + offset);
    if maps::slot(index)?.word.load() != 0 {
        return None;
    }
    let link = Link { interface: arrival.interface(), macs: rewrite::macs_of(head).ok()?, tags: [[0; 2]; 2], count: 0 };
    let place = bucket * BUCKET as u32 + way;
    *turn = offset - cpu * settings.nat_share + 1;
    New { service: asked.number, backend, nat, place, port: port as u16, index }.begin(settings, packet, link, key)?;
    Some(index)
}

/// A usual packet to one of this NAT address's ports.
#[inline(always)]
pub fn usual_reply(head: &mut Octets, settings: &'static Settings, packet: &Packet, nat: u32) -> Option<Result<u32, Stop>> {
    let index = slot_at(settings, nat, packet.destination_port, packet.protocol)?;
    let slot = maps::slot(index)?;
    let service = maps::service(u32::from(slot.service))?;
    let backend = maps::backend(u32::from(slot.backend))?;
    let connection = Connection { index, slot, service, backend, nat: maps::nat(nat)? };
    let is_reply = connection.backend_end() == End { address: packet.source, port: packet.source_port };
    if !is_reply || packet.ttl <= 1 || slot.tag_count != 0 || service.control().is_special() {
        return None;
    }
    passes(settings, packet, service, slot)?.store(slot);
    count::received(settings, u32::from(slot.backend), packet.length);
    let (from, to) = (connection.service_end(), connection.client());
    let written =
        rewrite::ends(head, packet, from, to, connection.deltas().reversed()).and_then(|()| rewrite::macs(head, slot.macs));
    Some(written.map(|()| slot.interface).map_err(Stop::from))
}

/// A slot's word after a packet that changes nothing in it but the stamp.
struct Touched {
    before: SlotWord,
    after: SlotWord,
}

impl Touched {
    #[inline(always)]
    fn store(&self, slot: &Slot) {
        if self.after != self.before {
            slot.word.store(self.after.0);
        }
    }
}

/// The word after this packet, if its connection is established and goes on.
#[inline(always)]
fn passes(settings: &Settings, packet: &Packet, service: &Service, slot: &Slot) -> Option<Touched> {
    let udp = packet.protocol == protocol::UDP;
    let before = SlotWord(slot.word.load());
    let now = maps::now(settings);
    let goes_on = if udp { before.stamp() == now || before.stamp().age(now) <= service.udp } else { tcp::goes_on(packet.flags) };
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
fn next(packet: &Packet, connection: &Connection) -> Next {
    let udp = connection.service.has(flags::UDP);
    let reset = connection.is_reset();
    // Only what may open a connection asks whether the old one is over.
    if udp || tcp::opens(packet.flags) {
        let closing = matches!(SlotWord(connection.slot.word.load()).state(), Some(tcp::State::Closing));
        let expired = connection::slot_yields(connection.index).is_free();
        if expired || closing && !udp || reset && udp {
            return Next::BeginsAnew;
        }
    }
    if reset { Next::Reset } else { Next::Goes }
}

/// Opens a connection; `place` is that of its word, `NO_PLACE` where it has none. In three global functions, one after the other: the verifier looks at each
/// once, and no stack holds what two of them need.
#[inline(always)]
fn open<const FRAGS: bool>(frame: &Kernel<FRAGS>, number: u32, place: u32, flow: Hash) -> Result<Connection, Result<Exit, Stop>> {
    maps::leave(frame);
    let context = frame.context();
    let said =
        if FRAGS { splitter_nat_choose_frags(context, number, place) } else { splitter_nat_choose(context, number, place) };
    let backend = opening::hear(frame, number, said)?;
    let index = splitter_nat_port(backend, flow.slot());
    if index == NO_SLOT {
        return Err(refuse::refuse(frame, number, Refuse::PortsExhausted));
    }
    if FRAGS {
        splitter_nat_fill_frags(context, index);
    } else {
        splitter_nat_fill(context, index);
    }
    let lost = Err(Stop::Drop(Drop::FrameFixed));
    let Some(slot) = maps::slot(index) else { return Err(lost) };
    Connection::of(index, slot).ok_or(lost)
}

/// The connection has no word in the affinity table yet.
const NO_PLACE: u32 = u32::MAX;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_choose(context: *mut xdp_md, number: u32, place: u32) -> u32 {
    opening::say(choose(&Kernel::<false>::new(context), number, place))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_choose_frags(context: *mut xdp_md, number: u32, place: u32) -> u32 {
    opening::say(choose(&Kernel::<true>::new(context), number, place))
}

/// Chooses a backend for the packet's connection, and a place for its word; returns the backend's number.
#[inline(always)]
fn choose<const FRAGS: bool>(frame: &Kernel<FRAGS>, number: u32, place: u32) -> Result<u32, Not> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
    let service = maps::service(number).ok_or(Skip::NotReady)?;
    if !service.has(flags::UDP) && !tcp::opens(packet.flags) {
        return Err(Not::Refused(Refuse::UnknownConnection));
    }
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let (backend, record) = forward::choose(settings, packet, number, service, flow)?;
    if packet.ttl <= 1 {
        return Err(Not::Stopped(Stop::Skip(Skip::TtlExpired)));
    }
    WayOut::to(frame, packet, record)?;
    let place = if place == NO_PLACE {
        connection::nat_place(frame, settings, flow.of_service(number)).ok_or(Refuse::AffinityFull)?
    } else {
        place
    };
    let opening = maps::opening().ok_or(Skip::NotReady)?;
    (opening.service, opening.backend, opening.place) = (number, backend, place);
    Ok(backend)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_fill(context: *mut xdp_md, index: u32) -> u32 {
    u32::from(fill(&Kernel::<false>::new(context), index).is_some())
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_fill_frags(context: *mut xdp_md, index: u32) -> u32 {
    u32::from(fill(&Kernel::<true>::new(context), index).is_some())
}

/// Fills in the slot that was taken for the packet's connection, and lets it be found.
#[inline(always)]
fn fill<const FRAGS: bool>(frame: &Kernel<FRAGS>, index: u32) -> Option<()> {
    let settings = maps::settings()?;
    let packet = maps::packet()?;
    let Opening { service: number, backend, place, nat } = *maps::opening()?;
    let service = maps::service(number)?;
    let udp = if service.has(flags::UDP) { u32::from(settings.nat_count) } else { 0 };
    let offset = index.wrapping_sub(Nat::first_slot(nat, settings.nat_count)).wrapping_sub(udp);
    let port = (u32::from(settings.nat_low) + offset) as u16;
    let key = hash::client(service.seed, packet.source, packet.source_port).of_service(number);
    let tags = rewrite::tags(frame, packet.tags);
    let link = Link { interface: frame.interface(), macs: rewrite::macs_of(frame).ok()?, tags, count: packet.tags as u8 };
    New { service: number, backend, nat, place, port, index }.begin(settings, packet, link, key)
}

/// What a slot keeps of the opening packet's link layer.
struct Link {
    interface: u32,
    macs: Macs,
    tags: [[u8; 2]; 2],
    count: u8,
}

/// A connection about to begin: the numbers of all that it's made of.
struct New {
    service: u32,
    backend: u32,
    nat: u32,
    /// Of its word in the affinity table.
    place: u32,
    /// Of the NAT address.
    port: u16,
    /// Of its slot: free or expired, and in this CPU's part of the range.
    index: u32,
}

impl New {
    /// Fills in the slot and lets it be found by `key`.
    #[inline(always)]
    fn begin(self, settings: &'static Settings, packet: &Packet, link: Link, key: Hash) -> Option<()> {
        let (backend, nat) = (maps::backend(self.backend)?, maps::nat(self.nat)?);
        let (slot, cell) = (maps::slot_mut(self.index)?, connection::nat_cell(self.place)?);
        connection::clear_home(maps::slot(self.index)?, self.index);
        let source = End { address: nat.address, port: self.port.to_be() };
        let destination = End { address: backend.address, port: u16::from_ne_bytes(backend.port) };
        let before = (
            End { address: packet.source, port: packet.source_port },
            End { address: packet.destination, port: packet.destination_port },
        );
        let deltas = Deltas::of(before, (source, destination));
        let now = maps::now(settings);
        // SAFETY: the lookup gave a pointer into the map, valid for the whole run. The slot is free or has expired, and lies in this CPU's part of the
        // range, so no other CPU takes it; its word, which says that it is in use, is stored last.
        unsafe {
            (*slot).interface = link.interface;
            (*slot).client = packet.source;
            (*slot).client_port = packet.source_port.to_ne_bytes();
            (*slot).backend = self.backend as u16;
            (*slot).service = self.service as u16;
            (*slot).nat = self.nat as u16;
            (*slot).macs = link.macs.reversed();
            (*slot).tags = link.tags;
            (*slot).tag_count = link.count;
            (*slot).network_delta = deltas.network.fold();
            (*slot).transport_delta = deltas.transport.fold();
            (*slot).nat_port = self.port.to_be_bytes();
            (*slot).home = self.place;
            (*slot).word.store(SlotWord::new(packet.protocol == protocol::UDP, now).0);
        }
        cell.store(Word::new(key, self.index, State::Established, now).0);
        count::opened(settings, self.backend);
        Some(())
    }
}

/// The number of the NAT address that a connection to a backend leaves from.
#[inline(always)]
fn nat_of(backend: &Backend, flow: Hash) -> u32 {
    u32::from(backend.nat_first) + ((u64::from(flow.slot()) * u64::from(backend.nat_count)) >> 32) as u32
}

/// No port is free.
const NO_SLOT: u32 = u32::MAX;

/// The slot of a free port of one of the NAT addresses toward a backend, of this CPU's part of the range; [`NO_SLOT`]: none. `pick` is the low half of the
/// connection's hash. A global function, so that the verifier looks at its loop once and not with every path that leads here.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_port(backend: u32, pick: u32) -> u32 {
    let (Some(settings), Some(record), Some(opening)) = (maps::settings(), maps::backend(backend), maps::opening()) else {
        return NO_SLOT;
    };
    let nat_number = nat_of(record, Hash(pick.into()));
    opening.nat = nat_number;
    let udp = maps::service(u32::from(record.service)).is_some_and(|service| service.has(flags::UDP));
    let (Some(nat), cpu) = (maps::nat(nat_number), maps::cpu()) else { return NO_SLOT };
    if record.nat_count == 0 {
        return NO_SLOT;
    }
    let share = settings.nat_share;
    if cpu >= settings.cpus || share == 0 {
        return NO_SLOT;
    }
    let Some(cursor) = maps::cursor(settings, cpu, nat_number) else { return NO_SLOT };
    let first = nat.first_slot + if udp { u32::from(settings.nat_count) } else { 0 } + cpu * share;
    let begin = if udp { cursor.udp } else { cursor.tcp };
    let chosen = splitter_nat_search(first, share, begin);
    // Where nothing was found, the next search begins elsewhere.
    let next = if chosen == NO_SLOT { begin + NEAR as u32 } else { chosen + 1 };
    if udp {
        cursor.udp = next;
    } else {
        cursor.tcp = next;
    }
    if chosen == NO_SLOT {
        return NO_SLOT;
    }
    let index = first + chosen;
    let expired = connection::slot_yields(index).is_free();
    if let Some(slot) = maps::slot(index) {
        connection::release(settings, slot, expired);
    }
    index
}

/// The place in a CPU's part of a range (which begins at the slot `first` and has `share` of them) of a port that is free, or of the one that gives way first;
/// [`NO_SLOT`]: none does. `offset` is where to begin. A global function for the loop's sake alone.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_search(first: u32, share: u32, offset: u32) -> u32 {
    // About 5/8 of the range, which visits all parts of it alike.
    let stride = (share >> 1) + (share >> 3) + 1;
    let unknown = u64::from(first);
    let (mut best, mut chosen, mut offset) = (Yield::NO, NO_SLOT, offset);
    // 64 bits wide: a spilled 32-bit counter can share its stack slot with a map key, and the verifier then loses count.
    let mut probe = 0_u64;
    while probe < PROBES {
        if offset >= share {
            offset = 0;
        }
        let willing = connection::slot_yields(first + offset);
        if willing.is_free() {
            return offset;
        }
        if willing > best {
            (best, chosen) = (willing, offset);
        }
        best = Yield::from_rank(forget(best.rank(), u32::MAX, unknown));
        chosen = forget(chosen, u32::MAX, unknown);
        probe += 1;
        offset += if probe < NEAR { 1 } else { stride };
        if offset >= share {
            offset -= share;
        }
        offset = forget(offset, u32::MAX, unknown);
    }
    chosen
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
        connection.end(settings);
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
    connection.advance(settings, Side::Backend, packet);
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
    Ok(exit(frame, slot.interface))
}
