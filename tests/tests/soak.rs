//! The soak itself: a short one holds, and one that is sabotaged finds everything that was done behind its back. A soak that can't fail proves nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use splitter_tests::soak::sabotage::Sabotage;

/// How long a run may take: many times what it takes on a machine with nothing else to do.
const LIMIT: Duration = Duration::from_secs(570);

#[test]
fn half_a_minute_of_trouble_breaks_nothing_that_must_hold() {
    let (code, report, told) = soak(&["--minutes", "0.5", "--seed", "4"]);
    assert_eq!(violated(&report), BTreeSet::new(), "{told}");
    let looks = |invariant: &str| {
        let checks = report["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["invariant"] == invariant).expect("there");
        check["looks"].as_u64().expect("a number")
    };
    for invariant in ["connections", "attempts", "datagrams", "content", "share", "metrics", "monotone", "totals"] {
        assert!(looks(invariant) > 10, "{invariant} was looked at: {told}");
    }
    assert_eq!((&report["leaks"], &report["interrupted_by"]), (&Value::Array(vec![]), &0.into()), "{told}");
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert!(number("events") > 2 && number("connections") > 500 && number("datagrams") > 500, "{told}");
    // Half a minute is too short for each invariant to be looked at.
    let all_looked_at = report["checks"].as_array().expect("checks").iter().all(|check| check["looks"] != 0);
    assert_eq!(code, Some(i32::from(!all_looked_at)), "{told}");
}

#[test]
fn whatever_is_done_behind_its_back_is_found() {
    let kinds: Vec<String> =
        Sabotage::value_variants().iter().filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned())).collect();
    let (code, report, told) = soak(&["--minutes", "1.5", "--seed", "2", "--sabotage", &kinds.join(",")]);
    assert_eq!(code, Some(1), "{told}");
    let found = violated(&report);
    for kind in Sabotage::value_variants() {
        let breaks = serde_json::to_value(kind.breaks()).expect("a word");
        assert!(found.contains(breaks.as_str().expect("a word")), "{kind:?} was not found as {breaks}: {told}");
    }
    let violations = report["violations"].as_array().expect("violations");
    assert!(violations.iter().all(|violation| !violation["history"].as_array().expect("events").is_empty()), "{told}");
}

#[test]
fn an_interrupted_soak_says_what_it_has_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut child, screen, json) = start(directory.path(), &["--minutes", "30"]);
    let deadline = Instant::now() + LIMIT;
    while !read(&screen).contains("#2 ") {
        assert!(Instant::now() < deadline && child.try_wait().expect("asked").is_none(), "{}", read(&screen));
        thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id();
    assert!(!left_by(pid).is_empty(), "it stands");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).expect("it runs");
    assert_eq!(finish(&mut child, &screen), Some(128 + Signal::SIGINT as i32), "{}", read(&screen));
    assert_eq!(left_by(pid), Vec::<String>::new());
    let report: Value = serde_json::from_str(&read(&json)).expect("JSON");
    assert_eq!(report["interrupted_by"], Signal::SIGINT as i32);
    assert!(report["connections"].as_u64().expect("a number") > 0, "{report}");
}

/// A whole run: its exit code, its report, and what it printed.
fn soak(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut child, screen, json) = start(directory.path(), arguments);
    let pid = child.id();
    let code = finish(&mut child, &screen);
    let told = read(&screen);
    assert_eq!(left_by(pid), Vec::<String>::new(), "{told}");
    (code, serde_json::from_str(&read(&json)).unwrap_or_else(|error| panic!("{error}: {told}")), told)
}

fn start(directory: &Path, arguments: &[&str]) -> (Child, std::path::PathBuf, std::path::PathBuf) {
    let (screen, json) = (directory.join("screen"), directory.join("soak.json"));
    let file = fs::File::create(&screen).expect("made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_soak"));
    command.args(arguments).arg("--json").arg(&json);
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("duplicated")).stderr(file);
    (command.spawn().expect("started"), screen, json)
}

fn finish(child: &mut Child, screen: &Path) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("asked") {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            child.wait().expect("waited for");
            panic!("not within {LIMIT:?}: {}", read(screen));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn violated(report: &Value) -> BTreeSet<&str> {
    let violations = report["violations"].as_array().expect("violations");
    violations.iter().filter_map(|violation| violation["invariant"].as_str()).collect()
}

/// Namespaces and pins that tell of this process.
fn left_by(pid: u32) -> Vec<String> {
    let of = |directory: &str| {
        let names = fs::read_dir(directory).into_iter().flatten();
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    [of("/run/netns"), of("/sys/fs/bpf")].concat().into_iter().filter(|name| name.starts_with(&format!("spl{pid}t"))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
