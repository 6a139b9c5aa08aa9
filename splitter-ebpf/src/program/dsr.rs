//! `dsr`: the MAC address is rewritten, nothing else; only the client's packets are seen.

use aya_ebpf::bindings::xdp_md;
use splitter_ebpf::{
    abi::{BUCKET, Backend, Bucket, Service, Settings, SharedWord, flags},
    affinity::{self, State, Word},
    bench::Step,
    frame::Frame,
    hash::{self, Hash},
    header::{Fragment, Packet, protocol},
    reason::{Drop, Refuse, Skip},
    stamp::Stamp,
    tcp::{self, Event},
    usual::Usual,
};

use super::{
    Exit, Stop, act, connection, count,
    forward::{self, WayOut, exit},
    fragment,
    kernel::{Arrival, Kernel},
    maps,
    opening::{self, Not},
    refuse, signal, steps, trace,
    usual::{Asked, protocol_of},
};

/// A known connection: the place of its word, the word, and its backend.
struct Known {
    place: u32,
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
    let (backend, record) = match find(frame, settings, number, flow) {
        Some(known) => match next(settings, packet, service, &known) {
            Next::Goes => {
                advance::<FRAGS>(settings, packet, service, flow.of_service(number), &known);
                (known.word.value(), known.backend)
            }
            Next::Reset => {
                // Lets it be forgotten soon: whoever sends on it until then is told again that it's over.
                let word = known.word.touched(State::Closing, maps::now(settings));
                if connection::cell(known.place).is_some_and(|cell| cell.exchange::<FRAGS>(known.word.0, word.0))
                    && matches!(known.word.state(), Some(State::Established))
                {
                    count::ended(settings, known.word.value());
                }
                return refuse::refuse(frame, number, Refuse::ResetByFlip);
            }
            Next::BeginsAnew => match open(frame, number, known.place) {
                Ok(opened) => opened,
                Err(instead) => return instead,
            },
        },
        None => match open(frame, number, NO_PLACE) {
            Ok(opened) => opened,
            Err(instead) => return instead,
        },
    };
    let way_out = WayOut::to(frame, packet, record)?;
    if matches!(packet.fragment, Fragment::First) {
        fragment::remember(frame, fragment::DSR, backend);
    }
    if service.control().traces() {
        trace::decision(packet, flow, backend);
    }
    count::sent(settings, backend, packet.length);
    way_out.take(frame)
}

/// A usual packet from a client to a `dsr` service that does nothing special: what it's made of, and what is known of its connection.
struct Usually<'a, U> {
    packet: U,
    arrival: Arrival,
    settings: &'static Settings,
    asked: &'a Asked,
    flow: Hash,
}

/// What becomes of it.
#[inline(always)]
pub fn usual<const EXACT: bool>(packet: impl Usual, arrival: Arrival, settings: &'static Settings, asked: &Asked) -> Option<u32> {
    let udp = protocol_of(&packet) == protocol::UDP;
    let flow = hash::client(asked.service.seed, packet.source(), packet.source_port());
    let usually = Usually { packet, arrival, settings, asked, flow };
    let key = flow.of_service(asked.number);
    steps::end(Step::Hashed, || key.0);
    let first = maps::affinity(affinity::buckets(key, settings.affinity_mask).0)?;
    // Asked for where it's needed: computed beforehand, it'd be computed for most packets in vain.
    let second = || maps::affinity(affinity::buckets(key, settings.affinity_mask).1);
    let flags = usually.packet.flags();
    if udp || tcp::goes_on(flags) {
        // The place is looked for apart from the word, which is all that most packets need.
        let known = match affinity::find_established(first, key) {
            Some((way, word)) => Some((&first.words[way], word)),
            None => {
                let second = second()?;
                affinity::find_established(second, key).map(|(way, word)| (&second.words[way], word))
            }
        };
        match known {
            Some((cell, word)) => return usually.goes_on::<EXACT>(cell, word),
            None if !udp => return None,
            None => {}
        }
    } else if !tcp::opens(flags) {
        return None;
    }
    let is_known = affinity::find(first, key).is_some() || affinity::find(second()?, key).is_some();
    if is_known { None } else { usually.opens::<EXACT>(first, key) }
}

impl<U: Usual> Usually<'_, U> {
    /// Of an established connection.
    #[inline(always)]
    fn goes_on<const EXACT: bool>(self, cell: &SharedWord, word: Word) -> Option<u32> {
        steps::end(Step::Known, || word.0);
        let record = maps::backend(word.value())?;
        if u32::from(record.service) != self.asked.number {
            return None;
        }
        let way_out = WayOut::untagged(record)?;
        steps::end(Step::Backend, || 0);
        let now = maps::now(self.settings);
        if word.stamp() != now {
            // UDP: its next datagram may be another exchange.
            if U::PROTOCOL == protocol::UDP && word.stamp().age(now) > self.asked.service.udp {
                return None;
            }
            // Whoever has written meanwhile has the newer word.
            let _written = cell.exchange::<EXACT>(word.0, word.touched(State::Established, now).0);
        }
        steps::end(Step::Kept, || 0);
        Some(self.leaves(word.value(), way_out))
    }

    /// The first of its connection, to which a place in its first bucket is given, if there is one.
    #[inline(always)]
    fn opens<const EXACT: bool>(self, bucket: &Bucket, key: Hash) -> Option<u32> {
        steps::end(Step::Known, || 0);
        let Self { settings, asked, .. } = self;
        let cell = affinity::free(bucket, key).map(|way| &bucket.words[way])?;
        let now = maps::moment();
        let (backend, record) = forward::choose_usual(settings, &self.packet, asked, self.flow, now)?;
        let way_out = WayOut::untagged(record)?;
        steps::end(Step::Chosen, || 0);
        let counted = signal::Place::usual(asked.number, asked.service, record.cohort, now)?;
        if !cell.exchange::<EXACT>(0, Word::attempt(key, backend, now.fine()).0) {
            return None;
        }
        count::opened(settings, backend);
        counted.count();
        if U::PROTOCOL == protocol::TCP {
            signal::begins(key, now);
        }
        steps::end(Step::Kept, || 0);
        Some(self.leaves(backend, way_out))
    }

    #[inline(always)]
    fn leaves(mut self, backend: u32, way_out: WayOut) -> u32 {
        count::sent(self.settings, backend, self.packet.length());
        steps::end(Step::Counted, || 0);
        act(way_out.write(&mut self.packet.head()).map(|interface| exit(self.arrival, interface)))
    }
}

/// What becomes of a known connection with a packet of its client.
enum Next {
    Goes,
    Reset,
    BeginsAnew,
}

#[inline(always)]
fn next(settings: &Settings, packet: &Packet, service: &Service, known: &Known) -> Next {
    let udp = service.has(flags::UDP);
    let state = known.word.state();
    let reset = known.backend.cohort != 0 && service.control().resets_canary();
    // Only what may open a connection asks whether the old one is over.
    if udp || tcp::opens(packet.flags) {
        let expired = affinity::yields(known.word, connection::limits(service), connection::now(settings, state)).is_free();
        let over = matches!(state, Some(State::Closing) | None) && !udp;
        let spared = !udp && matches!(state, Some(State::Embryonic)) && opening::spares(settings, service, known.backend);
        if expired || over || spared || reset && udp {
            return Next::BeginsAnew;
        }
    }
    if reset { Next::Reset } else { Next::Goes }
}

/// Stores state and stamp, where they have changed, and counts what that means.
#[inline(always)]
fn advance<const EXACT: bool>(settings: &Settings, packet: &Packet, service: &Service, key: Hash, known: &Known) {
    let Some(cell) = connection::cell(known.place) else { return };
    let stamp = maps::now(settings);
    let mut word = known.word;
    let mut step = Change::of(word, packet, service, stamp);
    if step.word != word && !cell.exchange::<EXACT>(word.0, step.word.0) {
        // Another CPU has a packet of the same connection. What it has made of the word is where this one goes on.
        word = Word(cell.load());
        if !word.is(key) {
            return;
        }
        step = Change::of(word, packet, service, stamp);
        if step.word != word && !cell.exchange::<EXACT>(word.0, step.word.0) {
            return;
        }
    }
    if let Some(event) = step.event {
        let now = maps::moment();
        let begun = if matches!(word.state(), Some(State::Embryonic)) { word.begun() } else { now.fine() };
        if matches!(event, Event::Completed | Event::CompletedAndClosed) {
            signal::completes(word.value(), key, now);
        }
        signal::event::<EXACT>(word.value(), event, begun, now);
    } else if step.begins_to_live {
        count::established(settings, word.value());
    }
}

/// What a packet makes of a connection's word.
struct Change {
    word: Word,
    event: Option<Event>,
    /// UDP: the exchange goes on.
    begins_to_live: bool,
}

impl Change {
    #[inline(always)]
    fn of(word: Word, packet: &Packet, service: &Service, stamp: Stamp) -> Self {
        let state = match word.state() {
            Some(state) => state,
            None => return Self { word, event: None, begins_to_live: false },
        };
        let (next, event) = if service.has(flags::UDP) { (State::Established, None) } else { tcp::one_way(state, packet.flags) };
        let begins_to_live = matches!((state, next), (State::Embryonic, State::Established));
        // The word of an attempt says when it began, whatever comes.
        let word = if matches!(next, State::Embryonic) { word } else { word.touched(next, stamp) };
        Self { word, event, begins_to_live }
    }
}

/// Looks a connection up.
#[inline(always)]
fn find<const FRAGS: bool>(frame: &Kernel<FRAGS>, settings: &Settings, service: u32, flow: Hash) -> Option<Known> {
    let flow = flow.of_service(service);
    let (first, second) = affinity::buckets(flow, settings.affinity_mask);
    let (bucket, way, word) = match affinity::find(maps::affinity(first)?, flow) {
        Some((way, word)) => (first, way, word),
        None => {
            let (way, word) = affinity::find(maps::affinity(second)?, flow)?;
            (second, way, word)
        }
    };
    let place = bucket * BUCKET as u32 + frame.forget(way as u32, BUCKET as u32 - 1);
    let backend = maps::backend(word.value())?;
    if u32::from(backend.service) == service { Some(Known { place, word, backend }) } else { None }
}

/// The backend of a known connection.
#[inline(always)]
pub fn backend_of<const FRAGS: bool>(
    frame: &Kernel<FRAGS>,
    settings: &Settings,
    service: u32,
    flow: Hash,
) -> Option<(u32, &'static Backend)> {
    find(frame, settings, service, flow).map(|known| (known.word.value(), known.backend))
}

/// The connection has no word in the affinity table yet.
const NO_PLACE: u32 = u32::MAX;

/// Gives a connection a backend; `place` is that of its word, `NO_PLACE` where it has none. Calls a global function: the verifier looks at it once, and
/// the stack of the established path stays small.
#[inline(always)]
fn open<const FRAGS: bool>(
    frame: &Kernel<FRAGS>,
    number: u32,
    place: u32,
) -> Result<(u32, &'static Backend), Result<Exit, Stop>> {
    maps::leave(frame);
    let said = if FRAGS {
        splitter_dsr_open_frags(frame.context(), number, place)
    } else {
        splitter_dsr_open(frame.context(), number, place)
    };
    let backend = opening::hear(frame, number, said)?;
    match maps::backend(backend) {
        Some(record) => Ok((backend, record)),
        None => Err(Err(Stop::Drop(Drop::FrameFixed))),
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_dsr_open(context: *mut xdp_md, number: u32, place: u32) -> u32 {
    opening::say(begin(&Kernel::<false>::new(context), number, place))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn splitter_dsr_open_frags(context: *mut xdp_md, number: u32, place: u32) -> u32 {
    opening::say(begin(&Kernel::<true>::new(context), number, place))
}

/// Chooses a backend for the packet's connection and remembers it; returns its number.
#[inline(always)]
fn begin<const FRAGS: bool>(frame: &Kernel<FRAGS>, number: u32, place: u32) -> Result<u32, Not> {
    let settings = maps::settings().ok_or(Skip::NotReady)?;
    let packet = maps::packet().ok_or(Skip::NotReady)?;
    let service = maps::service(number).ok_or(Skip::NotReady)?;
    let flow = hash::client(service.seed, packet.source, packet.source_port);
    let now = maps::moment();
    let (backend, record) = forward::choose(settings, packet, number, service, flow, now)?;
    WayOut::to(frame, packet, record)?;
    let opens = service.has(flags::UDP) || tcp::opens(packet.flags);
    // What ends a connection that nobody knows is no attempt at one, and must not come to count as one that failed.
    if !opens && packet.flags & (tcp::flag::FIN | tcp::flag::RST) != 0 {
        return Ok(backend);
    }
    let key = flow.of_service(number);
    let place = if place == NO_PLACE { connection::place(frame, settings, key) } else { Some(place) };
    match place.and_then(connection::cell) {
        Some(cell) => {
            // What gave way, if it did not before.
            let before = cell.load();
            if before != 0 && cell.exchange::<FRAGS>(before, 0) {
                connection::forget_word(settings, Word(before));
            }
            // The middle of a connection as well: it may yet complete or time out, and neither without having been opened.
            cell.store(Word::attempt(key, backend, now.fine()).0);
            signal::attempt::<FRAGS>(backend, now.fine());
            if opens && !service.has(flags::UDP) {
                signal::begins(key, now);
            }
        }
        None => {
            count::untracked(settings, number);
            if opens {
                count::opened(settings, backend);
            }
        }
    }
    Ok(backend)
}
