//! Who owns a namespace, told by its name alone: `spl<pid>t<start time>n<number>-<label>`.
//!
//! A name is the only thing that outlives a killed test process, so everything that is needed to decide whether
//! a namespace is an orphan stands in it. The start time (in clock ticks since boot, field 22 of
//! `/proc/<pid>/stat`) tells a process from a later one that was given the same id.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::error::{LabError, Result};

/// Where iproute2 keeps the names of network namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// One lab of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    start_ticks: u64,
    lab: u32,
}

impl Owner {
    /// A new lab of this process, with a number that no other has.
    pub(crate) fn next() -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        static START: OnceLock<u64> = OnceLock::new();
        let pid = std::process::id();
        let start_ticks = match START.get() {
            Some(ticks) => *ticks,
            None => {
                let ticks = start_ticks(pid).ok_or_else(|| LabError::Unexpected {
                    what: format!("/proc/{pid}/stat"),
                    why: "this process has no readable start time; is /proc mounted?".into(),
                })?;
                *START.get_or_init(|| ticks)
            }
        };
        Ok(Self { pid, start_ticks, lab: LABS.fetch_add(1, Ordering::Relaxed) })
    }

    /// The full name of this lab's namespace of the given label.
    pub(crate) fn namespace(&self, label: &str) -> String {
        format!("{self}-{label}")
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (owner, _label) = name.strip_prefix("spl")?.split_once('-')?;
        let (pid, rest) = owner.split_once('t')?;
        let (start_ticks, lab) = rest.split_once('n')?;
        Some(Self { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()?, lab: lab.parse().ok()? })
    }

    pub(super) fn lives(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spl{}t{}n{}", self.pid, self.start_ticks, self.lab)
    }
}

/// Whether the name tells of an owner, and that one is gone.
pub(crate) fn is_orphan(name: &str) -> bool {
    Owner::parse(name).is_some_and(|owner| !owner.lives())
}

/// Deletes every namespace whose owner is gone, with the processes left in it; returns their names.
pub(crate) fn reap() -> Result<Vec<String>> {
    let mut reaped = Vec::new();
    for name in names()? {
        if is_orphan(&name) {
            remove(&name)?;
            reaped.push(name);
        }
    }
    Ok(reaped)
}

/// Ends what runs in a namespace and takes its name away. A namespace that is gone already is no error: two
/// processes may reap at the same time.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = Path::new(NAMESPACES).join(name);
    kill_inside(&path)?;
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: not a mount point, as after a crash between creating the file and mounting over it.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(LabError::io(format!("unmount {}", path.display()))(error)),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::io(format!("remove {}", path.display()))(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of all network namespaces, ours or not.
fn names() -> Result<Vec<String>> {
    let entries = match fs::read_dir(NAMESPACES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::io(format!("read {NAMESPACES}"))(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LabError::io(format!("read {NAMESPACES}")))?;
        // A name that is not UTF-8 is not one of ours.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Kills every process whose main thread is in the namespace, but never this one.
fn kill_inside(namespace: &Path) -> Result<()> {
    let Ok(target) = fs::metadata(namespace) else { return Ok(()) };
    let own = std::process::id();
    for pid in processes()? {
        // A process may end while we look; then it has no namespace any more.
        let inside =
            fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|net| (net.dev(), net.ino()) == (target.dev(), target.ino()));
        if inside && pid != own {
            match kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(LabError::io(format!("kill process {pid}"))(error)),
            }
        }
    }
    Ok(())
}

fn processes() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").map_err(LabError::io("read /proc"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// A process's start time in clock ticks since boot; `None` when there is no such process or it is a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
    parse_start_ticks(&stat)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The second field is the command's name in brackets and may hold spaces and brackets itself: what follows
    // the last bracket is field 3 (state), and the start time is field 22 (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        let owner = Owner { pid: 4021, start_ticks: 99_877, lab: 3 };
        assert_eq!(owner.namespace("backend-1"), "spl4021t99877n3-backend-1");
        assert_eq!(Owner::parse("spl4021t99877n3-backend-1"), Some(owner));
    }

    #[test]
    fn a_foreign_name_has_no_owner() {
        for name in ["", "spl", "spl12-client", "splt1n1-a", "split", "spl1t2n3", "cni-1234", "spl1t2nx-a"] {
            assert_eq!(Owner::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_command_with_brackets_in_its_name_has_its_start_time_read_right() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_start_ticks(stat), Some(4711));
    }

    #[test]
    fn a_zombie_owns_nothing() {
        let stat = "17 (sh) Z 1 17 17 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_start_ticks(stat), None);
    }

    #[test]
    fn a_process_that_was_given_an_old_id_is_not_the_owner() {
        let owner = Owner::next().expect("this process has a start time");
        assert!(owner.lives());
        assert!(!Owner { start_ticks: owner.start_ticks - 1, ..owner }.lives());
    }
}
