use super::*;
use crate::{
    api::{
        fake::{events, explanation, history, networks, rollout, status, trace},
        wire::{Event, TraceRecord},
    },
    cli::show,
    golden::golden,
};

#[test]
fn people_read_this() {
    let agent = Agent::start(Fake::default());
    for (line, file) in [
        ("status", "status.txt"),
        ("status web", "status-one.txt"),
        ("backend list web", "backends-nat.txt"),
        ("backend list dns", "backends-dsr.txt"),
        ("network list web", "networks.txt"),
        ("explain web --from 198.51.100.23:40000 --at 25%", "explain.txt"),
        ("explain dns --from 2001:db8::7", "explain-client.txt"),
        ("events", "events.txt"),
        ("trace web --count 2", "trace.txt"),
        ("doctor", "doctor.txt"),
        ("rollout status web", "rollout.txt"),
        ("history", "history.txt"),
    ] {
        let outcome = agent.splitter(line);
        assert_eq!(outcome.err, "", "{line}");
        let socket = agent.directory.path().join("agent.sock");
        golden(file, &outcome.out.replace(socket.to_str().expect("text"), "/run/splitter/splitter.sock"));
        let width = outcome.out.lines().map(|line| line.chars().count()).max();
        assert!(width <= Some(80), "{line}: {width:?} columns");
        assert!(outcome.out.lines().all(|line| line == line.trim_end()), "{line}: spaces at a line's end");
    }
}

#[test]
fn programs_read_the_types_of_the_api() {
    let agent = Agent::start(Fake::default());
    let json = |line: &str| agent.splitter(line).out;
    let pretty = |value: String| value + "\n";
    assert_eq!(json("status -o json"), pretty(serde_json::to_string_pretty(&status()).expect("JSON")));
    assert_eq!(json("network list web -o json"), pretty(serde_json::to_string_pretty(&networks()).expect("JSON")));
    let explained = json("explain web --from 198.51.100.23:40000 --at 25% --output json");
    assert_eq!(explained, pretty(serde_json::to_string_pretty(&explanation()).expect("JSON")));
    let read: Vec<Event> = json("events -o json").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(read, events());
    let lines = json("trace web --count 2 -o json");
    let read: Vec<TraceRecord> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(read, trace());
    assert_eq!(json("rollout status web -o json"), pretty(serde_json::to_string_pretty(&rollout::status()).expect("JSON")));
    assert_eq!(json("history -o json"), pretty(serde_json::to_string_pretty(&history()).expect("JSON")));
    let report: DoctorReport = serde_json::from_str(&json("doctor -o json")).expect("JSON");
    let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["kernel", "agent", "native_xdp", "neighbour"]);
}

#[test]
fn what_stands_out_is_coloured_and_json_is_not() {
    let coloured = show::status(&status(), None);
    assert!(coloured.contains("\x1b[1m\x1b[31mFLIPPED\x1b[0m"), "{coloured:?}");
    assert!(coloured.contains("\x1b[32mactive\x1b[0m"));
    let agent = Agent::start(Fake::default());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    run_into(&agent.directory.path().join("agent.sock"), "status -o json", &mut out, &mut err);
    assert!(!out.contains(&0x1b));
}
