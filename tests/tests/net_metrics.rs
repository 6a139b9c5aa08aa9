//! What is measured is what was sent, as a Prometheus server sees it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Kind, METRICS, Site, share},
    workload::{
        http,
        tools::{Prometheus, promtool_check_metrics},
        udp_echo,
    },
};
use splitter_user::model::Mode;

const SCRAPED: Duration = Duration::from_secs(10);
/// A UDP header, in bytes.
const UDP: u64 = 8;

#[test]
fn a_prometheus_server_sees_exactly_what_the_load_sent() {
    for (topology, mode) in [(Topology::TwoArmSwitched, Mode::Nat), (Topology::OneArm, Mode::Dsr)] {
        let site = Site::builder(topology, mode).kinds(&[Kind::Web, Kind::Udp]).weight("20%").start().expect("a site");
        let prometheus = Prometheus::start(site.node.namespace(), &[METRICS]).expect("a Prometheus");
        let web = [1_000, 600];
        let mut canary = BTreeMap::new();
        for (family, connections) in FAMILIES.into_iter().zip(web) {
            let summary = site.web_load(family, connections).expect("a load").summary();
            assert_eq!(summary.all_answered(), connections, "{summary:?}");
            canary.insert(Kind::Web.service(family), summary.answered_by("canary"));
        }
        let exchanges = FAMILIES.map(|family| {
            let load = udp_echo::Load::new(site.client(family), site.target(Kind::Udp, family), 20);
            let running = load.start(site.lab.client()).expect("a load");
            thread::sleep(Duration::from_millis(400));
            let report = udp_echo::Report::of(&running.stop().expect("it stops"));
            assert!(report.lost == 0 && report.answered == report.sent, "{report:?}");
            report
        });
        // The last connections' ends, and then a scrape of them.
        let sum = |metric: &str, labels: &str| {
            let samples = prometheus.query(&format!("sum({metric}{{{labels}}})")).expect("answered");
            samples.first().map(|sample| sample.value)
        };
        let is = |metric: &str, labels: &str, expected: u64| {
            let deadline = Instant::now() + SCRAPED;
            while sum(metric, labels) != Some(expected as f64) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(200));
            }
            assert_eq!(sum(metric, labels), Some(expected as f64), "{mode}: {metric}{{{labels}}}");
        };
        for (family, connections) in FAMILIES.into_iter().zip(web) {
            let service = Kind::Web.service(family);
            let labels = format!("service=\"{service}\"");
            for what in ["opened", "completed", "closed"] {
                is(&format!("splitter_backend_connections_{what}_total"), &labels, connections);
            }
            is("splitter_backend_connections_opened_total", &format!("{labels},cohort=\"canary\""), canary[&service]);
            for what in ["timed_out", "reset"] {
                is(&format!("splitter_backend_connections_{what}_total"), &labels, 0);
            }
            is("splitter_backend_connections_active", &labels, 0);
            is("splitter_service_refusals_total", &labels, 0);
            for server in &site.servers {
                let labels = format!("{labels},backend=\"{}\"", server.backend(Kind::Web, family));
                let opened = sum("splitter_backend_connections_opened_total", &labels);
                assert!(opened > Some(0.0), "{mode}: {}", server.identity);
            }
            assert_eq!(sum("splitter_service_weight_in_force_ratio", &labels), Some(0.2));
            assert!(share::fits(canary[&service], connections, 0.2), "{canary:?}");
        }
        let served: u64 = site.servers.iter().map(|server| server.web.as_ref().expect("it serves").counts().requests).sum();
        assert_eq!(served, web.iter().sum::<u64>());
        for (family, report) in FAMILIES.into_iter().zip(exchanges) {
            let labels = format!("service=\"{}\"", Kind::Udp.service(family));
            let header = UDP + if family == Family::V4 { 20 } else { 40 };
            is("splitter_backend_connections_opened_total", &labels, 20);
            let to = format!("{labels},direction=\"to_backend\"");
            is("splitter_backend_packets_total", &to, report.sent);
            is("splitter_backend_bytes_total", &to, report.sent * (200 + header));
            let from = format!("{labels},direction=\"from_backend\"");
            if mode == Mode::Nat {
                is("splitter_backend_packets_total", &from, report.answered);
                // An answer bears the server's name before the request: a length, "stable/stable1", or "canary/canary1".
                is("splitter_backend_bytes_total", &from, report.answered * (200 + header + 15));
            } else {
                assert_eq!(sum("splitter_backend_packets_total", &from), None, "what isn't known has no sample");
                assert_eq!(sum("splitter_backend_connections_refused_total", &labels), None);
            }
        }
        assert!(sum("splitter_agent_build_info", "") == Some(1.0) && sum("splitter_service_flipped", "") == Some(0.0));

        let (status, page) = site.node.http("/metrics").expect("a page");
        assert_eq!(status, 200);
        promtool_check_metrics(site.node.namespace(), &page).expect("promtool finds no fault");
    }
}

#[test]
fn refusals_flips_and_adoptions_are_counted_across_a_restart() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("100%").start().expect("a site");
    site.server("canary1").set_web(http::Mode::Refuse).expect("it refuses");
    let summary = site.web_load(Family::V4, 70).expect("a load").summary();
    assert_eq!(summary.refused, 70, "{summary:?}");
    site.node.run(&["flip", "web4"]).expect("flipped");
    site.node.kill_and_restart().expect("it takes over");
    let value = |page: &str, series: &str| {
        let line = page.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("no {series} in {page}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok())
    };
    let (_, page) = site.node.http("/metrics").expect("a page");
    let backend =
        format!("{{service=\"web4\",cohort=\"canary\",backend=\"{}\"}}", site.server("canary1").backend(Kind::Web, Family::V4));
    for (what, expected) in [("opened", 70.0), ("refused", 70.0), ("completed", 0.0), ("timed_out", 0.0)] {
        assert_eq!(value(&page, &format!("splitter_backend_connections_{what}_total{backend}")), Some(expected), "{what}");
    }
    assert_eq!(value(&page, "splitter_agent_adoptions_total"), Some(1.0));
    assert_eq!(value(&page, "splitter_service_flipped{service=\"web4\"}"), Some(1.0));
    assert_eq!(value(&page, "splitter_service_flip_info{service=\"web4\",reason=\"command\"}"), Some(1.0));
    assert_eq!(value(&page, "splitter_service_weight_in_force_ratio{service=\"web4\"}"), Some(0.0));
    assert_eq!(value(&page, "splitter_service_weight_asked_ratio{service=\"web4\"}"), Some(1.0));
    promtool_check_metrics(site.node.namespace(), &page).expect("promtool finds no fault");
}
