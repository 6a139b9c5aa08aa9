//! The main job, with the real binary: requests are answered, and by whom they should be.

use std::time::Duration;

use splitter_tests::{
    lab::Topology,
    node::{FAMILIES, Family, Kind, Site, share},
    workload::{
        http,
        tools::{WrkLoad, curl, wrk},
    },
};
use splitter_user::model::{Cohort, Mode};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn in_nat_mode_with_two_arms_requests_follow_weight_and_flip() {
    follows_weight_and_flip(Site::builder(Topology::TwoArmSwitched, Mode::Nat).start().expect("a site"));
}

#[test]
fn in_nat_mode_with_a_link_for_each_backend_requests_follow_weight_and_flip() {
    // A NAT address for each link and family.
    follows_weight_and_flip(Site::builder(Topology::TwoArm, Mode::Nat).backends(1, 1).start().expect("a site"));
}

#[test]
fn in_nat_mode_with_one_arm_requests_follow_weight_and_flip() {
    follows_weight_and_flip(Site::builder(Topology::OneArm, Mode::Nat).start().expect("a site"));
}

#[test]
fn in_dsr_mode_requests_follow_weight_and_flip() {
    follows_weight_and_flip(Site::builder(Topology::OneArm, Mode::Dsr).start().expect("a site"));
}

#[test]
fn behind_a_router_requests_are_answered_in_both_modes() {
    for mode in [Mode::Nat, Mode::Dsr] {
        let site = Site::builder(Topology::OneArm, mode).router().weight("50%").start().expect("a site");
        for family in FAMILIES {
            let summary = site.web_load(family, 500).expect("a load").summary();
            assert_eq!(summary.all_answered(), 500, "{mode}, {family:?}: {summary:?}");
            assert!(share::fits(summary.answered_by("canary"), 500, 0.5), "{mode}, {family:?}: {summary:?}");
        }
    }
}

#[test]
fn curl_and_wrk_get_every_answer_from_nginx_in_nat_mode() {
    nginx_answers(Site::builder(Topology::TwoArmSwitched, Mode::Nat).nginx().weight("20%").start().expect("a site"));
}

#[test]
fn curl_and_wrk_get_every_answer_from_nginx_in_dsr_mode() {
    nginx_answers(Site::builder(Topology::OneArm, Mode::Dsr).nginx().weight("20%").start().expect("a site"));
}

#[test]
fn a_new_agent_shows_what_it_runs() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("5%").start().expect("a site");
    let status = site.node.status().expect("a status");
    assert_eq!(status.agent.adoptions, 0);
    assert_eq!(status.agent.interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["front", "back"]);
    assert!(status.agent.alerts.is_empty(), "{:?}", status.agent.alerts);
    for service in &status.services {
        assert_eq!((service.weights.asked.to_string(), service.flip.is_none()), ("5%".into(), true));
        assert_eq!(service.weights.in_force, Some(service.weights.asked));
        assert!(service.alerts.is_empty(), "{:?}", service.alerts);
        let sizes = Cohort::ALL.map(|cohort| service.cohort(cohort).expect("it has both").backends.len());
        assert_eq!(sizes, [2, 1]);
    }
    let shown = site.node.run(&["status"]).expect("shown");
    assert!(shown.contains("web4") && shown.contains("10.72.100.1:8080"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}

fn follows_weight_and_flip(mut site: Site) {
    for family in FAMILIES {
        let (service, target) = (Kind::Web.service(family), site.target(Kind::Web, family));
        let version = || curl(site.lab.client(), target, "/", LIMIT).expect("an answer").version;
        let splitter = |arguments: &[&str]| site.node.run(&[&[arguments[0], &service], &arguments[1..]].concat()).expect("done");
        assert_eq!(version(), "stable");
        by_share(&site, family, 300, 0.0);
        splitter(&["weight", "100%"]);
        assert_eq!(version(), "canary");
        by_share(&site, family, 300, 1.0);
        splitter(&["flip"]);
        assert_eq!(version(), "stable");
        by_share(&site, family, 300, 0.0);
        splitter(&["unflip"]);
        by_share(&site, family, 300, 1.0);
        splitter(&["weight", "25%"]);
        by_share(&site, family, 1_500, 0.25);
    }
    // The agent stops, traffic flows on as it did.
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    by_share(&site, Family::V4, 500, 0.25);
}

fn by_share(site: &Site, family: Family, connections: u64, expected: f64) {
    let summary = site.web_load(family, connections).expect("a load").summary();
    assert_eq!(summary.all_answered(), connections, "{family:?}: {summary:?}\n{:?}", site.node.status());
    let canary = summary.answered_by("canary");
    assert!(share::fits(canary, connections, expected), "{family:?}: {canary} of {connections}, expected {expected}");
    // Every backend of a cohort that gets many has its part.
    for server in &site.servers {
        let part = if server.cohort == Cohort::Canary { expected } else { 1.0 - expected };
        let has_some = summary.answered.contains_key(&server.identity);
        assert!(has_some || part == 0.0, "{family:?}: nothing for {}: {summary:?}", server.identity);
    }
}

fn nginx_answers(site: Site) {
    for family in FAMILIES {
        let target = site.target(Kind::Web, family);
        let answer = curl(site.lab.client(), target, "/1M", LIMIT).expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (200, 1 << 20), "{family:?}");
        for close in [false, true] {
            let load = WrkLoad { target, connections: 20, threads: 1, duration: Duration::from_secs(1), close };
            let report = wrk(site.lab.client(), load, "/").expect("a load");
            assert!(report.errors() == 0 && report.requests > 300, "{family:?}, close {close}: {report:?}");
        }
        let summary = http::Summary::of(&site.web_load(family, 1_000).expect("a load").records);
        assert_eq!(summary.all_answered(), 1_000, "{family:?}: {summary:?}");
        assert!(share::fits(summary.answered_by("canary"), 1_000, 0.2), "{family:?}: {summary:?}");
    }
}
