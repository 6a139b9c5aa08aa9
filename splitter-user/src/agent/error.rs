//! Why an agent doesn't run (any more).

use crate::{
    api::socket::SocketError, dataplane::ApplyError, desired::DesiredError, metrics::server::ListenError, neighbor::NetlinkError,
    store::StoreError,
};

/// Why there is no data plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpenFailure {
    /// What kind.
    pub kind: OpenFailureKind,
    /// What was tried, why it failed, and what to do.
    pub message: String,
}

/// What kinds of failures there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailureKind {
    /// The process may not.
    NotPermitted,
    /// Somebody else has it: another XDP program, another version's data plane.
    Conflict,
    /// Anything else.
    Failed,
}

/// Why an agent doesn't run (any more). The data plane stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state can't be loaded or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no socket to be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Nor an address for metrics.
    #[error(transparent)]
    Metrics(#[from] ListenError),
    /// Nor a data plane.
    #[error(transparent)]
    Open(#[from] OpenFailure),
    /// Routes and neighbours can't be asked for.
    #[error("cannot follow routes and neighbours: {0}")]
    Neighbors(#[from] NetlinkError),
    /// Configuration and state don't make services.
    #[error(transparent)]
    Desired(#[from] DesiredError),
    /// The data plane refuses the configuration.
    #[error("the data plane cannot do what the configuration asks for: {0}")]
    Apply(#[from] ApplyError),
    /// One of the agent's tasks has ended by itself.
    #[error("{task} ended unexpectedly: {why}; the data plane goes on as it is")]
    Task {
        /// Which.
        task: &'static str,
        /// Why, as far as it's known.
        why: String,
    },
    /// A signal can't be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}
