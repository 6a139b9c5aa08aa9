//! Readings of the data plane, and what follows from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    clock::{self, Moment},
    core::{AGENT, Core, NoWay, has_canary, key},
    keep::Unsaved,
};
use crate::{
    controller::{Cohorts, Count, Meter, Tally, Verdict, Window, judge},
    dataplane::{Counters, ServiceSample},
    desired::{self, Desired, Origin},
    model::{Breach, Cohort, Existing, ServiceName},
    store::{EventKind, Finding, FlipReason},
};

/// So long does an alert stay about connections for which there was no room.
const EXHAUSTED_FOR: Duration = Duration::from_secs(60);

/// What is measured of one service.
#[derive(Debug)]
pub(super) struct Gauge {
    meter: Meter,
    window: Window,
}

impl Gauge {
    fn new(window: Duration) -> Self {
        Self { meter: Meter::default(), window: Window::new(window) }
    }

    /// Forgets what happened, not where the counters stand.
    pub(super) fn clear(&mut self) {
        self.window.clear();
    }
}

impl Core {
    /// Reads the counters, and flips what has crossed a limit.
    pub(super) fn observe(&mut self, now: Moment) {
        let Some(dataplane) = &mut self.dataplane else { return };
        let began = clock::now().instant;
        self.sample = dataplane.sample();
        self.sampling = Some(clock::now().instant.saturating_duration_since(began));
        self.sampled_at = Some(began);
        self.flip_tripped(now);
        let findings: Vec<(ServiceName, Breach, Finding)> = self.measure(now.instant);
        for (name, limits, finding) in findings {
            self.flip_by_itself(&name, FlipReason::Breach { finding }, limits.existing, now);
        }
        self.conduct(now);
    }

    fn measure(&mut self, now: Instant) -> Vec<(ServiceName, Breach, Finding)> {
        let Self { desired, sample, gauges, .. } = self;
        gauges.retain(|name, _| desired.iter().any(|desired| desired.service.name == *name && desired.service.breach.is_some()));
        let mut findings = Vec::new();
        for Desired { service, flip, .. } in desired.iter() {
            let (Some(limits), Some(sample)) = (&service.breach, sample.services.get(&key(service))) else { continue };
            let gauge = gauges.entry(service.name.clone()).or_insert_with(|| Gauge::new(limits.window));
            if gauge.window.length() != limits.window {
                gauge.window = Window::new(limits.window);
            }
            let happened = gauge.meter.read(&counts(sample));
            if flip.is_some() || !has_canary(service) {
                continue;
            }
            gauge.window.add(now, happened);
            let window: Cohorts<Tally> = gauge.window.sum(now);
            match judge(limits, window) {
                Verdict::Breached(finding) => findings.push((service.name.clone(), *limits, finding)),
                Verdict::Healthy | Verdict::TooFewSamples { .. } => {}
            }
        }
        findings
    }

    /// Flips a service for a reason that nobody gave. Whether it could.
    pub(super) fn flip_by_itself(&mut self, name: &ServiceName, reason: FlipReason, existing: Existing, now: Moment) -> bool {
        let why = reason.to_string();
        let origin = Origin { at: now.at, by: AGENT };
        let flipped = desired::flip(&self.config, &self.state, name, reason, existing, origin)
            .map_err(|refusal| refusal.to_string())
            .and_then(|next| self.commit_flip(name, next, now).map_err(|error| error.to_string()));
        if let Err(error) = &flipped {
            tracing::error!(service = %name, why, %error, "a service could not be flipped");
        }
        flipped.is_ok()
    }

    /// What is done about once a second: count the living, tell what has ended, keep what isn't kept, try again what failed.
    pub(super) fn sweep(&mut self, now: Moment) {
        self.archive();
        let Some(dataplane) = &mut self.dataplane else {
            if self.unsaved != Unsaved::Nothing {
                self.save();
            }
            return;
        };
        self.live = Some(dataplane.sweep());
        self.note_recent();
        let sample = &self.sample;
        self.removed
            .retain(|(key, backend), _| sample.services.get(key).is_some_and(|service| service.backends.contains_key(backend)));
        self.note_drained(now);
        self.note_exhausted(now);
        if self.not_applied.is_some() {
            self.reapply(now);
        }
        if self.unsaved != Unsaved::Nothing {
            self.save();
        }
    }

    /// How many connections a backend has, if they were counted.
    pub(super) fn connections(&self, desired: &Desired, backend: SocketAddr) -> Option<u64> {
        let live = self.live.as_ref()?;
        // A backend that isn't there was counted, too: it has none.
        Some(live.connections.get(&(key(&desired.service), backend)).copied().unwrap_or_default())
    }

    /// The first sweep: what has ended already isn't told again.
    pub(super) fn look_around(&mut self) {
        self.live = self.dataplane.as_mut().map(|dataplane| dataplane.sweep());
        self.note_recent();
        self.told.drained = self.drained();
    }

    /// Backends that drain and have no connections left.
    fn drained(&self) -> BTreeSet<(ServiceName, SocketAddr)> {
        let mut drained = BTreeSet::new();
        for desired in &self.desired {
            for backend in desired.service.backends.iter().filter(|backend| backend.draining) {
                if self.connections(desired, backend.address) == Some(0) {
                    drained.insert((desired.service.name.clone(), backend.address));
                }
            }
        }
        drained
    }

    fn note_drained(&mut self, now: Moment) {
        let empty = self.drained();
        let news: Vec<_> = empty.difference(&self.told.drained).cloned().collect();
        self.told.drained = empty;
        for (service, backend) in news {
            self.record(now, Some(&service), EventKind::BackendDrained { backend });
        }
    }

    fn note_exhausted(&mut self, now: Moment) {
        for (key, service) in &self.sample.services {
            for label in ["ports_exhausted", "affinity_full"] {
                let count = service.refused.get(label).copied().unwrap_or_default();
                let (before, moved) = self.told.exhausted.entry((*key, label)).or_insert((count, None));
                if count > *before {
                    *moved = Some(now.instant);
                }
                *before = count;
            }
        }
    }

    /// Whether connections were refused lately for want of room.
    pub(super) fn exhausted(&self, desired: &Desired, now: Moment) -> Vec<&'static str> {
        let key = key(&desired.service);
        let lately = |moved: Option<Instant>| moved.is_some_and(|at| now.instant.saturating_duration_since(at) < EXHAUSTED_FOR);
        let all = self.told.exhausted.iter().filter(|((of, _), (_, moved))| *of == key && lately(*moved));
        all.map(|((_, label), _)| *label).collect()
    }

    /// Tells about backends that can't be reached any more, or can again, and what that means for their cohorts.
    pub(super) fn note_reachability(&mut self, now: Moment) {
        let mut news = Vec::new();
        let (mut unreachable, mut unusable) = (BTreeSet::new(), BTreeSet::new());
        for desired in &self.desired {
            let service = &desired.service;
            let name = &service.name;
            for backend in &service.backends {
                let id = (name.clone(), backend.address);
                let was = self.told.unreachable.contains(&id);
                match self.way(service.mode, backend.address.ip()) {
                    Ok(_) if was => news.push((name.clone(), EventKind::BackendReachable { backend: backend.address })),
                    Ok(_) => {}
                    Err(NoWay::Pending(_)) if !was => {}
                    Err(NoWay::Pending(_)) => drop(unreachable.insert(id)),
                    Err(NoWay::Now(why) | NoWay::Never(why)) => {
                        if !was {
                            news.push((name.clone(), EventKind::BackendUnreachable { backend: backend.address, why }));
                        }
                        unreachable.insert(id);
                    }
                }
            }
            for cohort in Cohort::ALL {
                let listed = service.backends.iter().any(|backend| backend.cohort == cohort);
                let was = self.told.unusable.contains(&(name.clone(), cohort));
                if self.is_usable(desired, cohort) || !listed {
                    if was && cohort == Cohort::Stable {
                        news.push((name.clone(), EventKind::StableBackendBack));
                    }
                    continue;
                }
                unusable.insert((name.clone(), cohort));
                if !was {
                    let kind = match cohort {
                        Cohort::Stable => EventKind::NoStableBackend,
                        Cohort::Canary => EventKind::NoCanaryBackend,
                    };
                    news.push((name.clone(), kind));
                }
            }
        }
        self.told.unreachable = unreachable;
        self.told.unusable = unusable;
        for (service, kind) in news {
            self.record(now, Some(&service), kind);
        }
    }

    /// Whether a cohort has a backend that gets new connections.
    pub(super) fn is_usable(&self, desired: &Desired, cohort: Cohort) -> bool {
        let service = &desired.service;
        let mut backends = service.backends.iter().filter(|backend| backend.cohort == cohort && !backend.draining);
        backends.any(|backend| self.way(service.mode, backend.address.ip()).is_ok())
    }
}

pub(super) fn counts(sample: &ServiceSample) -> BTreeMap<SocketAddr, Count> {
    let count = |counters: &Counters| Tally {
        opened: counters.opened,
        completed: counters.completed,
        refused: counters.refused,
        timed_out: counters.timed_out,
        reset: counters.reset_by_backend,
    };
    sample.backends.iter().map(|(a, backend)| (*a, Count { cohort: backend.cohort, tally: count(&backend.counters) })).collect()
}
