//! The share is real: of new connections, over hashes by the million and through the program that ships; and who has a backend keeps it.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::IndexedRandom};
use splitter_ebpf::{
    abi::{Control, Table},
    address::Address,
    cohort::{Cohort as Chosen, Hold},
    decision::{self, Lookup, Subject},
    maglev,
};
use splitter_tests::{
    oracle::{Action, Affinity, Cohort, Existing, Mode, Performed, Protocol, Reason, World, sample},
    packet::{ACK, Mac, SYN},
    rig::{
        self,
        play::{Play, answer, destination, endpoints},
    },
};
use splitter_user::{config::Tables, dataplane::Dataplane};

use sample::{BACK, FRONT};

const NAT: usize = 0;
const DSR: usize = 2;
const NAT_UDP: usize = 4;
const DSR_UDP: usize = 6;
const FAMILIES: [usize; 2] = [0, 8];

/// Quantile of the normal distribution that leaves 0.05% on each side.
const Z_99_9: f64 = 3.290_527;

#[test]
fn a_weight_is_the_share_of_a_million_connections_in_both_families() {
    const CONNECTIONS: u32 = 1_000_000;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
    for basis_points in [0_u16, 1, 100, 500, 5_000, 10_000] {
        for ipv4 in [true, false] {
            let subject = Subject {
                number: 0,
                seed: rng.random(),
                flags: 0,
                control: Control::default().with_threshold(Control::threshold_of(basis_points)),
                hold: Hold::None,
                tables: [Table { first_line: 0, size: 4_093 }; 2],
            };
            // As clients come: few networks, many hosts, neighbouring ports.
            let canary = (0..CONNECTIONS).filter(|number| {
                let (host, port) = (number / 1_000, u16::try_from(32_768 + number % 1_000).expect("below 65,536"));
                let address = if ipv4 {
                    Address::v4((0xc612_0000 + host).to_be_bytes())
                } else {
                    Address::v6(&(0x2001_0db8_0000_0000_0000_0000_0000_0000_u128 + u128::from(host)).to_be_bytes())
                };
                let flow = decision::flow(subject.seed, address, port.to_be());
                decision::decide(&EveryEntry, &subject, address, flow).rule.cohort() == Chosen::Canary
            });
            let canary = canary.count();
            let (n, p) = (f64::from(CONNECTIONS), f64::from(basis_points) / 10_000.0);
            let off = (canary as f64 - n * p).abs();
            // A half for the step from a count to the continuous bound.
            let bound = if p == 0.0 || p == 1.0 { 0.0 } else { Z_99_9 * (n * p * (1.0 - p)).sqrt() + 0.5 };
            assert!(
                off <= bound,
                "{basis_points} bp, IPv4 {ipv4}: {canary} of {CONNECTIONS}, {off:.0} off by more than {bound:.0}"
            );
        }
    }
}

#[test]
fn backends_of_a_cohort_get_their_weights_share() -> Result<()> {
    const CLIENTS: u32 = 200_000;
    let mut world = plain();
    for service in &mut world.services {
        service.backends.iter_mut().zip([1, 2, 5, 1, 3]).for_each(|(backend, weight)| backend.weight = weight);
        service.weight = 5_000;
    }
    play(world, rig::AMPLE, |play| {
        for service in FAMILIES {
            let key = rig::key(&play.world().services[service]);
            let mut counts: BTreeMap<SocketAddr, u32> = BTreeMap::new();
            for number in 0..CLIENTS {
                let client = play.client(service, number);
                let explained = play.rig().dataplane().explain(&key, client.ip(), Some(client.port()), None)?;
                *counts.entry(explained.backend.context("a backend")?).or_default() += 1;
            }
            for cohort in [Cohort::Stable, Cohort::Canary] {
                let members: Vec<_> = play.world().services[service].backends.iter().filter(|b| b.cohort == cohort).collect();
                let weights: u32 = members.iter().map(|backend| backend.weight).sum();
                let total: u32 = members.iter().map(|backend| counts[&backend.address]).sum();
                for member in members {
                    let (n, p) = (f64::from(total), f64::from(member.weight) / f64::from(weights));
                    // A Maglev table is off by up to two of its 4,093 entries, and clients scatter.
                    let bound = Z_99_9 * (n * p * (1.0 - p)).sqrt() + n * 2.0 / 4_093.0;
                    let off = (f64::from(counts[&member.address]) - n * p).abs();
                    ensure!(off <= bound, "{}: {} of {total}, {off:.0} off", member.address, counts[&member.address]);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_program_gives_the_canary_its_share_of_many_flows_and_each_keeps_its_backend() -> Result<()> {
    const FLOWS: u32 = 20_000;
    let mut world = plain();
    world.services.iter_mut().for_each(|service| service.weight = 500);
    play(world, rig::AMPLE, |play| {
        for service in FAMILIES.into_iter().flat_map(|family| [NAT, DSR, NAT_UDP, DSR_UDP].map(|service| family + service)) {
            // A CPU's part of the ports is 20,000 for each NAT address and protocol, and IPv6 has one address.
            let flows = if service == 8 + NAT || service == 8 + NAT_UDP { 16_384 } else { FLOWS };
            let before = opened(play, service);
            let mut opened_to = Vec::new();
            for number in 0..flows {
                let client = play.client(service, number);
                let frame = play.packet(service, client, SYN).build();
                let sent = forward(play, &frame, FRONT)?;
                opened_to.push(sent.frame);
            }
            let is_canary = |frame: &Vec<u8>| destination(frame).0[5] >= 3;
            let canary = u32::try_from(opened_to.iter().filter(|frame| is_canary(frame)).count())?;
            let (n, p) = (f64::from(flows), 0.05);
            let off = (f64::from(canary) - n * p).abs();
            ensure!(off <= Z_99_9 * (n * p * (1.0 - p)).sqrt() + 0.5, "service {service}: {canary} of {flows}");
            // The weight changes; who has a backend keeps it, and its port.
            play.change(|world| world.services[service].weight = 10_000)?;
            for (number, before) in (0..flows).zip(&opened_to).rev() {
                let client = play.client(service, number);
                let frame = play.packet(service, client, ACK).build();
                let sent = forward(play, &frame, FRONT)?;
                ensure!(
                    destination(&sent.frame) == destination(before) && endpoints(&sent.frame)? == endpoints(before)?,
                    "{client}"
                );
            }
            let after = opened(play, service);
            ensure!(after - before == u64::from(flows), "{} opened, {flows} flows", after - before);
        }
        Ok(())
    })
}

#[test]
fn one_flow_goes_one_way() -> Result<()> {
    let mut world = plain();
    world.services.iter_mut().for_each(|service| service.weight = 5_000);
    play(world, rig::AMPLE, |play| {
        for service in FAMILIES.into_iter().flat_map(|family| [NAT, DSR, NAT_UDP, DSR_UDP].map(|service| family + service)) {
            let client = play.client(service, 1);
            let syn = play.packet(service, client, SYN).build();
            let ack = play.packet(service, client, ACK).payload(vec![1; 100]).build();
            let first = play.forward(&syn, FRONT)?;
            let then = play.forward(&ack, FRONT)?;
            for _ in 0..2_000 {
                ensure!(forward(play, &ack, FRONT)?.frame == then.frame);
            }
            ensure!(destination(&first.frame) == destination(&then.frame));
            ensure!(opened(play, service) == 1, "{} opened", opened(play, service));
            let key = rig::key(&play.world().services[service]);
            let sample = play.rig().dataplane().sample();
            let packets: u64 = sample.services[&key].backends.values().map(|backend| backend.counters.packets_to).sum();
            ensure!(packets == 2_002, "{packets} packets");
        }
        Ok(())
    })
}

#[test]
fn what_is_explained_is_what_the_program_does() -> Result<()> {
    const PACKETS: usize = 100_000;
    let mut world = plain();
    let sampled = sample::world();
    for (index, service) in world.services.iter_mut().enumerate() {
        service.weight = [500, 5_000, 0, 10_000, 1][index % 5];
        service.networks.clone_from(&sampled.services[index].networks);
        service.affinity = if index.is_multiple_of(3) { Affinity::Client } else { Affinity::Connection };
        if index % 7 == 3 {
            service.backends.iter_mut().filter(|backend| backend.cohort == Cohort::Canary).for_each(|backend| backend.weight = 0);
        }
    }
    play(world, rig::AMPLE, |play| {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut earlier: Vec<(usize, SocketAddr)> = Vec::new();
        let (mut known, mut reset, mut canary) = (0, 0, 0);
        for number in 0..PACKETS {
            if number % 10_000 == 0 {
                let (at, flipped) =
                    (rng.random_range(0..16), [None, Some(Existing::Keep), Some(Existing::Reset)][number / 10_000 % 3]);
                let weight = rng.random_range(0..=10_000);
                play.change(|world| (world.services[at].weight, world.services[at].flipped) = (weight, flipped))?;
            }
            let (service, client) = match earlier.choose(&mut rng) {
                Some(again) if rng.random_ratio(1, 4) => *again,
                Some(_) | None => (rng.random_range(0..16), random_client(&mut rng, play.world(), number)),
            };
            let (service, client) = (service, fit(client, &play.world().services[service].address));
            earlier.push((service, client));
            let key = rig::key(&play.world().services[service]);
            let explained = play.rig().dataplane().explain(&key, client.ip(), Some(client.port()), None)?;
            let frame = play.packet(service, client, SYN).build();
            let seen = play.rig().run(&frame, FRONT)?;
            let asked = &play.world().services[service];
            let backend = asked.backends.iter().find(|b| b.way.is_some_and(|way| way.destination == destination(&seen.frame)));
            known += usize::from(explained.known.is_some());
            canary += usize::from(backend.is_some_and(|backend| backend.cohort == Cohort::Canary));
            if explained.reset && asked.protocol == Protocol::Tcp {
                reset += 1;
                ensure!(
                    seen.action == Action::Tx && seen.counted == [Reason::ResetByFlip],
                    "{key} {client}: {explained:?}, {seen:?}"
                );
                continue;
            }
            let told = explained.known.or(explained.backend);
            ensure!(told.is_some() && told == backend.map(|backend| backend.address), "{key} {client}: {explained:?}, {seen:?}");
            // Some attempts are answered: those a flip resets, the others it spares.
            if asked.protocol == Protocol::Tcp && rng.random_ratio(1, 2) {
                match asked.mode {
                    Mode::Nat => play.rig().run(&answer(&seen.frame, SYN | ACK)?.build(), BACK)?,
                    Mode::Dsr => {
                        let ack = play.packet(service, client, ACK).build();
                        play.rig().run(&ack, FRONT)?
                    }
                };
            }
        }
        ensure!(known > 10_000 && reset > 0 && canary > 10_000, "{known} known, {reset} reset, {canary} to the canary");
        Ok(())
    })
}

#[test]
fn a_flood_of_first_packets_does_not_push_out_who_is_established() -> Result<()> {
    const ESTABLISHED: u32 = 300;
    const FLOOD: u32 = 50_000;
    let tables = Tables { connections: 1_024, ..rig::AMPLE };
    for service in FAMILIES.into_iter().flat_map(|family| [NAT, DSR].map(|service| family + service)) {
        play(plain(), tables, |play| {
            let mut established = Vec::new();
            for number in 0..ESTABLISHED {
                let client = play.client(service, number);
                let syn = play.packet(service, client, SYN).build();
                let sent = forward(play, &syn, FRONT)?;
                if play.world().services[service].mode == Mode::Nat {
                    let reply = answer(&sent.frame, SYN | ACK)?.build();
                    forward(play, &reply, BACK)?;
                }
                let ack = play.packet(service, client, ACK).build();
                established.push((ack.clone(), forward(play, &ack, FRONT)?.frame));
            }
            // All weights change hands, so that a connection that was forgotten would go elsewhere.
            play.change(|world| world.services[service].weight = 10_000)?;
            let mut counted: BTreeMap<Reason, u32> = BTreeMap::new();
            for number in 0..FLOOD {
                let client = play.client(service, 100_000 + number);
                let syn = play.packet(service, client, SYN).build();
                for reason in play.rig().run(&syn, FRONT)?.counted {
                    *counted.entry(reason).or_default() += 1;
                }
            }
            for (ack, before) in &established {
                ensure!(forward(play, ack, FRONT)?.frame == *before, "pushed out; the flood counted {counted:?}");
            }
            // Both buckets of a few newcomers are full of established connections: they are told so, or go by hash alone.
            let full = if play.world().services[service].mode == Mode::Nat { Reason::AffinityFull } else { Reason::Untracked };
            ensure!(counted.keys().all(|reason| *reason == full), "{counted:?}");
            ensure!(counted.values().sum::<u32>() < FLOOD / 20, "{counted:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Every entry of every Maglev table is there.
struct EveryEntry;

impl Lookup for EveryEntry {
    fn network(&self, _service: u32, _client: Address) -> u8 {
        0
    }

    fn maglev(&self, entry: maglev::Entry) -> Option<u32> {
        Some(entry.number)
    }
}

/// The sample's services, every one with all that it needs: no networks, no client affinity, no VLAN. A backend's number is its Ethernet address's last octet.
fn plain() -> World {
    let mut world = sample::world();
    for (index, service) in world.services.iter_mut().enumerate() {
        (service.weight, service.affinity) = (0, Affinity::Connection);
        service.networks.clear();
        for (number, backend) in service.backends.iter_mut().enumerate() {
            backend.weight = 1;
            let destination = Mac::local(0x10_0000 | u32::try_from(index << 8 | number).expect("a handful"));
            backend.way =
                Some(splitter_tests::oracle::Way { interface: BACK, source: sample::node(BACK), destination, vlan: None });
        }
    }
    world
}

fn play(world: World, tables: Tables, body: impl FnOnce(&mut Play<'_>) -> Result<()> + Send) -> Result<()> {
    rig::with(&world.clone(), tables, move |rig| body(&mut Play::new(rig, world)))
}

/// Forwards a frame without asking the oracle.
fn forward(play: &mut Play<'_>, frame: &[u8], ingress: u32) -> Result<Performed> {
    let seen = play.rig().run(frame, ingress)?;
    ensure!(matches!(seen.action, Action::Tx | Action::Redirect) && seen.counted.is_empty(), "{seen:02x?}");
    Ok(seen)
}

fn opened(play: &mut Play<'_>, service: usize) -> u64 {
    let key = rig::key(&play.world().services[service]);
    play.rig().dataplane().sample().services[&key].backends.values().map(|backend| backend.counters.opened).sum()
}

/// Somewhere in the world, or in one of its networks.
fn random_client(rng: &mut Xoshiro256PlusPlus, world: &World, number: usize) -> SocketAddr {
    let port = rng.random();
    let network = world.services[number % 16].networks.choose(rng).map(|(network, _)| *network);
    match network {
        Some(network) if rng.random_bool(0.3) => SocketAddr::new(network.network(), port),
        Some(_) | None if rng.random() => SocketAddr::from((rng.random::<[u8; 4]>(), port)),
        Some(_) | None => SocketAddr::from((rng.random::<[u8; 16]>(), port)),
    }
}

/// The same client in the family of a service.
fn fit(client: SocketAddr, service: &SocketAddr) -> SocketAddr {
    match (client, service) {
        (SocketAddr::V4(v4), SocketAddr::V6(_)) => SocketAddr::from((v4.ip().to_ipv6_compatible(), v4.port())),
        (SocketAddr::V6(v6), SocketAddr::V4(_)) => {
            let [.., a, b, c, d] = v6.ip().octets();
            SocketAddr::from(([a, b, c, d], v6.port()))
        }
        (client, _) => client,
    }
}
