//! What is shipped beside the binary fits it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

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

/// Of 10; the lower, the less a taken agent could do. A line that is dropped from the unit shows here.
const EXPOSURE: f64 = 2.2;

/// The package `systemd` has systemd-analyze; without it these tests fail, for the unit would go unchecked.
#[test]
fn systemd_finds_the_unit_hardly_exposed() {
    let told = analyze(&["security", "--offline=yes", "--no-pager"], &path("deploy/splitter.service"));
    let level = told.split("exposure level for splitter.service: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let level: f64 = level.unwrap_or_else(|| panic!("no level in {told}")).parse().expect("a number");
    assert!(level <= EXPOSURE, "an exposure of {level}, more than {EXPOSURE}:\n{told}");
}

#[test]
fn systemd_understands_the_unit() {
    let directory = tempfile::tempdir().expect("made");
    let unit = directory.path().join("splitter.service");
    let text = read("deploy/splitter.service");
    let binary = "/usr/local/bin/splitter";
    assert!(text.contains(&format!("ExecStart={binary} agent")), "{text}");
    // That one isn't installed here.
    fs::write(&unit, text.replace(binary, "/bin/true")).expect("written");
    analyze(&["verify"], &unit);
}

#[test]
fn the_unit_runs_as_the_user_that_is_shipped_with_it() {
    let (unit, users) = (read("deploy/splitter.service"), read("deploy/splitter.sysusers.conf"));
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).expect("not root");
    assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))), "{users}");
    assert!(unit.contains(&format!("chown -R {user}:{user} /sys/fs/bpf/splitter")), "{unit}");
}

/// Runs systemd-analyze, which must find nothing wrong; what it says.
fn analyze(arguments: &[&str], unit: &Path) -> String {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let output = output.expect("systemd-analyze can be run: apt-get install --no-install-recommends systemd");
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {told}");
    told
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}
