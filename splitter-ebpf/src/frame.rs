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
}

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
pub(crate) fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// A 16-bit field as loaded.
#[inline(always)]
#[must_use]
pub(crate) fn raw16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}
