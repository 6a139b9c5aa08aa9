//! A rollout's plan and its notifications: what they mean, and the one line that each mistake gives.

use std::time::Duration;

use super::{parse, problems, service};
use crate::model::{
    Check, Compare, Existing, Factor, Gate, Notify, NotifyTo, OnBreach, OnDeadline, OnNoData, Plan, Probe, Step, Weight,
};

#[test]
fn a_plan_means_what_it_says() {
    let text = service()
        + r#"
[service.rollout]
steps = ["1% for 15m", "10% for 15m", "50% for 15m", { weight = "100%", gate = "manual" }]
min_connections = 500          # per step, both cohorts, before a verdict counts
on_breach  = "flip"            # flip | pause
existing   = "reset"           # keep | reset
on_no_data = "hold"            # hold | flip | proceed, after `no_data_for`
deadline   = "6h"              # a rollout that does not get on ends as configured, loudly
[service.rollout.compare]      # against stable, anytime-valid
false_alarm_rate = 0.01        # for the whole rollout, all checks together
failures = true                # refused + timed out
handshake_p90 = true           # and first-response where it is measured
tolerance = "1.2x"             # worse by less than this is not a breach
[[service.rollout.check]]      # what the application knows better
name = "http-5xx"
promql = 'sum(rate(http_requests_total{version="canary",code=~"5.."}[1m])) / sum(rate(http_requests_total{version="canary"}[1m]))'
max = 0.01
url = "http://127.0.0.1:9090"
"#;
    let query = r#"sum(rate(http_requests_total{version="canary",code=~"5.."}[1m])) / sum(rate(http_requests_total{version="canary"}[1m]))"#;
    let last = Step { gate: Some(Gate::Manual), ..step("100%", 0) };
    let check = Check {
        name: "http-5xx".to_owned(),
        probe: Probe::PromQl { url: "http://127.0.0.1:9090".to_owned(), query: query.to_owned(), max: Some(0.01), min: None },
        interval: seconds(10),
        timeout: seconds(5),
        retries: 2,
        failures: 1,
        token_file: None,
    };
    let expected =
        Plan { steps: vec![step("1%", 15), step("10%", 15), step("50%", 15), last], checks: vec![check], ..plain(Vec::new()) };
    assert_eq!(plan(&text), expected);
}

#[test]
fn a_plan_of_steps_alone_has_the_defaults() {
    assert_eq!(plan(&with("steps = [\"100%\"]")), plain(vec![step("100%", 0)]));
    assert_eq!(parse(&service()).expect("valid").services[0].rollout, None, "nobody gets a plan unasked");
}

#[test]
fn every_key_of_a_plan_counts() {
    let text = with(
        r#"steps = [
    "0% to 1% over 10m",
    { weight = "1% to 10% over 1h", gate = "check:ready" },
    { weight = "50%", for = "1h 30m" },
    { weight = "50% for 2m", gate = "manual" },
]
min_connections = 0
on_breach = "pause"
existing = "keep"
on_no_data = "proceed"
no_data_for = "0s"
deadline = "2d"
on_deadline = "flip"
compare = { false_alarm_rate = 0.5, failures = false, tolerance = "2x", stable_failing = "0.5%" }
[[service.rollout.check]]
name = "ready"
webhook = "https://[fd00::7]:8443/ready?team=shop"
interval = "2s"
timeout = "500ms"
retries = 0
failures = 3
token_file = "/etc/splitter/ready.token"
[[service.rollout.check]]
name = "sales"
promql = " sum(rate(sales_total[1m])) "
url = "https://prometheus.example.com/shop/"
min = 10
max = 1_000.5"#,
    );
    let ready = Check {
        name: "ready".to_owned(),
        probe: Probe::Webhook { url: "https://[fd00::7]:8443/ready?team=shop".to_owned() },
        interval: seconds(2),
        timeout: Duration::from_millis(500),
        retries: 0,
        failures: 3,
        token_file: Some("/etc/splitter/ready.token".into()),
    };
    let sales = Check {
        name: "sales".to_owned(),
        probe: Probe::PromQl {
            url: "https://prometheus.example.com/shop".to_owned(),
            query: "sum(rate(sales_total[1m]))".to_owned(),
            max: Some(1_000.5),
            min: Some(10.0),
        },
        interval: seconds(10),
        timeout: seconds(5),
        retries: 2,
        failures: 1,
        token_file: None,
    };
    let expected = Plan {
        steps: vec![
            Step { from: Some(Weight::ZERO), ..step("1%", 10) },
            Step { from: Some(weight("1%")), gate: Some(Gate::Check("ready".to_owned())), ..step("10%", 60) },
            step("50%", 90),
            Step { gate: Some(Gate::Manual), ..step("50%", 2) },
        ],
        min_connections: 0,
        on_breach: OnBreach::Pause,
        existing: Existing::Keep,
        on_no_data: OnNoData::Proceed,
        no_data_for: Duration::ZERO,
        deadline: seconds(2 * 24 * 3600),
        on_deadline: OnDeadline::Flip,
        compare: Some(Compare {
            false_alarm_rate: 0.5,
            failures: false,
            handshake_p90: true,
            tolerance: Factor::from_hundredths(200).expect("a factor"),
            stable_failing: weight("0.5%"),
        }),
        checks: vec![ready, sales],
    };
    assert_eq!(plan(&text), expected);
}

#[test]
fn a_comparison_of_nothing_is_none() {
    let off = plan(&with("steps = [\"100%\"]\ncompare = { failures = false, handshake_p90 = false }"));
    assert_eq!(off, Plan { compare: None, ..plain(vec![step("100%", 0)]) });
    let times = plan(&with("steps = [\"100%\"]\ncompare.failures = false"));
    assert!(times.compare.is_some_and(|compare| compare.handshake_p90 && !compare.failures));
}

#[test]
fn of_udp_in_dsr_mode_nothing_is_known_and_a_plan_must_say_so() {
    let udp = |rollout: &str| with(rollout).replace(r#""tcp""#, r#""udp""#);
    let dsr = |rollout: &str| udp(rollout).replace(r#"mode = "nat""#, r#"mode = "dsr""#).replace(":8080", ":80");
    let steps = "steps = [\"5% for 1h\", \"100%\"]\n";
    let expected = plain(vec![step("5%", 60), step("100%", 0)]);
    assert_eq!(plan(&udp(steps)), expected, "in nat mode it's compared");

    let counted = r#"service "checkout", rollout.min_connections: of UDP in dsr mode nothing is seen but the client's packets, so no outcome is known and no step would be passed: use mode nat, or set min_connections = 0"#;
    let compared = r#"service "checkout", rollout.compare: of UDP in dsr mode nothing is seen but the client's packets, so nothing can be compared: use mode nat, or leave the section out"#;
    assert_eq!(problems(&dsr(steps)), [format!("splitter.toml:12:1: {counted}")], "the default is meant");
    for compare in ["failures = false", "handshake_p90 = false", "tolerance = \"2x\""] {
        assert_eq!(
            problems(&dsr(&format!("{steps}min_connections = 1\ncompare = {{ {compare} }}"))),
            [format!("splitter.toml:14:19: {counted}"), format!("splitter.toml:15:11: {compared}")],
            "{compare}"
        );
    }
    let blind = Plan { min_connections: 0, compare: None, ..expected };
    for compare in ["", "compare = { failures = false, handshake_p90 = false }"] {
        assert_eq!(plan(&dsr(&format!("{steps}min_connections = 0\n{compare}"))), blind, "{compare}");
    }
}

#[test]
fn canary_backends_may_come_later() {
    let text = with("steps = [\"100%\"]").replace("canary = [\"10.0.1.9:8080\"]", "");
    assert_eq!(plan(&text), plain(vec![step("100%", 0)]));
}

#[test]
fn a_hundred_steps_are_the_most() {
    let steps = |count: usize| with(&format!("steps = [{}]", vec!["\"5%\""; count].join(", ")));
    assert_eq!(plan(&steps(100)).steps.len(), 100);
    assert_eq!(
        problems(&steps(101)),
        [
            r#"splitter.toml:13:9: service "checkout", rollout.steps: there are 101 steps: use at most 100, and "1% to 10% over 30m" for a weight that rises slowly"#
        ]
    );
}

#[test]
fn each_mistake_in_a_plan_has_its_own_message() {
    let check = "name = \"a\"\npromql = \"up\"\nurl = \"http://127.0.0.1:9090\"\nmax = 1\n";
    let checks = |check: &str| format!("steps = [\"100%\"]\n[[service.rollout.check]]\n{check}");
    let steps = |steps: &str| format!("steps = [{steps}]");
    let set = |key: &str| format!("steps = [\"100%\"]\n{key}");
    for (rollout, expected) in [
        // Steps.
        (String::new(), r#"12:1: service "checkout", rollout: "steps" is missing"#),
        (steps(""), r#"13:9: service "checkout", rollout.steps: there is no step: list at least one, such as "100%""#),
        (
            "steps = \"5% for 1h\"".to_owned(),
            r#"13:9: service "checkout", rollout, steps: expected a list, found the text "5% for 1h""#,
        ),
        (
            steps(r#""5% for 1m", 10"#),
            r#"13:23: service "checkout", step 2: expected a text such as "5% for 15m", found the integer 10"#,
        ),
        (
            steps(r#""5% for 1m", "all""#),
            r#"13:23: service "checkout", step 2: "all" is not a step: write it as "5%", "5% for 15m" or "1% to 10% over 30m""#,
        ),
        (
            steps(r#""5% for 1m", "20% for 1m", "10% for 1m""#),
            r#"13:37: service "checkout", step 3: weight falls from 20% to 10%: each step's is at least the one's before; to go back, abort the rollout"#,
        ),
        (
            steps(r#""0% for 1m", "10% for 1m""#),
            r#"13:10: service "checkout", step 1: the first step's weight is 0%, which tries nothing: begin with at least 0.01%, and hold a rollout at its start by a gate"#,
        ),
        (
            steps(r#""10% to 1% over 30m""#),
            r#"13:10: service "checkout", step 1: the ramp from 10% to 1% does not rise: write the lower weight first, or "1% for 30m" to stay there"#,
        ),
        (
            steps(r#""10% to 10% over 30m""#),
            r#"13:10: service "checkout", step 1: the ramp from 10% to 10% does not rise: write the lower weight first, or "10% for 30m" to stay there"#,
        ),
        (
            steps(r#""1% to 10%""#),
            r#"13:10: service "checkout", step 1: "1% to 10%" is a ramp without its time: write it as "1% to 10% over 30m""#,
        ),
        (steps(r#""1% to 10% over 0s""#), r#"13:10: service "checkout", step 1: "0s" is out of range: use 100ms to 30days"#),
        (
            steps(r#""5% for 1m", "1% to 10% over 30m""#),
            r#"13:23: service "checkout", step 2: the ramp begins at 1%, below the 5% of the step before: begin it at 5% or above"#,
        ),
        (
            steps(r#"{ weight = "5% for 1m", for = "2m" }"#),
            r#"13:40: service "checkout", step 1, for: the weight "5% for 1m" has its time already: leave "for" out"#,
        ),
        (
            steps(r#"{ weight = "5%", for = "10ms" }"#),
            r#"13:33: service "checkout", step 1, for: "10ms" is out of range: use 100ms to 30days"#,
        ),
        (steps(r#"{ for = "2m" }"#), r#"13:10: service "checkout", step 1: "weight" is missing"#),
        (
            steps(r#"{ weight = "5%", gates = "manual" }"#),
            r#"13:27: service "checkout", step 1: unknown key "gates", did you mean "gate"?"#,
        ),
        (
            steps(r#"{ weight = "5%", gate = "automatic" }"#),
            r#"13:34: service "checkout", step 1, gate: "automatic" is unknown: use "manual", or "check:NAME" with the name of a check"#,
        ),
        (
            steps(r#"{ weight = "5%", gate = "check:" }"#),
            r#"13:34: service "checkout", step 1, gate: `` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            steps("\"5%\", { weight = \"100%\", gate = \"check:b\" }]\ncheck = [{ name = \"a\", webhook = \"http://a\" }"),
            r#"13:16: service "checkout", step 2: the gate names check "b", which there isn't: write a [[service.rollout.check]] of that name, or name another"#,
        ),
        // The plan's own keys.
        (
            set("min_connections = -1"),
            r#"14:19: service "checkout", rollout, min_connections: -1 is out of range: use at least 0"#,
        ),
        (
            set("on_breach = \"stop\""),
            r#"14:13: service "checkout", rollout, on_breach: "stop" is unknown: use one of "flip", "pause""#,
        ),
        (
            set("existing = \"drain\""),
            r#"14:12: service "checkout", rollout, existing: "drain" is unknown: use one of "keep", "reset""#,
        ),
        (
            set("on_no_data = \"pause\""),
            r#"14:14: service "checkout", rollout, on_no_data: "pause" is unknown: use one of "hold", "flip", "proceed""#,
        ),
        (
            set("no_data_for = \"25h\""),
            r#"14:15: service "checkout", rollout, no_data_for: "25h" is out of range: use 0s to 1day"#,
        ),
        (set("deadline = \"31d\""), r#"14:12: service "checkout", rollout, deadline: "31d" is out of range: use 1s to 30days"#),
        (
            set("on_deadline = \"hold\""),
            r#"14:15: service "checkout", rollout, on_deadline: "hold" is unknown: use one of "abort", "flip""#,
        ),
        (
            "steps = [\"5% for 30m\", \"5% to 10% over 1h\", \"100%\"]\ndeadline = \"1h\"".to_owned(),
            r#"14:12: service "checkout", rollout.deadline: the steps take 1h 30m, so a deadline of 1h always ends the rollout first: make it longer, with room for gates and verdicts"#,
        ),
        (
            steps("\"5% for 6h\""),
            r#"12:1: service "checkout", rollout.deadline: the steps take 6h, so a deadline of 6h always ends the rollout first: make it longer, with room for gates and verdicts"#,
        ),
        (set("dedline = \"1h\""), r#"14:1: service "checkout", rollout: unknown key "dedline", did you mean "deadline"?"#),
        // The comparison.
        (
            set("compare = false"),
            r#"14:11: service "checkout", rollout, compare: expected a table [service.rollout.compare], found the boolean false"#,
        ),
        (
            set("compare.false_alarm_rate = 0"),
            r#"14:28: service "checkout", rollout, compare, false_alarm_rate: 0 is out of range: use above 0, and at most 0.5"#,
        ),
        (
            set("compare.false_alarm_rate = 0.51"),
            r#"14:28: service "checkout", rollout, compare, false_alarm_rate: 0.51 is out of range: use above 0, and at most 0.5"#,
        ),
        (
            set("compare.false_alarm_rate = nan"),
            r#"14:28: service "checkout", rollout, compare, false_alarm_rate: expected a finite number such as 0.01, found the number nan"#,
        ),
        (
            set("compare.false_alarm_rate = \"1%\""),
            r#"14:28: service "checkout", rollout, compare, false_alarm_rate: expected a finite number such as 0.01, found the text "1%""#,
        ),
        (
            set("compare.failures = \"no\""),
            r#"14:20: service "checkout", rollout, compare, failures: expected true or false, found the text "no""#,
        ),
        (
            set("compare.tolerance = \"0.9x\""),
            r#"14:21: service "checkout", rollout, compare, tolerance: factor `0.9x` is out of range: use 1x to 100x"#,
        ),
        (
            set("compare.stable_failing = \"101%\""),
            r#"14:26: service "checkout", rollout, compare, stable_failing: weight `101%` is out of range: use 0% to 100%"#,
        ),
        // Checks.
        (
            set("[service.rollout.check]\nname = \"a\""),
            r#"14:1: service "checkout", rollout: checks are a list: write [[service.rollout.check]], with two brackets"#,
        ),
        (
            set("check = [\"a\"]"),
            r#"14:10: service "checkout", check 1: expected a table [[service.rollout.check]], found the text "a""#,
        ),
        (checks(&check.replace("name = \"a\"\n", "")), r#"14:1: service "checkout", check 1: "name" is missing"#),
        (
            checks(&check.replace("\"a\"", "\"http 5xx\"")),
            r#"15:8: service "checkout", check 1, name: `http 5xx` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            checks(&format!("{check}[[service.rollout.check]]\n{check}")),
            r#"19:1: service "checkout", check 2: the name "a" is taken by check 1: give each check a name of its own"#,
        ),
        (
            checks("name = \"a\""),
            r#"14:1: service "checkout", check 1: there is nothing to ask: set promql with url and max or min, or set webhook"#,
        ),
        (
            checks(&check.replace("promql", "promqll")),
            r#"16:1: service "checkout", check 1: unknown key "promqll", did you mean "promql"?"#,
        ),
        (
            checks(&format!("{check}webhook = \"http://a\"")),
            r#"19:11: service "checkout", check 1, webhook: promql is there already: a check asks one of the two, write a second check for the other"#,
        ),
        (
            checks(&check.replace("\"up\"", "\" \"")),
            r#"16:10: service "checkout", check 1, promql: the expression is empty: write what Prometheus is asked"#,
        ),
        (
            checks("name = \"a\"\npromql = \"up\"\nmax = 1"),
            r#"14:1: service "checkout", check 1: promql needs a url: say where the Prometheus is, such as "http://127.0.0.1:9090""#,
        ),
        (
            checks(&check.replace("max = 1\n", "")),
            r#"14:1: service "checkout", check 1: nothing says which numbers are bad: set max, min or both"#,
        ),
        (
            checks(&check.replace("max = 1", "max = 0.5\nmin = 0.75")),
            r#"14:1: service "checkout", check 1: max (0.5) is below min (0.75), so no number passes: swap them, or leave one out"#,
        ),
        (
            checks(&check.replace("max = 1", "max = inf")),
            r#"18:7: service "checkout", check 1, max: expected a finite number such as 0.01, found the number inf"#,
        ),
        (
            checks("name = \"a\"\nwebhook = \"http://a\"\nmin = 1"),
            r#"17:7: service "checkout", check 1, min: min belongs to promql, and a webhook says by itself whether it passes: leave it out"#,
        ),
        (
            checks(&format!("{check}interval = \"500ms\"")),
            r#"19:12: service "checkout", check 1, interval: "500ms" is out of range: use 1s to 10m"#,
        ),
        (
            checks(&format!("{check}timeout = \"2m\"")),
            r#"19:11: service "checkout", check 1, timeout: "2m" is out of range: use 100ms to 1m"#,
        ),
        (
            checks(&format!("{check}interval = \"2s\"")),
            r#"14:1: service "checkout", check 1: timeout (5s) is longer than interval (2s): wait shorter, or ask less often"#,
        ),
        (
            checks(&format!("{check}retries = 11")),
            r#"19:11: service "checkout", check 1, retries: 11 is out of range: use 0 to 10"#,
        ),
        (
            checks(&format!("{check}failures = 0")),
            r#"19:12: service "checkout", check 1, failures: 0 is out of range: use 1 to 100"#,
        ),
        (
            checks(&format!("{check}token_file = \"token\"")),
            r#"19:14: service "checkout", check 1, token_file: "token" is not an absolute path: begin it with "/""#,
        ),
    ] {
        assert_eq!(problems(&with(&rollout)), [format!("splitter.toml:{expected}")], "{rollout}");
    }
}

#[test]
fn a_url_is_one_that_can_be_asked_and_no_message_repeats_it() {
    let scheme = r#"this is not a URL of http or https: begin it with "http://" or "https://""#;
    let host =
        r#"this URL names no host, or a port that isn't 1 to 65535: write one such as "https://hooks.example.com/release""#;
    let person = "a user or a password in a URL gets into lists and logs: write it without, and name a file with token_file";
    for (url, expected) in [
        ("ftp://hooks/s3cret", scheme),
        ("hooks/s3cret", r#"this is not a URL (invalid format): write one such as "https://hooks.example.com/release""#),
        ("/s3cret", scheme),
        ("", r#"this is not a URL (empty string): write one such as "https://hooks.example.com/release""#),
        ("http://", r#"this is not a URL (empty string): write one such as "https://hooks.example.com/release""#),
        ("http:///s3cret", r#"this is not a URL (invalid format): write one such as "https://hooks.example.com/release""#),
        ("http://:80/s3cret", host),
        ("http://user:s3cret#@hooks/", host),
        ("http://hooks:0/s3cret", host),
        ("http://hooks:65536/s3cret", host),
        ("http://hooks:/s3cret", host),
        (
            "http://hooks/s3cret with blanks",
            "this is not a URL (invalid uri character): write one such as \"https://hooks.example.com/release\"",
        ),
        ("http://user:s3cret@hooks/", person),
        ("http://s3cret@hooks/", person),
    ] {
        let check = format!("[[service.rollout.check]]\nname = \"a\"\nwebhook = \"{url}\"");
        assert_eq!(
            problems(&with(&format!("steps = [\"100%\"]\n{check}"))),
            [format!(r#"splitter.toml:16:11: service "checkout", check 1, webhook: {expected}"#)],
            "{url}"
        );
        assert!(!expected.contains("s3cret"), "{url}");
        let notify = format!("[[notify]]\nname = \"a\"\nurl = \"{url}\"\n");
        assert_eq!(problems(&format!("{AGENT}{notify}")), [format!("splitter.toml:5:7: notify 1, url: {expected}")], "{url}");
    }
    for url in ["http://127.0.0.1:9090/api/v1/query", "http://127.0.0.1:9090/api/v1/query/", "http://p/?a=b", "http://p/#a"] {
        let check = format!("[[service.rollout.check]]\nname = \"a\"\npromql = \"up\"\nmax = 1\nurl = \"{url}\"");
        assert_eq!(
            problems(&with(&format!("steps = [\"100%\"]\n{check}"))),
            [
                r#"splitter.toml:18:7: service "checkout", check 1, url: this is more than where the Prometheus is: leave out /api/v1/query and what comes behind it"#
            ],
            "{url}"
        );
    }
}

#[test]
fn who_is_told_stands_in_the_order_of_the_file() {
    let text = format!(
        r#"{AGENT}
[[notify]]
name = "chat"
url_file = "/etc/splitter/chat.url"
[[notify]]
name = "deploys"
url = "http://deploys.example.com:8080/splitter"
token_file = "/etc/splitter/deploys.token"
timeout = "500ms"
"#
    );
    let chat = Notify {
        name: "chat".to_owned(),
        to: NotifyTo::File("/etc/splitter/chat.url".into()),
        token_file: None,
        timeout: seconds(5),
    };
    let deploys = Notify {
        name: "deploys".to_owned(),
        to: NotifyTo::Url("http://deploys.example.com:8080/splitter".to_owned()),
        token_file: Some("/etc/splitter/deploys.token".into()),
        timeout: Duration::from_millis(500),
    };
    assert_eq!(parse(&text).expect("valid").notify, [chat, deploys]);
    assert_eq!(parse(AGENT).expect("valid").notify, []);
}

#[test]
fn each_mistake_in_a_notification_has_its_own_message() {
    let url = "name = \"a\"\nurl = \"http://a\"\n";
    for (notify, expected) in [
        ("[notify]\nname = \"a\"".to_owned(), "3:1: who is told is a list: write [[notify]], with two brackets"),
        ("[[notify]]\nurl = \"http://a\"".to_owned(), r#"3:1: notify 1: "name" is missing"#),
        (
            "[[notify]]\nname = \"\"\nurl = \"http://a\"".to_owned(),
            "4:8: notify 1, name: `` is not a name: use 1 to 63 letters, digits, `-`, `_` or `.`",
        ),
        (
            format!("[[notify]]\n{url}[[notify]]\n{url}"),
            "7:8: notify 2, name: the name is taken by an earlier one: give each a name of its own",
        ),
        (
            "[[notify]]\nname = \"a\"".to_owned(),
            "3:1: notify 1: nobody is told: set url, or url_file with the path of a file that holds it",
        ),
        (
            "[[notify]]\nname = \"a\"\nurl_fil = \"/a\"".to_owned(),
            r#"5:1: notify 1: unknown key "url_fil", did you mean "url_file"?"#,
        ),
        (
            format!("[[notify]]\n{url}url_file = \"/a\""),
            "6:12: notify 1, url_file: url is there already: a notification goes to one place, leave one of the two out",
        ),
        (
            "[[notify]]\nname = \"a\"\nurl_file = \"a.url\"".to_owned(),
            r#"5:12: notify 1, url_file: "a.url" is not an absolute path: begin it with "/""#,
        ),
        (
            format!("[[notify]]\n{url}token_file = \"a.token\""),
            r#"6:14: notify 1, token_file: "a.token" is not an absolute path: begin it with "/""#,
        ),
        (format!("[[notify]]\n{url}timeout = \"61s\""), r#"6:11: notify 1, timeout: "61s" is out of range: use 100ms to 1m"#),
    ] {
        assert_eq!(problems(&format!("{AGENT}{notify}\n")), [format!("splitter.toml:{expected}")], "{notify}");
    }
}

#[test]
fn one_mistake_does_not_hide_another() {
    let text = with(
        r#"steps = ["5% for 1h", "1% for 1h", "some", { weight = "10%", gate = "check:nope" }]
on_breach = "stop"
deadline = "0s"
[service.rollout.compare]
tolerance = 2
[[service.rollout.check]]
name = "a"
promql = "up"
url = "prometheus"
max = 1
[[service.rollout.check]]
name = "b"
webhook = "http://b"
interval = "1s"
"#,
    ) + "[[notify]]\nname = \"c\"\n";
    let lines = problems(&text);
    let at: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("splitter.toml:")?.split(": ").next()).collect();
    // Whether check "nope" is there isn't known while one of the checks could not be read.
    assert_eq!(at, ["13:23", "13:36", "14:13", "15:12", "17:13", "21:7", "23:1", "28:1"], "{lines:#?}");
}

const AGENT: &str = "[agent]\ninterfaces = [\"eth0\"]\n";

/// A service with a plan: its section begins at line 12, its keys at line 13.
fn with(rollout: &str) -> String {
    format!("{}[service.rollout]\n{rollout}\n", service())
}

fn plan(text: &str) -> Plan {
    let config = parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let [service] = &config.services[..] else { unreachable!("one service") };
    service.rollout.clone().expect("a plan")
}

/// A plan with these steps and defaults.
fn plain(steps: Vec<Step>) -> Plan {
    Plan {
        steps,
        min_connections: 500,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: seconds(300),
        deadline: seconds(6 * 3600),
        on_deadline: OnDeadline::Abort,
        compare: Some(Compare {
            false_alarm_rate: 0.01,
            failures: true,
            handshake_p90: true,
            tolerance: Factor::from_hundredths(120).expect("a factor"),
            stable_failing: weight("5%"),
        }),
        checks: Vec::new(),
    }
}

fn step(share: &str, minutes: u64) -> Step {
    Step { from: None, weight: weight(share), lasts: seconds(60 * minutes), gate: None }
}

fn weight(text: &str) -> Weight {
    text.parse().expect("a weight")
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
