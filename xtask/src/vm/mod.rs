//! `cargo xtask vm`: the program, its tests and the agent on other kernels than this machine's.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `manifest` | which kernels: versions, places, checksums |
//! | `kernel`, `modules` | a kernel's image and modules, downloaded, checked, unpacked |
//! | `guest`, `cpio` | what runs inside: binaries, what they call, the plan |
//! | `machine` | the emulator |
//! | `told` | what a machine tells, and whether that is a success |

mod cpio;
mod guest;
mod kernel;
mod machine;
mod manifest;
mod modules;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::{
    guest::Guest,
    kernel::{Found, Ready},
    machine::Machine,
    manifest::{Kernel, Manifest},
    told::{Judgement, Told},
};
use crate::{
    packages,
    report::elapsed,
    run,
    workspace::Workspace,
};

/// The kernels.
const MANIFEST: &str = include_str!("../../kernels.toml");
/// Machines that run beside each other; each has one processor, which is one thread of the emulator's.
const AT_ONCE: usize = 2;
/// A machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// The arguments of `cargo xtask vm`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Which kernels, of those in xtask/kernels.toml: 5.10, 6.1, 6.12, 7.2; all of them without this.
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Download nothing: a kernel that is not cached is skipped, and named.
    #[arg(long)]
    offline: bool,
    /// Run those tests alone that have this text in their name, `suite::name`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// All kernels.
    pub fn all(offline: bool) -> Self {
        Self { offline, ..Self::default() }
    }
}

/// What all machines come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: u64,
    pub failed: u64,
}

/// What became of one kernel.
struct Row {
    version: String,
    outcome: Outcome,
    took: Duration,
}

enum Outcome {
    /// It isn't there, and nothing may be downloaded.
    Skipped,
    /// It didn't come to a run.
    Failed(String),
    Ran { told: Told, judgement: Judgement, console: PathBuf },
}

/// Runs the machines; the last line printed is `N passed, N failed`.
pub fn vm(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let sum = run_all(workspace, options)?;
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds, runs, prints each kernel's results.
pub fn run_all(workspace: &Workspace, options: &Options) -> Result<Sum> {
    let manifest = Manifest::parse(MANIFEST)?;
    let kernels = chosen(&manifest, &options.kernels)?;
    packages::ensure(workspace, &[machine::TOOL, ("ip", "iproute2")])?;
    let guest = guest::build(workspace)?;
    let directory = workspace.target.join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;

    let begun = Instant::now();
    let rows = at_once(kernels, |kernel| one(workspace, kernel, options, &guest, &directory));
    run::go_on()?;
    println!("\n{}", rows.iter().map(|row| shown(workspace, row)).collect::<String>());
    println!("all in {}", elapsed(begun.elapsed()));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&json(&rows)).context("JSON of plain values")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(sum(&rows))
}

fn chosen<'a>(manifest: &'a Manifest, wanted: &[String]) -> Result<Vec<&'a Kernel>> {
    let all: Vec<&Kernel> = manifest.kernels.iter().collect();
    if wanted.is_empty() || wanted.iter().any(|version| version == "all") {
        return Ok(all);
    }
    let known: Vec<&str> = all.iter().map(|kernel| kernel.version.as_str()).collect();
    for version in wanted {
        ensure!(known.contains(&version.as_str()), "there is no kernel {version} in xtask/kernels.toml, which has {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|kernel| wanted.contains(&kernel.version)).collect())
}

/// Works on some at once; results in the order of what was given.
fn at_once<T: Send, R: Send>(work: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let waiting: Mutex<VecDeque<(usize, T)>> = Mutex::new(work.into_iter().enumerate().collect());
    let done = Mutex::new(BTreeMap::new());
    let worker = || {
        loop {
            // Not held while it is worked on.
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((index, item)) = next else { break };
            let result = each(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(worker);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn one(workspace: &Workspace, kernel: &Kernel, options: &Options, guest: &Guest, directory: &Path) -> Row {
    let begun = Instant::now();
    let outcome = kernel::ensure(workspace, kernel, options.offline).and_then(|found| match found {
        Found::NotCached => Ok(Outcome::Skipped),
        Found::Ready(ready) => tests(kernel, &ready, &options.only, guest, directory),
    });
    let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let row = Row { version: kernel.version.clone(), outcome, took: begun.elapsed() };
    print!("{}", shown(workspace, &row));
    row
}

fn tests(kernel: &Kernel, ready: &Ready, only: &str, guest: &Guest, directory: &Path) -> Result<Outcome> {
    let skipped: BTreeSet<String> = kernel.skip.keys().cloned().collect();
    let (plan, expected) = guest.plan(&ready.modules, &skipped, only)?;
    let initramfs = directory.join(format!("{}.cpio", kernel.version));
    guest.write(&ready.modules, &plan, &initramfs)?;
    println!("[vm] starting Linux {kernel}, {} tests", expected.len());
    let machine = Machine {
        name: &kernel.version,
        image: &ready.image,
        initramfs: &initramfs,
        directory,
        cpus: 1,
        counts_instructions: false,
        limit: LIMIT,
    };
    let ended = machine.run()?;
    fs::remove_file(&initramfs).with_context(|| format!("cannot remove {}", initramfs.display()))?;
    let text = fs::read(machine.told()).with_context(|| format!("cannot read {}", machine.told().display()))?;
    let told = Told::read(&String::from_utf8_lossy(&text))?;
    let judgement = told.judge(&kernel.release, &expected, ended);
    Ok(Outcome::Ran { told, judgement, console: machine.console() })
}

fn shown(workspace: &Workspace, row: &Row) -> String {
    let head = format!("Linux {:<5} {:>10}  ", row.version, elapsed(row.took));
    match &row.outcome {
        Outcome::Skipped => format!("{head}skipped: not in target/kernels, and --offline downloads nothing\n"),
        Outcome::Failed(why) => format!("{head}FAILED: {why}\n"),
        Outcome::Ran { told, judgement, console } => {
            let verified: String = told.verified.iter().map(|(program, count)| format!(", {program} {count}")).collect();
            let mut text = format!("{head}{} passed, {} failed{verified}\n", judgement.passed, judgement.failures.len());
            for failure in &judgement.failures {
                text.push_str(&format!("    {failure}\n"));
            }
            if !judgement.failures.is_empty() {
                text.push_str(&format!("    what it printed is in {}\n", workspace.shown(console)));
            }
            text
        }
    }
}

fn sum(rows: &[Row]) -> Sum {
    rows.iter().fold(Sum::default(), |sum, row| match &row.outcome {
        Outcome::Skipped => sum,
        Outcome::Failed(_) => Sum { failed: sum.failed + 1, ..sum },
        Outcome::Ran { judgement, .. } => {
            Sum { passed: sum.passed + judgement.passed as u64, failed: sum.failed + judgement.failures.len() as u64 }
        }
    })
}

/// `kernels[] {version, passed, failed, seconds, insns {case: n}}`.
fn json(rows: &[Row]) -> serde_json::Value {
    let kernels: Vec<_> = rows
        .iter()
        .map(|row| {
            let (version, seconds) = (&row.version, row.took.as_secs_f64());
            match &row.outcome {
                Outcome::Skipped => json!({"version": version, "skipped": true, "seconds": seconds}),
                Outcome::Failed(why) => json!({"version": version, "passed": 0, "failed": 1, "seconds": seconds, "error": why}),
                Outcome::Ran { told, judgement, .. } => json!({
                    "version": version,
                    "passed": judgement.passed,
                    "failed": judgement.failures.len(),
                    "failures": judgement.failures,
                    "seconds": seconds,
                    "insns": told.verified,
                }),
            }
        })
        .collect();
    json!({"kernels": kernels})
}
