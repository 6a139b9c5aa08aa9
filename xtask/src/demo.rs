//! `cargo xtask demo`.

use std::process::ExitCode;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::{
    binary,
    build::{self, Profile},
    test,
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
    binary::run_in_our_place(workspace, "demo", &options.arguments)
}
