//! The only place of the agent where clocks are read.

use std::time::Instant;

use jiff::Timestamp;

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For people, and for what is kept.
    pub at: Timestamp,
    /// For durations: never goes back. Tokio's, so that a test may stop it.
    pub instant: Instant,
}

/// Now.
#[must_use]
pub fn now() -> Moment {
    Moment { at: Timestamp::now(), instant: tokio::time::Instant::now().into_std() }
}
