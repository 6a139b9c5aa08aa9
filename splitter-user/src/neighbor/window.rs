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

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(20);

    #[test]
    fn without_an_event_nothing_is_due() {
        assert_eq!(Window::new(QUIET).due(), None);
    }

    #[test]
    fn a_single_event_is_acted_upon_after_the_quiet_period() {
        let start = Instant::now();
        let mut window = Window::new(QUIET);
        window.event(start);
        assert_eq!(window.due(), Some(start + QUIET));
    }

    #[test]
    fn each_event_of_a_burst_puts_the_action_off_but_not_for_ever() {
        let start = Instant::now();
        let mut window = Window::new(QUIET);
        for (event_ms, due_ms) in [(0, 20), (10, 30), (29, 49), (75, 95), (90, 100), (99, 100)] {
            window.event(start + Duration::from_millis(event_ms));
            assert_eq!(window.due(), Some(start + Duration::from_millis(due_ms)), "after the event at {event_ms} ms");
        }
    }

    #[test]
    fn an_action_that_took_long_is_followed_by_four_times_as_much_rest() {
        let start = Instant::now();
        let mut window = Window::new(QUIET);
        window.event(start);
        let done = start + Duration::from_millis(50);
        window.acted(start, done);
        assert_eq!(window.due(), None);
        window.event(done);
        assert_eq!(window.due(), Some(done + Duration::from_millis(200)));
    }
}
