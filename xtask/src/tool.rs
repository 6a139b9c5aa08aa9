//! Programs that the build and the tests need and that crates.io has: in one version each, under `target/tools`.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    report,
    run::{self, Log},
    workspace::{self, Workspace},
};

/// Later ones need an LLVM of their own; this one uses rustc's. See docs/decisions/building-the-xdp-program.md.
pub const LINKER: Tool = Tool { name: "bpf-linker", version: "0.10.3" };
/// Builds the targets of `cargo xtask fuzz`.
pub const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

/// A program of a crate of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    name: &'static str,
    version: &'static str,
}

impl Tool {
    /// Installs it unless it is there already.
    pub fn ensure(self, workspace: &Workspace) -> Result<()> {
        let Self { name, version } = self;
        let root = workspace.tools();
        let binary = root.join("bin").join(name);
        report::step(name, &format!("looking for {name} {version}"), || {
            if self.installed(&binary) {
                return Ok(((), format!("found {}", workspace.shown(&binary))));
            }
            self.install(workspace, &root)?;
            if !self.installed(&binary) {
                bail!("{} was installed and does not call itself {version}", binary.display());
            }
            Ok(((), format!("installed {}", workspace.shown(&binary))))
        })
    }

    fn install(self, workspace: &Workspace, root: &Path) -> Result<()> {
        let Self { name, version } = self;
        println!("[{name}] not there: installing it into {}, about a minute", workspace.shown(root));
        let path = workspace.own(&format!("{name}.log"));
        let log = Log::create(name, &path)?;
        let mut command = workspace.cargo("install");
        // --force: what cargo's own record says does not matter, for the binary is missing or wrong.
        command.args([name, "--version", version, "--locked", "--force", "--root"]).arg(root);
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

    fn installed(self, binary: &Path) -> bool {
        let printed = || workspace::output_of(Command::new(binary).arg("--version"));
        binary.exists() && printed().is_ok_and(|printed| self.is_pinned(&printed))
    }

    fn is_pinned(self, printed: &str) -> bool {
        printed.split_whitespace().nth(1) == Some(self.version)
    }
}

/// The `PATH` under which cargo and rustc find ours before any other.
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
            assert_eq!(LINKER.is_pinned(printed), right, "{printed:?}");
        }
    }
}
