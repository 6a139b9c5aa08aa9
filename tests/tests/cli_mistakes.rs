//! Wrong input through the real binary: each has its own message and exit code, and changes nothing.

use splitter_tests::{
    lab::Topology,
    node::{Family, Kind, Outcome, Site},
};
use splitter_user::model::Mode;

const USAGE: i32 = 2;
const NO_AGENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const CONFLICT: i32 = 6;

#[test]
fn a_wrong_configuration_is_refused_by_check_and_by_reload_and_changes_nothing() {
    let mut site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    let right = std::fs::read_to_string(site.node.config()).expect("written");
    let before = standing(&site);
    let web4 = site.target(Kind::Web, Family::V4);
    let (stable, canary) = (site.server("stable1"), site.server("canary1"));
    let (stable4, canary4) = (stable.backend(Kind::Web, Family::V4), canary.backend(Kind::Web, Family::V4));
    let canary6 = canary.backend(Kind::Web, Family::V6);
    let quoted = |address: &dyn std::fmt::Display| format!("\"{address}\"");
    let both = "always_canary = [\"10.9.0.0/16\"]\nnever_canary = [\"10.9.0.0/16\"]\nweight = \"40%\"";
    let twice = format!(
        "[[service]]\nname = \"again\"\nprotocol = \"tcp\"\naddress = \"{web4}\"\nstable = [\"{stable4}\"]\n[[service]]\nname = \"web4\""
    );
    let rows: [(&str, &str, String, String); 12] = [
        (
            "overlapping services",
            "[[service]]\nname = \"web4\"",
            twice,
            format!("{web4} is the address of service \"again\" already"),
        ),
        (
            "families mixed",
            &quoted(&canary4),
            quoted(&canary6),
            format!("{canary6} is IPv6, but the service's address {web4} is IPv4"),
        ),
        (
            "zero weight",
            &quoted(&canary4),
            format!("{{ address = \"{canary4}\", weight = 0 }}"),
            "backend weight 0 is out of range".into(),
        ),
        ("a prefix in both lists", "weight = \"40%\"", both.into(), "10.9.0.0/16 is in always_canary and in never_canary".into()),
        ("too much", "\"40%\"", quoted(&"101%"), "weight `101%` is out of range: use 0% to 100%".into()),
        ("too little", "\"40%\"", quoted(&"-1%"), "weight `-1%` is out of range: use 0% to 100%".into()),
        ("no number", "\"40%\"", quoted(&"abc"), "`abc` is not a weight".into()),
        ("an unknown key", "weight =", "wieght =".into(), "unknown key \"wieght\", did you mean \"weight\"?".into()),
        ("an unknown table", "[tables]", "[table]".into(), "did you mean \"tables\"?".into()),
        ("no stable backend", "stable = [", "stable = []\nalways_canary = []\n#".into(), "there is no stable backend".into()),
        ("in both cohorts", &quoted(&canary4), quoted(&stable4), format!("{stable4} is stable backend 1 already")),
        ("not TOML", "[tables]", "[tables".into(), "splitter.toml:".into()),
    ];
    for (what, from, to, message) in rows {
        let wrong = right.replacen(from, &to, 1);
        assert_ne!(wrong, right, "{what}");
        site.node.write_config(&wrong).expect("written");
        let config = site.node.config();
        for outcome in [site.node.cli(&["check", config.to_str().expect("UTF-8")]), site.node.cli(&["reload"])] {
            fails(&outcome.expect("it ran"), USAGE, &message, what);
        }
        site.node.signal(nix::sys::signal::Signal::SIGHUP).expect("told");
        assert_eq!(standing(&site), before, "{what}");
        // An agent that starts anew with it refuses as well, before it touches anything.
        fails(&site.node.agent_fails().expect("it ran"), USAGE, &message, what);
        assert_eq!(standing(&site), before, "{what}");
    }
    let reload = site.node.status().expect("a status").agent.last_reload.expect("there was one");
    assert!(!reload.ok, "{reload:?}");
    still_serves(&site);
    site.node.write_config(&right).expect("written");
    site.node.run(&["reload"]).expect("the right one is taken");
    assert_eq!(standing(&site), before);
    site.node.stop().expect("it stops");
}

#[test]
fn what_is_fixed_while_the_agent_runs_is_named_and_nothing_is_changed() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").start().expect("a site");
    let right = std::fs::read_to_string(site.node.config()).expect("written");
    let before = standing(&site);
    for (from, to, message) in [
        ("\"front\", ", "", "[agent] interfaces cannot change while the agent runs"),
        ("connections = 65536", "connections = 32768", "[tables] cannot change while the agent runs"),
    ] {
        // The weight differs too, and is not taken alone.
        let changed = right.replacen(from, to, 1).replace("40%", "60%");
        assert_ne!(changed, right);
        site.node.write_config(&changed).expect("written");
        fails(&site.node.cli(&["reload"]).expect("it ran"), CONFLICT, message, message);
        assert_eq!(standing(&site), before, "{message}");
    }
}

#[test]
fn a_wrong_command_has_its_own_message_and_changes_nothing() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).weight("40%").spare(1).start().expect("a site");
    let before = standing(&site);
    let backend = |name: &str, family| site.server(name).backend(Kind::Web, family).to_string();
    let (stable, canary) = (backend("stable1", Family::V4), backend("canary1", Family::V4));
    let other_family = backend("stable3", Family::V6);
    for (arguments, code, message) in [
        (&["weight", "web4", "101%"][..], USAGE, "weight `101%` is out of range: use 0% to 100%"),
        (&["weight", "web4", "-1%"], USAGE, "weight `-1%` is out of range: use 0% to 100%"),
        (&["weight", "web4", "abc"], USAGE, "`abc` is not a weight"),
        (&["weight", "web4", "5"], USAGE, "`5` is not a weight"),
        (&["weight", "wob4", "5%"], NOT_FOUND, "wob4"),
        (&["weight", "web 4", "5%"], USAGE, "`web 4` is not a service name"),
        (&["unflip", "web4"], CONFLICT, "not flipped"),
        (&["flip", "web4", "--existing", "drop"], USAGE, "invalid value 'drop'"),
        (&["backend", "add", "web4", "canary", &canary], CONFLICT, &canary),
        (&["backend", "add", "web4", "canary", &other_family], USAGE, "is IPv6"),
        (&["backend", "add", "web4", "canary", "203.0.113.9:80"], USAGE, "no route to 203.0.113.9"),
        (&["backend", "add", "web4", "canary", "10.72.100.9"], USAGE, "10.72.100.9"),
        (&["backend", "weight", "web4", &stable, "0"], USAGE, "backend weight 0 is out of range"),
        (&["backend", "remove", "web4", "10.72.100.9:80"], NOT_FOUND, "10.72.100.9:80"),
        (&["backend", "undrain", "web4", &stable], CONFLICT, "not draining"),
        (&["network", "add", "web4", "always-canary", "10.9.0.1/16"], USAGE, "10.9.0.0/16"),
        (&["network", "add", "web4", "always-canary", "fd00::/8"], USAGE, "is IPv6"),
        (&["network", "remove", "web4", "always-canary", "10.9.0.0/16"], NOT_FOUND, "10.9.0.0/16"),
        (&["explain", "web4", "--from", "10.70.1.1"], USAGE, "port"),
        (&["explain", "web4", "--from", "[fd70::1]:80"], USAGE, "of different families"),
        (&["status", "wob4"], NOT_FOUND, "wob4"),
        (&["stauts"], USAGE, "status"),
    ] {
        let what = arguments.join(" ");
        fails(&site.node.cli(arguments).expect("it ran"), code, message, &what);
        assert_eq!(standing(&site), before, "{what}");
    }
    // A change of several prefixes is refused whole.
    site.node.run(&["network", "add", "web4", "never-canary", "10.9.0.0/16"]).expect("added");
    let lists = |site: &Site| site.node.run(&["network", "list", "web4", "-o", "json"]).expect("listed");
    let listed = lists(&site);
    let outcome = site.node.cli(&["network", "add", "web4", "always-canary", "10.8.0.0/16", "10.9.0.0/16"]).expect("it ran");
    fails(&outcome, CONFLICT, "10.9.0.0/16", "a prefix of the other list");
    assert_eq!(lists(&site), listed);
    // The last stable backend that is in use stays.
    site.node.run(&["backend", "remove", "web4", &backend("stable2", Family::V4)]).expect("removed");
    let outcome = site.node.cli(&["backend", "remove", "web4", &stable]).expect("it ran");
    assert!(matches!(outcome.code, Some(USAGE | CONFLICT)) && outcome.stderr.contains("stable"), "{outcome:?}");
    still_serves(&site);
}

#[test]
fn without_an_agent_commands_say_where_they_looked_and_what_to_do() {
    let site = Site::builder(Topology::TwoArmSwitched, Mode::Nat).prepare().expect("a site");
    for arguments in [&["status"][..], &["weight", "web4", "5%"], &["events"], &["trace", "web4"], &["reload"]] {
        let outcome = site.node.cli(arguments).expect("it ran");
        fails(&outcome, NO_AGENT, &site.node.socket().display().to_string(), &arguments.join(" "));
        assert!(outcome.stderr.contains("hint:"), "{outcome:?}");
    }
    let config = site.node.config();
    let told = site.node.run(&["check", config.to_str().expect("UTF-8")]).expect("it is right");
    assert!(told.contains("ok: 2 services, 6 backends"), "{told}");
}

fn fails(outcome: &Outcome, code: i32, message: &str, what: &str) {
    assert_eq!(outcome.code, Some(code), "{what}: {outcome:?}");
    assert!(
        outcome.stderr.contains(message) && outcome.stderr.starts_with("error:"),
        "{what}: {message:?} is not in {outcome:?}"
    );
    assert!(outcome.stdout.is_empty(), "{what}: {outcome:?}");
}

/// All that a mistake could have changed.
fn standing(site: &Site) -> String {
    let status = site.node.status().expect("a status");
    let mut text = format!("{:?} {:?}\n", status.agent.interfaces, site.node.pins().content().expect("readable"));
    for service in status.services {
        text += &format!("{} {} {:?} {:?} {:?}\n", service.name, service.address, service.weights, service.flip, service.mode);
        for backend in service.cohorts.into_iter().flat_map(|cohort| cohort.backends) {
            text += &format!("  {} {:?} {:?} {:?}\n", backend.address, backend.weight, backend.state, backend.way);
        }
    }
    text
}

fn still_serves(site: &Site) {
    let summary = site.web_load(Family::V4, 200).expect("a load").summary();
    assert_eq!(summary.all_answered(), 200, "{summary:?}");
    assert!((40..=120).contains(&summary.answered_by("canary")), "{summary:?}");
}
