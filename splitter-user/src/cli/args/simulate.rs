//! The words of `splitter simulate`.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;

use super::Output;
use crate::model::{Factor, ServiceName};

/// Tell in advance what a plan would catch
///
/// Runs the agent's own controller many times on synthetic traffic and a clock of its own, with a canary of the described quality and with one that is as good as stable, and tells how
/// often each would be stopped, at which step, after how long, and how many client connections would have failed by then. Gates open at once, and the plan's own checks always pass; breaker and limits are left out. Needs
/// no agent and no privileges; the same seed gives the same answer.
///
/// Example: `splitter simulate --plan /etc/splitter/splitter.toml --service web --rate 1000/s --stable-failures 0.1% --canary-failures 5%`
#[derive(Clone, Debug, ClapArgs)]
pub struct Simulate {
    /// The configuration file with the plan
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,

    /// The service that the plan is of
    #[arg(long, value_name = "NAME")]
    pub service: ServiceName,

    /// New connections of all clients, as in 1000/s or 90/min
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: f64,

    /// Stable's share of connections that fail
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share)]
    pub stable_failures: f64,

    /// The canary's share of connections that fail
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share)]
    pub canary_failures: f64,

    /// How many times as long as stable's the canary's handshakes take
    #[arg(long, value_name = "FACTOR", default_value = "1x")]
    pub canary_latency: Factor,

    /// How many rollouts
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,

    /// How often the controller looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = look)]
    pub look: Duration,

    /// Of all chance
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    pub seed: u64,

    /// Draw the share of rollouts that were stopped over time
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    pub plot: Option<PathBuf>,

    #[command(flatten)]
    pub output: Output,
}

/// Connections a second.
fn rate(text: &str) -> Result<f64, String> {
    let wrong = || "write a number of connections and a time, as in 1000/s, 90/min or 5000/h".to_owned();
    let (number, per) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match per.trim() {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let rate = number / seconds;
    if (1e-3..=1e6).contains(&rate) { Ok(rate) } else { Err("a rate is between 0.001/s and 1000000/s".to_owned()) }
}

/// A percentage as a share of one.
fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    let share = number.ok_or("write a percentage, as in 0.1% or 5%")? / 100.0;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0% and 100%".to_owned()) }
}

fn look(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    if range.contains(&every) { Ok(every) } else { Err("the controller looks every 10ms to 60s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_read_as_people_write_them() {
        assert_eq!((rate("1000/s"), rate("90/min"), rate("3600 / h")), (Ok(1_000.0), Ok(1.5), Ok(1.0)));
        assert_eq!((share("0.1%"), share(" 5 %"), share("100%")), (Ok(0.001), Ok(0.05), Ok(1.0)));
        for wrong in ["1000", "x/s", "5/day", "0/s", "NaN/s", "-1/s", "inf/s"] {
            rate(wrong).expect_err(wrong);
        }
        for wrong in ["0.1", "-1%", "101%", "NaN%", "%"] {
            share(wrong).expect_err(wrong);
        }
        look("1ms").expect_err("too often");
    }
}
