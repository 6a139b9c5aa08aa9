//! What the oracle knows of connections: each test plays a program that breaks one rule.

use super::*;

/// A client's TCP service in `nat` mode: the sample's first of IPv4.
const NAT: usize = 0;
/// A client's TCP service in `dsr` mode.
const DSR: usize = 2;
/// A UDP service in `nat` mode.
const NAT_UDP: usize = 4;

#[test]
fn a_connection_keeps_its_backend_and_its_port() {
    let mut game = Game::new();
    let opened = game.forward(NAT, 4000, SYN);
    let again = game.forward(NAT, 4000, ACK);
    assert_eq!(opened.frame[0..6], again.frame[0..6], "the backend's MAC");
    assert_eq!(opened.frame[26..36], again.frame[26..36], "addresses and source port");
    let mut elsewhere = again.clone();
    elsewhere.frame[0] ^= 4;
    let frame = game.packet(NAT, 4000, ACK).build();
    game.oracle.judge(&frame, FRONT, &elsewhere.observed()).expect_err("another MAC");
    assert_eq!(game.oracle.connections(), 1);
}

#[test]
fn two_connections_never_share_a_port() {
    let mut game = Game::new();
    let first = game.forward(NAT, 4000, SYN);
    let frame = game.packet(NAT, 4001, SYN).build();
    // The same answer to another client: right in all but the port, whose owner lives.
    let expectation = game.oracle.expect(&frame, FRONT);
    let backend = expectation.outcomes().position(|outcome| forwards_to(outcome, &first.frame[0..6]));
    let picked = Game::taken(&game.oracle, &expectation, backend.expect("the same backend is among them"), &first);
    let difference = game.oracle.check(&expectation, &picked.observed()).map(drop).expect_err("the port is in use");
    assert!(matches!(difference.kind, DifferenceKind::InUse(_)), "{difference}");
}

#[test]
fn a_port_outside_the_range_or_of_another_address_is_a_difference() {
    let mut game = Game::new();
    let frame = game.packet(NAT, 4000, SYN).build();
    let expectation = game.oracle.expect(&frame, FRONT);
    let right = game.oracle.perform(&expectation, 0);
    game.oracle.world_mut().nat_ports = Some(20_001..=59_999);
    let difference = game.oracle.check(&expectation, &right.observed()).map(drop).expect_err("20,000 is outside");
    assert!(matches!(difference.kind, DifferenceKind::NotNat(_)), "{difference}");
    game.oracle.world_mut().nat_ports = Some(20_000..=59_999);
    game.oracle.world_mut().nat_addresses.clear();
    game.oracle.check(&expectation, &right.observed()).map(drop).expect_err("no NAT address");
}

#[test]
fn a_weight_of_nothing_is_stable_and_of_everything_canary() {
    let mut game = Game::new();
    // The third stable backend is in a VLAN, so an untagged frame cannot reach it.
    for (weight, backends) in [(0, [0, 1]), (10_000, [3, 4])] {
        game.oracle.world_mut().services[NAT].weight = weight;
        for port in 4000..4010 {
            let frame = game.packet(NAT, port, SYN).build();
            assert_eq!(game.backends(&frame, FRONT), backends, "weight {weight}");
        }
    }
}

#[test]
fn a_place_once_seen_in_the_canary_stays_there_while_the_weight_rises() {
    let mut game = Game::new();
    let service = |game: &mut Game, weight| game.oracle.world_mut().services[DSR].weight = weight;
    service(&mut game, 5_000);
    let frame = game.packet(DSR, 4000, SYN).build();
    let expectation = game.oracle.expect(&frame, FRONT);
    let canary = expectation.outcomes().position(|outcome| forwards_to(outcome, &sample_mac(DSR, 3)));
    let performed = game.oracle.perform(&expectation, canary.expect("half of all"));
    game.oracle.judge(&frame, FRONT, &performed.observed()).expect("a right choice");
    // The connection closes, and the client comes again.
    game.forward(DSR, 4000, RST);
    service(&mut game, 6_000);
    assert_eq!(game.backends(&frame, FRONT), [3], "the same place, above the threshold it had");
    service(&mut game, 4_000);
    game.oracle.world_mut().services[DSR].backends[3].weight = 0;
    // Known to be below 50%, not known to be below 40%; the known connection's own backend besides.
    assert_eq!(game.backends(&frame, FRONT), [0, 1, 3, 4]);
}

#[test]
fn the_longest_network_decides_unless_the_service_is_flipped() {
    let mut game = Game::new();
    let from = |game: &Game, client: &str| {
        let to = game.oracle.world().services[DSR].address;
        let frame = Packet::tcp(address(client), to, SYN).build();
        game.backends(&frame, FRONT)
    };
    assert_eq!(from(&game, "198.51.100.1:9"), [3, 4], "always canary");
    assert_eq!(from(&game, "198.51.100.33:9"), [0, 1], "never canary, within always; the third is in a VLAN");
    assert_eq!(from(&game, "198.51.100.40:9"), [3, 4], "always canary, within never, within always");
    game.oracle.world_mut().services[DSR].flipped = Some(Existing::Keep);
    assert_eq!(from(&game, "198.51.100.40:9"), [0, 1], "flipped");
}

#[test]
fn a_flip_that_keeps_leaves_connections_and_one_that_resets_refuses_them() {
    let mut game = Game::new();
    game.oracle.world_mut().services[NAT].weight = 10_000;
    let opened = game.forward(NAT, 4000, SYN);
    game.oracle.world_mut().services[NAT].flipped = Some(Existing::Keep);
    assert_eq!(game.forward(NAT, 4000, ACK).frame[0..6], opened.frame[0..6]);
    game.oracle.world_mut().services[NAT].flipped = Some(Existing::Reset);
    let frame = game.packet(NAT, 4000, ACK).build();
    let expectation = game.oracle.expect(&frame, FRONT);
    assert!(matches!(expectation.only(), Some(Outcome::Refuse { reason: Reason::ResetByFlip, .. })), "{expectation:?}");
    let reset = game.oracle.perform(&expectation, 0);
    game.oracle.judge(&frame, FRONT, &reset.observed()).expect("reset");
    // Whether a reset connection is forgotten is left open.
    let reasons = game.reasons(&frame);
    assert_eq!(reasons, [Reason::ResetByFlip, Reason::UnknownConnection]);
    // Its backend is told as well.
    let reply = game.reply(&opened, SYN | ACK);
    assert!(game.reasons(&reply).contains(&Reason::ResetByFlip));
    let reply = game.reply(&opened, RST);
    assert!(game.reasons(&reply).contains(&Reason::UnknownReset), "but an RST is never answered");
}

#[test]
fn a_udp_exchange_of_the_canary_moves_to_stable_with_its_next_packet_after_a_flip_that_resets() {
    let mut game = Game::new();
    let service = &mut game.oracle.world_mut().services[NAT_UDP];
    (service.weight, service.networks) = (10_000, Vec::new());
    let before = game.forward(NAT_UDP, 4000, 0);
    game.oracle.world_mut().services[NAT_UDP].flipped = Some(Existing::Reset);
    let after = game.forward(NAT_UDP, 4000, 0);
    assert_ne!(before.frame[0..6], after.frame[0..6]);
    assert!([0, 1, 2].iter().any(|index| after.frame[0..6] == sample_mac(NAT_UDP, *index)), "stable");
}

#[test]
fn a_syn_on_a_closing_connection_may_open_a_new_one_and_on_a_living_one_must_not() {
    let mut game = Game::new();
    game.forward(NAT, 4000, SYN);
    let frame = game.packet(NAT, 4000, SYN).build();
    assert_eq!(game.oracle.expect(&frame, FRONT).outcomes().count(), 1);
    game.forward(NAT, 4000, FIN | ACK);
    assert!(game.oracle.expect(&frame, FRONT).outcomes().count() > 1);
    game.oracle.world_mut().leeway.closing_expires = false;
    let data = game.packet(NAT, 4000, ACK).build();
    assert_eq!(game.oracle.expect(&data, FRONT).outcomes().count(), 1, "it is still known");
    assert!(game.oracle.expect(&frame, FRONT).outcomes().count() > 1, "the client may reuse its port nevertheless");
}

#[test]
fn a_reply_goes_the_way_of_the_packet_that_opened_and_needs_its_backend() {
    let mut game = Game::new();
    let opened = game.forward(NAT, 4000, SYN);
    let reply = game.reply(&opened, SYN | ACK);
    assert_eq!(game.destinations(&reply), [Mac::local(0xc1)]);
    let moved = game.packet(NAT, 4000, SYN).ethernet(node(FRONT), Mac::local(0xc2)).build();
    game.run(&moved, FRONT);
    assert_eq!(game.destinations(&reply), [Mac::local(0xc1)], "a SYN sent again changes nothing");
    let mut stranger = reply.clone();
    stranger[29] ^= 1;
    assert_eq!(game.reasons(&stranger), [Reason::NotOurs]);
    let tagged = [&reply[..12], &[0x81, 0, 0, 1], &reply[12..]].concat();
    assert_eq!(game.reasons(&tagged), [Reason::VlanMismatch]);
}

#[test]
fn a_cohort_without_a_backend_falls_back_or_is_refused_and_both_are_counted() {
    let mut game = Game::new();
    game.oracle.world_mut().services[NAT].weight = 10_000;
    game.weigh(NAT, 3..5, 0);
    let frame = game.packet(NAT, 4000, SYN).build();
    let expectation = game.oracle.expect(&frame, FRONT);
    let performed = game.oracle.perform(&expectation, 0);
    assert_eq!(performed.counted, [Reason::CanaryFallback]);
    let uncounted = Performed { counted: Vec::new(), ..performed };
    game.oracle.check(&expectation, &uncounted.observed()).map(drop).expect_err("the fallback must be counted");
    game.weigh(NAT, 0..3, 0);
    let expectation = game.oracle.expect(&frame, FRONT);
    let performed = game.oracle.perform(&expectation, 0);
    assert_eq!(performed.counted, [Reason::NoBackend, Reason::CanaryFallback]);
    assert_eq!(performed.action, Action::Tx);
}

#[test]
fn a_backend_in_a_vlan_wants_a_tag_and_one_whose_way_is_lost_drops_what_it_has() {
    let mut game = Game::new();
    game.weigh(NAT, 0..2, 0);
    game.oracle.world_mut().services[NAT].weight = 0;
    let frame = game.packet(NAT, 4000, SYN).build();
    assert_eq!(game.reasons(&frame), [Reason::VlanMismatch]);
    let tagged = game.packet(NAT, 4000, SYN).tagged(0xe064).build();
    let sent = game.oracle.perform(&game.oracle.expect(&tagged, FRONT), 0);
    assert_eq!(sent.frame[14..16], (0xe000 | VLAN).to_be_bytes(), "PCP kept, VLAN ID written");
    game.run(&tagged, FRONT);
    game.oracle.world_mut().services[NAT].backends[2].way = None;
    assert_eq!(game.reasons(&tagged), [Reason::NoWay], "a connection that it already has");
    let another = game.packet(NAT, 4001, SYN).build();
    assert_eq!(game.reasons(&another), [Reason::NoBackend], "takes no new connections");
}

#[test]
fn ports_and_affinity_run_out_only_where_the_world_says_so() {
    let mut game = Game::new();
    let frame = game.packet(NAT, 4000, SYN).build();
    assert!(game.reasons(&frame).iter().all(|reason| *reason == Reason::VlanMismatch));
    let leeway = &mut game.oracle.world_mut().leeway;
    (leeway.ports_exhausted, leeway.affinity_full) = (true, true);
    let reasons = game.reasons(&frame);
    assert!(reasons.contains(&Reason::PortsExhausted) && reasons.contains(&Reason::AffinityFull), "{reasons:?}");
}

#[test]
fn affinity_by_client_gives_all_of_its_connections_one_backend() {
    let mut game = Game::new();
    assert_eq!(game.oracle.world().services[NAT].affinity, Affinity::Client);
    let first = game.forward(NAT, 4000, SYN);
    for port in 4001..4010 {
        assert_eq!(game.forward(NAT, port, SYN).frame[0..6], first.frame[0..6]);
    }
}

/// An oracle and a program that does right, on the sample's world.
struct Game {
    oracle: Oracle,
}

impl Game {
    fn new() -> Game {
        Game { oracle: Oracle::new(world()) }
    }

    fn packet(&self, service: usize, port: u16, flags: u8) -> Packet {
        let service = &self.oracle.world().services[service];
        let client = SocketAddr::new(address("203.0.113.9:0").ip(), port);
        let packet = match service.protocol {
            Protocol::Tcp => Packet::tcp(client, service.address, flags),
            Protocol::Udp => Packet::udp(client, service.address, &b"question"[..]),
        };
        packet.ethernet(node(FRONT), Mac::local(0xc1))
    }

    /// Lets the program do its first choice.
    fn run(&mut self, frame: &[u8], ingress: u32) -> Performed {
        let performed = self.oracle.perform(&self.oracle.expect(frame, ingress), 0);
        self.oracle.judge(frame, ingress, &performed.observed()).expect("the first choice is right");
        performed
    }

    fn forward(&mut self, service: usize, port: u16, flags: u8) -> Performed {
        let frame = self.packet(service, port, flags).build();
        let performed = self.run(&frame, FRONT);
        assert!(matches!(performed.action, Action::Tx | Action::Redirect), "{performed:?}");
        performed
    }

    /// What the backend answers to a forwarded IPv4 frame.
    fn reply(&self, forwarded: &Performed, flags: u8) -> Vec<u8> {
        let view = crate::packet::parse::parse(&forwarded.frame).expect("a good frame");
        let (nat, backend) = view.endpoints().expect("TCP");
        Packet::tcp(backend, nat, flags).ethernet(view.source, view.destination).build().to_vec()
    }

    /// The backends that a frame may be forwarded to, by the sample's Ethernet addresses.
    fn backends(&self, frame: &[u8], ingress: u32) -> Vec<u8> {
        let mut indices: Vec<_> = self.destinations_by(frame, ingress).iter().map(|mac| mac.0[5]).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    }

    fn destinations(&self, frame: &[u8]) -> Vec<Mac> {
        self.destinations_by(frame, BACK)
    }

    fn destinations_by(&self, frame: &[u8], ingress: u32) -> Vec<Mac> {
        let expectation = self.oracle.expect(frame, ingress);
        let destination = |outcome: &Outcome| match outcome {
            Outcome::Forward { path, .. } => Some(path.destination),
            Outcome::ToKernel { .. } | Outcome::Refuse { .. } | Outcome::Drop { .. } => None,
        };
        expectation.outcomes().filter_map(destination).collect()
    }

    fn reasons(&self, frame: &[u8]) -> Vec<Reason> {
        self.oracle.expect(frame, BACK).outcomes().filter_map(Outcome::reason).collect()
    }

    fn weigh(&mut self, service: usize, backends: std::ops::Range<usize>, weight: u32) {
        for backend in &mut self.oracle.world_mut().services[service].backends[backends] {
            backend.weight = weight;
        }
    }

    /// What a program would make of it that gave it the port of another.
    fn taken(oracle: &Oracle, expectation: &Expectation<'_>, pick: usize, other: &Performed) -> Performed {
        let mut lax = oracle.clone();
        lax.world_mut().leeway.affinity_full = true;
        let port = crate::packet::get_u16(&other.frame, 34);
        let first = *lax.world().nat_ports.clone().expect("the sample has some").start();
        let alternatives = expectation.outcomes().count();
        let wanted = usize::from(port - first);
        let pick = (0..).map(|round| pick + round * alternatives).find(|pick| pick % 40_000 == wanted);
        lax.perform(expectation, pick.expect("some pick means this port"))
    }
}

fn sample_mac(service: usize, backend: usize) -> [u8; 6] {
    let service = &world().services[service];
    service.backends[backend].way.expect("a way").destination.0
}

fn forwards_to(outcome: &Outcome, mac: &[u8]) -> bool {
    matches!(outcome, Outcome::Forward { path, .. } if path.destination.0 == mac)
}
