//! XDP programs of a few instructions, to make a lab's links carry what a real program sends.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use splitter_user::dataplane::features;

use super::{
    error::{LabError, Result},
    namespace::Namespace,
};

// Of linux/bpf.h and linux/if_link.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_FUNC_REDIRECT: u64 = 23;
const XDP_PASS: u64 = 2;
const XDP_TX: u64 = 3;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What a tiny program does with every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Gives it to the kernel.
    Pass,
    /// Sends it back by where it came in.
    Tx,
    /// Sends it out of the device with this index, with `bpf_redirect`.
    Redirect(u32),
}

impl Verdict {
    /// The program, one instruction a word: opcode, registers, offset and immediate from the low end.
    fn instructions(self) -> Vec<u64> {
        const fn mov(register: u64, value: u64) -> u64 {
            0xb7 | register << 8 | value << 32
        }
        const EXIT: u64 = 0x95;
        match self {
            Self::Pass => vec![mov(0, XDP_PASS), EXIT],
            Self::Tx => vec![mov(0, XDP_TX), EXIT],
            Self::Redirect(index) => vec![mov(1, index.into()), mov(2, 0), 0x85 | BPF_FUNC_REDIRECT << 32, EXIT],
        }
    }
}

/// A program on a device; it is taken off when this is dropped.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

/// Attaches a tiny program natively; it takes frames in fragments, where the kernel has those (Linux 5.18).
///
/// # Errors
/// When there is no such device, or it has a program already.
pub fn attach(namespace: &Namespace, device: &str, verdict: Verdict) -> Result<Attached> {
    let what = format!("attach an XDP program to {device} in {}", namespace.name());
    let index = namespace.ifindex(device)?;
    let link = namespace.enter(|| load(&verdict.instructions()).and_then(|program| link(&program, index)))?;
    Ok(Attached { _link: link.map_err(LabError::io(what))? })
}

/// Attaches a program of one's own making natively.
///
/// # Errors
/// When there is no such device, or it has a program already.
pub(crate) fn attach_loaded(namespace: &Namespace, device: &str, program: &OwnedFd) -> Result<Attached> {
    let what = format!("attach an XDP program to {device} in {}", namespace.name());
    let index = namespace.ifindex(device)?;
    let link = namespace.enter(|| link(program, index))?;
    Ok(Attached { _link: link.map_err(LabError::io(what))? })
}

/// Loads a program, one instruction a word.
pub(crate) fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let flags = if features::multi_buffer()? { BPF_F_XDP_HAS_FRAGS } else { 0 };
    bpf(
        BPF_PROG_LOAD,
        Load {
            kind: BPF_PROG_TYPE_XDP,
            length: u32::try_from(instructions.len()).expect("a handful"),
            instructions: instructions.as_ptr() as u64,
            licence: c"GPL".as_ptr() as u64,
            flags,
            ..Load::default()
        },
    )
}

fn link(program: &OwnedFd, index: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    bpf(BPF_LINK_CREATE, Link { program, index, kind: BPF_XDP, flags: XDP_FLAGS_DRV_MODE })
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Link {
    program: u32,
    index: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, mut attributes: T) -> io::Result<OwnedFd> {
    let fd = bpf_command(command, &mut attributes)?;
    // SAFETY: both commands that this is called with return a fresh descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command of bpf(2); the attributes are the beginning of its `union bpf_attr`. What the call returns, 0 or a descriptor.
pub(crate) fn bpf_command<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes as many bytes as are given of a live value; the pointers in it are to values that
    // outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
