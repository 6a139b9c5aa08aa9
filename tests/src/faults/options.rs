//! What can be chosen of `cargo xtask flip-latency`.

use std::path::PathBuf;

use clap::Parser;

use super::{Agent, Kind};

/// Break a canary many times, and measure how soon it is back on stable
///
/// Each run is a network of its own with two stable backends and a canary, 1,000 new connections a second and 5% of them for the canary, whose breaker has a limit of 5%
/// of at least 20 attempts. Nothing leaves the namespaces, and everything is removed at the end.
#[derive(Clone, Debug, Parser)]
#[command(name = "flip-latency")]
pub struct Options {
    /// Write the figures into a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Runs of each fault with each agent
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,

    /// These faults alone, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub only: Vec<Kind>,

    /// With these agents alone, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "AGENT")]
    pub agent: Vec<Agent>,

    /// Measure the agent's own limits (`[service.breach]`) instead: from the connection that crosses one to the flip
    #[arg(long, conflicts_with_all = ["only", "agent"])]
    pub limits: bool,

    /// Write the figures into docs/flip-latency.md
    #[arg(long)]
    pub write_docs: bool,
}

impl Options {
    /// Each fault with each agent, as chosen.
    pub fn chosen(&self) -> impl Iterator<Item = (Kind, Agent)> {
        use clap::ValueEnum;
        let kinds = Kind::value_variants().iter().filter(|kind| self.only.is_empty() || self.only.contains(kind));
        let agents = || Agent::value_variants().iter().filter(|agent| self.agent.is_empty() || self.agent.contains(agent));
        kinds.flat_map(move |kind| agents().map(move |agent| (*kind, *agent)))
    }
}
