//! The agent's metrics: read, and held against what they were before. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What the agent counts itself, and begins anew with each agent (see `docs/metrics.md`).
const OF_THE_AGENT: [&str; 2] = ["splitter_service_flips_total", "splitter_agent_leases_ran_out_total"];
/// A backend's series end when it was removed and its last connection is gone.
const OF_A_BACKEND: &str = "splitter_backend_";

/// One page of metrics.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Values by series: the metric's name, with its labels.
    pub values: BTreeMap<String, f64>,
}

impl Page {
    /// Reads the classic text format.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self { values: text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect() }
    }

    /// The series of a metric, with their values.
    pub fn of<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.values.iter().filter(move |(series, _)| name(series) == metric).map(|(series, value)| (series.as_str(), *value))
    }

    /// A metric's sum.
    #[must_use]
    pub fn sum(&self, metric: &str) -> f64 {
        self.of(metric).map(|(_, value)| value).sum()
    }
}

/// The value of a label.
#[must_use]
pub fn label<'a>(series: &'a str, label: &str) -> Option<&'a str> {
    let from = series.find(&format!("{label}=\""))? + label.len() + 2;
    series[from..].split('"').next()
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

fn counts(series: &str) -> bool {
    let name = name(series);
    ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
}

/// What counters have been.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    last: BTreeMap<String, f64>,
    agent: u64,
    /// What series had come to when they ended, by metric, service and direction.
    retired: BTreeMap<(String, String, String), f64>,
    /// Services and backends whose series may end: they were removed.
    removed: BTreeSet<(String, String)>,
    /// Counters that were looked at.
    pub looks: u64,
}

impl Tracker {
    /// A service's backend was removed: its series may end, and begin anew.
    pub fn remove(&mut self, service: &str, backend: &str) {
        self.removed.insert((service.into(), backend.into()));
    }

    /// It's there again, and has been: its series may not end any more.
    pub fn keep(&mut self, service: &str, backend: &str) {
        self.removed.remove(&(service.into(), backend.into()));
    }

    /// The next page, of the agent of this number; what has fallen or is gone, in words.
    pub fn next(&mut self, page: &Page, agent: u64) -> Vec<String> {
        let other_agent = std::mem::replace(&mut self.agent, agent) != agent;
        let now: BTreeMap<String, f64> =
            page.values.iter().filter(|(series, _)| counts(series)).map(|(series, value)| (series.clone(), *value)).collect();
        let mut wrong = Vec::new();
        for (series, before) in &std::mem::take(&mut self.last) {
            self.looks += 1;
            let is = now.get(series);
            if is.is_some_and(|is| is >= before) || (other_agent && OF_THE_AGENT.contains(&name(series))) {
                continue;
            }
            if self.may_end(series) {
                *self.retired.entry(of_which(series)).or_default() += before;
                continue;
            }
            wrong.push(match is {
                Some(is) => format!("{series} fell from {before} to {is}"),
                None => format!("{series} was {before} and is gone"),
            });
        }
        self.last = now;
        wrong
    }

    fn may_end(&self, series: &str) -> bool {
        let of = |name| label(series, name).unwrap_or_default().to_owned();
        series.starts_with(OF_A_BACKEND) && self.removed.contains(&(of("service"), of("backend")))
    }

    /// What a service's backends have come to, in one direction where the metric has two, those that are gone included.
    #[must_use]
    pub fn total(&self, metric: &str, service: &str, direction: &str) -> f64 {
        let which = (metric.to_owned(), service.to_owned(), direction.to_owned());
        let lives = self.last.iter().filter(|(series, _)| of_which(series) == which);
        lives.map(|(_, value)| value).sum::<f64>() + self.retired.get(&which).copied().unwrap_or_default()
    }
}

fn of_which(series: &str) -> (String, String, String) {
    let of = |name| label(series, name).unwrap_or_default().to_owned();
    (name(series).to_owned(), of("service"), of("direction"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = "splitter_backend_connections_opened_total";

    fn page(lines: &[(&str, u64)]) -> Page {
        let text: String = lines.iter().map(|(series, value)| format!("{series} {value}\n")).collect();
        Page::read(&format!("# TYPE x counter\n{text}"))
    }

    fn opened(backend: &str) -> String {
        format!("{OPENED}{{service=\"web\",cohort=\"stable\",backend=\"{backend}\"}}")
    }

    #[test]
    fn a_counter_that_falls_or_goes_is_told() {
        let (one, two) = (opened("1"), opened("2"));
        let mut tracker = Tracker::default();
        assert_eq!(tracker.next(&page(&[(&one, 5), (&two, 7)]), 1), Vec::<String>::new());
        let wrong = tracker.next(&page(&[(&one, 4)]), 2);
        assert_eq!(wrong, [format!("{one} fell from 5 to 4"), format!("{two} was 7 and is gone")]);
    }

    #[test]
    fn gauges_may_fall_and_what_the_agent_counts_may_begin_anew_with_another_agent_alone() {
        let (gauge, flips) =
            ("splitter_backend_connections_live{service=\"web\"}", "splitter_service_flips_total{service=\"web\"}");
        let mut tracker = Tracker::default();
        tracker.next(&page(&[(gauge, 5), (flips, 3)]), 1);
        assert_eq!(tracker.next(&page(&[(gauge, 1), (flips, 0)]), 2), Vec::<String>::new());
        tracker.next(&page(&[(flips, 3)]), 2);
        assert_eq!(tracker.next(&page(&[(flips, 1)]), 2).len(), 1);
    }

    #[test]
    fn a_removed_backends_counters_end_and_are_remembered() {
        let (one, two) = (opened("1"), opened("2"));
        let mut tracker = Tracker::default();
        tracker.next(&page(&[(&one, 5), (&two, 7)]), 1);
        tracker.remove("web", "2");
        assert_eq!(tracker.next(&page(&[(&one, 6)]), 1), Vec::<String>::new());
        assert_eq!(tracker.next(&page(&[(&one, 6), (&two, 1)]), 1), Vec::<String>::new());
        tracker.keep("web", "2");
        assert!((tracker.total(OPENED, "web", "") - 14.0).abs() < 0.1);
        assert_eq!(tracker.next(&page(&[(&one, 6)]), 1).len(), 1);
    }
}
