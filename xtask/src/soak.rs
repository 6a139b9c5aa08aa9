//! `cargo xtask soak`.

use std::process::ExitCode;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::{
    build::{self, Profile},
    packages, run, test,
    workspace::Workspace,
};

/// What cargo runs, as the tests are built: with overflow checks and debug assertions.
pub const RUN: [&str; 4] = ["--quiet", "--package=splitter-tests", "--bin=soak", "--"];

/// The arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to it as they are, such as --minutes 30 and --seed 7.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds everything as for the tests and soaks in our place: its terminal, its exit code.
pub fn soak(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!("{}", test::not_root("soak", "it makes network namespaces and loads XDP programs"));
        return Ok(ExitCode::from(test::NOT_ROOT));
    }
    // One of the events gives the agent another wall clock.
    packages::ensure(workspace, &packages::TESTS)?;
    build::build(workspace, Profile::Dev)?;
    let mut command = workspace.cargo("run");
    command.args(RUN).args(&options.arguments);
    // Ctrl-C reaches it by itself; it cleans up, and we wait for it.
    Ok(run::exit_code(run::attended(&mut command)?))
}
