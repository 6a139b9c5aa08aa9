//! Decisions as they are made, for whoever asked to see them: one at a time.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::{
    clock::Moment,
    core::{Core, detached, key, not_applied},
};
use crate::{
    api::{
        command::{CommandError, CommandErrorKind, CommandResult},
        wire::{Rule, TraceFilter, TraceRecord, Verdict},
    },
    dataplane::{ServiceKey, Traced},
    desired::Desired,
    model::{Cohort, Protocol, ServiceName},
};

/// So many records wait for a slow reader; what comes then is lost to it.
const WAITING: usize = 1_024;

/// A trace that goes on.
#[derive(Debug)]
pub(super) struct Tracing {
    service: ServiceName,
    key: ServiceKey,
    to: mpsc::Sender<TraceRecord>,
}

impl Core {
    /// Begins to report.
    pub(super) fn trace(&mut self, name: &ServiceName, filter: &TraceFilter) -> CommandResult<mpsc::Receiver<TraceRecord>> {
        if let Some(tracing) = &self.tracing
            && tracing.to.is_closed()
        {
            self.stop_trace();
        }
        if let Some(tracing) = &self.tracing {
            let message = format!("service `{}` is being traced, and one can be at a time", tracing.service);
            return Err(CommandError::new(CommandErrorKind::Conflict, message).remedy("end the other `splitter trace` first"));
        }
        let service = &self.find(name)?.service;
        let key = key(service);
        let clients = filter.from.unwrap_or_else(|| everybody(service.address.ip()));
        if clients.addr().is_ipv4() != service.address.is_ipv4() {
            let message = format!("{clients} and the address {} of service `{name}` are of different families", service.address);
            return Err(CommandError::new(CommandErrorKind::Invalid, message));
        }
        let dataplane = self.dataplane.as_mut().ok_or_else(detached)?;
        dataplane.trace(&key, Some(clients)).map_err(|error| not_applied(&error))?;
        let (to, records) = mpsc::channel(WAITING);
        self.tracing = Some(Tracing { service: name.clone(), key, to });
        Ok(records)
    }

    /// Hands over what was reported; ends the trace when nobody reads it any more.
    pub(super) fn on_trace(&mut self, now: Moment) {
        let Some(tracing) = &self.tracing else { return };
        if tracing.to.is_closed() {
            self.stop_trace();
            return;
        }
        let Some(dataplane) = &mut self.dataplane else { return };
        let traced = dataplane.traced();
        let Some(tracing) = &self.tracing else { return };
        for traced in traced {
            let Some(record) = self.record_of(tracing, &traced, now) else { continue };
            if tracing.to.try_send(record).is_err() {
                tracing::debug!("a trace's reader is slow or gone: a record was lost");
            }
        }
    }

    fn stop_trace(&mut self) {
        if let Some(tracing) = self.tracing.take() {
            self.end_trace(&tracing);
        }
    }

    /// Packets pay nothing any more.
    pub(super) fn end_trace(&mut self, tracing: &Tracing) {
        if let Some(dataplane) = &mut self.dataplane
            && let Err(error) = dataplane.trace(&tracing.key, None)
        {
            tracing::error!(%error, service = %tracing.service, "the trace could not be switched off");
        }
    }

    fn record_of(&self, tracing: &Tracing, traced: &Traced, now: Moment) -> Option<TraceRecord> {
        let (key, backend, cohort) = traced.to.filter(|(key, ..)| *key == tracing.key)?;
        let desired = self.find(&tracing.service).ok()?;
        Some(TraceRecord {
            at: now.at,
            service: tracing.service.clone(),
            protocol: key.protocol,
            client: SocketAddr::new(traced.client, traced.port),
            verdict: Verdict::Forwarded { rule: self.rule_of(desired, traced, backend, cohort), cohort, backend },
        })
    }

    /// The rule isn't reported: that would cost every packet. A packet that opens a connection fell under the rule for new ones, which is asked of the same
    /// code; where that names another backend, the connection was known.
    fn rule_of(&self, desired: &Desired, traced: &Traced, backend: SocketAddr, cohort: Cohort) -> Rule {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        let opens = match desired.service.protocol {
            Protocol::Tcp => traced.tcp_flags & (SYN | ACK) == SYN,
            Protocol::Udp => true,
        };
        if !opens {
            return Rule::KnownConnection;
        }
        let explained = self
            .dataplane
            .as_ref()
            .and_then(|dataplane| dataplane.explain(&key(&desired.service), traced.client, Some(traced.port), None).ok());
        explained
            .filter(|explained| explained.backend == Some(backend))
            .and_then(|explained| super::explain::rule(desired, traced.client, &explained))
            .filter(|rule| super::explain::cohort(*rule) == Some(cohort))
            .unwrap_or(Rule::KnownConnection)
    }
}

fn everybody(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
