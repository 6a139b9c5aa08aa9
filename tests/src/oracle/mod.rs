//! What the XDP program must do with a frame, by a second implementation.
//!
//! Written from `docs/packet-path.md` alone, slow and plain: headers are read at offsets, checksums summed over whole
//! packets, connections kept in ordinary maps. Where the page gives the program a choice (which backend, which NAT port) or leaves
//! time open, the oracle admits each and learns from what it sees; everything else must be equal to the octet.
//!
//! ```text
//! let mut oracle = Oracle::new(world);
//! let mut generator = Generator::new(Scenario::from(oracle.world()), seed);
//! loop {
//!     let frame = generator.next(oracle.knowledge());
//!     let result = program.run(&frame.bytes, frame.ingress);
//!     let observed = Observed { action, frame: &result.frame, redirect: None, counted: Some(&reasons) };
//!
//!     let expectation = oracle.expect(&frame.bytes, frame.ingress);
//!     let matched = oracle.check(&expectation, &observed)?;
//!     oracle.learn(matched);
//!     // or, in one: oracle.judge(&frame.bytes, frame.ingress, &observed)?;
//! }
//! ```

mod check;
mod connections;
mod decide;
mod example;
mod expectation;
mod reason;
mod refuse;
mod rewrite;
pub mod sample;
mod world;

#[cfg(test)]
mod known_answers;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use check::{Difference, DifferenceKind};
pub use example::Performed;
pub use expectation::{Action, Expectation, Matched, Observed, Outcome};
pub use reason::Reason;
pub use rewrite::{Path, Translation};
pub use world::{Affinity, Backend, Cohort, Existing, Leeway, Mode, Protocol, Rule, Service, Way, World};

use crate::packet::generate::{Knowledge, Live};
use connections::{Connection, Connections, Followed, FragmentKey, Places, WayBack};
use expectation::Effect;

/// Knows the world and what was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    world: World,
    connections: Connections,
    places: Places,
    fragments: HashMap<FragmentKey, Followed>,
    knowledge: Knowledge,
}

impl Oracle {
    /// An oracle that has seen nothing.
    #[must_use]
    pub fn new(world: World) -> Oracle {
        Oracle { world, ..Oracle::default() }
    }

    /// The world it judges by.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Changes the world: do it where the program's configuration changes.
    pub const fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// Connections that were lately opened, for the generator to draw from.
    #[must_use]
    pub const fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// How many connections are known.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Everything that may rightly happen to a frame that came by this interface.
    #[must_use]
    pub fn expect<'f>(&self, frame: &'f [u8], ingress: u32) -> Expectation<'f> {
        decide::decide(self, frame, ingress)
    }

    /// Compares what happened with what may.
    ///
    /// # Errors
    /// The difference to the nearest of the alternatives.
    pub fn check(&self, expectation: &Expectation<'_>, observed: &Observed<'_>) -> Result<Matched, Difference> {
        check::check(self, expectation, observed)
    }

    /// Learns from what happened.
    pub fn learn(&mut self, matched: Matched) {
        let Matched { effect, nat, fragment } = matched;
        if let Some((key, followed)) = fragment {
            self.fragments.insert(key, followed);
        }
        match effect {
            Effect::Nothing => {}
            Effect::Doubted(id) => {
                let connection = self.connections.get_mut(id);
                (connection.doubtful, connection.closing) = (true, true);
            }
            Effect::Forgotten(id) => self.connections.forget(id),
            Effect::Passed { id, closing, answered } => self.connections.get_mut(id).passed(closing, answered),
            Effect::Opened { service: index, client, backend, placed, way_back } => {
                let service = &self.world.services[index];
                self.places.learn(index, service, client, backend, placed);
                let protocol = service.protocol;
                let (closing, doubtful, answered) = (false, false, false);
                // Section 3: behind a RST and a SYN in its client's name a connection that keeps its port keeps its way back too.
                let (way_back, keeps_slot) = self.connections.kept(index, client, backend, nat).unwrap_or((way_back, false));
                self.knowledge.push(live(service, client, backend, nat, way_back.clone()));
                let service = index;
                let opened =
                    Connection { service, protocol, client, backend, nat, way_back, answered, keeps_slot, closing, doubtful };
                self.connections.open(opened);
            }
        }
    }

    /// Expects, checks and learns.
    ///
    /// # Errors
    /// As [`Oracle::check`]; nothing is learned then.
    pub fn judge(&mut self, frame: &[u8], ingress: u32, observed: &Observed<'_>) -> Result<(), Difference> {
        let matched = self.check(&self.expect(frame, ingress), observed)?;
        self.learn(matched);
        Ok(())
    }
}

impl Connection {
    const fn passed(&mut self, closing: bool, answered: bool) {
        self.doubtful = false;
        self.closing |= closing;
        self.answered |= answered;
    }
}

fn live(
    service: &Service,
    client: std::net::SocketAddr,
    backend: usize,
    nat: Option<std::net::SocketAddr>,
    back: WayBack,
) -> Live {
    let backend = &service.backends[backend];
    Live {
        protocol: service.protocol.number(),
        service: service.address,
        client,
        backend: backend.address,
        nat,
        client_mac: back.client,
        node_mac: back.node,
        client_ingress: back.interface,
        client_vlans: back.vlans,
        backend_ingress: backend.way.map_or(back.interface, |way| way.interface),
    }
}
