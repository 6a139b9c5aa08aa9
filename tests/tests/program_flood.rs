//! A flood of first packets from random sources: what it does to connections that live, to what is counted, and to a breaker.
//!
//! `docs/signals.md`, "The breaker", says the same in words.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use splitter_ebpf::breaker::Cause;
use splitter_tests::{
    bench::scale::{
        connections,
        fill::Sender,
        many::{self, client, key, set_client, set_flags, syn},
    },
    oracle::{Action, sample},
    packet::{ACK, Mac, SYN},
    rig::{
        self, Rig,
        play::{answer, destination, endpoints},
    },
};
use splitter_user::{
    config::Tables,
    controller::Cohorts,
    dataplane::{Counters, Dataplane, Trip, WantedService},
    model::{Breaker, Cohort, Existing, Factor, Mode, Weight},
};

/// First packets, in each mode.
const FLOOD: u32 = 5_000_000;
/// Connections that were there before.
const BEFORE: u32 = 1_000;
/// First packets between two sweeps of the agent's.
const SWEEP_EACH: u32 = 250_000;
/// Where the breaker trips it does so long before this.
const LESS: u32 = 1_000_000;
/// When an attempt has failed.
const CONNECT: Duration = Duration::from_millis(200);
/// The breaker's.
const WINDOW: Duration = Duration::from_secs(1);
/// Clients of one number after the other have the ports of one address, those below are the established ones'.
const STRANGERS: std::ops::RangeInclusive<u32> = 60_000..=u32::MAX / 2;

/// Less room than attempts begin within their time, so that some are displaced by others.
const TABLES: Tables = Tables { services: 16, backends: 64, connections: 1 << 14, networks: 16 };

#[test]
fn a_flood_through_nat_ends_no_connection_and_trips_no_breaker_that_compares() -> Result<()> {
    withstands(Mode::Nat)
}

#[test]
fn a_flood_through_dsr_ends_no_connection_and_trips_no_breaker_that_compares() -> Result<()> {
    withstands(Mode::Dsr)
}

#[test]
fn a_breaker_on_timeouts_that_does_not_compare_takes_a_flood_for_a_canary_that_does_not_answer() -> Result<()> {
    for mode in [Mode::Nat, Mode::Dsr] {
        flooded(mode, None, |scene| {
            // Until what was completed before has left the breaker's window: it's judged as soon as the first attempts are due.
            thread::sleep(WINDOW + CONNECT);
            scene.flood_until(LESS, |scene| Ok(scene.trip().is_some()))?;
            let trip =
                scene.trip().context("spoofed attempts never complete, so the canary's share of timeouts is above any limit")?;
            ensure!(trip.cause == Cause::Timeout, "{trip:?}");
            let failed =
                [trip.tallies.stable, trip.tallies.canary].map(|tally| f64::from(tally.timed_out) / f64::from(tally.due));
            ensure!(failed.iter().all(|share| *share > 0.5), "in either cohort what fails are spoofed attempts: {trip:?}");
            ensure!((failed[0] - failed[1]).abs() < 0.05, "both cohorts' attempts fail alike: {trip:?}");
            let of_canary = scene.counters()[Cohort::Canary].opened;
            scene.flood_until(10_000, |_| Ok(false))?;
            ensure!(scene.counters()[Cohort::Canary].opened == of_canary, "nothing new reaches the canary");
            scene.all_are_where_they_were()
        })?;
    }
    Ok(())
}

fn withstands(mode: Mode) -> Result<()> {
    flooded(mode, Factor::from_hundredths(200), |scene| {
        let begun = Instant::now();
        scene.flood_until(FLOOD, |scene| {
            let live: u64 = scene.live();
            ensure!(live == u64::from(BEFORE), "{live} live in the middle of it");
            ensure!(scene.trip().is_none(), "{:?}", scene.trip());
            Ok(false)
        })?;
        let took = begun.elapsed();
        println!("{mode}: {FLOOD} first packets in {took:.1?}, {:.0}/s", f64::from(FLOOD) / took.as_secs_f64());
        scene.all_are_where_they_were()?;
        thread::sleep(CONNECT + Duration::from_millis(50));
        let swept = scene.rig.dataplane().sweep();
        let left: u64 = swept.connections.values().sum();
        ensure!(left == u64::from(BEFORE), "{left} are in the table when all attempts are out of time");
        scene.all_are_where_they_were()?;
        ensure!(scene.live() == u64::from(BEFORE), "{} live", scene.live());
        ensure!(scene.trip().is_none(), "{:?}", scene.trip());

        let counters = scene.counters();
        // A source that comes twice within the time is taken for a SYN sent again.
        let seen = Cohort::ALL.map(|cohort| counters[cohort].opened + counters[cohort].retransmitted);
        ensure!(seen.iter().sum::<u64>() == u64::from(FLOOD + BEFORE), "{seen:?} seen");
        let shares = Cohort::ALL.map(|cohort| {
            let count = &counters[cohort];
            let spoofed = count.opened - count.completed;
            println!("{mode}: {cohort}: {spoofed} spoofed, {} of them timed out, the others displaced", count.timed_out);
            count.timed_out as f64 / spoofed as f64
        });
        ensure!(shares.iter().all(|share| *share > 0.0 && *share <= 1.0), "{shares:?}");
        // Of millions each, so that chance makes no difference of a hundredth.
        ensure!((shares[0] - shares[1]).abs() < 0.01, "the cohorts' attempts came to different ends: {shares:?}");
        for (cohort, count) in [(Cohort::Stable, counters[Cohort::Stable]), (Cohort::Canary, counters[Cohort::Canary])] {
            let nothing =
                [count.refused, count.reset_by_backend, count.reset_by_client, count.closed, count.unreachable, count.ended];
            ensure!(nothing == [0; 6], "{cohort}: {count:?}");
            ensure!(count.completed == count.established, "{cohort}: {count:?}");
        }
        Ok(())
    })
}

/// A service under a flood.
struct Scene<'a> {
    rig: &'a mut Rig,
    mode: Mode,
    sender: Sender,
    random: Xoshiro256PlusPlus,
    /// By client: where its connection goes, and what the backend sees of it.
    before: BTreeMap<u32, (Mac, (SocketAddr, SocketAddr))>,
}

/// One service with half its weight on the canary and connections on both, whose breaker looks at timeouts and SYNs sent again.
fn flooded(mode: Mode, factor: Option<Factor>, body: impl FnOnce(&mut Scene<'_>) -> Result<()> + Send) -> Result<()> {
    rig::with(&connections::nat_for(50_000), TABLES, |rig| {
        rig.dataplane().apply(&[service(mode, factor)])?;
        let (sender, random) = (Sender::to(0), Xoshiro256PlusPlus::seed_from_u64(11));
        let mut scene = Scene { rig, mode, sender, random, before: BTreeMap::new() };
        scene.establish()?;
        body(&mut scene)
    })
}

fn service(mode: Mode, stable_factor: Option<Factor>) -> WantedService {
    let mut service = many::service(0, 0, 4, mode);
    let limit = Weight::from_basis_points(500).ok();
    service.weight = Weight::from_basis_points(5_000).expect("a half");
    service.timeouts.connect = CONNECT;
    service.breaker = Some(Breaker {
        refused: limit,
        timeout: limit,
        reset: limit,
        retransmit: limit,
        min_attempts: 20,
        window: WINDOW,
        stable_factor,
        existing: Existing::Reset,
    });
    service
}

impl Scene<'_> {
    /// Completes the handshakes of those that are there before.
    fn establish(&mut self) -> Result<()> {
        for number in 0..BEFORE {
            let sent = self.forward(&self.frame(number, SYN), sample::FRONT)?;
            if self.mode == Mode::Nat {
                self.forward(&answer(&sent, SYN | ACK)?.build(), sample::BACK)?;
            }
            let sent = self.forward(&self.frame(number, ACK), sample::FRONT)?;
            self.before.insert(number, (destination(&sent), endpoints(&sent)?));
        }
        ensure!(self.live() == u64::from(BEFORE), "{} live", self.live());
        let counters = self.counters();
        ensure!(Cohort::ALL.into_iter().all(|cohort| counters[cohort].live() > 300), "both cohorts have some");
        Ok(())
    }

    fn frame(&self, number: u32, flags: u8) -> Vec<u8> {
        let mut frame = syn(0, client(number));
        set_client(&mut frame, client(number));
        set_flags(&mut frame, flags);
        frame
    }

    fn forward(&mut self, frame: &[u8], ingress: u32) -> Result<Vec<u8>> {
        let seen = self.rig.run(frame, self.rig.ingress(ingress))?;
        let forwarded = matches!(seen.action, Action::Tx | Action::Redirect) && seen.counted.is_empty();
        ensure!(forwarded, "{:?}, counted {:?}", seen.action, seen.counted);
        Ok(seen.frame)
    }

    /// First packets of random clients; the agent sweeps in between, and looks.
    fn flood_until(&mut self, most: u32, look: impl Fn(&mut Self) -> Result<bool>) -> Result<()> {
        let mut sent = 0;
        while sent < most {
            let program = self.rig.dataplane().program(true)?;
            for _ in 0..SWEEP_EACH.min(most - sent) {
                let from = self.random.random_range(STRANGERS);
                ensure!(self.sender.send(program, from, 1)?.forwarded, "client {from} was not forwarded, after {sent} others");
                sent += 1;
            }
            self.rig.dataplane().sweep();
            if look(self)? {
                break;
            }
        }
        Ok(())
    }

    fn all_are_where_they_were(&mut self) -> Result<()> {
        for (number, before) in self.before.clone() {
            let sent = self.forward(&self.frame(number, ACK), sample::FRONT)?;
            ensure!((destination(&sent), endpoints(&sent)?) == before, "client {number} is not where it was");
        }
        Ok(())
    }

    fn counters(&mut self) -> Cohorts<Counters> {
        let sample = self.rig.dataplane().sample();
        let mut sums = Cohorts::<Counters>::default();
        for backend in sample.services[&key(0)].backends.values() {
            let (sum, more) = (&mut sums[backend.cohort], backend.counters);
            let rows = [
                (&mut sum.opened, more.opened),
                (&mut sum.completed, more.completed),
                (&mut sum.refused, more.refused),
                (&mut sum.timed_out, more.timed_out),
                (&mut sum.reset_by_backend, more.reset_by_backend),
                (&mut sum.reset_by_client, more.reset_by_client),
                (&mut sum.closed, more.closed),
                (&mut sum.retransmitted, more.retransmitted),
                (&mut sum.unreachable, more.unreachable),
                (&mut sum.established, more.established),
                (&mut sum.ended, more.ended),
            ];
            rows.into_iter().for_each(|(sum, more)| *sum += more);
        }
        sums
    }

    fn live(&mut self) -> u64 {
        let counters = self.counters();
        Cohort::ALL.into_iter().map(|cohort| counters[cohort].live()).sum()
    }

    fn trip(&mut self) -> Option<Trip> {
        self.rig.dataplane().sample().services[&key(0)].trip
    }
}
