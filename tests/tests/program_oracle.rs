//! The program that ships against the oracle: what it does with a frame must be what `docs/packet-path.md` says, to the octet,
//! and no counter may move but those that the page names.
//!
//! 1,200,000 frames in all (fewer where `SPLITTER_FRAMES` says so: in the emulated machines of `cargo xtask vm`), valid, odd and broken, of both families and modes, in worlds that change under way.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use splitter_tests::{
    oracle::{Action, Cohort, Existing, Oracle, Reason, Rule, World, sample},
    packet::{
        generate::{Generator, Mix, Scenario},
        parse,
    },
    rig::{self, Rig},
};
use splitter_user::dataplane::Dataplane;

/// Frames of one world, by which the places of changes are told as well.
const FRAMES: usize = 100_000;
/// Says how many there are instead.
const VARIABLE: &str = "SPLITTER_FRAMES";

/// What frames of these worlds needn't meet: their tables are ample, the data plane is at work, and not every machine is fast enough for too many refusals.
const NOT_MET: [Reason; 7] = [
    Reason::RefusalSuppressed,
    Reason::TruncatedEthernet,
    Reason::PortsExhausted,
    Reason::AffinityFull,
    Reason::Untracked,
    Reason::NotReady,
    Reason::FrameFixed,
];

/// A change of the world, after so many frames.
type Change = (usize, fn(&mut World));

#[test]
fn frames_of_all_kinds() -> Result<()> {
    let mut seen = Seen::default();
    for seed in 0..4 {
        seen.add(compare(seed, Mix::default(), seed.is_multiple_of(2), &[(80_000, lose_a_way), (90_000, reset)])?);
    }
    println!("{seen:?}");
    if frames()? < FRAMES {
        // Too few to meet everything.
        return Ok(());
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.reasons.contains_key(reason)).collect();
    ensure!(missing.iter().all(|reason| NOT_MET.contains(reason)), "never met: {missing:?}");
    ensure!(seen.actions.values().all(|count| *count > 1_000) && seen.actions.len() == 4, "actions: {:?}", seen.actions);
    // A remembered first fragment gives way to another with the same place in the table, of 8,192.
    ensure!(seen.followed > 5_000 && seen.forgotten * 100 < seen.followed, "{seen:?}");
    Ok(())
}

#[test]
fn frames_of_a_peaceful_network_and_of_a_broken_one() -> Result<()> {
    compare(10, Mix::valid(), true, &[])?;
    let broken = Mix { no_twist: 0, noise: 20, ..Mix::default() };
    compare(11, broken, true, &[])?;
    compare(12, broken, false, &[]).map(drop)
}

#[test]
fn while_weights_go_from_nothing_to_everything_and_back() -> Result<()> {
    let course: [Change; 5] = [
        (0, |world| weigh(world, 0)),
        (20_000, |world| weigh(world, 10_000)),
        (40_000, |world| weigh(world, 1)),
        (60_000, |world| weigh(world, 5_000)),
        (80_000, |world| weigh(world, 0)),
    ];
    compare(20, Mix::default(), true, &course)?;
    compare(21, Mix::valid(), true, &course).map(drop)
}

#[test]
fn while_services_flip_and_flip_back() -> Result<()> {
    let course: [Change; 6] = [
        (0, |world| weigh(world, 6_000)),
        (20_000, |world| flip(world, Some(Existing::Keep))),
        (40_000, |world| flip(world, Some(Existing::Reset))),
        (60_000, |world| flip(world, None)),
        (75_000, |world| flip(world, Some(Existing::Reset))),
        (90_000, |world| flip(world, None)),
    ];
    compare(30, Mix::default(), true, &course)?;
    compare(31, Mix::valid(), false, &course).map(drop)
}

#[test]
fn while_backends_networks_and_ways_come_and_go() -> Result<()> {
    let course: [Change; 6] = [
        (15_000, lose_a_way),
        (30_000, |world| each_service(world, |service| service.backends[3].weight = 0)),
        (45_000, |world| each_service(world, |service| service.networks.clear())),
        (60_000, |world| {
            *world = World { leeway: world.leeway, ..sample::world() };
            let turned = |rule: Rule| if rule == Rule::AlwaysCanary { Rule::NeverCanary } else { Rule::AlwaysCanary };
            each_service(world, |service| service.networks.iter_mut().for_each(|(_, rule)| *rule = turned(*rule)));
        }),
        (75_000, |world| {
            each_service(world, |service| {
                service.backends.iter_mut().filter(|backend| backend.cohort == Cohort::Stable).for_each(|b| b.weight = 0);
            });
        }),
        (90_000, |world| {
            each_service(world, |service| service.backends.iter_mut().for_each(|backend| backend.weight = 3));
        }),
    ];
    compare(40, Mix::default(), true, &course)?;
    compare(41, Mix::valid(), true, &course).map(drop)
}

#[test]
fn a_world_that_differs_is_noticed() {
    let error = compare_told(50, Mix::valid(), true, &[], |world| world.services[0].address.set_port(81));
    assert!(error.is_err(), "the oracle was told of another port than the program");
}

/// What was met on the way.
#[derive(Debug, Default)]
struct Seen {
    actions: BTreeMap<Action, usize>,
    reasons: BTreeMap<Reason, usize>,
    /// Later fragments that went after their first, and that could have.
    followed: usize,
    forgotten: usize,
    /// Packets to backends and from backends, and their octets from the network header on.
    traffic: Traffic,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Traffic {
    packets_to: u64,
    bytes_to: u64,
    packets_from: u64,
    bytes_from: u64,
}

impl Traffic {
    /// Counts a frame that was forwarded.
    fn see(&mut self, frame: &[u8]) -> Result<()> {
        let view = parse::parse(frame).map_err(|flaw| anyhow!("a frame that can't be read was forwarded: {flaw:?}"))?;
        let length = u64::try_from(view.ip.end - view.ip.at)?;
        // The sample's backends have Ethernet addresses of their own kind.
        if view.destination.0[3] == 0x10 {
            (self.packets_to, self.bytes_to) = (self.packets_to + 1, self.bytes_to + length);
        } else {
            (self.packets_from, self.bytes_from) = (self.packets_from + 1, self.bytes_from + length);
        }
        Ok(())
    }

    /// What the data plane says.
    fn told(rig: &mut Rig) -> Self {
        let mut sum = Self::default();
        let sample = rig.dataplane().sample();
        for counters in sample.services.values().flat_map(|service| service.backends.values()).map(|backend| backend.counters) {
            sum.packets_to += counters.packets_to;
            sum.bytes_to += counters.bytes_to;
            sum.packets_from += counters.packets_from;
            sum.bytes_from += counters.bytes_from;
        }
        sum
    }
}

impl Seen {
    fn add(&mut self, other: Self) {
        other.actions.into_iter().for_each(|(action, count)| *self.actions.entry(action).or_default() += count);
        other.reasons.into_iter().for_each(|(reason, count)| *self.reasons.entry(reason).or_default() += count);
        self.followed += other.followed;
        self.forgotten += other.forgotten;
    }
}

fn frames() -> Result<usize> {
    match std::env::var(VARIABLE) {
        Ok(number) => number.parse().with_context(|| format!("{VARIABLE}={number}")),
        Err(_) => Ok(FRAMES),
    }
}

fn compare(seed: u64, mix: Mix, multi_buffer: bool, course: &[Change]) -> Result<Seen> {
    compare_told(seed, mix, multi_buffer, course, |_| {})
}

/// `lie` changes what the oracle, but not the program, is told.
fn compare_told(seed: u64, mix: Mix, multi_buffer: bool, course: &[Change], lie: fn(&mut World)) -> Result<Seen> {
    let mut world = sample::world();
    // The table of first fragments is small.
    world.leeway.fragments_expire = true;
    rig::with(&world.clone(), rig::AMPLE, move |rig| {
        rig.set_multi_buffer(multi_buffer);
        let scenario = Scenario { mix, ..Scenario::from(&world) };
        let (mut generator, mut oracle, mut seen) = (Generator::new(scenario, seed), Oracle::new(world), Seen::default());
        lie(oracle.world_mut());
        let frames = frames()?;
        for number in 0..frames {
            for (_, change) in course.iter().filter(|(when, _)| when * frames / FRAMES == number) {
                change(oracle.world_mut());
                rig.apply(oracle.world())?;
            }
            if let Err(error) = step(rig, &mut generator, &mut oracle, &mut seen) {
                bail!("seed {seed}, frame {number}: {error:#}");
            }
        }
        let told = Traffic::told(rig);
        ensure!(told == seen.traffic, "seed {seed}: counted {told:?}, and seen {:?}", seen.traffic);
        Ok(seen)
    })
}

fn step(rig: &mut Rig, generator: &mut Generator, oracle: &mut Oracle, seen: &mut Seen) -> Result<()> {
    let frame = loop {
        let frame = generator.next(oracle.knowledge());
        // The kernel runs no program on less.
        if frame.bytes.len() >= rig::SHORTEST {
            break frame;
        }
    };
    let ingress = rig.ingress(frame.ingress);
    let performed = rig.run(&frame.bytes, ingress)?;
    let expectation = oracle.expect(&frame.bytes, ingress);
    *seen.actions.entry(performed.action).or_default() += 1;
    performed.counted.iter().for_each(|reason| *seen.reasons.entry(*reason).or_default() += 1);
    let besides = |reason: &Reason| *reason == Reason::CanaryFallback;
    if matches!(performed.action, Action::Tx | Action::Redirect) && performed.counted.iter().all(besides) {
        seen.traffic.see(&performed.frame)?;
    }
    let outcomes: BTreeSet<_> = expectation.outcomes().map(|outcome| outcome.reason() == Some(Reason::FragmentUnknown)).collect();
    if outcomes.len() == 2 {
        let forgotten = performed.counted == [Reason::FragmentUnknown];
        *(if forgotten { &mut seen.forgotten } else { &mut seen.followed }) += 1;
    }
    match oracle.check(&expectation, &performed.observed()) {
        Ok(matched) => oracle.learn(matched),
        Err(difference) => bail!(
            "{} by interface {}: {difference}\n  in  {:02x?}\n  out {:02x?} ({:?}, counted {:?})",
            frame.label,
            ingress,
            &frame.bytes[..],
            performed.frame,
            performed.action,
            performed.counted,
        ),
    }
    Ok(())
}

fn each_service(world: &mut World, change: impl FnMut(&mut splitter_tests::oracle::Service)) {
    world.services.iter_mut().for_each(change);
}

fn weigh(world: &mut World, weight: u16) {
    each_service(world, |service| service.weight = weight);
}

fn flip(world: &mut World, existing: Option<Existing>) {
    each_service(world, |service| service.flipped = existing);
}

fn reset(world: &mut World) {
    flip(world, Some(Existing::Reset));
}

fn lose_a_way(world: &mut World) {
    each_service(world, |service| service.backends[0].way = None);
}
