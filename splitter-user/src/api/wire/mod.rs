//! What travels between the agent and its clients, as JSON. `-o json` prints the same types.
//!
//! The shape is stable within version 1: fields and enum values are added, never renamed or removed. A field whose value
//! isn't known is left out; it is never filled with a zero. Responses may hold fields that a reader doesn't know;
//! requests may not.
//!
//! Times are RFC 3339 in UTC, addresses are `address:port` with IPv6 in brackets, weights are percentages as text
//! (`"5%"`), with the same in hundredths of a percent under a name that ends in `_bp`.

mod decision;
mod doctor;
mod event;
mod history;
mod request;
mod rollout;
mod signals;
mod status;

pub use decision::{Decision, Explanation, Hypothetical, MaglevSlot, Place, Rule, TraceRecord, Verdict};
pub use doctor::{Check, CheckResult, DoctorReport};
pub use event::Event;
pub use history::{CheckSaid, History, LogLine, Rollout, RolloutStep, Stage, Standing, StepVerdict};
pub use request::{
    AddBackend, ExplainRequest, FlipRequest, NetworkChange, PromoteRequest, RolloutAction, RolloutWord, SetBackendWeight,
    SetWeight, TraceFilter,
};
pub use rollout::{
    AnswerWord, BothCohorts, CheckStatus, DifferenceStatus, Judgement, RolloutBrief, RolloutConnections, RolloutEntry,
    RolloutPhase, RolloutStatus, RolloutWeight, StepState, StepStatus, VerdictWord,
};
pub use signals::{BreakerStatus, LeaseStatus, RanOut, Recent, ResumeWord, Times, Trip};
pub use status::{
    AgentStatus, AttachMode, BackendList, BackendState, BackendStatus, CohortStatus, Counters, Detached, Flip, FlipCause,
    InterfaceStatus, NetworkChanged, Networks, Reload, ServiceStatus, Status, Traffic, VersionInfo, Way, WeightSource, Weights,
};

use serde::{Deserialize, Serialize};

/// The body of every response that isn't a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of error, for programs.
    pub code: ErrorCode,
    /// What was tried, on what, and why it failed: one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Where in the input, as in `service "web", backend 2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// The kinds of errors, each with one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 404: the service, backend or prefix isn't there.
    NotFound,
    /// 400: the request can't mean anything.
    Invalid,
    /// 409: the request is right, the present state forbids it.
    Conflict,
    /// 503: can't be done now; nothing was changed, or the change is still on its way.
    Unavailable,
    /// 500: the agent failed.
    Internal,
    /// 404 or 405: this agent doesn't know such a call.
    Unsupported,
}

#[cfg(test)]
mod tests;
