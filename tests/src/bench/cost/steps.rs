//! Where a packet's cost lies: builds of the program that end after a step of the usual packet's path, or leave something out, beside the one that ships.
//!
//! All of them take turns in every round. A build that ends on the way is the program that ships up to there, instruction by instruction, and returns `XDP_DROP`: so
//! its action tells that the step was reached, and the counters tell that none was that comes behind it.

use anyhow::{Context, Result, ensure};
use splitter_ebpf::bench::Step::{self, *};

use super::{
    case::{self, Case},
    entry::find,
    measure::{Build, Durations, Effort, Session},
    stage::MILLION,
};
use crate::{
    bench::{options::Options, report, stats::middle_half},
    rig,
};

/// A case, its flows, and the steps of its path in their order; then what it's measured without.
type Path = (&'static str, usize, &'static [Step], &'static [Step]);

const DSR: &[Step] = &[Entered, Parsed, Asked, Hashed, Known, Backend, Kept, Counted];
const DSR_NEW: &[Step] = &[Entered, Parsed, Asked, Hashed, Known, Chosen, Kept, Counted];
const NAT: &[Step] = &[Entered, Parsed, Asked, Hashed, Known, Slot, Backend, Kept, Counted, Rewritten];
const NAT_NEW: &[Step] = &[Entered, Parsed, Asked, Hashed, Known, Chosen, Port, Kept, Counted, Rewritten];
const REPLY: &[Step] = &[Entered, Parsed, Asked, Slot, Backend, Kept, Counted, Rewritten];
const NOT_OURS: &[Step] = &[Entered, Parsed];
const WITHOUT: &[Step] = &[NoCounters, NoMacs];

const PATHS: [Path; 9] = [
    ("dsr-v4-tcp-established", 1, DSR, WITHOUT),
    ("dsr-v6-tcp-established", 1, DSR, WITHOUT),
    ("dsr-v4-tcp-new", 1, DSR_NEW, WITHOUT),
    ("nat-v4-tcp-established", 1, NAT, WITHOUT),
    ("nat-v4-tcp-reply", 1, REPLY, &[NoCounters]),
    ("nat-v4-tcp-new", 1, NAT_NEW, WITHOUT),
    ("not-ours", 1, NOT_OURS, &[]),
    ("dsr-v4-tcp-established", MILLION, DSR, WITHOUT),
    ("nat-v4-tcp-established", MILLION, NAT, WITHOUT),
];

/// Measures, and says on standard error how far it is.
///
/// # Errors
/// When the data plane can't be made, a build is missing, or a run was not the run meant.
pub fn run(options: &Options) -> Result<Vec<report::Step>> {
    measure(options, if options.quick { Effort::QUICK } else { Effort::STEPS })
}

/// A few runs, to see that they are the runs meant; the figures mean nothing.
///
/// # Errors
/// As [`run`].
pub fn rehearse(options: &Options) -> Result<Vec<report::Step>> {
    measure(options, Effort::REHEARSAL)
}

fn measure(options: &Options, effort: Effort) -> Result<Vec<report::Step>> {
    let cases = case::all();
    let mut rows = Vec::new();
    for (name, flows, steps, without) in PATHS.into_iter().filter(|(name, ..)| options.wants_case(name)) {
        let case = cases.iter().find(|case| case.name == name && case.flows == flows && case.stage.services == 1);
        let case = case.with_context(|| format!("no case {name} with {flows} flows"))?;
        eprintln!("  {name}, {flows} flows");
        let builds = steps.iter().chain(without).map(|step| build(*step)).collect::<Result<Vec<_>>>()?;
        let durations = rig::with(&case.stage.world(), case.stage.tables(), |rig| {
            Session::new(rig, case.stage, effort, &builds)?.rounds(case)
        })
        .with_context(|| format!("{name}, {flows} flows"))?;
        rows.extend(table(case, steps, without, &durations)?);
    }
    ensure!(!rows.is_empty(), "no path's name has any of {:?} in it", options.only);
    Ok(rows)
}

/// The build for a step. The steps behind `Kept` come after the packet is counted, those before it before a new connection is.
fn build(step: Step) -> Result<Build> {
    let uncounted: &[&str] = match step {
        Entered | Parsed | Asked | Hashed | Known | Chosen | Port | Slot | Backend => {
            &["packets_to", "packets_from", "opened", "not_ours"]
        }
        Kept | NoCounters => &["packets_to", "packets_from"],
        Counted | Rewritten | NoMacs => &[],
    };
    let object = find(&format!("bpf-steps/{}.o", step.name())).context("`cargo xtask bench --steps` builds them")?;
    Ok(Build { object, ends: !matches!(step, NoCounters | NoMacs), uncounted })
}

/// The builds' figures, each with what it is more than the one before it.
fn table(case: &Case, steps: &[Step], without: &[Step], durations: &Durations) -> Result<Vec<report::Step>> {
    let Durations { empty, shipped, others } = durations;
    let row = |step: &str, raw: &[f64]| {
        let over_empty: Vec<_> = raw.iter().zip(empty).map(|(raw, empty)| raw - empty).collect();
        let middle = middle_half(&over_empty).context("no round")?;
        Ok::<_, anyhow::Error>(report::Step {
            case: case.name.clone(),
            flows: case.flows,
            step: step.to_owned(),
            ns: middle.median,
            min: middle.min,
            max: middle.max,
            of_it_ns: middle.median,
            rounds: empty.len(),
        })
    };
    let (cut, left_out) = others.split_at(steps.len());
    let mut rows = steps.iter().zip(cut).map(|(step, raw)| row(step.name(), raw)).collect::<Result<Vec<_>>>()?;
    rows.push(row("whole", shipped)?);
    for place in (1..rows.len()).rev() {
        rows[place].of_it_ns -= rows[place - 1].ns;
    }
    let whole = rows[steps.len()].ns;
    for (step, raw) in without.iter().zip(left_out) {
        let row = row(step.name(), raw)?;
        rows.push(report::Step { of_it_ns: whole - row.ns, ..row });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_on_some_path_and_each_path_is_a_case() {
        for step in Step::ALL {
            assert!(PATHS.iter().any(|(_, _, steps, without)| steps.contains(step) || without.contains(step)), "{step:?}");
        }
        for (name, flows, ..) in PATHS {
            let is_it = |case: &Case| case.name == name && case.flows == flows && case.stage.services == 1;
            assert!(case::all().iter().any(is_it), "{name}, {flows} flows");
        }
    }

    #[test]
    fn a_step_is_what_it_adds_and_what_is_left_out_is_what_it_saves() {
        let cases = case::all();
        let case = cases.iter().find(|case| case.name == "not-ours").expect("it's there");
        let round = |ns: f64| vec![ns; 4];
        let durations =
            Durations { empty: round(10.0), shipped: round(20.0), others: vec![round(11.0), round(15.0), round(18.0)] };
        let rows = table(case, NOT_OURS, &[NoCounters], &durations).expect("four rounds");
        let told: Vec<_> = rows.iter().map(|row| (row.step.as_str(), row.ns, row.of_it_ns)).collect();
        assert_eq!(told, [("entered", 1.0, 1.0), ("parsed", 5.0, 4.0), ("whole", 10.0, 5.0), ("no-counters", 8.0, 2.0)]);
    }
}
