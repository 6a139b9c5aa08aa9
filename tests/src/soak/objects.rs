//! What of Splitter is in the kernel. Others run beside: what is ours is told by the maps that are pinned, not by names.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::{
    maps::{MapData, loaded_maps},
    programs::loaded_programs,
};

/// How long the kernel may take to let go of something that nobody holds.
const LETS_GO: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// Ids of maps and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Programs that use one of them.
    pub programs: BTreeSet<u32>,
}

impl Objects {
    /// Those of the data plane that is pinned here, and of the agent that runs as this process: the maps that are pinned, that it holds, and that a program uses which uses one of those.
    ///
    /// # Errors
    /// When they can't be looked at.
    pub fn of(pins: &Path, agent: Option<u32>) -> Result<Self> {
        let mut maps = pinned(&pins.join("maps"))?;
        if let Some(pid) = agent {
            maps.extend(held(pid)?);
        }
        let mut programs = BTreeSet::new();
        for program in loaded_programs() {
            // Another one's may end while we look.
            let Ok(program) = program else { continue };
            let Ok(Some(used)) = program.map_ids() else { continue };
            if used.iter().any(|id| maps.contains(id)) {
                programs.insert(program.id());
                maps.extend(used);
            }
        }
        Ok(Self { maps, programs })
    }

    /// Those of these that the kernel still has.
    #[must_use]
    pub fn left(&self) -> Self {
        let programs = loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect();
        let maps = loaded_maps().filter_map(|map| Some(map.ok()?.id())).collect();
        Self {
            maps: self.maps.intersection(&maps).copied().collect(),
            programs: self.programs.intersection(&programs).copied().collect(),
        }
    }

    /// Waits until the kernel has none of these any more; those that it keeps.
    #[must_use]
    pub fn wait_until_gone(&self) -> Self {
        let deadline = Instant::now() + LETS_GO;
        loop {
            let left = self.left();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty() && self.programs.is_empty()
    }

    /// Takes these along.
    pub fn add(&mut self, others: &Self) {
        self.maps.extend(&others.maps);
        self.programs.extend(&others.programs);
    }

    /// Those that aren't among the others.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            maps: self.maps.difference(&others.maps).copied().collect(),
            programs: self.programs.difference(&others.programs).copied().collect(),
        }
    }
}

fn pinned(directory: &Path) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let pin = entry?.path();
        let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        ids.insert(map.info()?.id());
    }
    Ok(ids)
}

/// Maps that a process holds descriptors of.
fn held(pid: u32) -> Result<BTreeSet<u32>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // A descriptor may be closed while we look.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        ids.extend(info.lines().filter_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}
