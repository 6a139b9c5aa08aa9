//! What was asked of Splitter, and whether it says the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use splitter_user::{
    api::wire::{BackendState, FlipCause, ServiceStatus, Status},
    model::Weight,
};

use super::{host::Host, rules::Served, world::services};

/// What was asked, of all services.
#[derive(Clone, Debug)]
pub struct Model {
    services: BTreeMap<String, Asked>,
}

/// What was asked of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    configured: Weight,
    /// The weight that counts.
    pub weight: Weight,
    /// Why it's flipped.
    pub flip: Option<FlipCause>,
    /// Its backends, by address, and whether they drain.
    pub backends: BTreeMap<String, bool>,
}

impl Model {
    /// What the first configuration asks.
    #[must_use]
    pub fn new(hosts: &[Host], weight: Weight) -> Self {
        let of = |served| hosts.iter().map(|host| (host.backend(served).to_string(), false)).collect();
        let asked = |served| Asked { configured: weight, weight, flip: None, backends: of(served) };
        Self { services: services().into_iter().map(|served| (served.name(), asked(served))).collect() }
    }

    /// One service's.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn of(&self, served: Served) -> &Asked {
        &self.services[&served.name()]
    }

    /// One service's, to be changed.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn of_mut(&mut self, served: Served) -> &mut Asked {
        self.services.get_mut(&served.name()).expect("a service of this name")
    }

    /// The weight of the configuration, as text.
    #[must_use]
    pub fn configured_weight(&self, served: Served) -> String {
        self.of(served).configured.to_string()
    }

    /// The configuration has another weight, which counts from now on.
    pub fn reconfigure(&mut self, served: Served, weight: Weight) {
        let asked = self.of_mut(served);
        // A configured weight that stays the same leaves alone what a command has asked.
        if asked.configured != weight {
            (asked.configured, asked.weight) = (weight, weight);
        }
    }

    /// The state was lost: what commands asked is forgotten, and everything is held on stable.
    pub fn lose_state(&mut self) {
        for asked in self.services.values_mut() {
            asked.weight = asked.configured;
            asked.flip = Some(FlipCause::StateLost);
        }
    }

    /// In what the status differs from what was asked; empty: in nothing.
    #[must_use]
    pub fn differs(&self, status: &Status) -> Vec<String> {
        let mut differs = Vec::new();
        for (name, asked) in &self.services {
            match status.services.iter().find(|service| service.name.as_str() == name) {
                Some(service) => asked.compare(service, &mut differs),
                None => differs.push(format!("{name} isn't there")),
            }
        }
        differs
    }
}

impl Asked {
    /// The share that the canary gets.
    #[must_use]
    pub fn share(&self) -> Weight {
        if self.flip.is_some() { Weight::ZERO } else { self.weight }
    }

    fn compare(&self, service: &ServiceStatus, differs: &mut Vec<String>) {
        let name = &service.name;
        let (asked, in_force) = (service.weights.asked, service.weights.in_force);
        if asked != self.weight || in_force != Some(self.share()) {
            differs.push(format!(
                "{name}: weight {asked}, in force {in_force:?}; asked was {}, so {}",
                self.weight,
                self.share()
            ));
        }
        let cause = service.flip.as_ref().map(|flip| flip.cause);
        if cause != self.flip {
            differs.push(format!("{name}: flipped {cause:?}, asked was {:?}", self.flip));
        }
        let mut missing: BTreeSet<&String> = self.backends.keys().collect();
        for backend in service.cohorts.iter().flat_map(|cohort| &cohort.backends) {
            let address = backend.address.to_string();
            missing.remove(&address);
            let wanted = match self.backends.get(&address) {
                Some(true) => BackendState::Draining,
                Some(false) => BackendState::Active,
                None => BackendState::Removed,
            };
            if backend.state != wanted {
                let way = &backend.way;
                differs.push(format!("{name}: {address} is {}, not {} ({way:?})", backend.state.as_str(), wanted.as_str()));
            }
        }
        differs.extend(missing.into_iter().map(|address| format!("{name}: {address} isn't there")));
    }
}
