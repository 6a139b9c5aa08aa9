//! Every state with every input, and walks at random.

mod carry;
mod meaning;
mod table;
mod walk;

use super::*;
use crate::model::{Check, Compare, Existing, Factor, Probe, Step};

const AT: Timestamp = Timestamp::UNIX_EPOCH;
const MINUTE: Duration = Duration::from_secs(60);

/// A plan in which nothing but the time decides.
fn plain(steps: Vec<Step>) -> Plan {
    Plan {
        steps,
        min_connections: 0,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: 5 * MINUTE,
        deadline: 600 * MINUTE,
        on_deadline: OnDeadline::Abort,
        compare: None,
        checks: Vec::new(),
    }
}

fn step(from: Option<u16>, to: u16, minutes: u32, gate: Option<Gate>) -> Step {
    Step { from: from.map(percent), weight: percent(to), lasts: minutes * MINUTE, gate }
}

fn check(name: &str, failures: u32) -> Check {
    Check {
        name: name.to_owned(),
        probe: Probe::Webhook { url: "http://127.0.0.1:1/".to_owned() },
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        retries: 0,
        failures,
        token_file: None,
    }
}

fn compare() -> Compare {
    Compare {
        false_alarm_rate: 0.01,
        failures: true,
        handshake_p90: false,
        tolerance: "1.2x".parse::<Factor>().expect("a factor"),
        stable_failing: percent(20),
    }
}

fn percent(percent: u16) -> Weight {
    Weight::from_basis_points(percent * 100).expect("at most 100%")
}

fn pass() -> Answer {
    Answer::Pass { said: "0.001".to_owned() }
}

fn bad() -> Answer {
    Answer::Bad { said: "0.2 is above 0.01".to_owned() }
}

fn no_data() -> Answer {
    Answer::NoData { why: "no sample".to_owned() }
}

fn answers(name: &str, answers: impl IntoIterator<Item = Answer>) -> Vec<(String, Answer)> {
    answers.into_iter().map(|answer| (name.to_owned(), answer)).collect()
}

/// So many connections on each cohort, all of them completed.
fn connections(each: u64) -> Cohorts<Seen> {
    let seen = Seen { tally: Tally { opened: each, completed: each, ..Tally::default() }, ..Seen::default() };
    Cohorts { stable: seen.clone(), canary: seen }
}

/// So many connections on each cohort, and how many of them were refused.
fn refused(stable: (u64, u64), canary: (u64, u64)) -> Cohorts<Seen> {
    let seen = |(each, refused): (u64, u64)| {
        let tally = Tally { opened: each, completed: each - refused, refused, ..Tally::default() };
        Seen { tally, ..Seen::default() }
    };
    Cohorts { stable: seen(stable), canary: seen(canary) }
}

/// A canary that nobody can take for as good as stable.
fn worse() -> Cohorts<Seen> {
    refused((100_000, 0), (1_000, 1_000))
}

/// Stable fails, and the canary as much.
fn stable_fails() -> Cohorts<Seen> {
    refused((100_000, 30_000), (100_000, 30_000))
}

/// Looks, and makes the move that is due, if one is.
fn looked(run: &mut Run, at: &Look) -> Option<Move> {
    let due = look(run, at);
    if let Some(due) = &due {
        *run = moved(run, due, AT);
    }
    due
}
