//! `cargo xtask fuzz`: builds the targets of `fuzz/`, and runs each for a while. What it finds, and what it learns, is kept below `target/fuzz`, never in the repository.

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    packages,
    report::{self, elapsed},
    results::Tally,
    run::{self, Log},
    tool,
    workspace::{self, Workspace},
};

const STEP: &str = "fuzz";
/// The package, as seen from the workspace's root.
pub const MANIFEST: &str = "fuzz/Cargo.toml";
/// How long `cargo xtask test` gives each target.
const SHORT: u64 = 12;
/// A target that takes more memory has found something.
const MEGABYTES: u32 = 2_048;
/// An input that takes longer has found something.
const SECONDS_PER_INPUT: u32 = 10;
/// How long a target may take to come to its end when its time is over.
const GRACE: Duration = Duration::from_secs(60);

/// A target of `fuzz/Cargo.toml`.
#[derive(Debug)]
struct Target {
    name: &'static str,
    /// The file in `fuzz/dictionaries`.
    dictionary: Option<&'static str>,
    /// The longest input that is tried.
    longest: usize,
    /// Whether it needs the agent's code, which takes most of the time to build.
    agent: bool,
}

const TARGETS: [Target; 8] = [
    Target { name: "header", dictionary: Some("frame.dict"), longest: 2_048, agent: false },
    Target { name: "icmp", dictionary: Some("frame.dict"), longest: 512, agent: false },
    Target { name: "rewrite", dictionary: Some("frame.dict"), longest: 2_048, agent: false },
    Target { name: "config", dictionary: Some("toml.dict"), longest: 8_192, agent: true },
    Target { name: "words", dictionary: None, longest: 512, agent: true },
    Target { name: "api", dictionary: Some("json.dict"), longest: 8_192, agent: true },
    Target { name: "state", dictionary: Some("json.dict"), longest: 16_384, agent: true },
    Target { name: "answers", dictionary: Some("json.dict"), longest: 4_096, agent: true },
];

/// The arguments of `cargo xtask fuzz`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// This target alone; may be given several times
    #[arg(long = "target", value_name = "NAME", value_parser = TARGETS.map(|target| target.name))]
    targets: Vec<String>,
    /// So many targets at a time; as many as there are CPUs if left out
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZero<usize>>,
}

impl Options {
    /// What `cargo xtask test` does.
    pub fn short() -> Self {
        Self { seconds: SHORT, targets: Vec::new(), jobs: None }
    }
}

/// Runs the targets; an error in one doesn't keep the others from running.
pub fn fuzz(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let tally = run_all(workspace, options)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the targets, and counts each as a test.
pub fn run_all(workspace: &Workspace, options: &Options) -> Result<Tally> {
    let wanted = |target: &&Target| options.targets.is_empty() || options.targets.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let binaries = build(workspace, &targets)?;

    let (next, passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed))
            && run::interrupted().is_none()
        {
            let started = Instant::now();
            match run_one(workspace, target, &binaries, Duration::from_secs(options.seconds)) {
                Ok(inputs) => {
                    passed.fetch_add(1, Ordering::Relaxed);
                    println!("[{}] {inputs} inputs, nothing found ({})", target.name, elapsed(started.elapsed()));
                }
                Err(error) => {
                    println!("[{}] failed: {error:#}", target.name);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(target.name);
                }
            }
        }
    };
    let jobs = options.jobs.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), NonZero::get);
    thread::scope(|scope| {
        (0..jobs.min(targets.len())).for_each(|_| drop(scope.spawn(work)));
    });
    run::go_on()?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(Tally { passed: count(passed.into_inner()), failed: count(failed.len()), ignored: 0 })
}

/// Builds the targets, by cargo-fuzz: it knows the flags by which a compiler tells a fuzzer where an input led. Returns where they are.
fn build(workspace: &Workspace, targets: &[&Target]) -> Result<PathBuf> {
    packages::ensure(workspace, &packages::FUZZ)?;
    tool::FUZZ.ensure(workspace)?;
    workspace::check_toolchain()?;
    let directory = workspace.target.join("fuzz-build");
    report::step(STEP, "building the targets", || {
        // cargo-fuzz would write it anew without a word.
        let mut lock = workspace.cargo("metadata");
        lock.args(["--locked", "--format-version", "1", "--manifest-path", MANIFEST]);
        workspace::output_of(&mut lock)
            .context("fuzz/Cargo.lock doesn't fit: run `cargo metadata --manifest-path fuzz/Cargo.toml` and commit it")?;
        let log_path = workspace.own("fuzz-build.log");
        let log = Log::create(STEP, &log_path)?;
        for target in all_or_each(targets) {
            let mut command = workspace.cargo("fuzz");
            // Without a sanitizer: nothing that is fuzzed is unsafe, and all assertions are on. So it's twice as fast, and needs no other standard library.
            command.args(["build", "--fuzz-dir", "fuzz", "--sanitizer", "none", "--target-dir"]).arg(&directory).args(target);
            // Its default is one, which leaves all but one CPU idle while the largest of our own is compiled.
            command.args(["--codegen-units", "16"]);
            command.args((!targets.iter().any(|target| target.agent)).then_some("--no-default-features"));
            // The compiler is a stable one; nothing but this build gets to see it.
            command.env("RUSTC_BOOTSTRAP", "1").env("PATH", tool::path(workspace)?).env_remove("RUSTFLAGS");
            let ended = run::logged(&mut command, &log, None)?;
            run::go_on()?;
            ensure!(
                ended.success(),
                "{}\n{} failed ({ended}): see {}",
                log.tail(),
                run::line(&command),
                workspace.shown(&log_path)
            );
        }
        Ok(((), "built".to_owned()))
    })?;
    let printed = workspace::output_of(Command::new("rustc").arg("-vV"))?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV prints no host")?;
    Ok(directory.join(host.trim()).join("release"))
}

/// One build for all of them, or one for each.
fn all_or_each(targets: &[&Target]) -> Vec<Option<&'static str>> {
    if targets.len() == TARGETS.len() { vec![None] } else { targets.iter().map(|target| Some(target.name)).collect() }
}

/// Runs a target, and says how many inputs it tried.
fn run_one(workspace: &Workspace, target: &Target, binaries: &Path, time: Duration) -> Result<u64> {
    let (place, sources) = (workspace.target.join("fuzz").join(target.name), workspace.root.join("fuzz"));
    let (corpus, seeds) = (place.join("corpus"), sources.join("seeds").join(target.name));
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let before = findings(&place)?;
    println!("[{}] running for {} s", target.name, time.as_secs());
    let log_path = place.join("log");
    let log = Log::create(target.name, &log_path)?;
    let mut command = Command::new(binaries.join(target.name));
    // What it learns goes into the first directory; the seeds are only read.
    command
        .arg(&corpus)
        .arg(&seeds)
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-max_len={}", target.longest));
    command.arg(format!("-rss_limit_mb={MEGABYTES}")).arg(format!("-timeout={SECONDS_PER_INPUT}")).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/", place.display()));
    command.args(target.dictionary.map(|name| format!("-dict={}", sources.join("dictionaries").join(name).display())));
    let ended = run::logged(&mut command, &log, Some(time.saturating_add(GRACE)))?;
    run::go_on()?;
    if ended.success() {
        let text = fs::read_to_string(&log_path).with_context(|| format!("cannot read {}", log_path.display()))?;
        let inputs =
            executed(&text).with_context(|| format!("it doesn't say how much it did: see {}", workspace.shown(&log_path)))?;
        ensure!(inputs > 0, "it tried no input: see {}", workspace.shown(&log_path));
        return Ok(inputs);
    }
    let found: Vec<_> = findings(&place)?.into_iter().filter(|path| !before.contains(path)).collect();
    let Some(input) = found.first() else {
        bail!("{}\nit ended with {ended}, and kept no input: see {}", log.tail(), workspace.shown(&log_path));
    };
    let binary = binaries.join(target.name);
    let (binary, input) = (workspace.shown(&binary), workspace.shown(input));
    bail!("{}\nit ended with {ended}; the input is kept as {input}; see it again by {binary} {input}", log.tail());
}

/// The inputs that are kept because something was wrong with them.
fn findings(place: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", place.display()))?;
        let name = entry.file_name();
        if ["crash-", "oom-", "timeout-", "leak-", "slow-unit-"].iter().any(|kind| name.to_string_lossy().starts_with(kind)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// How many inputs a target says that it tried.
fn executed(log: &str) -> Option<u64> {
    log.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = include_str!("../../fuzz/Cargo.toml");

    fn sources() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    #[test]
    fn every_target_of_the_package_is_run_with_seeds_and_a_dictionary_that_are_there() {
        let bins: Vec<&str> = PACKAGE.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(bins, TARGETS.map(|target| target.name));
        for Target { name, dictionary, .. } in TARGETS {
            let seeds = fs::read_dir(sources().join("seeds").join(name)).expect("a directory of seeds");
            assert!(seeds.count() >= 2, "{name} has hardly a seed");
            if let Some(dictionary) = dictionary {
                assert!(sources().join("dictionaries").join(dictionary).is_file(), "{dictionary}");
            }
        }
    }

    #[test]
    fn the_targets_use_what_the_workspace_uses() {
        let ours = include_str!("../../Cargo.lock");
        let theirs = include_str!("../../fuzz/Cargo.lock");
        let versions = |lock: &str, name: &str| -> Vec<String> {
            let package = |rest: &str| Some(rest.lines().next()?.strip_prefix("version = ")?.to_owned());
            lock.split(&format!("name = \"{name}\"\n")).skip(1).filter_map(package).collect()
        };
        for name in ["axum", "hyper", "jiff", "rand", "serde", "serde_json", "tokio", "toml"] {
            let ours = versions(ours, name);
            assert!(!ours.is_empty() && versions(theirs, name).iter().all(|version| ours.contains(version)), "{name}: {ours:?}");
        }
    }

    #[test]
    fn what_a_target_did_is_read_from_its_last_words() {
        let log = "#2 INITED\n#9 DONE\nDone 9 runs in 1 second(s)\nstat::number_of_executed_units: 1234\nstat::peak_rss_mb: 50\n";
        assert_eq!(executed(log), Some(1_234));
        assert_eq!(executed("Done 9 runs"), None);
    }
}
