//! A state meets a configuration that it wasn't made for: what no longer means anything, or breaks a rule now, is dropped.
//! In doubt the configuration counts. Flips and seeds are never dropped.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use ipnet::IpNet;
use jiff::Timestamp;

use super::merged;
use crate::{
    config::{
        Config,
        rules::{self, Rule},
    },
    model::{Backend, Cohort, NetworkList, Service, ServiceName},
    store::{BackendOverlay, EventKind, NetworkOverlay, ServiceState, State},
};

/// The state for a configuration, with an event for each thing that was dropped. With its result, and seeds,
/// [`services`](super::services) always succeeds; a state that fits already comes back as it was.
#[must_use]
pub fn reconcile(config: &Config, state: &State, at: Timestamp) -> State {
    let configured: HashMap<&ServiceName, &Service> = config.services.iter().map(|service| (&service.name, service)).collect();
    let mut next = state.clone();
    let mut dropped = Dropped::default();
    for (name, asked) in &mut next.services {
        match configured.get(name) {
            Some(service) => tidy(service, asked, dropped.of(name)),
            None => forget(asked, dropped.of(name)),
        }
    }
    next.services.retain(|_, asked| *asked != ServiceState::default());

    for step in [Step::Promotions, Step::Changes, Step::Promotions, Step::Drains, Step::Everything] {
        let violations = rules::check_services(&merged(config, &next), &config.nat, &config.tables);
        let Some(first) = violations.first() else { break };
        // A rule about all services together (a table that is full) is broken by any of them.
        let everywhere = step == Step::Everything || violations.iter().any(|violation| violation.service.is_none());
        let of = |index| violations.iter().filter(move |violation| violation.service == Some(index));
        let broken = |index| match step {
            Step::Promotions => of(index).any(|violation| violation.rule == Rule::NoStable),
            Step::Changes | Step::Drains | Step::Everything => everywhere || of(index).next().is_some(),
        };
        for (index, service) in config.services.iter().enumerate().filter(|(index, _)| broken(*index)) {
            let Some(asked) = next.services.get_mut(&service.name) else { continue };
            let own = of(index).next().unwrap_or(first);
            let dropped = dropped.of(&service.name);
            step.drop_from(asked, &own.rule.to_string(), dropped);
            tidy(service, asked, dropped);
        }
    }
    dropped.record(&mut next, at);
    next
}

/// What is given up for the configuration's sake, one after the other until it fits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Promotions that leave a service without stable backends, for its lists were changed or what was added is dropped, and what they took out of use.
    Promotions,
    /// Added and removed backends and networks of the services that break a rule.
    Changes,
    /// Their drains and backend weights.
    Drains,
    /// The same of every service: only the configuration is left, which is valid by itself.
    Everything,
}

impl Step {
    fn drop_from(self, asked: &mut ServiceState, why: &str, dropped: &mut Vec<EventKind>) {
        let overlay = &mut asked.backends;
        let mut gone = Vec::new();
        if matches!(self, Self::Changes | Self::Everything) {
            let changed = std::mem::take(&mut overlay.added).into_keys().map(added_backend);
            gone.extend(changed.chain(std::mem::take(&mut overlay.removed).into_iter().map(removed_backend)));
            let NetworkOverlay { added, removed } = std::mem::take(&mut asked.networks);
            gone.extend(added.into_iter().map(|(network, list)| added_network(network, list)));
            gone.extend(removed.into_iter().map(removed_network));
        }
        if matches!(self, Self::Promotions | Self::Everything) {
            gone.extend(std::mem::take(&mut overlay.promoted).into_iter().map(|(address, over)| promotion(address, over.cohort)));
            for retired in std::mem::take(&mut overlay.retired) {
                overlay.draining.remove(&retired);
            }
        }
        if matches!(self, Self::Drains | Self::Everything) {
            gone.extend(std::mem::take(&mut overlay.draining).into_iter().map(draining));
            gone.extend(std::mem::take(&mut overlay.weights).into_keys().map(backend_weight));
        }
        dropped.extend(gone.into_iter().map(|what| void(what, why)));
    }
}

/// Drops what the service's configuration made void.
fn tidy(service: &Service, asked: &mut ServiceState, dropped: &mut Vec<EventKind>) {
    if let Some(over) = asked.weight
        && over.configured != service.weight
    {
        asked.weight = None;
        dropped.push(EventKind::WeightFromConfiguration { asked: over.weight, configured: service.weight });
    }
    tidy_backends(service, &mut asked.backends, dropped);
    tidy_networks(service, &mut asked.networks, dropped);
}

fn tidy_backends(service: &Service, overlay: &mut BackendOverlay, dropped: &mut Vec<EventKind>) {
    let configured: HashMap<SocketAddr, &Backend> = service.backends.iter().map(|b| (b.address, b)).collect();
    let BackendOverlay { added, removed, weights, draining: drains, promoted, retired } = overlay;
    removed.retain(|address| keep(configured.contains_key(address), dropped, || void(removed_backend(*address), NOT_LISTED)));
    added.retain(|address, added| {
        let keeps = match configured.get(address) {
            None => true,
            // As another cohort's it was added after it was removed here.
            Some(own) if removed.contains(address) && own.cohort != added.cohort => true,
            Some(_) => {
                removed.remove(address);
                false
            }
        };
        keep(keeps, dropped, || void(added_backend(*address), "the configuration lists it itself"))
    });
    weights.retain(|address, over| {
        let same = configured.get(address).is_some_and(|own| own.weight == over.configured) && !removed.contains(address);
        keep(same, dropped, || void(backend_weight(*address), "the configuration changed it"))
    });
    drains.retain(|address| {
        let there = added.contains_key(address) || (configured.contains_key(address) && !removed.contains(address));
        keep(there, dropped, || void(draining(*address), "the service no longer has it"))
    });
    retired.retain(|address| drains.contains(address));
    promoted.retain(|address, over| {
        let same = configured.get(address).is_some_and(|own| own.cohort == over.configured) && !removed.contains(address);
        keep(same, dropped, || {
            void(promotion(*address, over.cohort), "the configuration changed its cohort, or no longer lists it")
        })
    });
}

fn tidy_networks(service: &Service, overlay: &mut NetworkOverlay, dropped: &mut Vec<EventKind>) {
    let configured = |network: &IpNet| NetworkList::ALL.into_iter().find(|list| service.networks(*list).contains(network));
    let NetworkOverlay { added, removed } = overlay;
    removed.retain(|network| keep(configured(network).is_some(), dropped, || void(removed_network(*network), NOT_LISTED)));
    added.retain(|network, list| {
        let keeps = match configured(network) {
            None => true,
            Some(own) if removed.contains(network) && own != *list => true,
            Some(_) => {
                removed.remove(network);
                false
            }
        };
        keep(keeps, dropped, || void(added_network(*network, *list), "the configuration lists it itself"))
    });
}

/// What is left of a service that the configuration doesn't name: should it come back, it is still flipped, its clients find the same places, and what its rollout left (backends that were
/// promoted or taken out of use, no weight after an abort) counts as if it had never been away.
fn forget(asked: &mut ServiceState, dropped: &mut Vec<EventKind>) {
    let before = asked.clone();
    let ServiceState { seed, flip, rollout, past, weight, backends, .. } = before.clone();
    let (left, what) = if rollout.is_some() {
        let left = ServiceState { seed, flip, rollout, past, weight, backends, ..ServiceState::default() };
        (left, "the changes to its networks")
    } else {
        (ServiceState { seed, flip, past, ..ServiceState::default() }, "everything but its seed and its flip")
    };
    if left != before {
        *asked = left;
        dropped.push(void(what.to_owned(), "the configuration doesn't name the service"));
    }
}

const NOT_LISTED: &str = "the configuration no longer lists it";

fn added_backend(address: SocketAddr) -> String {
    format!("the addition of backend {address}")
}

fn removed_backend(address: SocketAddr) -> String {
    format!("the removal of backend {address}")
}

fn backend_weight(address: SocketAddr) -> String {
    format!("the weight of backend {address}")
}

fn draining(address: SocketAddr) -> String {
    format!("the draining of backend {address}")
}

fn promotion(address: SocketAddr, to: Cohort) -> String {
    format!("the promotion of backend {address} to {to}")
}

fn added_network(network: IpNet, list: NetworkList) -> String {
    format!("the addition of {network} to {list}")
}

fn removed_network(network: IpNet) -> String {
    format!("the removal of {network}")
}

fn void(what: String, why: &str) -> EventKind {
    EventKind::RequestDropped { what, why: why.to_owned() }
}

/// For `retain`: notes what isn't kept.
fn keep(keeps: bool, dropped: &mut Vec<EventKind>, event: impl FnOnce() -> EventKind) -> bool {
    if !keeps {
        dropped.push(event());
    }
    keeps
}

/// What was dropped, by service.
#[derive(Default)]
struct Dropped(BTreeMap<ServiceName, Vec<EventKind>>);

impl Dropped {
    /// So many of one service are told one by one; the rest is counted, so that a list of networks doesn't push everything
    /// else out of the events.
    const TOLD: usize = 20;

    fn of(&mut self, name: &ServiceName) -> &mut Vec<EventKind> {
        self.0.entry(name.clone()).or_default()
    }

    fn record(self, state: &mut State, at: Timestamp) {
        for (name, mut kinds) in self.0 {
            let more = kinds.len().saturating_sub(Self::TOLD);
            kinds.truncate(Self::TOLD);
            if more > 0 {
                kinds.push(void(format!("{more} more changes"), "for the same reasons"));
            }
            for kind in kinds {
                state.record(at, Some(name.clone()), kind);
            }
        }
    }
}
