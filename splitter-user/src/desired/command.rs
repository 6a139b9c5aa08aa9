//! What can be asked of a service while it runs. Each command takes a state and gives a new one, with an event in it, or
//! a refusal; the state it was given is never changed, so that a refused command leaves no trace.

use std::net::SocketAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::{merge, merged, rollout::told};
use crate::{
    config::{
        Config,
        rules::{self, Violation},
    },
    controller::rollout::{self, Cannot},
    model::{Backend, BackendWeight, Cohort, Existing, NetworkList, Service, ServiceName, Weight},
    store::{AddedBackend, AskedBackendWeight, AskedWeight, EventKind, Flip, FlipReason, Phase, ServiceState, State},
};

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// When.
    pub at: Timestamp,
    /// Who: as events will name them.
    pub by: &'a str,
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such service.
    #[error("no service is named \"{service}\"{}", hint(nearest.as_ref()))]
    UnknownService {
        /// As asked.
        service: ServiceName,
        /// The one that was probably meant.
        nearest: Option<ServiceName>,
    },
    /// No such backend.
    #[error("service \"{service}\" has no backend {backend}: `splitter backend list {service}` shows those it has")]
    UnknownBackend {
        /// The service.
        service: ServiceName,
        /// As asked.
        backend: SocketAddr,
    },
    /// It is there already.
    #[error("{backend} is a {cohort} backend of service \"{service}\" already: to change it, remove it first, or set its weight")]
    BackendExists {
        /// The service.
        service: ServiceName,
        /// As asked.
        backend: SocketAddr,
        /// The cohort that it is in.
        cohort: Cohort,
    },
    /// It drains already.
    #[error("backend {backend} of service \"{service}\" is draining already")]
    AlreadyDraining {
        /// The service.
        service: ServiceName,
        /// As asked.
        backend: SocketAddr,
    },
    /// It doesn't drain.
    #[error("backend {backend} of service \"{service}\" is not draining")]
    NotDraining {
        /// The service.
        service: ServiceName,
        /// As asked.
        backend: SocketAddr,
    },
    /// It is flipped already, with the same fate for established connections.
    #[error("service \"{service}\" is flipped already, since {}, by {}: {}", flip.at, flip.by, flip.reason)]
    AlreadyFlipped {
        /// The service.
        service: ServiceName,
        /// The flip in force.
        flip: Box<Flip>,
    },
    /// There is nothing to take back.
    #[error("service \"{service}\" is not flipped")]
    NotFlipped {
        /// The service.
        service: ServiceName,
    },
    /// The network is in the list already.
    #[error("{network} is in {list} of service \"{service}\" already")]
    NetworkExists {
        /// The service.
        service: ServiceName,
        /// As asked.
        network: IpNet,
        /// The list.
        list: NetworkList,
    },
    /// The network is in the other list.
    #[error("{network} is in {} of service \"{service}\": a network is in one of the two lists, remove it there first", list.other())]
    NetworkInOther {
        /// The service.
        service: ServiceName,
        /// As asked.
        network: IpNet,
        /// The list that it was to be added to.
        list: NetworkList,
    },
    /// No such network in the list.
    #[error("{network} is not in {list} of service \"{service}\": `splitter network list {service}` shows what is")]
    UnknownNetwork {
        /// The service.
        service: ServiceName,
        /// As asked.
        network: IpNet,
        /// The list.
        list: NetworkList,
    },
    /// Its rollout decides about the weight.
    #[error(
        "rollout {id} of service \"{service}\" is not over: `splitter rollout status {service}` shows it, `splitter rollout abort {service}` ends it"
    )]
    RolloutRuns {
        /// The service.
        service: ServiceName,
        /// The rollout's number.
        id: u64,
    },
    /// Its rollout was flipped, and is to be decided about.
    #[error(
        "rollout {id} of service \"{service}\" was flipped: `splitter rollout retry {service}` begins again with the first step, `splitter rollout abort {service}` \
         gives it up"
    )]
    RolloutFlipped {
        /// The service.
        service: ServiceName,
        /// The rollout's number.
        id: u64,
    },
    /// It has had no rollout.
    #[error("service \"{service}\" has no rollout: `splitter rollout start {service}` begins one")]
    NoRollout {
        /// The service.
        service: ServiceName,
    },
    /// It has no plan.
    #[error("service \"{service}\" has no plan: write [service.rollout] into the configuration, see docs/rollouts.md")]
    NoPlan {
        /// The service.
        service: ServiceName,
    },
    /// Nobody would get the canary's share.
    #[error("service \"{service}\" has no canary backend that takes connections: add one, or undrain one")]
    NoCanary {
        /// The service.
        service: ServiceName,
    },
    /// A flipped service isn't rolled out.
    #[error(
        "service \"{service}\" is flipped, since {}, by {}: {}; `splitter unflip {service}` first, when that is settled",
        flip.at, flip.by, flip.reason
    )]
    FlippedAlready {
        /// The service.
        service: ServiceName,
        /// The flip in force.
        flip: Box<Flip>,
    },
    /// The rollout's state is in the way.
    #[error("rollout {id} of service \"{service}\": {cannot}: {}", cannot.remedy)]
    Rollout {
        /// The service.
        service: ServiceName,
        /// The rollout's number.
        id: u64,
        /// What it is, and what to do instead.
        cannot: Cannot,
    },
    /// The result would break rules that hold for the configuration as well.
    #[error("{}", sentences(violations))]
    Invalid {
        /// The rules.
        violations: Vec<Violation>,
    },
}

/// Sets the canary's share of new connections. The configured weight itself is the same as asking for none.
///
/// # Errors
/// The service isn't known.
pub fn set_weight(
    config: &Config,
    state: &State,
    service: &ServiceName,
    weight: Weight,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |configured, effective, asked| {
        has_ended(service, asked)?;
        let over = AskedWeight { weight, configured: configured.weight };
        asked.weight = (weight != configured.weight).then_some(over);
        let changed = EventKind::WeightChanged { from: effective.weight, to: weight, by: origin.by.to_owned() };
        Ok((weight != effective.weight).then_some(changed))
    })
}

/// Sends everything to stable. A service that is flipped already keeps the reason and the time of that; only what happens
/// to established connections is changed then.
///
/// # Errors
/// The service isn't known, or is flipped already in just this way.
pub fn flip(
    config: &Config,
    state: &State,
    service: &ServiceName,
    reason: FlipReason,
    existing: Existing,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    // No rule may stand in the way of a flip.
    let next = change_unchecked(config, state, service, origin, |_, _, asked| {
        let by = origin.by.to_owned();
        if let Some(run) = &mut asked.rollout {
            **run = rollout::flipped(run, &reason, origin.at);
        }
        match &mut asked.flip {
            Some(flip) if flip.existing == existing => {
                Err(Refusal::AlreadyFlipped { service: service.clone(), flip: Box::new(flip.clone()) })
            }
            Some(flip) => {
                flip.existing = existing;
                Ok(Some(EventKind::FlipChanged { existing, by }))
            }
            None => {
                asked.flip = Some(Flip { at: origin.at, by: by.clone(), reason: reason.clone(), existing });
                Ok(Some(EventKind::Flipped { reason, existing, by }))
            }
        }
    })?;
    Ok(told(state, next, service, origin))
}

/// Takes a flip back: the weight counts again.
///
/// # Errors
/// The service isn't known, or isn't flipped.
pub fn unflip(config: &Config, state: &State, service: &ServiceName, origin: Origin<'_>) -> Result<State, Refusal> {
    change_unchecked(config, state, service, origin, |_, effective, asked| {
        if let Some(run) = asked.rollout.as_deref().filter(|run| matches!(run.phase, Phase::Flipped { .. })) {
            return Err(Refusal::RolloutFlipped { service: service.clone(), id: run.id });
        }
        if asked.flip.take().is_none() {
            return Err(Refusal::NotFlipped { service: service.clone() });
        }
        Ok(Some(EventKind::Unflipped { weight: effective.weight, by: origin.by.to_owned() }))
    })
}

/// That no rollout has still to be decided about.
pub(super) fn has_ended(service: &ServiceName, asked: &ServiceState) -> Result<(), Refusal> {
    let Some(run) = asked.rollout.as_deref() else { return Ok(()) };
    let (service, id) = (service.clone(), run.id);
    match run.phase {
        Phase::Stepping { .. } | Phase::Gate { .. } | Phase::Paused { .. } | Phase::Promoting { .. } => {
            Err(Refusal::RolloutRuns { service, id })
        }
        Phase::Flipped { .. } => Err(Refusal::RolloutFlipped { service, id }),
        Phase::Promoted | Phase::Aborted { .. } => Ok(()),
    }
}

/// Adds a backend.
///
/// # Errors
/// The service isn't known, has the backend already, or can't have it by the rules.
pub fn add_backend(
    config: &Config,
    state: &State,
    service: &ServiceName,
    backend: SocketAddr,
    cohort: Cohort,
    weight: BackendWeight,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |configured, effective, asked| {
        if let Some(there) = find(effective, backend) {
            return Err(Refusal::BackendExists { service: service.clone(), backend, cohort: there.cohort });
        }
        let overlay = &mut asked.backends;
        match find(configured, backend) {
            // Removed before, and now back as it is configured.
            Some(own) if own.cohort == cohort => {
                overlay.removed.remove(&backend);
                if own.weight != weight {
                    overlay.weights.insert(backend, AskedBackendWeight { weight, configured: own.weight });
                }
            }
            // Removed before: it stays so as it is configured, and is another backend now.
            Some(_) | None => {
                overlay.added.insert(backend, AddedBackend { cohort, weight });
            }
        }
        Ok(Some(EventKind::BackendAdded { backend, cohort, weight, by: origin.by.to_owned() }))
    })
}

/// Removes a backend, at once; see [`drain`] for the gentle way.
///
/// # Errors
/// The service or the backend isn't known, or no stable backend would be left to take connections.
pub fn remove_backend(
    config: &Config,
    state: &State,
    service: &ServiceName,
    backend: SocketAddr,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |_, effective, asked| {
        let cohort = known(service, effective, backend)?.cohort;
        let overlay = &mut asked.backends;
        if overlay.added.remove(&backend).is_none() {
            overlay.removed.insert(backend);
        }
        overlay.weights.remove(&backend);
        overlay.promoted.remove(&backend);
        overlay.draining.remove(&backend);
        overlay.retired.remove(&backend);
        Ok(Some(EventKind::BackendRemoved { backend, cohort, by: origin.by.to_owned() }))
    })
}

/// Gives a backend no new connections; those it has go on.
///
/// # Errors
/// The service or the backend isn't known, the backend drains already, or no stable backend would be left to take connections.
pub fn drain(
    config: &Config,
    state: &State,
    service: &ServiceName,
    backend: SocketAddr,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |_, effective, asked| {
        known(service, effective, backend)?;
        if !asked.backends.draining.insert(backend) {
            return Err(Refusal::AlreadyDraining { service: service.clone(), backend });
        }
        Ok(Some(EventKind::BackendDraining { backend, by: origin.by.to_owned() }))
    })
}

/// Gives a draining backend new connections again.
///
/// # Errors
/// The service or the backend isn't known, or the backend doesn't drain.
pub fn undrain(
    config: &Config,
    state: &State,
    service: &ServiceName,
    backend: SocketAddr,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |_, effective, asked| {
        known(service, effective, backend)?;
        asked.backends.retired.remove(&backend);
        if !asked.backends.draining.remove(&backend) {
            return Err(Refusal::NotDraining { service: service.clone(), backend });
        }
        Ok(Some(EventKind::BackendUndrained { backend, by: origin.by.to_owned() }))
    })
}

/// Sets a backend's share inside its cohort.
///
/// # Errors
/// The service or the backend isn't known.
pub fn set_backend_weight(
    config: &Config,
    state: &State,
    service: &ServiceName,
    backend: SocketAddr,
    weight: BackendWeight,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |configured, effective, asked| {
        let from = known(service, effective, backend)?.weight;
        let overlay = &mut asked.backends;
        if let Some(added) = overlay.added.get_mut(&backend) {
            added.weight = weight;
        } else if let Some(own) = find(configured, backend) {
            overlay.weights.remove(&backend);
            if own.weight != weight {
                overlay.weights.insert(backend, AskedBackendWeight { weight, configured: own.weight });
            }
        }
        let changed = EventKind::BackendWeightChanged { backend, from, to: weight, by: origin.by.to_owned() };
        Ok((from != weight).then_some(changed))
    })
}

/// Adds a network to a list.
///
/// # Errors
/// The service isn't known, the network is in one of its lists already, or can't be by the rules.
pub fn add_network(
    config: &Config,
    state: &State,
    service: &ServiceName,
    list: NetworkList,
    network: IpNet,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |configured, effective, asked| {
        put_in(service, configured, &mut effective.clone(), asked, list, network)?;
        Ok(Some(EventKind::NetworkAdded { network, list, by: origin.by.to_owned() }))
    })
}

/// Removes a network from a list.
///
/// # Errors
/// The service isn't known, or the network isn't in that list.
pub fn remove_network(
    config: &Config,
    state: &State,
    service: &ServiceName,
    list: NetworkList,
    network: IpNet,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    change(config, state, service, origin, |_, effective, asked| {
        take_out(service, &mut effective.clone(), asked, list, network)?;
        Ok(Some(EventKind::NetworkRemoved { network, list, by: origin.by.to_owned() }))
    })
}

/// Takes networks out of a list and puts others in, all of them or none.
///
/// # Errors
/// As of [`remove_network`] and [`add_network`], for the first that can't be.
pub fn change_networks(
    config: &Config,
    state: &State,
    service: &ServiceName,
    list: NetworkList,
    (remove, add): (&[IpNet], &[IpNet]),
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    match (remove, add) {
        ([], [network]) => add_network(config, state, service, list, *network, origin),
        ([network], []) => remove_network(config, state, service, list, *network, origin),
        (remove, add) => change(config, state, service, origin, |configured, effective, asked| {
            let mut effective = effective.clone();
            for network in remove {
                take_out(service, &mut effective, asked, list, *network)?;
            }
            for network in add {
                put_in(service, configured, &mut effective, asked, list, *network)?;
            }
            let by = origin.by.to_owned();
            let changed = EventKind::NetworksChanged { list, added: add.len(), removed: remove.len(), by };
            Ok((!add.is_empty() || !remove.is_empty()).then_some(changed))
        }),
    }
}

fn put_in(
    service: &ServiceName,
    configured: &Service,
    effective: &mut Service,
    asked: &mut ServiceState,
    list: NetworkList,
    network: IpNet,
) -> Result<(), Refusal> {
    if effective.networks(list.other()).contains(&network) {
        return Err(Refusal::NetworkInOther { service: service.clone(), network, list });
    }
    if !effective.networks_mut(list).insert(network) {
        return Err(Refusal::NetworkExists { service: service.clone(), network, list });
    }
    if configured.networks(list).contains(&network) {
        asked.networks.removed.remove(&network);
    } else {
        asked.networks.added.insert(network, list);
    }
    Ok(())
}

fn take_out(
    service: &ServiceName,
    effective: &mut Service,
    asked: &mut ServiceState,
    list: NetworkList,
    network: IpNet,
) -> Result<(), Refusal> {
    if !effective.networks_mut(list).remove(&network) {
        return Err(Refusal::UnknownNetwork { service: service.clone(), network, list });
    }
    if asked.networks.added.remove(&network).is_none() {
        asked.networks.removed.insert(network);
    }
    Ok(())
}

/// Several broken rules in one line.
pub(super) fn sentences(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("{}: {}", violation.label, violation.rule)).collect::<Vec<_>>().join("; ")
}

/// Applies a change, and holds the result against the rules.
pub(super) fn change(
    config: &Config,
    state: &State,
    name: &ServiceName,
    origin: Origin<'_>,
    apply: impl FnOnce(&Service, &Service, &mut ServiceState) -> Result<Option<EventKind>, Refusal>,
) -> Result<State, Refusal> {
    let next = change_unchecked(config, state, name, origin, apply)?;
    let violations = rules::check_services(&merged(config, &next), &config.nat, &config.tables);
    if violations.is_empty() { Ok(next) } else { Err(Refusal::Invalid { violations }) }
}

/// Applies a change: `apply` gets the service as configured and as it is in effect, and what was asked of it so far.
pub(super) fn change_unchecked(
    config: &Config,
    state: &State,
    name: &ServiceName,
    origin: Origin<'_>,
    apply: impl FnOnce(&Service, &Service, &mut ServiceState) -> Result<Option<EventKind>, Refusal>,
) -> Result<State, Refusal> {
    let Some(configured) = config.services.iter().find(|service| service.name == *name) else {
        return Err(Refusal::UnknownService { service: name.clone(), nearest: nearest(config, name) });
    };
    let mut next = state.clone();
    let asked = next.services.entry(name.clone()).or_default();
    let effective = merge(configured, Some(asked));
    let kind = apply(configured, &effective, asked)?;
    if *asked == ServiceState::default() {
        next.services.remove(name);
    }
    if let Some(kind) = kind {
        next.record(origin.at, Some(name.clone()), kind);
    }
    Ok(next)
}

fn find(service: &Service, address: SocketAddr) -> Option<&Backend> {
    service.backends.iter().find(|backend| backend.address == address)
}

fn known<'s>(name: &ServiceName, service: &'s Service, backend: SocketAddr) -> Result<&'s Backend, Refusal> {
    find(service, backend).ok_or_else(|| Refusal::UnknownBackend { service: name.clone(), backend })
}

fn nearest(config: &Config, name: &ServiceName) -> Option<ServiceName> {
    let distance = |other: &ServiceName| strsim::damerau_levenshtein(name.as_str(), other.as_str());
    let names = config.services.iter().map(|service| &service.name);
    names.min_by_key(|other| distance(other)).filter(|other| distance(other) <= (name.as_str().len() / 3).max(1)).cloned()
}

fn hint(nearest: Option<&ServiceName>) -> String {
    nearest
        .map_or_else(|| ": `splitter status` lists the services".to_owned(), |nearest| format!(", did you mean \"{nearest}\"?"))
}
