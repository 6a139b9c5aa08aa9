//! `cargo xtask oracle`.

use std::process::ExitCode;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::{
    build::{self, Profile},
    packages, report, run,
    test::{NOT_ROOT, not_root},
    workspace::Workspace,
};

/// The arguments of `cargo xtask oracle`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to it as they are, such as --frames 1000000, --seed 7, --real and --json FILE.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds the XDP program and what compares it, and runs that in our place. As the tests have it built, which is optimised where it counts: nothing is compiled twice.
pub fn oracle(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!("{}", not_root("oracle", "it makes network namespaces and loads XDP programs"));
        return Ok(ExitCode::from(NOT_ROOT));
    }
    if options.arguments.iter().any(|argument| argument == "--real") {
        packages::ensure(workspace, &packages::TESTS)?;
        packages::ensure(workspace, &packages::TALKERS)?;
    }
    build::build(workspace, Profile::Dev)?;
    let which = ["--package", "splitter-tests", "--bin", "oracle"];
    report::step("oracle", "building what compares", || {
        let mut command = workspace.cargo("build");
        command.args(which);
        let status = run::attended(&mut command)?;
        run::go_on()?;
        anyhow::ensure!(status.success(), "{} failed with {status}", run::line(&command));
        Ok(((), "built, now running".to_owned()))
    })?;
    let mut command = workspace.cargo("run");
    command.arg("--quiet").args(which).arg("--").args(&options.arguments);
    Ok(run::exit_code(run::attended(&mut command)?))
}
