//! What is told, and in which words. Pure.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    api::wire,
    http::one_line,
    model::ServiceName,
    store::{Event, EventKind, Moved},
};

/// The body of a notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// It in words: what Slack, and what speaks like it, shows.
    pub text: String,
    /// How urgent it is.
    pub level: Level,
    /// To which service it happened, if to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// When it happened.
    pub at: Timestamp,
    /// The node that tells it.
    pub node: String,
    /// The event, as the API has it.
    pub event: wire::Event,
}

/// How urgent something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It went as planned.
    Info,
    /// It waits for somebody.
    Wait,
    /// It went wrong.
    Alarm,
}

impl Message {
    /// What is told of an event, if it's worth it.
    #[must_use]
    pub fn of(event: Event, node: &str) -> Option<Self> {
        let level = worth(&event.kind)?;
        Some(Self {
            text: plain(&event.to_string()),
            level,
            service: event.service.clone(),
            at: event.at,
            node: node.to_owned(),
            event: event.into(),
        })
    }
}

/// Whether somebody wants to be told, and how urgently: what moves a rollout, what takes a service to stable and back, and what makes it doubtful whether
/// it was there. A flip of a rollout is the service's flip, and is told once.
#[must_use]
pub const fn worth(kind: &EventKind) -> Option<Level> {
    match kind {
        EventKind::Rollout { what, .. } => rollout(what),
        EventKind::Flipped { .. } | EventKind::LeaseRanOut { .. } | EventKind::StateDamaged { .. } => Some(Level::Alarm),
        EventKind::Unflipped { .. } => Some(Level::Info),
        EventKind::AgentStarted { .. }
        | EventKind::AgentStopped { .. }
        | EventKind::Reloaded { .. }
        | EventKind::ReloadRefused { .. }
        | EventKind::Detached { .. }
        | EventKind::WeightChanged { .. }
        | EventKind::WeightFromConfiguration { .. }
        | EventKind::FlipChanged { .. }
        | EventKind::BackendAdded { .. }
        | EventKind::BackendRemoved { .. }
        | EventKind::BackendDraining { .. }
        | EventKind::BackendDrained { .. }
        | EventKind::BackendUndrained { .. }
        | EventKind::BackendWeightChanged { .. }
        | EventKind::BackendUnreachable { .. }
        | EventKind::BackendReachable { .. }
        | EventKind::NoStableBackend
        | EventKind::StableBackendBack
        | EventKind::NoCanaryBackend
        | EventKind::NetworkAdded { .. }
        | EventKind::NetworkRemoved { .. }
        | EventKind::NetworksChanged { .. }
        | EventKind::RequestDropped { .. } => None,
    }
}

const fn rollout(moved: &Moved) -> Option<Level> {
    match moved {
        Moved::Started { .. } | Moved::Step { .. } | Moved::Resumed { .. } | Moved::Promoted => Some(Level::Info),
        Moved::Gate { .. } | Moved::Paused { .. } | Moved::Proceeded { .. } => Some(Level::Wait),
        Moved::Aborted { .. } => Some(Level::Alarm),
        // The service's own event tells the flip, and the step, gate or promotion that follows tells the others.
        Moved::Flipped { .. } | Moved::Passed { .. } | Moved::Opened { .. } | Moved::Skipped { .. } | Moved::Promoting { .. } => {
            None
        }
    }
}

/// Without what Slack takes for a command: a reason that somebody else gave must not call a whole channel.
fn plain(text: &str) -> String {
    one_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
