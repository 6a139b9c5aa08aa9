//! `cargo xtask judge`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{binary, workspace::Workspace};

/// The arguments of `cargo xtask judge`.
#[derive(clap::Args)]
pub struct Options {
    /// Handed to it as they are, such as --json FILE and --rollouts 1000.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// Builds the judge optimised, and runs it in our place. It needs neither root nor an XDP program: nothing is real.
pub fn judge(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    binary::run_in_our_place(workspace, "judge", &options.arguments)
}
