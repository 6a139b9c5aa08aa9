//! What a check says of whatever a server does, and when checks are asked.

mod schedule;

use std::{io::Write, path::Path, time::Instant};

use hyper::header;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use super::*;
use crate::http::fake::{Says, Server};

#[tokio::test]
async fn what_prometheus_answers_has_its_meaning() {
    let scalar = |value: &str| success("scalar", json!([1.5, value]));
    let vector = |values: &[&str]| {
        let series = values.iter().map(|value| json!({"metric": {"code": "500"}, "value": [1.5, value]}));
        success("vector", series.collect())
    };
    let says = |status, error: &str| Says::Status(status, json!({"status": "error", "error": error}).to_string());
    let rows = [
        (scalar("0.004"), "passes: 0.004 is within max 0.01"),
        (scalar("0.023"), "fails: 0.023 is above max 0.01"),
        (vector(&["0.023"]), "fails: 0.023 is above max 0.01"),
        (vector(&["0"]), "passes: 0 is within max 0.01"),
        (vector(&["+Inf"]), "fails: +Inf is above max 0.01"),
        (vector(&["-Inf"]), "passes: -Inf is within max 0.01"),
        (vector(&["NaN"]), "no data: the query gives NaN: are there no requests yet?"),
        (vector(&[]), "no data: URL: the query gives no series"),
        (vector(&["1", "2", "3"]), "no data: URL: the query gives 3 series; aggregate them to one, as by sum()"),
        (vector(&["many"]), "no data: URL: the query gives \"many\", not a number"),
        (
            success("vector", json!([{"metric": {}, "histogram": [1.5, {}]}])),
            "no data: URL: the query gives a histogram, not a number",
        ),
        (success("matrix", json!([])), "no data: URL: the query gives a matrix, not a number"),
        (success("string", json!([1.5, "a"])), "no data: URL: the query gives a string, not a number"),
        (
            success("vector", json!(7)),
            "no data: URL: its answer is not a Prometheus's: invalid type: integer `7`, expected a sequence",
        ),
        (says(400, "parse error:\nunexpected \"(\""), "no data: URL: it says: parse error: unexpected \"(\""),
        (says(200, "no"), "no data: URL: it says: no"),
        (says(503, "query timed out"), "no data: URL: it says: query timed out (tried 2 times)"),
        (Says::ok("<html>"), "no data: URL: its answer is not a Prometheus's"),
        (Says::ok("{}"), "no data: URL: its answer is not a Prometheus's"),
        (Says::ok(r#"{"status":"success"}"#), "no data: URL: its answer is not a Prometheus's"),
        (Says::Status(404, String::new()), "no data: URL: it answered 404 Not Found"),
        (Says::Status(401, "{}".to_owned()), "no data: URL: it answered 401 Unauthorized"),
        (Says::Status(502, "{}".to_owned()), "no data: URL: it answered 502 Bad Gateway (tried 2 times)"),
        (Says::Status(429, String::new()), "no data: URL: it answered 429 Too Many Requests (tried 2 times)"),
        (
            Says::Redirect("http://127.0.0.1:1".to_owned()),
            "no data: URL: it answered 307 Temporary Redirect, and redirects are not followed",
        ),
        (Says::Endless, "no data: URL: its answer is longer than 1 MiB"),
    ];
    for (says, expected) in rows {
        let server = Server::start([says.clone()]).await;
        let answer = asked(&max(&server.url, 0.01)).await;
        assert_eq!(answer, expected.replace("URL", &server.url), "{says:?}");
    }
}

#[tokio::test]
async fn a_query_is_an_instant_query_by_post_with_its_timeout() {
    let server = Server::start([success("scalar", json!([1, "0"]))]).await;
    asked(&max(&format!("{}/prometheus/", server.url), 0.01)).await;
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!((asked.method.as_str(), asked.uri.to_string()), ("POST", "/prometheus/api/v1/query".to_owned()));
    assert_eq!(asked.header(header::CONTENT_TYPE), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.body, "query=sum%28rate%28errors%5B1m%5D%29%29&timeout=20000ms");
}

#[tokio::test]
async fn a_webhook_is_told_where_the_rollout_is_and_its_verdict_counts() {
    let rows = [
        (r#"{"verdict":"pass","reason":"all well"}"#, "passes: all well"),
        (r#"{"verdict":"fail","reason":"12 orders\nlost"}"#, "fails: 12 orders lost"),
        (r#"{"verdict":"wait","reason":"warming up"}"#, "no data: it says to wait: warming up"),
        (r#"{"verdict":"pass","more":1}"#, "passes: no reason given"),
        (r#"{"verdict":"fail","reason":" "}"#, "fails: no reason given"),
        (
            r#"{"verdict":"perhaps"}"#,
            "no data: URL: its answer is not a verdict: unknown variant `perhaps`, expected one of `pass`, `fail`, `wait` at line 1 column 20",
        ),
        ("{}", "no data: URL: its answer is not a verdict: missing field `verdict` at line 1 column 2"),
        ("", "no data: URL: its answer is not a verdict: EOF while parsing a value at line 1 column 0"),
    ];
    for (body, expected) in rows {
        let server = Server::start([Says::ok(body)]).await;
        let answer = asked(&webhook(&format!("{}/hook?key=secret", server.url))).await;
        assert_eq!(answer, expected.replace("URL", &server.url), "{body}");
        let [asked] = &server.asked()[..] else { panic!("one request") };
        assert_eq!(asked.uri.to_string(), "/hook?key=secret");
        assert_eq!(asked.header(header::CONTENT_TYPE), Some("application/json"));
        assert_eq!(
            asked.json(),
            json!({
                "service": "checkout", "rollout": 3, "step": 2, "of": 4, "weight_bp": 1000, "check": "orders",
                "canary": {"attempts": 1200, "failed": 3}, "stable": {"attempts": 10800, "failed": 20},
            })
        );
    }
    let failing = Server::start([Says::Status(500, r#"{"verdict":"pass"}"#.to_owned())]).await;
    let expected = format!("no data: {}: it answered 500 Internal Server Error (tried 2 times)", failing.url);
    assert_eq!(asked(&webhook(&failing.url)).await, expected, "a verdict counts only with a status that says success");
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_the_last_answer_counts() {
    let server = Server::start([Says::Status(503, String::new()), success("scalar", json!([1, "0.5"]))]).await;
    assert_eq!(asked(&max(&server.url, 0.01)).await, "fails: 0.5 is above max 0.01");
    assert_eq!(server.asked().len(), 2);

    let refused = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let expected = format!("no data: http://{refused}: could not connect: Connection refused (os error 111) (tried 2 times)");
    assert_eq!(asked(&max(&format!("http://{refused}"), 0.01)).await, expected);

    let refusing = Server::start([Says::Status(400, String::new())]).await;
    asked(&max(&refusing.url, 0.01)).await;
    assert_eq!(refusing.asked().len(), 1, "the same question gets the same answer");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_within_the_bound() {
    let server = Server::start([Says::Never]).await;
    let check = Check { timeout: Duration::from_millis(100), ..max(&server.url, 0.01) };
    let began = Instant::now();
    assert_eq!(asked(&check).await, format!("no data: {}: no answer within 100ms (tried 2 times)", server.url));
    let took = began.elapsed();
    assert_eq!(longest(&check), Duration::from_millis(400));
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn the_bound_is_all_tries_and_the_pauses_between_them() {
    let check = |retries| Check { retries, timeout: Duration::from_secs(1), ..max("http://a", 1.0) };
    for retries in 0..20 {
        let pauses: Duration = (1..=retries).map(pause).sum();
        assert_eq!(longest(&check(retries)), Duration::from_secs(u64::from(retries) + 1) + pauses);
    }
    assert!(longest(&check(u32::MAX)) > Duration::from_secs(u64::from(u32::MAX)));
}

#[tokio::test]
async fn a_token_goes_out_as_a_header_and_is_told_by_its_file_alone() {
    let server = Server::start([Says::ok(r#"{"verdict":"pass"}"#)]).await;
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "hunter2").expect("written");
    let with = |path: &Path| Check { token_file: Some(path.to_owned()), ..webhook(&server.url) };
    assert_eq!(asked(&with(file.path())).await, "passes: no reason given");
    assert_eq!(server.asked()[0].header(header::AUTHORIZATION), Some("Bearer hunter2"));

    let expected = format!(
        "no data: {}: cannot read /nonexistent/token: No such file or directory (os error 2) (tried 2 times)",
        server.url
    );
    assert_eq!(asked(&with(Path::new("/nonexistent/token"))).await, expected);
}

#[tokio::test]
async fn what_cannot_be_asked_is_no_data_and_nothing_secret_is_said() {
    let limits = |max, min| Check {
        probe: Probe::PromQl { url: "http://127.0.0.1:1".to_owned(), query: String::new(), max, min },
        ..webhook("http://a")
    };
    let rows = [
        (limits(None, None), "no data: cannot be asked: it has neither `max` nor `min`"),
        (limits(Some(f64::NAN), None), "no data: cannot be asked: `max` or `min` is not a number"),
        (
            webhook("http://alice:hunter2@a/"),
            "no data: cannot be asked: its url: it has a user name in it; a secret belongs into a file, see `token_file`",
        ),
        (webhook("hunter2"), "no data: cannot be asked: its url: it is not a URL like http://127.0.0.1:9090"),
    ];
    for (check, expected) in rows {
        assert_eq!(asked(&check).await, expected);
    }
    // The path and the query of a webhook's URL may be its secret.
    let answer = asked(&webhook("http://127.0.0.1:1/hunter2?key=hunter2")).await;
    assert!(!answer.contains("hunter2") && answer.contains("http://127.0.0.1:1: could not connect"), "{answer}");
}

async fn asked(check: &Check) -> String {
    let counts = |attempts, failed| Counts { attempts, failed };
    let context = Context {
        service: "checkout".to_owned(),
        rollout: 3,
        step: 2,
        of: 4,
        weight_bp: 1_000,
        check: check.name.clone(),
        canary: counts(1_200, 3),
        stable: counts(10_800, 20),
    };
    ask(&Client::default(), check, &context).await.to_string()
}

fn success(kind: &str, result: serde_json::Value) -> Says {
    Says::ok(&json!({"status": "success", "data": {"resultType": kind, "result": result}}).to_string())
}

fn max(url: &str, max: f64) -> Check {
    let query = "sum(rate(errors[1m]))".to_owned();
    Check { probe: Probe::PromQl { url: url.to_owned(), query, max: Some(max), min: None }, ..webhook(url) }
}

fn webhook(url: &str) -> Check {
    Check {
        name: "orders".to_owned(),
        probe: Probe::Webhook { url: url.to_owned() },
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        retries: 1,
        failures: 1,
        token_file: None,
    }
}
