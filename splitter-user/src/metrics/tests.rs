use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use splitter_ebpf::histogram;

use super::{server::Observed, *};
use crate::{
    api::{
        fake::{name, rollout, status, time},
        wire::{FlipCause, ServiceStatus},
    },
    golden::{golden, golden_part},
    model::Mode,
    store::Run,
};

#[test]
fn the_document_lists_every_metric_as_the_code_has_it() {
    let mut table = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{}` | {} | {} | {} |\n", metric.sample_name(), metric.kind, labels.join(", "), metric.help);
    }
    golden_part("metrics.md", "metrics", &table);
}

#[test]
fn names_are_unique_and_keep_the_conventions() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        assert!(metric.name.starts_with("splitter_"), "{}", metric.name);
        assert!(!metric.name.ends_with("_total") && !metric.name.ends_with("_info"), "{}", metric.name);
        for unit in [Unit::Bytes, Unit::Entries, Unit::Ratio, Unit::Seconds] {
            let named = metric.name.ends_with(&format!("_{}", unit.as_str()));
            assert_eq!(named, metric.unit == Some(unit), "{} and its unit", metric.name);
        }
        assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\', '|']), "{}", metric.name);
    }
}

#[test]
fn every_metric_has_a_sample_with_all_its_labels_when_everything_is_known() {
    for metric in METRICS {
        let samples = (metric.read)(&snapshot());
        assert!(!samples.is_empty(), "{}", metric.name);
        for sample in samples {
            assert_eq!(sample.labels.len(), metric.labels.len(), "{}", metric.name);
        }
    }
}

#[test]
fn both_formats_are_as_they_were() {
    golden("metrics.openmetrics", &open_metrics(snapshot()).expect("it can be written"));
    golden("metrics.classic", &classic(snapshot()).expect("it can be written"));
}

#[test]
fn what_is_not_known_has_no_sample() {
    let text = open_metrics(Snapshot { version: "0.1.0".to_owned(), ..Snapshot::default() }).expect("it can be written");
    let expected = "# HELP splitter_agent_build The agent's version.\n# TYPE splitter_agent_build info\n\
        splitter_agent_build_info{version=\"0.1.0\"} 1\n\
        # HELP splitter_agent_adoptions Agents that took over the running data plane since it was loaded.\n\
        # TYPE splitter_agent_adoptions counter\nsplitter_agent_adoptions_total 0\n\
        # HELP splitter_agent_leases_ran_out How often this agent found that the lease had run out, its own or the last agent's.\n\
        # TYPE splitter_agent_leases_ran_out counter\nsplitter_agent_leases_ran_out_total 0\n# EOF\n";
    assert_eq!(text, expected);

    let text = open_metrics(snapshot()).expect("it can be written");
    let of = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(of("[2001:db8::54]:53"), 0, "a backend without counters");
    assert_eq!(of("service=\"dns\",cohort=\"stable\",backend=\"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111]:53\""), 11);
    assert_eq!(of("splitter_backend_connections_refused_total{service=\"dns\""), 0, "dsr doesn't see refusals");
}

#[test]
fn a_histogram_has_what_the_data_plane_counted_at_edges_that_both_have() {
    let text = open_metrics(snapshot()).expect("it can be written");
    let of = "splitter_handshake_seconds_bucket{le=";
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with(of) && line.contains("cohort=\"canary\"")).collect();
    let read = |line: &str| -> (f64, u64) {
        let (edge, rest) = line[of.len() + 1..].split_once('"').expect("a label");
        let count = rest.rsplit(' ').next().expect("a value");
        (edge.parse().expect("a number"), count.parse().expect("a count"))
    };
    let buckets: Vec<_> = lines.into_iter().map(read).collect();
    assert_eq!(buckets.len(), 48);
    for (index, (edge, count)) in buckets[..47].iter().enumerate() {
        let first = 1 + 4 * index;
        assert_eq!((*edge * 1e9).round() as u64, histogram::begins(first) * 256, "edge {index}, in nanoseconds");
        assert_eq!(*count, (0..first as u64).sum::<u64>(), "up to {edge}");
    }
    assert_eq!((buckets[0].0, buckets[46].0), (8.192e-6, 68.719_476_736));
    assert_eq!(buckets[47], (f64::INFINITY, (0..185).sum::<u64>() + 1));
    assert!(text.contains("splitter_handshake_seconds_sum{service=\"web\",cohort=\"canary\"} 1.0"), "{text}");
    assert!(
        text.contains("splitter_first_response_seconds_count{service=\"web\",cohort=\"canary\"} 0"),
        "none is known, and that is known"
    );
    assert!(!text.contains("splitter_handshake_seconds_count{service=\"dns\""), "dsr doesn't show answers of UDP");
}

#[test]
fn a_rollout_tells_its_phase_and_only_while_it_decides_its_weight_and_its_verdict() {
    let told = |run: &Run| {
        let mut now = snapshot();
        now.services[0].rollout = Some(rollout::told(run));
        open_metrics(now).expect("it can be written")
    };
    for (run, phase, decides) in
        [(rollout::healthy(), "stepping", true), (rollout::at_gate(), "gate", true), (rollout::promoted(), "promoted", false)]
    {
        let text = told(&run);
        let phases = |value: &str| {
            let lines = text.lines().filter(|line| line.starts_with("splitter_rollout_phase{") && line.ends_with(value));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(phases(" 1"), [format!("splitter_rollout_phase{{service=\"web\",phase=\"{phase}\"}} 1")]);
        assert_eq!(phases(" 0").len(), 6);
        for metric in ["splitter_rollout_weight_ratio{", "splitter_rollout_verdict{"] {
            assert_eq!(text.contains(metric), decides, "{phase}: {metric}");
        }
        assert_eq!(text.contains("splitter_rollout_step_overdue_seconds{"), phase == "stepping", "{phase}");
    }
    let mut late = rollout::healthy();
    late.progress.in_step = Duration::from_millis(901_500);
    assert!(told(&late).contains("splitter_rollout_step_overdue_seconds{service=\"web\"} 1.5\n"), "{}", told(&late));
    assert!(told(&late).contains("splitter_rollout_check{service=\"web\",check=\"http-5xx\"} 1\n"));
    assert!(!told(&rollout::started()).contains("splitter_rollout_check{"), "it has not answered yet");
}

#[test]
fn label_values_are_escaped() {
    let odd = "a\"b\\c\nd";
    let text = open_metrics(Snapshot { version: odd.to_owned(), ..Snapshot::default() }).expect("it can be written");
    assert!(text.contains(r#"splitter_agent_build_info{version="a\"b\\c\nd"} 1"#), "{text}");
}

/// The package `prometheus` has promtool; without it this test fails, for the format would go unchecked.
#[test]
fn promtool_finds_nothing_to_say_about_the_classic_format() {
    let text = classic(snapshot()).expect("it can be written");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run: apt-get install --no-install-recommends prometheus");
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// `promtool tsdb create-blocks-from openmetrics` has Prometheus' own parser; it wants a time behind every sample.
#[test]
fn prometheus_own_parser_reads_the_open_metrics_format() {
    let text = open_metrics(snapshot()).expect("it can be written");
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(parsed_series(&text), samples);

    let unfinished = text.strip_suffix("# EOF\n").expect("it ends so");
    assert_eq!(parsed_series(unfinished), 0, "this test can fail");
}

#[tokio::test]
async fn prometheus_gets_open_metrics_and_everyone_else_the_classic_format() {
    let (address, stop) = start(Ok(())).await;
    let (head, body) =
        request(address, "/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(&format!("content-type: {OPEN_METRICS}\r\n")), "{head}");
    assert_eq!(body, open_metrics(snapshot()).expect("it can be written"));
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n"] {
        let (head, body) = request(address, "/metrics", accept).await;
        assert!(head.contains(&format!("content-type: {CLASSIC}\r\n")), "{head}");
        assert_eq!(body, classic(snapshot()).expect("it can be written"));
    }
    for (path, start) in [("/healthz", "HTTP/1.1 200 "), ("/readyz", "HTTP/1.1 200 "), ("/v1/status", "HTTP/1.1 404 ")] {
        let (head, _) = request(address, path, "").await;
        assert!(head.starts_with(start), "{path}: {head}");
    }
    stop.send(true).expect("the server listens");
}

#[tokio::test]
async fn an_agent_that_has_no_numbers_or_is_not_ready_says_why_with_503() {
    let (address, _stop) = start(Err("no interface is attached".to_owned())).await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (head, body) = request(address, path, "").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{path}: {head}");
        assert_eq!(body, "no interface is attached\n");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it_and_who_to_ask() {
    let first = server::listen("127.0.0.1:0".parse().expect("an address")).await.expect("free");
    let address = first.local_addr().expect("bound");
    let error = server::listen(address).await.expect_err("in use");
    assert_eq!(error.to_string(), format!("could not listen on {address} for metrics: Address already in use (os error 98)"));
    assert!(error.remedy().starts_with(&format!("`ss -ltnp 'sport = :{}'`", address.port())));
}

/// What the status of the fake agent has, as numbers.
fn snapshot() -> Snapshot {
    let status = status();
    let services = status.services.iter().map(|service| ServiceSnapshot {
        name: service.name.clone(),
        weight_asked: service.weights.asked,
        weight_in_force: service.weights.in_force,
        flip: service.flip.as_ref().map(|flip| flip.cause),
        breaker_tripped: service.breaker.as_ref().map(|breaker| breaker.tripped),
        flips: [(FlipCause::Command, 2), (FlipCause::Refused, service.flip.is_some().into())].into(),
        canary_fallback: service.canary_fallback,
        refusals: service.refusals.clone(),
        cohorts: service
            .cohorts
            .iter()
            .map(|cohort| CohortSnapshot {
                cohort: cohort.cohort,
                handshake: Some(measured(1_000)).filter(|_| nat(service)),
                first_response: Some(Histogram::default()).filter(|_| nat(service)),
                usable_backends: 1,
                backends: cohort
                    .backends
                    .iter()
                    .map(|backend| BackendSnapshot {
                        address: backend.address,
                        connections: backend.connections,
                        counters: backend.counters,
                    })
                    .collect(),
            })
            .collect(),
        rollout: (service.name == name("web")).then(rollout::status),
    });
    Snapshot {
        version: "0.1.0".to_owned(),
        adoptions: 1,
        last_reload: Some(LastReload { at: time("2026-03-01T09:00:00.5Z"), ok: false }),
        sampling: Some(Duration::from_micros(350)),
        lease_left: Some(Duration::from_millis(9_930)),
        leases_ran_out: 1,
        lease_ran_out: Some(time("2026-03-01T08:12:00.5Z")),
        skipped: [("not_ip".to_owned(), 12), ("not_ours".to_owned(), 3_456)].into(),
        dropped: [("no_way".to_owned(), 5)].into(),
        tables: vec![
            TableSnapshot { table: Table::Affinity, capacity: 1 << 20, used: None },
            TableSnapshot { table: Table::Nat, capacity: 28_232, used: Some(855) },
        ],
        services: services.collect(),
    }
}

fn nat(service: &ServiceStatus) -> bool {
    service.mode == Mode::Nat
}

/// So many in each of the data plane's buckets: number `n` has `n` of them, and the last has one.
fn measured(sum_ms: u64) -> Histogram {
    let counts = (0..=histogram::LAST as u64).map(|bucket| if bucket == histogram::LAST as u64 { 1 } else { bucket });
    Histogram { sum: Duration::from_millis(sum_ms), counts: counts.collect() }
}

struct Numbers(Result<(), String>);

impl Observed for Numbers {
    async fn snapshot(&self) -> Result<Snapshot, String> {
        self.0.clone().map(|()| snapshot())
    }

    fn healthy(&self) -> Result<(), String> {
        self.0.clone()
    }

    fn ready(&self) -> Result<(), String> {
        self.0.clone()
    }
}

async fn start(state: Result<(), String>) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let listener = server::listen("127.0.0.1:0".parse().expect("an address")).await.expect("free");
    let address = listener.local_addr().expect("bound");
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(server::run(listener, Arc::new(Numbers(state)), stopping));
    (address, stop)
}

async fn request(address: std::net::SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (format!("{head}\r\n"), body.to_owned())
}

/// How many series Prometheus makes of the text; 0 if it refuses it.
fn parsed_series(text: &str) -> usize {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (input, output) = (directory.path().join("input"), directory.path().join("output"));
    let timed: String = text
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1772355600\n") })
        .collect();
    std::fs::write(&input, timed).expect("a file");
    let created = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&input, &output])
        .output()
        .expect("promtool can be run: apt-get install --no-install-recommends prometheus");
    if !created.status.success() {
        return 0;
    }
    // One line for the one block: ULID, first and last time, duration, samples, chunks, series, size.
    let told = String::from_utf8(created.stdout).expect("text");
    let block = told.lines().last().expect("a line for the block");
    block.split_whitespace().nth(6).and_then(|series| series.parse().ok()).unwrap_or_else(|| panic!("{told}"))
}
