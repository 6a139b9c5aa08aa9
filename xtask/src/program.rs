//! The XDP program's object, `target/bpf/splitter.o`; the one that the bench puts in front of it, `target/bpf-bench/bench.o`; and for `bench --steps` builds of the
//! program that end after a step or leave something out, `target/bpf-steps/STEP.o`.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use splitter_ebpf::bench::Step;

use crate::{
    library::Library,
    report,
    run::{self, Log},
    tool,
    workspace::Workspace,
};

const TARGET: &str = "bpfel-unknown-none";
const STEP: &str = "XDP program";
const BENCH_STEP: &str = "bench entry";
const STEPS_STEP: &str = "steps";
/// What makes a build one of those for a step: its name. Nobody's environment may do so to what ships.
const STEP_VARIABLE: &str = "SPLITTER_STEP";
/// Clippy's counterpart, as a group of `cargo xtask test`.
pub const CLIPPY_STEP: &str = "clippy-bpf";

/// rustc does not know these target features by name and says so each time; LLVM does, and they are wanted.
const WANTED_FEATURES: [&str; 2] = ["`alu32`", "`allows-misaligned-mem-access`"];

/// Builds the object and puts it in place if it changed.
pub fn build(workspace: &Workspace, library: &Library) -> Result<()> {
    build_binary(workspace, library, STEP, "splitter-xdp", &workspace.program())
}

/// Builds the object that the bench and its test run in front of the program.
pub fn build_bench(workspace: &Workspace, library: &Library) -> Result<()> {
    build_binary(workspace, library, BENCH_STEP, "bench-entry", &workspace.bench_program())
}

fn build_binary(workspace: &Workspace, library: &Library, step: &str, binary: &str, place: &Path) -> Result<()> {
    report::step(step, &format!("compiling splitter-ebpf for {TARGET}"), || {
        let mut command = cargo(workspace, library, "build")?;
        command.args(["--bin", binary, "--target-dir"]).arg(workspace.program_target());
        let built = compile(workspace, &mut command, step, &format!("xdp-{binary}.log"))?;
        let built = built.with_context(|| format!("cargo built {binary} and does not say where it is"))?;
        let changed = replace_if_changed(&built, place, &workspace.own(&format!("{binary}.o.new")))?;
        let size = fs::metadata(place).with_context(|| format!("cannot read {}", place.display()))?.len();
        let state = if changed { "built" } else { "unchanged:" };
        Ok(((), format!("{state} {}, {} KiB", workspace.shown(place), size.div_ceil(1024))))
    })
}

/// Builds the program once for each of its path's steps.
pub fn build_steps(workspace: &Workspace, library: &Library) -> Result<()> {
    report::step(STEPS_STEP, &format!("compiling splitter-ebpf {} times", Step::ALL.len()), || {
        for step in Step::ALL {
            let place = workspace.step_program(step.name());
            let mut command = cargo(workspace, library, "build")?;
            // A place of their own, so that the program that ships needn't be built again because of them.
            command.args(["--bin", "splitter-xdp", "--target-dir"]).arg(workspace.steps_target()).env(STEP_VARIABLE, step.name());
            let built = compile(workspace, &mut command, STEPS_STEP, "xdp-steps.log")?;
            let built = built.with_context(|| format!("cargo built {} and does not say where it is", step.name()))?;
            replace_if_changed(&built, &place, &workspace.own("step.o.new"))?;
        }
        Ok(((), format!("built {}", workspace.shown(&workspace.step_program("…")))))
    })
}

/// Clippy on the code that only the kernel's target compiles.
pub fn clippy(workspace: &Workspace, library: &Library) -> Result<()> {
    let mut command = cargo(workspace, library, "clippy")?;
    command.arg("--target-dir").arg(workspace.program_target());
    command.args(["--lib", "--bins", "--", "-D", "warnings"]);
    compile(workspace, &mut command, CLIPPY_STEP, "clippy-bpf.log").map(|_| ())
}

fn cargo(workspace: &Workspace, library: &Library, subcommand: &str) -> Result<Command> {
    let mut command = workspace.cargo(subcommand);
    let format = if io::stderr().is_terminal() { "json-diagnostic-rendered-ansi" } else { "json" };
    command
        .args(["--package", "splitter-ebpf", "--profile", "bpf"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .args(["--message-format", format])
        // Unstable flags on the stable compiler; nothing but this target's build gets to see it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", tool::path(workspace)?);
    // The first two would replace the flags of .cargo/config.toml, without which the object has no BTF.
    for overriding in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", STEP_VARIABLE] {
        command.env_remove(overriding);
    }
    library.point_cargo_at_it(&mut command);
    Ok(command)
}

/// Runs cargo, shows what the compiler has to say, and gives back the path of the executable it made.
fn compile(workspace: &Workspace, command: &mut Command, step: &str, log: &str) -> Result<Option<PathBuf>> {
    let path = workspace.own(log);
    let log = Log::create(step, &path)?;
    let mut executable = None;
    let mut shown = 0_usize;
    let status = run::lines(command, Some(&log), |line| match Message::read(line) {
        Message::Diagnostic(text) => {
            shown += 1;
            eprint!("{text}");
        }
        Message::Executable(path) => executable = Some(path),
        Message::Nothing => {}
    })?;
    run::go_on()?;
    if !status.success() {
        // Where the compiler said nothing, cargo or the linker did.
        let tail = if shown == 0 { log.tail() + "\n" } else { String::new() };
        bail!("{tail}{} failed with {status}: see {}", run::line(command), workspace.shown(&path));
    }
    Ok(executable)
}

/// One line of cargo's JSON, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// What rustc wants to be read, rendered.
    Diagnostic(String),
    /// The object.
    Executable(PathBuf),
    Nothing,
}

impl Message {
    fn read(line: &str) -> Self {
        let Ok(json) = serde_json::from_str::<Value>(line) else {
            return Self::Nothing;
        };
        let message = &json["message"];
        match json["reason"].as_str() {
            Some("compiler-message") if !is_about_wanted_features(message) => match message["rendered"].as_str() {
                Some(rendered) => Self::Diagnostic(rendered.to_owned()),
                None => Self::Nothing,
            },
            Some("compiler-artifact") => match json["executable"].as_str() {
                Some(path) => Self::Executable(path.into()),
                None => Self::Nothing,
            },
            Some(_) | None => Self::Nothing,
        }
    }
}

fn is_about_wanted_features(message: &Value) -> bool {
    let text = message["message"].as_str().unwrap_or_default();
    message["level"] == "warning"
        && text.contains("-Ctarget-feature")
        && WANTED_FEATURES.iter().any(|feature| text.ends_with(feature))
}

/// Copies `from` to `to` unless they are equal, so that what depends on `to` is not built again for nothing. Whoever
/// reads `to` meanwhile sees the old one or the new one, never half of it.
fn replace_if_changed(from: &Path, to: &Path, temporary: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    match fs::read(to) {
        Ok(old) if old == new => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", to.display())),
    }
    for directory in [to.parent(), temporary.parent()].into_iter().flatten() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(temporary, new).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(temporary, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_are_sorted_into_what_to_show_and_what_was_built() {
        let diagnostic = |level: &str, text: &str| {
            format!(r#"{{"reason":"compiler-message","message":{{"level":"{level}","message":"{text}","rendered":"shown\n"}}}}"#)
        };
        let shown = Message::Diagnostic("shown\n".to_owned());
        for (line, expected, why) in [
            (
                diagnostic("warning", "unstable feature specified for `-Ctarget-feature`: `alu32`"),
                Message::Nothing,
                "a wanted feature",
            ),
            (
                diagnostic("warning", "unknown and unstable feature specified for `-Ctarget-feature`: `tail-calls`"),
                shown,
                "a feature nobody asked for",
            ),
            (diagnostic("error", "cannot find value `alu32`"), Message::Diagnostic("shown\n".to_owned()), "an error"),
            (
                r#"{"reason":"compiler-artifact","executable":"/t/splitter"}"#.to_owned(),
                Message::Executable("/t/splitter".into()),
                "the object",
            ),
            (r#"{"reason":"compiler-artifact","executable":null}"#.to_owned(), Message::Nothing, "a library"),
            (r#"{"reason":"build-finished","success":true}"#.to_owned(), Message::Nothing, "the end"),
            ("not JSON".to_owned(), Message::Nothing, "what a build script prints"),
        ] {
            assert_eq!(Message::read(&line), expected, "{why}");
        }
    }

    #[test]
    fn an_unchanged_object_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("splitter-xtask-{}-object", std::process::id()));
        let (from, to) = (directory.join("built"), directory.join("bpf").join("splitter.o"));
        let temporary = directory.join("new");
        fs::create_dir_all(&directory).expect("the temporary directory can be written to");
        fs::write(&from, "first").expect("just made");

        assert!(replace_if_changed(&from, &to, &temporary).expect("all is there"), "there was none");
        let before = fs::metadata(&to).and_then(|metadata| metadata.modified()).expect("just written");
        assert!(!replace_if_changed(&from, &to, &temporary).expect("all is there"), "nothing changed");
        let after = fs::metadata(&to).and_then(|metadata| metadata.modified()).expect("still there");
        assert_eq!(before, after);

        fs::write(&from, "second").expect("just made");
        assert!(replace_if_changed(&from, &to, &temporary).expect("all is there"), "the program changed");
        assert_eq!(fs::read(&to).expect("just written"), b"second");
        assert!(replace_if_changed(&directory.join("none"), &to, &temporary).is_err(), "nothing was built");
        fs::remove_dir_all(directory).expect("made above");
    }
}
