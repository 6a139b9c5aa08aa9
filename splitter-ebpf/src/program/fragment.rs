//! Later fragments follow the first.

use splitter_ebpf::{
    abi::Settings,
    affinity::{State, Word},
    hash::{self, Hash},
    header::Packet,
    reason::Skip,
};

use super::{
    Exit, Stop, count,
    forward::WayOut,
    kernel::Kernel,
    maps,
    nat::{self, Connection},
};

/// What a remembered word's value is: a backend.
pub const DSR: State = State::Embryonic;
/// A slot, on the way to its backend.
pub const TO_BACKEND: State = State::Established;
/// A slot, on the way to its client.
pub const TO_CLIENT: State = State::Closing;

/// Units of time for which a first fragment is remembered (RFC 791 lets a host reassemble for 15 seconds and more).
const REMEMBERED: u16 = 15;

/// Remembers where a first fragment went.
#[inline(never)]
pub fn remember(settings: &'static Settings, packet: &Packet, direction: State, value: u32) {
    let hash = datagram(settings, packet);
    if let Some(cell) = maps::fragment(hash.slot()) {
        // SAFETY: the lookup gave a pointer into the map; a word is written whole.
        unsafe { cell.write_volatile(Word::new(hash, value, direction, maps::now(settings)).0) };
    }
}

/// Sends a later fragment after its first.
#[inline(never)]
pub fn follow<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, settings: &'static Settings, packet: &Packet) -> Result<Exit, Stop> {
    let unknown = Stop::Skip(Skip::FragmentUnknown);
    let hash = datagram(settings, packet);
    let Some(cell) = maps::fragment(hash.slot()) else { return Err(unknown) };
    // SAFETY: the lookup gave a pointer into the map; a word is read whole.
    let word = Word(unsafe { cell.read_volatile() });
    if !word.is(hash) || word.stamp().age(maps::now(settings)) > REMEMBERED {
        return Err(unknown);
    }
    let direction = word.state();
    if let Some(DSR) = direction {
        let Some(backend) = maps::backend(word.value()) else { return Err(unknown) };
        let way_out = WayOut::to(frame, packet, backend)?;
        count::sent(settings, word.value(), packet.length);
        return way_out.take(frame);
    }
    let Some(connection) = maps::slot(word.value()).and_then(|slot| Connection::of(word.value(), slot)) else {
        return Err(unknown);
    };
    if packet.ttl <= 1 {
        return Err(Stop::Skip(Skip::TtlExpired));
    }
    if let Some(TO_BACKEND) = direction {
        return nat::follow_to_backend(frame, settings, packet, &connection);
    }
    if packet.tags != u32::from(connection.slot.tag_count) {
        return Err(Stop::Skip(Skip::VlanMismatch));
    }
    nat::toward_client(frame, settings, packet, &connection)
}

/// What the fragments of a datagram share (RFC 791, 3.2; RFC 8200, 4.5), hashed.
#[inline(always)]
fn datagram(settings: &Settings, packet: &Packet) -> Hash {
    let secret = settings.destinations_secret();
    let outer = hash::client(
        [secret, packet.destination.low ^ u64::from(packet.identification) << 16],
        packet.source,
        u16::from(packet.protocol),
    );
    hash::client([outer.0, secret], packet.destination, packet.identification as u16 ^ (packet.identification >> 16) as u16)
}
