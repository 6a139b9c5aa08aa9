//! One run at a time in one target directory: runs share `target/vm`, `target/kernels` and the processors that their limits are meant for.

use std::{
    env, fmt,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::run;

/// The file's name in the directory that is taken.
const NAME: &str = "lock";
/// How often a waiting run looks.
const POLL: Duration = Duration::from_millis(200);
/// Longer than a run of all tests may take.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Held as long as this lives; the kernel takes it back from a process that dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Who has it: what the holder wrote into the file.
#[derive(Debug, PartialEq, Eq)]
struct Holder(String);

/// Takes a directory, after whoever has it.
pub fn take(directory: &Path) -> Result<Lock> {
    take_within(directory, LIMIT)
}

fn take_within(directory: &Path, limit: Duration) -> Result<Lock> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(NAME);
    let begun = Instant::now();
    let mut told = false;
    loop {
        let holder = match attempt(&path)? {
            Ok(lock) => return Ok(lock),
            Err(holder) => holder,
        };
        if begun.elapsed() >= limit {
            bail!("{holder} still has {} after {} s; it takes one run at a time", directory.display(), limit.as_secs());
        }
        if !told {
            told = true;
            println!("[vm] waiting for {holder}, which has {}", directory.display());
        }
        thread::sleep(POLL);
        run::go_on()?;
    }
}

/// Takes it, or says who has it.
fn attempt(path: &Path) -> Result<Result<Lock, Holder>> {
    let failed = || format!("cannot lock {}", path.display());
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).with_context(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            // Whoever waits meanwhile may read half a line; the next look tells it whole.
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).with_context(failed)?;
            file.write_all(own_name().as_bytes()).with_context(failed)?;
            Ok(Ok(Lock { _file: file }))
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut name = String::new();
            file.read_to_string(&mut name).with_context(failed)?;
            Ok(Err(Holder(name)))
        }
        Err((_, error)) => Err(error).with_context(failed),
    }
}

/// `process 1234 (cargo xtask vm 6.1)`.
fn own_name() -> String {
    let arguments: Vec<String> = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    format!("process {} (cargo xtask {})", process::id(), arguments.join(" "))
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It has the lock and hasn't written its name yet.
        f.write_str(if self.0.is_empty() { "another run" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_second_run_fails_at_its_limit_and_names_who_has_the_directory() {
        let directory = Scratch::new("limit");
        let held = take(&directory.0).expect("nobody has it");
        let error = take_within(&directory.0, Duration::from_millis(300)).expect_err("it is taken").to_string();
        assert!(error.contains(&format!("process {} (cargo xtask ", process::id())), "{error}");
        assert!(error.contains(&directory.0.display().to_string()), "{error}");
        drop(held);
        take_within(&directory.0, Duration::ZERO).expect("it was given back");
    }

    #[test]
    fn a_second_run_waits_for_the_first() {
        let directory = Scratch::new("wait");
        let held = take(&directory.0).expect("nobody has it");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _second = take(&directory.0).expect("it is given back");
                Instant::now()
            });
            thread::sleep(Duration::from_millis(500));
            let given_back = Instant::now();
            drop(held);
            assert!(waiting.join().expect("it doesn't panic") >= given_back, "both had it at once");
        });
    }

    #[test]
    fn what_a_dead_run_left_is_no_hindrance() {
        let directory = Scratch::new("stale");
        fs::write(directory.0.join(NAME), "process 1 (cargo xtask vm with a name that is longer than the next one's)")
            .expect("made");
        let _held = take_within(&directory.0, Duration::ZERO).expect("nobody holds it");
        assert_eq!(fs::read_to_string(directory.0.join(NAME)).expect("there"), own_name());
    }

    /// A directory that is removed when this is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("splitter-xtask-{}-lock-{name}", process::id()));
            fs::create_dir_all(&path).expect("the temporary directory can be written to");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("made above");
        }
    }
}
