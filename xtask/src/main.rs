//! Splitter's own commands: `cargo xtask build | test | vm | demo | bench | flip-latency | judge | soak | oracle | fuzz | ci`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `workspace` | where things are, which toolchain runs, what is on the `PATH` |
//! | `run` | child processes: waiting, time limits, signals, logs |
//! | `report` | a step's two lines: what it does, how long it took |
//! | `build` | the steps of `cargo xtask build`, in order |
//! | `tool`, `library`, `apt`, `program` | one step each: bpf-linker (and cargo-fuzz), `core`'s source, Debian's package of it, the XDP program |
//! | `test`, `results`, `packages` | the groups of `cargo xtask test`, their sums, the tools they call |
//! | `demo`, `bench`, `flip_latency`, `judge`, `soak` | `cargo xtask demo`, `cargo xtask bench`, `cargo xtask flip-latency`, `cargo xtask judge`, `cargo xtask soak` |
//! | `oracle`, `fuzz` | `cargo xtask oracle`, `cargo xtask fuzz` |
//! | `bpf_fs` | where an agent pins, if nobody has mounted it |
//! | `binary` | what the others share: a binary of the tests, built and run in our place |
//! | `vm` | `cargo xtask vm`: the program on other kernels, in virtual machines |

mod apt;
mod bench;
mod binary;
mod bpf_fs;
mod build;
mod demo;
mod flip_latency;
mod fuzz;
mod judge;
mod library;
mod oracle;
mod packages;
mod program;
mod report;
mod results;
mod run;
mod soak;
mod test;
mod tool;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, tests and shows Splitter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the XDP program and the `splitter` binary that carries it.
    ///
    /// Provisions what the XDP program needs into `target/`: bpf-linker, and the source of Rust's
    /// `core` library where the toolchain lacks it. See docs/building.md.
    Build(build::Options),
    /// Run every check and every test (as root: the tests make network namespaces).
    ///
    /// The last line is `N passed, N failed`; a check that fails without naming a test counts as
    /// one. Exit code 0: everything passed; 1: something failed; 2: not root, or a wrong argument.
    Test(test::Options),
    /// Watch real HTTP connections being split, and a broken canary being taken back (as root).
    ///
    /// Everything after `demo` goes to the demo itself: `cargo xtask demo --json result.json`;
    /// `cargo xtask demo -- --help` lists what it understands.
    Demo(demo::Options),
    /// Run the program and its tests on other kernels, each in a virtual machine of its own.
    ///
    /// Debian's kernels, as xtask/kernels.toml names them, are downloaded into `target/kernels` and
    /// emulated, so any machine will do. Fails by name where one cannot be had. Exit code 0:
    /// everything passed; 1: something failed.
    Vm(vm::Options),
    /// Measure what a packet costs, what goes through the wire beside the peers, and what grows with what (as root).
    ///
    /// Everything after `bench` goes to the bench itself: `cargo xtask bench --only cost --json
    /// result.json`; `cargo xtask bench -- --help` lists what it understands.
    Bench(bench::Options),
    /// Break canaries many times, and measure how soon they are back on stable without an agent (as root).
    ///
    /// Everything after `flip-latency` goes to the measurement itself: `cargo xtask flip-latency
    /// --runs 100 --json result.json`; `cargo xtask flip-latency -- --help` lists what it understands.
    FlipLatency(flip_latency::Options),
    /// Judge the comparison with stable by simulated rollouts: false alarms and delay, beside what others do.
    ///
    /// Everything after `judge` goes to the judge itself: `cargo xtask judge --json result.json`;
    /// `cargo xtask judge -- --help` lists what it understands.
    Judge(judge::Options),
    /// Hold the XDP program against a second implementation, frame by frame, ten million times (as root).
    ///
    /// Everything after `oracle` goes to the comparison itself: `cargo xtask oracle --frames 1000000
    /// --seed 7 --json result.json`; `cargo xtask oracle -- --help` lists what it understands.
    Oracle(oracle::Options),
    /// Feed hostile input to whatever reads what others write.
    ///
    /// Builds the targets of `fuzz/` and runs each for a while. An input that breaks something is kept
    /// in `target/fuzz`, and said. Exit code 0: nothing was found; 1: something was.
    Fuzz(fuzz::Options),
    /// Do to a running Splitter in minutes what happens to others in days, and look at what must hold (as root).
    ///
    /// Everything after `soak` goes to the soak itself: `cargo xtask soak --minutes 30 --seed 7 --json
    /// result.json`; `cargo xtask soak -- --help` lists what it understands.
    Soak(soak::Options),
    /// What continuous integration runs: the same as `test`.
    Ci,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run::catch_signals().and_then(|()| perform(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            // Who pressed Ctrl-C knows why the step ended.
            if let Some(code) = run::interrupted() {
                return code;
            }
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match &task {
        Task::Test(_) | Task::Demo(_) | Task::Bench(_) | Task::FlipLatency(_) | Task::Oracle(_) | Task::Soak(_) | Task::Ci => {
            bpf_fs::ensure()?;
        }
        Task::Build(_) | Task::Vm(_) | Task::Judge(_) | Task::Fuzz(_) => {}
    }
    match task {
        Task::Build(options) => build::build(&workspace, options.profile()).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::test(&workspace, &options),
        Task::Demo(options) => demo::demo(&workspace, &options),
        Task::Vm(options) => vm::vm(&workspace, &options),
        Task::Bench(options) => bench::bench(&workspace, &options),
        Task::FlipLatency(options) => flip_latency::flip_latency(&workspace, &options),
        Task::Judge(options) => judge::judge(&workspace, &options),
        Task::Oracle(options) => oracle::oracle(&workspace, &options),
        Task::Fuzz(options) => fuzz::fuzz(&workspace, &options),
        Task::Soak(options) => soak::soak(&workspace, &options),
        Task::Ci => test::test(&workspace, &test::Options::default()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_and_bench_get_their_arguments_with_or_without_the_separator() {
        for separator in [&[][..], &["--"]] {
            let line = |task| [&["cargo xtask", task], separator, &["--json", "out.json", "--keep"]].concat();
            let Task::Demo(demo) = Cli::parse_from(line("demo")).command else {
                panic!("{:?} is not the demo", line("demo"));
            };
            let Task::Bench(bench) = Cli::parse_from(line("bench")).command else {
                panic!("{:?} is not the bench", line("bench"));
            };
            for arguments in [demo.arguments, bench.arguments] {
                assert_eq!(arguments, ["--json", "out.json", "--keep"], "{separator:?}");
            }
        }
    }
}
