//! `cargo xtask soak`: see `splitter_tests::soak`.

use std::{
    fs,
    process::ExitCode,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::{
    demo::Interrupts,
    soak::{
        host::{self, SERVE},
        options::Options,
        play,
    },
};

/// Something that must hold doesn't, or the soak could not be run; wrong usage or not root; 128 and the number of the signal that ended it.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const SIGNAL: i32 = 128;

/// The signal that asked for an end; 0: none.
static ASKED: AtomicI32 = AtomicI32::new(0);

fn main() -> ExitCode {
    // A backend of the soak is the same binary.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((SERVE, told)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return exit(host::serve(told).map(|()| ExitCode::SUCCESS).context("a backend"));
    }
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: this makes network namespaces and loads XDP programs\nhint: run it as root");
        return ExitCode::from(USAGE);
    }
    exit(run(&options))
}

fn exit(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run(options: &Options) -> Result<ExitCode> {
    catch_signals()?;
    let report = play::play(options, &ASKED)?;
    println!("{}", report.for_terminal());
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(match (report.interrupted_by, report.verdict()) {
        (0, (_, 0)) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(FAILED),
        (signal, _) => ExitCode::from(u8::try_from(SIGNAL + signal).unwrap_or(FAILED)),
    })
}

/// A thread of its own waits for Ctrl-C and SIGTERM. No mask of signals: whoever is started would inherit it, and no agent could be asked to stop.
fn catch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    let mut interrupts = runtime.block_on(async { Interrupts::catch() }).context("catch signals")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let signal = runtime.block_on(interrupts.next());
        ASKED.store(signal, Ordering::Release);
        eprintln!("signal {signal}: ending, which takes up to a minute");
    })?;
    Ok(())
}
