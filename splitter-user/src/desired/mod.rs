//! What is asked for: the configuration, with what commands asked laid over it. Pure.
//!
//! [`services`] is the merge, [`reconcile()`] drops from the state what a changed configuration made void, and each command
//! is a function from a state to a new one, or to a refusal. All are held to the configuration's own rules
//! ([`crate::config::rules`]); what the semantics are for the user stands in `docs/configuration.md`.

mod command;
mod reconcile;
mod rollout;

#[cfg(test)]
mod tests;

use std::{collections::HashSet, net::SocketAddr, path::Path};

use jiff::Timestamp;

pub use command::{
    Origin, Refusal, add_backend, add_network, change_networks, drain, flip, remove_backend, remove_network, set_backend_weight,
    set_weight, undrain, unflip,
};
pub use reconcile::reconcile;
pub use rollout::{ask_rollout, move_rollout, promote_rollout, retry_rollout, start_rollout};

use crate::{
    config::{
        Config,
        rules::{self, Violation},
    },
    controller,
    model::{Backend, Existing, Seed, Service, ServiceName, Weight},
    store::{EventKind, Flip, FlipReason, ServiceState, State},
};

/// One service as the data plane is to run it.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The service with everything that was asked; its weight is the one asked for.
    pub service: Service,
    /// Everything goes to stable, for this reason.
    pub flip: Option<Flip>,
    /// The secret of its hash: the configuration's, or else the one that the agent made.
    pub seed: Seed,
    /// The canary's share now: 0 while flipped.
    pub weight_in_force: Weight,
    /// Where the weight asked for comes from.
    pub weight_source: WeightSource,
}

/// Where a weight comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightSource {
    /// The configuration.
    Config,
    /// A command that overrides it.
    Command,
    /// A rollout that is going on.
    Rollout,
}

/// There is no valid answer to what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesiredError {
    /// A service has no seed in the configuration, and [`give_seeds`] was not called.
    #[error("service \"{service}\" has no seed")]
    NoSeed {
        /// The service.
        service: ServiceName,
    },
    /// Configuration and state break rules together: the state was not [reconciled](reconcile()).
    #[error("what commands asked does not fit the configuration: {}", command::sentences(violations))]
    Invalid {
        /// The rules.
        violations: Vec<Violation>,
    },
}

/// The services as asked for, in the order of the configuration.
///
/// # Errors
/// The state wasn't made for this configuration: see [`reconcile()`] and [`give_seeds`], after which this always succeeds.
pub fn services(config: &Config, state: &State) -> Result<Vec<Desired>, DesiredError> {
    let merged = merged(config, state);
    let violations = rules::check_services(&merged, &config.nat, &config.tables);
    if !violations.is_empty() {
        return Err(DesiredError::Invalid { violations });
    }
    let desired = |(service, configured): (Service, &Service)| {
        let asked = state.service(&service.name);
        let seed = service.seed.or(asked.and_then(|asked| asked.seed));
        let flip = asked.and_then(|asked| asked.flip.clone());
        let by_command = asked.and_then(|asked| weight_by_command(configured, asked)).is_some();
        Ok(Desired {
            seed: seed.ok_or_else(|| DesiredError::NoSeed { service: service.name.clone() })?,
            weight_in_force: if flip.is_some() { Weight::ZERO } else { service.weight },
            weight_source: match asked.and_then(weight_by_rollout) {
                Some(_) => WeightSource::Rollout,
                None if by_command => WeightSource::Command,
                None => WeightSource::Config,
            },
            flip,
            service,
        })
    };
    merged.into_iter().zip(&config.services).map(desired).collect()
}

/// Gives a service that has no seed the one that is in force, if that's known: with another one, nobody would find its established connections again.
#[must_use]
pub fn keep_seeds(config: &Config, state: &State, in_force: impl Fn(&Service) -> Option<Seed>) -> State {
    let mut next = state.clone();
    for service in config.services.iter().filter(|service| service.seed.is_none()) {
        let known = next.services.get(&service.name).and_then(|asked| asked.seed);
        if let (None, Some(seed)) = (known, in_force(service)) {
            next.services.entry(service.name.clone()).or_default().seed = Some(seed);
        }
    }
    next
}

/// Gives a seed to each service that has none; `fresh` makes one, see [`crate::store::fresh_seed`].
#[must_use]
pub fn give_seeds(config: &Config, state: &State, mut fresh: impl FnMut() -> Seed) -> State {
    let mut next = state.clone();
    for service in config.services.iter().filter(|service| service.seed.is_none()) {
        next.services.entry(service.name.clone()).or_default().seed.get_or_insert_with(&mut fresh);
    }
    next
}

/// The state to go on with when the saved one is damaged: whether a service was flipped isn't known, so that each is held on
/// stable until somebody decides otherwise. Established connections are kept.
#[must_use]
pub fn hold_on_stable(config: &Config, kept_as: &Path, why: &str, at: Timestamp) -> State {
    const BY: &str = "the agent";
    let mut state = State::default();
    state.record(at, None, EventKind::StateDamaged { kept_as: kept_as.to_owned(), why: why.to_owned() });
    for service in &config.services {
        let reason = FlipReason::StateLost { kept_as: kept_as.to_owned() };
        let existing = Existing::Keep;
        let flip = Flip { at, by: BY.to_owned(), reason: reason.clone(), existing };
        state.services.entry(service.name.clone()).or_default().flip = Some(flip);
        state.record(at, Some(service.name.clone()), EventKind::Flipped { reason, existing, by: BY.to_owned() });
    }
    state
}

fn merged(config: &Config, state: &State) -> Vec<Service> {
    config.services.iter().map(|service| merge(service, state.service(&service.name))).collect()
}

/// One service: the configuration's with what was asked laid over it. What the configuration made void doesn't count.
fn merge(configured: &Service, asked: Option<&ServiceState>) -> Service {
    let mut service = configured.clone();
    let Some(asked) = asked else { return service };
    if let Some(weight) = weight_by_rollout(asked).or_else(|| weight_by_command(configured, asked)) {
        service.weight = weight;
    }

    let overlay = &asked.backends;
    service.backends.retain(|backend| !overlay.removed.contains(&backend.address));
    for backend in &mut service.backends {
        if let Some(by_command) = overlay.weights.get(&backend.address).filter(|w| w.configured == backend.weight) {
            backend.weight = by_command.weight;
        }
        if let Some(promoted) = overlay.promoted.get(&backend.address).filter(|p| p.configured == backend.cohort) {
            backend.cohort = promoted.cohort;
        }
    }
    let present: HashSet<SocketAddr> = service.backends.iter().map(|backend| backend.address).collect();
    for (address, added) in &overlay.added {
        if !present.contains(address) {
            service.backends.push(Backend { address: *address, cohort: added.cohort, weight: added.weight, draining: false });
        }
    }
    for backend in &mut service.backends {
        backend.draining = overlay.draining.contains(&backend.address);
    }

    let overlay = &asked.networks;
    for network in &overlay.removed {
        service.always_canary.remove(network);
        service.never_canary.remove(network);
    }
    for (network, list) in &overlay.added {
        if !service.networks(list.other()).contains(network) {
            service.networks_mut(*list).insert(*network);
        }
    }
    service
}

fn weight_by_rollout(asked: &ServiceState) -> Option<Weight> {
    asked.rollout.as_deref().and_then(controller::rollout::weight_of)
}

fn weight_by_command(configured: &Service, asked: &ServiceState) -> Option<Weight> {
    asked.weight.filter(|asked| asked.configured == configured.weight).map(|asked| asked.weight)
}
