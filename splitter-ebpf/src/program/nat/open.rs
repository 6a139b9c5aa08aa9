//! Opening a `nat` connection: a backend, a place for its word, a port, a slot.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    abi::{BUCKET, Backend, Macs, Nat, Settings, SharedWord, Slot, flags},
    affinity::{self, State, Word, Yield},
    bench::Step,
    hash::{self, Hash},
    header::{Packet, protocol},
    moment::Moment,
    reason::{Drop, Refuse, Skip},
    rewrite::{self, Deltas, End},
    tcp::{self, SlotWord},
    usual::Usual,
};

use super::{
    super::{
        Exit, Stop, connection, count,
        forward::{self, WayOut},
        kernel::{Arrival, Kernel, forget},
        maps::{self, Opening},
        opening::{self, Not},
        refuse, signal, steps,
        usual::{Asked, protocol_of},
    },
    Connection,
};

/// How many ports are looked at for a free one.
const PROBES: u64 = 64;
/// How many of them lie side by side, so that ports are used in turn and each rests for as long as it can. The others are spread over the range: connections that
/// were opened one after the other and live long have their ports side by side, too, and must not make all seem taken.
const NEAR: u64 = 8;

/// Opens a connection whose bucket has room and whose turn's port is free; returns its slot's number.
#[inline(always)]
pub fn open_usual<const EXACT: bool>(
    packet: &mut impl Usual,
    arrival: Arrival,
    settings: &'static Settings,
    asked: &Asked,
    flow: Hash,
) -> Option<u32> {
    let udp = protocol_of(packet) == protocol::UDP;
    if !udp && !tcp::opens(packet.flags()) {
        return None;
    }
    let now = maps::moment();
    let (backend, record) = forward::choose_usual(settings, packet, asked, flow, now)?;
    WayOut::untagged(record)?;
    let counted = signal::Place::usual(asked.number, asked.service, record.cohort, now)?;
    steps::end(Step::Chosen, || record.nat_count.into());
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
    steps::end(Step::Port, || index.into());
    let link = Link { interface: arrival.interface(), macs: rewrite::macs_of(&packet.head()).ok()?, tags: [[0; 2]; 2], count: 0 };
    let place = bucket * BUCKET as u32 + way;
    *turn = offset - cpu * settings.nat_share + 1;
    let new = New { service: asked.number, backend, nat, place, port: port as u16, index };
    let (slot, cell, word) = new.begin(settings, &packet.packet(), link, key, now)?;
    if !cell.exchange::<EXACT>(0, word.0) {
        slot.word.store(0);
        return None;
    }
    count::opened(settings, backend);
    counted.count();
    Some(index)
}

/// Opens a connection; `place` is that of its word, `NO_PLACE` where it has none, and `older` the slot of the one that its client had before. In three global functions, one after the other: the verifier looks at each
/// once, and no stack holds what two of them need.
#[inline(always)]
pub fn open<const FRAGS: bool>(
    frame: &Kernel<FRAGS>,
    number: u32,
    place: u32,
    older: u32,
    flow: Hash,
) -> Result<Connection, Result<Exit, Stop>> {
    maps::leave(frame);
    let context = frame.context();
    let said =
        if FRAGS { splitter_nat_choose_frags(context, number, place) } else { splitter_nat_choose(context, number, place) };
    let backend = opening::hear(frame, number, said)?;
    let pick = flow.slot();
    let again = if FRAGS { splitter_nat_again_exact(older, backend) } else { splitter_nat_again(older, backend) };
    let index = match again {
        NO_SLOT if FRAGS => splitter_nat_port_exact(backend, pick),
        NO_SLOT => splitter_nat_port(backend, pick),
        again => again,
    };
    if index == NO_SLOT {
        return Err(refuse::refuse(frame, number, Refuse::PortsExhausted));
    }
    if again == NO_SLOT {
        if FRAGS {
            splitter_nat_fill_frags(context, index);
        } else {
            splitter_nat_fill(context, index);
        }
    }
    let lost = Err(Stop::Drop(Drop::FrameFixed));
    let Some(slot) = maps::slot(index) else { return Err(lost) };
    // Not by the function that fills the slot in, whose stack would be below those of the functions that judge.
    signal::attempt::<FRAGS>(backend, SlotWord(slot.word.load()).time().fine());
    Connection::of(index, slot).ok_or(lost)
}

/// Begins an attempt in the slot of a connection that was ended by its client's RST, or by one forged in its name, if it goes to the same backend; [`NO_SLOT`]: it doesn't. Behind two
/// forged segments, a RST and a SYN, the connection that they are about so still has its backend, its port and its way back: the backend answers the SYN with a challenge,
/// by which the connection is recognized. To a backend that has taken the RST it's a SYN like any other.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_again(older: u32, backend: u32) -> u32 {
    if again::<false>(older, backend).unwrap_or(false) { older } else { NO_SLOT }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_again_exact(older: u32, backend: u32) -> u32 {
    if again::<true>(older, backend).unwrap_or(false) { older } else { NO_SLOT }
}

/// The word alone changes, in one step: the CPU whose part of the range it is may be taking the slot, and then has it.
#[inline(always)]
fn again<const EXACT: bool>(older: u32, backend: u32) -> Option<bool> {
    let (settings, slot) = (maps::settings()?, maps::slot(older)?);
    let word = SlotWord(slot.word.load());
    if !word.is_ended_by_client() || u32::from(slot.backend) != backend {
        return Some(false);
    }
    let attempt = SlotWord::new(false, maps::now(settings), maps::moment().ticks()).again(word);
    Some(slot.word.exchange::<EXACT>(word.0, attempt.0))
}

/// The connection has no word in the affinity table yet.
pub const NO_PLACE: u32 = u32::MAX;

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
    let (backend, record) = forward::choose(settings, packet, number, service, flow, maps::moment())?;
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
    let now = maps::moment();
    let new = New { service: number, backend, nat, place, port, index };
    let (_, cell, word) = new.begin(settings, packet, link, key, now)?;
    cell.store(word.0);
    Some(())
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
    /// Fills in the slot. Returns it, and the cell and the word by which it's found by `key`: the caller stores it, and counts.
    #[inline(always)]
    fn begin(
        self,
        settings: &'static Settings,
        packet: &Packet,
        link: Link,
        key: Hash,
        began: Moment,
    ) -> Option<(&'static Slot, &'static SharedWord, Word)> {
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
            (*slot).word.store(SlotWord::new(packet.protocol == protocol::UDP, now, began.ticks()).0);
        }
        Some((maps::slot(self.index)?, cell, Word::new(key, self.index, State::Established, now)))
    }
}

/// The number of the NAT address that a connection to a backend leaves from.
#[inline(always)]
fn nat_of(backend: &Backend, flow: Hash) -> u32 {
    u32::from(backend.nat_first) + ((u64::from(flow.slot()) * u64::from(backend.nat_count)) >> 32) as u32
}

/// No port is free.
pub const NO_SLOT: u32 = u32::MAX;

/// The slot of a free port of one of the NAT addresses toward a backend, of this CPU's part of the range; [`NO_SLOT`]: none. `pick` is the low half of the
/// connection's hash. A global function, so that the verifier looks at its loop once and not with every path that leads here.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_port(backend: u32, pick: u32) -> u32 {
    take_port::<false>(backend, pick)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_nat_port_exact(backend: u32, pick: u32) -> u32 {
    take_port::<true>(backend, pick)
}

#[inline(always)]
fn take_port<const EXACT: bool>(backend: u32, pick: u32) -> u32 {
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
    if let Some(slot) = maps::slot(index) {
        connection::release::<EXACT>(settings, slot);
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
