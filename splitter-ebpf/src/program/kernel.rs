//! The frame as the kernel gives it. All packet-pointer `unsafe` is here, and every kernel helper that touches a frame.

use core::{arch::asm, ffi::c_void, hint};

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use splitter_ebpf::{
    frame::{Frame, OFFSET},
    rewrite::OutOfFrame,
};

/// A frame between the kernel's two pointers.
pub struct Kernel<const FRAGS: bool> {
    context: *mut xdp_md,
    start: usize,
    end: usize,
    /// Any number that the verifier can't know.
    unknown: u64,
}

/// How a frame came.
#[derive(Clone, Copy)]
pub struct Arrival(*mut xdp_md);

impl Arrival {
    /// By which interface.
    #[inline(always)]
    pub fn interface(self) -> u32 {
        // SAFETY: this is the pointer that the kernel called the program with; it is valid for the whole run.
        unsafe { (*self.0).ingress_ifindex }
    }
}

impl<const FRAGS: bool> Kernel<FRAGS> {
    /// The frame of a program's context.
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        let mut frame = Self { context, start: 0, end: 0, unknown: 0 };
        frame.reload();
        frame.unknown = u64::from(frame.interface());
        frame
    }

    /// The program's context, for a subprogram that begins anew.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.context
    }

    /// The interface that it came by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        self.arrival().interface()
    }

    /// How it came, to be asked while its octets are lent out.
    #[inline(always)]
    pub fn arrival(&self) -> Arrival {
        Arrival(self.context)
    }

    /// Grows the frame at its front. What was read before is void.
    #[inline(always)]
    pub fn grow(&mut self, octets: usize) -> Result<(), OutOfFrame> {
        // SAFETY: a helper call on the program's own context; both pointers are loaded anew before the next access.
        let result = unsafe { bpf_xdp_adjust_head(self.context, -(octets as i32)) };
        self.reload();
        if result == 0 { Ok(()) } else { Err(OutOfFrame) }
    }

    /// Cuts the frame to this length; one that is shorter already is left alone.
    #[inline(always)]
    pub fn cut(&mut self, length: usize) -> Result<(), OutOfFrame> {
        let surplus = self.length() - length as i64;
        if surplus <= 0 {
            return Ok(());
        }
        // SAFETY: a helper call on the program's own context; both pointers are loaded anew before the next access.
        let result = unsafe { bpf_xdp_adjust_tail(self.context, -(surplus as i32)) };
        self.reload();
        if result == 0 { Ok(()) } else { Err(OutOfFrame) }
    }

    /// Octets in the first piece.
    #[inline(always)]
    pub fn linear(&self) -> usize {
        self.end - self.start
    }

    /// Octets of the whole frame.
    #[inline(always)]
    fn length(&self) -> i64 {
        if FRAGS {
            // SAFETY: a helper call on the program's own context, which it only reads.
            unsafe { bpf_xdp_get_buff_len(self.context) as i64 }
        } else {
            self.end as i64 - self.start as i64
        }
    }

    /// The frame's first `N` octets, if they lie in its first piece. As `get_mut(0)`, but that nothing is added to the frame's start, so that no other register has to
    /// hold it.
    #[inline(always)]
    pub fn front<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        // SAFETY: the kernel gives no frame at address 0. (Said, or else whoever makes a reference of it asks.)
        unsafe { hint::assert_unchecked(self.start != 0) };
        // SAFETY: `start + N <= end` is checked, and the rest is as in `get_mut`.
        if self.start + N > self.end { None } else { Some(unsafe { &mut *(self.start as *mut [u8; N]) }) }
    }

    #[inline(always)]
    fn reload(&mut self) {
        // SAFETY: `context` is the pointer that the kernel called the program with; it is valid for the whole run.
        unsafe {
            self.start = (*self.context).data as usize;
            self.end = (*self.context).data_end as usize;
        }
    }

    /// The address of `N` octets at `offset`, if they lie inside the frame.
    #[inline(always)]
    fn address<const N: usize>(&self, offset: usize) -> Option<usize> {
        if offset > OFFSET as usize {
            return None;
        }
        let mut address = self.start + offset;
        // SAFETY: a register moved onto itself (not nothing: BTF's line information can't have two lines for one instruction). It keeps LLVM from computing the address a second time for the access: the verifier knows only of the
        // register that was compared with the end that it points into the frame.
        unsafe { asm!("{address} = {address}", address = inout(reg) address, options(pure, nomem, nostack)) };
        // SAFETY: the kernel gives no frame at address 0, and what was added is small. (Said, or else whoever makes a reference of it asks.)
        unsafe { hint::assert_unchecked(address != 0) };
        if address + N > self.end { None } else { Some(address) }
    }
}

impl<const FRAGS: bool> EbpfContext for Kernel<FRAGS> {
    fn as_ptr(&self) -> *mut c_void {
        self.context.cast()
    }
}

impl<const FRAGS: bool> Frame for Kernel<FRAGS> {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let address = self.address::<N>(offset)?;
        // SAFETY: `start <= address` and `address + N <= end` were just checked, and the frame between them is the program's until it returns or
        // moves it; `grow` and `cut`, which move it, take `&mut self`, so no reference outlives them. An octet array has no alignment.
        Some(unsafe { &*(address as *const [u8; N]) })
    }

    #[inline(always)]
    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let address = self.address::<N>(offset)?;
        // SAFETY: as in `get`; `&mut self` makes this the only reference.
        Some(unsafe { &mut *(address as *mut [u8; N]) })
    }

    #[inline(always)]
    fn holds(&self, octets: usize) -> bool {
        // The first piece answers for nearly every frame; the helper is asked only where that one is too short.
        self.end as i64 - self.start as i64 >= octets as i64 || FRAGS && self.length() >= octets as i64
    }

    #[inline(always)]
    fn forget(&self, value: u32, mask: u32) -> u32 {
        forget(value, mask, self.unknown)
    }
}

/// The same value, of which the verifier knows no more than that it has no bits outside of `mask`. `unknown` is any number that it can't know.
///
/// The verifier follows every path with the values that it knows: three places of the network header and sixteen places of a known connection
/// would be 48 walks through everything behind. Two exclusive ors with a value that it can't know make them one.
#[inline(always)]
pub fn forget(value: u32, mask: u32, unknown: u64) -> u32 {
    let mut word = u64::from(value);
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{word} ^= {unknown}",
            "{word} ^= {unknown}",
            word = inout(reg) word,
            unknown = in(reg) unknown,
            options(pure, nomem, nostack)
        );
    }
    word as u32 & mask
}

/// The same value, when everything that was written is in memory, not in registers.
#[inline(always)]
pub fn in_memory(value: u64) -> u64 {
    let mut word = value;
    // SAFETY: a register moved onto itself; that it might touch memory is all that the compiler is told.
    unsafe { asm!("{word} = {word}", word = inout(reg) word, options(nostack)) };
    word
}

/// Hands the frame to another interface, and says by which action: `XDP_REDIRECT`, for it refuses nothing but flags that it doesn't know.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: a helper call that takes two integers.
    unsafe { bpf_redirect(interface, 0) as u32 }
}
