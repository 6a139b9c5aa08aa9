//! Where a rig's data plane comes from, and what becomes of it.
//!
//! On a machine of one's own each test has a fresh one, removed behind it. Where [`SHARES`] is set, one that a test has left without an error is emptied and
//! kept for the next test of the process that wants the same tables and NAT addresses: in an emulated machine to load one takes seconds.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use splitter_user::{
    config::{Nat, Tables, XdpMode},
    dataplane::kernel::{self, Options},
};

use super::Rig;
use crate::{lab::Solo, oracle::sample};

/// The environment variable by which a process's tests share their data planes. What is kept at its end stays behind, with its namespace: for machines that
/// are thrown away.
pub const SHARES: &str = "SPLITTER_TESTS_SHARE_DATA_PLANES";

/// Where the kernel's BPF file system is.
const BPF_FS: &str = "/sys/fs/bpf";

/// How many are kept: each has tens of megabytes of maps, and nearly all tests want the same.
const MOST_KEPT: usize = 2;

/// Those that nobody uses at the moment, in the order in which they were left.
static KEPT: Mutex<Vec<Plane>> = Mutex::new(Vec::new());

/// A data plane in its namespace. The fields are dropped in this order: nothing is unpinned that is still in use, and the pins' name lasts as long as they do.
pub(super) struct Plane {
    pub(super) rig: Rig,
    options: Options,
    _pins: Pins,
    pub(super) solo: Solo,
}

/// What is pinned; removed when this is dropped.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = kernel::unpin(&self.0) {
            // A drop cannot fail; the next process's first rig tries again.
            eprintln!("rig: {} stays behind: {error}", self.0.display());
        }
    }
}

/// A data plane without services.
pub(super) fn take(tables: Tables, nat: Nat) -> Result<Plane> {
    let kept = {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |plane: &Plane| plane.options.tables == tables && plane.options.nat == nat;
        let place = kept.iter().position(fits);
        place.map(|place| kept.remove(place))
    };
    match kept {
        Some(mut plane) => {
            plane.rig.empty().context("emptying the data plane of an earlier test")?;
            Ok(plane)
        }
        None => make(tables, nat),
    }
}

/// Keeps it, or removes it.
pub(super) fn leave(plane: Plane) {
    if env::var_os(SHARES).is_none() {
        return;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(plane);
    // The one that was left longest ago is wanted least.
    let too_many = kept.len().saturating_sub(MOST_KEPT);
    let gone: Vec<Plane> = kept.drain(..too_many).collect();
    drop(kept);
    drop(gone);
}

fn make(tables: Tables, nat: Nat) -> Result<Plane> {
    reap().context("removing what earlier rigs left")?;
    let solo = Solo::new("rig")?;
    let interfaces = [sample::FRONT, sample::BACK];
    let name = |index: u32| format!("rig{index}");
    // The kernel's own packets (neighbour discovery) would pass the program between a test's.
    solo.sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
    // Both ends need indices of their own, see the lab.
    solo.ip(&interfaces.map(|index| {
        format!("link add {} index {index} type veth peer name {}peer index {}", name(index), name(index), index + 100)
    }))?;
    for index in interfaces {
        solo.ip(&[format!("link set {} up", name(index))])?;
    }
    let pins = Pins(Path::new(BPF_FS).join(solo.name()));
    let options =
        Options { interfaces: interfaces.map(name).to_vec(), mode: XdpMode::Native, pin_directory: pins.0.clone(), tables, nat };
    let rig = solo.enter(|| {
        let (dataplane, warnings) = kernel::open(&options)?;
        if !warnings.is_empty() {
            bail!("opened with warnings: {warnings:?}");
        }
        Rig::new(dataplane, &options.pin_directory)
    })??;
    Ok(Plane { rig, options, _pins: pins, solo })
}

/// Removes what is pinned for rigs whose process is gone.
fn reap() -> Result<()> {
    for entry in fs::read_dir(BPF_FS)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(Solo::is_orphan) {
            kernel::unpin(&entry.path())?;
        }
    }
    Ok(())
}
