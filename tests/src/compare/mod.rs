//! The program that ships against the oracle, at length: what it does with a frame must be what `docs/packet-path.md` says, to the octet, and no counter may
//! move but those that the page names. `tests/program_oracle.rs` does some of it with every test run, `cargo xtask oracle` ten millions.

pub mod options;
mod report;
pub mod scene;
mod seen;

use std::{
    collections::BTreeSet,
    fmt,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};

use self::{options::Options, scene::SCENES};
pub use self::{report::Report, scene::Scene, seen::Seen};
use crate::{
    oracle::{Action, Oracle, Performed, Reason, World, sample},
    packet::{
        Mac,
        generate::{Generator, Scenario},
    },
    rig::{self, Rig},
};

/// Frames of one batch, which begins with nothing known.
pub const BATCH: usize = 100_000;

/// The world that every batch begins with.
#[must_use]
pub fn world() -> World {
    let mut world = sample::world();
    // The table of first fragments is small.
    world.leeway.fragments_expire = true;
    world
}

/// One batch on a data plane of its own. `lie` changes what the oracle, but not the program, is told.
///
/// # Errors
/// The first difference, with its frame.
pub fn alone(scene: &Scene, seed: u64, frames: usize, lie: fn(&mut World)) -> Result<Seen> {
    let scene = *scene;
    rig::with(&world(), rig::AMPLE, move |rig| batch(rig, &scene, seed, frames, lie))
}

/// Many batches, on all CPUs; `done` is told of each how many frames that makes by now.
///
/// # Errors
/// The first difference, with its frame and how to see it again.
pub fn many(options: &Options, done: &(dyn Fn(usize) + Sync)) -> Result<Seen> {
    let batches = options.batches();
    let (next, frames, stop) = (AtomicUsize::new(batches.start), AtomicUsize::new(0), AtomicBool::new(false));
    let (all, failed) = (Mutex::new(Seen::default()), Mutex::new(None));
    let work = |rig: &mut Rig| -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if !batches.contains(&number) {
                break;
            }
            rig.empty()?;
            rig.apply(&world())?;
            let (scene, seed) = (&SCENES[number % SCENES.len()], options.seed_of(number));
            let seen = batch(rig, scene, seed, options.frames_of(number), |_| {})
                .with_context(|| format!("batch {number} ({}): see it again by {}", scene.name, options.again(number)))?;
            let sum = frames.fetch_add(seen.frames, Ordering::Relaxed) + seen.frames;
            all.lock().unwrap_or_else(PoisonError::into_inner).add(seen);
            done(sum);
        }
        Ok(())
    };
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cpus.min(batches.len()) {
            scope.spawn(|| {
                if let Err(error) = rig::with(&world(), rig::AMPLE, |rig| work(rig)) {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// The rig has [`world`], and nothing else.
fn batch(rig: &mut Rig, scene: &Scene, seed: u64, frames: usize, lie: fn(&mut World)) -> Result<Seen> {
    rig.set_multi_buffer(scene.multi_buffer);
    let world = world();
    let scenario = Scenario { mix: (scene.mix)(), ..Scenario::from(&world) };
    let (mut generator, mut oracle, mut seen) = (Generator::new(scenario, seed), Oracle::new(world), Seen::default());
    lie(oracle.world_mut());
    for number in 0..frames {
        for (_, change) in scene.course.iter().filter(|(when, _)| when * frames / 100 == number) {
            change(oracle.world_mut());
            rig.apply(oracle.world())?;
        }
        if let Err(error) = step(rig, &mut generator, &mut oracle, &mut seen) {
            bail!("seed {seed}, frame {number}: {error:#}");
        }
    }
    seen.assert_totals(rig).with_context(|| format!("seed {seed}"))?;
    Ok(seen)
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
    seen.frame(&frame.label);
    // The sample's backends have Ethernet addresses of their own kind.
    hold(rig, oracle, seen, &frame.label, (&frame.bytes, ingress), |mac| mac.0[3] == 0x10).map(drop)
}

/// Holds what the program does with one frame against the oracle. `what` is the frame's name if they differ; `is_backend`: by whose Ethernet address the totals
/// of both directions are kept apart.
///
/// # Errors
/// The difference.
pub(crate) fn hold(
    rig: &mut Rig,
    oracle: &mut Oracle,
    seen: &mut Seen,
    what: &dyn fmt::Display,
    (frame, ingress): (&[u8], u32),
    is_backend: impl Fn(Mac) -> bool,
) -> Result<Performed> {
    let performed = rig.run(frame, ingress)?;
    let expectation = oracle.expect(frame, ingress);
    seen.outcome(performed.action, &performed.counted);
    let besides = |reason: &Reason| *reason == Reason::CanaryFallback;
    if matches!(performed.action, Action::Tx | Action::Redirect) && performed.counted.iter().all(besides) {
        seen.traffic.see(&performed.frame, is_backend)?;
    }
    let outcomes: BTreeSet<_> = expectation.outcomes().map(|outcome| outcome.reason() == Some(Reason::FragmentUnknown)).collect();
    if outcomes.len() == 2 {
        let forgotten = performed.counted == [Reason::FragmentUnknown];
        *(if forgotten { &mut seen.forgotten } else { &mut seen.followed }) += 1;
    }
    match oracle.check(&expectation, &performed.observed()) {
        Ok(matched) => oracle.learn(matched),
        Err(difference) => bail!(
            "{what} by interface {ingress}: {difference}\n  in  {frame:02x?}\n  out {:02x?} ({:?}, counted {:?})",
            performed.frame,
            performed.action,
            performed.counted,
        ),
    }
    Ok(performed)
}
