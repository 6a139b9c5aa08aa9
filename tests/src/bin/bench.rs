//! `cargo xtask bench`: see `splitter_tests::bench`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::bench::{
    cost, docs,
    machine::Machine,
    options::{Options, Part},
    report::Report,
    scale,
    tables::{self, Medium},
    wire,
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
    let mut report = Report { machine: Machine::this(), ..Report::default() };
    let measured = measure(options, &mut report);
    // What was measured before something failed took its time, too.
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    measured?;
    if options.write_docs {
        docs::write(Path::new("docs"), &report)?;
    }
    Ok(())
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    if options.steps {
        eprintln!("Where the nanoseconds go:");
        report.steps = cost::steps::run(options).context("where the nanoseconds go")?;
        println!("{}", tables::steps(&report.steps, Medium::Terminal));
        return Ok(());
    }
    if options.wants(Part::Cost) {
        eprintln!("What a packet costs:");
        let rows = cost::run(options).context("what a packet costs")?;
        println!("{}", tables::cost(&rows, Medium::Terminal));
        report.cost = rows.into_iter().map(|row| row.cost).collect();
    }
    if options.wants(Part::Wire) {
        eprintln!("What goes through the wire:");
        report.wire = wire::run(&wire::Options { quick: options.quick, only: None }).context("what goes through the wire")?;
        println!("{}", tables::wire(&report.wire, Medium::Terminal));
    }
    if options.wants(Part::Scale) {
        eprintln!("What grows with what:");
        report.scale = scale::run_with(if options.quick { scale::Effort::Quick } else { scale::Effort::Full })
            .context("what grows with what")?;
        println!("{}", tables::scale(&report.scale, Medium::Terminal));
    }
    Ok(())
}
