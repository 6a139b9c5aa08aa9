//! An agent that can't start says why, by its own message and exit code, and leaves what ran before as it was.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use splitter_tests::{
    lab::{Topology, Verdict, attach},
    node::{AGENT_LIMIT, Family, METRICS, Outcome, Site},
};
use splitter_user::{
    api::wire::{BackendState, CheckResult, DoctorReport, FlipCause},
    model::{Cohort, Mode},
    store::EventKind,
};

const FAILED: i32 = 1;
const NOT_PERMITTED: i32 = 4;
const CONFLICT: i32 = 6;
const NOBODY: &str = "65534";

#[test]
fn an_interface_that_does_not_exist_is_named_and_nothing_is_left_behind() {
    let site = prepared();
    change(&site, "[\"front\", ", "[\"front\", \"frnot\", ");
    refused(&site, FAILED, "there is no interface `frnot`");
    assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new());
}

#[test]
fn without_privileges_the_agent_says_so() {
    let site = prepared();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("opened");
    open(site.node.config().parent().expect("it is in a directory"), 0o777);
    let binary = site.node.path("splitter");
    fs::copy(splitter_tests::node::binary().expect("built"), &binary).expect("copied");
    let as_nobody = |site: &Site| {
        // The namespace is entered before the privileges go, which a command's own `uid` would turn round.
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&binary);
        command.args(["agent", "--config"]).arg(site.node.config()).env("NO_COLOR", "1");
        site.node.finish(command, AGENT_LIMIT).expect("it ended")
    };
    let outcome = as_nobody(&site);
    fails(&outcome, NOT_PERMITTED, "not permitted");
    assert!(outcome.stderr.contains("CAP_BPF") && outcome.stderr.contains("CAP_NET_ADMIN"), "{outcome:?}");
    assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new());
}

#[test]
fn an_interface_that_somebody_else_has_is_left_to_them() {
    let mut site = prepared();
    let theirs = attach(site.node.namespace(), "back", Verdict::Pass).expect("attached");
    refused(&site, CONFLICT, "interface `back` has an XDP program of somebody else");
    assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new(), "what was made is taken away again");
    drop(theirs);
    site.node.start().expect("now it starts");
    still_serves(&site);
}

#[test]
fn a_second_agent_is_refused_whatever_they_share() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    let right = fs::read_to_string(site.node.config()).expect("written");
    let sockets = [site.node.socket(), site.node.path("other.sock")].map(|path| path.display().to_string());
    let states = [site.node.state(), site.node.path("other")].map(|path| path.display().to_string());
    let pid = site.node.status().expect("a status").agent.pid;
    let other_state = right.replace(&states[0], &states[1]);
    let other_socket = other_state.replace(&sockets[0], &sockets[1]);
    let other_metrics = other_socket.replace("[tables]", "metrics_address = \"off\"\n[tables]");
    for (config, message) in [
        (&right, format!("another agent (pid {pid}) works with {}", states[0])),
        (&other_state, format!("another agent (pid {pid}) runs with the socket {}", sockets[0])),
        (&other_socket, METRICS.to_string()),
        (&other_metrics, "another agent".to_owned()),
    ] {
        site.node.write_config(config).expect("written");
        refused(&site, CONFLICT, &message);
        let status = site.node.status().expect("the first one answers");
        assert_eq!((status.agent.pid, status.agent.adoptions), (pid, 0), "{message}");
    }
    still_serves(&site);
}

#[test]
fn a_path_that_is_not_a_socket_is_not_removed() {
    let site = prepared();
    fs::write(site.node.socket(), "precious").expect("written");
    refused(&site, CONFLICT, "exists and is not a socket");
    assert_eq!(fs::read_to_string(site.node.socket()).expect("still there"), "precious");
}

#[test]
fn a_metrics_address_in_use_is_named() {
    let mut site = prepared();
    let taken = site.node.namespace().enter(|| std::net::TcpListener::bind(METRICS)).expect("entered").expect("bound");
    refused(&site, CONFLICT, &METRICS.to_string());
    drop(taken);
    site.node.start().expect("now it starts");
}

#[test]
fn a_data_plane_of_another_version_is_left_running() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    site.node.stop().expect("it stops");
    let pinned = site.node.pins().content().expect("readable");
    let identity = site.node.pins().path().join("maps/IDENTITY");
    let map = Map::Array(MapData::from_pin(&identity).expect("pinned"));
    let mut map = Array::<_, [u32; 2]>::try_from(map).expect("an array");
    let [version, adoptions] = map.get(&0, 0).expect("read");
    map.set(0, [version + 1, adoptions], 0).expect("written");
    let message = format!("has ABI version {}, and this agent needs {version}", version + 1);
    refused(&site, CONFLICT, &message);
    assert_eq!(site.node.pins().content().expect("readable"), pinned);
    still_serves(&site);
    map.set(0, [version, adoptions], 0).expect("written");
    site.node.start().expect("it takes over");
    assert_eq!(site.node.status().expect("a status").agent.adoptions, u64::from(adoptions) + 1);
    still_serves(&site);
}

#[test]
fn a_damaged_state_holds_every_service_on_stable_and_says_so() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    site.node.kill();
    let state = site.node.state().join("state.json");
    fs::write(&state, "{ \"version\": 1, ").expect("damaged");
    site.node.start().expect("it takes over");
    for service in site.node.status().expect("a status").services {
        assert_eq!(service.flip.map(|flip| flip.cause), Some(FlipCause::StateLost), "{}", service.name);
    }
    let kept = |kind: &EventKind| matches!(kind, EventKind::StateDamaged { kept_as, .. } if kept_as.exists());
    let events = site.node.events().expect("told");
    assert!(events.iter().any(|event| kept(&event.kind)), "{events:?}");
    assert_eq!(site.web_load(Family::V4, 200).expect("a load").summary().answered_by("stable"), 200);
    site.node.run(&["unflip", "web4"]).expect("somebody decides");
    still_serves(&site);
}

#[test]
fn a_state_that_cannot_be_read_is_named_and_traffic_flows_on() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    site.node.kill();
    let state = site.node.state().join("state.json");
    fs::remove_file(&state).expect("removed");
    fs::create_dir(&state).expect("a directory in its place");
    refused(&site, FAILED, &state.display().to_string());
    still_serves(&site);
}

#[test]
fn a_full_disk_refuses_a_weight_but_never_a_flip() {
    let mut site = prepared();
    fs::create_dir(site.node.state()).expect("made");
    // The agent alone sees the small disk.
    let mut command = std::process::Command::new("unshare");
    let script = "mount -t tmpfs -o size=128k none \"$1\" && exec \"$2\" agent --config \"$3\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(site.node.state());
    command.arg(splitter_tests::node::binary().expect("built")).arg(site.node.config()).env("NO_COLOR", "1");
    site.node.launch_as(command).expect("launched");
    site.node.wait_ready().expect("it starts");
    site.node.run(&["weight", "web4", "40%"]).expect("weighted");

    let pid = site.node.agent().id().expect("it runs");
    let filler = format!("/proc/{pid}/root{}/filler", site.node.state().display());
    // Whole pages until no more fit.
    let filled = fs::write(&filler, vec![0; 256 << 10]).expect_err("it is small");
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let outcome = site.node.cli(&["weight", "web4", "70%"]).expect("it ran");
    fails(&outcome, FAILED, "nothing was changed, as it could not be kept");
    assert_eq!(site.node.service("web4").expect("a status").weights.asked.to_string(), "40%");
    still_serves(&site);
    site.node.run(&["flip", "web4"]).expect("a flip must not depend on a disk");
    assert_eq!(site.web_load(Family::V4, 200).expect("a load").summary().answered_by("stable"), 200);
    let status = site.node.status().expect("a status");
    assert!(!status.agent.alerts.is_empty(), "somebody should look at the disk: {status:?}");

    fs::remove_file(&filler).expect("room again");
    site.node.wait_until("the state is saved", |status| status.agent.alerts.is_empty()).expect("saved by itself");
    site.node.run(&["unflip", "web4"]).expect("unflipped");
    still_serves(&site);
}

#[test]
fn what_a_dead_agent_left_half_made_is_cleared_away() {
    let mut site = prepared();
    let pins = site.node.pins().path().to_owned();
    fs::create_dir_all(pins.join("maps-half-made")).expect("made");
    fs::create_dir_all(pins.join("links")).expect("made");
    site.node.start().expect("it starts");
    assert!(!pins.join("maps-half-made").exists());
    still_serves(&site);
    // A link is lost: the next agent attaches there anew, on the same maps.
    site.node.kill();
    let link = fs::read_dir(pins.join("links")).expect("read").next().expect("one").expect("read").path();
    fs::remove_file(&link).expect("removed");
    site.node.start().expect("it takes over");
    assert!(link.exists());
    assert_eq!(site.node.status().expect("a status").agent.adoptions, 1);
    still_serves(&site);
    // A map is lost: what is left can't be taken over, and is said to be so; what it still does, it does.
    site.node.kill();
    fs::remove_file(pins.join("maps/IDENTITY")).expect("removed");
    refused(&site, FAILED, "can't be adopted");
    still_serves(&site);
}

#[test]
fn a_backend_without_a_route_keeps_nobody_from_starting_and_is_told_of() {
    let mut site = prepared();
    let nowhere = "203.0.113.9:80".parse().expect("an address");
    site.services[0].backends.push((Cohort::Stable, nowhere));
    site.write_config().expect("written");
    site.node.start_only().expect("it starts");
    let lost = |site: &Site| {
        let service = site.node.service("web4").expect("a status");
        let stable = service.cohort(Cohort::Stable).expect("it has one").clone();
        (service.alerts, stable.backends.into_iter().find(|backend| backend.address == nowhere).map(|backend| backend.state))
    };
    let (alerts, state) = lost(&site);
    assert_eq!(state, Some(BackendState::Unreachable));
    assert!(alerts.iter().any(|alert| alert.contains("203.0.113.9")), "{alerts:?}");
    let doctor = site.node.cli(&["doctor", "-o", "json"]).expect("it ran");
    assert_eq!(doctor.code, Some(FAILED), "{doctor:?}");
    let report: DoctorReport = serde_json::from_str(&doctor.stdout).expect("a report");
    let failed: Vec<_> = report.checks.iter().filter(|check| check.result == CheckResult::Fail).collect();
    assert!(failed.iter().all(|check| format!("{check:?}").contains("203.0.113.9")) && !failed.is_empty(), "{failed:?}");
    site.node
        .wait_until("the others have a way", |status| {
            let backends = status.services.iter().flat_map(|service| &service.cohorts).flat_map(|cohort| &cohort.backends);
            backends.filter(|backend| backend.state == BackendState::Unreachable).count() == 1
        })
        .expect("they have");
    still_serves(&site);
    // The route comes, and with it the neighbour.
    site.node
        .namespace()
        .ip(&["route add 203.0.113.9/32 dev back", "neigh add 203.0.113.9 lladdr 02:00:00:00:00:99 dev back"])
        .expect("a route");
    site.node.wait_until("it is in use", |_| lost(&site).1 == Some(BackendState::Active)).expect("it is");
}

#[test]
fn detached_the_node_is_as_if_nothing_had_been() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    site.node.run(&["detach"]).expect("detached");
    assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new());
    let outcome = site.node.cli(&["weight", "web4", "5%"]).expect("it ran");
    fails(&outcome, FAILED, "detached");
    site.node.stop().expect("it stops");
    site.node.start().expect("a new one attaches again");
    still_serves(&site);
    site.node.kill();
    // `--detach` is a choice at the start.
    let mut command = site.node.agent_command();
    command.arg("--detach");
    site.node.launch_as(command).expect("launched");
    site.node.wait_ready().expect("ready");
    let begun = Instant::now();
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new());
}

fn prepared() -> Site {
    Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").prepare().expect("a site")
}

fn change(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(site.node.config()).expect("written");
    let changed = text.replacen(from, to, 1);
    assert_ne!(text, changed);
    site.node.write_config(&changed).expect("written");
}

fn refused(site: &Site, code: i32, message: &str) {
    fails(&site.node.agent_fails().expect("it ends"), code, message);
}

fn fails(outcome: &Outcome, code: i32, message: &str) {
    assert!(outcome.stderr.contains(message), "{message:?} is not in {outcome:?}");
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert!(outcome.stderr.contains("error: "), "{outcome:?}");
}

fn still_serves(site: &Site) {
    let summary = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(summary.all_answered(), 200, "{summary:?}");
    assert!((40..=120).contains(&summary.answered_by("canary")), "{summary:?}");
}
