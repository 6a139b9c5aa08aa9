//! Where the workspace and its `target` directory are, and which tools are at hand.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The one place that names the toolchain; the checks read it from there.
const TOOLCHAIN: &str = include_str!("../../rust-toolchain.toml");

/// The workspace's place on disk.
pub struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory (`CARGO_TARGET_DIR` and cargo's configuration are honoured).
    pub target: PathBuf,
    /// The names of the integration tests of the `splitter-tests` package.
    pub integration_tests: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace that the current directory is in.
    pub fn locate() -> Result<Self> {
        let output = Command::new(cargo_program())
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo: install Rust with rustup, see docs/building.md")?;
        ensure!(output.status.success(), "cargo metadata failed: run cargo xtask inside the workspace");
        Self::from_metadata(&output.stdout)
    }

    fn from_metadata(json: &[u8]) -> Result<Self> {
        let metadata: Value = serde_json::from_slice(json).context("cargo metadata printed something that is not JSON")?;
        let path =
            |key: &str| metadata[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata names no {key}"));
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
            integration_tests: integration_tests(&metadata),
        })
    }

    /// A cargo command, run from the workspace's root.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo_program());
        command.current_dir(&self.root).arg(subcommand);
        // What `cargo xtask` was told of itself. A build script that looks at it (ring's does) would run anew whenever somebody calls cargo without it, and half the workspace with it.
        for name in env::vars_os().map(|(name, _)| name).filter(|name| tells_of_a_package(name)) {
            command.env_remove(name);
        }
        command
    }

    /// Where the tools that the build needs are installed, as `cargo install --root` lays them out.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The XDP program's object, as `splitter-user`'s build script looks for it.
    pub fn program(&self) -> PathBuf {
        self.target.join("bpf").join("splitter.o")
    }

    /// The bench's own object. Not beside the program's, which is watched.
    pub fn bench_program(&self) -> PathBuf {
        self.target.join("bpf-bench").join("bench.o")
    }

    /// The builds of the XDP program that `cargo xtask bench --steps` measures.
    pub fn step_program(&self, step: &str) -> PathBuf {
        self.target.join("bpf-steps").join(format!("{step}.o"))
    }

    /// Cargo's target directory for the XDP program. Not the object's own directory, which holds nothing else, for
    /// the build script of `splitter-user` watches that one.
    pub fn program_target(&self) -> PathBuf {
        self.target.join("bpf-build")
    }

    /// Cargo's target directory for those.
    pub fn steps_target(&self) -> PathBuf {
        self.target.join("bpf-steps-build")
    }

    /// A file of the commands' own: logs and stamps.
    pub fn own(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name)
    }

    /// A path as the user would type it: relative to the workspace where it is inside.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn integration_tests(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages
        .filter(|package| package["name"] == "splitter-tests")
        .flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let mut names: Vec<String> = targets
        .filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")))
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Whether cargo sets this variable for the program that `cargo run` starts, to tell it of its package.
fn tells_of_a_package(variable: &OsStr) -> bool {
    let tells = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    variable.to_str().is_some_and(tells)
}

/// Cargo says which cargo runs us; the same one builds the rest.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn rustc_program() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// The Rust version that `rust-toolchain.toml` pins: `1.95.0`.
pub fn pinned_version() -> Result<&'static str> {
    channel(TOOLCHAIN).context("rust-toolchain.toml names no channel")
}

fn channel(toolchain: &str) -> Option<&str> {
    toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
}

/// Refuses another compiler than the pinned one: unstable flags and `core`'s source belong to exactly one version.
pub fn check_toolchain() -> Result<()> {
    let pinned = pinned_version()?;
    let printed = output_of(Command::new(rustc_program()).arg("-vV"))?;
    let found = release(&printed).context("rustc -vV prints no release")?;
    if found != pinned {
        bail!(
            "rustc is {found} and the project is built with {pinned}: run cargo through rustup, which reads \
             rust-toolchain.toml (rustup toolchain install {pinned})"
        );
    }
    Ok(())
}

fn release(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.strip_prefix("release: ")).map(str::trim)
}

/// The directory of the compiler that runs.
pub fn sysroot() -> Result<PathBuf> {
    let printed = output_of(Command::new(rustc_program()).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(printed.trim_end()))
}

/// What a short command prints; its failure is an error.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", crate::run::line(command)))?;
    if !output.status.success() {
        bail!("{} failed with {}: {}", crate::run::line(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a command is found: on the `PATH`, or where an administrator's commands are that a user's `PATH` may lack.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        // An absolute name takes the directory's place.
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Fails with one sentence when a command is missing.
pub fn require(name: &str, remedy: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("{name} is missing: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_hears_nothing_of_the_package_that_calls_it() {
        let workspace = Workspace { root: "/".into(), target: "/".into(), integration_tests: Vec::new() };
        let command = workspace.cargo("build");
        for name in ["CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR"] {
            assert!(env::var_os(name).is_some(), "cargo tells every test of its package");
            assert!(command.get_envs().any(|(removed, value)| removed == name && value.is_none()), "{name} is passed on");
        }
        assert!(!tells_of_a_package(OsStr::new("CARGO_TARGET_DIR")) && !tells_of_a_package(OsStr::new("PATH")));
    }

    #[test]
    fn the_pinned_version_is_read_from_the_toolchain_file() {
        assert_eq!(channel("[toolchain]\nchannel = \"1.95.0\"\n"), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\ncomponents = []\n"), None);
        let pinned = pinned_version().expect("the workspace's own file names a channel");
        assert_eq!(pinned.split('.').count(), 3, "{pinned}: an exact version, for core's source must match it");
    }

    #[test]
    fn the_compilers_release_is_read_from_its_verbose_version() {
        let printed = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(release(printed), Some("1.95.0"));
        assert_eq!(release("rustc 1.96.0-nightly\nrelease: 1.96.0-nightly\n"), Some("1.96.0-nightly"));
        assert_eq!(release("rustc 1.95.0"), None);
    }

    #[test]
    fn the_workspace_is_read_from_cargos_metadata() {
        let json = br#"{
            "workspace_root": "/src/splitter", "target_directory": "/big/target",
            "packages": [
                {"name": "splitter-user", "targets": [{"kind": ["test"], "name": "not_ours"}]},
                {"name": "splitter-tests", "targets": [
                    {"kind": ["lib"], "name": "splitter_tests"},
                    {"kind": ["test"], "name": "program"},
                    {"kind": ["bin"], "name": "demo"},
                    {"kind": ["test"], "name": "cli"}
                ]}
            ]
        }"#;
        let workspace = Workspace::from_metadata(json).expect("well-formed");
        assert_eq!(workspace.root, Path::new("/src/splitter"));
        assert_eq!(workspace.program(), Path::new("/big/target/bpf/splitter.o"));
        assert_eq!(workspace.integration_tests, ["cli", "program"]);
        assert!(Workspace::from_metadata(b"{}").is_err(), "no workspace root is an error");
    }

    #[test]
    fn a_missing_command_is_told_with_its_remedy() {
        let error = require("no-such-command-anywhere", "apt-get install it").expect_err("it cannot exist");
        assert_eq!(error.to_string(), "no-such-command-anywhere is missing: apt-get install it");
        assert!(require("sh", "").is_ok());
    }
}
