//! What came of it: for people, and as JSON.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{
    journal::{Invariant, Journal, Violation},
    load::{Clients, Seen},
    options::Options,
    rules::Harm,
    schedule::Event,
    watch::{Course, Watch, courses, slope},
};
use crate::bench::machine::Machine;

/// What is written into a file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where, and how to get it again.
    pub machine: Machine,
    /// For how long events were begun.
    pub minutes: f64,
    /// What determined the schedule.
    pub seed: u64,
    /// The signal that ended it; 0: none.
    pub interrupted_by: i32,
    /// Events that were carried out.
    pub events: u64,
    /// The same by kind.
    pub events_by_kind: BTreeMap<&'static str, u64>,
    /// What was left out, and why.
    pub skipped: BTreeMap<String, String>,
    /// Connections that clients began.
    pub connections: u64,
    /// Datagrams that they sent.
    pub datagrams: u64,
    /// Established connections that broke.
    pub broken: u64,
    /// Of these, those that had to live.
    pub broken_without_excuse: u64,
    /// What clients suffered that events may do.
    pub excused: BTreeMap<Harm, u64>,
    /// Each thing that must hold.
    pub checks: Vec<Checked>,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What of that is a leak, or was left behind.
    pub leaks: Vec<String>,
    /// Pages of metrics.
    pub scrapes: u64,
    /// Processes of the agent.
    pub agents: u64,
    /// Times that nobody had planned in which the agent's lease had run out.
    pub unplanned_lapses: u64,
    /// What the canaries got.
    pub shares: Vec<Share>,
    /// What clients saw, by service.
    pub seen: BTreeMap<String, Totals>,
    /// The slope of the agent's own memory, in KiB a minute; left out without a process that lived long enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_slope_kib_per_minute: Option<f64>,
    /// The most memory that an agent had for itself, in KiB.
    pub most_memory_kib: u64,
    /// Agents that lived long enough to be compared with themselves.
    pub courses: Vec<Course>,
}

/// One thing that must hold.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// Which.
    pub invariant: Invariant,
    /// How often it was looked at.
    pub looks: u64,
    /// How often it didn't hold.
    pub violations: u64,
}

impl Checked {
    /// Whether it was looked at, and held.
    #[must_use]
    pub const fn held(&self) -> bool {
        self.looks > 0 && self.violations == 0
    }
}

/// What a canary got at one weight.
#[derive(Debug, Serialize)]
pub struct Share {
    /// The service.
    pub service: String,
    /// The weight in force, in percent.
    pub percent: f64,
    /// New connections.
    pub connections: u64,
    /// Those of the canary.
    pub canary: u64,
}

/// What clients of one service saw.
#[derive(Debug, Serialize)]
pub struct Totals {
    /// Connections begun.
    pub connections: u64,
    /// Those that may have been counted more than once, or not at all.
    pub uncertain: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// And answered.
    pub answers: u64,
}

impl Report {
    /// Of a run that has ended.
    #[expect(clippy::too_many_arguments, reason = "a report is of everything")]
    pub fn of(
        options: &Options,
        journal: &Journal,
        watch: &Watch,
        clients: &Clients<'_>,
        events: &[Event],
        seen: &BTreeMap<String, Seen>,
        unplanned_lapses: u64,
        left: Vec<String>,
        interrupted_by: i32,
    ) -> Self {
        let (connections, broken, datagrams) = clients.figures();
        let known = journal.known();
        let count = |invariant| known.counts.get(&invariant).copied().unwrap_or_default();
        let checks = Invariant::ALL.map(|invariant| Checked {
            invariant,
            looks: known.looks.get(&invariant).copied().unwrap_or_default(),
            violations: count(invariant),
        });
        let mut events_by_kind = BTreeMap::new();
        for event in events {
            *events_by_kind.entry(event.kind.told()).or_default() += 1;
        }
        let leaky =
            |violation: &&Violation| matches!(violation.invariant, Invariant::Objects | Invariant::Agent | Invariant::Live);
        let leaks = known.violations.iter().filter(leaky).map(|violation| violation.what.clone()).chain(left).collect();
        let samples = watch.samples();
        let share = |((service, basis_points), (connections, canary)): ((String, u16), (u64, u64))| Share {
            service,
            percent: f64::from(basis_points) / 100.0,
            connections,
            canary,
        };
        let of = |seen: &Seen| Totals {
            connections: seen.begun,
            uncertain: seen.uncertain,
            datagrams: seen.datagrams,
            answers: seen.answers,
        };
        Self {
            machine: Machine::of("soak"),
            minutes: options.minutes,
            seed: options.seed,
            interrupted_by,
            events: events.len() as u64,
            events_by_kind,
            skipped: known.skipped.clone(),
            connections,
            datagrams,
            broken,
            broken_without_excuse: count(Invariant::Connections),
            excused: known.excused.clone(),
            checks: checks.into(),
            violations: known.violations.clone(),
            leaks,
            scrapes: known.looks.get(&Invariant::Metrics).copied().unwrap_or_default(),
            agents: watch.agents(),
            unplanned_lapses,
            shares: clients.shares().into_iter().map(share).collect(),
            seen: seen.iter().map(|(service, seen)| (service.clone(), of(seen))).collect(),
            memory_slope_kib_per_minute: slope(&samples),
            most_memory_kib: samples.iter().map(|sample| sample.memory_kib).max().unwrap_or_default(),
            courses: courses(&samples),
        }
    }

    /// Checks that held, and those that didn't. A check that was never looked at didn't: it proves nothing.
    #[must_use]
    pub fn verdict(&self) -> (usize, usize) {
        let held = self.checks.iter().filter(|check| check.held()).count();
        (held, self.checks.len() - held)
    }

    /// For people.
    #[must_use]
    pub fn for_terminal(&self) -> String {
        let mut checks = Table::new();
        checks.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        checks.set_header(["what must hold", "looked at", "", ""]);
        for check in &self.checks {
            let (verdict, times) = match (check.looks, check.violations) {
                (0, 0) => ("NEVER LOOKED AT", String::new()),
                (_, 0) => ("held", String::new()),
                (_, times) => ("DID NOT HOLD", times.to_string()),
            };
            checks.add_row([check.invariant.told().to_owned(), check.looks.to_string(), verdict.to_owned(), times]);
        }
        let kinds: Vec<_> = self.events_by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let excused: Vec<_> = self.excused.iter().map(|(harm, count)| format!("{} {count}", harm.told())).collect();
        let slope = self.memory_slope_kib_per_minute.map_or("not known".into(), |slope| format!("{slope:+.1} KiB/min"));
        let mut told = vec![
            checks.to_string(),
            format!("{} minutes, seed {}: {} events: {}", self.minutes, self.seed, self.events, kinds.join(", ")),
            format!(
                "{} connections, {} datagrams; {} established connections broke, {} of them without an excuse",
                self.connections, self.datagrams, self.broken, self.broken_without_excuse
            ),
            format!("what events may do, and did: {}", if excused.is_empty() { "nothing".into() } else { excused.join(", ") }),
            format!(
                "{} agents, {} pages of metrics; most memory {} KiB, slope {slope}; {} leases ran out that nobody had planned",
                self.agents, self.scrapes, self.most_memory_kib, self.unplanned_lapses
            ),
        ];
        told.extend(self.skipped.iter().map(|(what, why)| format!("left out: {what}: {why}")));
        for violation in &self.violations {
            let Violation { at_ms, invariant, what, history } = violation;
            told.push(format!("DID NOT HOLD, {:.1} s: {}: {what}", *at_ms as f64 / 1e3, invariant.told()));
            told.extend(history.iter().map(|event| format!("    {event}")));
        }
        let (held, not) = self.verdict();
        told.push(format!("soak: {held} held, {not} did not"));
        told.join("\n")
    }
}
