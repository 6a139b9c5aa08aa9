//! What the running kernel can do, by trying.
//!
//! Not by its version: distributions bring features to older ones. What becomes of each feature that is missing stands in `docs/kernels.md`.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

// Of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// `r0 = XDP_PASS; exit`: opcode, registers, offset and immediate of each from the low end.
const PASS: [u64; 2] = [0xb7 | 2 << 32, 0x95];

/// Whether XDP programs may take frames of more than one buffer (Linux 5.18).
///
/// # Errors
/// The kernel takes no XDP program from this process at all, so nothing is known.
pub fn multi_buffer() -> io::Result<bool> {
    load(0)?;
    match load(BPF_F_XDP_HAS_FRAGS) {
        Ok(_) => Ok(true),
        // An unknown flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Loads a program that passes everything; it goes with the descriptor.
fn load(flags: u32) -> io::Result<OwnedFd> {
    /// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Attributes {
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
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_XDP,
        length: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
    };
    // SAFETY: the kernel reads so many octets of a live value; what its pointers point to is static. The descriptor is a new one, checked before it is owned.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Attributes>());
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            Ok(_) | Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_kernel_says_what_it_can_do() {
        // The tests run as root on a kernel that has it; the others are tried in `cargo xtask vm`.
        assert!(multi_buffer().expect("root may ask"), "Linux 5.18 and later");
        let error = load(1 << 31).expect_err("no kernel has this flag");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
