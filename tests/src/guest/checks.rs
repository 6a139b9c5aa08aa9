//! The program by itself, on this kernel: whether the verifier takes it, with how much work, and whether the agent's code attaches it.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use splitter_user::dataplane::{AttachedMode, Dataplane, kernel::KernelDataplane};

use super::plan::{Line, Told};
use crate::{
    oracle::sample,
    rig::{self, AMPLE},
};

/// The checks, by name, in order.
const CHECKS: [(&str, Check); 2] = [
    ("the_verifier_takes_the_program_with_and_without_multi_buffer_frames", verified),
    ("the_agents_code_attaches_the_program_natively", attached),
];

type Check = fn(&mut KernelDataplane, &mut Vec<Line>) -> Result<()>;

/// Runs those of them that are asked for.
pub(super) fn run(told: &mut Told, tests: &[String]) -> Result<()> {
    let find =
        |wanted: &String| CHECKS.into_iter().find(|(name, _)| name == wanted).with_context(|| format!("no check {wanted}"));
    let checks = tests.iter().map(find).collect::<Result<Vec<_>>>()?;
    // The time that opening takes is the first's.
    let mut begun = Instant::now();
    let mut outcomes = Vec::new();
    let opened = rig::with(&sample::world(), AMPLE, |rig| {
        for (_, check) in &checks {
            let mut lines = Vec::new();
            let outcome = check(rig.dataplane(), &mut lines);
            outcomes.push((lines, outcome, begun.elapsed()));
            begun = Instant::now();
        }
        Ok(())
    });
    if let Err(error) = opened {
        outcomes.resize_with(checks.len(), || (Vec::new(), Err(anyhow!("opening a data plane: {error:#}")), begun.elapsed()));
    }
    for ((name, _), (lines, outcome, took)) in checks.iter().zip(outcomes) {
        for line in &lines {
            told.tell(line)?;
        }
        told.test(format!("checks::{name}"), took, outcome)?;
    }
    Ok(())
}

fn verified(dataplane: &mut KernelDataplane, lines: &mut Vec<Line>) -> Result<()> {
    let has_both = dataplane.info().multi_buffer;
    for (name, multi_buffer, any) in [
        ("splitter", false, false),
        ("splitter_any", false, true),
        ("splitter_frags", true, false),
        ("splitter_any_frags", true, true),
    ] {
        if multi_buffer && !has_both {
            continue;
        }
        let program = if any { dataplane.program_for_any(multi_buffer) } else { dataplane.program(multi_buffer) };
        let program = program.with_context(|| format!("loading {name}"))?;
        let instructions = program.info().context("asking about the program")?.verified_instruction_count();
        lines.push(Line::Verified { program: name.into(), instructions });
    }
    ensure!(
        takes_multi_buffer()? == dataplane.info().multi_buffer,
        "of the two the wrong one is attached: {:?}",
        dataplane.info()
    );
    Ok(())
}

/// What the kernel's version says, beside what the agent has found out.
fn takes_multi_buffer() -> Result<bool> {
    let release = super::machine::release()?;
    let mut numbers = release.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next().context("no number")??, numbers.next().context("one number")??);
    Ok((major, minor) >= (5, 18))
}

fn attached(dataplane: &mut KernelDataplane, _: &mut Vec<Line>) -> Result<()> {
    let interfaces = dataplane.info().interfaces;
    ensure!(interfaces.len() == 2, "attached to {interfaces:?}");
    ensure!(interfaces.iter().all(|interface| interface.mode == AttachedMode::Native), "attached to {interfaces:?}");
    Ok(())
}
