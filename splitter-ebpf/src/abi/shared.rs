//! A word that kernel and agent share.

/// 64 bits that others read and write at the same time. Always whole: nobody sees half of one.
///
/// On the host this is an `AtomicU64`. For the kernel it's a volatile access: LLVM knows no atomic loads for the BPF instruction set before its
/// fourth version, and the JIT makes one aligned 64-bit instruction of a volatile one.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct SharedWord(Inner);

#[cfg(target_arch = "bpf")]
use bpf::{Half, Inner};
#[cfg(not(target_arch = "bpf"))]
use host::{Half, Inner};

impl SharedWord {
    /// A word of this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(Inner::new(value))
    }

    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> u64 {
        self.0.load()
    }

    /// Writes it. On the host whoever reads the new value also sees what was written before it; the program gives no such promise, and nobody
    /// needs one of it.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        self.0.store(value);
    }

    /// Writes it if it still is `old`; says whether it was.
    #[cfg(not(target_arch = "bpf"))]
    #[must_use]
    pub fn replace(&self, old: u64, new: u64) -> bool {
        self.0.replace(old, new)
    }

    /// Writes it if it still is `old`; says whether it was. Without `EXACT` it is written in any case: kernels before 5.12 have no compare and swap.
    #[inline(always)]
    #[must_use]
    pub fn exchange<const EXACT: bool>(&self, old: u64, new: u64) -> bool {
        if EXACT {
            self.0.replace(old, new)
        } else {
            self.0.store(new);
            true
        }
    }

    /// Adds to it, whoever else does.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        self.0.add(value);
    }
}

/// 32 bits that every CPU adds to.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct SharedCount(Half);

impl SharedCount {
    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> u32 {
        self.0.load()
    }

    /// Writes it.
    #[inline(always)]
    pub fn store(&self, value: u32) {
        self.0.store(value);
    }

    /// Adds to it, whoever else does.
    #[inline(always)]
    pub fn add(&self, value: u32) {
        self.0.add(value);
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    };

    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub(super) struct Inner(AtomicU64);

    impl Inner {
        pub(super) const fn new(value: u64) -> Self {
            Self(AtomicU64::new(value))
        }

        pub(super) fn load(&self) -> u64 {
            self.0.load(Acquire)
        }

        pub(super) fn store(&self, value: u64) {
            self.0.store(value, Release);
        }

        pub(super) fn replace(&self, old: u64, new: u64) -> bool {
            self.0.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
        }

        pub(super) fn add(&self, value: u64) {
            self.0.fetch_add(value, AcqRel);
        }
    }

    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub(super) struct Half(AtomicU32);

    impl Half {
        pub(super) fn load(&self) -> u32 {
            self.0.load(Acquire)
        }

        pub(super) fn store(&self, value: u32) {
            self.0.store(value, Release);
        }

        pub(super) fn add(&self, value: u32) {
            self.0.fetch_add(value, AcqRel);
        }
    }
}

#[cfg(target_arch = "bpf")]
#[allow(unsafe_code)]
mod bpf {
    use core::{arch::asm, cell::UnsafeCell, ptr};

    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub(super) struct Inner(UnsafeCell<u64>);

    // SAFETY: every access is one aligned 64-bit instruction, which the CPUs that BPF is compiled for carry out whole.
    unsafe impl Sync for Inner {}

    impl Inner {
        pub(super) const fn new(value: u64) -> Self {
            Self(UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(super) fn load(&self) -> u64 {
            // SAFETY: the pointer comes from a reference, so it's valid and aligned.
            unsafe { ptr::read_volatile(self.0.get()) }
        }

        #[inline(always)]
        pub(super) fn store(&self, value: u64) {
            // SAFETY: as in `load`; an `UnsafeCell` may be written through a shared reference.
            unsafe { ptr::write_volatile(self.0.get(), value) };
        }

        #[inline(always)]
        pub(super) fn replace(&self, old: u64, new: u64) -> bool {
            let seen: u64;
            // SAFETY: as in `store`; the instruction compares and writes one aligned 64-bit word.
            unsafe {
                asm!(
                    "r0 = cmpxchg_64({place} + 0, r0, {new})",
                    place = in(reg) self.0.get(),
                    new = in(reg) new,
                    inout("r0") old => seen,
                    options(nostack)
                );
            }
            seen == old
        }

        #[inline(always)]
        pub(super) fn add(&self, value: u64) {
            // SAFETY: as in `store`; the instruction adds to one aligned 64-bit word.
            unsafe {
                asm!("lock *(u64 *)({place} + 0) += {value}", place = in(reg) self.0.get(), value = in(reg) value, options(nostack));
            }
        }
    }

    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub(super) struct Half(UnsafeCell<u32>);

    // SAFETY: as of `Inner`, with 32 bits.
    unsafe impl Sync for Half {}

    impl Half {
        #[inline(always)]
        pub(super) fn load(&self) -> u32 {
            // SAFETY: the pointer comes from a reference, so it's valid and aligned.
            unsafe { ptr::read_volatile(self.0.get()) }
        }

        #[inline(always)]
        pub(super) fn store(&self, value: u32) {
            // SAFETY: as in `load`; an `UnsafeCell` may be written through a shared reference.
            unsafe { ptr::write_volatile(self.0.get(), value) };
        }

        #[inline(always)]
        pub(super) fn add(&self, value: u32) {
            let value = u64::from(value);
            // SAFETY: as in `store`; the instruction adds to one aligned 32-bit word.
            unsafe {
                asm!("lock *(u32 *)({place} + 0) += {value}", place = in(reg) self.0.get(), value = in(reg) value, options(nostack));
            }
        }
    }
}
