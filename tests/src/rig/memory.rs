//! Array maps as octets: what is cleared between tests, and what the bench looks through and fills in between measurements.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::maps::{MapData, MapType};
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
        // SAFETY: the map is this process's own; the programs that write to it are run by the thread that has this alone, while it waits for them.
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

/// Fills the array maps that are pinned in a directory with zeroes, as the kernel makes them. Others than plain arrays are left alone.
pub(super) fn clear_all_but(kept: &[&str], directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let pin = entry?.path();
        if pin.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains(&name)) {
            continue;
        }
        let map = MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?;
        if map.info()?.map_type()? == MapType::Array {
            Memory::of(&map).with_context(|| format!("mapping {}", pin.display()))?.octets().fill(0);
        }
    }
    Ok(())
}
