//! Which backend a client gets, and why: the data plane's answer, in the API's words.

use std::net::IpAddr;

use ipnet::IpNet;
use splitter_ebpf::cohort;

use super::core::{Core, detached, internal, key};
use crate::{
    api::{
        command::{CommandError, CommandErrorKind, CommandResult},
        wire::{Decision, ExplainRequest, Explanation, Hypothetical, MaglevSlot, Place, Rule},
    },
    dataplane::Explained,
    desired::Desired,
    model::{Affinity, Cohort, NetworkList, ServiceName, Weight},
};

impl Core {
    /// What becomes of a client's next packet, and of a new connection at another weight if that's asked.
    pub(super) fn explain(&self, name: &ServiceName, request: &ExplainRequest) -> CommandResult<Explanation> {
        let desired = self.find(name)?;
        let service = &desired.service;
        if service.affinity == Affinity::Connection && request.port.is_none() {
            return Err(CommandError::port_needed(name, request));
        }
        if request.client.is_ipv4() != service.address.is_ipv4() {
            let message =
                format!("{} and the address {} of service `{name}` are of different families", request.client, service.address);
            return Err(CommandError::new(CommandErrorKind::Invalid, message));
        }
        let dataplane = self.dataplane.as_ref().ok_or_else(detached)?;
        let ask = |at| dataplane.explain(&key(service), request.client, request.port, at).map_err(internal);
        let at = |weight| -> CommandResult<Hypothetical> {
            Ok(Hypothetical { weight, decision: self.decision(desired, request.client, &ask(Some(weight))?, weight, false)? })
        };
        Ok(Explanation {
            service: name.clone(),
            client: request.client,
            port: request.port,
            decision: self.decision(desired, request.client, &ask(None)?, desired.weight_in_force, true)?,
            at: request.at.map(at).transpose()?,
        })
    }

    fn decision(
        &self,
        desired: &Desired,
        client: IpAddr,
        explained: &Explained,
        weight: Weight,
        known_counts: bool,
    ) -> CommandResult<Decision> {
        let known = explained.known.filter(|_| known_counts && !explained.reset);
        let reset = known_counts && explained.reset;
        let new_rule = rule(desired, client, explained)
            .ok_or_else(|| internal(format!("no network of service `{}` has {client} in it any more", desired.service.name)))?;
        let (rule, backend) = match known {
            Some(backend) => (Rule::KnownConnection, Some(backend)),
            // A canary's connection that the flip ends: the packet is answered with a RST.
            None if reset => (Rule::Flipped, None),
            None => (new_rule, explained.backend),
        };
        let cohort_of = |backend| {
            let service = self.sample.services.get(&key(&desired.service))?;
            service.backends.get(&backend).map(|sample| sample.cohort)
        };
        Ok(Decision {
            rule,
            hash: format!("{:016x}", explained.hash),
            place: Place(explained.place),
            weight,
            threshold: explained.threshold,
            cohort: match known {
                Some(backend) => cohort_of(backend),
                None if reset => None,
                None => cohort(rule),
            },
            slot: explained
                .entry
                .filter(|_| known.is_none() && !reset)
                .map(|index| MaglevSlot { index, table_size: explained.table_size }),
            way: backend.map(|backend| self.wire_way(desired.service.mode, backend.ip())),
            backend,
        })
    }
}

/// The rule for a new connection; none if a network decided that isn't in the lists.
pub(super) fn rule(desired: &Desired, client: IpAddr, explained: &Explained) -> Option<Rule> {
    if explained.backend.is_none() {
        return Some(Rule::NoBackend);
    }
    Some(match explained.rule {
        cohort::Rule::Flipped => Rule::Flipped,
        cohort::Rule::Tripped => Rule::Tripped,
        cohort::Rule::LeaseRanOut => Rule::LeaseRanOut,
        cohort::Rule::NeverCanary => Rule::NeverCanary { prefix: longest(desired, NetworkList::NeverCanary, client)? },
        cohort::Rule::AlwaysCanary => Rule::AlwaysCanary { prefix: longest(desired, NetworkList::AlwaysCanary, client)? },
        cohort::Rule::Below => Rule::PlaceBelowWeight,
        cohort::Rule::NotBelow => Rule::PlaceAboveWeight,
        cohort::Rule::Fallback => Rule::CanaryFallback,
    })
}

/// The cohort of a new connection under a rule.
pub(super) const fn cohort(rule: Rule) -> Option<Cohort> {
    match rule {
        Rule::KnownConnection | Rule::NoBackend => None,
        Rule::AlwaysCanary { .. } | Rule::PlaceBelowWeight => Some(Cohort::Canary),
        Rule::Flipped
        | Rule::Tripped
        | Rule::LeaseRanOut
        | Rule::NeverCanary { .. }
        | Rule::PlaceAboveWeight
        | Rule::CanaryFallback => Some(Cohort::Stable),
    }
}

fn longest(desired: &Desired, list: NetworkList, client: IpAddr) -> Option<IpNet> {
    desired
        .service
        .networks(list)
        .iter()
        .filter(|network| network.contains(&client))
        .max_by_key(|network| network.prefix_len())
        .copied()
}
