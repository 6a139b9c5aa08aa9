use super::*;
use crate::{
    api::{
        fake::{address, status},
        wire::{Counters, Status, Traffic},
    },
    cli::show::{self, Change},
    golden::golden,
    model::Cohort,
};

#[test]
fn rates_are_differences_over_the_time_between_and_the_share_is_measured() {
    let (before, mut now) = (status(), status());
    add(&mut now, Cohort::Stable, "10.1.0.2:8080", 1_900);
    add(&mut now, Cohort::Canary, "10.1.0.4:8080", 100);
    let text = show(&now, &before, 2_000);
    golden("watch.txt", &text);
    assert!(text.contains("measured  5.00%: 100 of 2000 new connections in 2.0 s"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn what_can_not_be_known_from_two_looks_is_a_dash() {
    let now = status();

    let mut unknown = status();
    let canary = &mut unknown.services[0].cohorts[1];
    canary.backends[0].counters = None;
    canary.sums = None;
    assert_eq!(columns(&show(&now, &unknown, 1_000), "10.1.0.4:8080"), ["active", "43", "-", "-", "-", "-"]);

    let mut new_here = status();
    new_here.services[0].cohorts[1].backends.clear();
    assert_eq!(columns(&show(&now, &new_here, 1_000), "10.1.0.4:8080"), ["active", "43", "-", "-", "-", "-"]);

    // A backend that went and came again counts from zero.
    let mut counted_more = status();
    add(&mut counted_more, Cohort::Canary, "10.1.0.4:8080", 7);
    assert_eq!(columns(&show(&now, &counted_more, 1_000), "10.1.0.4:8080"), ["active", "43", "-", "0", "-", "-"]);

    let quiet = show(&now, &status(), 1_000);
    assert!(!quiet.contains("measured"), "of no connection there is no share: {quiet}");
    assert_eq!(columns(&quiet, "10.1.0.4:8080"), ["active", "43", "0", "0", "0", "0"]);
}

#[test]
fn a_watch_repeats_itself_until_nobody_reads_any_more() {
    let agent = Agent::start(Fake::default());
    let socket = agent.directory.path().join("agent.sock");
    let mut pipe = Pipe { text: vec![], flushes: 3 };
    let mut err = Vec::new();
    assert_eq!(run_into(&socket, "status --watch", &mut pipe, &mut err), Code::Ok);
    let text = String::from_utf8(strip_bytes(&pipe.text).into_vec()).expect("text");
    assert_eq!((text.matches("agent       0.1.0").count(), err), (3, vec![]));
    assert_eq!(
        (text.matches("OPENED").count(), text.matches("FAIL/s").count()),
        (2, 4),
        "two services; rates from the second on"
    );
    assert!(!pipe.text.windows(3).any(|bytes| bytes == b"\x1b[H"), "what isn't a terminal isn't redrawn");

    let mut pipe = Pipe { text: vec![], flushes: 2 };
    assert_eq!(run_into(&socket, "status web --watch -o json", &mut pipe, &mut Vec::new()), Code::Ok);
    let lines: Vec<Status> =
        pipe.text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_watch_on_a_terminal_redraws() {
    let agent = Agent::start(Fake::default());
    let socket = agent.directory.path().join("agent.sock");
    let mut pipe = Pipe { text: vec![], flushes: 2 };
    let words = ["splitter", "--socket", socket.to_str().expect("text"), "status", "--watch"].map(OsString::from);
    let mut io = Io { out: &mut pipe, err: &mut io::sink(), terminal: true, tick: Duration::from_millis(5) };
    assert_eq!(run(words, &Here, &mut io), Code::Ok);
    assert_eq!(pipe.text.windows(6).filter(|bytes| bytes == b"\x1b[H\x1b[J").count(), 2);
}

#[test]
fn a_watch_ends_with_the_agent() {
    let agent = Agent::start(Fake::default());
    let socket = agent.directory.path().join("agent.sock");
    let watching = std::thread::spawn(move || splitter(&socket, "status --watch"));
    while agent.core.asked().is_empty() && !watching.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(agent);
    let outcome = watching.join().expect("it ends");
    assert!(matches!(outcome.code, Code::NotReachable | Code::Failed), "{outcome:?}");
    assert!(outcome.err.starts_with("error: "), "{outcome:?}");
}

/// Adds connections, and 1000 octets in each direction for each of them.
fn add(status: &mut Status, cohort: Cohort, backend: &str, connections: u64) {
    let cohort = status.services[0].cohorts.iter_mut().find(|c| c.cohort == cohort).expect("both are there");
    let backend = cohort.backends.iter_mut().find(|b| b.address == address(backend)).expect("it is there");
    let counters = backend.counters.as_mut().expect("counted");
    let more = |traffic: Traffic| Traffic { packets: traffic.packets + connections, bytes: traffic.bytes + 1_000 * connections };
    *counters = Counters {
        to_backend: more(counters.to_backend),
        from_backend: counters.from_backend.map(more),
        opened: counters.opened + connections,
        ..*counters
    };
    let recent = cohort.recent.take();
    *cohort =
        crate::api::wire::CohortStatus { recent, ..crate::api::wire::CohortStatus::new(cohort.cohort, cohort.backends.clone()) };
}

fn show(now: &Status, before: &Status, milliseconds: u64) -> String {
    let change = Change { before, elapsed: Duration::from_millis(milliseconds) };
    anstream::adapter::strip_str(&show::status(now, Some(&change))).to_string()
}

/// What stands behind a backend's address.
fn columns(text: &str, backend: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.contains(backend)).expect("it is listed");
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}
