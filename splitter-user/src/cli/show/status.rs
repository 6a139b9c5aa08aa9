//! Status and backends.

use std::time::Duration;

use anstyle::Style;

use super::layout::{BAD, BOLD, Cell, DIM, GOOD, PLAIN, WARN, count, field, known, left, rate, right, row, span, time};
use crate::{
    api::wire::{
        AgentStatus, AttachMode, BackendList, BackendState, BackendStatus, BreakerStatus, CohortStatus, Counters, Flip,
        LeaseStatus, Recent, ServiceStatus, Status, Way,
    },
    model::{Affinity, Cohort, Existing},
};

/// The widest IPv4 address with a port, and the indent of a backend.
const NAME: usize = 23;
const STATE: usize = 11;
const NUMBER: usize = 7;
/// Names of fields, of the agent and of a service.
const FIELD: usize = 12;

/// What was before, and how long ago: rates are the difference.
pub struct Change<'a> {
    /// The status before.
    pub before: &'a Status,
    /// How long ago that was.
    pub elapsed: Duration,
}

/// The whole; with rates instead of totals if something is known from before.
pub fn status(status: &Status, change: Option<&Change>) -> String {
    let mut text = agent(&status.agent);
    for service in &status.services {
        text.push('\n');
        text += &one_service(service, change);
    }
    text
}

fn agent(agent: &AgentStatus) -> String {
    let adoptions = match agent.adoptions {
        0 => String::new(),
        1 => ", 1 adoption".to_owned(),
        n => format!(", {n} adoptions"),
    };
    let about = format!("{}, pid {}, since {}{adoptions}", agent.version, agent.pid, time(agent.started_at));
    let mut text = field(0, "agent", FIELD, BOLD, &about);
    let interface = |name: &str, mode: AttachMode| format!("{name} {}", mode.as_str());
    let interfaces: Vec<_> = agent.interfaces.iter().map(|i| interface(&i.name, i.mode)).collect();
    text += &field(0, "interfaces", FIELD, PLAIN, &super::joined(&interfaces));
    if let Some(lease) = &agent.lease {
        let style = if lease.ran_out.is_some() { WARN } else { PLAIN };
        text += &field(0, "lease", FIELD, style, &lease_in_words(lease));
    }
    if let Some(reload) = &agent.last_reload {
        let (word, style) = if reload.ok { ("done", PLAIN) } else { ("FAILED", BAD) };
        text += &field(0, "reload", FIELD, style, &format!("{word} at {}: {}", time(reload.at), reload.message));
    }
    text + &alerts(0, &agent.alerts)
}

fn one_service(service: &ServiceStatus, change: Option<&Change>) -> String {
    let affinity = match service.affinity {
        Affinity::Connection => "by connection",
        Affinity::Client => "by client",
    };
    let name = super::layout::paint(BOLD, service.name.as_str());
    let mut text = format!("{name}: {} {}, {}, {affinity}\n", service.protocol, service.address, service.mode);
    if let Some(flip) = &service.flip {
        text += &field(2, "FLIPPED", FIELD - 2, BAD, &flip_in_words(flip));
    }
    if let Some(breaker) = &service.breaker {
        let (style, text_of) = breaker_in_words(breaker);
        text += &field(2, "breaker", FIELD - 2, style, &text_of);
    }
    let in_force = known(service.weights.in_force, |weight| weight.to_string());
    let weight = format!("{} asked by {}, {in_force} in force", service.weights.asked, service.weights.source.as_str());
    text += &field(2, "weight", FIELD - 2, PLAIN, &weight);
    text += &service.rollout.as_ref().map(super::rollout::brief).unwrap_or_default();
    if let Some(share) = change.and_then(|change| measured(service, change)) {
        text += &field(2, "measured", FIELD - 2, PLAIN, &share);
    }
    if let Some(fallback) = service.canary_fallback.filter(|fallback| *fallback > 0) {
        let what = format!("{} new connections went to stable for want of a canary", count(fallback));
        text += &field(2, "fallback", FIELD - 2, WARN, &what);
    }
    if !service.refusals.is_empty() {
        let refusals: Vec<_> = service.refusals.iter().map(|(reason, n)| format!("{reason} {}", count(*n))).collect();
        text += &field(2, "refusals", FIELD - 2, PLAIN, &refusals.join(", "));
    }
    text += &alerts(2, &service.alerts);
    text += &recent(service);
    text += &header(change.is_some());
    for cohort in &service.cohorts {
        text += &one_cohort(service, cohort, change);
    }
    text
}

fn alerts(indent: usize, alerts: &[String]) -> String {
    alerts.iter().map(|alert| field(indent, "alert", FIELD - indent, WARN, alert)).collect()
}

fn flip_in_words(flip: &Flip) -> String {
    let existing = match flip.existing {
        Existing::Keep => "kept",
        Existing::Reset => "reset",
    };
    let cause = flip.cause.as_str();
    let reason = flip.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("since {} by {} ({cause}), established connections {existing}{reason}", time(flip.at), flip.by)
}

fn lease_in_words(lease: &LeaseStatus) -> String {
    let milliseconds = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    let (length, left) = (milliseconds(lease.length_ms), rate(lease.left_ms as f64 / 1_000.0));
    let ran_out = lease.ran_out.map(|lapse| {
        format!("; had run out at {} for {}, resume {}", time(lapse.at), milliseconds(lapse.lasted_ms), lease.resume.as_str())
    });
    format!("{length}, {left} s left{}", ran_out.unwrap_or_default())
}

fn breaker_in_words(breaker: &BreakerStatus) -> (Style, String) {
    match (&breaker.trip, breaker.tripped) {
        (Some(trip), _) => (BAD, format!("TRIPPED at {}: {}", time(trip.at), trip.reason)),
        (None, true) => (BAD, "TRIPPED".to_owned()),
        (None, false) => (PLAIN, "armed".to_owned()),
    }
}

const RECENT_TITLES: [&str; 6] = ["NEW/s", "FAILED", "P50", "P90", "P99", "LIVE"];

/// What the cohorts did lately: a row each. The times are those of handshakes.
fn recent(service: &ServiceStatus) -> String {
    let longest = service.cohorts.iter().filter_map(|cohort| cohort.recent.as_ref()).map(|recent| recent.window_ms).max();
    let Some(window) = longest else { return String::new() };
    let title = format!("LAST {} s", Duration::from_millis(window).as_secs_f64().round());
    let mut cells = vec![left(title, NAME, DIM)];
    cells.extend(RECENT_TITLES.iter().map(|title| right(*title, NUMBER)));
    let mut text = row(2, &cells);
    for cohort in &service.cohorts {
        let mut cells = vec![left(cohort.cohort.as_str(), NAME, BOLD)];
        cells.extend(did(cohort.recent.as_ref(), cohort.sums.as_ref()).into_iter().map(|cell| right(cell, NUMBER)));
        text += &row(2, &cells);
    }
    text
}

fn did(recent: Option<&Recent>, sums: Option<&Counters>) -> [String; 6] {
    let times = recent.and_then(|recent| recent.handshake);
    let seconds = recent.map(|recent| recent.window_ms as f64 / 1_000.0).filter(|seconds| *seconds > 0.0);
    [
        known(recent.zip(seconds), |(recent, seconds)| rate(recent.attempts as f64 / seconds)),
        known(recent.and_then(|recent| recent.failure_ratio), |ratio| format!("{:.2}%", ratio * 100.0)),
        known(times.and_then(|times| times.p50_us), span),
        known(times.and_then(|times| times.p90_us), span),
        known(times.and_then(|times| times.p99_us), span),
        known(sums.and_then(Counters::live), count),
    ]
}

fn header(rates: bool) -> String {
    let titles = if rates { RATE_TITLES } else { TOTAL_TITLES };
    let mut cells = vec![left("BACKEND", NAME, DIM), left("STATE", STATE, DIM)];
    cells.extend(titles.iter().map(|title| right(*title, NUMBER)));
    row(2, &cells)
}

const TOTAL_TITLES: [&str; 5] = ["LIVE", "OPENED", "REFUSED", "TIMEOUT", "RESET"];
const RATE_TITLES: [&str; 5] = ["LIVE", "NEW/s", "FAIL/s", "TO B/s", "FROM B/s"];

fn one_cohort(service: &ServiceStatus, cohort: &CohortStatus, change: Option<&Change>) -> String {
    let before = change.and_then(|change| {
        let before = change.before.services.iter().find(|before| before.name == service.name)?;
        Some((before.cohort(cohort.cohort)?, change.elapsed))
    });
    let numbers = |connections, now: Option<&Counters>, before: Option<Option<&Counters>>| match (change, before) {
        (None, _) => totals(connections, now),
        (Some(change), before) => rates(connections, now, before.flatten(), change.elapsed),
    };
    let sums = numbers(cohort.connections, cohort.sums.as_ref(), before.map(|(before, _)| before.sums.as_ref()));
    let name = left(cohort.cohort.as_str(), NAME, BOLD);
    let mut text = row(2, &[vec![name, left("", STATE, PLAIN)], sums].into_iter().flatten().collect::<Vec<_>>());
    for backend in &cohort.backends {
        let before = before.and_then(|(before, _)| before.backends.iter().find(|b| b.address == backend.address));
        let numbers = numbers(backend.connections, backend.counters.as_ref(), before.map(|before| before.counters.as_ref()));
        let mut cells = vec![left(backend.address.to_string(), NAME - 2, PLAIN), state(backend)];
        cells.extend(numbers);
        text += &row(4, &cells);
        text += &missing_way(backend);
    }
    text
}

fn state(backend: &BackendStatus) -> Cell {
    let style = match backend.state {
        BackendState::Active => GOOD,
        BackendState::Draining | BackendState::Removed => WARN,
        BackendState::Unreachable => BAD,
    };
    left(backend.state.as_str(), STATE, style)
}

fn missing_way(backend: &BackendStatus) -> String {
    match &backend.way {
        Way::Known { .. } => String::new(),
        Way::Missing { missing } => format!("{}{}", " ".repeat(6), super::layout::wrap(missing, 6)),
    }
}

fn totals(connections: Option<u64>, counters: Option<&Counters>) -> Vec<Cell> {
    let of = |read: fn(&Counters) -> Option<u64>| known(counters.and_then(read), count);
    let numbers = [
        known(connections, count),
        of(|counters| Some(counters.opened)),
        of(|counters| counters.refused),
        of(|counters| Some(counters.timed_out)),
        of(|counters| Some(counters.reset)),
    ];
    numbers.into_iter().map(|number| right(number, NUMBER)).collect()
}

fn rates(connections: Option<u64>, now: Option<&Counters>, before: Option<&Counters>, elapsed: Duration) -> Vec<Cell> {
    let per_second = |read: fn(&Counters) -> Option<u64>| {
        let difference = now.zip(before).and_then(|(now, before)| read(now)?.checked_sub(read(before)?));
        known(difference.filter(|_| !elapsed.is_zero()), |difference| rate(difference as f64 / elapsed.as_secs_f64()))
    };
    let numbers = [
        known(connections, count),
        per_second(|counters| Some(counters.opened)),
        // What isn't visible in this mode can't have been counted as a failure.
        per_second(|counters| Some(counters.refused.unwrap_or(0) + counters.timed_out + counters.reset)),
        per_second(|counters| Some(counters.to_backend.bytes)),
        per_second(|counters| counters.from_backend.map(|traffic| traffic.bytes)),
    ];
    numbers.into_iter().zip(RATE_TITLES).map(|(number, title)| right(number, NUMBER.max(title.len()))).collect()
}

/// The canary's share of the connections that were opened since; none if there was none, or if a cohort isn't known.
fn measured(service: &ServiceStatus, change: &Change) -> Option<String> {
    let before = change.before.services.iter().find(|before| before.name == service.name)?;
    let opened = |cohort: Cohort| {
        let (now, before) = (service.cohort(cohort)?.sums?, before.cohort(cohort)?.sums?);
        now.opened.checked_sub(before.opened)
    };
    let (stable, canary) = (opened(Cohort::Stable)?, opened(Cohort::Canary)?);
    let all = stable + canary;
    let seconds = change.elapsed.as_secs_f64();
    (all > 0).then(|| {
        let share = canary as f64 / all as f64 * 100.0;
        format!("{share:.2}%: {canary} of {all} new connections in {seconds:.1} s")
    })
}

/// `backend list`.
pub fn backends(list: &BackendList) -> String {
    let titles = [left("BACKEND", NAME, DIM), right("WEIGHT", 6), left("STATE", STATE, DIM), right("LIVE", NUMBER)];
    let mut text = row(0, &titles.into_iter().chain([left("WAY", 0, DIM)]).collect::<Vec<_>>());
    for cohort in &list.cohorts {
        text += &row(0, &[left(cohort.cohort.as_str(), NAME, BOLD)]);
        for backend in &cohort.backends {
            let way = match &backend.way {
                Way::Known { interface, mac } => format!("{interface} {mac}"),
                Way::Missing { .. } => "-".to_owned(),
            };
            text += &row(
                2,
                &[
                    left(backend.address.to_string(), NAME - 2, PLAIN),
                    right(backend.weight.get().to_string(), 6),
                    state(backend),
                    right(known(backend.connections, count), NUMBER),
                    left(way, 0, PLAIN),
                ],
            );
            text += &missing_way(backend);
        }
    }
    text
}
