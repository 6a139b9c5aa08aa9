//! A rollout's plan and who is told of it, as written: what could be read is there, what could not was reported.

use std::{collections::HashSet, time::Duration};

use toml::{Spanned, de::DeValue};

use super::{
    document::{Found, List, Problems, Reported, Table},
    rules::DraftPlan,
    schema, step, values,
};
use crate::model::{
    Check, Compare, Existing, Mode, Notify, NotifyTo, OnBreach, OnDeadline, OnNoData, Plan, Probe, Protocol, Step,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// `[service.rollout]` as written.
pub(super) struct RawRollout {
    /// Where its list of steps stands.
    pub(super) steps_at: usize,
    pub(super) steps: List<Step>,
    pub(super) min_connections: Result<Found<u64>, Reported>,
    pub(super) deadline: Result<Found<Duration>, Reported>,
    pub(super) compare: Result<RawCompare, Reported>,
    pub(super) checks: List<Check>,
    reactions: Result<Reactions, Reported>,
}

/// `[service.rollout.compare]` as written, or what its absence means.
pub(super) struct RawCompare {
    pub(super) at: usize,
    written: bool,
    how: Option<Compare>,
}

/// What a plan says to what may come in its way: no rule looks at it.
struct Reactions {
    on_breach: OnBreach,
    existing: Existing,
    on_no_data: OnNoData,
    no_data_for: Duration,
    on_deadline: OnDeadline,
}

impl RawRollout {
    /// What is known of it, for the rules between values.
    pub(super) fn draft(&self, protocol: Option<Protocol>, mode: Option<Mode>) -> DraftPlan {
        DraftPlan {
            steps: numbered(&self.steps),
            steps_unknown: self.steps.missing.is_some(),
            min_connections: self.min_connections.as_ref().ok().map(|found| found.value),
            deadline: self.deadline.as_ref().ok().map(|found| found.value),
            compares: self.compare.as_ref().ok().map(|compare| compare.means(protocol, mode).is_some()),
            checks: numbered(&self.checks),
            checks_unknown: self.checks.missing.is_some(),
        }
    }

    /// The plan, if all of it could be read.
    pub(super) fn finish(self, protocol: Protocol, mode: Mode) -> Result<Plan, Reported> {
        let reactions = self.reactions?;
        Ok(Plan {
            steps: all(self.steps)?,
            min_connections: self.min_connections?.value,
            on_breach: reactions.on_breach,
            existing: reactions.existing,
            on_no_data: reactions.on_no_data,
            no_data_for: reactions.no_data_for,
            deadline: self.deadline?.value,
            on_deadline: reactions.on_deadline,
            compare: self.compare?.means(Some(protocol), Some(mode)),
            checks: all(self.checks)?,
        })
    }
}

impl RawCompare {
    /// A section that isn't written has its defaults, but where nothing can be compared.
    fn means(&self, protocol: Option<Protocol>, mode: Option<Mode>) -> Option<Compare> {
        let blind = (protocol, mode) == (Some(Protocol::Udp), Some(Mode::Dsr));
        self.how.filter(|_| self.written || !blind)
    }
}

fn numbered<T: Clone>(list: &List<T>) -> Vec<(usize, T)> {
    list.found.iter().map(|(index, found)| (*index, found.value.clone())).collect()
}

fn all<T>(list: List<T>) -> Result<Vec<T>, Reported> {
    list.missing.map_or(Ok(()), Err)?;
    Ok(list.found.into_iter().map(|(_, found)| found.value).collect())
}

/// `[service.rollout]`.
pub(super) fn rollout(service: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Option<RawRollout>, Reported> {
    let Some(table) = service.table("rollout", &schema::ROLLOUT, &service.inner("rollout"), problems)? else {
        return Ok(None);
    };
    Ok(Some(RawRollout {
        steps_at: table.get("steps").map_or(table.at, |value| value.span().start),
        steps: steps(&table, &service.place, problems),
        min_connections: table.value("min_connections", problems, |v| values::integer(v, 0..=u64::MAX)),
        reactions: reactions(&table, problems),
        deadline: table.value("deadline", problems, |v| values::duration(v, SECOND..=step::LONGEST)),
        compare: compare(&table, problems),
        checks: checks(&table, &service.place, problems),
    }))
}

fn steps(table: &Table<'_, '_>, service: &str, problems: &mut Problems<'_>) -> List<Step> {
    table.list("steps", problems, |index, value, problems| {
        let place = format!("{service}, step {}", index + 1);
        let at = value.span().start;
        let DeValue::Table(keys) = value.get_ref() else {
            return values::step(value.get_ref()).map_err(|why| problems.report(at, &place, why));
        };
        let table = Table::open(keys, at, &schema::STEP, &place, problems);
        let step = table.value("weight", problems, values::step);
        let lasts = table.optional("for", problems, |v| step::time_of(values::text(v, "15m")?));
        let gate = table.optional("gate", problems, values::gate);
        let (mut step, lasts, gate) = (step?.value, lasts?, gate?);
        if let Some(lasts) = lasts {
            if !step.lasts.is_zero() {
                let message = format!("the weight \"{step}\" has its time already: leave \"for\" out");
                return Err(problems.report(lasts.at, &table.inner("for"), message));
            }
            step.lasts = lasts.value;
        }
        step.gate = gate.map(|gate| gate.value);
        Ok(step)
    })
}

fn reactions(table: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Reactions, Reported> {
    let breaches = [("flip", OnBreach::Flip), ("pause", OnBreach::Pause)];
    let on_breach = table.value("on_breach", problems, |v| values::word(v, &breaches));
    let fates = [("keep", Existing::Keep), ("reset", Existing::Reset)];
    let existing = table.value("existing", problems, |v| values::word(v, &fates));
    let silences = [("hold", OnNoData::Hold), ("flip", OnNoData::Flip), ("proceed", OnNoData::Proceed)];
    let on_no_data = table.value("on_no_data", problems, |v| values::word(v, &silences));
    let no_data_for = table.value("no_data_for", problems, |v| values::duration(v, Duration::ZERO..=DAY));
    let ends = [("abort", OnDeadline::Abort), ("flip", OnDeadline::Flip)];
    let on_deadline = table.value("on_deadline", problems, |v| values::word(v, &ends));
    Ok(Reactions {
        on_breach: on_breach?.value,
        existing: existing?.value,
        on_no_data: on_no_data?.value,
        no_data_for: no_data_for?.value,
        on_deadline: on_deadline?.value,
    })
}

fn compare(rollout: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<RawCompare, Reported> {
    let place = rollout.inner("compare");
    let empty = toml::map::Map::new();
    let written = rollout.table("compare", &schema::COMPARE, &place, problems)?;
    let is_written = written.is_some();
    let table = written.unwrap_or_else(|| Table::open(&empty, rollout.at, &schema::COMPARE, &place, problems));
    let false_alarm_rate = table.value("false_alarm_rate", problems, values::false_alarm_rate);
    let failures = table.value("failures", problems, values::boolean);
    let handshake_p90 = table.value("handshake_p90", problems, values::boolean);
    let tolerance = table.value("tolerance", problems, values::factor);
    let stable_failing = table.value("stable_failing", problems, values::weight);
    let how = Compare {
        false_alarm_rate: false_alarm_rate?.value,
        failures: failures?.value,
        handshake_p90: handshake_p90?.value,
        tolerance: tolerance?.value,
        stable_failing: stable_failing?.value,
    };
    Ok(RawCompare { at: table.at, written: is_written, how: (how.failures || how.handshake_p90).then_some(how) })
}

fn checks(rollout: &Table<'_, '_>, service: &str, problems: &mut Problems<'_>) -> List<Check> {
    let two_brackets = "checks are a list: write [[service.rollout.check]], with two brackets";
    tables(rollout, "check", two_brackets, problems, |index, value, problems| {
        let place = format!("{service}, check {}", index + 1);
        let table = open(value, &schema::CHECK, &place, problems)?;
        let name = table.value("name", problems, |v| values::name(v, "http-5xx"));
        let probe = probe(&table, problems);
        let interval = table.value("interval", problems, |v| values::duration(v, SECOND..=10 * MINUTE));
        let timeout = table.value("timeout", problems, |v| values::duration(v, SHORTEST_TIMEOUT..=MINUTE));
        let retries = table.value("retries", problems, |v| values::size(v, 0..=10));
        let failures = table.value("failures", problems, |v| values::size(v, 1..=100));
        let token_file = table.optional("token_file", problems, values::absolute_path);
        Ok(Check {
            name: name?.value,
            probe: probe?,
            interval: interval?.value,
            timeout: timeout?.value,
            retries: retries?.value,
            failures: failures?.value,
            token_file: token_file?.map(|path| path.value),
        })
    })
}

fn probe(table: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Probe, Reported> {
    let promql = table.optional("promql", problems, values::promql);
    let url = table.optional("url", problems, values::prometheus);
    let max = table.optional("max", problems, values::number);
    let min = table.optional("min", problems, values::number);
    let webhook = table.optional("webhook", problems, values::url);
    // What is written counts, not what could be read: a wrong expression isn't a missing one as well.
    match (table.get("promql"), table.get("webhook")) {
        (None, None) => {
            let message = "there is nothing to ask: set promql with url and max or min, or set webhook";
            Err(table.absent(&["promql", "webhook"], problems, message))
        }
        (Some(_), Some(webhook)) => {
            let message = "promql is there already: a check asks one of the two, write a second check for the other";
            Err(problems.report(webhook.span().start, &table.inner("webhook"), message))
        }
        (Some(_), None) => {
            if table.get("url").is_none() {
                let message = "promql needs a url: say where the Prometheus is, such as \"http://127.0.0.1:9090\"";
                return Err(table.absent(&["url"], problems, message));
            }
            let (promql, url, max, min) = (promql?, url?, max?, min?);
            let Some((query, url)) = promql.zip(url) else { return Err(table.missing("promql", problems)) };
            Ok(Probe::PromQl { url: url.value, query: query.value, max: max.map(|max| max.value), min: min.map(|min| min.value) })
        }
        (None, Some(_)) => {
            for key in ["url", "max", "min"] {
                if let Some(value) = table.get(key) {
                    let message =
                        format!("{key} belongs to promql, and a webhook says by itself whether it passes: leave it out");
                    return Err(problems.report(value.span().start, &table.inner(key), message));
                }
            }
            let Some(webhook) = webhook? else { return Err(table.missing("webhook", problems)) };
            Ok(Probe::Webhook { url: webhook.value })
        }
    }
}

/// Every `[[notify]]`.
pub(super) fn notify(file: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Vec<Notify>, Reported> {
    let two_brackets = "who is told is a list: write [[notify]], with two brackets";
    let mut names = HashSet::new();
    all(tables(file, "notify", two_brackets, problems, |index, value, problems| {
        let table = open(value, &schema::NOTIFY, &format!("notify {}", index + 1), problems)?;
        let name = table.value("name", problems, |v| values::name(v, "release-channel"));
        let to = notify_to(&table, problems);
        let token_file = table.optional("token_file", problems, values::absolute_path);
        let timeout = table.value("timeout", problems, |v| values::duration(v, SHORTEST_TIMEOUT..=MINUTE));
        let name = name?;
        if !names.insert(name.value.clone()) {
            let message = "the name is taken by an earlier one: give each a name of its own";
            return Err(problems.report(name.at, &table.inner("name"), message));
        }
        Ok(Notify { name: name.value, to: to?, token_file: token_file?.map(|path| path.value), timeout: timeout?.value })
    }))
}

fn notify_to(table: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<NotifyTo, Reported> {
    let url = table.optional("url", problems, values::url);
    let file = table.optional("url_file", problems, values::absolute_path);
    if let (Some(_), Some(file)) = (table.get("url"), table.get("url_file")) {
        let message = "url is there already: a notification goes to one place, leave one of the two out";
        return Err(problems.report(file.span().start, &table.inner("url_file"), message));
    }
    match (url?, file?) {
        (Some(url), _) => Ok(NotifyTo::Url(url.value)),
        (None, Some(file)) => Ok(NotifyTo::File(file.value)),
        (None, None) => {
            let message = "nobody is told: set url, or url_file with the path of a file that holds it";
            Err(table.absent(&["url", "url_file"], problems, message))
        }
    }
}

/// A key that holds tables, each under a heading of its own; an absent one holds none.
fn tables<T>(
    table: &Table<'_, '_>,
    key: &'static str,
    two_brackets: &str,
    problems: &mut Problems<'_>,
    mut read: impl FnMut(usize, &Spanned<DeValue<'_>>, &mut Problems<'_>) -> Result<T, Reported>,
) -> List<T> {
    match table.get(key) {
        None => List { found: Vec::new(), missing: None },
        Some(value) if !value.get_ref().is_array() => {
            let missing = problems.report(value.span().start, &table.place, two_brackets);
            List { found: Vec::new(), missing: Some(missing) }
        }
        Some(_) => table.list(key, problems, &mut read),
    }
}

fn open<'v, 't>(
    value: &'v Spanned<DeValue<'t>>,
    section: &'static schema::Section,
    place: &str,
    problems: &mut Problems<'_>,
) -> Result<Table<'v, 't>, Reported> {
    let at = value.span().start;
    match value.get_ref().as_table() {
        Some(keys) => Ok(Table::open(keys, at, section, place, problems)),
        None => {
            let message = values::expected(&format!("a table {}", section.heading), value.get_ref());
            Err(problems.report(at, place, message))
        }
    }
}
