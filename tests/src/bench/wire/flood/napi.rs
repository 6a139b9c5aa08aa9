//! A device whose packets are received on one chosen CPU: threaded NAPI, its thread pinned.
//!
//! Without it a veth's receiver runs where the sender runs, in the sender's soft interrupt.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Mutex, Once},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};

use crate::lab::Namespace;

/// How long the kernel may take to start a thread.
const LIMIT: Duration = Duration::from_secs(2);

/// A device in this state; dropping it puts it back.
#[derive(Debug)]
pub(super) struct Threaded {
    namespace: Namespace,
    device: String,
}

impl Threaded {
    /// Puts a device, whose NAPI is on, into this state.
    ///
    /// # Errors
    /// It can't be, or no thread comes.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn on(namespace: &Namespace, device: &str, cpu: usize) -> Result<Self> {
        // What is new is ours: one at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().expect("nothing in here panics");
        let before = threads(device)?;
        let threaded = Self { namespace: namespace.clone(), device: device.into() };
        threaded.set("1")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            // Named napi/<device>-<id>. Devices of this name in other labs have some, too, but older ones.
            let new: Vec<_> = threads(device)?.difference(&before).copied().collect();
            match new.as_slice() {
                [] if Instant::now() > deadline => bail!("no NAPI thread for {device} of {}", namespace.name()),
                [] => std::thread::sleep(Duration::from_millis(1)),
                threads => {
                    threads.iter().try_for_each(|thread| pin(*thread, cpu))?;
                    return Ok(threaded);
                }
            }
        }
    }

    fn set(&self, value: &str) -> Result<()> {
        let device = &self.device;
        self.namespace
            .enter(|| in_own_sysfs(|sysfs| fs::write(sysfs.join("class/net").join(device).join("threaded"), value)))?
            .with_context(|| format!("switch the threaded NAPI of {device} in {}", self.namespace.name()))
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        if let Err(error) = self.set("0") {
            // A drop cannot fail; the device goes with its lab.
            eprintln!("bench: {error:#}");
        }
    }
}

/// Pins a thread (0: this one) to a CPU and gives it the lowest of the real-time priorities: whatever else the machine does is to wait for the
/// fraction of a second that a flood lasts, for a ring of 256 packets overflows meanwhile.
pub(super) fn pin(thread: i32, cpu: usize) -> Result<()> {
    const LOWEST: libc::c_int = 1;
    static TOLD: Once = Once::new();
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &set).with_context(|| format!("pin thread {thread} to CPU {cpu}"))?;
    let parameters = libc::sched_param { sched_priority: LOWEST };
    // SAFETY: the kernel reads a live value. It takes a thread's id as well as a process's.
    let result = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) };
    if result != 0 {
        // As in a container without CAP_SYS_NICE. The figures are right, they only vary more.
        let error = io::Error::last_os_error();
        TOLD.call_once(|| {
            eprintln!("wire: floods run without real-time priority ({error}): on a busy machine they will be slow")
        });
    }
    Ok(())
}

/// `/sys/class/net` shows the namespace in which sysfs was mounted. So this mounts one, seen by the calling thread alone, which is to end after it.
fn in_own_sysfs<T>(body: impl FnOnce(&Path) -> io::Result<T>) -> Result<T> {
    let directory = tempfile::Builder::new().prefix("splitter-sysfs").tempdir().context("make a directory")?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make the mounts private")?;
    mount(Some("sysfs"), directory.path(), Some("sysfs"), MsFlags::empty(), none).context("mount sysfs")?;
    let done = body(directory.path());
    nix::mount::umount(directory.path()).context("unmount sysfs")?;
    Ok(done?)
}

/// The kernel's NAPI threads of devices of this name.
fn threads(device: &str) -> Result<BTreeSet<i32>> {
    let prefix = format!("napi/{device}-");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that is gone by now isn't one that just came.
        if fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with(&prefix)) {
            found.insert(id);
        }
    }
    Ok(found)
}
