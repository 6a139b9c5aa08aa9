//! The agent as an ordinary user, with the capabilities of the unit that is shipped and no other.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use splitter_tests::{
    lab::Topology,
    node::{AGENT_LIMIT, Family, Kind, Outcome, Site, binary, read},
};
use splitter_user::{api::wire::BackendState, model::Mode};

/// Nobody, in no group but their own.
const USER: u32 = 65_534;
/// A group that Debian, and nearly every other system, has.
const GROUP: (&str, u32) = ("daemon", 1);
const NOT_PERMITTED: i32 = 4;
const REQUESTS: u64 = 200;

#[test]
fn as_an_ordinary_user_with_the_units_capabilities_it_splits_flips_and_takes_over() {
    let capabilities = of_the_unit();
    let mut site = prepared();
    let started = |site: &mut Site| {
        let command = as_user(site, &capabilities, None);
        site.node.launch_as(command).expect("launched");
        site.node.wait_ready().expect("ready");
        let ways = "every backend has a way";
        site.node
            .wait_until(ways, |status| {
                let backends = status.services.iter().flat_map(|service| &service.cohorts).flat_map(|cohort| &cohort.backends);
                backends.into_iter().all(|backend| backend.state != BackendState::Unreachable)
            })
            .expect(ways)
            .agent
            .pid
    };
    let pid = started(&mut site);
    let status = read(&PathBuf::from(format!("/proc/{pid}/status"))).expect("it runs");
    for line in ["Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "CapEff:\t000000c000001000", "CapBnd:\t000000c000001000"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let canary = |site: &Site| {
        let summary = site.web_load(Family::V4, REQUESTS).expect("a load").summary();
        assert_eq!(summary.all_answered(), REQUESTS, "{summary:?}");
        summary.answered_by("canary")
    };
    let service = Kind::Web.service(Family::V4);
    assert!((40..=120).contains(&canary(&site)), "a share of 40%");
    site.node.run(&["flip", &service, "--reason", "a drill"]).expect("flipped");
    assert_eq!(canary(&site), 0);
    site.node.kill();
    assert_eq!(canary(&site), 0, "without an agent");
    started(&mut site);
    assert_eq!(site.node.status().expect("a status").agent.adoptions, 1, "it has taken over what it left");
    assert_eq!(canary(&site), 0, "and knows of the flip");
    site.node.run(&["unflip", &service]).expect("unflipped");
    assert!((40..=120).contains(&canary(&site)));
    site.node.run(&["doctor"]).expect("nothing is amiss");
    assert_eq!(site.node.stop().expect("it stops"), Some(0));
}

#[test]
fn each_capability_that_is_missing_is_named_and_nothing_is_left_behind() {
    let capabilities = of_the_unit();
    let site = prepared();
    for missing in &capabilities {
        let others: Vec<String> = capabilities.iter().filter(|name| *name != missing).cloned().collect();
        let outcome = ends(&site, &others, None);
        let message = format!("{missing} is missing");
        assert!(outcome.stderr.contains(&message), "{message:?} is not in {outcome:?}");
        assert_eq!(outcome.code, Some(NOT_PERMITTED), "{outcome:?}");
        assert_eq!(site.node.pins().content().expect("readable"), Vec::<String>::new(), "{missing}");
    }
}

#[test]
fn a_pin_directory_that_is_somebody_elses_is_named_with_what_makes_it_ones_own() {
    let site = prepared();
    chown(site.node.pins().path(), Some(0), Some(0)).expect("given back");
    let outcome = ends(&site, &of_the_unit(), None);
    let pins = site.node.pins().path().display().to_string();
    let told = outcome.stderr.contains(&pins) && outcome.stderr.contains("install -d -m 0700 -o 65534");
    assert!(told, "{outcome:?}");
    assert_eq!(outcome.code, Some(NOT_PERMITTED), "{outcome:?}");
}

#[test]
fn the_socket_goes_to_a_group_that_the_user_is_in_and_to_no_other() {
    let mut site = prepared();
    let text = read(&site.node.config()).expect("written");
    let (name, number) = GROUP;
    site.node.write_config(&text.replacen("[agent]\n", &format!("[agent]\nsocket_group = \"{name}\"\n"), 1)).expect("written");
    let outcome = ends(&site, &of_the_unit(), None);
    assert!(outcome.stderr.contains(&format!("not in the group `{name}`")), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("SupplementaryGroups={name}")), "{outcome:?}");
    assert_eq!(outcome.code, Some(NOT_PERMITTED), "{outcome:?}");

    let command = as_user(&site, &of_the_unit(), Some(number));
    site.node.launch_as(command).expect("launched");
    site.node.wait_ready().expect("ready");
    let socket = fs::metadata(site.node.socket()).expect("it is there");
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o7777), (USER, number, 0o660));
}

/// A node whose files the user may use: what the unit's directories, and the line that runs before the agent, do.
fn prepared() -> Site {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").prepare().expect("a site");
    let directory = site.node.config().parent().expect("it is in a directory").to_owned();
    fs::copy(binary().expect("built"), site.node.path("splitter")).expect("copied");
    fs::create_dir(site.node.pins().path()).expect("made");
    // As the unit does before it: systemd mounts it for root alone.
    let bpf_fs = site.node.pins().path().parent().expect("it is on a BPF file system");
    let mode = fs::metadata(bpf_fs).expect("it is there").permissions().mode();
    fs::set_permissions(bpf_fs, Permissions::from_mode(mode | 0o001)).expect("passable");
    for path in [&directory, site.node.pins().path()] {
        fs::set_permissions(path, Permissions::from_mode(0o700)).expect("closed to others");
        chown(path, Some(USER), Some(USER)).expect("given to the user");
    }
    site
}

/// The agent's command, as the user, with these capabilities alone.
fn as_user(site: &Site, capabilities: &[String], group: Option<u32>) -> Command {
    let set = capabilities
        .iter()
        .fold("-all".to_owned(), |set, name| set + ",+" + &name.trim_start_matches("CAP_").to_ascii_lowercase());
    let user = USER.to_string();
    // The namespace is entered before the privileges go, which a command's own `uid` would turn round.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user]);
    match group {
        Some(group) => command.args(["--groups", &group.to_string()]),
        None => command.arg("--clear-groups"),
    };
    command.args(["--inh-caps", &set, "--ambient-caps", &set, "--bounding-set", &set, "--no-new-privs"]);
    command.arg(site.node.path("splitter")).args(["agent", "--config"]).arg(site.node.config());
    command.env("NO_COLOR", "1").env_remove("SPLITTER_SOCKET").env_remove("RUST_LOG");
    command
}

fn ends(site: &Site, capabilities: &[String], group: Option<u32>) -> Outcome {
    site.node.finish(as_user(site, capabilities, group), AGENT_LIMIT).expect("it ended")
}

/// What the unit that is shipped gives the agent.
fn of_the_unit() -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/splitter.service");
    let unit = read(&unit).expect("it is shipped");
    let of = |key: &str| -> Vec<String> {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in the unit"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let ambient = of("AmbientCapabilities=");
    assert_eq!(ambient, of("CapabilityBoundingSet="), "what it has is all that it can have");
    assert_eq!(ambient.len(), 3, "{ambient:?}");
    ambient
}
