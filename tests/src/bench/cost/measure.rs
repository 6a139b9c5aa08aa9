//! Measuring one case after the other on a data plane.

use std::{
    collections::BTreeMap,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result, anyhow, ensure};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use splitter_ebpf::{
    abi::{Backend, Nat, Settings, Slot},
    bench::{Flow, Plan, does},
};
use splitter_user::dataplane::Dataplane;

use super::{
    Row,
    case::{Case, Kind},
    entry::{Callee, Entry},
    moved::Moved,
    stage::{Setting, Stage},
    traffic::{Layout, clients},
};
use crate::{
    bench::{report::Cost, stats::spread},
    oracle::{Mode, Protocol, World, sample},
    packet::{ACK, SYN},
    rig::{self, Rig, memory::Memory},
};

/// Flows that there is room for in any case: those that take all ports of a CPU.
const MOST_PORTS: usize = 64;

/// XDP actions.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
const REDIRECT: u32 = 4;

/// How often everything is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    rounds: usize,
    /// Runs in a round, at least; each flow equally often.
    runs: usize,
    /// Flows, at most.
    flows: usize,
}

impl Effort {
    /// For figures.
    pub const FULL: Self = Self { rounds: 15, runs: 200_000, flows: usize::MAX };
    /// For small differences between many builds.
    pub const STEPS: Self = Self { rounds: 45, ..Self::FULL };
    /// To have a look.
    pub const QUICK: Self = Self { rounds: 5, runs: 50_000, flows: usize::MAX };
    /// Where the clock counts instructions. The median leaves out what the timer's interrupt adds to a round.
    pub const COUNT: Self = Self { rounds: 5, runs: 500, flows: 1 };
    /// To see whether it works.
    pub const REHEARSAL: Self = Self { rounds: 2, runs: 100, flows: 500 };
}

/// A data plane, and its tables.
pub struct Session<'a> {
    rig: &'a mut Rig,
    stage: Stage,
    world: World,
    effort: Effort,
    others: &'a [Build],
    affinity: Memory,
    nat_affinity: Memory,
    slots: Memory,
}

/// Another build of the program, measured beside the one that ships.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its object.
    pub object: PathBuf,
    /// Its runs end on the way, by `XDP_DROP`.
    pub ends: bool,
    /// What runs of the program that ships count and these don't.
    pub uncounted: &'static [&'static str],
}

/// What the kernel said of each round, in nanoseconds a run.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// Of the empty program.
    pub empty: Vec<f64>,
    /// Of the program that ships.
    pub shipped: Vec<f64>,
    /// Of each other build.
    pub others: Vec<Vec<f64>>,
}

/// From where to where a packet goes.
type Pair = (SocketAddr, SocketAddr);

/// What is run.
struct Traffic {
    /// The first flow's.
    frame: Vec<u8>,
    flows: Vec<Flow>,
    plan: Plan,
    /// All is forgotten before each round.
    fresh: bool,
    /// To which counters each run adds one.
    counts: &'static [&'static str],
    /// How many connections were taken for another one, and so aren't counted as opened.
    merged: u64,
    action: u32,
}

impl<'a> Session<'a> {
    /// On a rig that was opened for this stage.
    ///
    /// # Errors
    /// The tables can't be mapped.
    pub fn new(rig: &'a mut Rig, stage: Stage, effort: Effort, others: &'a [Build]) -> Result<Self> {
        rig.guard();
        rig.apply(&stage.world())?;
        let map = |name: &str| Memory::pinned(&rig.maps().join(name));
        let (affinity, nat_affinity, slots) = (map("AFFINITY")?, map("NAT_AFFINITY")?, map("SLOTS")?);
        Ok(Self { rig, stage, world: stage.world(), effort, others, affinity, nat_affinity, slots })
    }

    /// Measures a case.
    ///
    /// # Errors
    /// The kernel's; or a run was not the run meant.
    pub fn measure(&mut self, case: &Case) -> Result<Row> {
        let Durations { empty, shipped, others } = self.rounds(case)?;
        let over_empty = |raw: &[f64]| spread(&raw.iter().zip(&empty).map(|(raw, empty)| raw - empty).collect::<Vec<_>>());
        let (net, raw) = (over_empty(&shipped).context("no round")?, spread(&shipped).context("no round")?);
        let cost = Cost {
            case: case.name.clone(),
            ns: net.median,
            min: net.min,
            max: net.max,
            raw_ns: raw.median,
            empty_ns: spread(&empty).context("no round")?.median,
            rounds: self.effort.rounds,
            flows: case.flows.min(self.effort.flows),
            services: self.stage.services,
        };
        Ok(Row { cost, other: others.first().and_then(|other| over_empty(other)) })
    }

    /// Runs a case, each program in turn in every round.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub fn rounds(&mut self, case: &Case) -> Result<Durations> {
        let flows = case.flows.min(self.effort.flows);
        let objects: Vec<_> = self.others.iter().map(|build| build.object.as_path()).collect();
        let mut entry = Entry::open(self.rig, case.multi_buffer, (flows + spare(flows)).max(MOST_PORTS), &objects)?;
        self.forget();
        let traffic = self.traffic(&mut entry, case.kind, flows)?;
        entry.set_flows(&traffic.flows)?;
        entry.set_plan(&traffic.plan);
        let runs = u32::try_from(if traffic.fresh { flows } else { flows * self.effort.runs.div_ceil(flows) })?;
        let callees: Vec<_> =
            [Callee::Empty, Callee::Shipped].into_iter().chain((0..self.others.len()).map(Callee::Other)).collect();
        // Once for the caches, so that no round is the first.
        for callee in &callees {
            self.round(&mut entry, &traffic, *callee, runs)?;
        }
        let mut durations = Durations { others: vec![Vec::new(); self.others.len()], ..Durations::default() };
        for round in 0..self.effort.rounds {
            for turn in 0..callees.len() {
                let callee = callees[(round + turn) % callees.len()];
                let ns = f64::from(self.round(&mut entry, &traffic, callee, runs)?);
                match callee {
                    Callee::Empty => durations.empty.push(ns),
                    Callee::Shipped => durations.shipped.push(ns),
                    Callee::Other(number) => durations.others[number].push(ns),
                }
            }
        }
        Ok(durations)
    }

    /// One measurement, in nanoseconds a run; every run of it was the run meant.
    fn round(&mut self, entry: &mut Entry, traffic: &Traffic, callee: Callee, runs: u32) -> Result<u32> {
        if traffic.fresh {
            self.forget();
        }
        let before = Moved::total(&self.rig.dataplane().sample());
        let measured = entry.run(callee, &traffic.frame, sample::FRONT, runs)?;
        let moved = Moved::total(&self.rig.dataplane().sample()).since(&before);
        let (expected, action) = match callee {
            Callee::Empty => (Moved::default(), TX),
            Callee::Shipped => (traffic.counted(runs), traffic.action),
            Callee::Other(number) => {
                let build = &self.others[number];
                (traffic.counted(runs).without(build.uncounted), if build.ends { DROP } else { traffic.action })
            }
        };
        // Of a million new connections, some find both their buckets full and take an older one's place.
        let displaced = expected.get("opened") > 0 && moved.get("timed_out") <= u64::from(runs / 1_000);
        let moved = if displaced { moved.without(&["timed_out"]) } else { moved };
        ensure!(moved == expected, "{runs} runs of {callee:?} counted {moved}, and not {expected}: they were not the runs meant");
        ensure!(measured.action == action, "{callee:?} returned {}, and not {action}", measured.action);
        Ok(measured.ns)
    }

    /// Empties the tables of connections.
    fn forget(&mut self) {
        for table in [&mut self.affinity, &mut self.nat_affinity, &mut self.slots] {
            table.octets().fill(0);
        }
    }

    /// What is run for packets of this kind, once everything is as they need it.
    fn traffic(&mut self, entry: &mut Entry, kind: Kind, count: usize) -> Result<Traffic> {
        let pairs = self.pairs(count);
        let varied = self.varied(count);
        let opening = if self.stage.protocol == Protocol::Tcp { SYN } else { 0 };
        let out = if self.stage.setting == Setting::TwoArm { REDIRECT } else { TX };
        Ok(match kind {
            Kind::Established => {
                let pairs = self.establish(entry, count)?;
                self.packets(&pairs, ACK, varied).counting(&["packets_to"], out)
            }
            Kind::Reply => {
                self.establish(entry, count)?;
                let mut replies = self.replies()?;
                replies.truncate(count);
                self.packets(&replies, ACK, varied).counting(&["packets_from"], TX)
            }
            Kind::New if count > 1 => {
                let packets = self.packets(&pairs, opening, varied).counting(&["packets_to", "opened"], out);
                let moved = self.play(entry, &packets)?;
                // Two connections can be taken for one where their tags in the `dsr` table are the same; it's the same two each time.
                let (opened, all) = (moved.get("opened"), count as u64);
                ensure!(opened <= all && opened + all / 100_000 >= all, "{count} new connections counted {moved}");
                Traffic { fresh: true, merged: all - opened, ..packets }
            }
            Kind::New => {
                self.play(entry, &self.packets(&pairs, opening, varied))?;
                let nat = self.stage.mode == Mode::Nat;
                let (table, forgets) =
                    if nat { (&self.nat_affinity, does::FORGET_NAT) } else { (&self.affinity, does::FORGET_DSR) };
                let place = table.words().position(|word| word != 0).context("the connection isn't in its table")?;
                let mut opened = self.packets(&pairs, opening, varied | forgets).counting(&["packets_to", "opened"], out);
                opened.plan.place = u32::try_from(place)?;
                opened
            }
            Kind::NoBackend => {
                self.packets(&pairs, opening, does::UNDO_ANSWER | does::FORGET_ERRORS).counting(&["no_backend"], TX)
            }
            Kind::Unknown => self.packets(&pairs, ACK, does::UNDO_ANSWER).counting(&["unknown_connection"], TX),
            Kind::NoPort => {
                let last = self.take_all_ports(entry)?;
                self.packets(&[last], opening, does::UNDO_ANSWER).counting(&["ports_exhausted"], TX)
            }
            Kind::NotOurs(port) => {
                let to = SocketAddr::new(self.stage.stranger(), port);
                self.packets(&[(pairs[0].0, to)], ACK, 0).counting(&["not_ours"], PASS)
            }
        })
    }

    /// Clients and the services that they go to, of which each gets as many.
    fn pairs(&self, count: usize) -> Vec<Pair> {
        let services = &self.world.services;
        let to = (0..count).map(|number| services[number % services.len()].address);
        clients(self.stage.ipv4, count).into_iter().zip(to).collect()
    }

    /// What makes each packet that of its flow.
    fn varied(&self, flows: usize) -> u32 {
        match self.stage.mode {
            Mode::Nat => does::VARY | does::UNDO_NAT,
            Mode::Dsr if flows > 1 => does::VARY,
            Mode::Dsr => 0,
        }
    }

    fn packets(&self, pairs: &[Pair], flags: u8, does: u32) -> Traffic {
        let layout = Layout { ipv4: self.stage.ipv4, protocol: self.stage.protocol, tagged: self.stage.setting == Setting::Vlan };
        let flows: Vec<_> = pairs.iter().map(|(from, to)| layout.flow(&layout.packet(*from, *to, flags))).collect();
        let frame = layout.packet(pairs[0].0, pairs[0].1, flags);
        let plan = layout.plan(&frame, does, u32::try_from(flows.len()).expect("at most a million"));
        Traffic { frame, flows, plan, fresh: false, counts: &[], merged: 0, action: TX }
    }

    /// Runs each packet once, and returns what was counted.
    fn play(&mut self, entry: &mut Entry, traffic: &Traffic) -> Result<Moved> {
        entry.set_flows(&traffic.flows)?;
        entry.set_plan(&traffic.plan);
        let before = Moved::total(&self.rig.dataplane().sample());
        entry.run(Callee::Shipped, &traffic.frame, sample::FRONT, traffic.plan.flows)?;
        Ok(Moved::total(&self.rig.dataplane().sample()).since(&before))
    }

    /// Opens connections and sees them through their handshakes. Returns `count` of them that have come that far.
    fn establish(&mut self, entry: &mut Entry, count: usize) -> Result<Vec<Pair>> {
        let does = self.varied(count);
        let opening = if self.stage.protocol == Protocol::Tcp { SYN } else { 0 };
        let mut pairs = self.pairs(count + spare(count));
        self.play(entry, &self.packets(&pairs, opening, does))?;
        if self.stage.mode == Mode::Nat {
            self.play(entry, &self.packets(&self.replies()?, SYN | ACK, does))?;
        }
        // Where buckets are full, attempts push each other out: those that are left go on.
        let keys: BTreeMap<_, _> = self.world.services.iter().map(|service| (service.address, rig::key(service))).collect();
        let dataplane = self.rig.dataplane();
        pairs.retain(|(client, service)| {
            let explained = dataplane.explain(&keys[service], client.ip(), Some(client.port()), None);
            explained.is_ok_and(|explained| explained.known.is_some())
        });
        ensure!(pairs.len() >= count, "{} of {count} connections are known", pairs.len());
        pairs.truncate(count);
        let moved = self.play(entry, &self.packets(&pairs, ACK, does))?;
        ensure!(moved.get("packets_to") == count as u64, "the second packets of {count} connections counted {moved}");
        Ok(pairs)
    }

    /// Establishes a connection on every port that this CPU has, and returns who comes too late.
    fn take_all_ports(&mut self, entry: &mut Entry) -> Result<Pair> {
        let ports = self.world.nat_ports.as_ref().map_or(0, ExactSizeIterator::len);
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow!("{what}: {error}"))?;
        let ports = ports / cpus;
        self.establish(entry, ports)?;
        self.pairs(ports + 1).pop().context("no port at all")
    }

    /// From which backend to which of the node's ports the replies of the open `nat` connections come, in no order.
    fn replies(&self) -> Result<Vec<Pair>> {
        let map = |name: &str| Memory::pinned(&self.rig.maps().join(name));
        let (settings, backends, nats) = (map("SETTINGS")?, map("BACKENDS")?, map("NATS")?);
        let settings = settings.elements().next().context("no settings")?;
        let (low, ports) = (half(settings, offset_of!(Settings, nat_low)), half(settings, offset_of!(Settings, nat_count)));
        let (backends, nats): (Vec<_>, Vec<_>) = (backends.elements().collect(), nats.elements().collect());
        let udp = if self.stage.protocol == Protocol::Udp { u32::from(ports) } else { 0 };
        let mut replies = Vec::new();
        for (index, slot) in self.slots.elements().enumerate() {
            let word = offset_of!(Slot, word);
            if slot[word..word + 8] == [0; 8] {
                continue;
            }
            let backend = backends[usize::from(half(slot, offset_of!(Slot, backend)))];
            let port = offset_of!(Backend, port);
            let port = u16::from_be_bytes([backend[port], backend[port + 1]]);
            let from = SocketAddr::new(self.address(backend, offset_of!(Backend, address)), port);
            let nat = nats[usize::from(half(slot, offset_of!(Slot, nat)))];
            let first = offset_of!(Nat, first_slot);
            let first = u32::from_ne_bytes(nat[first..first + 4].try_into()?);
            let port = u16::try_from(u32::from(low) + u32::try_from(index)? - first - udp)?;
            replies.push((from, SocketAddr::new(self.address(nat, offset_of!(Nat, address)), port)));
        }
        replies.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(8));
        Ok(replies)
    }

    fn address(&self, element: &[u8], at: usize) -> IpAddr {
        let octets: [u8; 16] = element[at..at + 16].try_into().expect("sixteen octets");
        // An IPv4 address is written as `::ffff:a.b.c.d`.
        IpAddr::from(octets).to_canonical()
    }
}

impl Traffic {
    fn counting(self, counts: &'static [&'static str], action: u32) -> Self {
        Self { counts, action, ..self }
    }

    /// What so many runs count, when they are the runs meant.
    fn counted(&self, runs: u32) -> Moved {
        let count = |name: &str| u64::from(runs) - if name == "opened" { self.merged } else { 0 };
        self.counts.iter().fold(Moved::default(), |moved, name| moved.by(*name, count(name)))
    }
}

/// How many connections more are opened than are needed, for those that don't come far enough.
const fn spare(count: usize) -> usize {
    count / 500
}

fn half(element: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([element[at], element[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_not_the_run_meant_is_no_result() {
        let stage = Stage { mode: Mode::Dsr, ipv4: true, protocol: Protocol::Tcp, services: 1, setting: Setting::OneArm };
        let error = rig::with(&stage.world(), stage.tables(), |rig| {
            let mut session = Session::new(rig, stage, Effort::REHEARSAL, &[])?;
            let mut entry = Entry::open(session.rig, true, MOST_PORTS, &[])?;
            let traffic = session.traffic(&mut entry, Kind::Established, 8)?;
            entry.set_flows(&traffic.flows)?;
            entry.set_plan(&traffic.plan);
            session.round(&mut entry, &traffic, Callee::Empty, 80)?;
            session.round(&mut entry, &traffic, Callee::Shipped, 80)?;
            session.forget();
            Ok(session.round(&mut entry, &traffic, Callee::Shipped, 80).expect_err("its connections are forgotten"))
        });
        let text = error.expect("the data plane can be made").to_string();
        assert!(
            text.contains("80 runs of Shipped counted completed 8, opened 8, packets_to 80, and not packets_to 80"),
            "{text}"
        );
    }
}
