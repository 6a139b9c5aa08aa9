//! Why don't packets reach the backends? What can be found out without an agent.

use std::path::Path;

use crate::api::wire::DoctorReport;

/// Looks at this node, and at a configuration's interfaces and services if there is one.
#[must_use]
pub fn examine(_config: Option<&Path>) -> DoctorReport {
    DoctorReport::default()
}
