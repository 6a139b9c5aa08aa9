//! In which worlds, and how those change under way, the program is held against the oracle.

use crate::{
    oracle::{Cohort, Existing, Rule, Service, World, sample},
    packet::generate::Mix,
};

/// A change of the world, after so many hundredths of the frames.
pub type Change = (usize, fn(&mut World));

/// Which frames meet which world.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What happens in it.
    pub name: &'static str,
    /// How much of what.
    pub mix: fn() -> Mix,
    /// Whether the program is the one that takes jumbo frames.
    pub multi_buffer: bool,
    /// What changes.
    pub course: &'static [Change],
}

/// All of them. The first two meet everything that frames can meet.
pub const SCENES: [Scene; 11] = [
    Scene { name: "frames of all kinds", mix: Mix::default, multi_buffer: true, course: &ENDING },
    Scene { name: "frames of all kinds, in one buffer", mix: Mix::default, multi_buffer: false, course: &ENDING },
    Scene { name: "a peaceful network", mix: Mix::valid, multi_buffer: true, course: &[] },
    Scene { name: "a broken network", mix: broken, multi_buffer: true, course: &[] },
    Scene { name: "a broken network, in one buffer", mix: broken, multi_buffer: false, course: &[] },
    Scene { name: "weights", mix: Mix::default, multi_buffer: true, course: &WEIGHTS },
    Scene { name: "weights on a peaceful network", mix: Mix::valid, multi_buffer: true, course: &WEIGHTS },
    Scene { name: "flips", mix: Mix::default, multi_buffer: true, course: &FLIPS },
    Scene { name: "flips on a peaceful network", mix: Mix::valid, multi_buffer: false, course: &FLIPS },
    Scene { name: "backends come and go", mix: Mix::default, multi_buffer: true, course: &BACKENDS },
    Scene { name: "backends come and go on a peaceful network", mix: Mix::valid, multi_buffer: true, course: &BACKENDS },
];

const ENDING: [Change; 2] = [(80, lose_a_way), (90, reset)];

const WEIGHTS: [Change; 5] = [
    (0, |world| weigh(world, 0)),
    (20, |world| weigh(world, 10_000)),
    (40, |world| weigh(world, 1)),
    (60, |world| weigh(world, 5_000)),
    (80, |world| weigh(world, 0)),
];

const FLIPS: [Change; 6] = [
    (0, |world| weigh(world, 6_000)),
    (20, |world| flip(world, Some(Existing::Keep))),
    (40, |world| flip(world, Some(Existing::Reset))),
    (60, |world| flip(world, None)),
    (75, |world| flip(world, Some(Existing::Reset))),
    (90, |world| flip(world, None)),
];

const BACKENDS: [Change; 6] = [
    (15, lose_a_way),
    (30, |world| each_service(world, |service| service.backends[3].weight = 0)),
    (45, |world| each_service(world, |service| service.networks.clear())),
    (60, |world| {
        *world = World { leeway: world.leeway, ..sample::world() };
        let turned = |rule: Rule| if rule == Rule::AlwaysCanary { Rule::NeverCanary } else { Rule::AlwaysCanary };
        each_service(world, |service| service.networks.iter_mut().for_each(|(_, rule)| *rule = turned(*rule)));
    }),
    (75, |world| {
        each_service(world, |service| {
            service.backends.iter_mut().filter(|backend| backend.cohort == Cohort::Stable).for_each(|b| b.weight = 0);
        });
    }),
    (90, |world| {
        each_service(world, |service| service.backends.iter_mut().for_each(|backend| backend.weight = 3));
    }),
];

fn broken() -> Mix {
    Mix { no_twist: 0, noise: 20, ..Mix::default() }
}

fn each_service(world: &mut World, change: impl FnMut(&mut Service)) {
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
