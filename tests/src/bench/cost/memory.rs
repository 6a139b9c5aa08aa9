//! Array maps as octets: what the bench clears, looks through and fills in between measurements.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use memmap2::{MmapMut, MmapOptions};

/// An array map, mapped. Whoever runs a program on it meanwhile is the thread that has this, so nothing changes under a reference.
pub struct Memory {
    octets: MmapMut,
    element: usize,
}

impl Memory {
    /// By its pin.
    pub fn pinned(pin: &Path) -> Result<Self> {
        let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
        Self::of(&map).with_context(|| format!("mapping {}", pin.display()))
    }

    /// An open one.
    pub fn of(map: &MapData) -> Result<Self> {
        let info = map.info()?;
        let element = info.value_size() as usize;
        let length = element * info.max_entries() as usize;
        // SAFETY: the map is this bench's own; the programs that write to it are run by the thread that has this alone, while it waits for them.
        let octets = unsafe { MmapOptions::new().len(length).map_mut(map.fd().as_fd().as_raw_fd())? };
        Ok(Self { octets, element })
    }

    /// All octets.
    pub fn octets(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// The elements, in their order.
    pub fn elements(&self) -> impl Iterator<Item = &[u8]> {
        self.octets.chunks_exact(self.element)
    }

    /// The 64-bit words, in their order.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.octets.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight octets")))
    }
}
