//! Figures, for a terminal, a file and `docs/analysis.md`.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    bound,
    method::{FALSE_ALARM_RATE, Method},
    play::{Found, Scene},
    plot,
};
use crate::bench::{docs, machine::Machine, tables::Medium};

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// Rollouts of a canary that is as good as stable.
    pub false_alarms: Vec<FalseAlarms>,
    /// Rollouts of one that fails more often.
    pub delay: Vec<Delay>,
}

/// How often a method calls a canary worse that isn't.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FalseAlarms {
    /// The method.
    pub method: Method,
    /// New connections a second.
    pub rate: u32,
    /// The canary's weight, in hundredths of a percent.
    pub weight_bp: u16,
    /// So many were played.
    pub rollouts: usize,
    /// In so many it did.
    pub alarms: usize,
    /// The rate of false alarms is below this, with 99% confidence.
    pub upper99: f64,
}

/// How soon a method calls a canary worse that is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delay {
    /// The method.
    pub method: Method,
    /// New connections a second.
    pub rate: u32,
    /// The share of failures on stable.
    pub stable: f64,
    /// On canary.
    pub canary: f64,
    /// The canary's weight, in hundredths of a percent.
    pub weight_bp: u16,
    /// So many were played.
    pub rollouts: usize,
    /// In so many it did.
    pub caught: usize,
    /// Half of them needed no more connections of the canary; none: it did in less than half of them.
    pub median_canary_connections: Option<u64>,
    /// What the best possible test needs on average that knows both shares.
    pub oracle: f64,
    /// How many times as many that is.
    pub ratio: Option<f64>,
}

impl FalseAlarms {
    /// What a method's rollouts of a scene say.
    #[must_use]
    pub fn of(method: Method, scene: &Scene, found: &[Found]) -> Self {
        let (alarms, rollouts) = (found.iter().flatten().count(), found.len());
        Self {
            method,
            rate: scene.rate,
            weight_bp: scene.weight.basis_points(),
            rollouts,
            alarms,
            upper99: bound::upper(alarms as u64, rollouts as u64, 0.99),
        }
    }

    fn missed(&self) -> Option<String> {
        (self.method.is_ours() && self.upper99 > FALSE_ALARM_RATE).then(|| {
            let Self { method, rate, weight_bp, rollouts, alarms, upper99 } = self;
            let method = method.as_str();
            format!("{method}, {rate}/s, {weight_bp} bp: {alarms} false alarms in {rollouts} rollouts, which may be {upper99:.4} of them")
        })
    }
}

impl Delay {
    /// What a method's rollouts of a scene say.
    #[must_use]
    pub fn of(method: Method, scene: &Scene, found: &[Found]) -> Self {
        let mut sorted: Vec<_> = found.iter().flatten().copied().collect();
        sorted.sort_unstable();
        // Those that didn't find it come last.
        let median = sorted.get(found.len().saturating_sub(1) / 2).copied();
        let oracle = bound::oracle(FALSE_ALARM_RATE, scene.stable, scene.canary);
        #[expect(clippy::cast_precision_loss, reason = "a count of connections is far below 2^52")]
        let ratio = median.map(|median| median as f64 / oracle);
        Self {
            method,
            rate: scene.rate,
            stable: scene.stable,
            canary: scene.canary,
            weight_bp: scene.weight.basis_points(),
            rollouts: found.len(),
            caught: sorted.len(),
            median_canary_connections: median,
            oracle,
            ratio,
        }
    }

    /// At most so many times what the best possible test needs.
    fn goal(&self) -> Option<f64> {
        (self.method == Method::Splitter).then_some(if self.canary < 0.02 { 3.0 } else { 2.0 })
    }

    fn missed(&self) -> Option<String> {
        let goal = self.goal().filter(|goal| self.ratio.is_none_or(|ratio| ratio > *goal))?;
        let needed =
            self.median_canary_connections.map_or_else(|| "more than there were".to_owned(), |median| median.to_string());
        Some(format!(
            "{}, {}/s, {} of connections failing: {needed} canary connections, above {goal} times {:.0}",
            self.method.as_str(),
            self.rate,
            percent(self.canary),
            self.oracle
        ))
    }
}

/// What is promised and doesn't hold.
#[must_use]
pub fn missed(report: &Report) -> Vec<String> {
    report.false_alarms.iter().filter_map(FalseAlarms::missed).chain(report.delay.iter().filter_map(Delay::missed)).collect()
}

/// The false alarms as a table: a row for each rate and weight, a column for each method.
#[must_use]
pub fn false_alarms(report: &Report, medium: Medium) -> String {
    let header = ["rate".to_owned(), "weight".to_owned()].into_iter();
    let header = header.chain(Method::ALL.map(|method| method.as_str().to_owned()));
    let mut scenes: Vec<_> = report.false_alarms.iter().map(|row| (row.rate, row.weight_bp)).collect();
    scenes.dedup();
    let lines = scenes.into_iter().map(|(rate, weight_bp)| {
        let figures = Method::ALL.map(|method| {
            let row = report.false_alarms.iter().find(|row| (row.method, row.rate, row.weight_bp) == (method, rate, weight_bp));
            row.map(|row| format!("{} (≤ {:.2}%)", row.alarms, row.upper99 * 100.0)).unwrap_or_default()
        });
        [format!("{rate}/s"), format!("{}%", f64::from(weight_bp) / 100.0)].into_iter().chain(figures).collect()
    });
    render(header.collect(), lines, medium)
}

/// The delays as a table.
#[must_use]
pub fn delay(report: &Report, medium: Medium) -> String {
    let header = ["method", "stable", "canary", "rate", "caught", "canary connections, median", "best possible", "ratio", "goal"];
    let lines = report.delay.iter().map(|row| {
        vec![
            row.method.as_str().to_owned(),
            percent(row.stable),
            percent(row.canary),
            format!("{}/s", row.rate),
            format!("{} of {}", row.caught, row.rollouts),
            row.median_canary_connections.map_or_else(|| "–".to_owned(), |median| median.to_string()),
            format!("{:.0}", row.oracle),
            row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            row.goal().map(|goal| format!("≤ {goal}")).unwrap_or_default(),
        ]
    });
    render(header.map(str::to_owned).to_vec(), lines, medium)
}

/// Writes the figures into `analysis.md`, and draws `analysis.svg` anew.
///
/// # Errors
/// The page isn't there, lacks a part, or can't be written.
pub fn write_docs(directory: &Path, report: &Report) -> Result<()> {
    let path = directory.join("analysis.md");
    let mut page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for (part, table) in [("false-alarms", false_alarms(report, Medium::Page)), ("delay", delay(report, Medium::Page))] {
        page =
            docs::replace(&page, part, &docs::measured(&report.machine, &table)).with_context(|| path.display().to_string())?;
    }
    fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    let path = directory.join("analysis.svg");
    fs::write(&path, plot::svg(report)?).with_context(|| format!("writing {}", path.display()))
}

fn percent(share: f64) -> String {
    format!("{}%", (share * 1e4).round() / 1e2)
}

fn render(header: Vec<String>, lines: impl Iterator<Item = Vec<String>>, medium: Medium) -> String {
    let mut table = Table::new();
    table.load_preset(match medium {
        Medium::Terminal => presets::NOTHING,
        Medium::Page => presets::ASCII_MARKDOWN,
    });
    table.set_header(header);
    table.add_rows(lines);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use splitter_user::model::Weight;

    use super::*;

    #[test]
    fn the_median_counts_those_that_were_not_caught_as_later_than_all_others() {
        let delay = |found: &[Found]| Delay::of(Method::Splitter, &scene(), found);
        assert_eq!(delay(&[Some(9), Some(1), Some(2)]).median_canary_connections, Some(2));
        assert_eq!(delay(&[None, None, Some(2)]).median_canary_connections, None);
        let half = delay(&[None, Some(62), None, Some(3)]);
        assert_eq!((half.median_canary_connections, half.caught, half.rollouts), (Some(62), 2, 4));
        assert!(half.missed().is_none(), "{half:?}");
        assert!(delay(&[Some(63)]).missed().is_some() && delay(&[None]).missed().is_some());
    }

    #[test]
    fn too_many_false_alarms_are_a_goal_missed_for_ours_alone() {
        let found: Vec<_> = (0..10_000).map(|number| (number < 90).then_some(1)).collect();
        let row = |method| FalseAlarms::of(method, &scene(), &found);
        assert!(row(Method::Splitter).missed().is_some(), "{:?}", row(Method::Splitter));
        assert!(row(Method::Thresholds).missed().is_none());
        let few = FalseAlarms::of(Method::Splitter, &scene(), &found[30..]);
        assert!((few.alarms, few.missed()) == (60, None), "{few:?}");
    }

    fn scene() -> Scene {
        Scene { rate: 100, weight: Weight::from_basis_points(100).expect("in range"), stable: 0.001, canary: 0.05, looks: 3_600 }
    }
}
