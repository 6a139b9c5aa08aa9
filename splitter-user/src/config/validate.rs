//! From sections as written to the validated configuration.

use std::{io, path::Path};

use super::{
    Config,
    document::{Found, Problems, Reported, Table},
    error::{ConfigError, Mark},
    rollout::{self, RawRollout},
    rules::{self, Draft, DraftBackend, Part, Violation},
    schema,
    sections::{self, RawBreach, RawBreaker, RawNetworks, RawService, Spot},
};
use crate::model::{Backend, Breach, Breaker, Cohort, NetworkList, Service};

/// Reads a configuration as a whole; `read` gives the files that it names.
pub(super) fn configuration(
    text: &str,
    name: &str,
    mut read: impl FnMut(&Path) -> io::Result<String>,
) -> Result<Config, ConfigError> {
    let mut problems = Problems::new(name, text);
    let config = assemble(&mut problems, &mut read);
    match config {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) | Err(_) => Err(ConfigError::Invalid { problems: problems.into_sorted() }),
    }
}

fn assemble(problems: &mut Problems<'_>, read: &mut dyn FnMut(&Path) -> io::Result<String>) -> Result<Config, Reported> {
    let tree = problems.tree()?;
    let file = Table::open(tree.get_ref(), 0, &schema::FILE, "", problems);
    let agent = sections::agent(&file, problems);
    let nat = sections::nat(&file, problems);
    let tables = sections::tables(&file, problems);
    let notify = rollout::notify(&file, problems);
    let raw = raw_services(&file, problems, read)?;

    let drafts: Vec<Draft> = raw.iter().map(draft).collect();
    let sizes = tables.as_ref().ok();
    for violation in rules::check(&drafts, nat.as_ref().ok(), sizes.map(|tables| &tables.value)) {
        let mark = mark(&violation, &raw, sizes.map_or(0, |tables| tables.at), problems);
        problems.report_at(mark, &violation.place(), &violation.rule);
    }
    if let Ok(agent) = &agent {
        for service in &raw {
            if let Ok(Some(breach)) = &service.breach
                && breach.window.value < agent.sample_interval
            {
                let message = format!(
                    "the window is shorter than [agent] sample_interval ({}): make it at least as long",
                    humantime::format_duration(agent.sample_interval)
                );
                problems.report(breach.window.at, &format!("{}, breach.window", service.label), message);
            }
        }
    }

    let services = raw.into_iter().map(finish).collect::<Result<_, Reported>>();
    Ok(Config { agent: agent?, nat: nat?, tables: tables?.value, notify: notify?, services: services? })
}

fn raw_services(
    file: &Table<'_, '_>,
    problems: &mut Problems<'_>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
) -> Result<Vec<RawService>, Reported> {
    let Some(value) = file.get("service") else { return Ok(Vec::new()) };
    let Some(list) = value.get_ref().as_array() else {
        let at = value.span().start;
        return Err(problems.report(at, "", "services are a list: write [[service]], with two brackets"));
    };
    let mut services = Vec::new();
    let mut missing = None;
    for (index, value) in list.iter().enumerate() {
        match sections::service(index, value, problems, read) {
            Ok(service) => services.push(service),
            Err(reported) => missing = Some(reported),
        }
    }
    missing.map_or(Ok(services), Err)
}

/// What is known of a service, for the rules between values.
fn draft(raw: &RawService) -> Draft {
    let backends = [(Cohort::Stable, &raw.stable), (Cohort::Canary, &raw.canary)].into_iter().flat_map(|(cohort, list)| {
        list.found.iter().map(move |(index, backend)| DraftBackend {
            cohort,
            index: *index,
            address: backend.value.0,
            draining: false,
        })
    });
    Draft {
        label: raw.label.clone(),
        name: known(&raw.name),
        protocol: known(&raw.protocol),
        address: known(&raw.address),
        mode: known(&raw.mode),
        backends: backends.collect(),
        stable_unknown: raw.stable.missing.is_some(),
        always_canary: raw.always_canary.found.clone(),
        never_canary: raw.never_canary.found.clone(),
        breach: raw.breach.as_ref().ok().and_then(Option::as_ref).map(limits),
        breaker: raw.breaker.as_ref().ok().and_then(Option::as_ref).map(breaker),
        rollout: plan(raw).map(|plan| plan.draft(known(&raw.protocol), known(&raw.mode))),
    }
}

fn known<T: Clone>(value: &Result<Found<T>, Reported>) -> Option<T> {
    value.as_ref().ok().map(|found| found.value.clone())
}

fn plan(raw: &RawService) -> Option<&RawRollout> {
    raw.rollout.as_ref().ok().and_then(Option::as_ref)
}

fn limits(raw: &RawBreach) -> Breach {
    let limit = |found: &Option<Found<_>>| found.as_ref().map(|found| found.value);
    Breach {
        refused: limit(&raw.refused),
        reset: limit(&raw.reset),
        timeout: limit(&raw.timeout),
        min_attempts: raw.min_attempts,
        window: raw.window.value,
        existing: raw.existing,
    }
}

fn breaker(raw: &RawBreaker) -> Breaker {
    let limit = |found: &Option<Found<_>>| found.as_ref().map(|found| found.value);
    Breaker {
        refused: limit(&raw.refused),
        timeout: limit(&raw.timeout),
        reset: limit(&raw.reset),
        retransmit: limit(&raw.retransmit),
        min_attempts: raw.min_attempts,
        window: raw.window,
        stable_factor: raw.stable_factor,
        existing: raw.existing,
    }
}

/// Where a broken rule's part stands in the file.
fn mark(violation: &Violation, raw: &[RawService], tables: usize, problems: &Problems<'_>) -> Mark {
    let Some(service) = violation.service.and_then(|index| raw.get(index)) else { return problems.mark(tables) };
    let at = match violation.part {
        Part::Network { list, index } => {
            return match networks(service, list).spots.get(index) {
                Some(Spot::File(mark)) => mark.clone(),
                Some(Spot::Here(at)) => problems.mark(*at),
                None => problems.mark(service.at),
            };
        }
        Part::Backend { cohort, index } => {
            let list = match cohort {
                Cohort::Stable => &service.stable,
                Cohort::Canary => &service.canary,
            };
            list.at(index)
        }
        Part::Step { index } => plan(service).and_then(|plan| plan.steps.at(index)),
        Part::Check { index } => plan(service).and_then(|plan| plan.checks.at(index)),
        Part::Key(key) => key_at(service, key),
        Part::Whole => None,
    };
    problems.mark(at.unwrap_or(service.at))
}

fn key_at(service: &RawService, key: &str) -> Option<usize> {
    let breach = service.breach.as_ref().ok().and_then(Option::as_ref);
    let limit = |which: fn(&RawBreach) -> &Option<Found<_>>| breach.and_then(|b| which(b).as_ref().map(|limit| limit.at));
    let breaker = service.breaker.as_ref().ok().and_then(Option::as_ref);
    let trips = |which: fn(&RawBreaker) -> &Option<Found<_>>| breaker.and_then(|b| which(b).as_ref().map(|limit| limit.at));
    match key {
        "name" => service.name.as_ref().ok().map(|found| found.at),
        "address" => service.address.as_ref().ok().map(|found| found.at),
        "breach" => breach.map(|breach| breach.at),
        "breach.refused" => limit(|b| &b.refused),
        "breach.reset" => limit(|b| &b.reset),
        "breach.timeout" => limit(|b| &b.timeout),
        "breaker" => breaker.map(|breaker| breaker.at),
        "breaker.refused" => trips(|b| &b.refused),
        "breaker.timeout" => trips(|b| &b.timeout),
        "breaker.reset" => trips(|b| &b.reset),
        "breaker.retransmit" => trips(|b| &b.retransmit),
        "rollout.steps" => plan(service).map(|plan| plan.steps_at),
        "rollout.min_connections" => plan(service)?.min_connections.as_ref().ok().map(|found| found.at),
        "rollout.deadline" => plan(service)?.deadline.as_ref().ok().map(|found| found.at),
        "rollout.compare" => plan(service)?.compare.as_ref().ok().map(|compare| compare.at),
        _ => None,
    }
}

const fn networks(service: &RawService, list: NetworkList) -> &RawNetworks {
    match list {
        NetworkList::AlwaysCanary => &service.always_canary,
        NetworkList::NeverCanary => &service.never_canary,
    }
}

fn finish(raw: RawService) -> Result<Service, Reported> {
    let breach = raw.breach?.as_ref().map(limits);
    let breaker = raw.breaker?.as_ref().map(breaker);
    let mut backends = Vec::new();
    for (cohort, list) in [(Cohort::Stable, raw.stable), (Cohort::Canary, raw.canary)] {
        list.missing.map_or(Ok(()), Err)?;
        backends.extend(list.found.into_iter().map(|(_, Found { value: (address, weight), .. })| Backend {
            address,
            cohort,
            weight,
            draining: false,
        }));
    }
    raw.always_canary.missing.or(raw.never_canary.missing).map_or(Ok(()), Err)?;
    let (protocol, mode) = (raw.protocol?.value, raw.mode?.value);
    Ok(Service {
        name: raw.name?.value,
        protocol,
        address: raw.address?.value,
        mode,
        affinity: raw.affinity?.value,
        weight: raw.weight?.value,
        backends,
        always_canary: raw.always_canary.found.into_iter().collect(),
        never_canary: raw.never_canary.found.into_iter().collect(),
        timeouts: raw.timeouts?,
        breach,
        breaker,
        rollout: raw.rollout?.map(|plan| plan.finish(protocol, mode)).transpose()?,
        on_lease_expiry: raw.on_lease_expiry?.value,
        seed: raw.seed?.map(|seed| seed.value),
    })
}
