//! Memory that agent and kernel share: array maps, mapped into the agent. All `unsafe` of this crate's own that touches it is here.

use std::{io, marker::PhantomData, os::fd::AsFd, ptr};

use memmap2::{MmapOptions, MmapRaw};
use splitter_ebpf::abi::{
    Backend, BackendCounters, Breaker, Bucket, Destination, Histogram, Identity, MaglevLine, Nat, ReasonCounters, Service,
    ServiceCounters, Settings, SharedWord, Slot, Table, TraceFilter, Trip, Way, Window,
};

/// A type of which every bit pattern is a value, and which owns nothing: it can be copied in and out of memory that others write.
///
/// # Safety
/// Only integers, arrays of them, and structures of those.
pub unsafe trait Plain {}

macro_rules! plain {
    ($($type:ty),+ $(,)?) => { $(
        // SAFETY: `repr(C)`, made of integers and arrays of integers alone.
        unsafe impl Plain for $type {}
    )+ };
}
plain! {
    u8, u16, u32, u64, Backend, BackendCounters, Breaker, Bucket, Destination, Histogram, Identity, MaglevLine, Nat, ReasonCounters, Service, ServiceCounters, Settings,
    Slot, Table, TraceFilter, Trip, Way, Window
}

/// An array map of `T`, mapped.
#[derive(Debug)]
pub struct Mapped<T> {
    memory: MmapRaw,
    length: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Mapped<T> {
    /// Maps an array map of `length` elements.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(map: impl AsFd, length: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        // The kernel rounds an element up to 8 octets.
        assert!(size_of::<T>().is_multiple_of(8) || length <= 1, "elements would not lie side by side");
        let octets = size_of::<T>() * length;
        let memory = MmapOptions::new().len(octets).map_raw(map.as_fd().as_raw_fd())?;
        Ok(Self { memory, length, element: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// A copy of an element. Words that others write meanwhile are whole each; the element isn't.
    #[must_use]
    pub fn read(&self, index: usize) -> T {
        // SAFETY: `at` checks that the element lies inside the mapping, whose start is page-aligned, so it's aligned too. Every bit pattern is a `T`.
        unsafe { ptr::read_volatile(self.at::<T>(index, 0)) }
    }

    /// Writes an element that nobody reads yet.
    pub fn write(&self, index: usize, value: T) {
        // SAFETY: as in `read`; the memory is mapped for writing.
        unsafe { ptr::write_volatile(self.at::<T>(index, 0), value) }
    }

    /// A copy of a field, by its offset.
    #[must_use]
    pub fn field<F: Plain>(&self, index: usize, offset: usize) -> F {
        // SAFETY: as in `read`.
        unsafe { ptr::read_volatile(self.at::<F>(index, offset)) }
    }

    /// Writes a field, by its offset, that nobody reads at this moment or that is one word.
    pub fn set_field<F: Plain>(&self, index: usize, offset: usize, value: F) {
        // SAFETY: as in `write`.
        unsafe { ptr::write_volatile(self.at::<F>(index, offset), value) }
    }

    /// A word that both sides read and write, by its offset.
    #[must_use]
    pub fn word(&self, index: usize, offset: usize) -> &SharedWord {
        // SAFETY: `at` checks bounds and alignment; a `SharedWord` is an atomic, made for memory that others write; the mapping lives as long as `self`.
        unsafe { &*self.at::<SharedWord>(index, offset) }
    }

    fn at<F>(&self, index: usize, offset: usize) -> *mut F {
        assert!(index < self.length, "element {index} of {}", self.length);
        assert!(offset + size_of::<F>() <= size_of::<T>() && offset.is_multiple_of(align_of::<F>()), "field at {offset}");
        self.memory.as_mut_ptr().wrapping_add(index * size_of::<T>() + offset).cast()
    }
}

impl Mapped<Bucket> {
    /// A bucket: words alone, so it can be looked at where it is.
    #[must_use]
    pub fn bucket(&self, index: usize) -> &Bucket {
        // SAFETY: as in `word`; a bucket is eight of them.
        unsafe { &*self.at::<Bucket>(index, 0) }
    }
}
