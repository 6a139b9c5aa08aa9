//! What was asked, kept across restarts: flips, weights, backends and networks set by command, seeds, events.
//!
//! [`Store`] is the seam: a file on this node today, something that many nodes share later. What is kept is a plain
//! value, [`State`]; what it means together with a configuration is `desired`'s.

mod event;
mod file;
mod history;
#[cfg(test)]
mod killed;
mod memory;
mod rollout;
mod seal;
mod state;
mod trip;

use std::{io, path::PathBuf};

use jiff::Timestamp;

pub use event::{Check, Event, EventKind, Finding, Sample};
pub use file::FileStore;
pub use history::{FileHistory, History, HistoryError, MemoryHistory, Opening};
pub use memory::MemoryStore;
pub use rollout::{Abort, Answer, Checked, Compared, Difference, Entry, Left, Moved, Pause, Phase, Progress, Record, Run, Stop};
pub use state::{
    AddedBackend, AskedBackendWeight, AskedWeight, BackendOverlay, Flip, FlipReason, MAX_EVENTS, NetworkOverlay, PromotedBackend,
    ServiceState, State, Unreadable, Unsound, VERSION, decode, encode, fresh_seed,
};
pub use trip::{TripCause, TripFinding, TripTally};

/// Where the state is kept.
pub trait Store: Send {
    /// What was saved last. `now` names what has to be kept aside.
    ///
    /// # Errors
    /// It can't be said what was saved: the place can't be read, or what is damaged can't be kept aside.
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError>;

    /// Keeps the state. When this returns, it outlives a crash of the machine.
    ///
    /// # Errors
    /// The state is not kept; what was saved before still is.
    fn save(&mut self, state: &State) -> Result<(), StoreError>;
}

/// What a store held.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// Nothing was ever saved.
    Fresh,
    /// This.
    Found(Box<State>),
    /// Something that can't be read. Nothing may be guessed from it: everything is to go to stable, see
    /// `desired::hold_on_stable`.
    Damaged {
        /// Where it is kept for whoever wants to look.
        kept_as: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The state can't be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory can't be made or entered.
    #[error("cannot use the state directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent works with it.
    #[error("another agent{} works with {}: stop it first, or give this one its own state_directory", Pid(*pid), path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other agent, if it wrote down its number.
        pid: Option<u32>,
    },
    /// The lock can't be taken for another reason.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and can't be read.
    #[error("cannot read the state {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A damaged file can't be renamed.
    #[error("the state {} is damaged ({why}) and cannot be kept aside: {source}", path.display())]
    KeepAside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Why it can't be renamed.
        source: io::Error,
    },
    /// No space left.
    #[error("no space left to save the state in {}: make room there; what was saved before is intact", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// Not to be written to.
    #[error("{} may not be written to ({source}): the agent needs it to keep what it is asked", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another failure of writing.
    #[error("cannot save the state in {}: {source}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state can't be written as JSON.
    #[error("cannot write the state as JSON: {source}")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
    }
}
