//! The data plane as the agent sees it: a trait, the kernel's implementation, a fake.
//!
//! The only module that knows aya, maps and the memory that agent and kernel share. Everything here is synchronous: a few stores into mapped
//! memory, seldom a system call. One task of the agent owns it.

mod apply;
mod attach;
mod clock;
mod destinations;
pub mod fake;
pub mod features;
pub mod kernel;
mod lines;
mod loader;
mod maglev;
mod mapped;
mod networks;
mod numbers;
mod object;
mod sweep;
mod trace;
mod types;

pub use types::{
    Applied, ApplyError, Attached, AttachedMode, BackendSample, Counters, Explained, Info, Live, Sample, ServiceKey,
    ServiceSample, TableUse, Traced, WantedBackend, WantedService,
};

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Existing, Weight};

/// What the agent can do with a data plane.
pub trait Dataplane: Send {
    /// What was loaded and where it's attached.
    fn info(&self) -> Info;

    /// Makes the data plane do what is wanted, as a whole or not at all. Connections that are established keep their backends, those of backends
    /// that aren't wanted any more among them; such a backend is forgotten when its last connection is. Services are told apart by protocol
    /// and address, backends by service and address, so what an earlier agent left behind is recognised.
    ///
    /// # Errors
    /// Something doesn't fit; nothing was changed.
    fn apply(&mut self, wanted: &[WantedService]) -> Result<Applied, ApplyError>;

    /// Changes a service's weight and flip by one store: with the return of the call every new connection is treated accordingly. `flip` is what happens
    /// to established canary connections while the service is flipped; `None`: it isn't.
    ///
    /// # Errors
    /// There is no such service.
    fn steer(&mut self, service: &ServiceKey, weight: Weight, flip: Option<Existing>) -> Result<(), ApplyError>;

    /// The counters of this moment, summed over CPUs. They only grow, also across agents.
    fn sample(&mut self) -> Sample;

    /// Walks the tables of connections: counts the living, forgets the expired, counts attempts that timed out. To be called about once a second.
    fn sweep(&mut self) -> Live;

    /// What would become of a packet of this client, by the code that the kernel runs; `at`: if the weight were this, for a new connection.
    ///
    /// # Errors
    /// There is no such service.
    fn explain(
        &self,
        service: &ServiceKey,
        client: IpAddr,
        port: Option<u16>,
        at: Option<Weight>,
    ) -> Result<Explained, ApplyError>;

    /// Reports decisions about packets of clients in this network, until told otherwise by `None`. One service at a time.
    ///
    /// # Errors
    /// There is no such service, or the reports can't be read.
    fn trace(&mut self, service: &ServiceKey, clients: Option<IpNet>) -> Result<(), ApplyError>;

    /// What was reported since the last call.
    fn traced(&mut self) -> Vec<Traced>;

    /// Takes the program off all interfaces and removes what is pinned. Nothing else may be called afterwards.
    ///
    /// # Errors
    /// What could not be removed.
    fn detach(&mut self) -> Result<(), ApplyError>;
}
