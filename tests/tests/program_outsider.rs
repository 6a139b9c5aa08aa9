//! What an outsider's packets come to, frame by frame: those in other people's names, those with addresses that nobody has, those of somebody who
//! takes all there is. `docs/security.md` says what has to hold. Each frame of the first part is judged by the oracle as well.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use splitter_ebpf::breaker::Cause;
use splitter_tests::{
    bench::scale::{connections, many},
    oracle::{Action, Affinity, Performed, Reason, World, sample},
    packet::{ACK, Mac, Packet, RST, SYN},
    rig::{
        self, Rig,
        play::{BACKEND_MAC, CLIENT_MAC, Play, answer, destination, endpoints},
    },
};
use splitter_user::{
    config::Tables,
    dataplane::{Counters, Dataplane},
    model::{Breaker, Cohort, Existing, Factor, Mode, Weight},
};

use sample::{BACK, FRONT};

/// Services of [`sample::world`], IPv4; those of IPv6 are eight further on.
const NAT: usize = 0;
const DSR: usize = 2;
const NAT_UDP: usize = 4;
const FAMILIES: [usize; 2] = [0, 8];

#[test]
fn behind_a_rst_and_a_syn_in_its_clients_name_a_connection_has_its_backend_and_its_port() -> Result<()> {
    play(|play| {
        for (number, (family, multi_buffer)) in [(0, true), (8, true), (0, false), (8, false)].into_iter().enumerate() {
            play.rig().set_multi_buffer(multi_buffer);
            let client = play.client(family, 70 + u32::try_from(number)?);
            let before = establish(play, family + NAT, client)?;
            for round in 0..3 {
                for flags in [RST, SYN, RST | ACK, SYN, SYN] {
                    let sent = play.forward(&play.packet(family + NAT, client, flags).build(), FRONT)?;
                    ensure!(endpoints(&sent.frame)? == endpoints(&before.frame)?, "round {round}: it went elsewhere");
                }
                // The backend knows better, and says so.
                let challenge = play.forward(&answer(&before.frame, ACK)?.build(), BACK)?;
                ensure!(destination(&challenge.frame) == CLIENT_MAC);
                let data = play.packet(family + NAT, client, ACK).payload(&b"more"[..]).build();
                let sent = play.forward(&data, FRONT).with_context(|| format!("round {round}: the client goes on"))?;
                ensure!(endpoints(&sent.frame)? == endpoints(&before.frame)?, "round {round}: the client is elsewhere");
            }
            let key = rig::key(&play.world().services[family + NAT]);
            let live: u64 =
                play.dataplane().sample().services[&key].backends.values().map(|backend| backend.counters.live()).sum();
            let before = u64::try_from(number / 2)?;
            ensure!(live == before + 1, "{live} live in family {family}, not {}", before + 1);
        }
        Ok(())
    })
}

#[test]
fn a_rst_and_a_syn_forged_elsewhere_do_not_turn_the_replies_aside() -> Result<()> {
    rig::with(&connections::nat_for(1_000), FEW, |rig| {
        rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Nat)])?;
        let sent = complete(rig, 7, Mode::Nat)?.context("there is room")?;
        for flags in [RST, SYN, RST, SYN] {
            let mut forged = frame(7, flags);
            forged[6..12].copy_from_slice(&Mac::local(0xbad).0);
            run(rig, &forged, FRONT)?;
        }
        let back = run(rig, &answer(&sent, ACK)?.build(), BACK)?;
        ensure!(destination(&back.frame) == CLIENT_MAC, "{back:?}");
        let on = run(rig, &frame(7, ACK), FRONT)?;
        ensure!(endpoints(&on.frame)? == endpoints(&sent)?, "the client is elsewhere: {on:?}");
        Ok(())
    })
}

#[test]
fn where_the_client_alone_is_seen_forged_segments_move_nobody() -> Result<()> {
    play(|play| {
        for family in FAMILIES {
            for number in 0..20 {
                let client = play.client(family, 70 + number);
                let before = establish(play, family + DSR, client)?;
                for flags in [RST, ACK, SYN, ACK, SYN, RST, SYN, ACK] {
                    let sent = play.forward(&play.packet(family + DSR, client, flags).build(), FRONT)?;
                    ensure!(destination(&sent.frame) == destination(&before.frame), "client {number} went elsewhere");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn what_comes_to_a_nat_port_is_a_reply_from_its_backend_alone() -> Result<()> {
    play(|play| {
        for family in FAMILIES {
            let opened = play.forward(&play.packet(family + NAT, play.client(family, 7), SYN).build(), FRONT)?;
            let (nat, backend) = endpoints(&opened.frame)?;
            let elsewhere = SocketAddr::new(backend.ip(), backend.port() + 1);
            let stranger = SocketAddr::new(play.client(family, 9).ip(), backend.port());
            let unused = SocketAddr::new(nat.ip(), nat.port() ^ 0x40);
            let from = |packet: Packet| packet.ethernet(sample::node(BACK), BACKEND_MAC).build();
            for (why, frame) in [
                ("another port of the backend", from(Packet::tcp(elsewhere, nat, SYN | ACK))),
                ("another address", from(Packet::tcp(stranger, nat, SYN | ACK))),
                ("a port that nobody has", from(Packet::tcp(backend, unused, SYN | ACK))),
                ("the other protocol", from(Packet::udp(backend, nat, &b"answer"[..]))),
            ] {
                play.stop(&frame, BACK, Action::Pass, Reason::NotOurs).context(why)?;
            }
            // Whoever can send in a backend's name is taken for it, wherever that comes in: keeping those out is the network's task.
            let forged = from(Packet::tcp(backend, nat, SYN | ACK));
            let seen = play.forward(&forged, FRONT)?;
            ensure!(destination(&seen.frame) == CLIENT_MAC, "it goes to the client, and to nobody else");
        }
        Ok(())
    })
}

#[test]
fn addresses_that_nobody_has_lead_nowhere_else() -> Result<()> {
    play(|play| {
        let service = play.world().services[NAT].address;
        let nat = play.world().nat_addresses[0];
        let v4 = |octets: [u8; 4], port| SocketAddr::new(IpAddr::from(Ipv4Addr::from(octets)), port);
        for (why, source) in [
            ("a service as its own client: a land attack", service),
            ("a NAT address and a port of its range", SocketAddr::new(nat, 20_007)),
            ("loopback", v4([127, 0, 0, 1], 4_000)),
            ("nobody yet", v4([0, 0, 0, 0], 4_000)),
            ("a group", v4([224, 0, 0, 1], 4_000)),
            ("everybody", v4([255, 255, 255, 255], 4_000)),
            ("a backend as a client", play.world().services[NAT].backends[0].address),
        ] {
            let syn = Packet::tcp(source, service, SYN).ethernet(sample::node(FRONT), CLIENT_MAC).build();
            let opened = play.forward(&syn, FRONT).context(why)?;
            // The backend hears of nobody but the node, and what it answers goes to whoever sent the frame.
            ensure!(endpoints(&opened.frame)?.0.ip() != source.ip() || source.ip() == nat, "{why}: the backend sees {source}");
            let back = play.forward(&answer(&opened.frame, SYN | ACK)?.build(), BACK).context(why)?;
            ensure!(destination(&back.frame) == CLIENT_MAC, "{why}: it goes elsewhere");
        }
        for (why, destination) in [
            ("loopback", v4([127, 0, 0, 1], service.port())),
            ("a group", v4([224, 0, 0, 1], service.port())),
            ("everybody", v4([255, 255, 255, 255], service.port())),
            ("a backend itself", play.world().services[NAT].backends[0].address),
            ("a service's other port", SocketAddr::new(service.ip(), service.port() + 1)),
        ] {
            let client = play.client(NAT, 7);
            let frame = Packet::tcp(client, destination, SYN).ethernet(sample::node(FRONT), CLIENT_MAC).build();
            play.stop(&frame, FRONT, Action::Pass, Reason::NotOurs).context(why)?;
            let frame = Packet::udp(client, destination, &b"x"[..]).ethernet(sample::node(FRONT), CLIENT_MAC).build();
            play.stop(&frame, FRONT, Action::Pass, Reason::NotOurs).context(why)?;
        }
        let datagram = Packet::udp(play.world().services[NAT_UDP].address, play.world().services[NAT_UDP].address, &b"x"[..]);
        let opened = play.forward(&datagram.ethernet(sample::node(FRONT), CLIENT_MAC).build(), FRONT)?;
        let back = play.forward(&answer(&opened.frame, 0)?.build(), BACK)?;
        ensure!(destination(&back.frame) == CLIENT_MAC, "a service that asks itself is answered once, and not by itself");
        Ok(())
    })
}

/// Connections of others that are there before.
const OTHERS: u32 = 200;
/// A /24's: each of its addresses has every port.
const TAKER: u32 = 1_000_000;
const FEW: Tables = Tables { services: 16, backends: 64, connections: 1 << 11, networks: 16 };

#[test]
fn who_takes_every_port_keeps_new_clients_out_until_he_leaves_and_ends_nobodys_connection() -> Result<()> {
    let world = World { nat_ports: Some(1_024..=1_024 + 4_095), ..connections::nat_for(1_000) };
    rig::with(&world, FEW, |rig| {
        rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Nat)])?;
        let others = (0..OTHERS).map(|number| complete(rig, number, Mode::Nat)).collect::<Result<Vec<_>>>()?;
        let others: Vec<Vec<u8>> = others.into_iter().map(|sent| sent.expect("there is room")).collect();
        // The last free ports are found by chance: not every port is looked at for each connection.
        let (mut taken, mut refused) = (Vec::new(), 0);
        for number in TAKER.. {
            match complete(rig, number, Mode::Nat)? {
                Some(_) => {
                    taken.push(number);
                    refused = 0;
                }
                None => refused += 1,
            }
            if refused == 500 {
                break;
            }
            ensure!(taken.len() < 20_000, "there is no end to it");
        }
        println!("nat: {} connections of one network, and nobody else gets in", taken.len());
        ensure!(taken.len() > 500, "{}", taken.len());
        for again in 0..3 {
            let refused = run(rig, &frame(500_000 + again, SYN), FRONT)?;
            ensure!(refused.action == Action::Tx && refused.counted.len() == 1, "refused at once: {refused:?}");
            let reason = refused.counted[0];
            ensure!(matches!(reason, Reason::PortsExhausted | Reason::AffinityFull), "{reason}");
        }
        are_where_they_were(rig, &others)?;
        // He leaves, by RST or however; or an operator puts him out.
        for number in taken {
            run(rig, &frame(number, RST), FRONT)?;
        }
        ensure!(complete(rig, 600_000, Mode::Nat)?.is_some(), "there is room again at once");
        are_where_they_were(rig, &others)
    })
}

#[test]
fn who_takes_the_whole_table_in_dsr_keeps_nobody_out_and_ends_nobodys_connection() -> Result<()> {
    rig::with(&World::default(), FEW, |rig| {
        rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Dsr)])?;
        let others = (0..OTHERS).map(|number| complete(rig, number, Mode::Dsr)).collect::<Result<Vec<_>>>()?;
        let others: Vec<Vec<u8>> = others.into_iter().map(|sent| sent.expect("there is room")).collect();
        // Four times what the table holds.
        for number in 0..8_192 {
            ensure!(complete(rig, TAKER + number, Mode::Dsr)?.is_some(), "client {number} isn't served");
        }
        are_where_they_were(rig, &others)?;
        let late = (0..100).map(|number| complete(rig, 500_000 + number, Mode::Dsr)).collect::<Result<Vec<_>>>()?;
        ensure!(late.iter().all(Option::is_some), "new clients go by their hash");
        let untracked = rig.dataplane().sample().services[&many::key(0)].untracked;
        ensure!(untracked > 0, "some have no place in the table");
        Ok(())
    })
}

/// An attacker who has found out which of his ports hit the canary opens from those, and never completes. That he can is stated, so it's tested: whoever trusts
/// a comparison with stable has to know.
#[test]
fn who_has_found_ports_that_hit_can_send_the_canary_home_but_not_make_it_look_refused() -> Result<()> {
    rig::with(&connections::nat_for(50_000), Tables { connections: 1 << 14, ..FEW }, |rig| {
        let mut service = many::service(0, 0, 4, Mode::Nat);
        let limit = Weight::from_basis_points(500).ok();
        service.weight = Weight::from_basis_points(1_000).expect("a tenth");
        service.timeouts.connect = std::time::Duration::from_millis(200);
        let breaker = Breaker {
            refused: limit,
            timeout: limit,
            reset: limit,
            retransmit: None,
            min_attempts: 20,
            window: std::time::Duration::from_secs(1),
            stable_factor: Factor::from_hundredths(200),
            existing: Existing::Keep,
        };
        service.breaker = Some(breaker);
        rig.dataplane().apply(&[service])?;
        let canary = |rig: &mut Rig| -> Counters {
            let sample = rig.dataplane().sample();
            let mut of = sample.services[&many::key(0)].backends.values().filter(|backend| backend.cohort == Cohort::Canary);
            of.next().map(|backend| backend.counters).unwrap_or_default()
        };
        // He tries ports in earnest, once, and keeps those by which the canary answered.
        let mut hits = Vec::new();
        for number in 0..2_000 {
            let before = canary(rig).opened;
            ensure!(complete(rig, TAKER + number, Mode::Nat)?.is_some());
            if canary(rig).opened > before {
                hits.push(TAKER + number);
            }
            run(rig, &frame(TAKER + number, RST), FRONT)?;
        }
        ensure!((120..280).contains(&hits.len()), "{} of 2,000 hit", hits.len());
        ensure!(rig.dataplane().sample().services[&many::key(0)].trip.is_none());
        std::thread::sleep(std::time::Duration::from_millis(1_300));
        for number in &hits {
            run(rig, &frame(*number, SYN), FRONT)?;
        }
        // Resets and refusals in his own name count against nobody.
        ensure!(canary(rig).refused == 0 && canary(rig).reset_by_backend == 0, "{:?}", canary(rig));
        std::thread::sleep(std::time::Duration::from_millis(700));
        for number in 0..50 {
            complete(rig, 700_000 + number, Mode::Nat)?;
        }
        let trip = rig.dataplane().sample().services[&many::key(0)].trip.context("his attempts time out on the canary alone")?;
        ensure!(trip.cause == Cause::Timeout, "{trip:?}");
        Ok(())
    })
}

/// Without what would make a row about something else.
fn play(body: impl FnOnce(&mut Play<'_>) -> Result<()> + Send) -> Result<()> {
    let mut world = sample::world();
    for service in &mut world.services {
        service.networks.clear();
        service.affinity = Affinity::Connection;
        service.backends.retain(|backend| backend.way.is_some_and(|way| way.vlan.is_none()));
        service.backends.iter_mut().filter_map(|backend| backend.way.as_mut()).for_each(|way| {
            way.interface = BACK;
            way.source = sample::node(BACK);
        });
    }
    let shown = world.clone();
    rig::with(&world, rig::AMPLE, |rig| body(&mut Play::new(rig, shown)))
}

/// A connection of a client; what the backend got last.
fn establish(play: &mut Play<'_>, service: usize, client: SocketAddr) -> Result<Performed> {
    let sent = play.forward(&play.packet(service, client, SYN).build(), FRONT)?;
    if endpoints(&sent.frame)?.0 != client {
        play.forward(&answer(&sent.frame, SYN | ACK)?.build(), BACK)?;
    }
    play.forward(&play.packet(service, client, ACK).build(), FRONT)
}

fn frame(number: u32, flags: u8) -> Vec<u8> {
    let mut frame = many::syn(0, many::client(number));
    many::set_flags(&mut frame, flags);
    frame
}

fn run(rig: &mut Rig, frame: &[u8], ingress: u32) -> Result<Performed> {
    let ingress = rig.ingress(ingress);
    rig.run(frame, ingress)
}

/// Completes a client's handshake; what its ACK became, or `None` where its SYN wasn't forwarded.
fn complete(rig: &mut Rig, number: u32, mode: Mode) -> Result<Option<Vec<u8>>> {
    let forwarded = |seen: &Performed| {
        matches!(seen.action, Action::Tx | Action::Redirect) && seen.counted.iter().all(|reason| *reason == Reason::Untracked)
    };
    let sent = run(rig, &frame(number, SYN), FRONT)?;
    if !forwarded(&sent) {
        return Ok(None);
    }
    if mode == Mode::Nat {
        let answered = run(rig, &answer(&sent.frame, SYN | ACK)?.build(), BACK)?;
        ensure!(forwarded(&answered), "{answered:?}");
    }
    let sent = run(rig, &frame(number, ACK), FRONT)?;
    ensure!(forwarded(&sent), "{sent:?}");
    Ok(Some(sent.frame))
}

fn are_where_they_were(rig: &mut Rig, others: &[Vec<u8>]) -> Result<()> {
    for (number, before) in others.iter().enumerate() {
        let sent = run(rig, &frame(u32::try_from(number)?, ACK), FRONT)?;
        ensure!(sent.counted.is_empty() && sent.frame == *before, "client {number} is not where it was: {sent:?}");
    }
    Ok(())
}
