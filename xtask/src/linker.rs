//! bpf-linker, in the one version that works with the pinned toolchain, under `target/tools`.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    report,
    run::{self, Log},
    workspace::{self, Workspace},
};

/// Later ones need an LLVM of their own; this one uses rustc's. See docs/decisions/building-the-xdp-program.md.
const VERSION: &str = "0.10.3";
const STEP: &str = "bpf-linker";

/// Installs bpf-linker unless it is there already.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let root = workspace.tools();
    let binary = root.join("bin").join("bpf-linker");
    report::step(STEP, &format!("looking for bpf-linker {VERSION}"), || {
        if installed(&binary) {
            return Ok(((), format!("found {}", workspace.shown(&binary))));
        }
        install(workspace, &root)?;
        if !installed(&binary) {
            bail!("{} was installed and does not call itself {VERSION}", binary.display());
        }
        Ok(((), format!("installed {}", workspace.shown(&binary))))
    })
}

fn install(workspace: &Workspace, root: &Path) -> Result<()> {
    println!("[{STEP}] not there: installing it into {}, about a minute", workspace.shown(root));
    let path = workspace.own("bpf-linker.log");
    let log = Log::create(STEP, &path)?;
    let mut command = workspace.cargo("install");
    // --force: what cargo's own record says does not matter, for the binary is missing or wrong.
    command.args(["bpf-linker", "--version", VERSION, "--locked", "--force", "--root"]).arg(root);
    let ended = run::logged(&mut command, &log, None)?;
    run::go_on()?;
    if !ended.success() {
        bail!(
            "{}\n{} failed ({ended}): it needs the crate registry that cargo is configured for; see {}",
            log.tail(),
            run::line(&command),
            workspace.shown(&path)
        );
    }
    Ok(())
}

fn installed(binary: &Path) -> bool {
    binary.exists() && workspace::output_of(Command::new(binary).arg("--version")).is_ok_and(|printed| is_pinned(&printed))
}

fn is_pinned(printed: &str) -> bool {
    printed.split_whitespace().nth(1) == Some(VERSION)
}

/// The `PATH` under which rustc finds our bpf-linker before any other.
pub fn path(workspace: &Workspace) -> Result<std::ffi::OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(workspace.tools().join("bin")).chain(std::env::split_paths(&inherited));
    std::env::join_paths(directories).context("the target directory's path cannot stand in PATH: it holds a colon")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_version_will_do() {
        for (printed, right) in [
            ("bpf-linker 0.10.3\n", true),
            ("bpf-linker 0.10.30\n", false),
            ("bpf-linker 0.10.3-rc1\n", false),
            ("bpf-linker 0.11.0\n", false),
            ("bpf-linker\n", false),
            ("", false),
        ] {
            assert_eq!(is_pinned(printed), right, "{printed:?}");
        }
    }
}
