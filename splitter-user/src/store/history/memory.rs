//! A history that forgets with its process: for tests of whoever uses a history.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{History, HistoryError};
use crate::{model::ServiceName, store::Record};

/// Clones share what is kept, so that a test can look at it.
#[derive(Clone, Debug, Default)]
pub struct MemoryHistory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<u64, Record>,
    full: bool,
    /// How often something was kept.
    kept: usize,
}

impl MemoryHistory {
    /// Whether keeping fails from now on, as on a full disk.
    pub fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    /// How often something was kept, the same thing again included.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.lock().kept
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked elsewhere leaves the records whole: each is put there in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History for MemoryHistory {
    fn keep(&self, record: &Record) -> Result<(), HistoryError> {
        let mut inner = self.lock();
        if inner.full {
            return Err(HistoryError { path: PathBuf::from("memory"), why: "no space left".to_owned() });
        }
        inner.kept += 1;
        inner.records.insert(record.run.id, record.clone());
        Ok(())
    }

    fn list(&self, service: Option<&ServiceName>, limit: usize) -> Result<Vec<Record>, HistoryError> {
        let inner = self.lock();
        let newest_first = inner.records.values().rev();
        Ok(newest_first.filter(|record| service.is_none_or(|name| record.service == *name)).take(limit).cloned().collect())
    }
}
