//! `cargo xtask oracle`: see `splitter_tests::compare`.

use std::{
    fs,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::compare::{self, BATCH, Report, options::Options};

/// They differ, or couldn't be compared; wrong usage or not root.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: this makes network namespaces and loads XDP programs\nhint: run it as root");
        return ExitCode::from(USAGE);
    }
    match run(&options) {
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
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    // Enough of all scenes that nothing may be missing.
    if options.batch.is_none() && all >= 10 * BATCH {
        report.seen.assert_everything()?;
    }
    Ok(())
}
