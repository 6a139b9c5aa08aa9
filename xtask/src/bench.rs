//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{
    build::{self, Profile},
    packages, report, run, test,
    workspace::Workspace,
};

/// The arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to the bench as they are, such as --json FILE and --only cost.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds everything optimised, the bench's own XDP program included, and runs the bench in our place.
pub fn bench(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!("{}", test::not_root("bench", "it makes network namespaces and loads XDP programs"));
        return Ok(ExitCode::from(test::NOT_ROOT));
    }
    // Without the network the bench still has much to measure: a row whose peer or client is missing says so.
    for installed in [packages::ensure(workspace, &packages::TESTS), packages::bench(workspace)] {
        if let Err(error) = installed {
            eprintln!("warning: {error:#}");
        }
    }
    build::build(workspace, Profile::Release)?;
    build::bench(workspace)?;
    report::step("bench", "building the bench, optimised", || {
        let mut command = workspace.cargo("build");
        command.args(["--release", "--package", "splitter-tests", "--bin", "bench"]);
        let status = run::attended(&mut command)?;
        run::go_on()?;
        ensure!(status.success(), "{} failed with {status}", run::line(&command));
        Ok(((), "built, now running".to_owned()))
    })?;
    let mut command = workspace.cargo("run");
    command.args(["--quiet", "--release", "--package", "splitter-tests", "--bin", "bench", "--"]).args(&options.arguments);
    // Ctrl-C reaches the bench by itself; it ends, and what it made goes with it or with the next run.
    Ok(run::exit_code(run::attended(&mut command)?))
}
