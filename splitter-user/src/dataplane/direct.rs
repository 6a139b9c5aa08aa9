//! Tables that the program addresses directly: each is the only value of its map.
//!
//! For aya they are the object's sections of data, which it makes maps of, and fills with what stands in the object. Such a map would be neither pinned nor to be mapped; so ours are
//! made and pinned beforehand, and aya finds them. It fills them all the same. So whoever loads the program on tables that are at work hands it what is in
//! them, which is then written over itself: nobody else writes to them meanwhile, for the program never does, and of agents there is one.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    EbpfLoader, Pod,
    maps::{Array, MapData, MapError},
    pin::PinError,
};
use splitter_ebpf::abi;

use super::mapped::Mapped;

/// A table of this kind.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its symbol in the object, and its pin.
    pub name: &'static str,
    /// Its section, which is what aya calls its map.
    pub section: &'static str,
    /// Its size.
    pub octets: usize,
}

/// What holds for the whole data plane.
pub const SETTINGS: Table = Table { name: "SETTINGS", section: ".bss.settings", octets: size_of::<abi::Settings>() };

/// Both generations of destinations.
pub const DESTINATIONS: Table = Table { name: "DESTINATIONS", section: ".bss.destinations", octets: DESTINATIONS_OCTETS };
const DESTINATIONS_OCTETS: usize = 2 * abi::DESTINATIONS as usize * size_of::<abi::Destination>();

/// Why they can't be made, or found.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The kernel refuses to make one.
    #[error("the map {table}: {source}")]
    Map {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// Or to pin it.
    #[error("pinning the map {table}: {source}")]
    Pin {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        source: PinError,
    },
    /// Or to map it into memory.
    #[error("mapping {table} into memory: {source}")]
    Memory {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The map that is pinned is another program's.
    #[error("{table} has {found} octets, and not {}", .expected)]
    Size {
        /// Which.
        table: &'static str,
        /// Its own size.
        found: u64,
        /// That of this program's.
        expected: usize,
    },
}

/// The tables, made and pinned, and what is in them.
#[derive(Debug)]
pub struct Direct {
    tables: [(Table, PathBuf, Vec<u8>); 2],
}

impl Direct {
    /// Those that are pinned in this directory; where there are none, they are made.
    ///
    /// # Errors
    /// The kernel's; or what is pinned is something else.
    pub fn at(pins: &Path) -> Result<Self, DirectError> {
        let settings = contents::<{ SETTINGS.octets }>(SETTINGS, pins)?;
        let destinations = contents::<{ DESTINATIONS.octets }>(DESTINATIONS, pins)?;
        let pinned = |table: Table, contents| (table, pins.join(table.name), contents);
        Ok(Self { tables: [pinned(SETTINGS, settings), pinned(DESTINATIONS, destinations)] })
    }

    /// Has the program loaded on them.
    pub fn put_into<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (table, pin, contents) in &self.tables {
            loader.map_pin_path(table.section, pin.as_path()).override_global(table.name, contents.as_slice(), true);
        }
    }
}

fn contents<const OCTETS: usize>(table: Table, pins: &Path) -> Result<Vec<u8>, DirectError>
where
    [u8; OCTETS]: Pod,
{
    let name = table.name;
    let pin = pins.join(name);
    if !pin.exists() {
        let made =
            Array::<MapData, [u8; OCTETS]>::create(1, MMAPABLE).map_err(|source| DirectError::Map { table: name, source })?;
        made.pin(&pin).map_err(|source| DirectError::Pin { table: name, source })?;
        return Ok(vec![0; table.octets]);
    }
    let map = MapData::from_pin(&pin).map_err(|source| DirectError::Map { table: name, source })?;
    let info = map.info().map_err(|source| DirectError::Map { table: name, source })?;
    let found = u64::from(info.value_size()) * u64::from(info.max_entries());
    // Of another size, more would be read than there is.
    if info.max_entries() != 1 || found != table.octets as u64 {
        return Err(DirectError::Size { table: name, found, expected: table.octets });
    }
    let memory = Mapped::<u64>::new(map.fd(), table.octets / 8).map_err(|source| DirectError::Memory { table: name, source })?;
    Ok((0..memory.len()).flat_map(|word| memory.read(word).to_ne_bytes()).collect())
}

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
