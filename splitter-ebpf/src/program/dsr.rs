//! `dsr`: the MAC address is rewritten, nothing else; only the client's packets are seen.

use splitter_ebpf::{
    abi::{Backend, Service, Settings, flags},
    affinity::{self, State, Word},
    hash::{self, Hash},
    header::{Fragment, Packet},
    reason::Refuse,
    tcp,
};

use super::{
    Exit, Stop, connection, count,
    forward::{self, WayOut},
    fragment,
    kernel::Kernel,
    maps, refuse, trace,
};

/// A known connection: where its word lies, the word, and its backend.
struct Known {
    bucket: u32,
    way: usize,
    word: Word,
    backend: &'static Backend,
}

/// A packet from a client to a `dsr` service.
#[inline(always)]
pub fn forward<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    number: u32,
    service: &'static Service,
) -> Result<Exit, Stop> {
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let udp = service.has(flags::UDP);
    let Some(known) = find(settings, number, flow) else {
        return open(frame, settings, packet, number, service, flow, None);
    };
    let now = maps::now(settings);
    let state = known.word.state().unwrap_or(State::Closing);
    let limits = connection::limits(service);
    let expired = affinity::yields(known.word, limits, now).is_free();
    let reopened = if udp { expired } else { tcp::opens(packet.flags) && (expired || matches!(state, State::Closing)) };
    let flipped = known.backend.cohort != 0 && service.control().resets_canary();
    if reopened || flipped && udp {
        return open(frame, settings, packet, number, service, flow, Some((known.bucket, known.way)));
    }
    if flipped {
        return refuse::refuse(frame, settings, packet, number, Refuse::ResetByFlip);
    }

    let way_out = WayOut::to(frame, packet, known.backend)?;
    let backend = known.word.value();
    let (next, event) = if udp { (State::Established, None) } else { tcp::one_way(state, packet.flags) };
    let word = known.word.touched(next, now);
    if word != known.word
        && let Some(bucket) = maps::affinity(known.bucket)
        && let Some(cell) = bucket.words.get(known.way)
    {
        cell.store(word.0);
    }
    if let Some(event) = event {
        count::event(settings, backend, event);
    }
    finish(frame, settings, packet, service, flow, backend, way_out, trace::KNOWN)
}

/// Looks a connection up.
#[inline(always)]
fn find(settings: &Settings, service: u32, flow: Hash) -> Option<Known> {
    let (first, second) = affinity::buckets(flow, settings.affinity_mask);
    let (bucket, way, word) = match affinity::find(maps::affinity(first)?, flow) {
        Some((way, word)) => (first, way, word),
        None => {
            let (way, word) = affinity::find(maps::affinity(second)?, flow)?;
            (second, way, word)
        }
    };
    let backend = maps::backend(word.value())?;
    if u32::from(backend.service) == service { Some(Known { bucket, way, word, backend }) } else { None }
}

/// The backend of a known connection.
#[inline(always)]
pub fn backend_of(settings: &Settings, service: u32, flow: Hash) -> Option<(u32, &'static Backend)> {
    find(settings, service, flow).map(|known| (known.word.value(), known.backend))
}

/// A connection that isn't known, or begins anew.
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
    let (backend, record, rule) = match forward::choose(settings, packet, number, service, flow) {
        Ok(chosen) => chosen,
        Err(reason) => return refuse::refuse(frame, settings, packet, number, reason),
    };
    let way_out = WayOut::to(frame, packet, record)?;
    let place = match place {
        Some(place) => Some(place),
        None => connection::place(settings, service, flow),
    };
    match place {
        Some((index, way)) => {
            if let Some(bucket) = maps::affinity(index)
                && let Some(cell) = bucket.words.get(way)
            {
                cell.store(Word::new(flow, backend, State::Embryonic, maps::now(settings)).0);
            }
        }
        None => count::untracked(settings, number),
    }
    if service.has(flags::UDP) || tcp::opens(packet.flags) {
        count::opened(settings, backend);
    }
    finish(frame, settings, packet, service, flow, backend, way_out, trace::rule(rule))
}

/// What every forwarded packet gets.
#[inline(always)]
fn finish<const FRAGS: bool>(
    frame: &mut Kernel<FRAGS>,
    settings: &'static Settings,
    packet: &Packet,
    service: &'static Service,
    flow: Hash,
    backend: u32,
    way_out: WayOut,
    rule: u32,
) -> Result<Exit, Stop> {
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(settings, packet, fragment::DSR, backend);
    }
    if service.control().traces() {
        trace::decision(frame, packet, flow, backend, rule);
    }
    count::sent(settings, backend, packet.length);
    way_out.take(frame)
}
