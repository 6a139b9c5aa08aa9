//! The core as others see it: status, lists, metrics.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    net::SocketAddr,
    process,
};

use super::{
    breaker::finding,
    clock::Moment,
    core::{Core, key},
    keep::Unsaved,
    recent::{milliseconds, shows_handshakes, shows_responses},
};
use crate::{
    api::{
        command::{CommandError, CommandResult},
        wire::{
            AgentStatus, AttachMode, BackendList, BackendState, BackendStatus, BreakerStatus, CohortStatus, Counters, FlipCause,
            InterfaceStatus, LeaseStatus, Networks, RanOut, RolloutBrief, RolloutStatus, ServiceStatus, Status, Traffic, Trip,
            Way, Weights,
        },
    },
    dataplane::{self, AttachedMode, BackendSample, Lease, ServiceSample, TableUse},
    desired::Desired,
    metrics::{BackendSnapshot, CohortSnapshot, Histogram, LastReload, ServiceSnapshot, Snapshot, Table, TableSnapshot},
    model::{BackendWeight, Cohort, Mode, NetworkList, Protocol, Service, ServiceName},
    store,
};

/// A table that is fuller than this, in percent, is told about.
const NEARLY_FULL: u64 = 90;

/// Of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Core {
    pub(super) fn status(&self, service: Option<&ServiceName>, now: Moment) -> CommandResult<Status> {
        let mut services = match service {
            Some(name) => vec![self.service_status(self.find(name)?, now)],
            None => self.desired.iter().map(|desired| self.service_status(desired, now)).collect(),
        };
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Status { agent: self.agent_status(), services })
    }

    fn agent_status(&self) -> AgentStatus {
        let attached = self.info.interfaces.iter().filter(|_| self.dataplane.is_some());
        let interfaces = attached.map(|interface| InterfaceStatus { name: interface.name.clone(), mode: interface.mode.into() });
        AgentStatus {
            version: VERSION.to_owned(),
            pid: process::id(),
            started_at: self.started_at,
            adoptions: u64::from(self.info.adoptions),
            interfaces: interfaces.collect(),
            lease: self.lease_status(),
            last_reload: self.last_reload.clone(),
            alerts: self.agent_alerts(),
        }
    }

    fn lease_status(&self) -> Option<LeaseStatus> {
        let Lease::Valid(left) = self.dataplane.as_ref()?.lease() else { return None };
        Some(LeaseStatus {
            length_ms: milliseconds(self.config.agent.lease),
            left_ms: milliseconds(left),
            resume: self.config.agent.resume.into(),
            ran_out: self.lapses.last.map(|lapse| RanOut { at: lapse.since, lasted_ms: milliseconds(lapse.lasted) }),
        })
    }

    fn agent_alerts(&self) -> Vec<String> {
        let mut alerts = self.warnings.clone();
        if self.dataplane.is_none() {
            alerts.push("the data plane was detached: nothing is split until the agent is restarted".to_owned());
        }
        if self.dataplane.as_ref().is_some_and(|dataplane| matches!(dataplane.lease(), Lease::RanOut(_))) {
            let why = "services that are not to resume by themselves could not be flipped; it is tried again with each sample";
            alerts.push(format!("the lease has run out and is not renewed: {why}"));
        }
        if let Some(why) = &self.not_applied {
            alerts.push(format!("the data plane isn't what it should be, which is tried again every second: {why}"));
        }
        if let Unsaved::Failed(why) = &self.unsaved {
            alerts.push(format!("what happened lately is not kept, which is tried again every second: {why}"));
        }
        alerts.extend(self.archive.alert());
        for (what, table) in self.tables() {
            if table.used.saturating_mul(100) > table.capacity.saturating_mul(NEARLY_FULL) {
                let (used, capacity) = (table.used, table.capacity);
                let advice = "raise `connections` in [tables] or widen `ports` in [nat]";
                alerts.push(format!("the table {} is nearly full ({used} of {capacity}): {advice}", what.as_str()));
            }
        }
        alerts
    }

    fn tables(&self) -> Vec<(Table, TableUse)> {
        let tables = self.live.iter().flat_map(|live| [(Table::Affinity, live.affinity), (Table::Nat, live.nat)]);
        tables.filter(|(_, table)| table.capacity > 0).collect()
    }

    /// One service.
    pub(super) fn service_status(&self, desired: &Desired, now: Moment) -> ServiceStatus {
        let service = &desired.service;
        let sample = self.sample.services.get(&key(service)).filter(|_| self.dataplane.is_some());
        ServiceStatus {
            name: service.name.clone(),
            protocol: service.protocol,
            address: service.address,
            mode: service.mode,
            affinity: service.affinity,
            weights: Weights {
                asked: service.weight,
                in_force: sample.map(|sample| sample.weight),
                source: desired.weight_source.into(),
            },
            flip: desired.flip.clone().map(Into::into),
            breaker: sample.and_then(|sample| breaker_status(service, sample, now)),
            on_lease_expiry: Some(service.on_lease_expiry),
            canary_fallback: sample.map(|sample| sample.canary_fallback),
            refusals: sample.map(|sample| moved(&sample.refused)).unwrap_or_default(),
            cohorts: self
                .cohorts(desired)
                .into_iter()
                .map(|cohort| CohortStatus { recent: self.recent(service, cohort.cohort), ..cohort })
                .collect(),
            alerts: self.service_alerts(desired, now),
            rollout: self.rollout(&service.name).map(RolloutBrief::from),
        }
    }

    /// A service's rollout that goes on, or its last one.
    pub(super) fn rollout_status(&self, name: &ServiceName) -> CommandResult<RolloutStatus> {
        let desired = self.find(name)?;
        self.rollout(&desired.service.name).ok_or_else(|| CommandError::no_rollout(name))
    }

    fn rollout(&self, name: &ServiceName) -> Option<RolloutStatus> {
        let run = self.state.service(name)?.rollout.as_deref()?;
        Some(RolloutStatus::new(name, run))
    }

    fn service_alerts(&self, desired: &Desired, now: Moment) -> Vec<String> {
        let mut alerts = Vec::new();
        if !self.is_usable(desired, Cohort::Stable) {
            alerts.push("no stable backend can be used: new connections are refused".to_owned());
        }
        let has_canary = desired.service.backends.iter().any(|backend| backend.cohort == Cohort::Canary);
        if has_canary && !self.is_usable(desired, Cohort::Canary) {
            alerts.push("no canary backend can be used: the canary's share goes to stable".to_owned());
        }
        for backend in desired.service.backends.iter().filter(|backend| !backend.draining) {
            if let Err(no) = self.way(desired.service.mode, backend.address.ip()) {
                alerts.push(format!("backend {} gets no connections: {}", backend.address, no.why()));
            }
        }
        for label in self.exhausted(desired, now) {
            alerts.push(format!("connections were refused within the last minute: {label}"));
        }
        if let Some((_, why)) = self.conductors.get(&desired.service.name).and_then(|conductor| conductor.stuck.as_ref()) {
            alerts.push(format!("the rollout can't go on, which is tried again every second: {why}"));
        }
        alerts
    }

    /// The backends of a service.
    pub(super) fn backend_list(&self, name: &ServiceName) -> CommandResult<BackendList> {
        let desired = self.find(name)?;
        Ok(BackendList { service: name.clone(), cohorts: self.cohorts(desired) })
    }

    fn cohorts(&self, desired: &Desired) -> Vec<CohortStatus> {
        Cohort::ALL.into_iter().map(|cohort| CohortStatus::new(cohort, self.cohort(desired, cohort))).collect()
    }

    fn cohort(&self, desired: &Desired, cohort: Cohort) -> Vec<BackendStatus> {
        let service = &desired.service;
        let asked = service.backends.iter().filter(|backend| backend.cohort == cohort).map(|backend| BackendStatus {
            address: backend.address,
            weight: backend.weight,
            state: match self.way(service.mode, backend.address.ip()) {
                _ if backend.draining => BackendState::Draining,
                Ok(_) => BackendState::Active,
                Err(_) => BackendState::Unreachable,
            },
            connections: self.connections(desired, backend.address),
            way: self.wire_way(service.mode, backend.address.ip()),
            counters: self.backend_sample(desired, backend.address).map(|sample| counters(service, &sample.counters)),
        });
        let mut all: Vec<BackendStatus> = asked.collect();
        for (address, sample) in self.removed(desired, cohort) {
            all.push(BackendStatus {
                address,
                // An agent that took over a backend that was removed before doesn't know its weight; it has no share of anything any more.
                weight: self.removed.get(&(key(service), address)).copied().unwrap_or(BackendWeight::ONE),
                state: BackendState::Removed,
                connections: self.connections(desired, address),
                way: Way::Missing { missing: "not followed any more: packets go the way that was known last".to_owned() },
                counters: Some(counters(service, &sample.counters)),
            });
        }
        all
    }

    /// Backends that aren't asked for any more and are still there.
    fn removed(&self, desired: &Desired, cohort: Cohort) -> Vec<(SocketAddr, BackendSample)> {
        let Some(sample) = self.sample.services.get(&key(&desired.service)) else { return Vec::new() };
        let asked: HashSet<SocketAddr> = desired.service.backends.iter().map(|backend| backend.address).collect();
        let gone = sample.backends.iter().filter(|(address, sample)| sample.cohort == cohort && !asked.contains(*address));
        gone.map(|(address, sample)| (*address, *sample)).collect()
    }

    fn backend_sample(&self, desired: &Desired, backend: SocketAddr) -> Option<BackendSample> {
        let sample = self.sample.services.get(&key(&desired.service)).filter(|_| self.dataplane.is_some())?;
        sample.backends.get(&backend).copied()
    }

    /// The way to an address, in the API's words.
    pub(super) fn wire_way(&self, mode: Mode, to: IpAddr) -> Way {
        match self.way(mode, to) {
            Ok(way) => {
                let mac = way.destination_mac.map(|octet| format!("{octet:02x}")).join(":");
                Way::Known { interface: way.interface_name, mac }
            }
            Err(no_way) => Way::Missing { missing: no_way.why().to_owned() },
        }
    }

    /// A service's lists of networks.
    pub(super) fn networks(&self, name: &ServiceName) -> CommandResult<Networks> {
        let service = &self.find(name)?.service;
        let list = |list| service.networks(list).iter().copied().collect();
        Ok(Networks {
            service: name.clone(),
            always_canary: list(NetworkList::AlwaysCanary),
            never_canary: list(NetworkList::NeverCanary),
        })
    }

    /// Events after one that is known.
    pub(super) fn events_after(&self, id: u64) -> Vec<store::Event> {
        self.state.events_after(id).cloned().collect()
    }

    /// Everything that the metrics tell.
    pub(super) fn snapshot(&self) -> Snapshot {
        let tables = self.tables().into_iter();
        Snapshot {
            version: VERSION.to_owned(),
            adoptions: u64::from(self.info.adoptions),
            last_reload: self.last_reload.as_ref().map(|reload| LastReload { at: reload.at, ok: reload.ok }),
            sampling: self.sampling,
            lease_left: self.dataplane.as_ref().and_then(|dataplane| match dataplane.lease() {
                Lease::Valid(left) => Some(left),
                Lease::Released | Lease::RanOut(_) => None,
            }),
            leases_ran_out: self.lapses.count,
            lease_ran_out: self.lapses.last.map(|lapse| lapse.since),
            skipped: owned(&self.sample.skipped),
            dropped: owned(&self.sample.dropped),
            tables: tables.map(|(table, of)| TableSnapshot { table, capacity: of.capacity, used: Some(of.used) }).collect(),
            services: self.desired.iter().map(|desired| self.service_snapshot(desired)).collect(),
        }
    }

    fn service_snapshot(&self, desired: &Desired) -> ServiceSnapshot {
        let service = &desired.service;
        let sample = self.sample.services.get(&key(service)).filter(|_| self.dataplane.is_some());
        let flips = self.flips.iter().filter(|((name, _), _)| *name == service.name);
        ServiceSnapshot {
            name: service.name.clone(),
            weight_asked: service.weight,
            weight_in_force: sample.map(|sample| sample.weight),
            flip: desired.flip.as_ref().map(|flip| FlipCause::from(&flip.reason)),
            flips: flips.map(|((_, cause), count)| (*cause, *count)).collect(),
            breaker_tripped: sample.filter(|s| service.breaker.is_some() || s.trip.is_some()).map(|s| s.trip.is_some()),
            canary_fallback: sample.map(|sample| sample.canary_fallback),
            refusals: sample.map(|sample| owned(&sample.refused)).unwrap_or_default(),
            cohorts: Cohort::ALL.into_iter().map(|cohort| self.cohort_snapshot(desired, cohort)).collect(),
            rollout: self.rollout(&service.name),
        }
    }

    fn cohort_snapshot(&self, desired: &Desired, cohort: Cohort) -> CohortSnapshot {
        let backends = self.cohort(desired, cohort);
        let service = &desired.service;
        let sample = self.sample.services.get(&key(service)).filter(|_| self.dataplane.is_some());
        let times = sample.map(|sample| &sample.times[cohort]);
        CohortSnapshot {
            cohort,
            handshake: times.filter(|_| shows_handshakes(service)).map(|times| histogram(&times.handshake)),
            first_response: times.filter(|_| shows_responses(service)).map(|times| histogram(&times.first_response)),
            usable_backends: backends.iter().filter(|backend| backend.state == BackendState::Active).count() as u64,
            backends: backends
                .into_iter()
                .map(|backend| BackendSnapshot {
                    address: backend.address,
                    connections: backend.connections,
                    counters: backend.counters,
                })
                .collect(),
        }
    }
}

/// Replies don't pass the node in `dsr`: what only they could show is left out, not told as 0.
fn counters(service: &Service, counters: &dataplane::Counters) -> Counters {
    let nat = service.mode == Mode::Nat;
    Counters {
        to_backend: Traffic { packets: counters.packets_to, bytes: counters.bytes_to },
        from_backend: nat.then_some(Traffic { packets: counters.packets_from, bytes: counters.bytes_from }),
        opened: counters.opened,
        completed: counters.completed,
        refused: nat.then_some(counters.refused),
        timed_out: counters.timed_out,
        reset: counters.reset_by_backend.saturating_add(counters.reset_by_client),
        closed: counters.closed,
        reset_by_backend: nat.then_some(counters.reset_by_backend),
        unreachable: nat.then_some(counters.unreachable),
        retransmitted: (service.protocol == Protocol::Tcp).then_some(counters.retransmitted),
        established: Some(counters.established),
        ended: Some(counters.ended),
    }
}

/// None for a service that has no breaker, unless one that it had before has tripped.
fn breaker_status(service: &Service, sample: &ServiceSample, now: Moment) -> Option<BreakerStatus> {
    let trip = sample.trip.map(|trip| {
        let finding = finding(&trip, now);
        Trip { at: finding.tripped_at, cause: finding.cause, reason: finding.to_string() }
    });
    (service.breaker.is_some() || trip.is_some()).then_some(BreakerStatus { tripped: trip.is_some(), trip })
}

/// Times as the metrics tell them.
fn histogram(times: &dataplane::Times) -> Histogram {
    Histogram { sum: times.sum, counts: times.counts.clone() }
}

fn owned(labels: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    labels.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
}

/// Those that ever counted something.
fn moved(labels: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    let mut moved = owned(labels);
    moved.retain(|_, count| *count > 0);
    moved
}

impl From<AttachedMode> for AttachMode {
    fn from(mode: AttachedMode) -> Self {
        match mode {
            AttachedMode::Native => Self::Native,
            AttachedMode::Generic => Self::Generic,
        }
    }
}
