//! What a packet costs.
//!
//! The program that ships is run by `BPF_PROG_TEST_RUN`, called by an entry of the bench's own that makes each run's packet. In the same round the same
//! entry calls an empty program instead. What is reported is the difference of the two durations, as the kernel says them. The data plane's own
//! counters must tell of every measured run that it was the run meant; otherwise the bench fails.
//!
//! How flows differ and what the last run left is undone: `established` with one flow in `dsr` leaves nothing to undo. In `nat` everything that it rewrites
//! is written again. A new connection of one flow is forgotten before each run, its port freed; with many flows each run is another one's first, and all
//! are forgotten between rounds. A refusal's packet gets its headers, place and length back.

mod case;
mod entry;
mod measure;
mod moved;
mod stage;
pub mod steps;
mod traffic;

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context, Result, ensure};
use splitter_user::config::Tables;

use self::{
    case::Case,
    measure::{Build, Effort, Session},
    stage::{Setting, Stage},
};
use super::{options::Options, report::Cost, stats::Spread};
use crate::{oracle::World, rig};

/// A row, and what another build of the program has to say to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The program that ships.
    pub cost: Cost,
    /// The other build's difference to the empty program.
    pub other: Option<Spread>,
}

/// Measures, and says on standard error how far it is.
///
/// # Errors
/// When the data plane can't be made, or a run was not the run meant.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    measure(options, effort)
}

/// A few runs of the cases asked for, to see that they are the runs meant; the figures mean nothing.
///
/// # Errors
/// As [`run`].
pub fn rehearse(options: &Options) -> Result<Vec<Row>> {
    measure(options, Effort::REHEARSAL)
}

/// Room for all of [`count`]'s stages, one after the other.
const ROOM: Tables = Tables { services: 64, backends: 256, connections: 1 << 16, networks: 2_048 };

/// Every case of one flow and one service, with as few runs as will do where the clock counts instructions and is the same each time. Stages share a
/// data plane as far as its NAT ports allow, for making one takes most of the time.
///
/// # Errors
/// As [`run`].
pub fn count(mut each: impl FnMut(&Row) -> Result<()> + Send) -> Result<()> {
    let cases: Vec<Case> = case::all().into_iter().filter(|case| case.flows == 1 && case.stage.services == 1).collect();
    for few_ports in [false, true] {
        let cases: Vec<&Case> = cases.iter().filter(|case| (case.stage.setting == Setting::FewPorts) == few_ports).collect();
        let worlds = || cases.iter().map(|case| case.stage.world());
        let both: BTreeSet<IpAddr> = worlds().flat_map(|world| world.nat_addresses).collect();
        let first = World { nat_addresses: both.into_iter().collect(), ..worlds().next().context("no case")? };
        rig::with(&first, ROOM, |rig| {
            for case in &cases {
                let row = Session::new(rig, case.stage, Effort::COUNT, &[])?.measure(case).with_context(|| case.name.clone())?;
                each(&row)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn measure(options: &Options, effort: Effort) -> Result<Vec<Row>> {
    let cases: Vec<Case> = case::all().into_iter().filter(|case| options.wants_case(&case.name)).collect();
    ensure!(!cases.is_empty(), "no case's name has any of {:?} in it", options.only);
    let mut stages: Vec<Stage> = Vec::new();
    for case in &cases {
        if !stages.contains(&case.stage) {
            stages.push(case.stage);
        }
    }
    let other = options.object.iter().map(|object| Build { object: object.clone(), ends: false, uncounted: &[] });
    let others: Vec<Build> = other.collect();
    let mut rows: Vec<(usize, Row)> = Vec::new();
    for stage in stages {
        let cases: Vec<_> = cases.iter().enumerate().filter(|(_, case)| case.stage == stage).collect();
        let measured = rig::with(&stage.world(), stage.tables(), |rig| {
            let mut session = Session::new(rig, stage, effort, &others)?;
            let mut measured = Vec::new();
            for (place, case) in cases {
                let row = session
                    .measure(case)
                    .with_context(|| format!("{}, {} flows, {} services", case.name, case.flows, case.stage.services))?;
                eprintln!("{}", progress(&row));
                measured.push((place, row));
            }
            Ok(measured)
        })?;
        rows.extend(measured);
    }
    rows.sort_by_key(|(place, _)| *place);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn progress(row: &Row) -> String {
    let Cost { case, ns, min, max, raw_ns, empty_ns, flows, services, .. } = &row.cost;
    let other = row.other.map(|other| format!("; other build {:.1} ({:.0}–{:.0})", other.median, other.min, other.max));
    format!(
        "  {case:<34} {services:>5} services {flows:>8} flows  {ns:6.1} ns ({min:.0}–{max:.0}; raw {raw_ns:.0}, empty {empty_ns:.0}){}",
        other.unwrap_or_default()
    )
}
