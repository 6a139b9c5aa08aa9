//! The program's counters of reasons, read where they are pinned, and which of them moved.

use std::{
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    path::Path,
    ptr,
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use splitter_ebpf::{
    abi::{ReasonCounters, ServiceCounters},
    reason::{self, Refuse},
};

use crate::oracle::Reason;

/// The counters, and what they said last.
pub(super) struct Counters {
    reasons: Words,
    services: Words,
    /// What each word of an element of `reasons`, and of `services`, counts; `None`: nothing, or what isn't a reason.
    meanings: [Vec<Option<Reason>>; 2],
}

impl Counters {
    pub(super) fn open(maps: &Path) -> Result<Self> {
        let reasons = (0..size_of::<ReasonCounters>() / 8).map(|index| reason::label(index).map(named).transpose());
        let mut services = vec![None; size_of::<ServiceCounters>() / 8];
        services[offset_of!(ServiceCounters, canary_fallback) / 8] = Some(Reason::CanaryFallback);
        services[offset_of!(ServiceCounters, untracked) / 8] = Some(Reason::Untracked);
        for refusal in Refuse::ALL {
            services[offset_of!(ServiceCounters, refused) / 8 + refusal.index()] = Some(named(refusal.label())?);
        }
        Ok(Self {
            meanings: [reasons.collect::<Result<_>>()?, services],
            reasons: Words::open(&maps.join("REASON_COUNTERS"))?,
            services: Words::open(&maps.join("SERVICE_COUNTERS"))?,
        })
    }

    /// The reasons that were counted since the last call, each of them once.
    pub(super) fn moved(&mut self) -> Result<Vec<Reason>> {
        let mut moved = Vec::new();
        for (words, meanings) in [&mut self.reasons, &mut self.services].into_iter().zip(&self.meanings) {
            for index in 0..words.last.len() {
                let now = words.read(index);
                let before = std::mem::replace(&mut words.last[index], now);
                if now == before {
                    continue;
                }
                let place = index % meanings.len();
                let reason = meanings[place].with_context(|| format!("word {place}, which counts nothing, was changed"))?;
                ensure!(now == before + 1, "{reason} went from {before} to {now} by one frame");
                moved.push(reason);
            }
        }
        Ok(moved)
    }
}

fn named(label: &str) -> Result<Reason> {
    Reason::named(label).with_context(|| format!("docs/packet-path.md doesn't know `{label}`"))
}

/// An array map of structures of 64-bit words, mapped.
struct Words {
    memory: MmapRaw,
    last: Vec<u64>,
}

impl Words {
    fn open(pin: &Path) -> Result<Self> {
        let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
        let info = map.info()?;
        let octets = info.value_size() as usize * info.max_entries() as usize;
        let memory = MmapOptions::new().len(octets).map_raw_read_only(map.fd().as_fd().as_raw_fd())?;
        let mut words = Self { memory, last: vec![0; octets / 8] };
        words.last = (0..octets / 8).map(|index| words.read(index)).collect();
        Ok(words)
    }

    fn read(&self, index: usize) -> u64 {
        assert!(index < self.memory.len() / 8, "word {index} lies behind the map");
        // SAFETY: the word was just seen to lie inside the mapping, which begins at a page, so it is aligned. The program writes it while it runs, on
        // this thread, so not now; volatile, since the compiler doesn't know of those writes.
        unsafe { ptr::read_volatile(self.memory.as_ptr().cast::<u64>().add(index)) }
    }
}
