//! Later fragments follow the first.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    abi::{BUCKET, Settings},
    affinity::{self, State, Word},
    hash::{self, Hash},
    header::Packet,
    reason::Skip,
};

use super::{
    Exit, Stop, act, count,
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

/// Remembers where a first fragment went, before it's rewritten. Like [`call`], by a global function.
#[inline(always)]
pub fn remember<const FRAGS: bool>(frame: &Kernel<FRAGS>, direction: State, value: u32) {
    maps::leave(frame);
    splitter_remember(direction as u32, value);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_remember(direction: u32, value: u32) -> u32 {
    let (Some(settings), Some(packet)) = (maps::settings(), maps::packet()) else { return 0 };
    let direction = match direction {
        1 => DSR,
        2 => TO_BACKEND,
        _ => TO_CLIENT,
    };
    let hash = datagram(settings, packet);
    if let Some(bucket) = maps::fragments(hash.slot()) {
        // A queue: the newest in front, where the search begins, and the oldest of eight falls out.
        for way in (1..BUCKET).rev() {
            bucket.words[way].store(bucket.words[way - 1].load());
        }
        bucket.words[0].store(Word::new(hash, value, direction, maps::now(settings)).0);
    }
    0
}

/// Calls the subprogram for this kind of frames. It's a global function: the verifier looks at it once, and not with every path that leads here.
#[inline(always)]
pub fn call<const FRAGS: bool>(frame: &Kernel<FRAGS>) -> u32 {
    maps::leave(frame);
    if FRAGS { splitter_fragment_frags(frame.context()) } else { splitter_fragment(frame.context()) }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_fragment(context: *mut xdp_md) -> u32 {
    act(run(&mut Kernel::<false>::new(context)))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_fragment_frags(context: *mut xdp_md) -> u32 {
    act(run(&mut Kernel::<true>::new(context)))
}

#[inline(always)]
fn run<const FRAGS: bool>(frame: &mut Kernel<FRAGS>) -> Result<Exit, Stop> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
    follow(frame, settings, packet)
}

/// Sends a later fragment after its first.
#[inline(always)]
fn follow<const FRAGS: bool>(frame: &mut Kernel<FRAGS>, settings: &'static Settings, packet: &Packet) -> Result<Exit, Stop> {
    let unknown = Stop::Skip(Skip::FragmentUnknown);
    let hash = datagram(settings, packet);
    let Some((_, word)) = maps::fragments(hash.slot()).and_then(|bucket| affinity::find(bucket, hash)) else {
        return Err(unknown);
    };
    if word.stamp().age(maps::now(settings)) > REMEMBERED {
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
        let way_out = WayOut::to(frame, packet, connection.backend)?;
        return nat::toward_backend(frame, settings, packet, &connection, way_out);
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
