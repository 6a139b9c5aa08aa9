//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::{
    binary,
    build::{self, Profile},
    packages, test,
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
    if options.arguments.iter().any(|argument| argument == "--steps") {
        build::steps(workspace)?;
    }
    binary::run_in_our_place(workspace, "bench", &options.arguments)
}
