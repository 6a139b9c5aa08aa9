//! What happened, as it is told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::ServiceName,
    store::{self, EventKind},
};

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one, across restarts of the agent.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// To which service, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// It in words, with who did it.
    pub message: String,
    /// It in values, told apart by `kind`.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl From<store::Event> for Event {
    fn from(event: store::Event) -> Self {
        let message = event.kind.to_string();
        Self { id: event.id, at: event.at, service: event.service, message, kind: event.kind }
    }
}
