//! When a breaker trips, read where the program notes it: in its pinned maps, which need no agent.

use std::{mem::offset_of, net::SocketAddr, path::Path};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use splitter_ebpf::{
    abi::{Service, Trip, WindowTally},
    address::Address,
    breaker::{Cause, Share},
};

use super::time::Monotonic;

/// A service's breaker.
pub struct Trips {
    services: Array<MapData, [u8; size_of::<Service>()]>,
    trips: Array<MapData, [u8; size_of::<Trip>()]>,
    number: u32,
}

/// That it has tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// When.
    pub at: Monotonic,
    /// By which limit.
    pub cause: Cause,
    /// What was held against that limit: the canary's failures and samples in the breaker's window.
    pub canary: Share,
}

impl Trips {
    /// Of the service with this address, on a node whose maps are pinned in this directory.
    ///
    /// # Errors
    /// There is no data plane, or no such service.
    pub fn of(pins: &Path, service: SocketAddr) -> Result<Self> {
        let open = |name: &str| {
            let path = pins.join("maps").join(name);
            let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
            Map::from_map_data(data).with_context(|| format!("opening {}", path.display()))
        };
        let services: Array<_, [u8; size_of::<Service>()]> = open("SERVICES")?.try_into().context("SERVICES")?;
        let trips = open("TRIPS")?.try_into().context("TRIPS")?;
        for number in 0..services.len() {
            let record = services.get(&number, 0)?;
            let is_it = record[offset_of!(Service, in_use)] != 0
                && record[offset_of!(Service, port)..][..2] == service.port().to_be_bytes()
                && record[offset_of!(Service, address)..][..size_of::<Address>()] == mapped(service);
            if is_it {
                return Ok(Self { services, trips, number });
            }
        }
        bail!("the data plane has no service {service}")
    }

    /// Whether it has tripped, and was not armed again.
    ///
    /// # Errors
    /// The maps can't be read.
    pub fn look(&self) -> Result<Option<Tripped>> {
        let record = self.services.get(&self.number, 0)?;
        let word = |record: &[u8], at: usize| u64::from_ne_bytes(record[at..][..8].try_into().expect("eight octets"));
        let half = |record: &[u8], at: usize| u32::from_ne_bytes(record[at..][..4].try_into().expect("four octets"));
        let at = word(&record, offset_of!(Service, trip));
        if at == 0 {
            return Ok(None);
        }
        let said = self.trips.get(&self.number, 0)?;
        ensure!(half(&said, offset_of!(Trip, service)) == self.number, "the trip is another service's");
        let cause = half(&said, offset_of!(Trip, cause));
        let cause = Cause::from_number(cause).with_context(|| format!("cause {cause}"))?;
        let count = |offset: usize| half(&said, offset_of!(Trip, canary) + offset);
        let canary = WindowTally {
            attempts: count(offset_of!(WindowTally, attempts)),
            completed: count(offset_of!(WindowTally, completed)),
            refused: count(offset_of!(WindowTally, refused)),
            reset: count(offset_of!(WindowTally, reset)),
            retransmitted: count(offset_of!(WindowTally, retransmitted)),
            due: count(offset_of!(WindowTally, due)),
            timed_out: count(offset_of!(WindowTally, timed_out)),
            _pad: 0,
        };
        Ok(Some(Tripped { at: Monotonic(at), cause, canary: Share::of(&canary, cause) }))
    }
}

/// As the data plane writes addresses: IPv4 as `::ffff:a.b.c.d`.
fn mapped(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}
