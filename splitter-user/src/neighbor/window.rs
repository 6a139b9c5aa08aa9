//! When to act on events that come in bursts. Pure: time is an argument.

use std::time::{Duration, Instant};

/// How many quiet periods a burst can put off the action at most.
const PATIENCE: u32 = 5;

/// Looking everything up may take up this part of the time: one in so many.
const SHARE: u32 = 5;

/// Gathers a burst of events into one action.
///
/// The action is due when nothing has come for the quiet period, or when the burst has gone on for five such periods.
/// After an action that took long, the next waits four times as long as it took: on a node whose routes change without end
/// (a full BGP feed, containers coming and going) the agent spends a fifth of one core at most.
#[derive(Debug)]
pub(super) struct Window {
    quiet: Duration,
    burst: Option<Burst>,
    rested: Option<Instant>,
}

#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Window {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, burst: None, rested: None }
    }

    /// Something happened.
    pub(super) fn event(&mut self, now: Instant) {
        let first = self.burst.as_ref().map_or(now, |burst| burst.first);
        self.burst = Some(Burst { first, last: now });
    }

    /// When to act; `None` while there is nothing to act upon.
    pub(super) fn due(&self) -> Option<Instant> {
        let burst = self.burst.as_ref()?;
        let due = (burst.last + self.quiet).min(burst.first + self.quiet * PATIENCE);
        Some(self.rested.map_or(due, |rested| due.max(rested)))
    }

    /// All has been acted upon.
    pub(super) fn acted(&mut self, started: Instant, now: Instant) {
        self.burst = None;
        self.rested = Some(now + now.saturating_duration_since(started) * (SHARE - 1));
    }
}
