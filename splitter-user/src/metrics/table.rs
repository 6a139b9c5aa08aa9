//! The table of metrics.

use std::{collections::BTreeMap, fmt};

use splitter_ebpf::{histogram, moment::TICK_NS};

use super::{
    rollout,
    snapshot::{BackendSnapshot, CohortSnapshot, Histogram, ServiceSnapshot, Snapshot},
};
use crate::{
    api::wire::{Counters, Traffic},
    model::Weight,
};

/// One metric.
pub struct Metric {
    /// The name of its family, unit included; samples add `_total` or `_info` (see [`Metric::sample_name`]).
    pub name: &'static str,
    /// What kind of value it has.
    pub kind: Kind,
    /// The unit that its name ends in.
    pub unit: Option<Unit>,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says: one sentence.
    pub help: &'static str,
    /// Its samples in a snapshot, each with as many label values as there are labels.
    pub read: fn(&Snapshot) -> Vec<Sample>,
}

/// What kind of value a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Is always 1: the labels are what it says.
    Info,
    /// How often something took how long.
    Histogram,
}

/// Units as OpenMetrics names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Octets.
    Bytes,
    /// Entries of a table.
    Entries,
    /// A share, 0 to 1.
    Ratio,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The end of a name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::Ratio => "ratio",
            Self::Seconds => "seconds",
        }
    }
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The values of its labels, in their order.
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// A number as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Counted.
    Whole(u64),
    /// Measured.
    Real(f64),
    /// Times in seconds.
    Times {
        /// All of them together.
        sum: f64,
        /// Where a bucket ends, and how many are in it; the last has no end.
        buckets: Vec<(f64, u64)>,
    },
}

impl Metric {
    /// The name of its samples.
    #[must_use]
    pub fn sample_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
            Kind::Info => format!("{}_info", self.name),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
            Self::Histogram => "histogram",
        })
    }
}

const BACKEND: &[&str] = &["service", "cohort", "backend"];
const COHORT: &[&str] = &["service", "cohort"];
const BACKEND_AND_DIRECTION: &[&str] = &["service", "cohort", "backend", "direction"];

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "splitter_backend_packets",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND_AND_DIRECTION,
        help: "Packets forwarded, by direction: to_backend or from_backend (nat only).",
        read: |now| traffic(now, |traffic| traffic.packets),
    },
    Metric {
        name: "splitter_backend_bytes",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: BACKEND_AND_DIRECTION,
        help: "Octets forwarded, from the IP header on, by direction: to_backend or from_backend (nat only).",
        read: |now| traffic(now, |traffic| traffic.bytes),
    },
    Metric {
        name: "splitter_backend_connections_opened",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Connections assigned to the backend.",
        read: |now| counted(now, |counters| Some(counters.opened)),
    },
    Metric {
        name: "splitter_backend_connections_completed",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Connections whose handshake was completed; for UDP, exchanges that were answered.",
        read: |now| counted(now, |counters| Some(counters.completed)),
    },
    Metric {
        name: "splitter_backend_connections_refused",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Attempts that ended by a RST or by ICMP destination unreachable before they completed (nat only).",
        read: |now| counted(now, |counters| counters.refused),
    },
    Metric {
        name: "splitter_backend_connections_unreachable",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Of those refused, attempts that ended by ICMP destination unreachable (nat only).",
        read: |now| counted(now, |counters| counters.unreachable),
    },
    Metric {
        name: "splitter_backend_connections_timed_out",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Attempts that the backend did not answer in time.",
        read: |now| counted(now, |counters| Some(counters.timed_out)),
    },
    Metric {
        name: "splitter_backend_connections_reset",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Connections that were reset after their handshake.",
        read: |now| counted(now, |counters| Some(counters.reset)),
    },
    Metric {
        name: "splitter_backend_connections_reset_by_backend",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Of those reset, connections that the backend reset (nat only).",
        read: |now| counted(now, |counters| counters.reset_by_backend),
    },
    Metric {
        name: "splitter_backend_connections_closed",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Connections that ended in order.",
        read: |now| counted(now, |counters| Some(counters.closed)),
    },
    Metric {
        name: "splitter_backend_syn_retransmits",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "SYNs that were sent again before the attempt was answered.",
        read: |now| counted(now, |counters| counters.retransmitted),
    },
    Metric {
        name: "splitter_backend_connections_established",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Connections that became established, in time or late.",
        read: |now| counted(now, |counters| counters.established),
    },
    Metric {
        name: "splitter_backend_connections_ended",
        kind: Kind::Counter,
        unit: None,
        labels: BACKEND,
        help: "Established connections that ended: by FIN, by RST, by silence, by a flip.",
        read: |now| counted(now, |counters| counters.ended),
    },
    Metric {
        name: "splitter_backend_connections_live",
        kind: Kind::Gauge,
        unit: None,
        labels: BACKEND,
        help: "Established connections that live now, exactly: those established less those ended.",
        read: |now| counted(now, Counters::live),
    },
    Metric {
        name: "splitter_backend_connections_active",
        kind: Kind::Gauge,
        unit: None,
        labels: BACKEND,
        help: "Connections in the tables as of the last sweep, attempts among them, those that are closing not.",
        read: |now| backends(now, |backend| backend.connections),
    },
    Metric {
        name: "splitter_handshake_seconds",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: COHORT,
        help: "From the SYN to the backend's answer (nat) or to the client's ACK (dsr); for UDP, to the first answer (nat only).",
        read: |now| times(now, |cohort| cohort.handshake.as_ref()),
    },
    Metric {
        name: "splitter_first_response_seconds",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: COHORT,
        help: "From the client's first octets to the backend's (TCP, nat only).",
        read: |now| times(now, |cohort| cohort.first_response.as_ref()),
    },
    Metric {
        name: "splitter_cohort_usable_backends",
        kind: Kind::Gauge,
        unit: None,
        labels: COHORT,
        help: "Backends of the cohort that get new connections.",
        read: |now| {
            let cohorts = now.services.iter().flat_map(|service| service.cohorts.iter().map(move |cohort| (service, cohort)));
            cohorts
                .map(|(service, cohort)| whole([service.name.to_string(), cohort.cohort.to_string()], cohort.usable_backends))
                .collect()
        },
    },
    Metric {
        name: "splitter_service_weight_asked_ratio",
        kind: Kind::Gauge,
        unit: Some(Unit::Ratio),
        labels: &["service"],
        help: "The canary's share of new connections that is asked for.",
        read: |now| weights(now, |service| Some(service.weight_asked)),
    },
    Metric {
        name: "splitter_service_weight_in_force_ratio",
        kind: Kind::Gauge,
        unit: Some(Unit::Ratio),
        labels: &["service"],
        help: "The canary's share of new connections that the data plane has; 0 while the service is flipped.",
        read: |now| weights(now, |service| service.weight_in_force),
    },
    Metric {
        name: "splitter_service_flipped",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service"],
        help: "1 while everything goes to stable, else 0.",
        read: |now| services(now, |service| Some(Value::Whole(service.flip.is_some().into()))),
    },
    Metric {
        name: "splitter_service_flip",
        kind: Kind::Info,
        unit: None,
        labels: &["service", "reason"],
        help: "Why the service is flipped; absent while it isn't.",
        read: |now| {
            let flipped = now.services.iter().filter_map(|service| Some((service, service.flip?)));
            flipped.map(|(service, cause)| whole([service.name.to_string(), cause.as_str().to_owned()], 1)).collect()
        },
    },
    Metric {
        name: "splitter_service_flips",
        kind: Kind::Counter,
        unit: None,
        labels: &["service", "reason"],
        help: "Flips, by reason: command, refused, reset, timeout, breaker, lease, rollout or state_lost.",
        read: |now| {
            let flips = now.services.iter().flat_map(|service| service.flips.iter().map(move |flips| (service, flips)));
            flips.map(|(service, (cause, n))| whole([service.name.to_string(), cause.as_str().to_owned()], *n)).collect()
        },
    },
    Metric {
        name: "splitter_service_breaker_tripped",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service"],
        help: "1 while the breaker has tripped and was not armed again, else 0; absent without a breaker.",
        read: |now| services(now, |service| service.breaker_tripped.map(|tripped| Value::Whole(tripped.into()))),
    },
    Metric {
        name: "splitter_service_canary_fallback",
        kind: Kind::Counter,
        unit: None,
        labels: &["service"],
        help: "New connections that were to go to the canary and went to stable, because no canary was usable.",
        read: |now| services(now, |service| service.canary_fallback.map(Value::Whole)),
    },
    Metric {
        name: "splitter_service_refusals",
        kind: Kind::Counter,
        unit: None,
        labels: &["service", "reason"],
        help: "Packets refused with a RST or an ICMP error, by reason.",
        read: |now| {
            let refusals = now.services.iter().flat_map(|service| service.refusals.iter().map(move |r| (service, r)));
            refusals.map(|(service, (reason, n))| whole([service.name.to_string(), reason.clone()], *n)).collect()
        },
    },
    Metric {
        name: "splitter_packets_skipped",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Packets that the kernel got untouched, by reason.",
        read: |now| by_reason(&now.skipped),
    },
    Metric {
        name: "splitter_packets_dropped",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Packets that were dropped, by reason.",
        read: |now| by_reason(&now.dropped),
    },
    Metric {
        name: "splitter_table_capacity_entries",
        kind: Kind::Gauge,
        unit: Some(Unit::Entries),
        labels: &["table"],
        help: "Entries that the table has room for: affinity (connections) or nat (ports).",
        read: |now| now.tables.iter().map(|table| whole([table.table.as_str().to_owned()], table.capacity)).collect(),
    },
    Metric {
        name: "splitter_table_used_entries",
        kind: Kind::Gauge,
        unit: Some(Unit::Entries),
        labels: &["table"],
        help: "Entries of the table that are in use.",
        read: |now| {
            let counted = now.tables.iter().filter_map(|table| Some((table.table, table.used?)));
            counted.map(|(table, used)| whole([table.as_str().to_owned()], used)).collect()
        },
    },
    Metric {
        name: "splitter_agent_build",
        kind: Kind::Info,
        unit: None,
        labels: &["version"],
        help: "The agent's version.",
        read: |now| vec![whole([now.version.clone()], 1)],
    },
    Metric {
        name: "splitter_agent_adoptions",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Agents that took over the running data plane since it was loaded.",
        read: |now| vec![whole([], now.adoptions)],
    },
    Metric {
        name: "splitter_agent_lease_seconds",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long the agent's last sign of life still counts; absent without a data plane.",
        read: |now| real(now.lease_left.map(|left| left.as_secs_f64())),
    },
    Metric {
        name: "splitter_agent_leases_ran_out",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "How often this agent found that the lease had run out, its own or the last agent's.",
        read: |now| vec![whole([], now.leases_ran_out)],
    },
    Metric {
        name: "splitter_agent_lease_ran_out_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the lease last ran out, as Unix time; absent if this agent never found that it had.",
        read: |now| real(now.lease_ran_out.map(|at| at.as_duration().as_secs_f64())),
    },
    Metric {
        name: "splitter_agent_last_reload_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the configuration was last read anew, as Unix time; absent if it never was.",
        read: |now| real(now.last_reload.map(|reload| reload.at.as_duration().as_secs_f64())),
    },
    Metric {
        name: "splitter_agent_last_reload_success",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 if the last reload was taken over, 0 if it was refused; absent if there was none.",
        read: |now| now.last_reload.iter().map(|reload| whole([], reload.ok.into())).collect(),
    },
    Metric {
        name: "splitter_agent_sampling_duration_seconds",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long the last reading of the data plane's counters took.",
        read: |now| real(now.sampling.map(|took| took.as_secs_f64())),
    },
    Metric {
        name: "splitter_rollout_phase",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service", "phase"],
        help: "1 for the phase that the service's rollout is in, 0 for the others; absent if it had none.",
        read: rollout::phases,
    },
    Metric {
        name: "splitter_rollout_step",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service"],
        help: "The step that the rollout is in, behind whose gate it waits, or that it ended in; counted from 1.",
        read: rollout::step,
    },
    Metric {
        name: "splitter_rollout_steps",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service"],
        help: "How many steps the rollout has.",
        read: rollout::steps,
    },
    Metric {
        name: "splitter_rollout_step_overdue_seconds",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &["service"],
        help: "For how long the step's time has been over, for want of a healthy verdict; absent outside a step.",
        read: rollout::overdue,
    },
    Metric {
        name: "splitter_rollout_weight_ratio",
        kind: Kind::Gauge,
        unit: Some(Unit::Ratio),
        labels: &["service"],
        help: "The canary's share that the rollout asks for; absent once it's over.",
        read: rollout::weight,
    },
    Metric {
        name: "splitter_rollout_verdict",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service", "verdict"],
        help: "1 for what the rollout's numbers say, 0 for the others; absent once it's flipped or over.",
        read: rollout::verdicts,
    },
    Metric {
        name: "splitter_rollout_evidence",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service", "check"],
        help: "How strongly the comparison with stable speaks against the canary, as an e-value; 1 is not at all.",
        read: rollout::evidence,
    },
    Metric {
        name: "splitter_rollout_proof",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service", "check"],
        help: "So much evidence is proof that the canary is worse.",
        read: rollout::proof,
    },
    Metric {
        name: "splitter_rollout_check",
        kind: Kind::Gauge,
        unit: None,
        labels: &["service", "check"],
        help: "1 if the check's last answer was good, 0 if it was bad; absent while there is no data.",
        read: rollout::checks,
    },
];

pub(super) fn whole<const N: usize>(labels: [String; N], value: u64) -> Sample {
    Sample { labels: labels.into(), value: Value::Whole(value) }
}

fn real(value: Option<f64>) -> Vec<Sample> {
    value.map(|value| Sample { labels: vec![], value: Value::Real(value) }).into_iter().collect()
}

fn by_reason(counts: &BTreeMap<String, u64>) -> Vec<Sample> {
    counts.iter().map(|(reason, count)| whole([reason.clone()], *count)).collect()
}

fn times(now: &Snapshot, read: impl Fn(&CohortSnapshot) -> Option<&Histogram>) -> Vec<Sample> {
    let cohorts = now.services.iter().flat_map(|service| service.cohorts.iter().map(move |cohort| (service, cohort)));
    let measured = cohorts.filter_map(|(service, cohort)| {
        let labels = vec![service.name.to_string(), cohort.cohort.to_string()];
        Some(Sample { labels, value: in_seconds(read(cohort)?) })
    });
    measured.collect()
}

/// Half an octave each: every fourth edge of the data plane's buckets, so that no count is guessed.
const EVERY: usize = 4;

#[expect(clippy::cast_precision_loss, reason = "edges have fewer digits, and a sum that is as long needs years")]
fn in_seconds(times: &Histogram) -> Value {
    let count = |buckets: std::ops::Range<usize>| -> u64 { times.counts.iter().skip(buckets.start).take(buckets.len()).sum() };
    let edges = (1..=histogram::LAST).step_by(EVERY);
    let mut buckets: Vec<(f64, u64)> =
        edges.map(|edge| ((histogram::begins(edge) * TICK_NS) as f64 / 1e9, count(edge.saturating_sub(EVERY)..edge))).collect();
    buckets.push((f64::INFINITY, count(histogram::LAST..usize::MAX)));
    Value::Times { sum: times.sum.as_secs_f64(), buckets }
}

fn services(now: &Snapshot, read: impl Fn(&ServiceSnapshot) -> Option<Value>) -> Vec<Sample> {
    let known = now.services.iter().filter_map(|service| Some((service, read(service)?)));
    known.map(|(service, value)| Sample { labels: vec![service.name.to_string()], value }).collect()
}

fn weights(now: &Snapshot, read: impl Fn(&ServiceSnapshot) -> Option<Weight>) -> Vec<Sample> {
    services(now, |service| read(service).map(|weight| Value::Real(weight.fraction())))
}

/// Every backend with the first three labels.
fn each_backend(now: &Snapshot) -> impl Iterator<Item = ([String; 3], &BackendSnapshot)> {
    now.services.iter().flat_map(|service| {
        service.cohorts.iter().flat_map(move |cohort| {
            cohort
                .backends
                .iter()
                .map(move |backend| ([service.name.to_string(), cohort.cohort.to_string(), backend.address.to_string()], backend))
        })
    })
}

fn backends(now: &Snapshot, read: impl Fn(&BackendSnapshot) -> Option<u64>) -> Vec<Sample> {
    each_backend(now).filter_map(|(labels, backend)| Some(whole(labels, read(backend)?))).collect()
}

fn counted(now: &Snapshot, read: impl Fn(&Counters) -> Option<u64>) -> Vec<Sample> {
    backends(now, |backend| read(backend.counters.as_ref()?))
}

fn traffic(now: &Snapshot, read: impl Fn(Traffic) -> u64) -> Vec<Sample> {
    each_backend(now)
        .filter_map(|(labels, backend)| Some((labels, backend.counters?)))
        .flat_map(|([service, cohort, backend], counters)| {
            let directions = [("to_backend", Some(counters.to_backend)), ("from_backend", counters.from_backend)];
            let known = directions.into_iter().filter_map(|(direction, traffic)| Some((direction, read(traffic?))));
            let labels = move |direction: &str| [service.clone(), cohort.clone(), backend.clone(), direction.to_owned()];
            known.map(|(direction, value)| whole(labels(direction), value)).collect::<Vec<_>>()
        })
        .collect()
}
