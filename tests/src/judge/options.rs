//! What can be chosen of `cargo xtask judge`.

use std::path::PathBuf;

use clap::Parser;

/// Judge the comparison with stable by simulated rollouts
///
/// False alarms: one-hour rollouts of a canary that is as good as stable, with a look every second, at three rates and three weights. Delay: rollouts of a canary
/// that fails more often. Beside the product's own comparison stand those of others. Exit code 0: what is promised holds; 1: it doesn't; 2: wrong usage.
#[derive(Clone, Debug, Parser)]
#[command(name = "judge")]
pub struct Options {
    /// Write the figures into a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Rollouts of a good canary at each rate and weight
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rollouts: u64,

    /// Rollouts of each bad canary
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,

    /// Write the figures into docs/analysis.md, and draw docs/analysis.svg anew
    #[arg(long)]
    pub write_docs: bool,
}
