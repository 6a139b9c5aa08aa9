//! The bench's own programs, which make each run's packet and then call the program that ships, or an empty one.
//!
//! See `splitter-ebpf/src/bin/bench_entry.rs`.

use std::{
    env, fs,
    mem::offset_of,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use splitter_ebpf::bench::{Flow, Plan, target};
use splitter_user::dataplane::direct::Direct;

use crate::rig::{Rig, memory::Memory};

/// The object's place in cargo's target directory.
const OBJECT: &str = "bpf-bench/bench.o";

/// The kernel takes a repeat for a signed number; one of a few seconds is far below.
const MOST_RUNS: u32 = 10_000_000;

/// What a run is made to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The program that answers `XDP_TX`.
    Empty,
    /// The program that ships.
    Shipped,
    /// Another build: that of this number.
    Other(usize),
}

/// The entry programs, on a rig's maps.
pub struct Entry {
    ebpf: Ebpf,
    plan: Memory,
    flows: Memory,
    programs: ProgramArray<aya::maps::MapData>,
    multi_buffer: bool,
    /// Other builds of the program that ships, and the program of each to be called.
    others: Vec<(Ebpf, ProgramFd)>,
}

/// What a measurement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Of one run, as the kernel says it: in whole nanoseconds.
    pub ns: u32,
    /// What the last run returned.
    pub action: u32,
}

impl Entry {
    /// Loads them in front of the rig's program, with room for so many flows. `others`: other builds' objects, put on the same maps.
    ///
    /// # Errors
    /// The object isn't built, or the kernel refuses something.
    pub fn open(rig: &mut Rig, multi_buffer: bool, flows: usize, others: &[&Path]) -> Result<Self> {
        let object = find(OBJECT)?;
        let mut loader = EbpfLoader::new();
        loader.default_map_pin_directory(rig.maps()).map_max_entries("FLOWS", u32::try_from(flows.max(1))?);
        let object = fs::read(&object).with_context(|| format!("reading {}", object.display()))?;
        let mut ebpf = loader.load(&object).context("loading the bench's object")?;
        let table = if multi_buffer { "PROGRAMS_FRAGS" } else { "PROGRAMS" };
        let table = ebpf.take_map(table).with_context(|| format!("the bench's object has no {table}"))?;
        let mut programs = ProgramArray::try_from(table)?;
        let empty = if multi_buffer { "empty_frags" } else { "empty" };
        let fd = load(&mut ebpf, empty)?;
        programs.set(target::EMPTY, &fd, 0).context("an empty program to call")?;
        let shipped = rig.dataplane().program(multi_buffer)?.fd()?.try_clone()?;
        programs.set(target::SHIPPED, &shipped, 0).context("the program that ships, to call")?;
        let mut entries = vec![Callee::Empty, Callee::Shipped];
        let others = others.iter().map(|path| load_other(path, rig.maps(), multi_buffer)).collect::<Result<Vec<_>>>()?;
        if !others.is_empty() {
            entries.push(Callee::Other(0));
        }
        for callee in entries {
            load(&mut ebpf, name(callee, multi_buffer))?;
        }
        let map = |name: &str| match ebpf.map(name) {
            Some(Map::Array(data)) => Memory::of(data).with_context(|| format!("mapping {name}")),
            Some(_) | None => bail!("the bench's object has no array {name}"),
        };
        let (plan, flows) = (map("PLAN")?, map("FLOWS")?);
        Ok(Self { plan, flows, ebpf, programs, multi_buffer, others })
    }

    /// What is done before each run.
    pub fn set_plan(&mut self, plan: &Plan) {
        let Plan { does, flows, next, place, length, ttl, _pad, high, template } = *plan;
        let octets = self.plan.octets();
        let mut put = |at: usize, value: &[u8]| octets[at..at + value.len()].copy_from_slice(value);
        put(offset_of!(Plan, does), &does.to_ne_bytes());
        put(offset_of!(Plan, flows), &flows.to_ne_bytes());
        put(offset_of!(Plan, next), &next.to_ne_bytes());
        put(offset_of!(Plan, place), &place.to_ne_bytes());
        put(offset_of!(Plan, length), &length.to_ne_bytes());
        put(offset_of!(Plan, ttl), &ttl.to_ne_bytes());
        put(offset_of!(Plan, _pad), &_pad.to_ne_bytes());
        put(offset_of!(Plan, high), &high.map(u64::to_ne_bytes).concat());
        put(offset_of!(Plan, template), &template.map(u64::to_ne_bytes).concat());
    }

    /// The flows, in the order in which they come.
    ///
    /// # Errors
    /// There are more of them than there is room.
    pub fn set_flows(&mut self, flows: &[Flow]) -> Result<()> {
        let octets = self.flows.octets();
        ensure!(size_of_val(flows) <= octets.len(), "room for {} octets of flows", octets.len());
        for (place, flow) in octets.chunks_exact_mut(size_of::<Flow>()).zip(flows) {
            place[..8].copy_from_slice(&flow.source.to_ne_bytes());
            place[8..16].copy_from_slice(&flow.destination.to_ne_bytes());
            place[16..20].copy_from_slice(&flow.ports.to_ne_bytes());
            place[20..22].copy_from_slice(&flow.network_checksum.to_ne_bytes());
            place[22..24].copy_from_slice(&flow.transport_checksum.to_ne_bytes());
        }
        Ok(())
    }

    /// Runs a frame so many times, from the first flow on.
    ///
    /// # Errors
    /// The kernel's; or too many runs.
    pub fn run(&mut self, callee: Callee, frame: &[u8], ingress: u32, runs: u32) -> Result<Measured> {
        ensure!((1..=MOST_RUNS).contains(&runs), "{runs} runs");
        let next = offset_of!(Plan, next);
        self.plan.octets()[next..next + 4].fill(0);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, u32::try_from(frame.len())?, 0, ingress, 0, 0].map(u32::to_ne_bytes).concat();
        if let Callee::Other(number) = callee {
            let (_, program) = self.others.get(number).with_context(|| format!("no build of number {number}"))?;
            self.programs.set(target::OTHER, program, 0).context("the other build's program, to call")?;
        }
        let name = name(callee, self.multi_buffer);
        let program: &Xdp = self.ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
        let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat: runs, ..TestRunOptions::new() };
        let result = program.test_run(options).with_context(|| format!("running {name} {runs} times"))?;
        Ok(Measured { ns: u32::try_from(result.duration.as_nanos())?, action: result.return_value })
    }
}

const fn name(callee: Callee, multi_buffer: bool) -> &'static str {
    match (callee, multi_buffer) {
        (Callee::Empty, false) => "bench_empty",
        (Callee::Shipped, false) => "bench_shipped",
        (Callee::Other(_), false) => "bench_other",
        (Callee::Empty, true) => "bench_empty_frags",
        (Callee::Shipped, true) => "bench_shipped_frags",
        (Callee::Other(_), true) => "bench_other_frags",
    }
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program.fd()?.try_clone()?)
}

/// Another build on the same maps, as an agent of another version would adopt them.
fn load_other(object: &Path, maps: &Path, multi_buffer: bool) -> Result<(Ebpf, ProgramFd)> {
    let octets = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
    let direct = Direct::at(maps).context("the tables that the program addresses directly")?;
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(maps);
    direct.put_into(&mut loader);
    let mut ebpf = loader.load(&octets).with_context(|| format!("loading {}", object.display()))?;
    let program = load(&mut ebpf, if multi_buffer { "splitter_frags" } else { "splitter" })
        .with_context(|| format!("the program of {}", object.display()))?;
    Ok((ebpf, program))
}

/// An object that `cargo xtask bench` builds: in the target directory that this program was built into.
pub fn find(object: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("this program doesn't know its own path")?;
    let found = own.ancestors().map(|directory| directory.join(object)).find(|path| path.is_file());
    found.with_context(|| format!("no {object} in the target directory; `cargo xtask bench` builds it"))
}
