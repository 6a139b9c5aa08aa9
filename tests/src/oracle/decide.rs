//! Sections 2 to 8 of the page: what may happen to a frame, given what is known.

use std::net::SocketAddr;

use super::Oracle;
use super::connections::{Connection, FollowedRoute, FragmentKey, Id, WayBack};
use super::expectation::{Alternative, Effect, Expectation, Fallback, Outcome};
use super::reason::Reason;
use super::refuse::refusal;
use super::rewrite::{Path, Translation};
use super::world::{Cohort, Mode, Protocol, Rule, Service, Way, World};
use crate::packet::parse::{Fragment, QuoteFlaw, Transport, View, parse, parse_quote};
use crate::packet::{ACK, FIN, RST, SYN};

/// What may happen to this frame.
pub(super) fn decide<'f>(oracle: &Oracle, frame: &'f [u8], ingress: u32) -> Expectation<'f> {
    let view = match parse(frame) {
        Ok(view) => view,
        Err(flaw) => {
            let alternatives = vec![alternative(Outcome::ToKernel { reason: flaw.into() }, Effect::Nothing)];
            return Expectation { frame, ingress, view: None, alternatives };
        }
    };
    let mut decision = Decision { oracle, world: &oracle.world, frame, ingress, view: &view, alternatives: Vec::new() };
    match view.transport {
        Transport::Icmp { kind } => decision.icmp(kind),
        Transport::None => decision.later_fragment(),
        Transport::Tcp(tcp) => decision.addressed(Protocol::Tcp, Some(tcp.flags)),
        Transport::Udp(_) => decision.addressed(Protocol::Udp, None),
    }
    let alternatives = decision.alternatives;
    Expectation { frame, ingress, view: Some(view), alternatives }
}

/// A decision in the making.
struct Decision<'a> {
    oracle: &'a Oracle,
    world: &'a World,
    frame: &'a [u8],
    ingress: u32,
    view: &'a View,
    alternatives: Vec<Alternative>,
}

/// A packet that clients send to a service.
#[derive(Clone, Copy)]
struct Toward<'a> {
    index: usize,
    service: &'a Service,
    client: SocketAddr,
    protocol: Protocol,
    /// TCP flags.
    flags: Option<u8>,
}

impl Toward<'_> {
    fn has(&self, flag: u8) -> bool {
        self.flags.is_some_and(|flags| flags & flag != 0)
    }

    /// "In TCP a packet with SYN and without ACK, RST and FIN. Every UDP datagram."
    fn opens(&self) -> bool {
        self.flags.is_none_or(|flags| flags & (SYN | ACK | RST | FIN) == SYN)
    }
}

/// A way out, before it is known whether the frame's tags fit.
#[derive(Clone, Copy)]
enum Route<'a> {
    Backend { service: usize, backend: usize, way: Option<Way> },
    Client(&'a WayBack),
}

/// Section 2.
impl Decision<'_> {
    fn addressed(&mut self, protocol: Protocol, flags: Option<u8>) {
        let (source, destination) = self.view.endpoints().expect("TCP and UDP have ports");
        if self.world.is_nat(destination) && self.reply(protocol, flags, source, destination) {
            return;
        }
        let Some(index) = self.world.service_at(destination, protocol) else {
            return self.give_to_kernel(Reason::NotOurs);
        };
        self.toward(Toward { index, service: &self.world.services[index], client: source, protocol, flags });
    }
}

/// Section 3.
impl Decision<'_> {
    fn toward(&mut self, packet: Toward<'_>) {
        let Some((id, connection)) = self.oracle.connections.of_client(packet.index, packet.client) else {
            return self.unknown(packet, None);
        };
        // On a flip, an attempt that a canary backend hasn't answered begins anew with its client's next SYN.
        let spared = packet.protocol == Protocol::Tcp
            && packet.opens()
            && !connection.answered
            && packet.service.spares(connection.backend);
        if !spared {
            self.known(packet, id, connection);
        }
        // A SYN on a closing connection opens a new one; what else "closing" means is a matter of time.
        let reused = connection.closing && packet.opens();
        if spared || reused || connection.may_be_gone(self.world.leeway) {
            self.unknown(packet, Some(id));
        }
    }

    fn known(&mut self, packet: Toward<'_>, id: Id, connection: &Connection) {
        if packet.service.resets(connection.backend) {
            return match packet.protocol {
                Protocol::Tcp => self.refuse(Reason::ResetByFlip, Effect::Doubted(id), Fallback::No),
                Protocol::Udp => self.new_connection(packet),
            };
        }
        let answered = packet.service.mode == Mode::Dsr && packet.has(ACK) && !packet.has(SYN | RST);
        let effect = Effect::Passed { id, closing: packet.has(FIN | RST), answered };
        self.leave_for_backend(packet.index, connection.backend, connection.nat, effect, Fallback::No);
    }

    /// `older`: a connection of this client that may still be known, but not if this happens.
    fn unknown(&mut self, packet: Toward<'_>, older: Option<Id>) {
        if packet.service.mode == Mode::Nat && !packet.opens() {
            let effect = older.map_or(Effect::Nothing, Effect::Forgotten);
            return self.refuse(Reason::UnknownConnection, effect, Fallback::No);
        }
        self.new_connection(packet);
    }

    fn new_connection(&mut self, packet: Toward<'_>) {
        let Toward { index, service, client, .. } = packet;
        let ruled = match (service.flipped, service.rule(client.ip())) {
            (Some(_), _) | (None, Some(Rule::NeverCanary)) => Some(Cohort::Stable),
            (None, Some(Rule::AlwaysCanary)) => Some(Cohort::Canary),
            (None, None) => None,
        };
        if let Some(cohort) = ruled {
            return self.in_cohort(packet, cohort, false, Fallback::Yes);
        }
        let cohorts = self.oracle.places.cohorts(index, service, client);
        if let [Cohort::Stable, Cohort::Canary] = cohorts
            && service.usable(Cohort::Canary).next().is_none()
        {
            // Stable either way, so the place remains unknown and the fallback can't be told.
            return self.in_cohort(packet, Cohort::Canary, false, Fallback::Maybe);
        }
        for cohort in cohorts {
            self.in_cohort(packet, *cohort, true, Fallback::Yes);
        }
    }

    /// A new connection in a cohort, `placed` there by its hash alone. An empty canary cohort means stable, counted.
    fn in_cohort(&mut self, packet: Toward<'_>, cohort: Cohort, placed: bool, if_empty: Fallback) {
        let Toward { index, service, client, .. } = packet;
        let empty = service.usable(cohort).next().is_none();
        let (used, fallback) = match (cohort, empty) {
            (Cohort::Canary, true) => (Cohort::Stable, if_empty),
            (Cohort::Canary | Cohort::Stable, _) => (cohort, Fallback::No),
        };
        if service.usable(used).next().is_none() {
            return self.refuse(Reason::NoBackend, Effect::Nothing, fallback);
        }
        let placed = placed.then_some(cohort);
        let pick = self.oracle.places.pick(index, service, client, used);
        for backend in service.usable(used).filter(|backend| pick.is_none_or(|pick| pick == *backend)) {
            let way_back = WayBack::of(self.view, self.ingress);
            // In `dsr`, what ends an unknown connection goes where the hash says, and nobody remembers.
            let effect = if packet.opens() || !packet.has(FIN | RST) {
                Effect::Opened { service: index, client, backend, placed, way_back }
            } else {
                Effect::Nothing
            };
            self.leave_for_backend(index, backend, None, effect, fallback);
        }
        if service.mode == Mode::Nat && self.view.ip.ttl > 1 {
            for (allowed, reason) in [
                (self.world.leeway.ports_exhausted, Reason::PortsExhausted),
                (self.world.leeway.affinity_full, Reason::AffinityFull),
            ] {
                if allowed {
                    self.refuse(reason, Effect::Nothing, fallback);
                }
            }
        }
    }
}

/// Section 4.
impl Decision<'_> {
    fn leave_for_backend(&mut self, index: usize, backend: usize, nat: Option<SocketAddr>, effect: Effect, fallback: Fallback) {
        let service = &self.world.services[index];
        let (address, way) = (service.backends[backend].address, service.backends[backend].way);
        let translation = match service.mode {
            Mode::Dsr => Translation::Nothing,
            Mode::Nat => Translation::Flow { source: nat, destination: address },
        };
        self.leave(Route::Backend { service: index, backend, way }, translation, effect, fallback);
    }

    /// Sends the frame on its way, if its TTL and tags allow; else nothing is remembered.
    fn leave(&mut self, route: Route<'_>, translation: Translation, effect: Effect, fallback: Fallback) {
        // A fallback that led nowhere may or may not be counted.
        let perhaps = if fallback == Fallback::No { Fallback::No } else { Fallback::Maybe };
        if translation != Translation::Nothing && self.view.ip.ttl <= 1 {
            return self.push(Outcome::ToKernel { reason: Reason::TtlExpired }, not_opened(effect), perhaps);
        }
        let tagged = !self.view.tags.is_empty();
        let path = match route {
            Route::Backend { way: None, .. } => {
                return self.push(Outcome::Drop { reason: Reason::NoWay }, not_opened(effect), perhaps);
            }
            Route::Backend { way: Some(way), .. } => {
                let fits = match way.vlan {
                    Some(_) => tagged,
                    None => !tagged || way.interface == self.ingress,
                };
                let Way { interface, source, destination, vlan } = way;
                fits.then_some(Path { interface, source, destination, vlans: vlan.into_iter().collect() })
            }
            Route::Client(back) => (back.vlans.len() == self.view.tags.len()).then(|| Path {
                interface: back.interface,
                source: back.node,
                destination: back.client,
                vlans: back.vlans.clone(),
            }),
        };
        let Some(path) = path else {
            return self.push(Outcome::ToKernel { reason: Reason::VlanMismatch }, not_opened(effect), perhaps);
        };
        let fragment = self.first_fragment().map(|key| {
            let route = match route {
                Route::Backend { service, backend, way } => {
                    FollowedRoute::Backend { service, backend, way: way.expect("a path was made of it") }
                }
                Route::Client(back) => {
                    let (_, slot) = self.view.endpoints().expect("a first fragment has ports");
                    let protocol = if matches!(self.view.transport, Transport::Udp(_)) { Protocol::Udp } else { Protocol::Tcp };
                    FollowedRoute::Client { back: back.clone(), protocol, slot }
                }
            };
            (key, route)
        });
        let outcome = Outcome::Forward { path, translation };
        self.alternatives.push(Alternative { outcome, fallback, effect, fragment });
    }

    fn first_fragment(&self) -> Option<FragmentKey> {
        match self.view.ip.fragment {
            Fragment::First { identification } => Some(self.fragment_key(identification)),
            Fragment::Whole | Fragment::Later { .. } => None,
        }
    }
}

/// Section 5.
impl Decision<'_> {
    fn refuse(&mut self, reason: Reason, effect: Effect, fallback: Fallback) {
        let Some(frame) = refusal(self.frame, self.view) else {
            // An RST is never answered; that it would have been refused isn't counted.
            return self.push(Outcome::ToKernel { reason: Reason::UnknownReset }, effect, fallback);
        };
        self.push(Outcome::Refuse { reason, frame }, effect.clone(), fallback);
        if matches!(self.view.transport, Transport::Udp(_)) {
            // Above a thousand a second; the oracle has no clock.
            self.push(Outcome::Drop { reason: Reason::RefusalSuppressed }, effect, fallback);
        }
    }

    fn give_to_kernel(&mut self, reason: Reason) {
        self.push(Outcome::ToKernel { reason }, Effect::Nothing, Fallback::No);
    }

    fn push(&mut self, outcome: Outcome, effect: Effect, fallback: Fallback) {
        self.alternatives.push(Alternative { outcome, fallback, effect, fragment: None });
    }
}

/// Section 6.
impl Decision<'_> {
    /// Whether it certainly is a reply; if not, the lookup goes on.
    fn reply(&mut self, protocol: Protocol, flags: Option<u8>, source: SocketAddr, destination: SocketAddr) -> bool {
        let Some((id, connection)) = self.oracle.connections.of_slot(protocol, destination) else {
            return false;
        };
        let service = &self.world.services[connection.service];
        if service.backends[connection.backend].address != source {
            return false;
        }
        if service.resets(connection.backend) {
            match protocol {
                Protocol::Tcp => self.refuse(Reason::ResetByFlip, Effect::Doubted(id), Fallback::No),
                Protocol::Udp => self.push(Outcome::Drop { reason: Reason::FlippedReply }, Effect::Nothing, Fallback::No),
            }
        } else {
            let closing = flags.is_some_and(|flags| flags & (FIN | RST) != 0);
            let translation = Translation::Flow { source: Some(service.address), destination: connection.client };
            // A reply that goes nowhere isn't looked at.
            let goes = self.view.ip.ttl > 1 && self.view.tags.len() == connection.way_back.vlans.len();
            // Section 9: a challenge says that the backend has the connection already.
            let challenge = |flags: u8| connection.keeps_slot && flags & (SYN | ACK | RST | FIN) == ACK;
            let answered = goes && flags.is_some_and(|flags| flags & (SYN | ACK | RST) == SYN | ACK || challenge(flags));
            self.leave_for_client(id, connection, translation, closing, answered);
        }
        !connection.may_be_gone(self.world.leeway)
    }

    fn leave_for_client(&mut self, id: Id, connection: &Connection, translation: Translation, closing: bool, answered: bool) {
        let effect = Effect::Passed { id, closing, answered };
        self.leave(Route::Client(&connection.way_back), translation, effect, Fallback::No);
    }
}

/// Section 7.
impl Decision<'_> {
    fn later_fragment(&mut self) {
        let Fragment::Later { identification } = self.view.ip.fragment else {
            unreachable!("the parser leaves the transport out of later fragments alone");
        };
        let Some(followed) = self.oracle.fragments.get(&self.fragment_key(identification)) else {
            return self.give_to_kernel(Reason::FragmentUnknown);
        };
        let translation = match followed.addresses {
            Some((source, destination)) => Translation::Addresses { source, destination },
            None => Translation::Nothing,
        };
        match &followed.route {
            FollowedRoute::Client { back, protocol, slot } => {
                self.leave(Route::Client(back), translation, Effect::Nothing, Fallback::No);
                // The slot is what is followed: whoever has it by now gets the rest of the datagram.
                if let Some((_, owner)) = self.oracle.connections.of_slot(*protocol, *slot) {
                    let (source, destination) = (self.world.services[owner.service].address.ip(), owner.client.ip());
                    let translation = Translation::Addresses { source, destination };
                    self.leave(Route::Client(&owner.way_back), translation, Effect::Nothing, Fallback::No);
                }
            }
            FollowedRoute::Backend { service, backend, way } => {
                let (service, backend, then) = (*service, *backend, Some(*way));
                let now = self.world.services[service].backends[backend].way;
                self.leave(Route::Backend { service, backend, way: then }, translation, Effect::Nothing, Fallback::No);
                // The way may have changed meanwhile; the page doesn't say which one is followed.
                if now != then {
                    self.leave(Route::Backend { service, backend, way: now }, translation, Effect::Nothing, Fallback::No);
                }
            }
        }
        if self.world.leeway.fragments_expire {
            self.give_to_kernel(Reason::FragmentUnknown);
        }
    }

    const fn fragment_key(&self, identification: u32) -> FragmentKey {
        let ip = &self.view.ip;
        FragmentKey { source: ip.source, destination: ip.destination, protocol: ip.protocol, identification }
    }
}

/// Section 8.
impl Decision<'_> {
    fn icmp(&mut self, kind: u8) {
        let ip = &self.view.ip;
        let quotes = if ip.is_ipv4() { matches!(kind, 3 | 4 | 11 | 12) } else { matches!(kind, 1..=4) };
        if !quotes {
            return self.give_to_kernel(Reason::IcmpNotError);
        }
        let quote = match parse_quote(&self.frame[ip.payload + 8..ip.end], ip.is_ipv4()) {
            Ok(quote) => quote,
            Err(QuoteFlaw::Truncated) => return self.give_to_kernel(Reason::IcmpTruncatedQuote),
            Err(QuoteFlaw::Unrelated) => return self.give_to_kernel(Reason::IcmpUnrelated),
        };
        if quote.source.ip() != ip.destination {
            return self.give_to_kernel(Reason::IcmpUnrelated);
        }
        let protocol = Protocol::of(quote.protocol).expect("the parser lets TCP and UDP alone through");
        let leeway = self.world.leeway;
        let connections = &self.oracle.connections;
        if let Some(index) = self.world.service_at(quote.source, protocol)
            && let Some((id, connection)) = connections.of_client(index, quote.destination)
        {
            self.error_to_backend(id, connection);
            if !connection.may_be_gone(leeway) {
                return;
            }
        }
        if let Some((id, connection)) = connections.of_slot(protocol, quote.source) {
            let service = &self.world.services[connection.service];
            if service.backends[connection.backend].address == quote.destination {
                let translation = Translation::Error {
                    source: service.address.ip(),
                    destination: connection.client.ip(),
                    quoted_source: connection.client,
                    quoted_destination: service.address,
                };
                // One that says "unreachable" ends an attempt.
                self.leave_for_client(id, connection, translation, true, false);
                if !connection.may_be_gone(leeway) {
                    return;
                }
            }
        }
        self.give_to_kernel(Reason::IcmpUnrelated);
    }

    fn error_to_backend(&mut self, id: Id, connection: &Connection) {
        let backend = &self.world.services[connection.service].backends[connection.backend];
        let translation = match connection.nat {
            None => Translation::Nothing,
            Some(nat) => Translation::Error {
                source: nat.ip(),
                destination: backend.address.ip(),
                quoted_source: backend.address,
                quoted_destination: nat,
            },
        };
        let route = Route::Backend { service: connection.service, backend: connection.backend, way: backend.way };
        let effect = Effect::Passed { id, closing: false, answered: false };
        self.leave(route, translation, effect, Fallback::No);
    }
}

const fn alternative(outcome: Outcome, effect: Effect) -> Alternative {
    Alternative { outcome, fallback: Fallback::No, effect, fragment: None }
}

/// What remains of an effect when the packet didn't leave: nothing is opened, no way back is learned; a FIN or RST that was
/// seen may still have been noted.
fn not_opened(effect: Effect) -> Effect {
    match effect {
        // A `dsr` connection is looked at before its way out.
        Effect::Passed { closing: true, .. } | Effect::Passed { answered: true, .. } => effect,
        Effect::Nothing | Effect::Opened { .. } | Effect::Passed { .. } | Effect::Doubted(_) | Effect::Forgotten(_) => {
            Effect::Nothing
        }
    }
}
