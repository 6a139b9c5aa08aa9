//! What a packet costs, in instructions: for a machine whose clock counts those.

use anyhow::Result;

use super::plan::{Line, Told};
use crate::bench::cost;

/// Measures and tells.
pub(super) fn run(told: &mut Told) -> Result<()> {
    for row in cost::count()? {
        told.tell(&Line::Cost { case: row.cost.case, instructions: row.cost.ns })?;
    }
    Ok(())
}
