//! What a packet costs, in instructions: for a machine whose clock counts those.

use anyhow::Result;

use super::plan::{Line, Told};
use crate::bench::cost;

/// Measures and tells.
pub(super) fn run(told: &mut Told) -> Result<()> {
    cost::count(|row| told.tell(&Line::Cost { case: row.cost.case.clone(), instructions: row.cost.ns }))
}
