//! What can be chosen of `cargo xtask soak`.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use super::sabotage::Sabotage;

/// Do to a running Splitter in minutes what happens to others in days, and look at what must hold
///
/// A network of namespaces with clients, a node and five backends; services in `nat` and in `dsr`, IPv4 and IPv6, TCP and UDP; a schedule of events that the seed determines. Nothing
/// leaves the namespaces, and everything is removed at the end, and by the next run after a crash. Exit code 0: everything held; 1: something didn't.
#[derive(Clone, Debug, Parser)]
#[command(name = "soak")]
pub struct Options {
    /// How long events are begun
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = minutes)]
    pub minutes: f64,

    /// Determines the schedule
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Write what came of it into a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// New HTTP connections a second, of all services together
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=2_000))]
    pub rate: u32,

    /// Do something behind the checks' back, separated by commas: each must be found, or the soak proves nothing. For the soak's own test
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND", hide = true)]
    pub sabotage: Vec<Sabotage>,
}

impl Options {
    /// How long events are begun.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.1..=1_440.0).contains(&minutes) { Ok(minutes) } else { Err("between 0.1 and 1440".into()) }
}
