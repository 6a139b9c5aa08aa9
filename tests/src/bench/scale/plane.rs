//! The data plane by services and by backends: its own calls, without an agent.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use splitter_user::{
    config::Tables,
    dataplane::{Dataplane, WantedService, kernel::KernelDataplane},
    model::{Existing, Mode, Weight},
};

use super::{
    Effort, many, memory,
    rows::{Rows, ms, timed, us},
};
use crate::{
    oracle::World,
    rig::{self, Rig},
};

/// Rounds of what takes less than a microsecond, and of what takes milliseconds.
const STORES: usize = 5_000;
const REBUILDS: usize = 15;

/// Longer than what a change waits for the packets that still look at what the one before took out of force: a pause between two.
const PAUSE: Duration = Duration::from_millis(8);

/// By backends, all of one service.
///
/// # Errors
/// The data plane's.
pub fn backends(effort: Effort, rows: &mut Rows) -> Result<()> {
    let tables = Tables { services: 16, backends: 8_192, connections: 1 << 16, networks: 16 };
    let sizes: &[u32] = if effort == Effort::Full { &[2, 64, 1_000, 4_000] } else { &[2, 4_000] };
    rig::with(&World::default(), tables, |rig| {
        let taken = memory::taken(rig.maps(), memory::BY_BACKEND)? as f64 / f64::from(tables.backends);
        rows.add("memory", "backends", 1, (taken, "bytes"));
        for size in sizes {
            measure(rig, vec![many::service(0, 0, *size, Mode::Nat)], "backends", u64::from(*size), rows)?;
        }
        Ok(())
    })
}

/// By services, of four backends each.
///
/// # Errors
/// The data plane's.
pub fn services(effort: Effort, rows: &mut Rows) -> Result<()> {
    let tables = Tables { services: 1_024, backends: 8_192, connections: 1 << 16, networks: 16 };
    let sizes: &[u32] = if effort == Effort::Full { &[1, 64, 1_000] } else { &[1_000] };
    rig::with(&World::default(), tables, |rig| {
        let taken = memory::taken(rig.maps(), memory::BY_SERVICE)? as f64 / f64::from(tables.services);
        rows.add("memory", "services", 1, (taken, "bytes"));
        for size in sizes {
            measure(rig, many::services(*size, 4, Mode::Nat), "services", u64::from(*size), rows)?;
        }
        Ok(())
    })
}

/// Puts services in force, and measures what is done with them.
fn measure(rig: &mut Rig, services: Vec<WantedService>, by: &str, size: u64, rows: &mut Rows) -> Result<()> {
    let dataplane = rig.dataplane();
    dataplane.apply(&[])?;
    thread::sleep(PAUSE);
    let first = timed(1, |_| dataplane.apply(&services).map(drop))?;
    rows.add("put-in-force", by, size, ms(&first));
    rows.add("rebuild", by, size, ms(&rebuild(dataplane, &services)?));
    let keys: Vec<_> = services.iter().map(|service| service.key).collect();
    let weights = [Weight::ZERO, Weight::ALL];
    let weight = timed(STORES, |round| dataplane.steer(&keys[round % keys.len()], weights[round / keys.len() % 2], None))?;
    rows.add("weight-change", by, size, us(&weight));
    let flips = [Some(Existing::Reset), None];
    let flip = timed(STORES, |round| dataplane.steer(&keys[round % keys.len()], Weight::ALL, flips[round / keys.len() % 2]))?;
    rows.add("flip", by, size, us(&flip));
    let mut seen = 0;
    let sampling = timed(REBUILDS, |_| {
        seen = dataplane.sample().services.values().map(|service| service.backends.len()).sum();
        Ok::<_, anyhow::Error>(())
    })?;
    let wanted: usize = services.iter().map(|service| service.backends.len()).sum();
    ensure!(seen == wanted, "{seen} of {wanted} backends were sampled");
    rows.add("sampling", by, size, us(&sampling));
    Ok(())
}

/// One backend of the last service drains and comes back, in turns: its service's tables are built anew, and in force when the call returns.
fn rebuild(dataplane: &mut KernelDataplane, services: &[WantedService]) -> Result<Vec<Duration>> {
    let mut drained = services.to_vec();
    if let Some(backend) = drained.last_mut().and_then(|service| service.backends.first_mut()) {
        backend.draining = true;
    }
    let mut times = Vec::new();
    for round in 0..REBUILDS {
        thread::sleep(PAUSE);
        let wanted = if round % 2 == 0 { &drained } else { services };
        times.extend(timed(1, |_| dataplane.apply(wanted).map(drop))?);
    }
    thread::sleep(PAUSE);
    dataplane.apply(services)?;
    Ok(times)
}
