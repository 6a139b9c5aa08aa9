//! The binaries of the tests' package that run in our place.
//!
//! Beside each is built what it may start: a server that can be killed.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::{report, run, workspace::Workspace};

/// Builds one, optimised, and runs it with these arguments: its terminal, its exit code.
pub fn run_in_our_place(workspace: &Workspace, name: &str, arguments: &[String]) -> Result<ExitCode> {
    let which = ["--release", "--package", "splitter-tests", "--bin", name];
    let beside = ["--bin", "web-backend"];
    report::step(name, &format!("building the {name}, optimised"), || {
        let mut command = workspace.cargo("build");
        command.args(which).args(beside);
        let status = run::attended(&mut command)?;
        run::go_on()?;
        ensure!(status.success(), "{} failed with {status}", run::line(&command));
        Ok(((), "built, now running".to_owned()))
    })?;
    let mut command = workspace.cargo("run");
    command.arg("--quiet").args(which).arg("--").args(arguments);
    // Ctrl-C reaches it by itself; it cleans up, and we wait for it.
    Ok(run::exit_code(run::attended(&mut command)?))
}
