//! The state in a file of this node, written as a whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{Loaded, State, Store, StoreError, decode, encode, seal, state::Unreadable};

const STATE: &str = "state.json";
const LOCK: &str = "agent.lock";
/// What is being written, until it is whole.
const UNFINISHED: &str = ".state.json.";

/// `state.json` in the state directory. Seeds are secret, so that only the owner may read it.
///
/// While the value lives, it holds the directory's lock, and no other agent can open it; the kernel frees the lock with
/// the process, however that ends.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    _lock: File,
}

impl FileStore {
    /// Takes the directory for this process; makes it if it isn't there.
    ///
    /// # Errors
    /// The directory can't be used, or another agent has it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let lock = lock(directory)?;
        remove_unfinished(directory).map_err(unusable)?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(STATE)
    }

    /// Replaces the file as a whole. `done` is told each step: a test ends the process there.
    fn replace(&self, bytes: &[u8], mut done: impl FnMut(Step)) -> io::Result<()> {
        // Mode 0600 is NamedTempFile's own. It removes itself when this fails half-way.
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.directory)?;
        done(Step::Made);
        file.write_all(bytes)?;
        done(Step::Written);
        file.as_file().sync_all()?;
        done(Step::Synced);
        file.persist(self.path()).map_err(|error| error.error)?;
        done(Step::Renamed);
        // The name is in the directory: without this, a crash may bring the old file back.
        sync_directory(&self.directory)?;
        done(Step::DirectorySynced);
        Ok(())
    }
}

/// What has been done of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The new file is there, and empty.
    Made,
    /// It has its content.
    Written,
    /// On the disk too.
    Synced,
    /// It's the state.
    Renamed,
    /// On the disk too.
    DirectorySynced,
}

impl Store for FileStore {
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Fresh),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        let why = match read(&bytes) {
            Ok(state) => return Ok(Loaded::Found(Box::new(state))),
            Err(why) => why.to_string(),
        };
        match keep_aside(&self.directory, STATE, now) {
            Ok(kept_as) => Ok(Loaded::Damaged { kept_as, why }),
            Err(source) => Err(StoreError::KeepAside { path, why, source }),
        }
    }

    fn save(&mut self, state: &State) -> Result<(), StoreError> {
        let text = encode(state).map_err(|source| StoreError::Encode { source })?;
        self.replace(&seal::seal(&text), |_| {}).map_err(|source| write_error(&self.directory, source))
    }
}

/// The state in a file's octets, if they are those that were written.
fn read(bytes: &[u8]) -> Result<State, Unreadable> {
    let (text, is_whole) = seal::open(bytes);
    // First, since it says what is wrong, and the sum only that something is.
    let state = decode(&text)?;
    if is_whole { Ok(state) } else { Err(Unreadable::Changed) }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let failed = |source| StoreError::Lock { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The number only helps to find the other one; that there is one is known without it.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::Locked { path: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(|source| write_error(directory, source))?;
    Ok(file)
}

/// What an agent that was killed while it wrote has left.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Renames a damaged file to a name that isn't taken. Nobody else makes files in the directory while the lock is held.
pub(super) fn keep_aside(directory: &Path, name: &str, now: Timestamp) -> io::Result<PathBuf> {
    let base = format!("{name}.damaged-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let mut kept_as = directory.join(&base);
    for number in 2.. {
        if !kept_as.try_exists()? {
            break;
        }
        kept_as = directory.join(format!("{base}-{number}"));
    }
    fs::rename(directory.join(name), &kept_as)?;
    sync_directory(directory)?;
    Ok(kept_as)
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn write_error(directory: &Path, source: io::Error) -> StoreError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let path = directory.to_owned();
    // The kind alone: tempfile's errors name the path and hide the number.
    let kind = source.kind();
    if matches!(kind, StorageFull | QuotaExceeded) {
        StoreError::Full { path }
    } else if matches!(kind, ReadOnlyFilesystem | PermissionDenied) {
        StoreError::ReadOnly { path, source }
    } else {
        StoreError::Write { path, source }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
        process::{Child, ExitStatus},
        thread::sleep,
        time::Duration,
    };

    use libc::SIGKILL;
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
        sys::signal::{Signal, raise},
        unistd::geteuid,
    };

    use super::*;
    use crate::store::{EventKind, killed};

    #[test]
    fn what_is_saved_is_loaded_and_only_the_owner_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("deep/state");
        let mut store = FileStore::open(&place).expect("made");
        assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Fresh);
        let state = some_state();
        store.save(&State::default()).expect("saved");
        store.save(&state).expect("saved over");
        assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Found(Box::new(state)));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(&place), mode(&place.join(STATE)), mode(&place.join(LOCK))), (0o700, 0o600, 0o600));
        assert_eq!(names(&place), [LOCK, STATE]);
    }

    #[test]
    fn a_second_agent_is_refused_with_the_first_ones_pid_until_that_one_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = FileStore::open(directory.path()).expect("free");
        let refused = FileStore::open(directory.path()).expect_err("taken").to_string();
        let expected = format!(
            "another agent (pid {}) works with {}: stop it first, or give this one its own state_directory",
            std::process::id(),
            directory.path().display()
        );
        assert_eq!(refused, expected);
        drop(first);
        FileStore::open(directory.path()).expect("free again");
    }

    #[test]
    fn a_damaged_state_is_kept_aside_and_nothing_is_guessed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = FileStore::open(directory.path()).expect("free");
        store.save(&some_state()).expect("saved");
        let whole = fs::read(store.path()).expect("read");
        let other_version = String::from_utf8(whole.clone()).expect("text").replacen("\"version\": 1", "\"version\": 9", 1);
        // A state like any other, but not the one that was saved.
        let other_number = seal::seal(&encode(&numbered(7)).expect("JSON"));
        let other_number =
            String::from_utf8(other_number).expect("text").replacen("\"adoptions\": 7", "\"adoptions\": 8", 1).into_bytes();
        let unsealed = encode(&some_state()).expect("JSON");
        for (bytes, name, part) in [
            (&whole[..whole.len() / 2], "state.json.damaged-20260102T030405Z", "EOF while parsing"),
            (&b""[..], "state.json.damaged-20260102T030405Z-2", "EOF while parsing"),
            (&b"\xff\xfe"[..], "state.json.damaged-20260102T030405Z-3", "expected value"),
            (other_version.as_bytes(), "state.json.damaged-20260102T030405Z-4", "version 9, this agent reads version 1"),
            (&other_number, "state.json.damaged-20260102T030405Z-5", "don't fit its checksum"),
            (&unsealed, "state.json.damaged-20260102T030405Z-6", "don't fit its checksum"),
        ] {
            fs::write(store.path(), bytes).expect("damaged");
            let loaded = store.load("2026-01-02T03:04:05Z".parse().expect("a time")).expect("kept aside");
            let Loaded::Damaged { kept_as, why } = loaded else { panic!("{loaded:?}") };
            assert_eq!(kept_as, directory.path().join(name));
            assert_eq!(fs::read(&kept_as).expect("kept"), bytes);
            assert!(why.contains(part), "{why}");
            assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Fresh);
        }
    }

    #[test]
    fn what_a_killed_agent_left_unfinished_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(".state.json.AbCdEf"), "{").expect("written");
        fs::write(directory.path().join("notes"), "mine").expect("written");
        let mut store = FileStore::open(directory.path()).expect("free");
        assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Fresh);
        assert_eq!(names(directory.path()), [LOCK, "notes"]);
    }

    #[test]
    fn kill_9_at_every_step_of_saving_leaves_the_old_state_or_the_new_one() {
        use Step::{DirectorySynced, Made, Renamed, Synced, Written};
        if let Some(place) = killed::place() {
            save_until_killed(&place);
        }
        for (at, step) in [Made, Written, Synced, Renamed, DirectorySynced].into_iter().enumerate() {
            let directory = tempfile::tempdir().expect("a directory");
            let child = killed::start(
                module_path!(),
                "kill_9_at_every_step_of_saving_leaves_the_old_state_or_the_new_one",
                directory.path(),
                Some(at),
            );
            let ended = wait(child);
            assert_eq!(ended.signal(), Some(SIGKILL), "{step:?}: {ended}");
            assert_eq!(killed::acknowledged(directory.path()), 1, "{step:?}: the second was being saved");
            let is_new = matches!(step, Renamed | DirectorySynced);
            let mut store = FileStore::open(directory.path()).expect("free");
            let loaded = store.load(Timestamp::UNIX_EPOCH).expect("loaded");
            assert_eq!(loaded, Loaded::Found(Box::new(numbered(if is_new { 2 } else { 1 }))), "{step:?}");
            store.save(&numbered(3)).expect("it goes on");
            assert_eq!(names(directory.path()), ["acknowledged", LOCK, STATE], "{step:?}: nothing half-written stays");
        }
    }

    #[test]
    fn whatever_was_saved_is_there_after_kill_9_at_any_moment() {
        if let Some(place) = killed::place() {
            save_until_killed(&place);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let mut last = 0;
        for round in 0..60 {
            let mut child =
                killed::start(module_path!(), "whatever_was_saved_is_there_after_kill_9_at_any_moment", directory.path(), None);
            sleep(Duration::from_micros(rand::random_range(0..60_000)));
            child.kill().expect("killed");
            child.wait().expect("it's gone");
            let acknowledged = killed::acknowledged(directory.path());
            assert!(acknowledged >= last, "round {round}");
            last = acknowledged;
            let mut store = FileStore::open(directory.path()).expect("free");
            match store.load(Timestamp::UNIX_EPOCH).expect("loaded") {
                Loaded::Fresh => assert_eq!(last, 0, "round {round}"),
                Loaded::Found(state) => {
                    assert!(state.adoptions >= last, "round {round}: {last} was acknowledged, {} is there", state.adoptions);
                    assert_eq!(*state, numbered(state.adoptions), "round {round}");
                }
                damaged @ Loaded::Damaged { .. } => panic!("round {round}: {damaged:?}"),
            }
        }
        assert!(last > 20, "{last} states were saved, so that few were killed at work");
    }

    #[test]
    fn a_state_that_cannot_be_read_is_an_error_not_damage() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = FileStore::open(directory.path()).expect("free");
        fs::create_dir(store.path()).expect("a directory in its place");
        let error = store.load(Timestamp::UNIX_EPOCH).expect_err("no file");
        assert!(matches!(error, StoreError::Read { .. }), "{error}");
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        let error = FileStore::open(&file.join("state")).expect_err("a file is in the way").to_string();
        assert!(error.starts_with(&format!("cannot use the state directory {}/state: ", file.display())), "{error}");
    }

    #[test]
    fn a_full_disk_and_a_read_only_one_keep_what_was_saved_and_say_so() {
        assert!(geteuid().is_root(), "this test mounts a small file system in a namespace of its own: run it as root");
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().to_owned();
        // A thread has a mount namespace of its own, and takes the mount with it as it ends.
        let tried = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a namespace");
            mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).expect("private");
            mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("a small disk");
            let mut store = FileStore::open(&place).expect("free");
            let state = some_state();
            store.save(&state).expect("it fits");

            let mut large = State::default();
            for _ in 0..500 {
                let why = "x".repeat(1_000);
                large.record(Timestamp::UNIX_EPOCH, None, EventKind::ReloadRefused { errors: vec![why] });
            }
            let full = store.save(&large).expect_err("it doesn't fit");
            assert!(matches!(full, StoreError::Full { .. }), "{full}");
            assert_eq!(names(&place), [LOCK, STATE], "nothing half-written stays");
            assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Found(Box::new(state.clone())));

            // Mounted over itself, for the first mount has a file open to be written: the lock.
            mount::<Path, Path, str, str>(Some(&place), &place, None, MsFlags::MS_BIND, None).expect("mounted again");
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount::<str, Path, str, str>(None, &place, None, read_only, None).expect("remounted");
            let refused = store.save(&large).expect_err("read-only");
            assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
            assert_eq!(store.load(Timestamp::UNIX_EPOCH).expect("loaded"), Loaded::Found(Box::new(state)));
        });
        tried.join().expect("all as expected");
    }

    /// One that is long enough to be written in more than one go.
    fn numbered(number: u64) -> State {
        let mut state = State::default();
        state.adoptions = number;
        for _ in 0..number % 100 {
            state.record(Timestamp::UNIX_EPOCH, None, EventKind::ReloadRefused { errors: vec![number.to_string().repeat(100)] });
        }
        state
    }

    fn wait(mut child: Child) -> ExitStatus {
        child.wait().expect("it ends")
    }

    fn some_state() -> State {
        let mut state = State::default();
        state.adoptions = 2;
        state.record(Timestamp::UNIX_EPOCH, None, EventKind::AgentStarted { adopted: true });
        state
    }

    fn names(directory: &Path) -> Vec<String> {
        let entry = |entry: io::Result<fs::DirEntry>| entry.expect("read").file_name().into_string().expect("a name");
        let mut names: Vec<String> = fs::read_dir(directory).expect("listed").map(entry).collect();
        names.sort();
        names
    }

    /// What is to be killed.
    fn save_until_killed(place: &Path) -> ! {
        let mut store = FileStore::open(place).expect("free");
        let mut acknowledgements = killed::acknowledgements(place);
        let saved = match store.load(Timestamp::UNIX_EPOCH).expect("loaded") {
            Loaded::Fresh => 0,
            Loaded::Found(state) => state.adoptions,
            damaged @ Loaded::Damaged { .. } => panic!("{damaged:?}"),
        };
        for number in saved + 1.. {
            match killed::step().filter(|_| number == 2) {
                None => store.save(&numbered(number)).expect("saved"),
                Some(at) => {
                    let mut left = at;
                    let end = |_| match left.checked_sub(1) {
                        Some(less) => left = less,
                        None => raise(Signal::SIGKILL).expect("this is the end"),
                    };
                    store.replace(&seal::seal(&encode(&numbered(number)).expect("JSON")), end).expect("saved");
                }
            }
            killed::acknowledge(&mut acknowledgements, number);
        }
        unreachable!("there are numbers enough")
    }
}
