//! `cargo xtask oracle`: see `splitter_tests::compare`, and for real programs `splitter_tests::replay`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Serialize;
use splitter_tests::{
    compare::{self, BATCH, Report, options::Options},
    replay::{self, PLACES, Program, Recording, Replay, Row, Size, Stage, pcapng},
};

/// They differ, or couldn't be compared; wrong usage or not root.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: this makes network namespaces and loads XDP programs\nhint: run it as root");
        return ExitCode::from(USAGE);
    }
    let done = if options.real || !options.pcap.is_empty() { real(&options) } else { run(&options) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let all: usize = options.batches().map(|number| options.frames_of(number)).sum();
    println!("{all} frames in batches of {BATCH}, seed {}", options.seed);
    let (started, told) = (Instant::now(), AtomicUsize::new(0));
    let seen = compare::many(options, &|frames| {
        // A line for each tenth.
        let tenths = frames * 10 / all.max(1);
        if told.fetch_max(tenths, Ordering::Relaxed) < tenths {
            println!("{frames} of {all} frames, no difference ({:.0} s)", started.elapsed().as_secs_f64());
        }
    })?;
    let report = Report::of(options, seen, started.elapsed());
    println!("{report}");
    write_json(options, &report)?;
    // Enough of all scenes that nothing may be missing.
    if options.batch.is_none() && all >= 10 * BATCH {
        report.seen.assert_everything()?;
    }
    Ok(())
}

fn write_json(options: &Options, report: &impl Serialize) -> Result<()> {
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Records and replays, or replays what was kept.
fn real(options: &Options) -> Result<()> {
    println!("seed {}", options.seed);
    let (started, mut rows) = (Instant::now(), Vec::new());
    for path in &options.pcap {
        let file = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let recording = pcapng::read(&file).with_context(|| format!("reading {}", path.display()))?;
        rows.extend(replay(options, &[recording], std::slice::from_ref(path))?);
    }
    for place in if options.real { &PLACES[..] } else { &[] } {
        let stage = Stage::start(*place, &Program::ALL).with_context(|| format!("building {}", place.name))?;
        let mut recordings = Vec::new();
        for program in Program::ALL {
            recordings.push(stage.record(program, Size::LONG)?);
            println!("{}: recorded {}, {:.0} s", place.name, program.name(), started.elapsed().as_secs_f64());
        }
        drop(stage);
        let kept = match &options.keep {
            Some(directory) => recordings.iter().map(|recording| keep(recording, directory)).collect::<Result<Vec<_>>>()?,
            None => Vec::new(),
        };
        rows.extend(replay(options, &recordings, &kept)?);
        println!("{}: replayed, {:.0} s", place.name, started.elapsed().as_secs_f64());
    }
    let report = replay::Report::new(options.seed, started.elapsed(), rows);
    println!("{report}");
    write_json(options, &report)?;
    if !report.is_good() {
        bail!("not every recording was treated alike");
    }
    Ok(())
}

fn keep(recording: &Recording, directory: &Path) -> Result<PathBuf> {
    let path = directory.join(recording.name()).with_extension("pcapng");
    let file = pcapng::write(recording)?;
    fs::create_dir_all(directory).and_then(|()| fs::write(&path, file)).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Recordings of one world. One that differs is kept in any case.
fn replay(options: &Options, recordings: &[Recording], kept: &[PathBuf]) -> Result<Vec<Row>> {
    let (seed, changed) = (options.seed, options.changed);
    let outcomes = Replay { mutants: changed, seed, lie: |_| {} }.play_all(recordings)?;
    let mut rows = Vec::new();
    for (number, (recording, outcome)) in recordings.iter().zip(outcomes).enumerate() {
        let outcome = outcome.and_then(|figures| figures.assert_as_recorded().map(|()| figures));
        if outcome.is_err() {
            let path = match kept.get(number) {
                Some(path) => path.clone(),
                None => keep(recording, &std::env::temp_dir().join(format!("splitter-differs-{}", std::process::id())))?,
            };
            println!("see it again by cargo xtask oracle --pcap {} --seed {seed} --changed {changed}", path.display());
        }
        rows.push(Row::new(recording, outcome));
    }
    Ok(rows)
}
