//! `cargo xtask test`: which groups there are, what each runs, and the summary.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use nix::unistd::geteuid;

use crate::{
    build::{self, Profile},
    fuzz, packages, program,
    report::elapsed,
    results::{Row, Tally, Verdict, closing, judge},
    run, soak, vm, workspace,
    workspace::Workspace,
};

/// The exit code for "start me as root".
pub const NOT_ROOT: u8 = 2;

/// Long enough for each kind of event to come twice, and the same schedule each time: who breaks something is to see it again.
const SOAK: [&str; 4] = ["--minutes", "5", "--seed", "1"];

/// The arguments of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Run these groups alone, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUPS")]
    only: Vec<Group>,
    /// Download no kernels: `vm` runs on those in target/kernels alone, and names the others.
    #[arg(long)]
    offline: bool,
}

/// A part of the tests that can be run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// cargo fmt --check
    Fmt,
    /// clippy, warnings denied, for this machine and for the kernel's target
    Clippy,
    /// unit and property tests of the packages
    Unit,
    /// the XDP program under BPF_PROG_TEST_RUN
    Program,
    /// network namespaces, real servers and clients
    Net,
    /// the command line
    Cli,
    /// examples in the documentation
    Doc,
    /// hostile input for whatever reads what others write: a short `cargo xtask fuzz`
    Fuzz,
    /// trouble under load for five minutes: what `cargo xtask soak --minutes 5` runs
    Soak,
    /// other kernels, in virtual machines: what `cargo xtask vm --core` runs
    Vm,
}

impl Group {
    /// Whether it makes namespaces or loads programs.
    fn needs_root(self) -> bool {
        match self {
            Self::Unit | Self::Program | Self::Net | Self::Cli | Self::Soak => true,
            Self::Fmt | Self::Clippy | Self::Doc | Self::Fuzz | Self::Vm => false,
        }
    }

    /// Whether it runs what `cargo xtask build` makes. `vm` sees to that itself.
    fn needs_build(self) -> bool {
        self.needs_root()
    }

    /// Whether it calls nginx, Prometheus and the like.
    fn needs_packages(self) -> bool {
        match self {
            Self::Net | Self::Cli | Self::Soak => true,
            Self::Fmt | Self::Clippy | Self::Unit | Self::Program | Self::Doc | Self::Fuzz | Self::Vm => false,
        }
    }
}

/// One row of the plan.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    work: Work,
}

#[derive(Debug, PartialEq, Eq)]
enum Work {
    Packages,
    Build,
    /// A cargo subcommand that passes or fails.
    Tool(Vec<&'static str>),
    ProgramClippy,
    /// The fuzz targets, which are in a workspace of their own.
    FuzzClippy,
    /// `cargo test`, its tests counted.
    Tests {
        arguments: Vec<String>,
        may_be_empty: bool,
    },
    /// The fuzz targets, each for a while.
    Fuzz,
    /// The soak: each thing that must hold counts as a test.
    Soak,
    /// The tests in virtual machines.
    Vm,
    /// The group has no test target; asked for by name, that is a failure.
    Nothing {
        asked_for: bool,
    },
}

/// Runs the groups; the last line printed is `N passed, N failed`.
pub fn test(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let groups: Vec<Group> = match options.only.as_slice() {
        [] => Group::value_variants().to_vec(),
        only => only.to_vec(),
    };
    if groups.iter().any(|group| group.needs_root()) && !geteuid().is_root() {
        eprintln!("{}", not_root("test", "tests make network namespaces and load XDP programs"));
        return Ok(ExitCode::from(NOT_ROOT));
    }
    for (group, subcommand) in [(Group::Fmt, "fmt"), (Group::Clippy, "clippy")] {
        if groups.contains(&group) {
            check_subcommand(workspace, subcommand)?;
        }
    }

    let mut rows = Vec::new();
    for check in plan(&groups, &workspace.integration_tests, !options.only.is_empty()) {
        let is_setup = matches!(check.work, Work::Packages | Work::Build);
        let row = perform(workspace, check, options.offline);
        run::go_on()?;
        let stop = is_setup && matches!(row.verdict, Verdict::Failed(_));
        rows.push(row);
        if stop {
            println!("The rest was not begun: it needs what failed.");
            break;
        }
    }

    println!("\n{}", summary(&rows));
    let (passed, failed) = closing(&rows);
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is run for these groups, in order; quick ones first.
fn plan(groups: &[Group], integration_tests: &[String], asked_for: bool) -> Vec<Check> {
    let mut plan = Vec::new();
    let mut add = |name, work| plan.push(Check { name, work });
    let has = |group| groups.contains(&group);

    if has(Group::Fmt) {
        add("fmt", Work::Tool(vec!["fmt", "--all", "--check"]));
        add("fmt-fuzz", Work::Tool(vec!["fmt", "--check", "--manifest-path", fuzz::MANIFEST]));
    }
    if groups.iter().any(|group| group.needs_packages()) {
        add("packages", Work::Packages);
    }
    if groups.iter().any(|group| group.needs_build()) {
        add("build", Work::Build);
    }
    if has(Group::Clippy) {
        let arguments = vec!["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        add("clippy", Work::Tool(arguments));
        add(program::CLIPPY_STEP, Work::ProgramClippy);
        add("clippy-fuzz", Work::FuzzClippy);
    }
    if has(Group::Unit) {
        add("unit", tests(&["--package=splitter-ebpf", "--package=splitter-user", "--package=xtask", "--all-targets"], false));
    }
    for (group, name) in [(Group::Program, "program"), (Group::Net, "net"), (Group::Cli, "cli")] {
        if has(group) {
            add(name, integration(group, integration_tests, asked_for));
        }
    }
    if has(Group::Doc) {
        add("doc", tests(&["--workspace", "--doc"], true));
    }
    if has(Group::Fuzz) {
        add("fuzz", Work::Fuzz);
    }
    if has(Group::Soak) {
        add("soak", Work::Soak);
    }
    if has(Group::Vm) {
        add("vm", Work::Vm);
    }
    plan
}

fn tests(arguments: &[&str], may_be_empty: bool) -> Work {
    Work::Tests { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), may_be_empty }
}

/// The integration tests of one group: `tests/tests/program*.rs`, `tests/tests/cli*.rs`, and for `net` all others
/// along with the unit tests of the lab itself, so that no file is in no group.
fn integration(group: Group, all: &[String], asked_for: bool) -> Work {
    let mut arguments = vec!["--package=splitter-tests".to_owned()];
    if group == Group::Net {
        arguments.extend(["--lib", "--bins"].map(str::to_owned));
    }
    let ours: Vec<_> = all.iter().filter(|name| group_of(name) == group).collect();
    if ours.is_empty() && group != Group::Net {
        // Without a target named, cargo would run all of them.
        return Work::Nothing { asked_for };
    }
    arguments.extend(ours.iter().map(|name| format!("--test={name}")));
    Work::Tests { arguments, may_be_empty: ours.is_empty() && !asked_for }
}

fn group_of(test_target: &str) -> Group {
    if test_target.starts_with("program") {
        Group::Program
    } else if test_target.starts_with("cli") {
        Group::Cli
    } else {
        Group::Net
    }
}

fn perform(workspace: &Workspace, check: Check, offline: bool) -> Row {
    let name = check.name;
    println!("\n== {name}");
    let started = Instant::now();
    let mut tally = Tally::default();
    let verdict = match check.work {
        Work::Packages => {
            verdict(packages::ensure(workspace, &packages::TESTS).and_then(|()| packages::ensure(workspace, &packages::TALKERS)))
        }
        Work::Build => verdict(build::build(workspace, Profile::Dev).and_then(|()| build::bench(workspace))),
        Work::Tool(arguments) => verdict(tool(&mut cargo(workspace, &arguments))),
        Work::ProgramClippy => verdict(build::provision(workspace).and_then(|library| program::clippy(workspace, &library))),
        Work::FuzzClippy => {
            verdict(packages::ensure(workspace, &packages::FUZZ).and_then(|()| tool(&mut fuzz_clippy(workspace))))
        }
        Work::Tests { arguments, may_be_empty } => {
            let mut command = workspace.cargo("test");
            command.arg("--no-fail-fast").args(arguments);
            let run = run::lines(&mut command, None, |line| {
                println!("{line}");
                if let Some(more) = Tally::read(line) {
                    tally += more;
                }
            });
            match run {
                Ok(status) => judge(tally, status.success(), may_be_empty),
                Err(error) => verdict(Err(error)),
            }
        }
        Work::Fuzz => match fuzz::run_all(workspace, &fuzz::Options::short()) {
            Ok(sum) => {
                tally += sum;
                judge(tally, true, false)
            }
            Err(error) => verdict(Err(error)),
        },
        Work::Soak => {
            let mut command = workspace.cargo("run");
            command.args(soak::RUN).args(SOAK);
            let run = run::lines(&mut command, None, |line| {
                println!("{line}");
                if let Some(sum) = Tally::read_soak(line) {
                    tally += sum;
                }
            });
            match run {
                Ok(status) => judge(tally, status.success(), false),
                Err(error) => verdict(Err(error)),
            }
        }
        Work::Vm => match vm::run_all(workspace, &vm::Options::core(offline)) {
            Ok(vm::Done { sum, untested }) => {
                tally += Tally { passed: sum.passed, failed: sum.failed, ignored: 0 };
                let verdict = judge(tally, sum.failed == 0, !untested.is_empty());
                if verdict == Verdict::Passed && !untested.is_empty() {
                    Verdict::Partly(format!("offline, without Linux {}", untested.join(", ")))
                } else {
                    verdict
                }
            }
            Err(error) => verdict(Err(error)),
        },
        Work::Nothing { asked_for: false } => Verdict::Absent,
        Work::Nothing { asked_for: true } => Verdict::Failed("there is no such test".to_owned()),
    };
    let row = Row { name, verdict, tally, took: started.elapsed() };
    println!("== {name}: {} ({})", outcome(&row), elapsed(row.took));
    row
}

/// What it has of the workspace's own dependencies was looked at before, in the same target directory.
fn fuzz_clippy(workspace: &Workspace) -> Command {
    let mut command =
        cargo(workspace, &["clippy", "--locked", "--manifest-path", fuzz::MANIFEST, "--lib", "--bins", "--examples"]);
    command.arg("--target-dir").arg(&workspace.target).args(["--", "-D", "warnings"]);
    command
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let (subcommand, rest) = arguments.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let mut command = workspace.cargo(subcommand);
    command.args(rest);
    command
}

fn tool(command: &mut Command) -> Result<()> {
    let status = run::attended(command)?;
    ensure!(status.success(), "{} failed with {status}", run::line(command));
    Ok(())
}

/// An error becomes a row of the summary; what it says in full is printed here.
fn verdict(result: Result<()>) -> Verdict {
    match result {
        Ok(()) => Verdict::Passed,
        Err(error) => {
            eprintln!("error: {error:#}");
            Verdict::Failed("see above".to_owned())
        }
    }
}

fn outcome(row: &Row) -> String {
    match &row.verdict {
        Verdict::Passed if row.tally.executed() > 0 => format!("{} passed", row.tally.passed),
        Verdict::Passed => "ok".to_owned(),
        Verdict::Partly(without) => format!("{} passed; {without}", row.tally.passed),
        Verdict::Absent => "none in the workspace".to_owned(),
        Verdict::Failed(reason) => format!("FAILED: {reason}"),
    }
}

fn summary(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| format!("{:<10}  {:>12}  {}\n", row.name, elapsed(row.took), outcome(row)));
    lines.collect()
}

fn check_subcommand(workspace: &Workspace, subcommand: &str) -> Result<()> {
    let component = if subcommand == "fmt" { "rustfmt" } else { subcommand };
    let found = workspace::output_of(workspace.cargo(subcommand).arg("--version"));
    ensure!(
        found.is_ok(),
        "cargo {subcommand} is missing: rustup component add {component} (Debian's toolchain: apt-get install {})",
        if component == "clippy" { "rust-clippy" } else { component }
    );
    Ok(())
}

/// What another user than root is told.
pub fn not_root(command: &str, why: &str) -> String {
    format!(
        "cargo xtask {command} must run as root, for {why}:\n\n    sudo -E env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_run_holds_every_group_and_every_test_target() {
        let targets = ["cli", "nat", "program_decode", "share"].map(str::to_owned);
        let plan = plan(Group::value_variants(), &targets, false);
        let names: Vec<_> = plan.iter().map(|check| check.name).collect();
        let expected = [
            "fmt",
            "fmt-fuzz",
            "packages",
            "build",
            "clippy",
            "clippy-bpf",
            "clippy-fuzz",
            "unit",
            "program",
            "net",
            "cli",
            "doc",
            "fuzz",
            "soak",
            "vm",
        ];
        assert_eq!(names, expected);
        for target in targets {
            let argument = format!("--test={target}");
            let holders = plan.iter().filter(|check| match &check.work {
                Work::Tests { arguments, .. } => arguments.contains(&argument),
                Work::Packages
                | Work::Build
                | Work::Tool(_)
                | Work::ProgramClippy
                | Work::FuzzClippy
                | Work::Fuzz
                | Work::Soak
                | Work::Vm
                | Work::Nothing { .. } => false,
            });
            assert_eq!(holders.count(), 1, "{target} is run once");
        }
    }

    #[test]
    fn a_quick_group_needs_neither_build_nor_packages() {
        let names = |groups: &[Group]| plan(groups, &[], true).iter().map(|check| check.name).collect::<Vec<_>>();
        assert_eq!(names(&[Group::Fmt]), ["fmt", "fmt-fuzz"]);
        assert_eq!(names(&[Group::Clippy]), ["clippy", "clippy-bpf", "clippy-fuzz"]);
        assert_eq!(names(&[Group::Fuzz]), ["fuzz"]);
        assert_eq!(names(&[Group::Unit]), ["build", "unit"]);
        assert_eq!(names(&[Group::Net]), ["packages", "build", "net"]);
        assert_eq!(names(&[Group::Soak]), ["packages", "build", "soak"]);
    }

    #[test]
    fn a_group_without_tests_passes_only_when_nobody_asked_for_it() {
        for asked_for in [false, true] {
            assert_eq!(integration(Group::Cli, &["net".to_owned()], asked_for), Work::Nothing { asked_for });
        }
        let Work::Tests { may_be_empty, .. } = integration(Group::Net, &["share".to_owned()], false) else {
            panic!("there is a test");
        };
        assert!(!may_be_empty, "a test target that runs no test is broken");
    }

    #[test]
    fn the_summary_is_aligned() {
        let row = |name, verdict, passed, seconds| Row {
            name,
            verdict,
            tally: Tally { passed, ..Tally::default() },
            took: std::time::Duration::from_secs(seconds),
        };
        let rows = [
            row("fmt", Verdict::Failed("see above".to_owned()), 0, 1),
            row("clippy-bpf", Verdict::Passed, 0, 12),
            row("unit", Verdict::Passed, 120, 83),
            row("cli", Verdict::Absent, 0, 0),
            row("vm", Verdict::Partly("offline, without Linux 5.10, 6.1".to_owned()), 60, 90),
        ];
        let expected = "\
fmt                1.0 s  FAILED: see above
clippy-bpf        12.0 s  ok
unit          1 min 23 s  120 passed
cli                0.0 s  none in the workspace
vm            1 min 30 s  60 passed; offline, without Linux 5.10, 6.1
";
        assert_eq!(summary(&rows), expected);
    }
}
