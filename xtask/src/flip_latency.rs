//! `cargo xtask flip-latency`.

use std::process::ExitCode;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::{
    binary,
    build::{self, Profile},
    packages, test,
    workspace::Workspace,
};

/// The arguments of `cargo xtask flip-latency`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to it as they are, such as --json FILE and --runs 100.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds everything optimised and measures in our place: its terminal, its exit code.
pub fn flip_latency(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        eprintln!("{}", test::not_root("flip-latency", "it makes network namespaces and loads an XDP program"));
        return Ok(ExitCode::from(test::NOT_ROOT));
    }
    // Two of the faults are nftables rules.
    packages::ensure(workspace, &packages::TESTS)?;
    build::build(workspace, Profile::Release)?;
    binary::run_in_our_place(workspace, "flip-latency", &options.arguments)
}
