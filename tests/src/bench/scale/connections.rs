//! The data plane by connections and by CPUs.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Barrier,
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use splitter_user::{config::Tables, dataplane::Dataplane, model::Mode};

use super::{
    Effort,
    fill::{self, Sender},
    many, memory,
    rows::{Rows, median, ms, timed},
};
use crate::{
    oracle::World,
    rig::{self, Rig},
};

const SWEEPS: usize = 5;
/// Packets of a measurement by CPU: long enough for two CPUs to be at it at the same time.
const PACKETS: u32 = 1_000_000;

/// Memory, table fill and the sweep, by connections. A table has two entries for each connection, as it should; the largest one can't.
///
/// # Errors
/// The data plane's.
pub fn tables(effort: Effort, rows: &mut Rows) -> Result<()> {
    let sizes: &[(u32, u32)] = match effort {
        Effort::Full => &[(1_000, 2_048), (64_000, 131_072), (1_000_000, 2_097_152), (4_000_000, 4_194_304)],
        Effort::Quick => &[(1_000, 2_048), (1_000_000, 2_097_152)],
    };
    for (connections, entries) in sizes {
        let tables = Tables { services: 16, backends: 64, connections: *entries, networks: 16 };
        rig::with(&nat_for(*connections), tables, |rig| fill_and_sweep(rig, *connections, rows))?;
    }
    Ok(())
}

/// NAT addresses with ports for so many connections, half of them of TCP and half of UDP, with the range of ports that is the default.
#[must_use]
pub fn nat_for(connections: u32) -> World {
    const PORTS: std::ops::RangeInclusive<u16> = 1_024..=32_767;
    let addresses = connections.div_ceil(2 * PORTS.len() as u32);
    let address = |number| IpAddr::from(Ipv4Addr::from(0x0abf_0001 + number));
    World { nat_addresses: (0..addresses).map(address).collect(), nat_ports: Some(PORTS), ..World::default() }
}

fn fill_and_sweep(rig: &mut Rig, size: u32, rows: &mut Rows) -> Result<()> {
    let (by, connections) = ("connections", u64::from(size));
    let taken = |maps| memory::taken(rig.maps(), maps).map(|octets| octets as f64);
    let (dsr, nat) = (taken(memory::DSR)?, taken(memory::NAT)?);
    rows.add("memory-dsr", by, connections, (dsr, "bytes"));
    rows.add("memory-nat", by, connections, (nat, "bytes"));
    rows.add("memory-all-maps", by, connections, (memory::all(rig.maps())? as f64, "bytes"));
    rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Dsr)])?;
    fill::open(rig, 0, 0, size)?;
    let live = rig.dataplane().sweep();
    rows.add("placed", by, connections, (100.0 * live.affinity.used as f64 / f64::from(size), "percent"));
    let sweeps = timed(SWEEPS, |_| {
        rig.dataplane().sweep();
        Ok::<_, anyhow::Error>(())
    })?;
    rows.add("sweep", by, connections, ms(&sweeps));
    Ok(())
}

/// Packets a second of established `dsr` connections, on one CPU and on two at the same time, in the program that ships and the kernel's harness around it.
///
/// # Errors
/// There is one CPU, or the kernel doesn't run the program.
pub fn cpus(effort: Effort, rows: &mut Rows) -> Result<()> {
    let rounds = if effort == Effort::Full { 9 } else { 3 };
    let tables = Tables { services: 16, backends: 64, connections: 1 << 16, networks: 16 };
    rig::with(&World::default(), tables, |rig| {
        rig.dataplane().apply(&[many::service(0, 0, 4, Mode::Dsr)])?;
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (cpus, found) in found.iter_mut().enumerate() {
                found.push(packets(rig, cpus + 1)?);
            }
        }
        for (cpus, found) in found.into_iter().enumerate() {
            rows.add("packets", "cpus", cpus as u64 + 1, (median(&found), "mpps"));
        }
        Ok(())
    })
}

/// Million packets a second of so many CPUs together, each with a connection of its own.
fn packets(rig: &mut Rig, cpus: usize) -> Result<f64> {
    let program = rig.dataplane().program(true)?;
    let together = Barrier::new(cpus);
    let run = |cpu: usize| -> Result<f64> {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
        let mut sender = Sender::to(0);
        let client = u32::try_from(cpu)?;
        ensure!(sender.send(program, client, 1)?.forwarded, "the connection wasn't opened");
        sender.establish();
        ensure!(sender.send(program, client, 1)?.forwarded, "the connection wasn't established");
        together.wait();
        let sent = sender.send(program, client, PACKETS)?;
        ensure!(sent.forwarded && sent.ns > 0, "{sent:?}");
        Ok(1e3 / f64::from(sent.ns))
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..cpus)
            .map(|cpu| {
                scope.spawn({
                    let run = &run;
                    move || run(cpu)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().ok().context("a sender panicked")?).sum()
    })
}
