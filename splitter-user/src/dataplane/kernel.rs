//! The data plane in the kernel.

use std::{
    collections::BTreeMap,
    fs::File,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    maps::{MapData, RingBuf},
    programs::Xdp,
};
use ipnet::IpNet;
use nix::fcntl::Flock;
use splitter_ebpf::{
    abi::{BackendCounters, Control, Settings, SharedWord},
    address::Address,
    affinity::{self, Word},
    cohort::{self, Hold},
    decision::{self, Lookup, Subject},
    hash::Hash,
    maglev,
    moment::Moment,
    reason::{Drop, REASONS, Refuse, Skip},
    tcp::{SlotWord, State as TcpState},
};

use super::{
    Applied, ApplyError, Attached, BackendSample, Counters, Dataplane, Explained, Info, Lease, Live, Sample, ServiceKey,
    ServiceSample, TableUse, Traced, WantedService, attach, clock,
    destinations::{address, raw_port},
    loader::{self, Loaded, Maps, Sizes},
    mapped::Mapped,
    networks::Networks,
    numbers::{CONTROL, NumberedService, Numbers, key_of},
    signals,
    sweep::{self, Clock},
    trace::{self, Reports},
};
pub use super::{
    attach::is_pinned,
    loader::{OpenError, remove_abandoned, unpin},
};
use crate::{
    config::{Config, Nat, Tables, XdpMode},
    model::{Existing, Mode, Protocol, Seed, Weight},
};

/// What a data plane is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Interfaces to attach to.
    pub interfaces: Vec<String>,
    /// How.
    pub mode: XdpMode,
    /// Where maps and links are pinned.
    pub pin_directory: PathBuf,
    /// Sizes of the tables.
    pub tables: Tables,
    /// NAT addresses and ports.
    pub nat: Nat,
}

impl Options {
    /// As the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            interfaces: config.agent.interfaces.clone(),
            mode: config.agent.xdp_mode,
            pin_directory: config.agent.pin_directory.clone(),
            tables: config.tables,
            nat: config.nat.clone(),
        }
    }
}

/// The data plane in the kernel.
pub struct KernelDataplane {
    pub(super) loaded: Loaded,
    pub(super) options: Options,
    pub(super) interfaces: Vec<Attached>,
    pub(super) numbers: Numbers,
    pub(super) networks: Networks,
    /// When a table was last switched.
    pub(super) switched: Instant,
    reports: Reports,
    /// Trips, as they happen.
    bell: RingBuf<MapData>,
    traced: Option<ServiceKey>,
    /// Held on the pin directory as long as this agent works with what is in it.
    _lock: Flock<File>,
}

/// The seeds of the services of a data plane that is pinned here, which is left alone.
///
/// # Errors
/// There is one, and it can't be read.
pub fn seeds(pin_directory: &Path) -> Result<BTreeMap<ServiceKey, Seed>, OpenError> {
    let services = loader::services(pin_directory)?;
    Ok(services
        .iter()
        .filter(|service| service.in_use != 0)
        .map(|service| (key_of(service), Seed::of_key(service.seed)))
        .collect())
}

/// Loads and attaches a data plane, or adopts the one that is there. Returns it with warnings for a person.
///
/// # Errors
/// See [`OpenError`]. What ran before runs on.
pub fn open(options: &Options) -> Result<(KernelDataplane, Vec<String>), OpenError> {
    for name in &options.interfaces {
        nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| OpenError::NoInterface { name: name.clone() })?;
    }
    let sizes = sizes(options)?;
    let lock = loader::lock(&options.pin_directory)?;
    let mut loaded = loader::load(&options.pin_directory, &sizes, |ebpf| {
        Ok(Settings {
            destinations: SharedWord::new(rand::random::<u64>() & !1),
            nat_low: options.nat.ports.low,
            nat_count: sizes.nat_ports as u16,
            cpus: sizes.cpus,
            nat_share: sizes.nat_ports / sizes.cpus,
            affinity_mask: sizes.buckets - 1,
            nat_mask: sizes.buckets - 1,
            services: sizes.services,
            backends: sizes.backends,
            stamp_shift: clock::measure_shift(ebpf)?,
            // Nobody's lease has begun.
            lease: SharedWord::new(u64::MAX),
            nats: sizes.nats,
            ..Settings::default()
        })
    })?;
    let (interfaces, warnings) = match attach(&mut loaded, options) {
        Ok(attached) => attached,
        Err(error) => {
            // A data plane that was just made and isn't attached everywhere is worse than none; one that was adopted runs on.
            if !loaded.adopted
                && let Err(left) = loader::unpin(&options.pin_directory)
            {
                tracing::warn!(%left, "what was pinned could not be removed");
            }
            return Err(error);
        }
    };
    let failed = |tried: &str, why: String| OpenError::Kernel { tried: tried.to_owned(), why };
    let map = loaded.networks.take().ok_or_else(|| failed("reading the networks", "taken".to_owned()))?;
    let networks =
        Networks::adopt(map, loaded.networks_room).map_err(|error| failed("reading the networks", error.to_string()))?;
    let reports = Reports::of(&mut loaded.ebpf)?;
    let bell = loader::bell(&mut loaded.ebpf)?;
    let numbers = Numbers::read(&loaded.maps);
    let dataplane = KernelDataplane {
        loaded,
        options: options.clone(),
        interfaces,
        numbers,
        networks,
        switched: Instant::now(),
        reports,
        bell,
        traced: None,
        _lock: lock,
    };
    dataplane.stop_traces();
    Ok((dataplane, warnings))
}

/// Attaches everywhere, and nowhere else.
fn attach(loaded: &mut Loaded, options: &Options) -> Result<(Vec<Attached>, Vec<String>), OpenError> {
    let (mut interfaces, mut warnings) = (Vec::new(), Vec::new());
    for name in &options.interfaces {
        let (attached, warning) = attach::attach(loaded, &options.pin_directory, name, options.mode)?;
        interfaces.push(attached);
        warnings.extend(warning);
    }
    attach::detach_others(&options.pin_directory, &interfaces)
        .map_err(|error| OpenError::Kernel { tried: "detaching from other interfaces".to_owned(), why: error.to_string() })?;
    if loaded.adopted {
        warnings.extend(differing_sizes(&loaded.maps, options));
    }
    Ok((interfaces, warnings))
}

fn sizes(options: &Options) -> Result<Sizes, OpenError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(what, error)| OpenError::Kernel { tried: format!("reading {what}"), why: error.to_string() })?;
    let sizes = Sizes {
        services: options.tables.services,
        backends: options.tables.backends,
        buckets: (options.tables.connections / affinity_ways()).next_power_of_two().max(2),
        networks: options.tables.networks,
        // Those of the configuration, or of each interface one of either family.
        nats: u32::try_from(options.nat.addresses.len().max(2 * options.interfaces.len())).unwrap_or(u32::MAX).max(4),
        nat_ports: u32::from(options.nat.ports.high - options.nat.ports.low) + 1,
        cpus: cpus as u32,
    };
    // A slot's number has to fit into an affinity word.
    if sizes.nats * 2 * sizes.nat_ports > 1 << affinity::VALUE_BITS {
        return Err(OpenError::TooManyPorts { addresses: sizes.nats, ports: sizes.nat_ports });
    }
    Ok(sizes)
}

const fn affinity_ways() -> u32 {
    splitter_ebpf::abi::BUCKET as u32
}

/// Sizes that the configuration changed since the maps were made: they stay as they were.
fn differing_sizes(maps: &Maps, options: &Options) -> Vec<String> {
    let settings = maps.settings.read(0);
    let connections = (settings.affinity_mask as usize + 1) * affinity_ways() as usize;
    let rows = [
        ("tables.services", options.tables.services as usize, maps.services.len()),
        ("tables.backends", options.tables.backends as usize, maps.backends.len()),
        ("tables.connections", options.tables.connections as usize, connections),
        ("nat.ports: first", usize::from(options.nat.ports.low), usize::from(settings.nat_low)),
        ("nat.ports: number", usize::from(options.nat.ports.high - options.nat.ports.low) + 1, usize::from(settings.nat_count)),
    ];
    let differing = rows.into_iter().filter(|(_, wanted, is)| wanted != is);
    differing
        .map(|(what, wanted, is)| {
            format!("{what} is {is} in the data plane that runs, and {wanted} in the configuration; it changes with `splitter detach` and a new start")
        })
        .collect()
}

impl KernelDataplane {
    /// One of the two programs, on this data plane's maps: for whoever runs frames through it by `BPF_PROG_TEST_RUN`. `multi_buffer`: the one that takes
    /// jumbo frames. The one that isn't attached is loaded for the asking.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn program(&mut self, multi_buffer: bool) -> Result<&Xdp, OpenError> {
        self.loaded.program(multi_buffer, false)
    }

    /// The program that [`Self::program`] leaves all but the usual packet to.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn program_for_any(&mut self, multi_buffer: bool) -> Result<&Xdp, OpenError> {
        self.loaded.program(multi_buffer, true)
    }

    fn service(&self, key: &ServiceKey) -> Result<&NumberedService, ApplyError> {
        self.numbers.services.get(key).ok_or(ApplyError::NoService(*key))
    }

    pub(super) fn control(&self, number: u32) -> &SharedWord {
        self.loaded.maps.services.word(number as usize, CONTROL)
    }

    /// No trace outlives the agent that asked for it.
    fn stop_traces(&self) {
        for service in self.numbers.services.values() {
            let control = self.control(service.number);
            control.store(Control(control.load()).with_trace(false).0);
        }
    }

    /// The time for a walk through the tables that begins now.
    pub(super) fn clock(&self) -> Result<Clock<fn() -> Moment>, OpenError> {
        let began = clock::moment();
        let now = clock::now(&self.loaded.ebpf, self.loaded.maps.settings.read(0).stamp_shift)?;
        Ok(Clock::new(now, began, clock::moment))
    }

    /// Counters of a backend, all CPUs and the sweep together.
    fn counters(&self, number: u32) -> Counters {
        let maps = &self.loaded.maps;
        let settings = maps.settings.read(0);
        let mut sum = Counters::default();
        // First the ends and then the beginnings: a connection that begins in between lives, and none has ended that hasn't begun.
        sum.ended =
            (0..settings.cpus).map(|cpu| self.ended(&maps.backend_counters, cpu * settings.backends + number)).sum::<u64>()
                + self.ended(&maps.sweep_counters, number);
        let mut add = |counters: BackendCounters| {
            let rows = [
                (&mut sum.packets_to, counters.packets_to),
                (&mut sum.bytes_to, counters.bytes_to),
                (&mut sum.packets_from, counters.packets_from),
                (&mut sum.bytes_from, counters.bytes_from),
                (&mut sum.opened, counters.opened),
                (&mut sum.completed, counters.completed),
                (&mut sum.refused, counters.refused),
                (&mut sum.timed_out, counters.timed_out),
                (&mut sum.reset_by_backend, counters.reset_by_backend),
                (&mut sum.reset_by_client, counters.reset_by_client),
                (&mut sum.closed, counters.closed),
                (&mut sum.retransmitted, counters.retransmitted),
                (&mut sum.unreachable, counters.unreachable),
                (&mut sum.established, counters.established),
            ];
            for (total, more) in rows {
                *total += more;
            }
        };
        for cpu in 0..settings.cpus {
            add(maps.backend_counters.read((cpu * settings.backends + number) as usize));
        }
        add(maps.sweep_counters.read(number as usize));
        sum
    }

    fn ended(&self, counters: &Mapped<BackendCounters>, index: u32) -> u64 {
        counters.word(index as usize, offset_of!(BackendCounters, ended)).load()
    }

    fn service_sample(&self, key: &ServiceKey, service: &NumberedService, now: Moment) -> ServiceSample {
        let maps = &self.loaded.maps;
        let settings = maps.settings.read(0);
        let control = Control(self.control(service.number).load());
        let mut sample = ServiceSample {
            weight: weight_of(control),
            flip: flip_of(control),
            refused: Refuse::ALL.iter().map(|reason| (reason.label(), 0)).collect(),
            trip: signals::trip(maps, service.number as usize, now),
            times: signals::times(maps, service.number as usize),
            ..ServiceSample::default()
        };
        for cpu in 0..settings.cpus {
            let counters = maps.service_counters.read((cpu * settings.services + service.number) as usize);
            sample.canary_fallback += counters.canary_fallback;
            sample.untracked += counters.untracked;
            for reason in Refuse::ALL {
                *sample.refused.entry(reason.label()).or_default() += counters.refused[reason.index()];
            }
        }
        for ((_, address), backend) in self.backends_of(key) {
            let counters = self.counters(backend.number);
            let (cohort, wanted, usable) = (backend.cohort, backend.wanted, backend.usable);
            sample.backends.insert(*address, BackendSample { cohort, wanted, usable, counters });
        }
        sample
    }

    pub(super) fn backends_of(
        &self,
        key: &ServiceKey,
    ) -> impl Iterator<Item = (&(ServiceKey, SocketAddr), &super::numbers::NumberedBackend)> {
        self.numbers.backends_of(key)
    }

    fn backend_address(&self, number: u32) -> Option<(ServiceKey, SocketAddr)> {
        self.numbers.backends.iter().find(|(_, backend)| backend.number == number).map(|(key, _)| *key)
    }

    /// The backend of a connection that the tables know, and whether that is an attempt which nobody has answered.
    fn known(
        &self,
        key: &ServiceKey,
        service: &NumberedService,
        mode: Mode,
        client: Address,
        port: u16,
        flow: Hash,
    ) -> Option<(u32, bool)> {
        let maps = &self.loaded.maps;
        let settings = maps.settings.read(0);
        let flow = flow.of_service(service.number);
        // A client that comes back from the port of a TCP connection that is over begins a new one.
        let tcp = key.protocol == Protocol::Tcp;
        match mode {
            Mode::Dsr => {
                let (first, second) = affinity::buckets(flow, settings.affinity_mask);
                let find = |bucket: u32| affinity::find(maps.affinity.bucket(bucket as usize), flow);
                let (_, word) = find(first).or_else(|| find(second))?;
                if tcp && word.state() == Some(affinity::State::Closing) {
                    return None;
                }
                let (backend, unanswered) = (word.value(), word.state() == Some(affinity::State::Embryonic));
                self.backends_of(key).any(|(_, known)| known.number == backend).then_some((backend, unanswered))
            }
            Mode::Nat => {
                let (first, second) = affinity::buckets(flow, settings.nat_mask);
                let find = |bucket: u32| affinity::find(maps.nat_affinity.bucket(bucket as usize), flow);
                let (_, word): (usize, Word) = find(first).or_else(|| find(second))?;
                let slot = maps.slots.read(word.value() as usize);
                let state = SlotWord(slot.word.load()).state()?;
                let same = !(tcp && state == TcpState::Closing)
                    && slot.client == client
                    && u16::from_ne_bytes(slot.client_port) == port
                    && u32::from(slot.service) == service.number;
                same.then_some((u32::from(slot.backend), state == TcpState::Embryonic))
            }
        }
    }
}

/// The weight that a control word means, to the nearest hundredth of a percent.
fn weight_of(control: Control) -> Weight {
    if control.flipped() {
        return Weight::ZERO;
    }
    let basis_points = (control.threshold() * 10_000 + (1 << 31)) >> 32;
    Weight::from_basis_points(u16::try_from(basis_points).unwrap_or(10_000)).unwrap_or(Weight::ALL)
}

fn flip_of(control: Control) -> Option<Existing> {
    match (control.flipped(), control.resets_canary()) {
        (false, _) => None,
        (true, true) => Some(Existing::Reset),
        (true, false) => Some(Existing::Keep),
    }
}

/// What a decision looks things up in.
struct View<'a> {
    maps: &'a Maps,
    networks: &'a Networks,
}

impl Lookup for View<'_> {
    fn network(&self, service: u32, client: Address) -> u8 {
        self.networks.verdict(service, client)
    }

    fn maglev(&self, entry: maglev::Entry) -> Option<u32> {
        let line = self.maps.maglev.read(entry.line as usize);
        line.backends.get(entry.column as usize).map(|number| u32::from(*number))
    }
}

impl Dataplane for KernelDataplane {
    fn info(&self) -> Info {
        Info {
            adoptions: self.loaded.maps.identity.read(0).adoptions,
            interfaces: self.interfaces.clone(),
            multi_buffer: self.loaded.is_multi_buffer(),
            verified_instructions: self.loaded.verified,
        }
    }

    fn apply(&mut self, wanted: &[WantedService]) -> Result<Applied, ApplyError> {
        super::apply::apply(self, wanted)
    }

    fn steer(&mut self, service: &ServiceKey, weight: Weight, flip: Option<Existing>) -> Result<(), ApplyError> {
        let word = self.control(self.service(service)?.number);
        let control = Control(word.load())
            .with_threshold(Control::threshold_of(weight.basis_points()))
            .with_flip(flip.is_some(), flip == Some(Existing::Reset));
        word.store(control.0);
        Ok(())
    }

    fn arm(&mut self, service: &ServiceKey) -> Result<(), ApplyError> {
        signals::arm(&self.loaded.maps, self.service(service)?.number as usize);
        Ok(())
    }

    fn bell(&self) -> Option<OwnedFd> {
        let bell = self.bell.as_fd().try_clone_to_owned();
        if let Err(error) = &bell {
            tracing::warn!(%error, "no descriptor is left to hear of tripped breakers at once: they are found with the next sample");
        }
        bell.ok()
    }

    fn heard(&mut self) {
        while self.bell.next().is_some() {}
    }

    fn lease(&self) -> Lease {
        signals::lease(&self.loaded.maps, clock::moment())
    }

    fn renew(&mut self, lease: Option<Duration>) {
        signals::renew(&self.loaded.maps, lease, clock::moment());
    }

    fn sample(&mut self) -> Sample {
        let maps = &self.loaded.maps;
        let mut totals = [0_u64; REASONS];
        for cpu in 0..maps.reason_counters.len() {
            for (total, packets) in totals.iter_mut().zip(maps.reason_counters.read(cpu).packets) {
                *total += packets;
            }
        }
        let now = clock::moment();
        Sample {
            services: self.numbers.services.iter().map(|(key, service)| (*key, self.service_sample(key, service, now))).collect(),
            skipped: Skip::ALL.iter().map(|reason| (reason.label(), totals[reason.counter()])).collect(),
            dropped: Drop::ALL.iter().map(|reason| (reason.label(), totals[reason.counter()])).collect(),
        }
    }

    fn sweep(&mut self) -> Live {
        let clock = match self.clock() {
            Ok(clock) => clock,
            Err(error) => {
                // Without the time nothing can be said to have expired: the next sweep may know it.
                tracing::error!(%error, "the sweep was left out");
                return Live::default();
            }
        };
        let found = sweep::sweep(&self.loaded.maps, &clock);
        super::apply::forget_drained(self, &found);
        let live = |number: u32| found.live.get(number as usize).copied().unwrap_or(0);
        Live {
            connections: self.numbers.backends.iter().map(|(key, backend)| (*key, live(backend.number))).collect(),
            affinity: TableUse {
                capacity: (self.loaded.maps.affinity.len() * splitter_ebpf::abi::BUCKET) as u64,
                used: found.words,
            },
            nat: TableUse { capacity: super::apply::nat_capacity(self), used: found.slots },
        }
    }

    fn explain(&self, key: &ServiceKey, client: IpAddr, port: Option<u16>, at: Option<Weight>) -> Result<Explained, ApplyError> {
        let numbered = self.service(key)?;
        let maps = &self.loaded.maps;
        let service = maps.services.read(numbered.number as usize);
        let hold = Hold::of(&maps.settings.read(0), &service, clock::moment());
        let mut subject = Subject::of(numbered.number, &service, hold);
        if let Some(weight) = at {
            subject.hold = Hold::None;
            let threshold = Control::threshold_of(weight.basis_points());
            subject.control = subject.control.with_flip(false, false).with_threshold(threshold);
        }
        let address = address(client);
        let raw = raw_port(port.unwrap_or(0));
        let flow = decision::flow(subject.seed, address, raw);
        let decision = decision::decide(&View { maps, networks: &self.networks }, &subject, address, flow);
        let mode = if service.has(splitter_ebpf::abi::flags::NAT) { Mode::Nat } else { Mode::Dsr };
        let known = port.filter(|_| at.is_none()).and_then(|_| self.known(key, numbered, mode, address, raw, flow));
        // A client whose attempt is spared would begin a new connection.
        let spared = |number, unanswered| {
            let cohort = maps.backends.read(number as usize).cohort;
            key.protocol == Protocol::Tcp && unanswered && cohort::spares(subject.control, cohort, || subject.hold)
        };
        let known = known.filter(|(number, unanswered)| !spared(*number, *unanswered));
        let known_address = known.and_then(|(number, _)| self.backend_address(number));
        let is_canary = known_address
            .and_then(|key| self.numbers.backends.get(&key))
            .is_some_and(|backend| backend.cohort == crate::model::Cohort::Canary);
        let reset = is_canary && subject.control.resets_canary();
        Ok(Explained {
            known: known_address.map(|(_, address)| address).filter(|_| !reset),
            reset,
            rule: decision.rule,
            hash: decision.hash.0,
            place: decision.hash.place(),
            threshold: subject.control.threshold(),
            table_size: decision.table.size,
            entry: decision.backend.map(|(entry, _)| entry.number),
            backend: decision.backend.and_then(|(_, number)| self.backend_address(number)).map(|(_, address)| address),
        })
    }

    fn trace(&mut self, service: &ServiceKey, clients: Option<IpNet>) -> Result<(), ApplyError> {
        let number = self.service(service)?.number;
        if let Some(clients) = clients {
            self.stop_traces();
            self.loaded.maps.trace.write(0, trace::filter(clients));
        }
        let word = self.control(number);
        word.store(Control(word.load()).with_trace(clients.is_some()).0);
        self.traced = clients.map(|_| *service);
        // What an earlier trace left isn't this one's.
        drop(self.reports.take());
        Ok(())
    }

    fn traced(&mut self) -> Vec<Traced> {
        if self.traced.is_none() {
            return Vec::new();
        }
        let reports = self.reports.take();
        let to = |number| {
            let key = self.backend_address(number)?;
            Some((key.0, key.1, self.numbers.backends.get(&key)?.cohort))
        };
        let traced = |report: trace::Report| Traced {
            client: report.client,
            port: report.port,
            to: to(report.backend),
            hash: report.hash,
            tcp_flags: report.flags,
        };
        reports.into_iter().map(traced).collect()
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        loader::unpin(&self.options.pin_directory)
    }
}
