//! `cargo xtask vm`: the program, its tests and the agent on other kernels than this machine's.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `manifest` | which kernels: versions, places, checksums |
//! | `kernel`, `modules` | a kernel's image and modules, downloaded, checked, unpacked |
//! | `guest`, `cpio` | what runs inside: binaries, what they call, the plan |
//! | `machine` | the emulator |
//! | `lock` | one run at a time |
//! | `told` | what a machine tells, and whether that is a success |
//! | `budgets` | how many instructions there may be |
//! | `update` | a newer manifest |
//! | `results` | what is printed and written |

mod budgets;
mod cpio;
mod guest;
mod kernel;
mod lock;
mod machine;
mod manifest;
mod modules;
mod results;
mod told;
mod update;

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

pub use self::results::Sum;
use self::{
    budgets::{Instructions, Verdict},
    guest::Guest,
    kernel::{Found, Ready},
    machine::Machine,
    manifest::{Kernel, Manifest},
    results::{Outcome, Results, Row},
    told::Told,
};
use crate::{packages, run, workspace::Workspace};

/// The kernels.
const MANIFEST: &str = include_str!("../../kernels.toml");
/// Machines that run beside each other; each has one processor, which is one thread of the emulator's.
const AT_ONCE: usize = 2;
/// The kernel on which instructions by packet are counted.
const COST: &str = "6.12";
/// Tests that stand for the others where time is short: what the verifier says, native attachment, every kind of frame against the oracle, and the agent's whole life
/// between namespaces. All of them take three times as long.
const CORE: [&str; 3] = ["checks::", "program_oracle::frames_of_all_kinds", "_and_flip_in_nat_mode"];
/// A machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// The arguments of `cargo xtask vm`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Options {
    /// Which kernels, of those in xtask/kernels.toml: 5.10, 6.1, 6.12, 7.2; all of them without this.
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Download no kernel: one that is not in target/kernels is skipped and named, and is no failure.
    #[arg(long)]
    offline: bool,
    /// Run those tests alone that have this text in their name, `suite::name`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Run those tests alone that stand for the others, as `cargo xtask test` does.
    #[arg(long, conflicts_with = "only")]
    core: bool,
    /// Write what was found into tests/budgets.toml, instead of comparing it with what is there.
    #[arg(long, conflicts_with = "only")]
    bless_budgets: bool,
    /// Run nothing: write the newest kernel of each line into xtask/kernels.toml.
    #[arg(long, conflicts_with_all = ["offline", "only", "bless_budgets", "json"])]
    update_manifest: bool,
    /// Write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// All kernels, and the tests that stand for the others.
    pub fn core(offline: bool) -> Self {
        Self { offline, core: true, ..Self::default() }
    }

    /// Texts of which each test to be run has one in its name.
    fn wanted(&self) -> Vec<&str> {
        if self.core { CORE.to_vec() } else { vec![self.only.as_str()] }
    }
}

/// Runs the machines; the last line printed is `N passed, N failed`.
pub fn vm(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.update_manifest {
        let _alone = lock::take(&directory(workspace))?;
        update::update(workspace, &Manifest::parse(MANIFEST)?, MANIFEST)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Done { sum, untested } = run_all(workspace, options)?;
    if !untested.is_empty() {
        println!("nothing is known about Linux {}, and the exit code says nothing of it", untested.join(", "));
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a run comes to.
pub struct Done {
    pub sum: Sum,
    /// Kernels that were skipped, because they are not cached and nothing may be downloaded.
    pub untested: Vec<String>,
}

/// Builds, runs, prints each machine's results.
pub fn run_all(workspace: &Workspace, options: &Options) -> Result<Done> {
    ensure!(cfg!(target_arch = "x86_64"), "the kernels in xtask/kernels.toml are for x86-64: they cannot run what is built here");
    let manifest = Manifest::parse(MANIFEST)?;
    let kernels = chosen(&manifest, &options.kernels)?;
    let budgets = Instructions::parse(budgets::TEXT)?;
    let directory = directory(workspace);
    // Before the build, so that it takes no time from the machines of the run that is waited for.
    let _alone = lock::take(&directory)?;
    packages::ensure(workspace, &[machine::TOOL, ("ip", "iproute2")])?;
    let guest = guest::build(workspace)?;

    let begun = Instant::now();
    // Two machines may want one kernel.
    let downloads = Mutex::new(());
    let ready = |kernel: &Kernel| {
        let _one = downloads.lock().unwrap_or_else(PoisonError::into_inner);
        // After a signal nothing more is begun.
        run::go_on()?;
        kernel::ensure(workspace, kernel, options.offline)
    };
    let rows = at_once(jobs(kernels, &options.only), |job| one(job, ready(job.kernel), &options.wanted(), &guest, &directory));
    run::go_on()?;
    let results = Results { rows, took: begun.elapsed() };
    let found = results.instructions();
    let compares = options.only.is_empty() && !options.bless_budgets;
    let verdict = if compares { budgets.judge(&found) } else { Verdict::default() };
    print!("\n{}", results.shown(workspace, &verdict));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&results.json(&verdict)).context("JSON of plain values")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut sum = results.sum();
    sum.passed += verdict.within as u64;
    sum.failed += verdict.failures.len() as u64;
    if options.bless_budgets {
        ensure!(sum.failed == 0, "{} failed: nothing that they counted becomes a budget", sum.failed);
        budgets.blessed(&found).write(&workspace.root.join(budgets::PLACE))?;
        println!("{} has what was found", budgets::PLACE);
    }
    Ok(Done { sum, untested: results.untested() })
}

/// Where machines have their files.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm")
}

/// What one machine is for.
#[derive(Clone, Copy)]
struct Job<'a> {
    kernel: &'a Kernel,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Tests,
    /// Counting instructions by packet, which is done on one kernel: what ships runs the same ones on all, but for what a kernel's compiler inlines.
    Cost,
}

/// The longest first.
fn jobs<'a>(kernels: Vec<&'a Kernel>, only: &str) -> Vec<Job<'a>> {
    let cost = kernels.iter().filter(|kernel| kernel.version == COST && only.is_empty()).map(|kernel| (*kernel, Purpose::Cost));
    let tests = kernels.iter().map(|kernel| (*kernel, Purpose::Tests));
    cost.chain(tests).map(|(kernel, purpose)| Job { kernel, purpose }).collect()
}

fn chosen<'a>(manifest: &'a Manifest, wanted: &[String]) -> Result<Vec<&'a Kernel>> {
    let all: Vec<&Kernel> = manifest.kernels.iter().collect();
    if wanted.is_empty() || wanted.iter().any(|version| version == "all") {
        return Ok(all);
    }
    let known: Vec<&str> = all.iter().map(|kernel| kernel.version.as_str()).collect();
    for version in wanted {
        ensure!(
            known.contains(&version.as_str()),
            "there is no kernel {version} in xtask/kernels.toml, which has {}",
            known.join(", ")
        );
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

fn one(job: Job<'_>, found: Result<Found>, wanted: &[&str], guest: &Guest, directory: &Path) -> Row {
    let begun = Instant::now();
    let outcome = found.and_then(|found| match found {
        Found::NotCached => Ok(Outcome::Skipped),
        Found::Ready(ready) => start(job, &ready, wanted, guest, directory),
    });
    let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let row = Row { version: job.kernel.version.clone(), purpose: job.purpose, outcome, took: begun.elapsed() };
    println!("[vm] {}", row.headline());
    row
}

fn start(job: Job<'_>, ready: &Ready, wanted: &[&str], guest: &Guest, directory: &Path) -> Result<Outcome> {
    let kernel = job.kernel;
    let (name, plan, expected) = match job.purpose {
        Purpose::Tests => {
            let skipped: BTreeSet<String> = kernel.skip.keys().cloned().collect();
            let (plan, expected) = guest.plan(&ready.modules, &skipped, wanted)?;
            (kernel.version.clone(), plan, expected)
        }
        Purpose::Cost => (format!("{}-cost", kernel.version), Guest::cost_plan(&ready.modules), BTreeSet::new()),
    };
    let initramfs = directory.join(format!("{name}.cpio"));
    guest.write(&ready.modules, &plan, &initramfs)?;
    println!(
        "[vm] starting Linux {kernel}: {}",
        if expected.is_empty() { "cost".to_owned() } else { format!("{} tests", expected.len()) }
    );
    let machine = Machine {
        name: &name,
        image: &ready.image,
        initramfs: &initramfs,
        directory,
        cpus: 1,
        counts_instructions: job.purpose == Purpose::Cost,
        limit: LIMIT,
    };
    let ended = machine.run()?;
    fs::remove_file(&initramfs).with_context(|| format!("cannot remove {}", initramfs.display()))?;
    let text = fs::read(machine.told()).with_context(|| format!("cannot read {}", machine.told().display()))?;
    let told = Told::read(&String::from_utf8_lossy(&text))?;
    let judgement = told.judge(&kernel.release, &expected, ended);
    Ok(Outcome::Ran { told, judgement, console: machine.console() })
}
