//! The data plane as the agent sees it: a trait, the kernel's implementation, a fake.
//!
//! The only module that knows aya, maps and the memory that agent and kernel share. Everything here is synchronous: a few stores into mapped
//! memory, seldom a system call. One task of the agent owns it.

mod apply;
mod attach;
mod capabilities;
mod clock;
mod destinations;
pub mod direct;
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
mod signals;
mod sweep;
mod trace;
mod types;

pub use types::{
    Applied, ApplyError, Attached, AttachedMode, BackendSample, BreakerTally, CohortTimes, Counters, Explained, Info, Lease,
    Live, Sample, ServiceKey, ServiceSample, TableUse, Times, Traced, Trip, WantedBackend, WantedService,
};

use std::{net::IpAddr, os::fd::OwnedFd, time::Duration};

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

    /// Arms a service's breaker again: what the canary did before doesn't count any more. One that hasn't tripped stays as it is, but for that.
    ///
    /// # Errors
    /// There is no such service.
    fn arm(&mut self, service: &ServiceKey) -> Result<(), ApplyError>;

    /// Becomes readable when a breaker trips, so that an agent needn't wait for its next sample; `None`: there is no such thing. [`Self::heard`] makes it
    /// unreadable again.
    fn bell(&self) -> Option<OwnedFd>;

    /// Takes what made the bell ring. What tripped is in the sample.
    fn heard(&mut self);

    /// How the lease stands.
    fn lease(&self) -> Lease;

    /// Gives a sign of life that is valid for so long from now on; `None`: the agent stops in order, nothing runs out any more. One store.
    fn renew(&mut self, lease: Option<Duration>);

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
