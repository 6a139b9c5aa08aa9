//! Plays rows: each through both programs, in both families, by the usual packet's path and by the other.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use splitter_ebpf::{histogram, moment::Ticks};
use splitter_tests::{
    oracle::{Action, Performed, Protocol, Reason, World, sample},
    packet::Packet,
    rig::{
        self, Rig,
        play::{BACKEND_MAC, CLIENT_MAC, answer, destination, endpoints},
    },
};
use splitter_user::{
    config::Tables,
    dataplane::{Dataplane, ServiceKey, Times, WantedService},
    model::{Cohort, Timeouts, Weight},
};

use super::row::{Counters, Do, Error, Forgery, From, Patience, Row, Service};
use sample::{BACK, FRONT};

/// Small, so that to empty and to sweep them takes no time.
const TABLES: Tables = Tables { services: 16, backends: 64, connections: 256, networks: 16 };
const HOUR: Duration = Duration::from_secs(3_600);

/// A way to play a row.
#[derive(Clone, Copy, Debug)]
struct Manner {
    ipv4: bool,
    /// The program that takes jumbo frames, which swaps words exactly; or the other.
    multi_buffer: bool,
    /// Options in the header: no usual packet.
    options: bool,
}

const MANNERS: [Manner; 3] = [
    Manner { ipv4: true, multi_buffer: true, options: false },
    Manner { ipv4: false, multi_buffer: false, options: false },
    Manner { ipv4: true, multi_buffer: true, options: true },
];

/// Plays all rows.
pub fn all(rows: &[Row]) -> Result<()> {
    let world = world();
    rig::with(&world, TABLES, |rig| {
        let mut failed = Vec::new();
        for (row, manner) in rows.iter().flat_map(|row| MANNERS.map(|manner| (row, manner))) {
            if let Err(error) = one(rig, &world, row, manner) {
                failed.push(format!("{} ({})\n{manner:?}: {error:#}", row.why, row.section));
            }
        }
        ensure!(failed.is_empty(), "{} of {} rows failed:\n{}", failed.len(), MANNERS.len() * rows.len(), failed.join("\n"));
        Ok(())
    })
}

fn one(rig: &mut Rig, world: &World, row: &Row, manner: Manner) -> Result<()> {
    let index = world.services.iter().position(|service| {
        let udp = matches!(row.service, Service::NatUdp | Service::DsrUdp);
        let nat = matches!(row.service, Service::Nat | Service::NatUdp);
        service.address.is_ipv4() == manner.ipv4
            && (service.protocol == Protocol::Udp) == udp
            && (service.mode == splitter_tests::oracle::Mode::Nat) == nat
    });
    let wanted = wanted(world, index.context("a service of this kind")?, row);
    let key = wanted.key;
    rig.empty()?;
    rig.set_multi_buffer(manner.multi_buffer);
    rig.dataplane().apply(&[wanted])?;
    let mut table = Table { rig, row, manner, key, sent: None, expected: [row.counts, row.elsewhere], at: Vec::new() };
    for (number, step) in row.steps.iter().enumerate() {
        table.take(*step).with_context(|| format!("step {number}, {step:?}"))?;
    }
    table.judge()
}

/// A row being played.
struct Table<'a> {
    rig: &'a mut Rig,
    row: &'a Row,
    manner: Manner,
    key: ServiceKey,
    /// What the backend got last.
    sent: Option<Performed>,
    /// The counters of the row's backend and of the other one: as the row says, and what is forwarded meanwhile.
    expected: [Counters; 2],
    /// Before and after each step.
    at: Vec<(Instant, Instant)>,
}

impl Table<'_> {
    fn take(&mut self, step: Do) -> Result<()> {
        let frame = self.frame(step)?;
        let begun = Instant::now();
        match step {
            Do::C(_) | Do::CD(_) => {
                let seen = self.forward(&frame, FRONT)?;
                self.count_to(&seen)?;
                self.sent = Some(seen);
            }
            Do::B(_) | Do::BD(_) | Do::Error(_) => {
                let seen = self.forward(&frame, BACK)?;
                ensure!(destination(&seen.frame) == CLIENT_MAC, "it doesn't go to the client");
                let expected = self.of_the_sent()?;
                expected.packets_from += 1;
                expected.bytes_from += octets(&frame);
            }
            Do::ClientError(_) => {
                let seen = self.forward(&frame, FRONT)?;
                self.count_to(&seen)?;
            }
            Do::Not(from, _, reason) => {
                let ingress = if from == From::Client { FRONT } else { BACK };
                self.stopped(&frame, ingress, &[reason])?;
            }
            Do::Forged(..) => self.stopped(&frame, BACK, &[Reason::IcmpUnrelated])?,
            Do::Wait(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
            Do::Sweep => drop(self.rig.dataplane().sweep()),
            Do::Flip(existing) => {
                let (key, weight) = (self.key, weight(self.row.cohort));
                self.rig.dataplane().steer(&key, weight, Some(existing))?;
            }
        }
        self.at.push((begun, Instant::now()));
        Ok(())
    }

    /// What a step sends.
    fn frame(&self, step: Do) -> Result<Bytes> {
        let flags = match step {
            Do::C(flags) | Do::CD(flags) | Do::B(flags) | Do::BD(flags) | Do::Not(_, flags, _) => flags,
            Do::Wait(_) | Do::Sweep | Do::Flip(_) | Do::Error(_) | Do::ClientError(_) | Do::Forged(..) => 0,
        };
        let packet = match step {
            Do::C(_) | Do::Not(From::Client, ..) => self.of_client(flags),
            Do::CD(_) => self.of_client(flags).payload(&b"question"[..]),
            Do::B(_) | Do::Not(From::Backend, ..) => answer(&self.sent()?.frame, flags)?,
            Do::BD(_) => answer(&self.sent()?.frame, flags)?.payload(&b"answer"[..]),
            Do::Error(error) => {
                let (nat, backend) = endpoints(&self.sent()?.frame)?;
                self.error(error, backend, nat, self.sent()?.frame[14..].to_vec())
            }
            Do::ClientError(error) => {
                let client = self.client();
                let quote = self.quote(self.key.address, client);
                return Ok(self.error(error, client, self.key.address, quote).ethernet(sample::node(FRONT), CLIENT_MAC).build());
            }
            Do::Forged(forgery, error) => {
                let (mut nat, mut backend) = endpoints(&self.sent()?.frame)?;
                let mut quote = None;
                match forgery {
                    Forgery::Port => nat.set_port(nat.port() ^ 1),
                    Forgery::Backend => backend.set_port(backend.port() + 1),
                    Forgery::Protocol => quote = Some(self.quote_of(!self.is_udp(), nat, backend)),
                }
                let quote = quote.unwrap_or_else(|| self.quote(nat, backend));
                self.error(error, backend, nat, quote)
            }
            Do::Wait(_) | Do::Sweep | Do::Flip(_) => return Ok(Bytes::new()),
        };
        Ok(if self.manner.options { packet.v4(|ip| ip.options = vec![1; 4]) } else { packet }.build())
    }

    fn of_client(&self, flags: u8) -> Packet {
        let packet = match self.is_udp() {
            true => Packet::udp(self.client(), self.key.address, &b"question"[..]),
            false => Packet::tcp(self.client(), self.key.address, flags),
        };
        packet.ethernet(sample::node(FRONT), CLIENT_MAC)
    }

    fn client(&self) -> SocketAddr {
        if self.manner.ipv4 { "198.18.0.7:1234" } else { "[2001:db8:cc::7]:1234" }.parse().expect("an address and a port")
    }

    fn is_udp(&self) -> bool {
        matches!(self.row.service, Service::NatUdp | Service::DsrUdp)
    }

    fn quote(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        self.quote_of(self.is_udp(), from, to)
    }

    fn quote_of(&self, udp: bool, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let packet =
            if udp { Packet::udp(from, to, &b"question"[..]) } else { Packet::tcp(from, to, splitter_tests::packet::ACK) };
        packet.build_network().to_vec()
    }

    /// An error from one end's side to another.
    fn error(&self, error: Error, from: SocketAddr, to: SocketAddr, quote: Vec<u8>) -> Packet {
        let [v4, v6] = match error {
            Error::Host => [(3, 1), (1, 3)],
            Error::Network => [(3, 0), (1, 0)],
            Error::Port => [(3, 3), (1, 4)],
            Error::Prohibited => [(3, 13), (1, 1)],
            Error::TooBig => [(3, 4), (2, 0)],
            Error::TimeExceeded => [(11, 0), (3, 0)],
        };
        let (kind, code) = if self.manner.ipv4 { v4 } else { v6 };
        Packet::icmp(from.ip(), to.ip(), kind, code, quote).ethernet(sample::node(BACK), BACKEND_MAC)
    }

    fn sent(&self) -> Result<&Performed> {
        self.sent.as_ref().context("nothing was sent to the backend yet")
    }

    /// What is expected of the backend that got the latest packet.
    fn of_the_sent(&mut self) -> Result<&mut Counters> {
        let to = destination(&self.sent()?.frame);
        self.of(to)
    }

    fn of(&mut self, to: splitter_tests::packet::Mac) -> Result<&mut Counters> {
        let world = world();
        let backends = world.services.iter().flat_map(|service| &service.backends);
        let mut there = backends.filter(|backend| backend.way.is_some_and(|way| way.destination == to));
        let cohort = cohort(there.next().with_context(|| format!("nobody is at {to:?}"))?.cohort);
        Ok(&mut self.expected[usize::from(cohort != self.row.cohort)])
    }

    fn count_to(&mut self, seen: &Performed) -> Result<()> {
        let expected = self.of(destination(&seen.frame))?;
        expected.packets_to += 1;
        expected.bytes_to += octets(&seen.frame);
        Ok(())
    }

    fn forward(&mut self, frame: &[u8], ingress: u32) -> Result<Performed> {
        let seen = self.rig.run(frame, self.rig.ingress(ingress))?;
        let forwarded = matches!(seen.action, Action::Tx | Action::Redirect) && seen.counted.is_empty();
        ensure!(forwarded, "{:?}, counted {:?}", seen.action, seen.counted);
        Ok(seen)
    }

    fn stopped(&mut self, frame: &[u8], ingress: u32, reasons: &[Reason]) -> Result<()> {
        let seen = self.rig.run(frame, self.rig.ingress(ingress))?;
        ensure!(seen.counted == reasons, "{:?}, counted {:?}, not {reasons:?}", seen.action, seen.counted);
        Ok(())
    }

    /// Whether everything moved that the row says, and nothing else.
    fn judge(self) -> Result<()> {
        let sample = self.rig.dataplane().sample();
        let service = &sample.services[&self.key];
        ensure!(service.backends.len() == 2, "a backend of either cohort");
        for backend in service.backends.values() {
            let other = backend.cohort != self.row.cohort;
            let expected = self.expected[usize::from(other)];
            ensure!(
                backend.counters == expected,
                "the {}'s counters\n  are       {:?}\n  should be {expected:?}",
                backend.cohort,
                backend.counters
            );
            let live = if other { self.row.elsewhere.established - self.row.elsewhere.ended } else { self.row.live };
            ensure!(backend.counters.live() == live, "{} live on {}, not {live}", backend.counters.live(), backend.cohort);
            let times = &service.times[backend.cohort];
            let (handshakes, responses) =
                if other { (self.row.elsewhere_handshakes, &[][..]) } else { (self.row.handshakes, self.row.responses) };
            self.measured(&times.handshake, handshakes).with_context(|| format!("handshakes of {}", backend.cohort))?;
            self.measured(&times.first_response, responses).with_context(|| format!("first responses of {}", backend.cohort))?;
        }
        Ok(())
    }

    /// Whether the histogram has these spans, each in a bucket between the shortest and the longest that it can have been, and nothing else.
    fn measured(&self, times: &Times, spans: &[(usize, usize)]) -> Result<()> {
        let mut left = times.counts.clone();
        let (mut shortest, mut longest) = (Duration::ZERO, Duration::ZERO);
        let between = |(from, to): &(usize, usize)| (self.at[*to].0 - self.at[*from].1, self.at[*to].1 - self.at[*from].0);
        let mut spans: Vec<(Duration, Duration)> = spans.iter().map(between).collect();
        // What must be shortest takes the shortest that is long enough, so that whatever fits at all is found to fit.
        spans.sort_by_key(|(_, most)| *most);
        for (least, most) in spans.iter().copied() {
            let [first, last] = [least, most].map(|span| histogram::bucket(Ticks(span.as_nanos() as u32 >> 8)));
            let Some(count) = left.iter_mut().take(last + 1).skip(first).find(|count| **count > 0) else {
                bail!("none of {least:?} to {most:?} (buckets {first} to {last}): {:?}", nonzero(&times.counts));
            };
            *count -= 1;
            (shortest, longest) = (shortest + least, longest + most);
        }
        ensure!(left.iter().all(|count| *count == 0), "measured besides: {:?}", nonzero(&left));
        // Both moments of a span are whole ticks of 256 ns.
        let tick = Duration::from_nanos(256) * u32::try_from(spans.len())?;
        ensure!(
            times.sum + tick >= shortest && times.sum <= longest + tick,
            "{:?} in all, not {shortest:?} to {longest:?}",
            times.sum
        );
        Ok(())
    }
}

fn nonzero(counts: &[u64]) -> Vec<(usize, u64)> {
    counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
}

/// What is counted of a frame: from the network header on.
fn octets(frame: &[u8]) -> u64 {
    frame.len() as u64 - 14
}

const fn cohort(cohort: splitter_tests::oracle::Cohort) -> Cohort {
    match cohort {
        splitter_tests::oracle::Cohort::Stable => Cohort::Stable,
        splitter_tests::oracle::Cohort::Canary => Cohort::Canary,
    }
}

/// Of the sample's services one of each kind, each with one backend of either cohort, without VLAN.
fn world() -> World {
    let mut world = sample::world();
    world.services = world.services.into_iter().step_by(2).collect();
    for service in &mut world.services {
        service.networks.clear();
        service.affinity = splitter_tests::oracle::Affinity::Connection;
        service.backends = [0, 3].map(|index| service.backends[index].clone()).to_vec();
    }
    world.nat_ports = Some(20_000..=20_255);
    world
}

const fn weight(cohort: Cohort) -> Weight {
    match cohort {
        Cohort::Stable => Weight::ZERO,
        Cohort::Canary => Weight::ALL,
    }
}

/// The row's service.
fn wanted(world: &World, index: usize, row: &Row) -> WantedService {
    let mut service = rig::wanted(world).swap_remove(index);
    service.weight = weight(row.cohort);
    let long = Timeouts { connect: HOUR, established: HOUR, udp: HOUR, closing: HOUR };
    service.timeouts = match row.patience {
        Patience::Long => long,
        Patience::ShortConnect => Timeouts { connect: Duration::from_millis(100), ..long },
        Patience::ShortSilence => Timeouts { established: Duration::from_secs(1), udp: Duration::from_secs(1), ..long },
    };
    service
}
