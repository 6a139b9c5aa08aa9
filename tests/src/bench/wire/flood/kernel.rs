//! What the kernel is asked for: a map of one value, and a program run on live frames.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{Array, Map, MapData},
};

use crate::lab::xdp::bpf_command;

// Of linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// So many frames are run between two flushes; as many as a NAPI poll takes.
const BATCH: u32 = 64;

/// An array map with one value.
pub(super) struct Cell<V: Pod> {
    descriptor: OwnedFd,
    map: Array<MapData, V>,
}

impl<V: Pod> Cell<V> {
    /// A new one, all zeroes.
    pub fn new() -> Result<Self> {
        let mut attributes =
            Create { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: u32::try_from(size_of::<V>())?, entries: 1, flags: 0 };
        let fd = bpf_command(BPF_MAP_CREATE, &mut attributes).context("make a map")?;
        // SAFETY: the call returned a fresh descriptor, which nobody else owns.
        let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
        let data = MapData::from_fd(descriptor.try_clone().context("duplicate a descriptor")?)?;
        Ok(Self { descriptor, map: Array::try_from(Map::Array(data))? })
    }

    /// The value.
    pub fn get(&self) -> Result<V> {
        self.map.get(&0, 0).context("read a map")
    }

    /// Sets the value. For when no program runs that writes it.
    pub fn set(&mut self, value: V) -> Result<()> {
        self.map.set(0, value, 0).context("write a map")
    }
}

impl<V: Pod> AsFd for Cell<V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Runs an XDP program so often on frames that start as a copy of this one and live: what the program sends is sent. In the
/// calling thread's namespace and on its CPU. A frame that comes back is used again as it then is.
///
/// How long the runs took, by the kernel's own clock: making and unmaking what the call needs takes tens of milliseconds more.
pub(super) fn run_live(program: &OwnedFd, frame: &[u8], times: u32) -> io::Result<Duration> {
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_in: frame.as_ptr() as u64,
        repeat: times,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: BATCH,
        ..TestRun::default()
    };
    bpf_command(BPF_PROG_TEST_RUN, &mut attributes)?;
    // The kernel gives the mean of a run in nanoseconds, rounded down: on average by a half.
    Ok(Duration::from_nanos((2 * u64::from(attributes.duration_ns) + 1) * u64::from(times) / 2))
}

/// The beginning of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[derive(Default)]
#[repr(C)]
struct TestRun {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}
