//! `splitter simulate`, as a user runs it.

use serde_json::Value;

use super::*;

const PLAN: &str = r#"
[agent]
interfaces = ["eth0"]

[[service]]
name = "web"
protocol = "tcp"
address = "192.0.2.10:80"
stable = ["10.0.1.1:8080"]
canary = ["10.0.1.9:8080"]

[service.rollout]
steps = ["10% for 1m", "50% for 1m"]
min_connections = 50

[service.rollout.compare]
handshake_p90 = false

[[service]]
name = "plain"
protocol = "tcp"
address = "192.0.2.11:80"
stable = ["10.0.1.1:8080"]
"#;

#[test]
fn a_bad_canary_is_caught_a_good_one_promoted_and_the_seed_decides_the_rest() {
    let place = Place::new();
    let line = |more: &str| place.run(&format!("--service web --rate 200/s --runs 40 --stable-failures 0.1% -o json {more}"));
    let report = |outcome: &Outcome| -> Value { serde_json::from_str(&outcome.out).expect("JSON") };
    let bad = line("--canary-failures 20%");
    assert_eq!(bad.code, Code::Ok, "{}", bad.err);
    let told = report(&bad);
    assert_eq!(told["canary"]["caught"], 40, "{told}");
    assert!(told["equal"]["caught"].as_u64().is_some_and(|caught| caught <= 4), "{told}");
    assert!(told["canary"]["seconds"]["median"].as_f64().is_some_and(|seconds| seconds < 60.0), "in the first step: {told}");
    assert_eq!(line("--canary-failures 20%").out, bad.out, "the same seed");
    assert_ne!(line("--canary-failures 20% --seed 2").out, bad.out, "another one");
    let good = report(&line("--canary-failures 0.1%"));
    assert!(good["canary"]["promoted"].as_u64().is_some_and(|promoted| promoted >= 36), "{good}");
}

#[test]
fn the_picture_is_what_its_name_says() {
    let place = Place::new();
    let run = |file: &str| {
        let file = place.directory.path().join(file);
        let outcome = place.run(&format!("--service web --rate 100/s --runs 5 --plot {}", file.display()));
        (outcome, std::fs::read(file))
    };
    let (outcome, svg) = run("plan.svg");
    assert_eq!(outcome.code, Code::Ok, "{}", outcome.err);
    assert!(outcome.out.contains("one as good as stable"), "{}", outcome.out);
    assert!(svg.expect("drawn").starts_with(b"<svg"));
    let (outcome, other) = run("plan.gif");
    assert_eq!(outcome.code, Code::Usage);
    assert!(outcome.err.contains("FILE.svg or FILE.png"), "{}", outcome.err);
    other.expect_err("nothing was written");
    let (outcome, png) = run("plan.png");
    if outcome.code == Code::Ok {
        assert!(png.expect("drawn").starts_with(b"\x89PNG"));
    } else {
        // A machine without fonts says so.
        assert_eq!(outcome.code, Code::Failed);
        assert!(outcome.err.contains("no fonts"), "{}", outcome.err);
    }
}

#[test]
fn what_cannot_be_simulated_is_refused_with_what_to_do() {
    let place = Place::new();
    for (line, code, part) in [
        ("--service checkout --rate 1/s", Code::NotFound, "its services are web, plain"),
        ("--service plain --rate 1/s", Code::Usage, "[service.rollout]"),
        ("--service web --rate 1000", Code::Usage, "1000/s"),
        ("--service web --rate 1/s --canary-failures 5", Code::Usage, "5%"),
        ("--service web --rate 1/s --runs 0", Code::Usage, "runs"),
    ] {
        let outcome = place.run(line);
        assert_eq!(outcome.code, code, "{line}: {}", outcome.err);
        assert!(outcome.err.contains(part), "{line}: {}", outcome.err);
    }
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("splitter.toml"), PLAN).expect("written");
        Self { directory }
    }

    fn run(&self, line: &str) -> Outcome {
        let file = self.directory.path().join("splitter.toml");
        let words = format!("splitter simulate --plan {} {line}", file.display());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io { out: &mut out, err: &mut err, terminal: false, tick: std::time::Duration::from_secs(1) };
        let code = run(words.split_whitespace().map(Into::into), &Here, &mut io);
        let text = |bytes: &[u8]| String::from_utf8(strip_bytes(bytes).into_vec()).expect("text");
        Outcome { code, out: text(&out), err: text(&err) }
    }
}
