//! What a command does in its own process, supplied by `main`.

use std::path::Path;

use super::{args::AgentOptions, failure::Failure};
use crate::api::wire::DoctorReport;

/// The parts of the program that don't run in the agent, or are the agent.
pub trait Local {
    /// Runs the agent until it is told to stop.
    ///
    /// # Errors
    /// It could not start or failed: [`Code::Usage`](super::Code::Usage) for a wrong configuration,
    /// [`Code::NotPermitted`](super::Code::NotPermitted) without privileges, [`Code::Conflict`](super::Code::Conflict) if
    /// there is one already.
    fn agent(&self, options: &AgentOptions) -> Result<(), Failure>;

    /// Removes what is pinned in a directory, with no agent running.
    ///
    /// # Errors
    /// [`Code::Conflict`](super::Code::Conflict) if an agent runs on it, [`Code::NotFound`](super::Code::NotFound) if there is nothing,
    /// [`Code::NotPermitted`](super::Code::NotPermitted) without privileges.
    fn detach(&self, pins: &Path) -> Result<(), Failure>;

    /// What can be found out without the agent.
    fn doctor(&self, config: Option<&Path>) -> DoctorReport;
}
