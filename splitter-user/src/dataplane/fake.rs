//! A data plane in memory, for tests of whoever steers one.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use splitter_ebpf::{abi::Control, cohort::Rule};

use super::{
    Applied, ApplyError, Attached, AttachedMode, BackendSample, CohortTimes, Counters, Dataplane, Explained, Info, Lease, Live,
    Sample, ServiceKey, ServiceSample, Traced, Trip, WantedBackend, WantedService,
};
use crate::{
    controller::Cohorts,
    model::{Cohort, Existing, Seed, Weight},
};

/// What was done to a [`FakeDataplane`].
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// [`Dataplane::apply`], carried out.
    Apply(Vec<WantedService>),
    /// [`Dataplane::apply`], refused.
    RefusedApply,
    /// [`Dataplane::steer`].
    Steer(ServiceKey, Weight, Option<Existing>),
    /// [`Dataplane::arm`].
    Arm(ServiceKey),
    /// [`Dataplane::renew`] of a lease that had run out. Of one that is valid nothing is noted: it happens all the time.
    LeaseResumed,
    /// [`Dataplane::renew`] without a lease.
    LeaseReleased,
    /// [`Dataplane::trace`].
    Trace(ServiceKey, Option<IpNet>),
    /// [`Dataplane::detach`].
    Detach,
    /// An agent let it go.
    Released,
}

/// Keeps what it is told and counts what it is told to. Clones share it, so that a test looks at what an agent did, and hands it to the next agent as a
/// kernel would.
#[derive(Clone, Debug, Default)]
pub struct FakeDataplane {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    adoptions: Option<u32>,
    services: BTreeMap<ServiceKey, WantedService>,
    counters: BTreeMap<(ServiceKey, SocketAddr), Counters>,
    live: BTreeMap<(ServiceKey, SocketAddr), u64>,
    traced: Vec<Traced>,
    trips: BTreeMap<ServiceKey, Trip>,
    times: BTreeMap<ServiceKey, Cohorts<CohortTimes>>,
    /// `None`: released.
    lease: Option<Lease>,
    bell: Option<Bell>,
    calls: Vec<Call>,
    refuse: Option<String>,
    refuse_steering: bool,
    /// Agents that have it.
    held: usize,
}

/// Two ends: what is written to one makes the other readable.
#[derive(Debug)]
struct Bell {
    ring: UnixStream,
    hear: UnixStream,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (ring, hear) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        hear.set_nonblocking(true)?;
        Ok(Self { ring, hear })
    }
}

impl FakeDataplane {
    /// Gives it a bell, which rings when a breaker trips.
    ///
    /// # Errors
    /// The system gives no sockets.
    pub fn hang_bell(&self) -> io::Result<()> {
        self.lock().bell = Some(Bell::new()?);
        Ok(())
    }

    /// For an agent: a handle that notes when it is let go.
    #[must_use]
    pub fn open(&self) -> Box<dyn Dataplane> {
        let mut inner = self.lock();
        inner.adoptions = Some(inner.adoptions.map_or(0, |adoptions| adoptions + 1));
        inner.held += 1;
        drop(inner);
        Box::new(Opened(self.clone()))
    }

    /// Takes what was done since the last time that this was asked.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// What was wanted last of a service, with what steering made of it.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<WantedService> {
        self.lock().services.get(key).cloned()
    }

    /// The seeds that are in force.
    #[must_use]
    pub fn seeds(&self) -> BTreeMap<ServiceKey, Seed> {
        self.lock().services.iter().map(|(key, service)| (*key, service.seed)).collect()
    }

    /// Whether an agent has it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lock().held > 0
    }

    /// Changes a backend's counters.
    pub fn count(&self, key: ServiceKey, backend: SocketAddr, change: impl FnOnce(&mut Counters)) {
        change(self.lock().counters.entry((key, backend)).or_default());
    }

    /// Sets how many connections a backend has.
    pub fn live(&self, key: ServiceKey, backend: SocketAddr, connections: u64) {
        self.lock().live.insert((key, backend), connections);
    }

    /// Trips a breaker, and rings.
    pub fn trip(&self, key: ServiceKey, trip: Trip) {
        let mut inner = self.lock();
        inner.trips.insert(key, trip);
        if let Some(bell) = &mut inner.bell {
            bell.ring.write_all(&[1]).expect("somebody hears it before it's full");
        }
    }

    /// Sets how long things took.
    pub fn times(&self, key: ServiceKey, times: Cohorts<CohortTimes>) {
        self.lock().times.insert(key, times);
    }

    /// How the lease stands.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lock().lease.unwrap_or(Lease::Released)
    }

    /// Lets the lease stand so, for whoever takes the data plane over.
    pub fn set_lease(&self, lease: Lease) {
        self.lock().lease = Some(lease);
    }

    /// Reports a decision.
    pub fn trace(&self, traced: Traced) {
        self.lock().traced.push(traced);
    }

    /// Refuses every [`Dataplane::steer`] from now on, or no longer.
    pub fn refuse_steering(&self, refuse: bool) {
        self.lock().refuse_steering = refuse;
    }

    /// Refuses the next [`Dataplane::apply`].
    pub fn refuse_next_apply(&self, why: &str) {
        self.lock().refuse = Some(why.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked elsewhere says so itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an agent holds.
struct Opened(FakeDataplane);

impl Drop for Opened {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.held -= 1;
        inner.calls.push(Call::Released);
    }
}

impl Dataplane for Opened {
    fn info(&self) -> Info {
        Info {
            adoptions: self.0.lock().adoptions.unwrap_or_default(),
            interfaces: vec![Attached { name: "eth0".to_owned(), index: 2, mode: AttachedMode::Native }],
            multi_buffer: true,
            verified_instructions: None,
        }
    }

    fn apply(&mut self, wanted: &[WantedService]) -> Result<Applied, ApplyError> {
        let mut inner = self.0.lock();
        if let Some(why) = inner.refuse.take() {
            inner.calls.push(Call::RefusedApply);
            return Err(ApplyError::Kernel { tried: "could not write a map".to_owned(), why });
        }
        inner.calls.push(Call::Apply(wanted.to_vec()));
        inner.services = wanted.iter().map(|service| (service.key, service.clone())).collect();
        let lacks = |service: &WantedService, cohort| !usable(service, cohort);
        let without_backends = wanted
            .iter()
            .flat_map(|service| Cohort::ALL.into_iter().filter(|cohort| lacks(service, *cohort)).map(|c| (service.key, c)))
            .collect();
        Ok(Applied { without_backends })
    }

    fn steer(&mut self, service: &ServiceKey, weight: Weight, flip: Option<Existing>) -> Result<(), ApplyError> {
        let mut inner = self.0.lock();
        if inner.refuse_steering {
            return Err(ApplyError::Kernel { tried: "could not write a word".to_owned(), why: "no memory".to_owned() });
        }
        inner.calls.push(Call::Steer(*service, weight, flip));
        let found = inner.services.get_mut(service).ok_or(ApplyError::NoService(*service))?;
        (found.weight, found.flip) = (weight, flip);
        Ok(())
    }

    fn arm(&mut self, service: &ServiceKey) -> Result<(), ApplyError> {
        let mut inner = self.0.lock();
        inner.calls.push(Call::Arm(*service));
        inner.trips.remove(service);
        if inner.services.contains_key(service) { Ok(()) } else { Err(ApplyError::NoService(*service)) }
    }

    fn bell(&self) -> Option<OwnedFd> {
        let inner = self.0.lock();
        inner.bell.as_ref().and_then(|bell| bell.hear.try_clone().ok()).map(OwnedFd::from)
    }

    fn heard(&mut self) {
        if let Some(bell) = &mut self.0.lock().bell {
            // Until there is nothing left, which is an error of its own kind.
            while bell.hear.read(&mut [0; 16]).is_ok_and(|read| read > 0) {}
        }
    }

    fn lease(&self) -> Lease {
        self.0.lease()
    }

    fn renew(&mut self, lease: Option<Duration>) {
        let mut inner = self.0.lock();
        match (lease, inner.lease) {
            (Some(_), Some(Lease::RanOut(_))) => inner.calls.push(Call::LeaseResumed),
            (Some(_), _) => {}
            (None, _) => inner.calls.push(Call::LeaseReleased),
        }
        inner.lease = lease.map(Lease::Valid);
    }

    fn sample(&mut self) -> Sample {
        let inner = self.0.lock();
        let mut sample = Sample::default();
        for (key, service) in &inner.services {
            let backend = |backend: &WantedBackend| BackendSample {
                cohort: backend.cohort,
                wanted: true,
                usable: backend.is_usable(),
                counters: inner.counters.get(&(*key, backend.address)).copied().unwrap_or_default(),
            };
            let of_service = ServiceSample {
                weight: if service.flip.is_some() { Weight::ZERO } else { service.weight },
                flip: service.flip,
                trip: inner.trips.get(key).copied(),
                times: inner.times.get(key).cloned().unwrap_or_default(),
                backends: service.backends.iter().map(|wanted| (wanted.address, backend(wanted))).collect(),
                ..ServiceSample::default()
            };
            sample.services.insert(*key, of_service);
        }
        sample
    }

    fn sweep(&mut self) -> Live {
        Live { connections: self.0.lock().live.clone(), ..Live::default() }
    }

    fn explain(
        &self,
        service: &ServiceKey,
        client: IpAddr,
        _port: Option<u16>,
        at: Option<Weight>,
    ) -> Result<Explained, ApplyError> {
        let inner = self.0.lock();
        let found = inner.services.get(service).ok_or(ApplyError::NoService(*service))?;
        let weight = at.unwrap_or(found.weight);
        let threshold = Control::threshold_of(weight.basis_points());
        // The hash is the client's last octet in the highest place: easy to foresee.
        let octet = match client {
            IpAddr::V4(client) => client.octets()[3],
            IpAddr::V6(client) => client.octets()[15],
        };
        let place = u32::from(octet) << 24;
        let rule = match found.flip {
            Some(_) if at.is_none() => Rule::Flipped,
            Some(_) | None if u64::from(place) < threshold => Rule::Below,
            Some(_) | None => Rule::NotBelow,
        };
        let cohort = match rule.cohort() {
            splitter_ebpf::cohort::Cohort::Stable => Cohort::Stable,
            splitter_ebpf::cohort::Cohort::Canary => Cohort::Canary,
        };
        let backend = found.backends.iter().find(|b| b.cohort == cohort && b.is_usable()).map(|b| b.address);
        Ok(Explained {
            known: None,
            reset: false,
            rule,
            hash: u64::from(place) << 32,
            place,
            threshold,
            table_size: if backend.is_some() { 7 } else { 0 },
            entry: backend.map(|_| 0),
            backend,
        })
    }

    fn trace(&mut self, service: &ServiceKey, clients: Option<IpNet>) -> Result<(), ApplyError> {
        let mut inner = self.0.lock();
        inner.calls.push(Call::Trace(*service, clients));
        if inner.services.contains_key(service) { Ok(()) } else { Err(ApplyError::NoService(*service)) }
    }

    fn traced(&mut self) -> Vec<Traced> {
        std::mem::take(&mut self.0.lock().traced)
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        let mut inner = self.0.lock();
        inner.calls.push(Call::Detach);
        inner.adoptions = None;
        inner.services.clear();
        Ok(())
    }
}

fn usable(service: &WantedService, cohort: Cohort) -> bool {
    service.backends.iter().any(|backend| backend.cohort == cohort && backend.is_usable())
}
