//! The history in a file of this node: an embedded database, `history.redb` in the state directory. Why this one stands in
//! `docs/decisions/history-store.md`.
//!
//! ```text
//! records      number → the record as JSON
//! contents     number → its service, and how long its JSON is
//! by-service   service, number
//! ```
//!
//! Every change is one transaction. The file is bounded: the oldest records go when there are too many of them, or too much.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, TableDefinition};

use super::{History, HistoryError};
use crate::{
    model::ServiceName,
    store::{
        Record,
        file::{keep_aside, sync_directory},
    },
};

const HISTORY: &str = "history.redb";
/// What becomes the history once it's whole.
const UNFINISHED: &str = ".history.redb.new";

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const CONTENTS: TableDefinition<'_, u64, (&str, u64)> = TableDefinition::new("contents");
const BY_SERVICE: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("by-service");

/// How much of the file is kept in memory at most.
const CACHE: usize = 4 << 20;

/// Rollouts in `history.redb` in the state directory; only the owner may read it.
///
/// While it's open, no other process can open it. An error closes it, and the next use opens it again, so that one full disk doesn't end it for good.
#[derive(Debug)]
pub struct FileHistory {
    directory: PathBuf,
    database: Mutex<Option<Database>>,
}

/// What became of opening the history. It's never a reason not to start: what can't be opened now is tried again with each use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Opening {
    /// It's there, or was begun.
    Open,
    /// It was damaged, and a new one was begun.
    Damaged {
        /// Where the damaged one is kept for whoever wants to look.
        kept_as: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It can't be opened for now.
    Closed(HistoryError),
}

impl Opening {
    /// What is worth a warning about it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Open => vec![],
            Self::Damaged { kept_as, why } => {
                vec![format!(
                    "the history of rollouts was damaged ({why}): it is kept as {}, and a new one was begun",
                    kept_as.display()
                )]
            }
            Self::Closed(error) => vec![error.to_string()],
        }
    }
}

impl FileHistory {
    /// So many rollouts are kept; older ones are forgotten.
    pub const RECORDS: u64 = 1_000;
    /// So many bytes of JSON are kept, apart from the latest record, which always is.
    pub const BYTES: u64 = 16 << 20;
    /// A record that is longer than this loses the older part of its log, see [`Record::left_out`].
    pub const RECORD: usize = 256 << 10;
    /// The file doesn't get longer than this.
    pub const FILE: u64 = 64 << 20;

    /// Opens the history in a directory that is there, or begins one. `now` names what has to be kept aside.
    pub fn open(directory: &Path, now: Timestamp) -> (Self, Opening) {
        let history = Self { directory: directory.to_owned(), database: Mutex::new(None) };
        let opening = history.first_open(now).unwrap_or_else(|fault| Opening::Closed(history.error(fault)));
        (history, opening)
    }

    fn first_open(&self, now: Timestamp) -> Result<Opening, Fault> {
        let mut place = self.lock();
        match attempt(|| open(&self.directory).and_then(check)) {
            Ok(database) => {
                *place = Some(database);
                Ok(Opening::Open)
            }
            Err(Fault::Damaged(why)) => {
                let kept_as =
                    keep_aside(&self.directory, HISTORY, now).map_err(|error| Fault::Stuck { why: why.clone(), error })?;
                *place = Some(open(&self.directory)?);
                Ok(Opening::Damaged { kept_as, why })
            }
            Err(other) => Err(other),
        }
    }

    /// Does something with the database, which is opened if it isn't.
    fn with<T>(&self, what: impl FnOnce(&mut Database) -> Result<T, Fault>) -> Result<T, HistoryError> {
        let mut place = self.lock();
        let result = attempt(|| match &mut *place {
            Some(database) => what(database),
            None => what(place.insert(open(&self.directory)?)),
        });
        result.map_err(|fault| {
            // After a failed write it refuses everything until it's opened anew.
            *place = None;
            self.error(fault)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        // Nobody panics with it, see `attempt`.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, fault: Fault) -> HistoryError {
        let place = self.directory.display();
        let why = match fault {
            Fault::Damaged(why) => {
                format!("it is damaged ({why}): the agent keeps it aside and begins another one when it's restarted")
            }
            Fault::Stuck { why, error } => format!("it is damaged ({why}) and cannot be kept aside: {error}"),
            Fault::Taken => "another process has it open: stop that one first".to_owned(),
            Fault::Json(error) => format!("a rollout can't be written as JSON: {error}"),
            Fault::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                format!("no space left: make room in {place}; what was kept before is intact")
            }
            Fault::Io(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
                format!("{place} may not be written to ({error}): the agent needs it to keep rollouts that are over")
            }
            Fault::Io(error) => format!("{error}: see what is wrong with {place}; it's tried again"),
        };
        HistoryError { path: self.directory.join(HISTORY), why }
    }
}

impl History for FileHistory {
    fn keep(&self, record: &Record) -> Result<(), HistoryError> {
        let json = fitting(record).map_err(|error| self.error(Fault::Json(error)))?;
        self.with(|database| write(database, record, &json))?;
        // What was kept is kept, whether or not the file gets shorter; if it doesn't, the next record tries again.
        if let Err(error) = self.with(|database| shorten(database, &self.directory)) {
            tracing::warn!(%error, "the history's file could not be made shorter");
        }
        Ok(())
    }

    fn list(&self, service: Option<&ServiceName>, limit: usize) -> Result<Vec<Record>, HistoryError> {
        self.with(|database| read(database, service, limit))
    }
}

/// Why the database can't be used.
#[derive(Debug)]
enum Fault {
    /// What is in the file is wrong.
    Damaged(String),
    /// It is, and the file can't be renamed.
    Stuck { why: String, error: io::Error },
    /// Another process has it.
    Taken,
    /// A record isn't JSON.
    Json(serde_json::Error),
    /// The disk says no.
    Io(io::Error),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        let error = error.into();
        if is_damage(&error) {
            return Self::Damaged(error.to_string());
        }
        if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            return Self::Taken;
        }
        let words = error.to_string();
        if let redb::Error::Io(error) = error { Self::Io(error) } else { Self::Io(io::Error::other(words)) }
    }
}

/// Some damage redb doesn't report but panics at. That ends neither the agent nor its history: the database is closed as after every other fault.
fn attempt<T>(what: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    panic::catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panicked| {
        let words = panicked.downcast_ref::<String>().map(String::as_str).or_else(|| panicked.downcast_ref::<&str>().copied());
        Err(Fault::Damaged(words.unwrap_or("redb panicked").to_owned()))
    })
}

/// Whether it's the file's content that is wrong.
fn is_damage(error: &redb::Error) -> bool {
    use redb::Error as E;
    if let E::Io(error) = error {
        // How redb says that the file is none of its own, or cut short.
        return matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    }
    matches!(
        error,
        E::Corrupted(_)
            | E::UpgradeRequired(_)
            | E::RepairAborted
            | E::TableTypeMismatch { .. }
            | E::TableIsMultimap(_)
            | E::TableIsNotMultimap(_)
            | E::TypeDefinitionChanged { .. }
            | E::TableDoesNotExist(_)
    )
}

/// Opens the database, or begins one.
fn open(directory: &Path) -> Result<Database, Fault> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.open(directory.join(HISTORY)) {
        Ok(file) => database(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => begin(directory, &mut options),
        Err(error) => Err(Fault::Io(error)),
    }
}

/// Begins a database under another name: whoever is killed meanwhile leaves no half of one. The directory is its agent's alone, by the state's lock.
fn begin(directory: &Path, options: &mut OpenOptions) -> Result<Database, Fault> {
    let unfinished = directory.join(UNFINISHED);
    let file = options.create(true).truncate(true).open(&unfinished).map_err(Fault::Io)?;
    let database = database(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(CONTENTS)?;
    transaction.open_table(BY_SERVICE)?;
    transaction.commit()?;
    fs::rename(unfinished, directory.join(HISTORY)).and_then(|()| sync_directory(directory)).map_err(Fault::Io)?;
    Ok(database)
}

fn database(file: File) -> Result<Database, Fault> {
    Ok(Builder::new().set_cache_size(CACHE).create_file(file)?)
}

/// Reads all of it, so that damage is found when something can be done about it. It's never much.
fn check(mut database: Database) -> Result<Database, Fault> {
    database.check_integrity()?;
    read(&mut database, None, usize::MAX)?;
    Ok(database)
}

/// A record's JSON, with as much of its log as there is room for.
fn fitting(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(record)?;
    let Some(mut excess) = json.len().checked_sub(FileHistory::RECORD).filter(|excess| *excess > 0) else { return Ok(json) };
    let mut record = record.clone();
    // How it began and how it ended are worth more than what came in between.
    while excess > 0 && record.run.log.len() > 2 {
        let entry = record.run.log.remove(1);
        record.left_out += 1;
        excess = excess.saturating_sub(serde_json::to_vec(&entry)?.len());
    }
    serde_json::to_vec(&record)
}

/// Adds a record, and takes out what there is no room for.
fn write(database: &Database, record: &Record, json: &[u8]) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut contents = transaction.open_table(CONTENTS)?;
        let mut by_service = transaction.open_table(BY_SERVICE)?;
        let number = record.run.id;
        if let Some(before) = contents.remove(number)? {
            by_service.remove((before.value().0, number))?;
        }
        records.insert(number, json)?;
        contents.insert(number, (record.service.as_str(), json.len() as u64))?;
        by_service.insert((record.service.as_str(), number), ())?;

        let mut bytes = total(&contents)?;
        while contents.len()? > 1 && (contents.len()? > FileHistory::RECORDS || bytes > FileHistory::BYTES) {
            let Some((oldest, content)) = contents.pop_first()? else { break };
            by_service.remove((content.value().0, oldest.value()))?;
            records.remove(oldest.value())?;
            bytes = bytes.saturating_sub(content.value().1);
        }
    }
    transaction.commit()?;
    Ok(())
}

/// How many bytes of JSON there are.
fn total(contents: &impl ReadableTable<u64, (&'static str, u64)>) -> Result<u64, Fault> {
    let mut bytes = 0_u64;
    for content in contents.iter()? {
        bytes = bytes.saturating_add(content?.1.value().1);
    }
    Ok(bytes)
}

fn read(database: &mut Database, service: Option<&ServiceName>, limit: usize) -> Result<Vec<Record>, Fault> {
    let transaction = database.begin_read()?;
    let records = transaction.open_table(RECORDS)?;
    let record = |number: u64| -> Result<Record, Fault> {
        let json = records.get(number)?.ok_or_else(|| Fault::Damaged(format!("rollout {number} is missing")))?;
        Record::decode(json.value()).map_err(|error| Fault::Damaged(format!("rollout {number}: {error}")))
    };
    let contents = transaction.open_table(CONTENTS)?;
    let by_service = transaction.open_table(BY_SERVICE)?;
    let mut numbers = Vec::new();
    match service {
        None => {
            for content in contents.iter()?.rev().take(limit) {
                numbers.push(content?.0.value());
            }
        }
        Some(name) => {
            for entry in by_service.range((name.as_str(), 0)..=(name.as_str(), u64::MAX))?.rev().take(limit) {
                numbers.push(entry?.0.value().1);
            }
        }
    }
    numbers.into_iter().map(record).collect()
}

/// Makes the file shorter if it's several times as long as what is in it: it grows by doubling, and never shrinks by itself.
fn shorten(database: &mut Database, directory: &Path) -> Result<(), Fault> {
    let length = fs::metadata(directory.join(HISTORY)).map_err(Fault::Io)?.len();
    if length <= FileHistory::FILE / 8 {
        return Ok(());
    }
    let bytes = total(&database.begin_read()?.open_table(CONTENTS)?)?;
    if length / 4 > bytes {
        database.compact()?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
