//! What runs inside the virtual machines of `cargo xtask vm`, as their first and only process of the system's.
//!
//! The machine gets a [`Plan`] with its initial file system, tells what it does by [`Line`]s on its second serial port, and ends itself by a device of
//! the emulator's that passes an exit code on: [`PASSED`] or [`FAILED`]. A machine that dies in another way leaves with another code, so that a panicking
//! kernel can't read as a success.

mod binaries;
mod checks;
mod cost;
mod machine;
mod plan;

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail};

pub use self::plan::{Line, Plan, Suite};
use self::{machine::Machine, plan::Told};

/// The exit code's value for the emulator's device: everything in the plan was run and passed.
pub const PASSED: u8 = 0x2a;
/// And: something failed.
pub const FAILED: u8 = 0x2b;

/// Runs the plan and ends the machine.
#[must_use]
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("guest: this is the first process of a virtual machine, see `cargo xtask vm`");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    // Whatever happens, the machine says so and ends.
    let outcome = panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| bail_panicked());
    let code = match outcome {
        Ok(true) => PASSED,
        Ok(false) => FAILED,
        Err(error) => {
            eprintln!("guest: {error:#}");
            FAILED
        }
    };
    eprintln!("guest: the end, after {:.1} s", begun.elapsed().as_secs_f64());
    machine::end(code);
    // The device isn't there: the machine wasn't started as it should be, and its end by this process's is a kernel panic.
    ExitCode::FAILURE
}

fn bail_panicked() -> Result<bool> {
    bail!("panicked")
}

/// Whether everything passed.
fn run() -> Result<bool> {
    let machine = Machine::prepare()?;
    let plan = Plan::read()?;
    machine.load_modules(&plan.modules)?;
    let release = machine::release()?;
    eprintln!("guest: Linux {release}, {} suites", plan.suites.len());
    let mut told = Told::new(machine.port)?;
    told.tell(&Line::Begun { release })?;
    for suite in &plan.suites {
        match suite {
            Suite::Checks { tests } => checks::run(&mut told, tests),
            Suite::Binary { path, tests } => binaries::run(&mut told, path, tests),
            Suite::Cost => cost::run(&mut told),
        }
        .with_context(|| format!("{suite:?}"))?;
    }
    told.end()
}
