//! The program that ships with as many services, backends and connections as it is promised for: counts and sizes, no times.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use splitter_tests::{
    bench::scale::{
        connections,
        fill::{self, Sender},
        many, memory,
    },
    oracle::World,
    packet::Mac,
    rig::{self, Rig, play::destination},
};
use splitter_user::{
    config::Tables,
    dataplane::{Dataplane, WantedService},
    model::{Mode, Weight},
};

/// More than enough for 1,000 services and 4,000 backends.
const TABLES: Tables = Tables { services: 1_024, backends: 4_096, connections: 1 << 20, networks: 16 };

#[test]
fn each_of_a_thousand_services_sends_its_connections_to_its_own_backends() -> Result<()> {
    const EACH: u32 = 64;
    rig::with(&World::default(), TABLES, |rig| {
        let mut services = many::services(1_000, 4, Mode::Dsr);
        services.iter_mut().for_each(|service| service.weight = percent(25));
        rig.dataplane().apply(&services)?;
        let of_mac = by_mac(&services);
        for number in 0..1_000 {
            let mut sender = Sender::to(number);
            for client in 0..EACH {
                let told = explained(rig, number, client)?;
                let got = sent(rig, &mut sender, client, &of_mac)?;
                ensure!(told == got, "service {number}, client {client}: {told} is told, {got} got it");
            }
        }
        everybody_got_some(rig, &services, 1_000 * u64::from(EACH))
    })
}

#[test]
fn each_of_four_thousand_backends_gets_its_share() -> Result<()> {
    const CONNECTIONS: u32 = 100_000;
    rig::with(&World::default(), TABLES, |rig| {
        let services = [many::service(0, 0, 4_000, Mode::Dsr)];
        rig.dataplane().apply(&services)?;
        let of_mac = by_mac(&services);
        let mut sender = Sender::to(0);
        for client in 0..CONNECTIONS {
            let told = if client % 50 == 0 { Some(explained(rig, 0, client)?) } else { None };
            let got = sent(rig, &mut sender, client, &of_mac)?;
            ensure!(told.is_none_or(|told| told == got), "client {client}: {told:?} is told, {got} got it");
        }
        everybody_got_some(rig, &services, u64::from(CONNECTIONS))
    })
}

#[test]
fn a_change_of_one_service_leaves_the_others_tables_alone() -> Result<()> {
    rig::with(&World::default(), TABLES, |rig| {
        let mut services = many::services(64, 4, Mode::Dsr);
        rig.dataplane().apply(&services)?;
        let places = |rig: &mut Rig| (0..640).map(|n| explained(rig, n % 64, n)).collect::<Result<Vec<_>>>();
        let before = places(rig)?;
        services[7].backends[0].draining = true;
        services[8].weight = percent(100);
        rig.dataplane().apply(&services)?;
        let drained = services[7].backends[0].address;
        let mut moved = HashMap::new();
        for (number, (before, after)) in before.iter().zip(places(rig)?).enumerate() {
            let service = number % 64;
            let moves = match service {
                7 => *before == drained,
                8 => !services[8].backends.iter().any(|b| b.address == *before && b.cohort.as_str() == "canary"),
                _ => false,
            };
            ensure!((*before != after) == moves, "service {service}: {before} became {after}");
            moved.insert(service, moves || moved.get(&service).copied().unwrap_or(false));
        }
        ensure!(moved[&7] && moved[&8], "nobody had to move, so nothing was seen");
        // And back.
        services[7].backends[0].draining = false;
        services[8].weight = percent(10);
        rig.dataplane().apply(&services)?;
        ensure!(places(rig)? == before);
        Ok(())
    })
}

#[test]
fn a_million_connections_have_room_in_what_is_promised_for_them() -> Result<()> {
    const MIB: u64 = 1 << 20;
    const CONNECTIONS: u32 = 1_000_000;
    // What the kernel takes besides the elements: its own structure, a page to each map.
    const PAGE: u64 = 4_096;
    let tables = Tables { services: 256, backends: 1_024, connections: 2 * CONNECTIONS.next_power_of_two(), networks: 1 };
    let world = connections::nat_for(CONNECTIONS);
    rig::with(&world, tables, |rig| {
        let (dsr, nat) = (memory::taken(rig.maps(), memory::DSR)?, memory::taken(rig.maps(), memory::NAT)?);
        ensure!(dsr <= 16 * MIB + PAGE, "{dsr} octets for dsr");
        // Both kinds of tables are there whatever services are configured.
        ensure!(dsr + nat <= 96 * MIB, "{} octets for nat", dsr + nat);
        rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Dsr)])?;
        let forwarded = fill::open(rig, 0, 0, CONNECTIONS)?;
        ensure!(forwarded == CONNECTIONS, "{forwarded} forwarded");
        let live = rig.dataplane().sweep();
        ensure!(live.affinity.used * 1_000 >= u64::from(CONNECTIONS) * 999, "{} of them are remembered", live.affinity.used);
        let counted: u64 = live.connections.values().sum();
        ensure!(counted == live.affinity.used, "{counted} are counted, {} are there", live.affinity.used);
        Ok(())
    })
}

/// The backend that a client's SYN goes to.
fn sent(rig: &mut Rig, sender: &mut Sender, client: u32, of_mac: &HashMap<Mac, SocketAddr>) -> Result<SocketAddr> {
    let sent = sender.send(rig.dataplane().program(true)?, client, 1)?;
    ensure!(sent.forwarded, "client {client} was not forwarded");
    of_mac.get(&destination(sender.last())).copied().context("nobody's Ethernet address")
}

fn explained(rig: &mut Rig, service: u32, client: u32) -> Result<SocketAddr> {
    let client = many::client(client);
    let explained = rig.dataplane().explain(&many::key(service), client.ip(), Some(client.port()), None)?;
    explained.backend.context("no backend")
}

fn by_mac(services: &[WantedService]) -> HashMap<Mac, SocketAddr> {
    let backends = services.iter().flat_map(|service| &service.backends);
    backends.filter_map(|backend| Some((Mac(backend.way.as_ref()?.destination_mac), backend.address))).collect()
}

fn everybody_got_some(rig: &mut Rig, services: &[WantedService], connections: u64) -> Result<()> {
    let sample = rig.dataplane().sample();
    let opened = |service: &WantedService| {
        let backends = sample.services[&service.key].backends.iter();
        backends.map(|(address, backend)| (*address, backend.counters.opened)).collect::<Vec<_>>()
    };
    let all: Vec<(SocketAddr, u64)> = services.iter().flat_map(opened).collect();
    let without: BTreeSet<_> = all.iter().filter(|(_, opened)| *opened == 0).map(|(address, _)| address).collect();
    ensure!(without.is_empty(), "{} backends got nothing: {without:?}", without.len());
    let total: u64 = all.iter().map(|(_, opened)| opened).sum();
    ensure!(total == connections, "{total} of {connections} connections were counted");
    Ok(())
}

fn percent(percent: u16) -> Weight {
    Weight::from_basis_points(percent * 100).expect("at most 100")
}
