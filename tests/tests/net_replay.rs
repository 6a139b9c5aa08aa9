//! Traffic that nobody here made: real programs talk through a splitter, and what entered its node goes through the XDP program and through the oracle, as it
//! was and with frames cut short and octets changed. They agree to the octet and in every counter.
//!
//! Each program once; `cargo xtask oracle --real` does more of it.

use anyhow::{Context, Result, ensure};
use splitter_tests::{
    oracle::{Mode, World},
    replay::{Figures, PLACES, Place, Program, Recording, Replay, Size, Stage, pcapng},
};

/// What the oracle, and not the program, is told.
type Lie = (&'static str, fn(&mut World));

const REPLAY: Replay = Replay { mutants: 1, seed: 1, lie: |_| {} };

#[test]
fn what_programs_say_in_nat_mode_behind_the_node_is_treated_as_the_page_says() -> Result<()> {
    all_programs(PLACES[0])
}

#[test]
fn what_programs_say_in_dsr_mode_is_treated_as_the_page_says() -> Result<()> {
    all_programs(PLACES[1])
}

#[test]
fn a_replay_under_another_configuration_is_noticed_and_so_is_one_of_another_program_than_was_recorded() -> Result<()> {
    let recording = record(PLACES[2], &[Program::Dns])?.remove(0);
    let lies: [Lie; 4] = [
        ("another port of a service", |world| world.services.iter_mut().for_each(|service| service.address.set_port(5_353))),
        ("another mode", |world| world.services.iter_mut().for_each(|service| service.mode = Mode::Dsr)),
        ("another backend's address", |world| {
            let backends = world.services.iter_mut().flat_map(|service| &mut service.backends);
            backends.for_each(|backend| backend.address.set_port(1));
        }),
        ("another range of NAT ports", |world| world.nat_ports = Some(40_000..=40_001)),
    ];
    for (what, lie) in lies {
        let outcome = Replay { lie, ..REPLAY }.play(&recording);
        ensure!(outcome.is_err(), "the oracle was told of {what}, and nobody noticed: {outcome:?}");
    }

    // The same frames, and a configuration under which they aren't what was recorded: no difference, and yet no replay of it.
    let mut elsewhere = recording;
    elsewhere.about.world.services.iter_mut().for_each(|service| service.weight = 10_000);
    let figures = REPLAY.play(&elsewhere)?;
    ensure!(figures.assert_as_recorded().is_err(), "everything goes to the canary, and nobody noticed: {figures:?}");
    Ok(())
}

#[test]
fn a_recording_that_was_kept_replays_as_it_did() -> Result<()> {
    let recording = record(PLACES[2], &[Program::Http2])?.remove(0);
    let again = pcapng::read(&pcapng::write(&recording)?)?;
    ensure!(again == recording, "it was read as another");
    let (first, second) = (replay(&recording)?, replay(&again)?);
    ensure!(first == second, "{first:?}, then {second:?}");
    Ok(())
}

fn all_programs(place: Place) -> Result<()> {
    let recordings = record(place, &Program::ALL)?;
    for (recording, outcome) in recordings.iter().zip(REPLAY.play_all(&recordings)?) {
        let figures = outcome?;
        println!("{}: {figures:?}", recording.name());
        figures.assert_as_recorded().with_context(|| recording.name())?;
    }
    Ok(())
}

fn record(place: Place, programs: &[Program]) -> Result<Vec<Recording>> {
    let stage = Stage::start(place, programs)?;
    programs.iter().map(|program| stage.record(*program, Size::SHORT)).collect()
}

fn replay(recording: &Recording) -> Result<Figures> {
    let figures = REPLAY.play(recording)?;
    figures.assert_as_recorded().with_context(|| recording.name())?;
    Ok(figures)
}
