//! Commands that change something.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    clock::Moment,
    core::{Core, NoWay, detached, not_applied},
    keep::Asked,
};
use crate::{
    api::{
        command::{CommandError, CommandErrorKind, CommandResult},
        wire::{AddBackend, Detached, FlipRequest, NetworkChange, NetworkChanged, Reload},
    },
    config::{Config, ConfigError},
    desired::{self, Origin, Refusal},
    model::{NetworkList, Seed, Service, ServiceName},
    store::{EventKind, FlipReason, State},
};

impl Core {
    /// What a change of what is asked of a service makes of the state.
    pub(super) fn asked(
        &self,
        now: Moment,
        by: &str,
        ask: impl FnOnce(&Config, &State, Origin<'_>) -> Result<State, Refusal>,
    ) -> CommandResult<Asked> {
        let next = ask(&self.config, &self.state, Origin { at: now.at, by })?;
        Ok(Asked { config: None, next })
    }

    /// Sends everything to stable.
    pub(super) fn flip(&mut self, name: &ServiceName, request: FlipRequest, by: &str, now: Moment) -> CommandResult<()> {
        if self.dataplane.is_none() {
            return Err(detached());
        }
        let reason = FlipReason::Person { text: request.reason };
        let origin = Origin { at: now.at, by };
        let next = desired::flip(&self.config, &self.state, name, reason, request.existing, origin)?;
        self.commit_flip(name, next, now)
    }

    /// Adds a backend, unless it can't be reached as this node is set up.
    pub(super) fn add_backend(&self, name: &ServiceName, backend: &AddBackend, by: &str, now: Moment) -> CommandResult<Asked> {
        let AddBackend { address, cohort, weight } = *backend;
        self.refuse_dead_end(&self.find(name)?.service, address.ip())?;
        self.asked(now, by, |config, state, origin| desired::add_backend(config, state, name, address, cohort, weight, origin))
    }

    /// A list of networks was changed.
    pub(super) fn networks_changed(&self, name: &ServiceName, change: &NetworkChange) -> CommandResult<NetworkChanged> {
        let list = change.list;
        let total = self.find(name)?.service.networks(list).len() as u64;
        let (added, removed) = (change.add.len() as u64, change.remove.len() as u64);
        Ok(NetworkChanged { service: name.clone(), list, added, removed, total })
    }

    /// Takes the data plane away.
    pub(super) fn detach(&mut self, by: &str, now: Moment) -> CommandResult<Detached> {
        if let Some(tracing) = self.tracing.take() {
            self.end_trace(&tracing);
        }
        let mut dataplane = self.dataplane.take().ok_or_else(detached)?;
        self.published.ready.send_replace(false);
        let result = dataplane.detach();
        self.wanted.clear();
        self.conductors.clear();
        self.published.checks.send_replace(Vec::new());
        self.record(now, None, EventKind::Detached { by: by.to_owned() });
        self.save();
        result.map_err(|error| not_applied(&error).remedy("see what is left: `ip link`, and the pin directory of [agent]"))?;
        Ok(Detached { interfaces: self.info.interfaces.iter().map(|interface| interface.name.clone()).collect() })
    }

    /// Where a change is about to lead: looked up beforehand, so that nobody is refused while it is.
    pub(super) fn anticipate(&mut self, destinations: BTreeSet<IpAddr>) {
        self.anticipated = destinations;
    }

    /// A configuration that can't be read.
    pub(super) fn refuse_reload(&mut self, error: &ConfigError, now: Moment) {
        self.note_refused(error.lines(), now);
    }

    fn note_refused(&mut self, errors: Vec<String>, now: Moment) {
        self.last_reload = Some(Reload { at: now.at, ok: false, message: errors.join("\n") });
        self.record(now, None, EventKind::ReloadRefused { errors });
    }

    /// A new configuration was put in force, or refused.
    pub(super) fn reloaded(&mut self, result: CommandResult<Option<Config>>, now: Moment) -> CommandResult<Reload> {
        match result {
            Ok(before) => {
                let message = summary(before.as_ref().map_or(&[], |before| &before.services), &self.config.services);
                let reload = Reload { at: now.at, ok: true, message };
                self.last_reload = Some(reload.clone());
                Ok(reload)
            }
            Err(error) => {
                self.note_refused(vec![error.message.clone()], now);
                Err(error)
            }
        }
    }

    /// What a new configuration makes of the state. `fresh` makes seeds: the same ones each time that this is asked for one change.
    pub(super) fn reload(&self, config: &Config, fresh: impl FnMut() -> Seed, now: Moment) -> CommandResult<Asked> {
        let fixed = needs_restart(&self.config, config);
        if !fixed.is_empty() {
            let message = format!("nothing was changed: {} cannot change while the agent runs", fixed.join(", "));
            return Err(CommandError::new(CommandErrorKind::Conflict, message)
                .remedy("restart the agent, which takes no traffic away: `systemctl restart splitter`"));
        }
        for service in &config.services {
            self.refuse_dead_ends(service)?;
        }
        let state = desired::reconcile(config, &self.state, now.at);
        let mut next = desired::give_seeds(config, &state, fresh);
        next.record(now.at, None, EventKind::Reloaded { services: config.services.len() });
        Ok(Asked { config: Some(config.clone()), next })
    }

    /// Refuses a service that names a backend that can't be reached as this node is set up, unless it's in use already.
    fn refuse_dead_ends(&self, service: &Service) -> CommandResult<()> {
        let before = self.desired.iter().filter(|desired| desired.service.name == service.name);
        let before: HashSet<SocketAddr> =
            before.flat_map(|desired| &desired.service.backends).map(|backend| backend.address).collect();
        for backend in service.backends.iter().filter(|backend| !before.contains(&backend.address)) {
            self.refuse_dead_end(service, backend.address.ip())?;
        }
        Ok(())
    }

    /// Refuses a backend that can't be reached as this node is set up. One that doesn't answer is taken: it may come up.
    fn refuse_dead_end(&self, service: &Service, to: IpAddr) -> CommandResult<()> {
        match self.way(service.mode, to) {
            Err(NoWay::Never(why)) => Err(CommandError::new(CommandErrorKind::Invalid, format!("nothing was changed: {why}"))
                .place(format!("service \"{}\"", service.name))),
            Ok(_) | Err(NoWay::Pending(_) | NoWay::Now(_)) => Ok(()),
        }
    }
}

/// The keys that differ and that the agent reads once, at its start.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let (old, new) = (&before.agent, &after.agent);
    let keys = [
        ("[agent] interfaces", old.interfaces != new.interfaces),
        ("[agent] xdp_mode", old.xdp_mode != new.xdp_mode),
        ("[agent] socket", old.socket != new.socket),
        ("[agent] socket_group", old.socket_group != new.socket_group),
        ("[agent] metrics_address", old.metrics_address != new.metrics_address),
        ("[agent] state_directory", old.state_directory != new.state_directory),
        ("[agent] pin_directory", old.pin_directory != new.pin_directory),
        ("[nat]", before.nat != after.nat),
        ("[tables]", before.tables != after.tables),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// What a reload changed, in words.
fn summary(before: &[Service], after: &[Service]) -> String {
    let find = |services: &[Service], name: &ServiceName| services.iter().find(|service| service.name == *name).cloned();
    let mut parts = Vec::new();
    for service in after {
        match find(before, &service.name) {
            None => parts.push(format!("service `{}` added", service.name)),
            Some(old) if old == *service => {}
            Some(old) => parts.push(format!("service `{}`: {}", service.name, differences(&old, service).join(", "))),
        }
    }
    for service in before {
        if find(after, &service.name).is_none() {
            parts.push(format!("service `{}` removed", service.name));
        }
    }
    if parts.is_empty() { "no service differs".to_owned() } else { parts.join("; ") }
}

fn differences(old: &Service, new: &Service) -> Vec<String> {
    let mut parts = Vec::new();
    if old.weight != new.weight {
        parts.push(format!("weight {} to {}", old.weight, new.weight));
    }
    let others = [
        ("protocol", old.protocol != new.protocol),
        ("address", old.address != new.address),
        ("mode", old.mode != new.mode),
        ("affinity", old.affinity != new.affinity),
        ("backends", old.backends != new.backends),
        ("timeouts", old.timeouts != new.timeouts),
        ("breach", old.breach != new.breach),
        ("breaker", old.breaker != new.breaker),
        ("rollout", old.rollout != new.rollout),
        ("on_lease_expiry", old.on_lease_expiry != new.on_lease_expiry),
        ("seed", old.seed != new.seed),
    ];
    parts.extend(others.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| format!("{what} changed")));
    for list in NetworkList::ALL {
        if old.networks(list) != new.networks(list) {
            parts.push(format!("{list} changed"));
        }
    }
    parts
}
