//! The XDP program that ships, run frame by frame, without a wire: `BPF_PROG_TEST_RUN`.
//!
//! A [`Rig`] opens a data plane as the agent does, in a namespace of its own, gives it an oracle's
//! [`World`], and tells of each frame what the program made of it and which counters moved.

mod convert;
mod counters;
pub(crate) mod memory;
mod plane;
pub mod play;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun, TestRunOptions};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use splitter_user::{
    config::{Nat, PortRange, Tables},
    dataplane::{Dataplane, WantedService, kernel::KernelDataplane},
    model::{Breaker, Existing, Mode, Protocol, Weight},
};

use crate::oracle::{Action, Performed, World, sample};

use self::counters::Counters;
pub use self::{
    convert::{key, wanted},
    plane::SHARES,
};

/// Maps that [`Rig::empty`] leaves alone: what is fixed for a data plane's life, and what the agent writes itself for each service that it adds.
const KEPT: [&str; 7] = ["IDENTITY", "SETTINGS", "DESTINATIONS", "SERVICES", "BACKENDS", "MAGLEV", "NATS"];

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
    /// Services have breakers that no traffic trips, and a lease is held.
    guarded: bool,
}

/// Opens a data plane for this world, in a namespace of its own that has the interfaces of [`sample`]'s worlds, and runs `body` with it, on a thread of its
/// own that stays on one CPU (so that a run can be repeated). Where [`SHARES`] is set, the data plane may be one that an earlier call has left, emptied.
///
/// # Errors
/// The namespace or the data plane can't be made: needs root, and a build by `cargo xtask build`.
///
/// # Panics
/// With `body`'s own panic.
pub fn with<T: Send>(world: &World, tables: Tables, body: impl FnOnce(&mut Rig) -> Result<T> + Send) -> Result<T> {
    let mut plane = plane::take(tables, nat(world))?;
    let rig = &mut plane.rig;
    let outcome = plane.solo.enter(|| {
        stay_on_one_cpu()?;
        rig.apply(world)?;
        body(rig)
    })?;
    if outcome.is_ok() {
        plane::leave(plane);
    }
    outcome
}

impl Rig {
    /// On a data plane that was just opened.
    fn new(dataplane: KernelDataplane, pins: &Path) -> Result<Self> {
        let maps = pins.join("maps");
        let counters = Counters::open(&maps)?;
        let multi_buffer = dataplane.info().multi_buffer;
        let mut rig =
            Self { dataplane, counters, multi_buffer, takes_context: true, maps, out: vec![0; LONGEST], guarded: false };
        rig.takes_context = rig.find_out()?;
        Ok(rig)
    }

    /// Makes it what it was when it was new: without services, connections, or anything counted.
    ///
    /// # Errors
    /// The data plane's, or a map's.
    pub fn empty(&mut self) -> Result<()> {
        self.dataplane.apply(&[])?;
        memory::clear_all_but(&KEPT, &self.maps)?;
        self.counters = Counters::open(&self.maps)?;
        self.multi_buffer = self.dataplane.info().multi_buffer;
        self.guarded = false;
        self.dataplane.renew(None);
        Ok(())
    }

    /// Gives every service that can have one a breaker from now on, which counts but which no traffic trips, and the data plane a lease: as a node has it that
    /// is looked after, for whoever measures what that costs.
    pub fn guard(&mut self) {
        self.guarded = true;
        self.dataplane.renew(Some(Duration::from_secs(3_600)));
    }

    /// Changes what the data plane is to do.
    ///
    /// # Errors
    /// The data plane's.
    pub fn apply(&mut self, world: &World) -> Result<()> {
        let mut wanted = wanted(world);
        if self.guarded {
            wanted.iter_mut().for_each(|service| service.breaker = untripped(service));
        }
        self.dataplane.apply(&wanted).map(drop)?;
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

/// A breaker that nothing trips: no share is above the whole. UDP in `dsr` has none.
fn untripped(service: &WantedService) -> Option<Breaker> {
    if service.key.protocol == Protocol::Udp && service.mode == Mode::Dsr {
        return None;
    }
    Some(Breaker {
        refused: Some(Weight::ALL),
        timeout: None,
        reset: None,
        retransmit: None,
        min_attempts: 50,
        window: Duration::from_secs(10),
        stable_factor: None,
        existing: Existing::Keep,
    })
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

/// Pins the calling thread, each to the CPU behind the last one's.
fn stay_on_one_cpu() -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(NEXT.fetch_add(1, Ordering::Relaxed) % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::{memory::Memory, play::Play, *};
    use crate::{
        oracle::Reason,
        packet::{ACK, SYN},
    };

    #[test]
    fn an_emptied_data_plane_remembers_nothing() -> Result<()> {
        let mut world = sample::world();
        // Untagged frames go to any backend.
        let ways = world.services.iter_mut().flat_map(|service| &mut service.backends).filter_map(|backend| backend.way.as_mut());
        ways.for_each(|way| way.vlan = None);
        with(&world.clone(), AMPLE, |rig| {
            let of_program = ["AFFINITY", "NAT_AFFINITY", "SLOTS", "FRAGMENTS", "CURSORS", "REASON_COUNTERS", "SERVICE_COUNTERS"];
            let written = |rig: &Rig| -> Result<Vec<&str>> {
                let mut written = Vec::new();
                for name in of_program {
                    if Memory::pinned(&rig.maps().join(name))?.words().any(|word| word != 0) {
                        written.push(name);
                    }
                }
                Ok(written)
            };
            let play = Play::new(rig, world.clone());
            let (client, dsr) = (play.client(0, 7), play.client(2, 7));
            let syns = [play.packet(0, client, SYN).build(), play.packet(2, dsr, SYN).build()];
            let fragment = play.packet(6, dsr, 0).payload(vec![0; 64]).fragment(1, 0..24).build();
            let ack = play.packet(0, client, ACK).build();
            for frame in [&syns[0], &syns[1], &fragment, &ack] {
                let seen = rig.run(frame, sample::FRONT)?;
                ensure!(matches!(seen.action, Action::Tx | Action::Redirect) && seen.counted.is_empty(), "{seen:?}");
            }
            let mut broken = ack.to_vec();
            broken.truncate(30);
            ensure!(rig.run(&broken, sample::FRONT)?.counted == [Reason::TruncatedIpv4]);
            rig.set_multi_buffer(false);
            let before = written(rig)?;
            ensure!(before.len() + 1 >= of_program.len(), "what is to be emptied was used: {before:?}");

            rig.empty()?;
            let after = written(rig)?;
            ensure!(after.is_empty(), "{after:?} are not empty");
            ensure!(rig.dataplane().sample().services.is_empty(), "a service is left");
            ensure!(rig.multi_buffer == rig.dataplane.info().multi_buffer);
            rig.apply(&world)?;
            ensure!(rig.run(&ack, sample::FRONT)?.counted == [Reason::UnknownConnection], "its connection was forgotten");
            Ok(())
        })
    }
}
