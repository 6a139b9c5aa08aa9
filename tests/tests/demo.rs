//! The demo itself, in its short version: what it writes, how it ends, what it leaves.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_demo_shows_what_must_hold_and_writes_it_down() {
    let figures = short_version(&[]);
    assert_eq!((&figures["mode"], &figures["family"]), (&"nat".into(), &"ipv4".into()));
    assert_eq!(figures["flip"]["cause"], "refused");
    // Whose a refused connection was is worked out from its place in hash space; the data plane counted them on its own.
    assert_eq!(figures["agent"]["refused"]["canary"], figures["refused"]);
    assert_eq!(figures["agent"]["refused"]["stable"], 0);
}

#[test]
fn the_demo_holds_in_dsr_mode_over_ipv6_as_well() {
    let figures = short_version(&["--mode", "dsr", "--ipv6"]);
    assert_eq!((&figures["mode"], &figures["family"]), (&"dsr".into(), &"ipv6".into()));
    assert_eq!(figures["flip"]["cause"], "timeout");
}

#[test]
fn the_demo_of_a_fault_tells_what_it_did_without_an_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("demo.json");
    let arguments = ["--fault", "refuse", "--agent", "killed", "--json", json.to_str().expect("a path")];
    let (mut demo, screen) = start(directory.path(), &arguments);
    let pid = demo.id();
    let status = finish(&mut demo, &screen);
    let shown = read(&screen);
    assert_eq!(status, Some(0), "{shown}");
    for told in ["agent killed", "by refused", "reached the canary after the trip: 0", "saw a failure: ", "Everything held."] {
        assert!(shown.contains(told), "{told:?} in {shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert_eq!(left_by(pid), Vec::<String>::new());
    let figures: Value = serde_json::from_str(&read(&json)).expect("JSON");
    let fault = &figures["faults"][0];
    assert_eq!((&fault["kind"], &fault["agent"], number(&fault["runs"])), (&"refuse".into(), &"killed".into(), 1));
    assert_eq!(number(&fault["canary_connections_after_trip"]), 0);
    assert!(fault["flip_ms"]["p99"].as_f64().expect("a time") > 0.0, "{fault}");
    // Of the canary's first 20 attempts nearly all.
    let under_way = number(&fault["failed_under_way"]["max"]);
    assert!((10..=20 + under_way).contains(&number(&fault["failed_connections"]["max"])), "{fault}");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    // In the middle of the ramp, and where it stands to be played with.
    for (arguments, moment, signal) in [
        (&["--quick"][..], "splitter weight web 10%", Signal::SIGINT),
        (&["--quick", "--keep"][..], "takes it all down", Signal::SIGTERM),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut demo, screen) = start(directory.path(), arguments);
        wait_for(&mut demo, &screen, moment);
        let pid = demo.id();
        assert!(!left_by(pid).is_empty(), "it stands");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
        let status = finish(&mut demo, &screen);
        // What was interrupted in the middle says so; what was kept had come to its end.
        let expected = if arguments.contains(&"--keep") { 0 } else { 128 + signal as i32 };
        assert_eq!(status, Some(expected), "{}", read(&screen));
        assert_eq!(left_by(pid), Vec::<String>::new());
    }
}

fn short_version(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let (json, svg) = (directory.path().join("demo.json"), directory.path().join("demo.svg"));
    let files = ["--json", json.to_str().expect("a path"), "--record", svg.to_str().expect("a path"), "--quick"];
    let (mut demo, screen) = start(directory.path(), &[&files, arguments].concat());
    let pid = demo.id();
    let status = finish(&mut demo, &screen);
    let shown = read(&screen);
    assert_eq!(status, Some(0), "{shown}");
    assert!(shown.contains("Everything held."), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(!shown.contains('\x1b'), "no escape sequences where there is no terminal");
    assert_eq!(left_by(pid), Vec::<String>::new());

    let figures: Value = serde_json::from_str(&read(&json)).expect("JSON");
    check(&figures);
    let picture = read(&svg);
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("Everything held."), "{picture}");
    figures
}

fn check(figures: &Value) {
    let steps = figures["steps"].as_array().expect("steps");
    let weights: Vec<u64> = steps.iter().map(|step| number(&step["weight_bp"])).collect();
    assert_eq!(weights, [100, 1_000, 5_000]);
    for step in steps {
        // 400 a second for 2 seconds; half of that is a very slow machine.
        assert!((400..=810).contains(&number(&step["connections"])), "{step}");
        let share = step["share"].as_f64().expect("a share");
        let canary = share * step["connections"].as_f64().expect("a number");
        assert!((canary - step["canary"].as_f64().expect("a number")).abs() < 0.01, "{step}");
        assert_eq!(step["failed"], serde_json::json!({"stable": 0, "canary": 0}));
    }
    let flip = &figures["flip"];
    assert!(flip["reason"].as_str().expect("words").contains("on canary, above the limit of 5%"), "{flip}");
    let last = flip["first_failure_to_last_canary_ms"].as_f64().expect("a time");
    assert!((0.0..10_000.0).contains(&last), "{flip}");
    assert!(number(&flip["failed_connections"]) > 0 && number(&flip["failed"]["stable"]) == 0, "{flip}");
    let long = &figures["long_lived"];
    assert_eq!((number(&long["opened"]), number(&long["broken"]), number(&long["bytes_wrong"])), (200, 0, 0), "{long}");
    assert!(number(&long["reset_by_flip"]) > 0 && long["reset_by_flip"] == long["back_on_stable"], "{long}");
    assert_eq!(figures["not_held"], serde_json::json!([]));
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a whole number"))
}

/// The demo, its screen in a file.
fn start(directory: &Path, arguments: &[&str]) -> (Child, std::path::PathBuf) {
    let screen = directory.join("screen");
    let file = fs::File::create(&screen).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(arguments).stdin(Stdio::null()).stderr(file.try_clone().expect("a descriptor")).stdout(file);
    (command.spawn().expect("it starts"), screen)
}

fn wait_for(demo: &mut Child, screen: &Path, text: &str) {
    let deadline = Instant::now() + LIMIT;
    while !read(screen).contains(text) {
        let ended = demo.try_wait().expect("a child");
        assert!(ended.is_none() && Instant::now() < deadline, "no {text:?}: {}", read(screen));
        thread::sleep(Duration::from_millis(20));
    }
}

/// Its exit code; `None` when a signal ended it.
fn finish(demo: &mut Child, screen: &Path) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = demo.try_wait().expect("a child") {
            return status.code();
        }
        if Instant::now() > deadline {
            demo.kill().expect("it runs");
            demo.wait().expect("a child");
            panic!("not done within {LIMIT:?}: {}", read(screen));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Namespaces and pins that this process made and that are still there.
fn left_by(pid: u32) -> Vec<String> {
    let own = format!("spl{pid}t");
    ["/run/netns", "/sys/fs/bpf"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten())
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&own))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
