//! What many runs say: rows of figures, for a terminal, a file and the documentation.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Agent, Kind, Plan, Run};
use crate::{
    bench::{docs, machine::Machine},
    demo::screen::{Line, Style},
};

/// The page.
const PAGE: &str = "flip-latency.md";
const PART: &str = "faults";
const LIMITS: &str = "limits";

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// By fault and agent.
    pub faults: Vec<Row>,
    /// The agent's own limits, where they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// From the crossing of one of the agent's own limits to the flip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// How many runs there were.
    pub runs: usize,
    /// How long it took.
    pub flip_ms: Quantiles,
    /// The longest.
    pub max_ms: f64,
}

impl Limits {
    /// The longest that it may take, samples being 100 ms apart.
    pub const MOST_MS: f64 = 250.0;

    /// What runs say; `None`: there are none.
    #[must_use]
    pub fn of(times: Vec<Duration>) -> Option<Self> {
        let (runs, max) = (times.len(), *times.iter().max()?);
        Some(Self { runs, flip_ms: quantiles(times)?, max_ms: (max.as_secs_f64() * 1e6).round() / 1e3 })
    }
}

impl std::fmt::Display for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, flip_ms: Quantiles { p50, p99 }, max_ms } = self;
        write!(
            f,
            "from the crossing of an agent's limit to the flip, {runs} runs: p50 {p50:.0} ms, p99 {p99:.0} ms, max {max_ms:.0} ms"
        )
    }
}

/// Runs of one fault with one agent.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The fault.
    pub kind: Kind,
    /// The agent.
    pub agent: Agent,
    /// How many runs there were.
    pub runs: usize,
    /// In how many the breaker tripped.
    pub flips: usize,
    /// The limits that were crossed.
    pub causes: Vec<&'static str>,
    /// New connections that reached a canary after the trip, in all runs together.
    pub canary_connections_after_trip: u64,
    /// From the fault's beginning to the trip; none without a trip.
    pub flip_ms: Option<Quantiles>,
    /// From the trip to the agent's own flip, where it runs.
    pub agent_flip_ms: Option<Quantiles>,
    /// Connections of clients that failed.
    pub failed_connections: Counts,
    /// Of those, the ones that were under way at the trip.
    pub failed_under_way: Counts,
    /// Connections that were answered, but later than after 150 ms.
    pub held_up_connections: Counts,
    /// New connections a second, on average.
    pub rate: f64,
    /// What did not come out as it must.
    pub not_held: Vec<String>,
}

/// In milliseconds. With fewer than 100 runs the p99 is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are no larger.
    pub p50: f64,
    /// 99 of 100 are no larger.
    pub p99: f64,
}

/// Of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Half are no larger.
    pub p50: u64,
    /// None is larger.
    pub max: u64,
}

impl Row {
    /// What these runs say.
    #[must_use]
    pub fn of(plan: &Plan, runs: &[Run]) -> Self {
        let Plan { kind, agent, .. } = *plan;
        let times = |of: fn(&Run) -> Option<Duration>| quantiles(runs.iter().filter_map(of).collect());
        let counts = |of: fn(&Run) -> u64| counts(runs.iter().map(of).collect());
        let mut causes: Vec<_> = runs.iter().filter_map(|run| run.cause).collect();
        causes.sort_unstable();
        causes.dedup();
        #[expect(clippy::cast_precision_loss, reason = "a count of runs is far below 2^52")]
        let many = runs.len().max(1) as f64;
        Self {
            kind,
            agent,
            runs: runs.len(),
            flips: runs.iter().filter(|run| run.flip.is_some()).count(),
            causes,
            canary_connections_after_trip: runs.iter().map(|run| run.canary_connections_after_trip).sum(),
            flip_ms: times(|run| run.flip),
            agent_flip_ms: times(|run| run.agent_flip),
            failed_connections: counts(|run| run.failed),
            failed_under_way: counts(|run| run.failed_under_way),
            held_up_connections: counts(|run| run.held_up),
            rate: runs.iter().map(|run| run.rate).sum::<f64>() / many,
            not_held: runs.iter().flat_map(|run| judge(plan, run)).collect(),
        }
    }
}

/// What must hold and doesn't.
#[must_use]
pub fn judge(plan: &Plan, run: &Run) -> Vec<String> {
    let Plan { kind, min_attempts, .. } = *plan;
    let mut not_held = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            not_held.push(format!("{}: {what}", kind.as_str()));
        }
    };
    if kind == Kind::Both {
        must(run.flip.is_none(), format!("the breaker tripped ({:?}), though stable fails alike", run.cause));
        return not_held;
    }
    must(run.flip.is_some(), "the breaker did not trip".into());
    let late = run.canary_connections_after_trip;
    must(late == 0, format!("{late} new connections reached the canary after the trip"));
    let again = run.canary_retransmissions_after_trip;
    must(again == 0, format!("{again} SYNs were sent again and reached the canary after the trip"));
    must(run.failed_after_trip == 0, format!("{} connections failed that had begun after the trip", run.failed_after_trip));
    let before = run.failed - run.failed_under_way - run.failed_after_trip;
    let immediate = matches!(kind, Kind::Refuse | Kind::Killed | Kind::Unreachable | Kind::Half);
    // Of a canary without a past, whose failures are told by a packet each.
    let bounded = immediate && plan.past.is_zero();
    must(!bounded || before <= min_attempts, format!("{before} connections had failed by the trip, more than {min_attempts}"));
    if let Some(samples) = run.samples_at_trip {
        must(u64::from(samples) >= min_attempts, format!("tripped with {samples} samples, fewer than {min_attempts}"));
    }
    not_held
}

/// The smallest value that so many in a hundred don't exceed.
fn quantile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

fn quantiles(mut times: Vec<Duration>) -> Option<Quantiles> {
    times.sort_unstable();
    let ms = |percent| quantile(&times, percent).map(|time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3);
    Some(Quantiles { p50: ms(50)?, p99: ms(99)? })
}

fn counts(mut counts: Vec<u64>) -> Counts {
    counts.sort_unstable();
    Counts { p50: quantile(&counts, 50).unwrap_or(0), max: quantile(&counts, 100).unwrap_or(0) }
}

/// Of all rows.
#[must_use]
pub fn table(rows: &[Row], preset: &str) -> String {
    let mut table = Table::new();
    table.load_preset(preset).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "fault",
        "agent",
        "runs",
        "trips",
        "by",
        "canary after trip",
        "ms to trip p50",
        "p99",
        "ms to agent's flip p50",
        "p99",
        "failed p50",
        "max",
        "of them under way, max",
        "held up p50",
        "max",
    ]);
    let ms = |time: Option<f64>| time.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
    for row in rows {
        table.add_row([
            row.kind.as_str().to_owned(),
            row.agent.as_str().to_owned(),
            row.runs.to_string(),
            row.flips.to_string(),
            if row.causes.is_empty() { "–".to_owned() } else { row.causes.join(", ") },
            row.canary_connections_after_trip.to_string(),
            ms(row.flip_ms.map(|flip| flip.p50)),
            ms(row.flip_ms.map(|flip| flip.p99)),
            ms(row.agent_flip_ms.map(|flip| flip.p50)),
            ms(row.agent_flip_ms.map(|flip| flip.p99)),
            row.failed_connections.p50.to_string(),
            row.failed_connections.max.to_string(),
            row.failed_under_way.max.to_string(),
            row.held_up_connections.p50.to_string(),
            row.held_up_connections.max.to_string(),
        ]);
    }
    table.to_string()
}

/// For a terminal.
#[must_use]
pub fn for_terminal(rows: &[Row]) -> String {
    table(rows, presets::UTF8_HORIZONTAL_ONLY)
}

/// One run, in a few lines of at most 80 characters.
pub fn summary(plan: &Plan, run: &Run) -> Vec<Line> {
    let Plan { kind, agent, weight, limit, min_attempts, .. } = plan;
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let told = |text: String| Line::new(Style::Plain, format!(" {text}"));
    let mut lines = vec![
        Line::new(Style::Bold, format!("{}: {}", kind.as_str(), kind.told())),
        told(format!("agent {}; {:.0} new connections/s, {weight} of them for the canary", agent.as_str(), run.rate)),
        told(format!("breaker: {limit} of at least {min_attempts} attempts")),
    ];
    match (run.flip, run.cause) {
        (Some(flip), Some(cause)) => {
            let (failures, samples) = (run.failures_at_trip.unwrap_or(0), run.samples_at_trip.unwrap_or(0));
            lines.push(told(format!("tripped {} after the fault began, by {cause}: {failures} of {samples}", ms(flip))));
        }
        (Some(_) | None, _) => lines.push(told(format!("not tripped within {:?}", plan.patience))),
    }
    if let Some(flip) = run.agent_flip {
        lines.push(told(format!("the agent's own flip: {} after that", ms(flip))));
    }
    if run.flip.is_some() {
        let late = run.canary_connections_after_trip;
        let style = if late == 0 { Style::Stable } else { Style::Bad };
        lines.push(Line::new(style, format!(" new connections that reached the canary after the trip: {late}")));
    }
    lines.push(told(format!(
        "client connections that saw a failure: {}, of them under way at the trip: {}",
        run.failed, run.failed_under_way
    )));
    lines.push(told(format!("answered, but not within 150 ms: {} of {}", run.held_up, run.connections)));
    let not_held = judge(plan, run);
    if not_held.is_empty() {
        lines.push(Line::new(Style::Stable, "Everything held."));
    }
    lines.extend(not_held.into_iter().map(|what| Line::new(Style::Bad, format!("Did not hold: {what}"))));
    lines
}

/// Writes the figures into the documentation's page.
///
/// # Errors
/// The page isn't there, lacks the part, or can't be written.
pub fn write_docs(directory: &Path, report: &Report) -> Result<()> {
    let path = directory.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if let Some(limits) = &report.limits {
        let text = docs::measured(&report.machine, &format!("{limits}."));
        return fs::write(&path, docs::replace(&page, LIMITS, &text)?).with_context(|| format!("writing {}", path.display()));
    }
    let rates = report.faults.iter().map(|row| row.rate);
    let (slowest, fastest) = (rates.clone().fold(f64::INFINITY, f64::min), rates.fold(0.0, f64::max));
    let text = docs::measured(&report.machine, &table(&report.faults, presets::ASCII_MARKDOWN));
    let text = format!("{text}\n\nNew connections a second, as they came about: {slowest:.0} to {fastest:.0}.");
    fs::write(&path, docs::replace(&page, PART, &text)?).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let flip = Some(Duration::from_millis(400));
        Run {
            cause: Some("refused"),
            flip,
            failures_at_trip: Some(20),
            samples_at_trip: Some(20),
            failed: 23,
            failed_under_way: 3,
            ..Run::default()
        }
    }

    #[test]
    fn a_row_has_quantiles_of_its_runs_and_the_sum_of_what_must_be_none() {
        let runs: Vec<Run> = (1..=100)
            .map(|n| Run { flip: Some(Duration::from_micros(n * 1_500)), failed: n, failed_under_way: n, ..run() })
            .collect();
        let row = Row::of(&Plan::new(Kind::Slow, Agent::Killed), &runs);
        assert_eq!((row.runs, row.flips, row.causes.as_slice()), (100, 100, &["refused"][..]));
        assert_eq!(row.flip_ms, Some(Quantiles { p50: 75.0, p99: 148.5 }));
        assert_eq!(row.failed_connections, Counts { p50: 50, max: 100 });
        assert_eq!((row.agent_flip_ms, row.canary_connections_after_trip), (None, 0));
        assert!(row.not_held.is_empty(), "{:?}", row.not_held);
        let json = serde_json::to_value(&row).expect("JSON");
        assert_eq!((&json["kind"], &json["agent"]), (&"slow".into(), &"killed".into()));
    }

    #[test]
    fn what_must_not_be_is_told() {
        let judge = |kind, run: &Run| judge(&Plan::new(kind, Agent::Running), run);
        assert_eq!(judge(Kind::Refuse, &run()), Vec::<String>::new());
        let none = Run { flip: None, cause: None, ..run() };
        for (kind, run, expected) in [
            (Kind::Refuse, none.clone(), "refuse: the breaker did not trip"),
            (Kind::Both, run(), "both: the breaker tripped (Some(\"refused\")), though stable fails alike"),
            (
                Kind::Slow,
                Run { canary_connections_after_trip: 1, ..run() },
                "slow: 1 new connections reached the canary after the trip",
            ),
            (Kind::Half, Run { failed: 24, ..run() }, "half: 21 connections had failed by the trip, more than 20"),
            (Kind::Slow, Run { samples_at_trip: Some(19), ..run() }, "slow: tripped with 19 samples, fewer than 20"),
            (Kind::Reset, Run { failed_after_trip: 2, ..run() }, "reset: 2 connections failed that had begun after the trip"),
        ] {
            assert_eq!(judge(kind, &run), [expected]);
        }
        assert_eq!(judge(Kind::Both, &none), Vec::<String>::new());
    }
}
