//! Making the data plane do what is wanted: first everything that can fail, then stores that can't.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
    vec,
};

use splitter_ebpf::abi::{
    self, BUCKET, Backend, BackendCounters, Control, DESTINATIONS, Destination, MAGLEV_LINE, MaglevLine, Nat, Service,
    ServiceCounters, Settings, SharedWord, Table, flags,
};

use super::{
    Applied, ApplyError, ServiceKey, WantedBackend, WantedService, clock,
    destinations::{self, address},
    kernel::KernelDataplane,
    lines::{Run, lines},
    maglev::{self, Member},
    networks,
    numbers::{CONTROL, NumberedBackend, NumberedService, Numbers},
    signals,
    sweep::{self, Found},
};
use crate::{
    model::{Affinity, Cohort, Existing, Mode, OnLeaseExpiry, Protocol},
    neighbor::Way,
};

/// How long a program that was running when a table was switched may still look at the old one. A run takes microseconds and isn't preempted.
const GRACE: Duration = Duration::from_millis(5);

/// How long a backend that isn't wanted and has no connections keeps its number: remembered first fragments may name it.
const QUARANTINE: Duration = Duration::from_secs(30);

/// Where nothing is wanted but a table can be tried again with another seed.
const SEEDS: usize = 64;

/// Everything that can fail, done.
struct Plan {
    numbers: Numbers,
    /// By cohort, of the services whose tables have to be others.
    tables: BTreeMap<ServiceKey, [Vec<u16>; 2]>,
    nat_of: BTreeMap<(ServiceKey, SocketAddr), (u8, u8)>,
    destinations: Vec<Destination>,
    seed: u64,
}

pub fn apply(dataplane: &mut KernelDataplane, wanted: &[WantedService]) -> Result<Applied, ApplyError> {
    let plan = plan(dataplane, wanted)?;
    let lists = wanted
        .iter()
        .map(|service| {
            (plan.numbers.services[&service.key].number, networks::lists(&service.always_canary, &service.never_canary))
        })
        .collect();
    dataplane.networks.apply(lists)?;
    commit(dataplane, wanted, plan);
    let is_empty = |service: &WantedService, cohort| !service.backends.iter().any(|b| b.cohort == cohort && b.is_usable());
    let asked = |service: &WantedService, cohort| {
        cohort == Cohort::Stable || service.backends.iter().any(|backend| backend.cohort == Cohort::Canary)
    };
    let without = wanted.iter().flat_map(|service| Cohort::ALL.map(|cohort| (service, cohort)));
    let without = without.filter(|(service, cohort)| asked(service, *cohort) && is_empty(service, *cohort));
    Ok(Applied { without_backends: without.map(|(service, cohort)| (service.key, cohort)).collect() })
}

fn plan(dataplane: &KernelDataplane, wanted: &[WantedService]) -> Result<Plan, ApplyError> {
    let maps = &dataplane.loaded.maps;
    let mut numbers = dataplane.numbers.clone();
    let keys: BTreeSet<ServiceKey> = wanted.iter().map(|service| service.key).collect();
    numbers.services.retain(|key, service| {
        let stays = keys.contains(key);
        if !stays {
            service.runs.iter().flatten().flatten().for_each(|run| numbers.lines.give(*run));
        }
        stays
    });
    numbers.backends.retain(|(service, _), _| keys.contains(service));
    let mut free = FreeNumbers::of(dataplane);
    let (mut tables, mut nat_of) = (BTreeMap::new(), BTreeMap::new());
    for service in wanted {
        number(&mut numbers, service, &mut free)?;
        if service.mode == Mode::Nat {
            for backend in &service.backends {
                if let Some(nat) = nats(&mut numbers, dataplane, service, backend)? {
                    nat_of.insert((service.key, backend.address), nat);
                }
            }
        }
        if let Some(built) = rebuilt(&mut numbers, service) {
            take_lines(&mut numbers, dataplane, service, &built)?;
            tables.insert(service.key, built);
        }
    }
    let entries: Vec<destinations::Entry> = numbers
        .services
        .iter()
        .map(|(key, service)| destinations::Entry::Service(*key, service.number))
        .chain(numbers.nats.iter().map(|(address, number)| destinations::Entry::Nat(*address, *number)))
        .collect();
    let word = maps.settings.word(0, offset_of!(Settings, destinations)).load();
    let seeds = std::iter::once(word >> 1).chain(std::iter::repeat_with(|| rand::random::<u64>() >> 1));
    let found = seeds.take(SEEDS).find_map(|seed| Some((seed, destinations::place(&entries, seed)?)));
    let room = DESTINATIONS as usize;
    let (seed, destinations) =
        found.ok_or(ApplyError::NoRoom { what: "services and NAT addresses", needed: entries.len(), room, key: "services" })?;
    Ok(Plan { numbers, tables, nat_of, destinations, seed })
}

/// Numbers that nobody has. One of a service or backend that goes at the same time isn't free before that one is gone.
struct FreeNumbers {
    services: vec::IntoIter<u32>,
    services_room: usize,
    backends: vec::IntoIter<u32>,
    backends_room: usize,
}

impl FreeNumbers {
    fn of(dataplane: &KernelDataplane) -> Self {
        let (services_room, backends_room) = (dataplane.loaded.maps.services.len(), dataplane.loaded.maps.backends.len());
        Self {
            services: dataplane.numbers.free_services(services_room).into_iter(),
            services_room,
            backends: dataplane.numbers.free_backends(backends_room).into_iter(),
            backends_room,
        }
    }
}

/// Gives numbers to a service and its backends.
fn number(numbers: &mut Numbers, wanted: &WantedService, free: &mut FreeNumbers) -> Result<(), ApplyError> {
    if !numbers.services.contains_key(&wanted.key) {
        let (needed, room) = (numbers.services.len() + 1, free.services_room);
        let number = free.services.next().ok_or(ApplyError::NoRoom { what: "services", needed, room, key: "services" })?;
        numbers.services.insert(wanted.key, NumberedService { number, runs: [[None; 2]; 2], members: None });
    }
    let now = Instant::now();
    let asked: BTreeSet<SocketAddr> = wanted.backends.iter().map(|backend| backend.address).collect();
    for ((_, address), backend) in numbers.backends_of_mut(&wanted.key) {
        if !asked.contains(address) {
            backend.unwanted_since.get_or_insert(now);
            (backend.wanted, backend.usable) = (false, false);
        }
    }
    for backend in &wanted.backends {
        let (needed, room) = (numbers.backends.len() + 1, free.backends_room);
        let (cohort, usable) = (backend.cohort, backend.is_usable());
        match numbers.backends.entry((wanted.key, backend.address)) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                (known.wanted, known.usable, known.cohort) = (true, usable, cohort);
                known.unwanted_since = None;
            }
            Entry::Vacant(place) => {
                let number = free.backends.next();
                let number = number.ok_or(ApplyError::NoRoom { what: "backends", needed, room, key: "backends" })?;
                place.insert(NumberedBackend { number, cohort, wanted: true, usable, unwanted_since: None });
            }
        }
    }
    Ok(())
}

/// A service's Maglev tables by cohort, unless those in force are made from the same backends already.
fn rebuilt(numbers: &mut Numbers, service: &WantedService) -> Option<[Vec<u16>; 2]> {
    let members = Cohort::ALL.map(|cohort| members(numbers, service, cohort));
    let numbered = numbers.services.get_mut(&service.key)?;
    if numbered.members.as_deref() == Some(&members) {
        return None;
    }
    let built = members.each_ref().map(|members| maglev::build(members));
    numbered.members = Some(Arc::new(members));
    Some(built)
}

/// The NAT addresses that connections to a backend leave from: those of the configuration, or the one that the kernel would use.
fn nats(
    numbers: &mut Numbers,
    dataplane: &KernelDataplane,
    service: &WantedService,
    backend: &WantedBackend,
) -> Result<Option<(u8, u8)>, ApplyError> {
    let Some(way) = &backend.way else { return Ok(None) };
    if !dataplane.interfaces.iter().any(|attached| attached.index == way.interface) {
        return Err(ApplyError::NotAttached { backend: backend.address, interface: way.interface_name.clone() });
    }
    let ipv6 = service.key.address.is_ipv6();
    let configured: Vec<IpAddr> =
        dataplane.options.nat.addresses.iter().copied().filter(|address| address.is_ipv6() == ipv6).collect();
    let addresses = if configured.is_empty() { vec![way.source_address] } else { configured };
    let room = dataplane.loaded.maps.nats.len();
    let needed = numbers.nats.len() + addresses.len();
    numbers.nats(&addresses, room).map(Some).ok_or(ApplyError::NoNat { needed, room })
}

fn members(numbers: &Numbers, service: &WantedService, cohort: Cohort) -> Vec<Member> {
    let usable = service.backends.iter().filter(|backend| backend.cohort == cohort && backend.is_usable());
    let member = |backend: &WantedBackend| {
        let numbered = &numbers.backends[&(service.key, backend.address)];
        // Numbers are below the 16,384 backends that a configuration may have.
        Member { number: numbered.number as u16, address: backend.address, weight: backend.weight.get() }
    };
    usable.map(member).collect()
}

/// Lines for the tables of the generation that isn't in force.
fn take_lines(
    numbers: &mut Numbers,
    dataplane: &KernelDataplane,
    service: &WantedService,
    built: &[Vec<u16>; 2],
) -> Result<(), ApplyError> {
    let generation = 1 - in_force(dataplane, &service.key);
    let mut runs = numbers.services[&service.key].runs;
    for (run, table) in runs[generation].iter_mut().zip(built) {
        let wanted = lines(table.len() as u32);
        if run.is_some_and(|run| run.count() == wanted) {
            continue;
        }
        if let Some(run) = run.take() {
            numbers.lines.give(run);
        }
        if wanted > 0 {
            let room = dataplane.loaded.maps.maglev.len();
            let needed = wanted as usize;
            let no_room = ApplyError::NoRoom { what: "lines of Maglev tables", needed, room, key: "backends" };
            *run = Some(numbers.lines.take(table.len() as u32).ok_or(no_room)?);
        }
    }
    if let Some(numbered) = numbers.services.get_mut(&service.key) {
        numbered.runs = runs;
    }
    Ok(())
}

/// The generation in force; of a service that isn't there yet, the second, so that the first is written.
fn in_force(dataplane: &KernelDataplane, key: &ServiceKey) -> usize {
    match dataplane.numbers.services.get(key) {
        Some(service) => Control(dataplane.control(service.number).load()).generation(),
        None => 1,
    }
}

/// From here on nothing fails.
fn commit(dataplane: &mut KernelDataplane, wanted: &[WantedService], plan: Plan) {
    // What the last change took out of force may have been looked at until just now.
    thread::sleep(GRACE.saturating_sub(dataplane.switched.elapsed()));
    let in_force: BTreeMap<ServiceKey, usize> =
        wanted.iter().map(|service| (service.key, in_force(dataplane, &service.key))).collect();
    let before = std::mem::replace(&mut dataplane.numbers, plan.numbers);
    let maps = &dataplane.loaded.maps;
    for (nat, number) in &dataplane.numbers.nats {
        let first_slot = Nat::first_slot(*number, maps.settings.read(0).nat_count);
        maps.nats.write(*number as usize, Nat { address: address(*nat), first_slot, ..Nat::default() });
    }
    for service in wanted {
        let number = dataplane.numbers.services[&service.key].number;
        for backend in &service.backends {
            let known = before.backends.contains_key(&(service.key, backend.address));
            let nat = plan.nat_of.get(&(service.key, backend.address)).copied();
            write_backend(dataplane, number, &service.key, backend, known, nat);
        }
        let known = before.services.contains_key(&service.key);
        write_service(dataplane, service, in_force[&service.key], plan.tables.get(&service.key), known);
    }
    switch_destinations(dataplane, &plan.destinations, plan.seed);
    dataplane.switched = Instant::now();
    let gone: Vec<u32> = before
        .services
        .iter()
        .filter(|(key, _)| !dataplane.numbers.services.contains_key(*key))
        .map(|(_, service)| service.number)
        .collect();
    if !gone.is_empty() {
        retire(dataplane, &gone);
    }
}

fn write_backend(
    dataplane: &KernelDataplane,
    service: u32,
    key: &ServiceKey,
    wanted: &WantedBackend,
    known: bool,
    nat: Option<(u8, u8)>,
) {
    let maps = &dataplane.loaded.maps;
    let number = dataplane.numbers.backends[&(*key, wanted.address)].number as usize;
    let (way, vlan) = wanted.way.as_ref().map_or((abi::Way::default(), 0), abi_way);
    let (nat_first, nat_count) = nat.unwrap_or_default();
    let cohort = u8::from(wanted.cohort == Cohort::Canary);
    if !known {
        clear_backend_counters(dataplane, number);
        let record = Backend {
            address: address(wanted.address.ip()),
            ways: [way; 2],
            selected: SharedWord::new(u64::from(vlan) << 16),
            port: wanted.address.port().to_be_bytes(),
            service: service as u16,
            cohort,
            in_use: 1,
            nat_first,
            nat_count,
        };
        maps.backends.write(number, record);
        return;
    }
    maps.backends.set_field(number, offset_of!(Backend, cohort), cohort);
    if nat.is_some() {
        // Whoever reads one of the two meanwhile takes a port of an address that is ours all the same: addresses are never given to others.
        maps.backends.set_field(number, offset_of!(Backend, nat_first), nat_first);
        maps.backends.set_field(number, offset_of!(Backend, nat_count), nat_count);
    }
    let selected = maps.backends.word(number, offset_of!(Backend, selected));
    let current = maps.backends.read(number);
    let in_force = (selected.load() & 1) as usize;
    let next = 1 - in_force;
    if current.ways[in_force] != way || selected.load() >> 16 != u64::from(vlan) {
        maps.backends.set_field(number, offset_of!(Backend, ways) + next * size_of::<abi::Way>(), way);
        selected.store(next as u64 | u64::from(vlan) << 16);
    }
}

fn abi_way(way: &Way) -> (abi::Way, u16) {
    let record = abi::Way { macs: abi::Macs::new(way.destination_mac, way.source_mac), interface: way.interface };
    (record, way.vlan.unwrap_or(0))
}

/// A number that another backend had begins at zero.
fn clear_backend_counters(dataplane: &KernelDataplane, number: usize) {
    let maps = &dataplane.loaded.maps;
    let settings = maps.settings.read(0);
    for cpu in 0..settings.cpus {
        maps.backend_counters.write((cpu * settings.backends) as usize + number, BackendCounters::default());
    }
    maps.sweep_counters.write(number, BackendCounters::default());
}

/// Writes a service's record, and its tables where there are others than before: these are put in force instead of the generation that is.
fn write_service(
    dataplane: &KernelDataplane,
    wanted: &WantedService,
    in_force: usize,
    built: Option<&[Vec<u16>; 2]>,
    known: bool,
) {
    let maps = &dataplane.loaded.maps;
    let numbered = &dataplane.numbers.services[&wanted.key];
    let number = numbered.number as usize;
    let generation = if built.is_some() { 1 - in_force } else { in_force };
    let mut tables = [Table::default(); 2];
    for ((table, run), built) in tables.iter_mut().zip(numbered.runs[generation]).zip(built.into_iter().flatten()) {
        if let Some(run) = run {
            write_table(dataplane, run, built);
            *table = Table { first_line: run.first(), size: built.len() as u32 };
        }
    }
    let shift = maps.settings.read(0).stamp_shift;
    let control = Control(if known { maps.services.word(number, CONTROL).load() } else { 0 })
        .with_threshold(Control::threshold_of(wanted.weight.basis_points()))
        .with_flip(wanted.flip.is_some(), wanted.flip == Some(Existing::Reset))
        .with_networks(dataplane.networks.has(numbered.number))
        .with_generation(generation);
    let units = |duration| clock::units(duration, shift);
    let timeouts = &wanted.timeouts;
    let breaker = signals::record(wanted.breaker.as_ref(), timeouts);
    let record = Service {
        control: SharedWord::new(control.0),
        seed: wanted.seed.key(),
        tables: [tables; 2],
        flags: service_flags(wanted),
        port: wanted.key.address.port().to_be_bytes(),
        in_use: 1,
        address: address(wanted.key.address.ip()),
        connect: clock::fine(timeouts.connect),
        established: units(timeouts.established),
        udp: units(timeouts.udp),
        closing: units(timeouts.closing),
        ..Service::default()
    };
    if !known {
        let settings = maps.settings.read(0);
        for cpu in 0..settings.cpus {
            maps.service_counters.write((cpu * settings.services) as usize + number, ServiceCounters::default());
        }
        signals::clear(maps, number);
        maps.breakers.write(number, breaker);
        maps.services.write(number, record);
        return;
    }
    // One field after the other, the control word last: until then the tables of the other generation are nobody's, and a timeout, a flag or a seed that
    // changes a moment earlier hurts nobody.
    if built.is_some() {
        let offset = offset_of!(Service, tables) + generation * size_of::<[Table; 2]>();
        maps.services.set_field(number, offset, tables[0]);
        maps.services.set_field(number, offset + size_of::<Table>(), tables[1]);
    }
    signals::write(maps, number, breaker);
    let old = maps.services.read(number);
    if old.flags != record.flags {
        maps.services.set_field(number, offset_of!(Service, flags), record.flags);
    }
    for (half, seed) in record.seed.iter().enumerate().filter(|(half, seed)| old.seed[*half] != **seed) {
        maps.services.set_field(number, offset_of!(Service, seed) + half * size_of::<u64>(), *seed);
    }
    for (offset, value) in [
        (offset_of!(Service, connect), record.connect),
        (offset_of!(Service, established), record.established),
        (offset_of!(Service, udp), record.udp),
        (offset_of!(Service, closing), record.closing),
    ] {
        maps.services.set_field(number, offset, value);
    }
    maps.services.word(number, CONTROL).store(control.0);
}

fn service_flags(wanted: &WantedService) -> u32 {
    let bits = [
        (wanted.mode == Mode::Nat, flags::NAT),
        (wanted.affinity == Affinity::Client, flags::CLIENT_AFFINITY),
        (wanted.breaker.is_some(), flags::BREAKER),
        (wanted.on_lease_expiry == OnLeaseExpiry::Hold, flags::LEASE_HOLD),
        (wanted.key.protocol == Protocol::Udp, flags::UDP),
        (wanted.key.address.is_ipv6(), flags::IPV6),
    ];
    bits.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit)
}

fn write_table(dataplane: &KernelDataplane, run: Run, entries: &[u16]) {
    for (line, entries) in entries.chunks(MAGLEV_LINE as usize).enumerate() {
        let mut record = MaglevLine::default();
        record.backends[..entries.len()].copy_from_slice(entries);
        dataplane.loaded.maps.maglev.write(run.first() as usize + line, record);
    }
}

fn switch_destinations(dataplane: &KernelDataplane, entries: &[Destination], seed: u64) {
    let maps = &dataplane.loaded.maps;
    let word = maps.settings.word(0, offset_of!(Settings, destinations));
    let generation = word.load() & 1;
    let in_force = (0..DESTINATIONS as usize).map(|at| maps.destinations.read(generation as usize * DESTINATIONS as usize + at));
    if word.load() >> 1 == seed && in_force.eq(entries.iter().copied()) {
        return;
    }
    let next = 1 - generation;
    for (at, entry) in entries.iter().enumerate() {
        maps.destinations.write(next as usize * DESTINATIONS as usize + at, *entry);
    }
    word.store(seed << 1 | next);
}

/// Forgets services that no destination names any more, with their backends and connections, so that their numbers can be given to others.
fn retire(dataplane: &KernelDataplane, services: &[u32]) {
    thread::sleep(GRACE);
    let maps = &dataplane.loaded.maps;
    for number in 0..maps.backends.len() {
        let backend = maps.backends.read(number);
        if backend.in_use != 0 && services.contains(&u32::from(backend.service)) {
            maps.backends.set_field(number, offset_of!(Backend, in_use), 0_u8);
        }
    }
    for number in services {
        maps.services.set_field(*number as usize, offset_of!(Service, in_use), 0_u8);
    }
    // The sweep forgets what belongs to nobody; the time doesn't matter to that.
    match dataplane.clock() {
        Ok(clock) => drop(sweep::sweep(maps, &clock)),
        Err(error) => tracing::error!(%error, "connections of removed services are left to the next sweep"),
    }
}

/// Gives back the numbers of backends that aren't wanted any more and of which no connection is left.
pub fn forget_drained(dataplane: &mut KernelDataplane, found: &Found) {
    let maps = &dataplane.loaded.maps;
    dataplane.numbers.backends.retain(|_, backend| {
        let number = backend.number as usize;
        let waited = backend.unwanted_since.is_some_and(|since| since.elapsed() >= QUARANTINE);
        let gone = !backend.wanted && waited && found.held.get(number).copied().unwrap_or(0) == 0;
        if gone {
            maps.backends.set_field(number, offset_of!(Backend, in_use), 0_u8);
        }
        !gone
    });
}

/// Ports of all NAT addresses in use, TCP and UDP.
pub fn nat_capacity(dataplane: &KernelDataplane) -> u64 {
    let ports = u64::from(dataplane.loaded.maps.settings.read(0).nat_count);
    dataplane.numbers.nats.len() as u64 * 2 * ports
}

const _: () = assert!(BUCKET == 8);
