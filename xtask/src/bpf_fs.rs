//! The BPF file system on which an agent pins: a machine without systemd may not have mounted it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use crate::report;

const PLACE: &str = "/sys/fs/bpf";

/// Mounts it where it's missing. Who isn't root is told by what needs it.
pub fn ensure() -> Result<()> {
    let place = Path::new(PLACE);
    if !geteuid().is_root() || is_there(place) {
        return Ok(());
    }
    report::step("bpf file system", &format!("mounting it on {PLACE}"), || mount_on(place).map(|()| ((), "mounted".to_owned())))
}

fn is_there(place: &Path) -> bool {
    statfs(place).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_on(place: &Path) -> Result<()> {
    let what = || format!("cannot mount a BPF file system on {}; by hand: `mount -t bpf bpf {0}`", place.display());
    fs::create_dir_all(place).with_context(what)?;
    mount(Some("bpf"), place, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, Some("mode=711"))
        .with_context(what)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn one_that_is_missing_is_mounted_and_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("bpf");
        // In a mount namespace of its own, which goes with the thread.
        let mounted = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).expect("root may");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).expect("private");
            let before = is_there(&place);
            mount_on(&place).expect("mounted");
            (before, is_there(&place))
        });
        assert_eq!(mounted.join().expect("no panic"), (false, true));
    }

    #[test]
    fn another_file_system_is_not_taken_for_one() {
        assert!(!is_there(Path::new("/proc")) && !is_there(Path::new("/nowhere")));
    }
}
