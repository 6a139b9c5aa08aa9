//! The program that ships against the oracle: what it does with a frame must be what `docs/packet-path.md` says, to the octet,
//! and no counter may move but those that the page names.
//!
//! 1,200,000 frames in all (fewer where `SPLITTER_FRAMES` says so: in the emulated machines of `cargo xtask vm`), valid, odd and broken, of both families and modes, in worlds that change under way.
//! `cargo xtask oracle` compares ten millions, from other seeds each time.

use anyhow::{Context, Result};
use splitter_tests::compare::{
    self, BATCH, Seen,
    scene::{SCENES, Scene},
};

/// Says how many frames each batch has instead.
const VARIABLE: &str = "SPLITTER_FRAMES";

#[test]
fn frames_of_all_kinds() -> Result<()> {
    let mut seen = Seen::default();
    for seed in 0..4 {
        seen.add(compare(usize::try_from(seed)? % 2, seed)?);
    }
    println!("{seen:?}");
    if frames()? < BATCH {
        // Too few to meet everything.
        return Ok(());
    }
    seen.assert_everything()
}

#[test]
fn frames_of_a_peaceful_network_and_of_a_broken_one() -> Result<()> {
    [(2, 10), (3, 11), (4, 12)].into_iter().try_for_each(|(scene, seed)| compare(scene, seed).map(drop))
}

#[test]
fn while_weights_go_from_nothing_to_everything_and_back() -> Result<()> {
    [(5, 20), (6, 21)].into_iter().try_for_each(|(scene, seed)| compare(scene, seed).map(drop))
}

#[test]
fn while_services_flip_and_flip_back() -> Result<()> {
    [(7, 30), (8, 31)].into_iter().try_for_each(|(scene, seed)| compare(scene, seed).map(drop))
}

#[test]
fn while_backends_networks_and_ways_come_and_go() -> Result<()> {
    [(9, 40), (10, 41)].into_iter().try_for_each(|(scene, seed)| compare(scene, seed).map(drop))
}

#[test]
fn a_world_that_differs_is_noticed() -> Result<()> {
    let error = compare::alone(&SCENES[2], 50, frames()?, |world| world.services[0].address.set_port(81));
    assert!(error.is_err(), "the oracle was told of another port than the program");
    Ok(())
}

fn compare(scene: usize, seed: u64) -> Result<Seen> {
    let scene: &Scene = &SCENES[scene];
    compare::alone(scene, seed, frames()?, |_| {}).context(scene.name)
}

fn frames() -> Result<usize> {
    match std::env::var(VARIABLE) {
        Ok(number) => number.parse().with_context(|| format!("{VARIABLE}={number}")),
        Err(_) => Ok(BATCH),
    }
}
