//! The source of Rust's `core`, which is compiled for the kernel's target: of exactly the compiler's version.
//!
//! Where it is looked for, in order: the toolchain itself; what an earlier run unpacked; rustup; Debian's package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    apt, report,
    run::{self, Log},
    workspace::{self, Workspace},
};

const STEP: &str = "rust-src";
/// rustup downloads about 3 MB; where it reaches no server it tries much longer than anybody waits.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);
/// Debian's package of the pinned version, and the suite that has it.
const PACKAGE: apt::Package = apt::Package { name: "rust-src", version: "1.95.0+dfsg1-2~bpo13+1", suite: "trixie-backports" };

/// Where `core`'s source is.
#[derive(Debug, PartialEq, Eq)]
pub enum Library {
    /// In the toolchain, where cargo looks by itself.
    Toolchain,
    /// In a directory of its own; the toolchain is left as it is.
    Directory(PathBuf),
}

impl Library {
    /// Makes cargo's `-Z build-std` find the source.
    pub fn point_cargo_at_it(&self, command: &mut Command) {
        match self {
            Self::Toolchain => command.env_remove(SOURCE_VARIABLE),
            Self::Directory(path) => command.env(SOURCE_VARIABLE, path),
        };
    }
}

/// Cargo's only way to another library source than the toolchain's, named for its tests. The toolchain is pinned, so
/// that a cargo without it cannot come unnoticed.
const SOURCE_VARIABLE: &str = "__CARGO_TESTS_ONLY_SRC_ROOT";

/// Finds the source or gets it.
pub fn ensure(workspace: &Workspace) -> Result<Library> {
    let version = workspace::pinned_version()?;
    report::step(STEP, &format!("looking for the library source of Rust {version}"), || {
        let sysroot = workspace::sysroot()?;
        if is_library(&in_toolchain(&sysroot)) {
            return Ok((Library::Toolchain, "found in the toolchain".to_owned()));
        }
        let root = workspace.target.join("rust-src");
        let unpacked = in_package(&root, version);
        if is_library(&unpacked) {
            let outcome = format!("found {}", workspace.shown(&unpacked));
            return Ok((Library::Directory(unpacked), outcome));
        }
        let no_rustup = match from_rustup(workspace, &sysroot)? {
            Ok(()) => return Ok((Library::Toolchain, "added to the toolchain by rustup".to_owned())),
            Err(reason) => reason,
        };
        println!("[{STEP}] {no_rustup}: trying Debian's package {} {}", PACKAGE.name, PACKAGE.version);
        from_debian(workspace, version, &root).map_err(|error| {
            anyhow!(
                "no library source of Rust {version}: {no_rustup}, and Debian's package is out of reach: {error:#}. \
                 Run `rustup component add rust-src` with a way to rustup's server, then this again"
            )
        })?;
        let outcome = format!("unpacked {}", workspace.shown(&unpacked));
        Ok((Library::Directory(unpacked), outcome))
    })
}

fn in_toolchain(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

fn in_package(root: &Path, version: &str) -> PathBuf {
    root.join(package_directory(version)).join("library")
}

fn package_directory(version: &str) -> String {
    format!("usr/src/rustc-{version}")
}

/// What cargo reads before it compiles `core`; a source that was half unpacked lacks one of them.
fn is_library(directory: &Path) -> bool {
    ["Cargo.toml", "Cargo.lock", "core/src/lib.rs", "compiler-builtins", "sysroot/Cargo.toml"]
        .iter()
        .all(|part| directory.join(part).exists())
}

/// Asks rustup once. The inner result says why it does not help, which is no error yet.
fn from_rustup(workspace: &Workspace, sysroot: &Path) -> Result<Result<(), String>> {
    let stamp = workspace.own("rustup-could-not-download");
    if stamp.exists() {
        return Ok(Err("rustup could not add it before".to_owned()));
    }
    if workspace::find("rustup").is_none() {
        return Ok(Err("there is no rustup".to_owned()));
    }
    println!("[{STEP}] not there: asking rustup, for at most {} s", RUSTUP_LIMIT.as_secs());
    let path = workspace.own("rustup.log");
    let log = Log::create(STEP, &path)?;
    let mut command = Command::new("rustup");
    command.current_dir(&workspace.root).args(["component", "add", "rust-src"]);
    let ended = run::logged(&mut command, &log, Some(RUSTUP_LIMIT))?;
    run::go_on()?;
    if ended.success() && is_library(&in_toolchain(sysroot)) {
        return Ok(Ok(()));
    }
    fs::write(&stamp, log.tail()).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Err(if ended.success() {
        "rustup has it and this compiler is not rustup's".to_owned()
    } else {
        format!("rustup could not add it ({ended})")
    }))
}

fn from_debian(workspace: &Workspace, version: &str, root: &Path) -> Result<()> {
    let work = workspace.own("apt");
    let archive = apt::download(&PACKAGE, &work, &workspace.own("apt.log"))?;
    // Unpacked beside its place and then moved, so that what stands there is always whole.
    let partial = workspace.target.join("rust-src.partial");
    for old in [&partial, &root.to_path_buf()] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    apt::unpack(&archive, &partial, STEP, &workspace.own("dpkg.log"))?;
    keep_library_alone(&partial.join(package_directory(version)))?;
    fs::rename(&partial, root).with_context(|| format!("cannot move {} into place", partial.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    if !is_library(&in_package(root, version)) {
        bail!("the package {} {} has no library source in {}", PACKAGE.name, PACKAGE.version, root.display());
    }
    Ok(())
}

/// The package also holds the compiler's source, five times the library's size and of no use here.
fn keep_library_alone(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        if entry.file_name() != "library" && entry.path().is_dir() {
            fs::remove_dir_all(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_package_is_of_the_pinned_version() {
        let pinned = workspace::pinned_version().expect("the workspace's own file names a channel");
        assert!(
            PACKAGE.version.starts_with(&format!("{pinned}+dfsg")),
            "rust-toolchain.toml says {pinned}, the package is {}",
            PACKAGE.version
        );
    }

    #[test]
    fn a_half_unpacked_source_is_none() {
        let directory = std::env::temp_dir().join(format!("splitter-xtask-{}-library", std::process::id()));
        for part in ["core/src", "compiler-builtins", "sysroot"] {
            fs::create_dir_all(directory.join(part)).expect("the temporary directory can be written to");
        }
        for file in ["Cargo.toml", "Cargo.lock", "core/src/lib.rs"] {
            fs::write(directory.join(file), "").expect("just made");
        }
        assert!(!is_library(&directory), "sysroot/Cargo.toml is missing");
        fs::write(directory.join("sysroot/Cargo.toml"), "").expect("just made");
        assert!(is_library(&directory));
        fs::remove_dir_all(directory).expect("made above");
    }

    #[test]
    fn the_source_outside_the_toolchain_is_told_to_cargo() {
        let mut command = Command::new("cargo");
        Library::Directory("/t/library".into()).point_cargo_at_it(&mut command);
        let told: Vec<_> = command.get_envs().collect();
        assert_eq!(told, [(SOURCE_VARIABLE.as_ref(), Some("/t/library".as_ref()))]);
    }
}
