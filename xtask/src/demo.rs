//! `cargo xtask demo`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{
    build::{self, Profile},
    report, run, test,
    workspace::Workspace,
};

/// The arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to the demo as they are, such as --json FILE and --keep.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds everything optimised and runs the demo in our place: its terminal, its exit code.
pub fn demo(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!("{}", test::not_root("demo", "it makes network namespaces and loads an XDP program"));
        return Ok(ExitCode::from(test::NOT_ROOT));
    }
    build::build(workspace, Profile::Release)?;
    report::step("demo", "building the demo, optimised", || {
        let mut command = workspace.cargo("build");
        command.args(["--release", "--package", "splitter-tests", "--bin", "demo"]);
        let status = run::attended(&mut command)?;
        run::go_on()?;
        ensure!(status.success(), "{} failed with {status}", run::line(&command));
        Ok(((), "built, now running".to_owned()))
    })?;
    let mut command = workspace.cargo("run");
    command.args(["--quiet", "--release", "--package", "splitter-tests", "--bin", "demo", "--"]).args(&options.arguments);
    // Ctrl-C reaches the demo by itself; it cleans up, and we wait for it.
    Ok(run::exit_code(run::attended(&mut command)?))
}
