//! What goes through the wire: Splitter beside its peers, on one network, by the same loads.
//!
//! [`path`] says what is compared, [`stage`] builds it, [`flood`] sends packets through it and [`web`] requests. Each way is built anew for every
//! round and the rounds are interleaved, so that what the machine does besides hits all alike; a figure is the median of its rounds.

mod cpu;
mod flood;
mod interrupt;
mod path;
mod peers;
mod stage;
mod web;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;

pub use self::path::{Load, MANY_FLOWS, Path};
use self::{
    flood::{Flood, highest_rate},
    interrupt::Interrupts,
    stage::Stage,
};
use super::report::Wire;
use crate::lab::LabError;

/// What may be lost at the rate that is looked for.
const LOSS: f64 = 0.03;

/// What is measured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One short round instead of three: figures that are good for nothing but to see that it works.
    pub quick: bool,
    /// Only rows whose `path/load` has this in it, such as `splitter`, `/keep-alive` or `routing/packets`.
    pub only: Option<String>,
}

impl Options {
    fn wants(&self, path: Path, load: Load) -> bool {
        self.only.as_ref().is_none_or(|only| format!("{}/{}", path.name(), load.name()).contains(only))
    }

    const fn times(&self) -> Times {
        if self.quick {
            Times { rounds: 1, requests: Duration::from_secs(1), bodies: Duration::from_secs(1), packets_ms: 60, steps: 5 }
        } else {
            Times { rounds: 3, requests: Duration::from_secs(3), bodies: Duration::from_secs(2), packets_ms: 120, steps: 7 }
        }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Times {
    rounds: u32,
    requests: Duration,
    bodies: Duration,
    /// Each flood.
    packets_ms: u64,
    /// Of the search for the highest rate.
    steps: u32,
}

/// What each round found of one row, or why there is nothing to find.
type Found = BTreeMap<(Path, Load), Vec<std::result::Result<Wire, String>>>;

/// Measures, and says on standard error how far it is. Needs root and two CPUs; takes less than five minutes, or less than one when it is to be quick.
///
/// A peer that is not installed, or a row that fails, is a row that says so.
///
/// # Errors
/// The run was interrupted by SIGINT or SIGTERM: it ends within a few seconds then, and leaves nothing behind.
pub fn run(options: &Options) -> Result<Vec<Wire>> {
    let interrupts = Interrupts::note()?;
    let times = options.times();
    let mut found = Found::new();
    for round in 0..times.rounds {
        for path in Path::ALL {
            let loads: Vec<_> = Load::ALL.into_iter().filter(|load| options.wants(path, *load)).collect();
            if !loads.is_empty() {
                eprintln!("wire: round {} of {}: {}", round + 1, times.rounds, path.name());
                visit(path, &loads, options, &interrupts, &mut found)?;
            }
        }
    }
    Ok(rows(found))
}

/// Builds one way and measures these loads on it.
fn visit(path: Path, loads: &[Load], options: &Options, interrupts: &Interrupts, found: &mut Found) -> Result<()> {
    let times = options.times();
    let mut note = |load: Load, result| found.entry((path, load)).or_default().push(result);
    let mut wanted = Vec::new();
    for load in loads {
        match path.absent(*load) {
            Some(why) => note(*load, Err(why.to_owned())),
            None => wanted.push(*load),
        }
    }
    interrupts.go_on()?;
    if wanted.is_empty() {
        return Ok(());
    }
    let stage = match Stage::build(path) {
        Ok(stage) => stage,
        Err(error) => {
            let why = why(&error);
            wanted.into_iter().for_each(|load| note(load, Err(why.clone())));
            return Ok(());
        }
    };
    // Requests first: a flood receives in a way of its own.
    wanted.sort_by_key(|load| matches!(load, Load::Packets { .. }));
    for load in wanted {
        interrupts.go_on()?;
        let measured = match load {
            Load::Packets { flows } => packets(&stage, flows, times, interrupts),
            Load::KeepAlive | Load::ConnectionClose => web::measure(&stage, load, times.requests),
            Load::Body1Mb => web::measure(&stage, load, times.bodies),
        };
        note(load, measured.map_err(|error| why(&error)));
    }
    Ok(())
}

/// All that can be sent, and the highest rate at which next to nothing is lost.
fn packets(stage: &Stage, flows: u32, times: Times, interrupts: &Interrupts) -> Result<Wire> {
    let mut flood = Flood::start(&stage.lab, &[flows])?;
    let duration = Duration::from_millis(times.packets_ms);
    // The first says how many frames that takes.
    flood.send(flows, None, duration / 4)?;
    let full = flood.send(flows, None, duration)?;
    let highest = highest_rate(full.received_mpps(), LOSS, times.steps, |mpps| {
        interrupts.go_on()?;
        flood.send(flows, Some(mpps), duration)
    })?;
    Ok(Wire { mpps: Some(full.received_mpps()), mpps_3_percent_loss: highest, ..Wire::default() })
}

/// Sends about so many packets over a way, slowly, and says how many left the generator and how many came to each backend.
///
/// # Errors
/// The way can't be built, or no packet arrives at all.
pub fn trickle(path: Path, packets: u32) -> Result<(u64, Vec<u64>)> {
    const SLOW_MPPS: f64 = 0.05;
    let stage = Stage::build(path)?;
    let mut flood = Flood::start(&stage.lab, &[MANY_FLOWS])?;
    let before = flood.received()?;
    let sent = flood.send_some(MANY_FLOWS, SLOW_MPPS, packets)?.sent;
    let received = flood.received()?.into_iter().zip(before).map(|(now, before)| now - before).collect();
    Ok((sent, received))
}

/// An error as a row says it.
fn why(error: &anyhow::Error) -> String {
    match error.downcast_ref::<LabError>() {
        Some(LabError::MissingProgram { program, package }) => format!("{program} is not installed (Debian: {package})"),
        Some(_) | None => format!("failed: {error:#}"),
    }
}

/// One row for each, of its rounds' medians. A row that failed in any round has no figures: what is left would be chosen by luck.
fn rows(found: Found) -> Vec<Wire> {
    let row = |((path, load), rounds): ((Path, Load), Vec<std::result::Result<Wire, String>>)| {
        let named = Wire { path: path.name().into(), load: load.name().into(), ..Wire::default() };
        match rounds.into_iter().collect::<std::result::Result<Vec<_>, _>>() {
            Err(why) => Wire { absent: Some(why), ..named },
            Ok(rounds) => {
                let median = |field: fn(&Wire) -> Option<f64>| median(rounds.iter().map(field).collect());
                Wire {
                    mpps: median(|row| row.mpps),
                    mpps_3_percent_loss: median(|row| row.mpps_3_percent_loss),
                    requests_per_s: median(|row| row.requests_per_s),
                    p50_us: median(|row| row.p50_us),
                    p99_us: median(|row| row.p99_us),
                    cpu_us_per_request: median(|row| row.cpu_us_per_request),
                    gbit_per_s: median(|row| row.gbit_per_s),
                    ..named
                }
            }
        }
    };
    found.into_iter().map(row).collect()
}

/// The median, or nothing where a round has nothing.
fn median(values: Vec<Option<f64>>) -> Option<f64> {
    let mut values = values.into_iter().collect::<Option<Vec<_>>>()?;
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_needs_every_round() {
        assert_eq!(median(vec![Some(3.0), Some(1.0), Some(2.0)]), Some(2.0));
        assert_eq!(median(vec![Some(1.0), Some(2.0)]), Some(1.5));
        assert_eq!(median(vec![Some(1.0), None, Some(2.0)]), None);
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_row_that_failed_once_has_no_figures_but_the_reason() {
        let good = |mpps| Ok(Wire { mpps: Some(mpps), ..Wire::default() });
        let key = |path| (path, Load::Packets { flows: 1 });
        let found = Found::from([
            (key(Path::SplitterDsr), vec![good(3.0), good(1.0), good(2.0)]),
            (key(Path::Routing), vec![good(3.0), Err("failed: no".into()), good(2.0)]),
        ]);
        let rows = rows(found);
        assert_eq!((rows[0].path.as_str(), rows[0].load.as_str(), rows[0].mpps), ("splitter-dsr", "packets-1-flow", Some(2.0)));
        assert_eq!((rows[1].absent.as_deref(), rows[1].mpps), (Some("failed: no"), None));
    }

    #[test]
    fn a_missing_peer_names_its_package() {
        let missing = LabError::MissingProgram { program: "haproxy".into(), package: "haproxy" };
        assert_eq!(why(&missing.into()), "haproxy is not installed (Debian: haproxy)");
        assert_eq!(why(&anyhow::anyhow!("no").context("start it")), "failed: start it: no");
    }

    #[test]
    fn a_part_of_the_name_chooses_rows() {
        let options = |only: &str| Options { only: Some(only.into()), ..Options::default() };
        assert!(options("splitter").wants(Path::SplitterNat, Load::KeepAlive));
        assert!(options("nat/keep").wants(Path::SplitterNat, Load::KeepAlive));
        assert!(!options("/keep").wants(Path::SplitterNat, Load::Body1Mb));
        assert!(Options::default().wants(Path::Routing, Load::Body1Mb));
    }
}
