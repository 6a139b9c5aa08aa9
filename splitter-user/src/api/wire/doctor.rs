//! Why packets don't reach the backends.

use serde::{Deserialize, Serialize};

/// `GET /v1/doctor` (the agent's view), and what `splitter doctor -o json` prints (with the checks of its own process).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// In the order in which a packet meets what they are about.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    /// Whether a check failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.result == CheckResult::Fail)
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked, as in `native_xdp`.
    pub name: String,
    /// On what, as in `eth0` or `web 10.1.0.2:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it went.
    pub result: CheckResult,
    /// What was found, in words.
    pub finding: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// Works, but not well.
    Warn,
    /// Packets don't get through because of this.
    Fail,
    /// Could not be checked; the finding says why.
    Unknown,
}
