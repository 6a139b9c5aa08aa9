//! What can be chosen.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use splitter_user::model::{Mode, Weight};

use crate::{faults, node::Family};

/// Watch a canary get its share, break, and lose it
///
/// Lays a network of namespaces with two stable backends and one canary, runs the splitter before them and a load of HTTP connections
/// against it, raises the canary's weight in steps, lets the canary refuse connections, and shows what comes of it. Nothing leaves
/// the namespaces, and everything is removed at the end.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub struct Options {
    /// Write the figures into a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the last screen into a file
    #[arg(long, value_name = "FILE.svg")]
    pub record: Option<PathBuf>,

    /// Leave everything standing at the end, to be played with, until Ctrl-C
    #[arg(long)]
    pub keep: bool,

    /// Take IPv6
    #[arg(long)]
    pub ipv6: bool,

    /// How packets reach the backends
    #[arg(long, value_enum, default_value = "nat")]
    pub mode: ModeArg,

    /// Take a few seconds only
    #[arg(long)]
    pub quick: bool,

    /// Play another piece: this fault under 1,000 new connections a second, 5% of them for the canary, with a breaker in the kernel
    #[arg(long, value_enum, value_name = "KIND", conflicts_with_all = ["record", "keep", "ipv6", "mode", "quick"])]
    pub fault: Option<faults::Kind>,

    /// Play another piece: a rollout by plan, with a canary that is as good as stable, or that isn't
    #[arg(long, value_enum, value_name = "CANARY", conflicts_with_all = ["record", "keep", "ipv6", "mode", "quick", "fault"])]
    pub rollout: Option<super::rollout::Canary>,

    /// What the agent does during the fault
    #[arg(long, value_enum, requires = "fault", default_value = "running")]
    pub agent: faults::Agent,
}

/// How packets reach the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Addresses are rewritten, replies come back through the node
    Nat,
    /// Only the MAC address is rewritten, backends answer the client directly
    Dsr,
}

/// The plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// How packets reach the backends.
    pub mode: Mode,
    /// The family of all addresses.
    pub family: Family,
    /// The weights, one after the other, and how long each stands.
    pub steps: Vec<(Weight, Duration)>,
    /// How long new connections come in before the first step.
    pub before: Duration,
    /// How long new connections go on after the flip.
    pub after: Duration,
    /// New connections a second.
    pub rate: f64,
    /// Long-lived connections that are opened before the first step, and again in each.
    pub batch: usize,
}

/// How long the flip may take before it counts as not having come.
pub const FLIP_LIMIT: Duration = Duration::from_secs(10);

impl Plot {
    /// As chosen.
    ///
    /// # Panics
    /// Never: the weights are percentages.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let seconds = if options.quick { [2, 2, 2] } else { [10, 8, 8] };
        let steps = [100, 1_000, 5_000].into_iter().zip(seconds);
        Self {
            mode: match options.mode {
                ModeArg::Nat => Mode::Nat,
                ModeArg::Dsr => Mode::Dsr,
            },
            family: if options.ipv6 { Family::V6 } else { Family::V4 },
            steps: steps
                .map(|(weight, seconds)| (Weight::from_basis_points(weight).expect("below 10,000"), Duration::from_secs(seconds)))
                .collect(),
            before: Duration::from_secs(if options.quick { 0 } else { 2 }),
            after: Duration::from_secs(if options.quick { 1 } else { 4 }),
            rate: 400.0,
            batch: 50,
        }
    }

    /// All long-lived connections.
    #[must_use]
    pub fn long_lived(&self) -> usize {
        self.batch * (self.steps.len() + 1)
    }

    /// The limit that the canary will cross, as a configuration has it. In `dsr` mode a refusal goes straight to the client, so the
    /// node sees attempts without an end.
    #[must_use]
    pub fn breach(&self) -> &'static str {
        match self.mode {
            Mode::Nat => "[service.breach]\nrefused = \"5%\"\nmin_attempts = 50\nwindow = \"2s\"\nexisting = \"reset\"",
            Mode::Dsr => {
                "[service.timeouts]\nconnect = \"1s\"\n\n\
                 [service.breach]\ntimeout = \"5%\"\nmin_attempts = 50\nwindow = \"2s\"\nexisting = \"reset\""
            }
        }
    }

    /// The cause that the flip will have.
    #[must_use]
    pub const fn cause(&self) -> &'static str {
        match self.mode {
            Mode::Nat => "refused",
            Mode::Dsr => "timeout",
        }
    }

    /// The family, in words.
    #[must_use]
    pub const fn family_name(&self) -> &'static str {
        match self.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }
}
