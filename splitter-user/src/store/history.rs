//! Rollouts that are over, kept longer than the state keeps them.

mod file;
mod memory;

use std::path::PathBuf;

pub use file::{FileHistory, Opening};
pub use memory::MemoryHistory;

use super::Record;
use crate::model::ServiceName;

/// Where rollouts are kept that are over. It may be asked from several threads, and may wait for a disk: whoever runs on an executor's thread asks from another one.
pub trait History: Send + Sync {
    /// Keeps a rollout; one of the same number is replaced. When this returns, it outlives a crash of the machine.
    ///
    /// # Errors
    /// It isn't kept; what was kept before still is.
    fn keep(&self, record: &Record) -> Result<(), HistoryError>;

    /// The latest rollouts, of one service or of all, newest first: at most `limit`.
    ///
    /// # Errors
    /// They can't be read.
    fn list(&self, service: Option<&ServiceName>, limit: usize) -> Result<Vec<Record>, HistoryError>;
}

/// The history can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history {}: {why}", path.display())]
pub struct HistoryError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong, and what to do.
    pub why: String,
}
