//! `cargo xtask judge`: see `splitter_tests::judge`.

use std::{
    fs,
    io::{IsTerminal, stderr},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::{
    bench::{machine::Machine, tables::Medium},
    judge::{
        method::Method,
        options::Options,
        play::{Found, HOUR, Scene},
        report::{self, Delay, FalseAlarms, Report},
    },
};
use splitter_user::model::Weight;

/// What is promised doesn't hold, or could not be measured.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether everything holds.
fn run(options: &Options) -> Result<bool> {
    let mut report = Report { machine: Machine::of("judge"), ..Report::default() };
    let weight = |basis_points| Weight::from_basis_points(basis_points).context("a weight");
    // The same failures as the demo's stable backends.
    let stable = 0.001;
    for rate in [10, 100, 1_000] {
        for basis_points in [100, 1_000, 5_000] {
            let scene = Scene { rate, weight: weight(basis_points)?, stable, canary: stable, looks: HOUR };
            let found = play("false alarms", &scene, options.rollouts);
            report.false_alarms.extend(by_method(&found).map(|(method, found)| FalseAlarms::of(method, &scene, &found)));
        }
    }
    for canary in [0.05, 0.01] {
        for rate in [10, 100, 1_000] {
            // So that there are 3,600 canary connections in it at least, which is eleven times what the best possible test needs.
            let looks = HOUR.max(HOUR * 100 / rate);
            let scene = Scene { rate, weight: weight(100)?, stable, canary, looks };
            let found = play("delay", &scene, options.runs);
            report.delay.extend(by_method(&found).map(|(method, found)| Delay::of(method, &scene, &found)));
        }
    }
    println!("False alarms of {} rollouts (at most so many, with 99% confidence):", options.rollouts);
    println!("{}", report::false_alarms(&report, Medium::Terminal));
    println!("\nCanary connections until a bad canary is found:");
    println!("{}", report::delay(&report, Medium::Terminal));
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    if options.write_docs {
        report::write_docs(Path::new("docs"), &report)?;
    }
    let missed = report::missed(&report);
    missed.iter().for_each(|what| println!("does not hold: {what}"));
    Ok(missed.is_empty())
}

/// Plays a scene with all methods, and shows how far that is.
fn play(what: &str, scene: &Scene, rollouts: u64) -> Vec<Vec<Found>> {
    let is_watched = stderr().is_terminal();
    let name = format!("{what}, {}/s, canary at {} with {}% failing", scene.rate, scene.weight, scene.canary * 100.0);
    let played = AtomicU64::new(0);
    let found = scene.play(rollouts, &Method::ALL, &|| {
        let number = played.fetch_add(1, Ordering::Relaxed) + 1;
        if is_watched && (number.is_multiple_of(20) || number == rollouts) {
            eprint!("\r{name}: {number} of {rollouts}    ");
        }
    });
    eprintln!("{}{name}: {rollouts} rollouts    ", if is_watched { "\r" } else { "" });
    found
}

/// What each method found, rollout by rollout.
fn by_method(found: &[Vec<Found>]) -> impl Iterator<Item = (Method, Vec<Found>)> {
    Method::ALL
        .into_iter()
        .enumerate()
        .map(|(at, method)| (method, found.iter().filter_map(|found| found.get(at).copied()).collect()))
}
