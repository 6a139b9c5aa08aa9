//! The breaker and the lease, frame by frame through the program that ships. Nobody judges but the program: the agent's part is left out.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use splitter_ebpf::breaker::Cause;
use splitter_tests::{
    oracle::{Action, Affinity, Cohort, World, sample},
    packet::{ACK, Packet, RST, SYN},
    rig::{
        self, Rig,
        play::{CLIENT_MAC, answer, endpoints},
    },
};
use splitter_user::{
    dataplane::{Counters, Dataplane, Lease, ServiceKey, Trip, WantedService},
    model::{self, Breaker, Existing, Factor, OnLeaseExpiry, Weight},
};

use sample::{BACK, FRONT};

/// Services of [`sample::world`], IPv4; those of IPv6 are eight further on.
const NAT: usize = 0;
const DSR: usize = 2;
const NAT_UDP: usize = 4;

/// VLAN tags make a frame one that the program for the usual packet leaves to the other.
const TAGGED: [bool; 2] = [false, true];

#[test]
fn the_packet_that_crosses_the_limit_trips_and_no_new_connection_reaches_the_canary_on_any_cpu() -> Result<()> {
    for (service, tagged) in [(NAT, false), (NAT, true), (NAT + 8, false)] {
        with_breaker(only(Cause::Refused), 10_000, |scene| {
            for number in 0..19 {
                scene.refused(service, number, tagged)?;
                ensure!(scene.trip(service).is_none(), "{} attempts are too few", number + 1);
            }
            scene.refused(service, 19, tagged)?;
            let trip = scene.trip(service).context("20 of 20 attempts were refused")?;
            ensure!((trip.cause, trip.limit.basis_points()) == (Cause::Refused, 500), "{trip:?}");
            ensure!((trip.tallies.canary.attempts, trip.tallies.canary.refused) == (20, 20), "{trip:?}");
            ensure!(trip.tallies.stable == splitter_user::dataplane::BreakerTally::default(), "{trip:?}");
            ensure!(scene.rings()?, "the bell rings");
            for cpu in 0..thread::available_parallelism()?.get() {
                stay_on(cpu)?;
                for number in 0..500 {
                    let client = 1_000 + u32::try_from(cpu)? * 1_000 + number;
                    let cohort = scene.opens(service, client, tagged && number % 2 == 0)?;
                    ensure!(cohort == Cohort::Stable, "connection {number} on CPU {cpu} went to the canary");
                }
            }
            ensure!(!scene.rings()?, "once");
            ensure!(scene.trip(NAT + 1).is_none(), "another service's breaker is its own");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_share_at_the_limit_does_not_trip_and_one_failure_more_does() -> Result<()> {
    with_breaker(only(Cause::Refused), 10_000, |scene| {
        for number in 0..95 {
            scene.completes(NAT, number)?;
        }
        for number in 95..100 {
            scene.refused(NAT, number, false)?;
        }
        ensure!(scene.trip(NAT).is_none(), "5 of 100 are not more than 5%");
        scene.refused(NAT, 100, false)?;
        let trip = scene.trip(NAT).context("6 of 101 are")?;
        ensure!((trip.tallies.canary.refused, trip.tallies.canary.completed) == (6, 95), "{trip:?}");
        Ok(())
    })
}

#[test]
fn a_trip_outlasts_all_but_arming() -> Result<()> {
    with_breaker(only(Cause::Refused), 10_000, |scene| {
        for number in 0..20 {
            scene.refused(NAT, number, false)?;
        }
        let key = scene.key(NAT);
        scene.rig.dataplane().steer(&key, Weight::ALL, None)?;
        let wanted = scene.wanted.clone();
        scene.rig.dataplane().apply(&[])?;
        scene.rig.dataplane().apply(&wanted)?;
        // A service that was gone is another one; one that stays is the same under any other change.
        ensure!(scene.trip(NAT).is_none(), "of a service that was gone nothing is left");
        for number in 20..40 {
            scene.refused(NAT, number, false)?;
        }
        let mut other = wanted.clone();
        other.iter_mut().for_each(|service| {
            service.weight = Weight::from_basis_points(5_000).expect("a half");
            service.breaker = None;
        });
        scene.rig.dataplane().apply(&other)?;
        scene.rig.dataplane().apply(&wanted)?;
        scene.rig.dataplane().steer(&key, Weight::ALL, None)?;
        ensure!(scene.opens(NAT, 100, false)? == Cohort::Stable, "whatever is configured anew");
        scene.rig.dataplane().arm(&key)?;
        ensure!(scene.trip(NAT).is_none() && scene.opens(NAT, 101, false)? == Cohort::Canary, "armed");
        for number in 200..218 {
            scene.refused(NAT, number, false)?;
        }
        ensure!(scene.trip(NAT).is_none(), "what was before doesn't count");
        scene.refused(NAT, 218, false)?;
        ensure!(scene.trip(NAT).is_some_and(|trip| trip.tallies.canary.attempts == 20), "one is pending, 19 were refused");
        Ok(())
    })
}

#[test]
fn each_limit_trips_by_its_own_failures() -> Result<()> {
    with_breaker(only(Cause::Reset), 10_000, |scene| {
        for number in 0..20 {
            scene.refused(NAT, 100 + number, false)?;
            let opened = scene.completes(NAT, number)?;
            scene.rig.run(&answer(&opened, RST)?.build(), BACK)?;
            ensure!(scene.trip(NAT).is_some() == (number == 19), "after {} resets", number + 1);
        }
        ensure!(scene.trip(NAT).is_some_and(|trip| trip.cause == Cause::Reset));
        Ok(())
    })?;
    for service in [NAT, DSR] {
        with_breaker(only(Cause::Retransmit), 10_000, |scene| {
            for number in 0..20 {
                scene.opens(service, number, false)?;
                ensure!(scene.trip(service).is_none(), "{} attempts, {number} of them twice", number + 1);
                scene.opens(service, number, false)?;
                ensure!(
                    scene.trip(service).is_some() == (number == 19),
                    "{} attempts, all of them twice: {:?}",
                    number + 1,
                    scene.trip(service)
                );
            }
            ensure!(scene.counters(service).retransmitted == 20);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn attempts_that_nobody_answers_trip_with_the_first_packet_of_a_new_slot() -> Result<()> {
    for service in [NAT, DSR, NAT_UDP, NAT + 8, DSR + 8] {
        with_breaker(only(Cause::Timeout), 10_000, |scene| {
            for number in 0..20 {
                scene.opens(service, number, false)?;
            }
            ensure!(scene.trip(service).is_none(), "they may yet complete");
            // The timeout is 100 ms, and a slot of the window lasts 33 ms or 67.
            thread::sleep(Duration::from_millis(400));
            scene.opens(service, 20, false)?;
            let trip = scene.trip(service).context("20 of 20 were never answered")?;
            ensure!(trip.cause == Cause::Timeout && trip.tallies.canary.timed_out == 20, "{trip:?}");
            // That very attempt had its backend already; its client's next SYN goes to stable.
            ensure!(scene.opens(service, 21, false)? == Cohort::Stable);
            if service != NAT_UDP {
                ensure!(scene.opens(service, 20, false)? == Cohort::Stable, "it is spared");
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_handshake_completed_in_time_is_no_failure_and_one_after_it_is() -> Result<()> {
    for service in [NAT, DSR] {
        with_breaker(only(Cause::Timeout), 10_000, |scene| {
            for number in 0..30 {
                scene.completes(service, number)?;
            }
            thread::sleep(Duration::from_millis(400));
            scene.opens(service, 30, false)?;
            ensure!(scene.trip(service).is_none(), "all completed in time");
            let opened: Vec<_> = (40..60).map(|number| scene.open(service, number, false)).collect::<Result<_>>()?;
            thread::sleep(Duration::from_millis(250));
            for ((frame, _), number) in opened.iter().zip(40..) {
                scene.goes_on(service, number, frame)?;
            }
            scene.opens(service, 60, false)?;
            ensure!(scene.trip(service).is_some(), "20 of 51 were late: {:?}", scene.counters(service));
            let counters = scene.counters(service);
            ensure!((counters.completed, counters.established, counters.timed_out) == (30, 50, 20), "{counters:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn what_stable_shows_as_well_does_not_trip_where_the_breaker_compares() -> Result<()> {
    for (factor, trips) in [(None, true), (Factor::from_hundredths(200), false)] {
        let breaker = Breaker { stable_factor: factor, ..only(Cause::Refused) };
        with_breaker(breaker, 5_000, |scene| {
            let mut canary = 0;
            for number in 0..400 {
                canary += u32::from(scene.refused(NAT, number, false)? == Cohort::Canary);
            }
            ensure!(canary >= 20, "{canary} attempts of the canary");
            ensure!(scene.trip(NAT).is_some() == trips, "{factor:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_service_that_is_flipped_or_has_no_breaker_does_not_trip() -> Result<()> {
    with_breaker(only(Cause::Refused), 10_000, |scene| {
        let key = scene.key(NAT);
        let opened: Vec<_> = (0..40).map(|number| scene.open(NAT, number, false)).collect::<Result<_>>()?;
        scene.rig.dataplane().steer(&key, Weight::ALL, Some(Existing::Keep))?;
        for (frame, _) in &opened {
            scene.rig.run(&answer(frame, RST | ACK)?.build(), BACK)?;
        }
        ensure!(scene.trip(NAT).is_none(), "on stable already");
        let mut without = scene.wanted.clone();
        without.iter_mut().for_each(|service| service.breaker = None);
        scene.rig.dataplane().apply(&without)?;
        for number in 100..140 {
            scene.refused(NAT, number, false)?;
        }
        ensure!(scene.trip(NAT).is_none(), "without a breaker");
        ensure!(scene.counters(NAT).refused == 80, "counted all the same");
        Ok(())
    })
}

#[test]
fn without_a_sign_of_life_everything_new_goes_to_stable_unless_it_is_to_hold() -> Result<()> {
    with_breaker(only(Cause::Refused), 10_000, |scene| {
        let (hold, dsr_hold) = (NAT + 8, DSR + 8);
        for number in [hold, dsr_hold] {
            scene.wanted[number].on_lease_expiry = OnLeaseExpiry::Hold;
        }
        let wanted = scene.wanted.clone();
        scene.rig.dataplane().apply(&wanted)?;
        let everywhere = |scene: &mut Scene<'_>, client: u32| -> Result<Vec<Cohort>> {
            let services = [NAT, DSR, hold, dsr_hold].into_iter().flat_map(|service| TAGGED.map(|tagged| (service, tagged)));
            services.enumerate().map(|(n, (service, tagged))| scene.opens(service, client + u32::try_from(n)?, tagged)).collect()
        };
        ensure!(scene.rig.dataplane().lease() == Lease::Released, "nobody holds a lease yet");
        ensure!(everywhere(scene, 0)? == [Cohort::Canary; 8]);
        let known = scene.completes(NAT, 999)?;
        scene.rig.dataplane().renew(Some(Duration::from_millis(200)));
        ensure!(matches!(scene.rig.dataplane().lease(), Lease::Valid(left) if left <= Duration::from_millis(200)));
        thread::sleep(Duration::from_millis(250));
        ensure!(matches!(scene.rig.dataplane().lease(), Lease::RanOut(_)));
        let after = everywhere(scene, 100)?;
        ensure!(after[..4] == [Cohort::Stable; 4] && after[4..] == [Cohort::Canary; 4], "{after:?}");
        let same = scene.run(&scene.packet(NAT, 999, ACK, false))?;
        ensure!(endpoints(&same)?.1 == endpoints(&known)?.1, "an established connection keeps its backend");
        scene.rig.dataplane().renew(Some(Duration::from_secs(60)));
        ensure!(everywhere(scene, 200)? == [Cohort::Canary; 8], "it lives again");
        scene.rig.dataplane().renew(None);
        ensure!(scene.rig.dataplane().lease() == Lease::Released);
        ensure!(everywhere(scene, 300)? == [Cohort::Canary; 8], "stopped in order");
        Ok(())
    })
}

/// A data plane whose every service has a breaker.
struct Scene<'a> {
    rig: &'a mut Rig,
    wanted: Vec<WantedService>,
    world: World,
}

/// One limit of 5% with at least 20 samples.
fn only(cause: Cause) -> Breaker {
    let five = Weight::from_basis_points(500).ok();
    let limit = |of| if cause == of { five } else { None };
    Breaker {
        refused: limit(Cause::Refused),
        timeout: limit(Cause::Timeout),
        reset: limit(Cause::Reset),
        retransmit: limit(Cause::Retransmit),
        min_attempts: 20,
        window: Duration::from_secs(10),
        stable_factor: None,
        existing: Existing::Reset,
    }
}

/// `weight`: of the canary, in basis points. Attempts are out of time after 100 ms, and windows are short where it's timeouts that count.
fn with_breaker(breaker: Breaker, weight: u16, body: impl FnOnce(&mut Scene<'_>) -> Result<()> + Send) -> Result<()> {
    let mut world = sample::world();
    for service in &mut world.services {
        service.weight = weight;
        service.networks.clear();
        service.affinity = Affinity::Connection;
        service.backends.iter_mut().for_each(|backend| backend.weight = 1);
        for backend in service.backends.iter_mut().filter_map(|backend| backend.way.as_mut()) {
            (backend.vlan, backend.interface) = (None, BACK);
        }
        // Tagged frames leave by the interface that they came by.
        let ways = service.backends.iter_mut().filter_map(|backend| backend.way.as_mut());
        ways.for_each(|way| way.interface = FRONT);
    }
    let window = if breaker.timeout.is_some() { Duration::from_secs(2) } else { breaker.window };
    rig::with(&world.clone(), rig::AMPLE, |rig| {
        let mut wanted = rig::wanted(&world);
        for service in &mut wanted {
            let is_blind = service.key.protocol == model::Protocol::Udp && service.mode == model::Mode::Dsr;
            service.breaker = (!is_blind).then_some(Breaker { window, ..breaker });
            service.timeouts.connect = Duration::from_millis(100);
        }
        rig.dataplane().apply(&wanted)?;
        body(&mut Scene { rig, wanted, world })
    })
}

impl Scene<'_> {
    fn key(&self, service: usize) -> ServiceKey {
        self.wanted[service].key
    }

    fn packet(&self, service: usize, client: u32, flags: u8, tagged: bool) -> Packet {
        let address = self.world.services[service].address;
        let port = u16::try_from(1_024 + client).expect("a few thousand");
        let client = match address.is_ipv4() {
            true => std::net::SocketAddr::from(([198, 18, 0, 1], port)),
            false => std::net::SocketAddr::from(([0x2001, 0xdb8, 0xcc, 0, 0, 0, 0, 1], port)),
        };
        let packet = match self.wanted[service].key.protocol {
            model::Protocol::Tcp => Packet::tcp(client, address, flags),
            model::Protocol::Udp => Packet::udp(client, address, &b"question"[..]),
        };
        let packet = packet.ethernet(sample::node(FRONT), CLIENT_MAC);
        if tagged { packet.tagged(7) } else { packet }
    }

    /// Runs a packet that has to be forwarded.
    fn run(&mut self, packet: &Packet) -> Result<Vec<u8>> {
        let performed = self.rig.run(&packet.clone().build(), FRONT)?;
        ensure!(matches!(performed.action, Action::Tx | Action::Redirect), "{:?}: {:?}", performed.action, performed.counted);
        Ok(performed.frame)
    }

    /// A client's first packet, as it was forwarded, and the cohort that it was forwarded to.
    fn open(&mut self, service: usize, client: u32, tagged: bool) -> Result<(Vec<u8>, Cohort)> {
        let frame = self.run(&self.packet(service, client, SYN, tagged))?;
        let mac = splitter_tests::rig::play::destination(&frame);
        let backends = &self.world.services[service].backends;
        let backend = backends.iter().find(|backend| backend.way.is_some_and(|way| way.destination == mac));
        Ok((frame, backend.context("no backend has this address")?.cohort))
    }

    fn opens(&mut self, service: usize, client: u32, tagged: bool) -> Result<Cohort> {
        self.open(service, client, tagged).map(|(_, cohort)| cohort)
    }

    /// An attempt that the backend refuses.
    fn refused(&mut self, service: usize, client: u32, tagged: bool) -> Result<Cohort> {
        let (frame, cohort) = self.open(service, client, tagged)?;
        let reply = answer(&frame, RST | ACK)?;
        self.rig.run(&if tagged { reply.tagged(7) } else { reply }.build(), BACK)?;
        Ok(cohort)
    }

    /// A whole handshake; the SYN as it was forwarded.
    fn completes(&mut self, service: usize, client: u32) -> Result<Vec<u8>> {
        let (frame, _) = self.open(service, client, false)?;
        self.goes_on(service, client, &frame)?;
        Ok(frame)
    }

    /// The rest of a handshake, whose SYN was forwarded like this.
    fn goes_on(&mut self, service: usize, client: u32, syn: &[u8]) -> Result<()> {
        if self.wanted[service].mode == model::Mode::Nat {
            self.rig.run(&answer(syn, SYN | ACK)?.build(), BACK)?;
        }
        self.run(&self.packet(service, client, ACK, false)).map(drop)
    }

    fn trip(&mut self, service: usize) -> Option<Trip> {
        self.rig.dataplane().sample().services[&self.wanted[service].key].trip
    }

    /// All backends' counters together.
    fn counters(&mut self, service: usize) -> Counters {
        let sample = self.rig.dataplane().sample();
        let mut sum = Counters::default();
        for backend in sample.services[&self.wanted[service].key].backends.values() {
            sum.completed += backend.counters.completed;
            sum.refused += backend.counters.refused;
            sum.retransmitted += backend.counters.retransmitted;
            sum.established += backend.counters.established;
            sum.timed_out += backend.counters.timed_out;
        }
        sum
    }

    /// Whether the bell rings; it's silent afterwards.
    fn rings(&mut self) -> Result<bool> {
        use std::os::fd::AsFd;
        let bell = self.rig.dataplane().bell().context("a data plane in a kernel has a bell")?;
        let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        let rings = poll(&mut fds, PollTimeout::ZERO)? > 0;
        self.rig.dataplane().heard();
        Ok(rings)
    }
}

/// Pins the calling thread, and with it the program's runs.
fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
