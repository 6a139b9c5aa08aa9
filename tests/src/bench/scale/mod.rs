//! What grows with what: services, backends, connections, CPUs.

pub mod connections;
pub mod fill;
pub mod many;
pub mod memory;
pub mod rows;

mod agent;
mod plane;

use anyhow::Result;

use super::report::Scale;
use rows::Rows;

/// How much time it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// All sizes, within 90 seconds.
    Full,
    /// The sizes that decide, within 15 seconds.
    Quick,
}

/// Measures, and says on standard error how far it is.
///
/// # Errors
/// When the lab or the data plane can't be made.
pub fn run() -> Result<Vec<Scale>> {
    run_with(Effort::Full)
}

/// The same in less time.
///
/// # Errors
/// As [`run`].
pub fn run_with(effort: Effort) -> Result<Vec<Scale>> {
    let mut rows = Rows::default();
    plane::backends(effort, &mut rows)?;
    plane::services(effort, &mut rows)?;
    connections::cpus(effort, &mut rows)?;
    connections::tables(effort, &mut rows)?;
    agent::rounds(effort, &mut rows)?;
    Ok(rows.0)
}
