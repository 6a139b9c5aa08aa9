//! How often who was told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What became of a target's notifications since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Told.
    pub sent: u64,
    /// Given up after several tries, or refused.
    pub failed: u64,
    /// Never tried: too many waited, or the agent ended.
    pub dropped: u64,
    /// Still to be told.
    pub waiting: u64,
}

/// The tallies of all targets, shared with whoever publishes them.
#[derive(Clone, Debug, Default)]
pub struct Tallies(Arc<Mutex<BTreeMap<String, Tally>>>);

impl Tallies {
    /// Those of this moment, by the targets' names.
    #[must_use]
    pub fn get(&self) -> BTreeMap<String, Tally> {
        self.lock().clone()
    }

    /// A target is there, and shows up with zeros before it's told anything.
    pub(super) fn begin(&self, target: &str) {
        self.lock().entry(target.to_owned()).or_default();
    }

    /// A target is gone.
    pub(super) fn end(&self, target: &str) -> Option<Tally> {
        self.lock().remove(target)
    }

    pub(super) fn change<T>(&self, target: &str, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(self.lock().entry(target.to_owned()).or_default())
    }

    /// A tally is changed as a whole, so that one that a panic left is right.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
