//! `cargo xtask bench`: see `splitter_tests::bench`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::bench::{
    cost,
    options::{Options, Part},
    report::Report,
    scale, wire,
};

/// A measurement that isn't what it was meant to be, or that could not be made; wrong usage or not root.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: the bench makes network namespaces and loads XDP programs\nhint: run it as root");
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
    let mut report = Report::default();
    if options.wants(Part::Cost) {
        eprintln!("What a packet costs:");
        report.cost = cost::run(options).context("what a packet costs")?.into_iter().map(|row| row.cost).collect();
    }
    if options.wants(Part::Wire) {
        eprintln!("What goes through the wire:");
        report.wire = wire::run().context("what goes through the wire")?;
    }
    if options.wants(Part::Scale) {
        eprintln!("What grows with what:");
        report.scale = scale::run().context("what grows with what")?;
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
