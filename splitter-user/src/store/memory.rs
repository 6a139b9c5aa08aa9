//! A store that forgets with its process: for tests of whoever uses a store.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::{Loaded, State, Store, StoreError, decode, encode};

/// Keeps the state's form on disk in memory. Clones share it, so that a test can look at what an agent saved.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    /// Told when it doesn't hang any more.
    goes_on: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Option<Vec<u8>>,
    full: bool,
    hangs: bool,
    /// Savings that have begun, those included that failed.
    begun: usize,
}

impl MemoryStore {
    /// What was saved last.
    #[must_use]
    pub fn saved(&self) -> Option<State> {
        self.lock().bytes.as_deref().and_then(|bytes| decode(bytes).ok())
    }

    /// Puts bytes where the state is, such as damaged ones.
    pub fn put(&self, bytes: impl Into<Vec<u8>>) {
        self.lock().bytes = Some(bytes.into());
    }

    /// Whether saving fails from now on, as on a full disk.
    pub fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether saving doesn't end from now on, as on a disk that doesn't answer.
    pub fn hang(&self, hangs: bool) {
        self.lock().hangs = hangs;
        self.goes_on.notify_all();
    }

    /// How many savings have begun.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.lock().begun
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked elsewhere leaves the bytes whole: they are replaced in one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self, _now: Timestamp) -> Result<Loaded, StoreError> {
        let mut inner = self.lock();
        let Some(bytes) = &inner.bytes else { return Ok(Loaded::Fresh) };
        match decode(bytes) {
            Ok(state) => Ok(Loaded::Found(Box::new(state))),
            Err(why) => {
                inner.bytes = None;
                Ok(Loaded::Damaged { kept_as: PathBuf::from("memory"), why: why.to_string() })
            }
        }
    }

    fn save(&mut self, state: &State) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.begun += 1;
        while inner.hangs {
            inner = self.goes_on.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.full {
            return Err(StoreError::Full { path: PathBuf::from("memory") });
        }
        inner.bytes = Some(encode(state).map_err(|source| StoreError::Encode { source })?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_what_was_saved_and_a_full_store_keeps_it() {
        let mut store = MemoryStore::default();
        let seen = store.clone();
        assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Fresh);
        let mut state = State::default();
        state.adoptions = 3;
        store.save(&state).expect("saved");
        seen.fill(true);
        let refused = store.save(&State::default()).expect_err("full");
        assert!(matches!(refused, StoreError::Full { .. }));
        assert_eq!(seen.saved(), Some(state));
        seen.put("{");
        assert!(matches!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Damaged { .. }));
        assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Fresh);
    }
}
