//! How a frame is read and written: one trait, implemented by the program over the kernel's pointers and here over a slice, so that
//! tests and fuzzers run the kernel's own decoder.

/// A frame, as far as it lies in one piece.
pub trait Frame {
    /// `N` octets from `offset` on; `None` where the frame ends before.
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The same, to be written.
    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// Whether the frame has at least this many octets, those included that don't lie in the first piece.
    fn holds(&self, octets: usize) -> bool;

    /// The same value. `mask` covers every bit that it can have; the kernel's implementation makes the verifier forget the rest that it knows.
    #[must_use]
    fn forget(&self, value: u32, mask: u32) -> u32 {
        debug_assert!(value & !mask == 0);
        value
    }
}

/// Bits of an offset into a frame: headers lie within its first 16 KiB, for two tags, an IPv6 header with six extension headers of 2,048 octets
/// each, a transport header and an ICMP quote are less.
pub const OFFSET: u32 = 0x3fff;

/// A frame in memory.
#[derive(Debug)]
pub struct Octets<'a>(pub &'a mut [u8]);

impl Frame for Octets<'_> {
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.get(offset..)?.first_chunk()
    }

    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.0.get_mut(offset..)?.first_chunk_mut()
    }

    fn holds(&self, octets: usize) -> bool {
        self.0.len() >= octets
    }
}

/// A 16-bit field in network order, as a number.
#[inline(always)]
#[must_use]
pub(crate) fn be16<const AT: usize, const N: usize>(header: &[u8; N]) -> u16 {
    u16::from_be(load16::<AT, N>(header))
}

pub(crate) use fields::again;
pub use fields::{load16, load32, load64, store16, store32, store64};

/// Fields of headers as loaded and stored by the machine, that is, in network order.
#[cfg(not(target_arch = "bpf"))]
mod fields {
    macro_rules! fields {
        ($($integer:ident: $load:ident, $store:ident;)+) => { $(
            #[must_use]
            #[doc = concat!("Reads a `", stringify!($integer), "` at a fixed place of a header.")]
            pub fn $load<const AT: usize, const N: usize>(header: &[u8; N]) -> $integer {
                const { assert!(AT + size_of::<$integer>() <= N) };
                let mut octets = [0; size_of::<$integer>()];
                octets.copy_from_slice(&header[AT..AT + size_of::<$integer>()]);
                $integer::from_ne_bytes(octets)
            }

            #[doc = concat!("Writes a `", stringify!($integer), "` at a fixed place of a header.")]
            pub fn $store<const AT: usize, const N: usize>(header: &mut [u8; N], value: $integer) {
                const { assert!(AT + size_of::<$integer>() <= N) };
                header[AT..AT + size_of::<$integer>()].copy_from_slice(&value.to_ne_bytes());
            }
        )+ };
    }
    fields! { u16: load16, store16; u32: load32, store32; u64: load64, store64; }

    /// The same header.
    #[must_use]
    pub(crate) fn again<const N: usize>(header: &mut [u8; N]) -> &mut [u8; N] {
        header
    }
}

/// The same for the kernel. A header has the alignment of an octet, so LLVM would load a 32-bit field in four pieces; the kernel allows misaligned
/// access to packets on every architecture that Splitter is built for. (Allowing it to LLVM altogether, by a target feature, makes it misalign the stack
/// as well, which the kernel forbids.)
#[cfg(target_arch = "bpf")]
#[allow(unsafe_code, clippy::pointers_in_nomem_asm_block)]
mod fields {
    use core::arch::asm;

    macro_rules! fields {
        ($($integer:ident $c:literal: $load:ident, $store:ident;)+) => { $(
            #[inline(always)]
            #[must_use]
            #[doc = concat!("Reads a `", stringify!($integer), "` at a fixed place of a header.")]
            pub fn $load<const AT: usize, const N: usize>(header: &[u8; N]) -> $integer {
                const { assert!(AT + size_of::<$integer>() <= N) };
                let value: u64;
                // SAFETY: the octets lie inside the array that the reference is of, as just asserted.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $c, " *)({address} + {at})"),
                        value = out(reg) value,
                        address = in(reg) header.as_ptr(),
                        at = const AT,
                        options(pure, readonly, nostack)
                    );
                }
                // SAFETY: the instruction fills the register's upper bits with zeros (RFC 9669, 5.2); LLVM, which can't see that, needn't clear them again.
                unsafe { core::hint::assert_unchecked(value <= $integer::MAX as u64) };
                value as $integer
            }

            #[inline(always)]
            #[doc = concat!("Writes a `", stringify!($integer), "` at a fixed place of a header.")]
            pub fn $store<const AT: usize, const N: usize>(header: &mut [u8; N], value: $integer) {
                const { assert!(AT + size_of::<$integer>() <= N) };
                // SAFETY: the octets lie inside the array that the reference is of, as just asserted, and nobody else has one.
                unsafe {
                    asm!(
                        concat!("*(", $c, " *)({address} + {at}) = {value}"),
                        value = in(reg) value as u64,
                        address = in(reg) header.as_mut_ptr(),
                        at = const AT,
                        options(nostack)
                    );
                }
            }
        )+ };
    }
    fields! { u16 "u16": load16, store16; u32 "u32": load32, store32; u64 "u64": load64, store64; }

    /// The same header, of which LLVM doesn't know that it is: or else it computes addresses in it long before they're needed, and has no register left to keep them in.
    #[inline(always)]
    #[must_use]
    pub(crate) fn again<const N: usize>(header: &mut [u8; N]) -> &mut [u8; N] {
        let mut address = header.as_mut_ptr();
        // SAFETY: a register moved onto itself.
        unsafe { asm!("{address} = {address}", address = inout(reg) address, options(nomem, nostack)) };
        // SAFETY: it's the address of that reference, which nobody uses as long as this one lives.
        unsafe { &mut *address.cast() }
    }
}
