//! What goes into the machines: the binaries of the ordinary test build with their libraries, what the tests call, the modules, the plan.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{cpio::Archive, modules::Module};
use crate::{
    build::{self, Profile},
    report, run,
    workspace::{self, Workspace},
};

/// The test binaries that run in the machines.
const SUITES: [&str; 3] = ["program", "program_oracle", "net_kernel"];
/// The checks that the guest itself makes, as `tests/src/guest/checks.rs` names them.
const CHECKS: [&str; 2] =
    ["the_verifier_takes_the_program_with_and_without_multi_buffer_frames", "the_agents_code_attaches_the_program_natively"];

/// Binaries, built.
pub struct Guest {
    init: PathBuf,
    splitter: PathBuf,
    /// The bench's XDP program, which the guest finds by its place in the root directory.
    bench: PathBuf,
    pub suites: Vec<Binary>,
}

/// A test binary and its tests.
pub struct Binary {
    pub name: String,
    path: PathBuf,
    pub tests: Vec<String>,
}

/// Builds everything that runs in the machines: what `cargo test` builds, so that nothing is compiled for them alone.
pub fn build(workspace: &Workspace) -> Result<Guest> {
    build::build(workspace, Profile::Dev)?;
    build::bench(workspace)?;
    report::step("guest", "building the tests that run in the machines", || {
        let mut command = workspace.cargo("build");
        command.args(["--package=splitter-tests", "--bin=guest", "--message-format=json-render-diagnostics"]);
        command.args(SUITES.map(|name| format!("--test={name}")));
        let mut made = Vec::new();
        let status = run::lines(&mut command, None, |line| made.extend(executable(line)))?;
        run::go_on()?;
        ensure!(status.success(), "{} failed with {status}", run::line(&command));

        let suites = SUITES.map(|name| {
            let path = one(&made, name)?;
            let tests = tests_of(&path)?;
            Ok(Binary { name: name.to_owned(), path, tests })
        });
        let suites = suites.into_iter().collect::<Result<Vec<_>>>()?;
        let count: usize = suites.iter().map(|suite| suite.tests.len()).sum();
        let splitter = workspace.target.join("debug").join("splitter");
        let guest = Guest { init: one(&made, "guest")?, splitter, bench: workspace.bench_program(), suites };
        Ok((guest, format!("built, {count} tests")))
    })
}

/// The executable that a line of cargo's tells of.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let json: Value = serde_json::from_str(line).ok()?;
    Some((json["target"]["name"].as_str()?.to_owned(), json["executable"].as_str()?.into()))
}

fn one(made: &[(String, PathBuf)], name: &str) -> Result<PathBuf> {
    let found = made.iter().find(|(made, _)| made == name);
    found.map(|(_, path)| path.clone()).with_context(|| format!("cargo does not say where it has built {name}"))
}

fn tests_of(binary: &Path) -> Result<Vec<String>> {
    let printed = workspace::output_of(Command::new(binary).args(["--list", "--format", "terse"]))?;
    let tests: Vec<String> = printed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    ensure!(!tests.is_empty(), "{} has no tests", binary.display());
    Ok(tests)
}

impl Guest {
    /// What a machine is to do, and the names that it has to tell of: those of all tests that have one of the texts `wanted` in their name, without those in `skipped`. All
    /// by `suite::name`. To skip a test that doesn't exist is an error, so that the list can't outlive what it is about.
    pub fn plan(&self, modules: &[Module], skipped: &BTreeSet<String>, wanted: &[&str]) -> Result<(Value, BTreeSet<String>)> {
        let mut expected = BTreeSet::new();
        let mut suites = Vec::new();
        let mut unknown = skipped.clone();
        let checks = ("checks", &CHECKS.map(str::to_owned)[..]);
        for (suite, tests) in
            std::iter::once(checks).chain(self.suites.iter().map(|suite| (suite.name.as_str(), &suite.tests[..])))
        {
            let full = |test: &String| format!("{suite}::{test}");
            let is_wanted = |test: &String| wanted.iter().any(|text| full(test).contains(text));
            let wanted: Vec<&String> = tests.iter().filter(|test| !unknown.remove(&full(test)) && is_wanted(test)).collect();
            if wanted.is_empty() {
                continue;
            }
            expected.extend(wanted.iter().map(|test| full(test)));
            suites.push(match suite {
                "checks" => json!({"suite": "checks", "tests": wanted}),
                binary => json!({"suite": "binary", "path": format!("/tests/{binary}"), "tests": wanted}),
            });
        }
        ensure!(unknown.is_empty(), "there are no such tests to skip: {}", unknown.into_iter().collect::<Vec<_>>().join(", "));
        ensure!(!suites.is_empty(), "no test that could be run has \"{}\" in its name", wanted.join("\" or \""));
        Ok((plan(modules, &suites), expected))
    }

    /// A machine that only measures.
    pub fn cost_plan(modules: &[Module]) -> Value {
        plan(modules, &[json!({"suite": "cost"})])
    }

    /// Writes a machine's initial file system.
    pub fn write(&self, modules: &[Module], plan: &Value, to: &Path) -> Result<()> {
        let failed = || format!("cannot write {}", to.display());
        let mut tree =
            Tree { archive: Archive::new(BufWriter::new(File::create(to).with_context(failed)?)), made: BTreeSet::new() };
        let ip = workspace::require("ip", "apt-get install iproute2")?;
        let mut programs =
            vec![("/init".to_owned(), &self.init), ("/bin/splitter".to_owned(), &self.splitter), ("/bin/ip".to_owned(), &ip)];
        programs.extend(self.suites.iter().map(|binary| (format!("/tests/{}", binary.name), &binary.path)));
        let mut libraries = BTreeSet::new();
        for (place, program) in programs {
            libraries.extend(libraries_of(program)?);
            tree.add(&place, &stripped(program, &to.with_extension("stripped"))?)?;
        }
        for library in libraries {
            let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            tree.add(library.to_str().context("a library's name is not text")?, &content)?;
        }
        let bench = fs::read(&self.bench).with_context(|| format!("cannot read {}", self.bench.display()))?;
        tree.add("/bpf-bench/bench.o", &bench)?;
        for module in modules {
            tree.add(&in_machine(module), &module.content)?;
        }
        tree.add("/plan.json", plan.to_string().as_bytes())?;
        tree.archive.finish().with_context(failed)?;
        Ok(())
    }
}

/// An initial file system being written, with the directories that files need.
struct Tree {
    archive: Archive<BufWriter<File>>,
    made: BTreeSet<PathBuf>,
}

impl Tree {
    fn add(&mut self, place: &str, content: &[u8]) -> Result<()> {
        let relative = Path::new(place.trim_start_matches('/'));
        let above: Vec<&Path> = relative.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        let write = |tree: &mut Self| -> io::Result<()> {
            for directory in above.into_iter().rev() {
                if tree.made.insert(directory.to_owned()) {
                    tree.archive.directory(&directory.to_string_lossy())?;
                }
            }
            tree.archive.file(&relative.to_string_lossy(), content)
        };
        write(self).with_context(|| format!("cannot write {place} into an initial file system"))
    }
}

/// A binary without what only a debugger needs: ten times smaller, and a machine holds it in memory.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    workspace::require("strip", "apt-get install binutils")?;
    workspace::output_of(Command::new("strip").arg("-o").arg(scratch).arg(program))?;
    let content = fs::read(scratch).with_context(|| format!("cannot read {}", scratch.display()))?;
    fs::remove_file(scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(content)
}

fn plan(modules: &[Module], suites: &[Value]) -> Value {
    let modules: Vec<String> = modules.iter().map(in_machine).collect();
    json!({"modules": modules, "suites": suites})
}

fn in_machine(module: &Module) -> String {
    format!("/modules/{}.ko", module.name)
}

/// The libraries that a program is linked with, by `ldd`, which runs the loader and not the program.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let printed = workspace::output_of(Command::new("ldd").arg(program))?;
    libraries(&printed).with_context(|| format!("the libraries of {}", program.display()))
}

/// The files that `ldd` names: `libc.so.6 => /lib/libc.so.6 (0x…)`, and the loader by its path alone.
fn libraries(printed: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "=>", "not", "found"] => bail!("one is missing: {line}"),
            [_, "=>", path, _] => found.push(path.into()),
            [path, _] if path.starts_with('/') => found.push(path.into()),
            // The kernel's own, without a file.
            _ => {}
        }
    }
    ensure!(!found.is_empty(), "`ldd` names none: {printed}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let printed = "\tlinux-vdso.so.1 (0x00007f14e8182000)\n\tlibmnl.so.0 => /lib/libmnl.so.0 (0x00007f14e7fff000)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f14e8184000)\n";
        let expected = ["/lib/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(printed).expect("all are there"), expected);
        assert!(libraries("\tlibmnl.so.0 => not found\n").is_err());
        assert!(libraries("\tstatically linked\n").is_err(), "nothing to be copied is not what was expected");
    }

    #[test]
    fn a_plan_names_what_runs_and_what_must_be_told() {
        let binary = |name: &str, tests: &[&str]| Binary {
            name: name.into(),
            path: PathBuf::new(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        };
        let suites = vec![binary("program", &["a", "b"]), binary("net", &["a"])];
        let guest = Guest { init: PathBuf::new(), splitter: PathBuf::new(), bench: PathBuf::new(), suites };
        let skip = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let modules = [Module { name: "veth".into(), content: Vec::new() }];

        let (plan, expected) = guest.plan(&modules, &skip(&["program::b", "net::a"]), &[""]).expect("both exist");
        assert_eq!(plan["modules"], json!(["/modules/veth.ko"]));
        let suites = json!([{"suite": "checks", "tests": CHECKS}, {"suite": "binary", "path": "/tests/program", "tests": ["a"]}]);
        assert_eq!(plan["suites"], suites);
        assert_eq!(expected.len(), CHECKS.len() + 1);
        assert!(expected.contains("program::a"));
        let (_, expected) = guest.plan(&modules, &skip(&[]), &["program::"]).expect("two are");
        assert_eq!(expected.len(), 2);
        assert!(guest.plan(&modules, &skip(&["program::c"]), &[""]).is_err(), "a list of what is skipped stays true");
        assert!(guest.plan(&modules, &skip(&[]), &["nothing"]).is_err(), "nothing run is no success");
    }

    #[test]
    fn executables_are_read_from_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"guest"},"executable":"/t/guest"}"#;
        assert_eq!(executable(line), Some(("guest".into(), "/t/guest".into())));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}"#), None);
        assert_eq!(executable("warning"), None);
    }
}
