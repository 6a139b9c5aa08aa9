//! The seeds, by which whoever knows them could aim at the canary: on disk and in the kernel for the agent alone, and in nothing that it says.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use splitter_tests::{
    lab::Topology,
    node::{Family, Kind, Site, read},
};
use splitter_user::model::{Mode, Seed};

const GIVEN: &str = "5eed5eed0123456789abcdef5eed5eed";

#[test]
fn no_seed_is_in_anything_that_the_agent_says() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").prepare().expect("a site");
    // One service has its seed from the configuration, the other one from the agent.
    site.services[0].more.push_str(&format!("seed = \"{GIVEN}\"\n"));
    site.write_config().expect("written");
    let mut command = site.node.agent_command();
    command.env("SPLITTER_LOG", "trace");
    site.node.launch_as(command).expect("launched");
    site.node.wait_ready().expect("ready");
    site.web_load(Family::V4, 50).expect("a load");

    let service = Kind::Web.service(Family::V4);
    let mut said = String::new();
    for arguments in [
        &["status"][..],
        &["status", &service],
        &["backend", "list", &service],
        &["network", "list", &service],
        &["explain", &service, "--from", "198.51.100.7:4000"],
        &["weight", &service, "41%"],
        &["flip", &service],
        &["unflip", &service],
        &["reload"],
        &["doctor"],
        &["events"],
        &["history"],
    ] {
        for format in [&[][..], &["-o", "json"]] {
            said +=
                &site.node.cli(&[arguments, format].concat()).map(|outcome| outcome.stdout + &outcome.stderr).expect("it ran");
        }
    }
    let config = site.node.config().display().to_string();
    said += &site.node.run(&["check", &config]).expect("it is right");
    // A mistake in the seed's line is answered without the seed.
    let wrong = read(&site.node.config()).expect("written").replace(GIVEN, &format!("{GIVEN}0"));
    site.node.write("wrong.toml", &wrong).expect("written");
    let outcome = site.node.cli(&["check", &site.node.path("wrong.toml").display().to_string()]).expect("it ran");
    assert!(outcome.code != Some(0) && outcome.stderr.contains("seed"), "{outcome:?}");
    said += &outcome.stderr;
    said += &site.node.http("/metrics").expect("served").1;
    let log = site.node.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "everything is logged: {log}");
    said += &log;

    let state = read(&site.node.state().join("state.json")).expect("kept");
    let made: Vec<&str> =
        state.split('"').filter(|word| word.len() == 32 && word.chars().all(|c| c.is_ascii_hexdigit())).collect();
    assert_eq!(made.len(), 1, "the agent has made the other service's");
    for seed in [GIVEN, made[0]] {
        let seed = Seed::try_from(seed.to_owned()).expect("a seed");
        for half in seed.0.into_iter().chain(seed.key()) {
            for written in [format!("{half:016x}"), format!("{half:016X}"), half.to_string(), half.cast_signed().to_string()] {
                assert!(!said.contains(&written), "half of a seed is in what was said, as {written}");
            }
        }
    }
}

#[test]
fn nobody_else_on_the_node_can_read_what_the_agent_keeps() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).prepare().expect("a site");
    // As a careless umask has it.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(splitter_tests::node::binary().expect("built"));
    command.args(["agent", "--config"]).arg(site.node.config()).env_remove("SPLITTER_SOCKET");
    site.node.launch_as(command).expect("launched");
    site.node.wait_ready().expect("ready");
    let mode = |path: &Path| fs::metadata(path).map(|found| found.permissions().mode() & 0o777).expect("it is there");
    assert_eq!(mode(&site.node.socket()), 0o660);
    assert_eq!(mode(&site.node.state()), 0o700);
    let mut kept: Vec<_> = fs::read_dir(site.node.state()).expect("read").map(|entry| entry.expect("read").path()).collect();
    kept.sort();
    assert!(kept.len() > 1, "{kept:?}");
    for file in &kept {
        assert_eq!(mode(file) & 0o077, 0, "{} is for others as well", file.display());
    }
    let pins = site.node.pins();
    let content = pins.content().expect("readable");
    assert!(content.iter().any(|name| name == "maps/SERVICES") && content.len() > 20, "{content:?}");
    for name in content {
        let found = fs::metadata(pins.path().join(&name)).expect("it is there");
        assert_eq!((found.uid(), found.mode() & 0o077), (0, 0), "{name} is for others as well");
    }
    assert_eq!(mode(pins.path()), 0o700, "nor is the directory");
}
