//! What a simulation says.

use std::time::Duration;

use super::layout::{BOLD, PLAIN, left, row};
use crate::simulate::{Outcomes, Quantiles, Report};

/// A table with a column for each canary.
pub(in crate::cli) fn simulation(report: &Report) -> String {
    let Report { service, rate, stable_failures, canary_failures, canary_latency, seed, canary, equal } = report;
    let mut text = format!(
        "{service}: {rate} new connections a second; stable fails {}, the canary {}{}\n",
        percent(*stable_failures),
        percent(*canary_failures),
        if *canary_latency > 1.0 { format!(" and takes {canary_latency}x as long") } else { String::new() },
    );
    text += &format!("{} rollouts each, seed {seed}\n\n", canary.runs);
    let both = [canary, equal];
    let head = |text: &str| left(text, COLUMN, BOLD);
    text += &row(0, &[left("", NAME, PLAIN), head("the canary as described"), head("one as good as stable")]);
    let mut rows = vec![
        line("stopped", both, |of| {
            format!("{} ({} to {})", percent(of.caught_share), percent(of.caught_99[0]), percent(of.caught_99[1]))
        }),
        line("promoted", both, |of| of.promoted.to_string()),
        line("undecided", both, |of| of.undecided.to_string()),
    ];
    for (index, at) in canary.steps.iter().enumerate() {
        rows.push(line(&format!("stopped in step {}", at.step), both, |of| {
            of.steps.get(index).map_or(0, |at| at.caught).to_string()
        }));
    }
    rows.push(line("time until then", both, |of| quantiles(of.seconds, seconds)));
    rows.push(line("canary connections", both, |of| quantiles(of.connections, |n| format!("{n:.0}"))));
    rows.push(line("failed ones", both, |of| quantiles(of.hurt, |n| format!("{n:.0}"))));
    text += &rows.concat();
    text += "Shares are with 99% confidence; times and numbers are median, 95%.\n";
    text
}

/// How wide the names are, and each column.
const NAME: usize = 18;
const COLUMN: usize = 29;

fn line(name: &str, [canary, equal]: [&Outcomes; 2], cell: impl Fn(&Outcomes) -> String) -> String {
    let cell = |of| left(cell(of), COLUMN, PLAIN);
    row(0, &[left(name, NAME, PLAIN), cell(canary), cell(equal)])
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent >= 1.0 || percent == 0.0 { 1 } else { 3 };
    format!("{percent:.digits$}%")
}

fn seconds(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs_f64(seconds.round())).to_string()
}

fn quantiles(of: Option<Quantiles>, shown: impl Fn(f64) -> String) -> String {
    of.map_or_else(|| "-".to_owned(), |Quantiles { median, p95 }| format!("{}, {}", shown(median), shown(p95)))
}
