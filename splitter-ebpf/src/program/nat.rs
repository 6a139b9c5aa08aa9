//! `nat`: both ends are rewritten on the way there, and back on the way back. A reply finds its connection by its port.

use splitter_ebpf::{
    abi::{Backend, Nat, Service, Settings, Slot, flags},
    affinity::{self, State, Word, Yield},
    checksum::Delta,
    frame::Frame,
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
    kernel::Kernel,
    maps, refuse, trace,
};

/// How many ports are looked at for a free one.
const PROBES: u32 = 32;

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
    pub fn nat_end(&self, settings: &Settings) -> End {
        let udp = if self.service.has(flags::UDP) { u32::from(settings.nat_count) } else { 0 };
        let offset = self.index.wrapping_sub(self.nat.first_slot).wrapping_sub(udp);
        let port = (u32::from(settings.nat_low) + offset) as u16;
        End { address: self.nat.address, port: port.to_be() }
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
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let Some((connection, place)) = find(settings, packet, number, flow) else {
        return open(frame, settings, packet, number, service, flow, None);
    };
    let udp = service.has(flags::UDP);
    let word = SlotWord(connection.slot.word.load());
    // Only what may open a connection asks whether the old one is over.
    if udp || tcp::opens(packet.flags) {
        let expired = connection::slot_yields(connection.slot, maps::now(settings)).is_free();
        if expired || !udp && matches!(word.state(), Some(tcp::State::Closing)) || udp && connection.is_reset() {
            return open(frame, settings, packet, number, service, flow, Some(place));
        }
    }
    if connection.is_reset() {
        return refuse::refuse(frame, settings, packet, number, Refuse::ResetByFlip);
    }
    let way_out = WayOut::to(frame, packet, connection.backend)?;
    connection.advance(settings, Side::Client, packet);
    toward_backend(frame, settings, packet, &connection, connection.deltas(), way_out, flow, trace::KNOWN)
}

/// A connection that isn't known, or begins anew at `place`.
#[inline(always)]
fn open<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    number: u32,
    service: &'static Service,
    flow: Hash,
    place: Option<(u32, usize)>,
) -> Result<Exit, Stop> {
    let udp = service.has(flags::UDP);
    if !udp && !tcp::opens(packet.flags) {
        return refuse::refuse(frame, settings, packet, number, Refuse::UnknownConnection);
    }
    let (backend, record, rule) = match forward::choose(settings, packet, number, service, flow) {
        Ok(chosen) => chosen,
        Err(reason) => return refuse::refuse(frame, settings, packet, number, reason),
    };
    let way_out = WayOut::to(frame, packet, record)?;
    let Some(place) = place.or_else(|| connection::nat_place(settings, service, flow)) else {
        return refuse::refuse(frame, settings, packet, number, Refuse::AffinityFull);
    };
    let Some((index, nat_number)) = take_slot(settings, record, flow, udp) else {
        return refuse::refuse(frame, settings, packet, number, Refuse::PortsExhausted);
    };
    let Some(slot) = maps::slot_mut(index) else { return Err(Stop::Drop(Drop::FrameFixed)) };
    let Some(nat) = maps::nat(nat_number) else { return Err(Stop::Drop(Drop::FrameFixed)) };
    if let Some(old) = maps::slot(index) {
        connection::forget(old, index);
    }

    let macs = *frame.get::<12>(0).ok_or(Stop::Drop(Drop::FrameFixed))?;
    let tags = rewrite::tags(frame, packet.tags);
    let udp_offset = if udp { u32::from(settings.nat_count) } else { 0 };
    let port = (u32::from(settings.nat_low) + index.wrapping_sub(nat.first_slot).wrapping_sub(udp_offset)) as u16;
    let source = End { address: nat.address, port: port.to_be() };
    let destination = End { address: record.address, port: u16::from_ne_bytes(record.port) };
    let before = (
        End { address: packet.source, port: packet.source_port },
        End { address: packet.destination, port: packet.destination_port },
    );
    let deltas = Deltas::of(before, (source, destination));
    // SAFETY: the lookup gave a pointer into the map, valid for the whole run. The slot is free or has expired, and lies in this CPU's part of the
    // range, so no other CPU takes it; its word, which says that it is in use, is stored last.
    unsafe {
        (*slot).interface = frame.interface();
        (*slot).client = packet.source;
        (*slot).client_port = packet.source_port.to_ne_bytes();
        (*slot).backend = backend as u16;
        (*slot).service = number as u16;
        (*slot).nat = nat_number as u16;
        (*slot).node_mac.copy_from_slice(&macs[..6]);
        (*slot).client_mac.copy_from_slice(&macs[6..]);
        (*slot).tags = tags;
        (*slot).tag_count = packet.tags as u8;
        (*slot).network_delta = deltas.network.fold();
        (*slot).transport_delta = deltas.transport.fold();
        (*slot).home = place.0 * 8 + place.1 as u32;
        (*slot).word.store(SlotWord::new(udp, maps::now(settings)).0);
    }
    if let Some(bucket) = maps::nat_affinity(place.0)
        && let Some(cell) = bucket.words.get(place.1)
    {
        cell.store(Word::new(flow, index, State::Established, maps::now(settings)).0);
    }
    count::opened(settings, backend);
    let Some(slot) = maps::slot(index) else { return Err(Stop::Drop(Drop::FrameFixed)) };
    let connection = Connection { index, slot, service, backend: record, nat };
    toward_backend(frame, settings, packet, &connection, deltas, way_out, flow, trace::rule(rule))
}

/// A free port: its slot's number, and the NAT address's.
#[inline(never)]
fn take_slot_at(settings: &'static Settings, nat_number: u32, udp: u32) -> u32 {
    const NONE: u32 = u32::MAX;
    let (Some(nat), cpu) = (maps::nat(nat_number), maps::cpu()) else { return NONE };
    let share = u32::from(settings.nat_count) / settings.cpus.max(1);
    if cpu >= settings.cpus || share == 0 {
        return NONE;
    }
    let Some(cursor) = maps::cursor(settings, cpu, nat_number) else { return NONE };
    let first = nat.first_slot + if udp != 0 { u32::from(settings.nat_count) } else { 0 } + cpu * share;
    let mut offset = if udp != 0 { cursor.udp } else { cursor.tcp };
    let now = maps::now(settings);
    let (mut best, mut chosen) = (Yield::NO, NONE);
    let mut probe = 0;
    while probe < PROBES {
        if offset >= share {
            offset = 0;
        }
        let Some(slot) = maps::slot(first + offset) else { return NONE };
        let willing = connection::slot_yields(slot, now);
        if willing > best {
            (best, chosen) = (willing, first + offset);
        }
        offset += 1;
        if willing.is_free() {
            break;
        }
        probe += 1;
    }
    if udp != 0 {
        cursor.udp = offset;
    } else {
        cursor.tcp = offset;
    }
    if chosen != NONE
        && let Some(slot) = maps::slot(chosen)
    {
        connection::release(settings, slot, best.is_free());
    }
    chosen
}

#[inline(always)]
fn take_slot(settings: &'static Settings, backend: &Backend, flow: Hash, udp: bool) -> Option<(u32, u32)> {
    let count = u32::from(backend.nat_count);
    if count == 0 {
        return None;
    }
    let pick = ((u64::from(flow.0 as u32) * u64::from(count)) >> 32) as u32;
    let number = u32::from(backend.nat_first) + pick;
    match take_slot_at(settings, number, u32::from(udp)) {
        u32::MAX => None,
        index => Some((index, number)),
    }
}

/// Looks a client's connection up: the connection, and the place of its word.
#[inline(always)]
fn find(settings: &Settings, packet: &Packet, service: u32, flow: Hash) -> Option<(Connection, (u32, usize))> {
    let (first, second) = affinity::buckets(flow, settings.nat_mask);
    let (bucket, way, word) = match affinity::find(maps::nat_affinity(first)?, flow) {
        Some((way, word)) => (first, way, word),
        None => {
            let (way, word) = affinity::find(maps::nat_affinity(second)?, flow)?;
            (second, way, word)
        }
    };
    let slot = maps::slot(word.value())?;
    let same = slot.client == packet.source
        && u16::from_ne_bytes(slot.client_port) == packet.source_port
        && u32::from(slot.service) == service;
    if same { Connection::of(word.value(), slot).map(|connection| (connection, (bucket, way))) } else { None }
}

/// The connection between a client and a service, for those who quote it.
#[inline(always)]
pub fn connection_of(settings: &Settings, packet: &Packet, service: u32, flow: Hash) -> Option<Connection> {
    find(settings, packet, service, flow).map(|(connection, _)| connection)
}

#[inline(always)]
fn toward_backend<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: &Connection,
    deltas: Deltas,
    way_out: WayOut,
    flow: Hash,
    rule: u32,
) -> Result<Exit, Stop> {
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(settings, packet, fragment::TO_BACKEND, connection.index);
    }
    if connection.service.control().traces() {
        trace::decision(frame, packet, flow, u32::from(connection.slot.backend), rule);
    }
    count::sent(settings, u32::from(connection.slot.backend), packet.length);
    rewrite::ends(frame, packet, connection.nat_end(settings), connection.backend_end(), deltas)?;
    way_out.take(frame)
}

/// The connection that a packet to a NAT address answers.
#[inline(always)]
pub fn reply_of(settings: &Settings, packet: &Packet, nat: &'static Nat) -> Option<Connection> {
    let source = End { address: packet.source, port: packet.source_port };
    by_port(settings, nat, packet.destination_port, packet.protocol, source)
}

/// The connection that has this port of a NAT address, if its backend is this one.
#[inline(always)]
pub fn by_port(settings: &Settings, nat: &Nat, port: u16, protocol: u8, backend: End) -> Option<Connection> {
    let udp = if protocol == protocol::UDP { u32::from(settings.nat_count) } else { 0 };
    let index = nat.first_slot + udp + maps::nat_port(settings, port)?;
    let connection = Connection::of(index, maps::slot(index)?)?;
    if connection.backend_end() == backend { Some(connection) } else { None }
}

/// A reply.
#[inline(always)]
pub fn reply<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: Connection,
) -> Result<Exit, Stop> {
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    if connection.is_reset() {
        if packet.protocol == protocol::UDP {
            return Err(Stop::Drop(Drop::FlippedReply));
        }
        return refuse::refuse(frame, settings, packet, u32::from(connection.slot.service), Refuse::ResetByFlip);
    }
    if packet.tags != u32::from(connection.slot.tag_count) {
        return Err(Stop::Skip(Skip::VlanMismatch));
    }
    connection.advance(settings, Side::Backend, packet);
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(settings, packet, fragment::TO_CLIENT, connection.index);
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
    let there = connection.deltas();
    let back = Deltas { network: there.network.reversed(), transport: there.transport.reversed() };
    rewrite::ends(frame, packet, connection.service_end(), connection.client(), back)?;
    way_back(frame, connection)
}

/// Writes the link layer of the way back to a client.
#[inline(always)]
pub fn way_back<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, connection: &Connection) -> Result<Exit, Stop> {
    let slot = connection.slot;
    rewrite::macs(frame, slot.client_mac, slot.node_mac)?;
    if slot.tag_count > 0 {
        rewrite::vlan(frame, 0, u16::from_be_bytes(slot.tags[0]))?;
    }
    if slot.tag_count > 1 {
        rewrite::vlan(frame, 1, u16::from_be_bytes(slot.tags[1]))?;
    }
    Ok(exit(frame, slot.interface))
}

/// A later fragment of a datagram to the backend.
#[inline(always)]
pub fn follow_to_backend<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    connection: &Connection,
) -> Result<Exit, Stop> {
    let way_out = WayOut::to(frame, packet, connection.backend)?;
    count::sent(settings, u32::from(connection.slot.backend), packet.length);
    rewrite::ends(frame, packet, connection.nat_end(settings), connection.backend_end(), connection.deltas())?;
    way_out.take(frame)
}
