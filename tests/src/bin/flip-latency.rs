//! `cargo xtask flip-latency`: see `splitter_tests::faults`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::{
    bench::machine::Machine,
    faults::{
        Plan, Run, limits,
        options::Options,
        report::{self, Limits, Report, Row},
    },
};

/// Something that must hold doesn't, or could not be measured; wrong usage or not root.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("error: this makes network namespaces and loads XDP programs\nhint: run it as root");
        return ExitCode::from(USAGE);
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether everything held.
fn run(options: &Options) -> Result<bool> {
    let mut report = Report { machine: Machine::of("flip-latency"), ..Report::default() };
    let measured = if options.limits { measure_limits(options, &mut report) } else { measure(options, &mut report) };
    // What was measured before something failed took its time, too.
    match &report.limits {
        Some(limits) => println!("{limits}"),
        None => println!("{}", report::for_terminal(&report.faults)),
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    measured?;
    if options.write_docs {
        report::write_docs(Path::new("docs"), &report)?;
    }
    let slow = report.limits.as_ref().filter(|limits| limits.flip_ms.p99 > Limits::MOST_MS);
    let slow = slow.map(|_| format!("p99 at most {} ms from the crossing to the flip", Limits::MOST_MS));
    let not_held: Vec<_> = report.faults.iter().flat_map(|row| &row.not_held).chain(&slow).collect();
    not_held.iter().for_each(|what| println!("did not hold: {what}"));
    Ok(not_held.is_empty())
}

fn measure_limits(options: &Options, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for number in 1..=options.runs {
        eprint!("\rthe agent's limits: {number} of {}    ", options.runs);
        times.push(limits::play().with_context(|| format!("the agent's limits, run {number}"))?);
    }
    eprintln!();
    report.limits = Limits::of(times);
    Ok(())
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    for (kind, agent) in options.chosen() {
        let plan = Plan::new(kind, agent);
        let mut runs = Vec::new();
        for number in 1..=options.runs {
            eprint!("\r{}, agent {}: {number} of {}    ", kind.as_str(), agent.as_str(), options.runs);
            let run = Run::play(&plan).with_context(|| format!("{}, agent {}, run {number}", kind.as_str(), agent.as_str()))?;
            runs.push(run);
        }
        eprintln!();
        report.faults.push(Row::of(&plan, &runs));
    }
    Ok(())
}
