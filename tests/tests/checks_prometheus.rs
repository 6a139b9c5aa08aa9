//! What a check says of a real Prometheus's answers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{lab::Solo, workload::tools::Prometheus};
use splitter_user::{
    checks::{self, Context, Counts},
    http::Client,
    model::{Check, Probe},
};

/// Prometheus scrapes once a second.
const SCRAPED: Duration = Duration::from_secs(20);

#[test]
fn each_kind_of_result_has_its_meaning() {
    let namespace = Solo::new("checks").expect("a namespace");
    namespace.ip(&["link set dev lo up"]).expect("a loopback");
    // Nobody is there: each has the sample `up` of 0.
    let targets = [1, 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let prometheus = Prometheus::start(&namespace, &targets).expect("a Prometheus");
    let deadline = Instant::now() + SCRAPED;
    let scraped = || prometheus.query("count(up)").expect("answered").first().map(|sample| sample.value);
    while scraped() != Some(2.0) {
        assert!(Instant::now() < deadline, "the targets are not scraped: {:?}", scraped());
        thread::sleep(Duration::from_millis(200));
    }

    let url = format!("http://{}", prometheus.address());
    let rows = [
        ("vector(0.023)", "fails: 0.023 is above max 0.01"),
        ("vector(0.01)", "passes: 0.01 is within max 0.01"),
        ("scalar(vector(0.004))", "passes: 0.004 is within max 0.01"),
        ("0.5", "fails: 0.5 is above max 0.01"),
        ("sum(up)", "passes: 0 is within max 0.01"),
        ("sum by (job) (up{job=\"lab\"}) + 1", "fails: 1 is above max 0.01"),
        ("vector(1) / vector(0)", "fails: +Inf is above max 0.01"),
        ("-vector(1) / vector(0)", "passes: -Inf is within max 0.01"),
        ("sum(up) / sum(up)", "no data: the query gives NaN: are there no requests yet?"),
        ("rate(http_requests_total[1m])", "no data: URL: the query gives no series"),
        ("up", "no data: URL: the query gives 2 series; aggregate them to one, as by sum()"),
        ("up[1m]", "no data: URL: the query gives a matrix, not a number"),
        ("\"a\"", "no data: URL: the query gives a string, not a number"),
    ];
    for (query, expected) in rows {
        assert_eq!(ask(&namespace, &check(&url, query)), expected.replace("URL", &url), "{query}");
    }
    let refused = ask(&namespace, &check(&url, "sum(up"));
    assert!(refused.starts_with(&format!("no data: {url}: it says: invalid parameter \"query\"")), "{refused}");
    let elsewhere = ask(&namespace, &check(&format!("{url}/prometheus"), "0"));
    assert_eq!(elsewhere, format!("no data: {url}: it answered 404 Not Found"));

    drop(prometheus);
    let gone = ask(&namespace, &check(&url, "0"));
    assert_eq!(gone, format!("no data: {url}: could not connect: Connection refused (os error 111) (tried 2 times)"));
}

fn ask(namespace: &Solo, check: &Check) -> String {
    let (canary, stable) = (Counts::default(), Counts::default());
    let (service, name) = ("checkout".to_owned(), check.name.clone());
    let context = Context { service, rollout: 1, step: 1, of: 1, weight_bp: 100, check: name, canary, stable };
    let answer = namespace.block_on(async { checks::ask(&Client::default(), check, &context).await });
    answer.expect("asked").to_string()
}

fn check(url: &str, query: &str) -> Check {
    Check {
        name: "errors".to_owned(),
        probe: Probe::PromQl { url: url.to_owned(), query: query.to_owned(), max: Some(0.01), min: None },
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        retries: 1,
        failures: 1,
        token_file: None,
    }
}
