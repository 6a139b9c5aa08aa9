//! `cargo xtask demo`: see `splitter_tests::demo`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::demo::{self, Ending, Interrupts, options::Options};

/// What must hold held; it did not, or the demo could not be run; wrong usage or not root; 128 and the number of the signal that
/// ended it.
const NOT_HELD: u8 = 1;
const USAGE: u8 = 2;
const SIGNAL: i32 = 128;

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: the demo makes network namespaces and loads an XDP program\nhint: run it as root");
        return ExitCode::from(USAGE);
    }
    match run(&options) {
        Ok(Ending::Held) => ExitCode::SUCCESS,
        Ok(Ending::NotHeld) => ExitCode::from(NOT_HELD),
        Ok(Ending::Interrupted(signal)) => ExitCode::from(u8::try_from(SIGNAL + signal).unwrap_or(NOT_HELD)),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NOT_HELD)
        }
    }
}

fn run(options: &Options) -> Result<Ending> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    runtime.block_on(async { demo::run(options, &mut Interrupts::catch().context("catch signals")?).await })
}
