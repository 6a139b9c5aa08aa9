//! What is shipped beside the binary fits it.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use splitter_user::metrics::METRICS;

/// The package `prometheus` has promtool; without it this test fails, for the rules would go unchecked.
#[test]
fn prometheus_accepts_the_alert_rules() {
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(path("deploy/alerts.yml"))
        .output()
        .expect("promtool can be run: apt-get install --no-install-recommends prometheus");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

#[test]
fn the_alert_rules_speak_of_metrics_that_there_are() {
    let rules = read("deploy/alerts.yml");
    let known: BTreeSet<String> = METRICS.iter().map(|metric| metric.sample_name()).collect();
    let named = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("splitter_"));
    let named: BTreeSet<&str> = named.collect();
    assert!(named.len() > 5, "the rules were read: {named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are none of {known:?}");
}

#[test]
fn the_runbook_has_a_part_for_each_alert() {
    let (rules, runbook) = (read("deploy/alerts.yml"), read("docs/runbook.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "the rules were read: {alerts:?}");
    for alert in alerts {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "docs/runbook.md has no part for {alert}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}
