//! What a Prometheus or a webhook answers to a check.

use std::time::Duration;

use hyper::StatusCode;
use splitter_user::{
    checks::understand,
    http::{Reply, one_line},
    model::{Check, Probe},
    store::Answer,
};

/// The status codes that are tried, by the input's first octet.
const STATUSES: [u16; 8] = [200, 200, 200, 204, 302, 400, 429, 503];

/// Understands an answer, to either kind of check.
///
/// # Panics
/// When what comes of it isn't one line, or an answer that isn't a success is a verdict.
pub fn check(octets: &[u8]) {
    let Some((first, body)) = octets.split_first() else { return };
    let status = StatusCode::from_u16(STATUSES[usize::from(first & 7)]).expect("a status");
    let reply = Reply { status, body: body.to_vec().into() };
    let (max, min) = (Some(0.01), (first & 8 != 0).then_some(-1.0));
    for probe in [
        Probe::PromQl { url: "http://127.0.0.1:9090".to_owned(), query: "up".to_owned(), max, min },
        Probe::Webhook { url: "http://127.0.0.1:8080/verdict".to_owned() },
    ] {
        let check = Check {
            name: "fuzz".to_owned(),
            probe,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            retries: 0,
            failures: 1,
            token_file: None,
        };
        let answer = understand(&check, &reply);
        let (said, is_verdict) = match &answer {
            Answer::Pass { said } | Answer::Bad { said } => (said, true),
            Answer::NoData { why } => (why, false),
        };
        assert!(!is_verdict || status.is_success(), "{status} made {answer}");
        assert!(!said.trim().is_empty(), "{answer:?} says nothing");
        assert!(said.chars().count() <= 301 && !said.chars().any(char::is_control), "not one line: {said:?}");
        // What is kept and shown has this done to it once more.
        assert_eq!(one_line(said), *said);
        let kept = serde_json::to_vec(&answer.clipped()).expect("an answer can be kept");
        let read: Answer = serde_json::from_slice(&kept).expect("what is kept can be read");
        assert_eq!(read, answer.clipped());
    }
}
