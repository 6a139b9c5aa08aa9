//! The XDP program that ships, run frame by frame, without a wire: `BPF_PROG_TEST_RUN`.
//!
//! A [`Rig`] opens a data plane as the agent does, in a namespace of its own, gives it an oracle's
//! [`World`], and tells of each frame what the program made of it and which counters moved.

mod convert;
mod counters;
pub mod play;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun, TestRunOptions};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use splitter_user::{
    config::{Nat, PortRange, Tables, XdpMode},
    dataplane::{
        Dataplane,
        kernel::{self, KernelDataplane, Options},
    },
};

use crate::{
    lab::Solo,
    oracle::{Action, Performed, World, sample},
};

pub use self::convert::{key, wanted};
use self::counters::Counters;

/// Where the kernel's BPF file system is.
const BPF_FS: &str = "/sys/fs/bpf";

/// The loopback interface's index, in any namespace.
const LOOPBACK: u32 = 1;

/// The longest frame that fits, a jumbo frame with room to spare.
const LONGEST: usize = 16 * 1024;

/// The kernel runs no program on less: an Ethernet header.
pub const SHORTEST: usize = 14;

/// Tables with room for everything that a test may do.
pub const AMPLE: Tables = Tables { services: 32, backends: 256, connections: 1 << 20, networks: 1_024 };

/// A data plane to be run frame by frame.
pub struct Rig {
    dataplane: KernelDataplane,
    counters: Counters,
    multi_buffer: bool,
    /// Whether the kernel lets a test run say where a frame came in (Linux 5.14).
    takes_context: bool,
    maps: PathBuf,
    out: Vec<u8>,
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

/// Opens a data plane for this world, in a namespace of its own that has the interfaces of [`sample`]'s worlds, and runs `body` with it, on a thread of its
/// own that stays on one CPU (so that a run can be repeated).
///
/// # Errors
/// The namespace or the data plane can't be made: needs root, and a build by `cargo xtask build`.
///
/// # Panics
/// With `body`'s own panic.
pub fn with<T: Send>(world: &World, tables: Tables, body: impl FnOnce(&mut Rig) -> Result<T> + Send) -> Result<T> {
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
    let options = Options {
        interfaces: interfaces.map(name).to_vec(),
        mode: XdpMode::Native,
        pin_directory: pins.0.clone(),
        tables,
        nat: nat(world),
    };
    solo.enter(|| {
        stay_on_one_cpu()?;
        let (dataplane, warnings) = kernel::open(&options)?;
        if !warnings.is_empty() {
            bail!("opened with warnings: {warnings:?}");
        }
        let maps = pins.0.join("maps");
        let counters = Counters::open(&maps)?;
        let multi_buffer = dataplane.info().multi_buffer;
        let mut rig = Rig { dataplane, counters, multi_buffer, takes_context: true, maps, out: vec![0; LONGEST] };
        rig.takes_context = rig.find_out()?;
        rig.apply(world)?;
        body(&mut rig)
    })?
}

impl Rig {
    /// Changes what the data plane is to do.
    ///
    /// # Errors
    /// The data plane's.
    pub fn apply(&mut self, world: &World) -> Result<()> {
        self.dataplane.apply(&wanted(world)).map(drop)?;
        Ok(())
    }

    /// The data plane, for what a world can't say.
    pub const fn dataplane(&mut self) -> &mut KernelDataplane {
        &mut self.dataplane
    }

    /// Chooses between the program that takes jumbo frames (as at the start) and the one that doesn't. On a kernel before 5.18 there is only that one.
    pub fn set_multi_buffer(&mut self, multi_buffer: bool) {
        self.multi_buffer = multi_buffer && self.dataplane.info().multi_buffer;
    }

    /// Where a frame that is said to come in by this interface is seen to come in: there, or on a kernel before 5.14 always by the loopback interface. What
    /// judges a run has to know.
    #[must_use]
    pub const fn ingress(&self, wanted: u32) -> u32 {
        if self.takes_context { wanted } else { LOOPBACK }
    }

    /// Whether the kernel takes a context for a test run.
    fn find_out(&mut self) -> Result<bool> {
        let outcome = self.run(&[0; 64], sample::FRONT);
        // Whatever was counted.
        let moved = self.counters.moved();
        match outcome {
            Ok(_) => moved.map(|_| true),
            Err(error) if is_invalid(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn maps(&self) -> &Path {
        &self.maps
    }

    /// Runs a frame through the program. Whereto a redirect leads isn't known: no frame leaves.
    ///
    /// # Errors
    /// The kernel doesn't run it, as when it is shorter than [`SHORTEST`]; or the program moved a counter by more than one.
    pub fn run(&mut self, frame: &[u8], ingress: u32) -> Result<Performed> {
        self.run_as(frame, ingress, 0, frame.len())
    }

    /// Runs a frame of which the first `metadata` octets are a driver's, taken from the room that it could grow into, and of which so many `linear` octets
    /// (those of the metadata included) lie in the first buffer.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_as(&mut self, frame: &[u8], ingress: u32, metadata: u32, linear: usize) -> Result<Performed> {
        let length = frame.len();
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [metadata, u32::try_from(linear)?, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
        let program = self.dataplane.program(self.multi_buffer)?;
        if !self.takes_context && (metadata, linear) != (0, length) {
            bail!("a frame with metadata or in several buffers needs Linux 5.14");
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut self.out),
            ctx_in: self.takes_context.then_some(context.as_slice()),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).with_context(|| format!("running {length} octets"))?;
        let action = match result.return_value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => bail!("the program returned {other}, which is no action"),
        };
        let counted = self.counters.moved()?;
        let frame = self.out[..usize::try_from(result.data_size_out)?].to_vec();
        Ok(Performed { action, frame, redirect: None, counted })
    }
}

fn nat(world: &World) -> Nat {
    let ports = world.nat_ports.clone().unwrap_or(20_000..=59_999);
    Nat { addresses: world.nat_addresses.clone(), ports: PortRange { low: *ports.start(), high: *ports.end() } }
}

/// Whether the kernel refused an argument.
fn is_invalid(error: &anyhow::Error) -> bool {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error());
    code == Some(Errno::EINVAL as i32)
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

/// Pins the calling thread, each to the CPU behind the last one's.
fn stay_on_one_cpu() -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(NEXT.fetch_add(1, Ordering::Relaxed) % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}
