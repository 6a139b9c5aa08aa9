//! Each mistake has its own message, at its own place.

mod mistakes;
mod rollout;

use std::{net::SocketAddr, path::Path, time::Duration};

use super::{Config, ConfigError, Resume, schema, schema::Presence};
use crate::model::{Affinity, Breach, Breaker, Cohort, Existing, Factor, Mode, OnLeaseExpiry, Plan, Protocol, Timeouts, Weight};

#[test]
fn what_dsr_and_udp_cannot_do_is_said() {
    let breach = "[service.breach]\nrefused = \"5%\"\ntimeout = \"5%\"\n";
    let dsr = service().replace(r#"mode = "nat""#, r#"mode = "dsr""#).replace(":8080", ":80") + breach;
    assert_eq!(
        problems(&dsr),
        [
            r#"splitter.toml:13:11: service "checkout", breach.refused: in dsr mode refusals go straight to the client, so they aren't seen: limit timeout instead"#
        ]
    );
    let udp = service().replace(r#""tcp""#, r#""udp""#) + &breach.replace("refused", "reset");
    assert_eq!(
        problems(&udp),
        [
            r#"splitter.toml:13:9: service "checkout", breach.reset: UDP has no RST, so there is nothing to count: limit timeout instead"#
        ]
    );
    let refused = service().replace(r#""tcp""#, r#""udp""#) + "[service.breach]\nrefused = \"5%\"\n";
    assert!(parse(&refused).is_ok(), "an ICMP error refuses an exchange");
    let port = service().replace(r#"mode = "nat""#, r#"mode = "dsr""#).replace("10.0.1.1:8080", "10.0.1.1:80");
    assert_eq!(
        problems(&port),
        [
            r#"splitter.toml:10:11: service "checkout", canary backend 1: 10.0.1.9:8080 has another port than the service: dsr rewrites no ports, so the backend must listen on 80"#
        ]
    );
}

#[test]
fn a_breaker_limits_what_the_data_plane_sees() {
    let breaker = "[service.breaker]\nrefused = \"5%\"\ntimeout = \"5%\"\nreset = \"5%\"\nretransmit = \"5%\"\n";
    let place = r#"splitter.toml:12:1: service "checkout", breaker"#;
    let tcp = service() + breaker;
    assert!(parse(&tcp).is_ok(), "tcp in nat shows everything");
    let dsr = |text: &str| text.replace(r#"mode = "nat""#, r#"mode = "dsr""#).replace(":8080", ":80");
    let udp = |text: &str| text.replace(r#""tcp""#, r#""udp""#);
    assert_eq!(
        problems(&dsr(&tcp)),
        [
            r#"splitter.toml:13:11: service "checkout", breaker.refused: in dsr mode refusals go straight to the client, so they aren't seen: limit timeout instead"#,
            r#"splitter.toml:15:9: service "checkout", breaker.reset: in dsr mode what the backend sends goes straight to the client, so its resets aren't seen: limit timeout or retransmit instead"#,
        ]
    );
    assert_eq!(
        problems(&udp(&tcp)),
        [
            r#"splitter.toml:15:9: service "checkout", breaker.reset: UDP has no RST, so there is nothing to count: limit timeout instead"#,
            r#"splitter.toml:16:14: service "checkout", breaker.retransmit: UDP has no SYN to be sent again: limit timeout instead"#,
        ]
    );
    let expected = format!(
        "{place}: of UDP in dsr mode nothing is seen but the client's packets, so nothing can be limited: use mode nat, or leave the section out"
    );
    assert_eq!(problems(&udp(&dsr(&tcp))), [expected], "and not each limit as well");
}

#[test]
fn a_lease_is_at_least_three_samples() {
    let with = |agent: &str| format!("[agent]\ninterfaces = [\"eth0\"]\n{agent}\n");
    let config = parse(&with("lease = \"500ms\"\nresume = \"manual\"")).expect("valid");
    assert_eq!((config.agent.lease, config.agent.resume), (Duration::from_millis(500), Resume::Manual));
    assert!(parse(&with("lease = \"3s\"\nsample_interval = \"1s\"")).is_ok());
    let rest = "make it longer, or sample more often";
    for (agent, expected) in [
        ("lease = \"499ms\"", r#"3:9: [agent], lease: "499ms" is out of range: use 500ms to 10m"#.to_owned()),
        (
            "lease = \"2s\"\nsample_interval = \"700ms\"",
            format!(
                "3:9: [agent], lease: the lease is renewed with each sample, and 2s is less than 3 times sample_interval (700ms): {rest}"
            ),
        ),
        (
            "sample_interval = \"5s\"",
            format!(
                "1:1: [agent], lease: the lease is renewed with each sample, and 10s is less than 3 times sample_interval (5s): {rest}"
            ),
        ),
        ("resume = \"never\"", r#"3:10: [agent], resume: "never" is unknown: use one of "auto", "manual""#.to_owned()),
    ] {
        assert_eq!(problems(&with(agent)), [format!("splitter.toml:{expected}")], "{agent}");
    }
}

#[test]
fn services_do_not_share_names_addresses_or_each_other() {
    let second =
        "[[service]]\nname = \"checkout\"\nprotocol = \"tcp\"\naddress = \"10.0.0.10:80\"\nstable = [\"10.0.1.1:8080\"]\n";
    assert_eq!(
        problems(&(service() + second)),
        [
            r#"splitter.toml:13:8: service "checkout", name: the name is taken by an earlier service: give each service a name of its own"#,
            r#"splitter.toml:15:11: service "checkout", address: tcp 10.0.0.10:80 is the address of service "checkout" already: use another address or port"#,
        ]
    );
    let other = second.replace("\"checkout\"", "\"other\"").replace("\"tcp\"", "\"udp\"");
    let config = parse(&(service() + &other)).expect("the same address with another protocol is another service");
    assert_eq!(config.services.len(), 2);
    let chained =
        other.replace("10.0.0.10:80", "10.0.1.1:8080").replace("stable = [\"10.0.1.1:8080\"]", "stable = [\"10.0.1.2:8080\"]");
    assert_eq!(
        problems(&(service() + &chained)),
        [
            r#"splitter.toml:9:11: service "checkout", stable backend 1: 10.0.1.1:8080 is the address of service "other": a backend is a server behind the splitter, not a service of it"#
        ]
    );
}

#[test]
fn each_mistake_outside_of_services_has_its_own_message() {
    let agent = "[agent]\ninterfaces = [\"eth0\"]\n";
    let long = format!("socket = \"/{}\"", "x".repeat(107));
    for (text, expected) in [
        ("", r#"1:1: "agent" is missing"#),
        ("[agent]\n", r#"1:1: [agent]: "interfaces" is missing"#),
        ("[agent]\ninterfaces = []", "2:14: [agent], interfaces: no interface is named: the program is attached to at least one"),
        (
            "[agent]\ninterfaces = [\"\"]",
            "2:15: [agent], interfaces 1: the interface's name is empty: name one, `ip link` lists them",
        ),
        (
            "[agent]\ninterfaces = [\"eth0\", \"eth0\"]",
            "2:23: [agent], interfaces 2: \"eth0\" is listed twice: name each interface once",
        ),
        (
            "[agent]\ninterfaces = [\"a/b\"]",
            "2:15: [agent], interfaces 1: \"a/b\" is not an interface's name: at most 15 characters, no blanks, \"/\" or \":\"; `ip link` lists them",
        ),
        ("[agnet]\ninterfaces = [\"eth0\"]", r#"1:2: unknown key "agnet", did you mean "agent"?"#),
        (&format!("{agent}[cluster]\n"), r#"3:2: unknown key "cluster", the file takes agent, nat, tables, notify, service"#),
        (&format!("{agent}[service]\nname = \"x\"\n"), "3:1: services are a list: write [[service]], with two brackets"),
        (
            &format!("{agent}xdp_mode = \"fast\""),
            r#"3:12: [agent], xdp_mode: "fast" is unknown: use one of "native", "generic", "auto""#,
        ),
        (
            &format!("{agent}socket = \"splitter.sock\""),
            r#"3:10: [agent], socket: "splitter.sock" is not an absolute path: begin it with "/""#,
        ),
        (
            &format!("{agent}{long}"),
            "3:10: [agent], socket: the path has 108 octets, a unix socket's has at most 107: choose a shorter one",
        ),
        (
            &format!("{agent}socket_group = \"\""),
            "3:16: [agent], socket_group: the group's name is empty: name a group, or leave the key out for root alone",
        ),
        (
            &format!("{agent}metrics_address = \"none\""),
            r#"3:19: [agent], metrics_address: "none" is not an address with a port: write it as "10.0.0.10:80" or "[fd00::10]:80" (names aren't resolved); "off" serves no metrics"#,
        ),
        (
            &format!("{agent}sample_interval = \"1ms\""),
            r#"3:19: [agent], sample_interval: "1ms" is out of range: use 10ms to 10s"#,
        ),
        (
            &format!("{agent}detach_on_stop = \"yes\""),
            r#"3:18: [agent], detach_on_stop: expected true or false, found the text "yes""#,
        ),
        (
            &format!("{agent}[nat]\naddresses = [\"eth0\"]"),
            r#"4:14: [nat], addresses 1: "eth0" is not an address: write it as "10.0.0.5" or "fd00::5""#,
        ),
        (
            &format!("{agent}[nat]\naddresses = [\"::\"]"),
            "4:14: [nat], addresses 1: :: is the unspecified address, nobody's: write the address itself",
        ),
        (
            &format!("{agent}[nat]\naddresses = [\"10.0.0.5\", \"10.0.0.5\"]"),
            "4:26: [nat], addresses 2: 10.0.0.5 is listed twice: name each address once",
        ),
        (
            &format!("{agent}[nat]\nports = \"2000-1024\""),
            r#"4:9: [nat], ports: the port range "2000-1024" is empty: write the lower port first, "1024-2000""#,
        ),
        (
            &format!("{agent}[nat]\nports = \"80-2000\""),
            r#"4:9: [nat], ports: the port range "80-2000" begins below 1024, where services live: begin at 1024 or above"#,
        ),
        (
            &format!("{agent}[nat]\nports = \"1024\""),
            r#"4:9: [nat], ports: "1024" is not a port range: write it as "1024-32767""#,
        ),
        (&format!("{agent}[tables]\nservices = 4097"), "4:12: [tables], services: 4097 is out of range: use 1 to 4096"),
        (&format!("{agent}[tables]\nbackends = 0"), "4:12: [tables], backends: 0 is out of range: use 1 to 16384"),
        (&format!("{agent}[tables]\nconnections = -1"), "4:15: [tables], connections: -1 is out of range: use 1024 to 4194304"),
        (
            &format!("{agent}[tables]\nnetworks = 9999999999999999999999"),
            "4:12: [tables], networks: 9999999999999999999999 is out of range: use 1 to 1048576",
        ),
        (&format!("{agent}[tables]\nnetwroks = 5"), r#"4:1: [tables]: unknown key "netwroks", did you mean "networks"?"#),
        (&format!("tables = 5\n{agent}"), "1:10: [tables]: expected a table [tables], found the integer 5"),
        (&format!("service = [5]\n{agent}"), "1:12: service 1: expected a table [[service]], found the integer 5"),
    ] {
        assert_eq!(problems(text), [format!("splitter.toml:{expected}")], "{text}");
    }
}

#[test]
fn nat_addresses_and_services_fit_each_other() {
    let with = |nat: &str| service().replace("[[service]]", &format!("[nat]\n{nat}\n[[service]]"));
    assert_eq!(
        problems(&with("addresses = [\"fd00::5\"]")),
        [
            r#"splitter.toml:8:11: service "checkout", address: [nat] addresses holds no IPv4 address for this nat service: add one, or leave addresses out to use the node's own"#
        ]
    );
    let dsr = with("addresses = [\"fd00::5\"]").replace(r#"mode = "nat""#, r#"mode = "dsr""#).replace(":8080", ":80");
    assert!(parse(&dsr).is_ok(), "dsr needs no NAT address");
    let clash = with("addresses = [\"10.0.0.10\"]").replace("10.0.0.10:80\"", "10.0.0.10:1080\"");
    assert_eq!(
        problems(&clash),
        [
            r#"splitter.toml:8:11: service "checkout", address: 10.0.0.10:1080 is a NAT address, and its port lies in the NAT ports 1024-32767: use another address, or move [nat] ports"#
        ]
    );
    assert!(parse(&with("addresses = [\"10.0.0.10\"]")).is_ok(), "port 80 lies outside");
}

#[test]
fn what_the_tables_cannot_hold_is_refused() {
    let text = service()
        .replace("[[service]]", "[tables]\nbackends = 1\nnetworks = 1\n[[service]]")
        .replace("always_canary = []", "always_canary = [\"10.1.0.0/16\", \"10.2.0.0/16\"]");
    assert_eq!(
        problems(&text),
        [
            "splitter.toml:3:1: [tables], backends: 2 backends are asked for, but [tables] backends is 1: raise it",
            "splitter.toml:3:1: [tables], networks: 2 networks are asked for, but [tables] networks is 1: raise it",
        ]
    );
    let two = "[[service]]\nname = \"b\"\nprotocol = \"udp\"\naddress = \"10.0.0.10:80\"\nstable = [\"10.0.1.1:8080\"]\n";
    let text = service().replace("[[service]]", "[tables]\nservices = 1\n[[service]]") + two;
    assert_eq!(
        problems(&text),
        ["splitter.toml:3:1: [tables], services: 2 services are asked for, but [tables] services is 1: raise it"]
    );
}

#[test]
fn a_window_is_at_least_a_sample() {
    let text = service().replace("[[service]]", "sample_interval = \"5s\"\nlease = \"1m\"\n[[service]]")
        + "breach = { timeout = \"5%\", window = \"2s\" }\n";
    assert_eq!(
        problems(&text),
        [
            r#"splitter.toml:14:37: service "checkout", breach.window: the window is shorter than [agent] sample_interval (5s): make it at least as long"#
        ]
    );
}

#[test]
fn all_problems_are_reported_together_in_the_order_of_the_file() {
    let text = "[agent]\ninterfaces = []\nsokcet = 1\n[[service]]\nname = \"a\"\nprotocol = \"x\"\naddress = \"10.0.0.1:80\"\nweight = \"200%\"\nstable = [\"[fd00::1]:80\", \"y\"]\n";
    let lines = problems(text);
    let at: Vec<&str> = lines.iter().map(|line| line.split(": ").next().expect("a place")).collect();
    assert_eq!(
        at,
        [
            "splitter.toml:2:14",
            "splitter.toml:3:1",
            "splitter.toml:6:12",
            "splitter.toml:8:10",
            "splitter.toml:9:11",
            "splitter.toml:9:27"
        ],
        "{lines:#?}"
    );
    let error = parse(text).expect_err("wrong");
    assert_eq!(error.to_string(), lines.join("\n"));
    assert_eq!(error.lines(), lines);
}

#[test]
fn text_that_is_not_toml_gives_every_place() {
    let lines = problems("[agent]\ninterfaces = [\"eth0\"\nsocket = = 5\n[agent]\n");
    assert!(lines.len() >= 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains(": not TOML: ")), "{lines:#?}");
    assert_eq!(problems("a = 1\na = 2\n"), ["splitter.toml:2:1: not TOML: duplicate key"]);
}

#[test]
fn a_configuration_means_what_it_says() {
    let example = include_str!("../../../../deploy/splitter.example.toml");
    let config = parse(example).expect("the example is valid");
    assert_eq!(config.services.len(), 2);
    let [checkout, dns] = &config.services[..] else { unreachable!("two services") };
    assert_eq!((checkout.name.as_str(), checkout.protocol, checkout.mode), ("checkout", Protocol::Tcp, Mode::Nat));
    assert_eq!(checkout.affinity, Affinity::Connection);
    let backends: Vec<(String, Cohort, u16)> =
        checkout.backends.iter().map(|b| (b.address.to_string(), b.cohort, b.weight.get())).collect();
    assert_eq!(
        backends,
        [
            ("10.0.1.1:8080".to_owned(), Cohort::Stable, 1),
            ("10.0.1.2:8080".to_owned(), Cohort::Stable, 2),
            ("10.0.1.9:8080".to_owned(), Cohort::Canary, 1),
        ]
    );
    let five = "5%".parse::<Weight>().expect("a weight");
    let breach = Breach {
        refused: Some(five),
        reset: Some(five),
        timeout: Some(five),
        min_attempts: 50,
        window: Duration::from_secs(10),
        existing: Existing::Reset,
    };
    assert_eq!(checkout.breach, Some(breach));
    let breaker = Breaker {
        refused: Some(five),
        timeout: Some(five),
        reset: Some(five),
        retransmit: Some("20%".parse().expect("a weight")),
        min_attempts: 20,
        window: Duration::from_secs(10),
        stable_factor: Factor::from_hundredths(200),
        existing: Existing::Reset,
    };
    assert_eq!((checkout.breaker, checkout.on_lease_expiry), (Some(breaker), OnLeaseExpiry::Stable));
    assert_eq!(dns.address, "[fd00::10]:53".parse::<SocketAddr>().expect("an address"));
    assert_eq!((dns.timeouts, dns.breach, dns.weight), (Timeouts::default(), None, Weight::ZERO));
}

#[test]
fn the_example_is_valid_with_what_its_comments_hold() {
    // A comment that is a key or a heading is an example; others are prose.
    let is_toml = |text: &str| {
        let key = text
            .split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || "_.0123456789".contains(c)));
        key || text.starts_with('[')
    };
    let example = include_str!("../../../../deploy/splitter.example.toml");
    let text: String = example
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line).to_owned() + "\n")
        .collect();
    assert_eq!(text.lines().filter(|line| line.starts_with("# ")).count(), 4, "prose: {text}");
    let config = Config::parse_with(&text, "splitter.toml", |_| Ok("# nobody\n".to_owned())).expect("valid");
    let plan = config.services[0].rollout.as_ref().expect("a plan");
    let minimal = service() + "[service.rollout]\nsteps = [\"100%\"]\n";
    let defaults = parse(&minimal).expect("valid").services[0].rollout.clone().expect("a plan");
    assert_eq!((plan.steps.len(), plan.checks.len(), config.notify.len()), (5, 2, 2));
    let plain = Plan { steps: defaults.steps.clone(), checks: Vec::new(), ..plan.clone() };
    assert_eq!(plain, defaults, "the example writes the defaults");
}

#[test]
fn the_example_writes_the_defaults() {
    let example = parse(include_str!("../../../../deploy/splitter.example.toml")).expect("the example is valid");
    let minimal = parse("[agent]\ninterfaces = [\"eth0\"]\n").expect("valid");
    assert_eq!((example.agent, example.nat, example.tables), (minimal.agent, minimal.nat, minimal.tables));
    assert_eq!(example.services[0].timeouts, Timeouts::default());
}

#[test]
fn metrics_can_be_off_and_connections_are_rounded_up() {
    let text = "[agent]\ninterfaces = [\"eth0\"]\nmetrics_address = \"off\"\n[tables]\nconnections = 200_000\n";
    let config = parse(text).expect("valid");
    assert_eq!((config.agent.metrics_address, config.tables.connections), (None, 262_144));
}

/// A key that is in the schema but read by nobody would be accepted and ignored.
#[test]
fn every_key_of_the_schema_is_read() {
    for section in schema::SECTIONS {
        for key in section.keys {
            // A date is no key's type.
            let wrong = format!("{} = 1979-05-27", key.name);
            let agent = "[agent]\ninterfaces = [\"eth0\"]\n";
            let steps = "steps = [\"100%\"]";
            let head = "name = \"a\"\nprotocol = \"tcp\"\naddress = \"10.0.0.1:80\"\nstable = [\"10.0.1.1:80\"]\n";
            let without: String = head
                .lines()
                .filter(|line| !line.starts_with(&format!("{} ", key.name)))
                .map(|line| format!("{line}\n"))
                .collect();
            let text = match section.heading {
                "the file" if key.name == "agent" => wrong,
                "the file" => format!("{wrong}\n{agent}"),
                "[agent]" if key.name == "interfaces" => format!("[agent]\n{wrong}"),
                "[agent]" => format!("{agent}{wrong}"),
                "[nat]" | "[tables]" => format!("{agent}{}\n{wrong}", section.heading),
                "[[service]]" => format!("{agent}[[service]]\n{without}{wrong}"),
                "a backend" if key.name == "address" => format!("{agent}[[service]]\n{head}canary = [{{ {wrong} }}]"),
                "a backend" => format!("{agent}[[service]]\n{head}canary = [{{ address = \"10.0.1.2:80\", {wrong} }}]"),
                heading @ ("[service.timeouts]" | "[service.breach]" | "[service.breaker]") => {
                    format!("{agent}[[service]]\n{head}{heading}\n{wrong}")
                }
                "[service.rollout]" if key.name == "steps" => format!("{agent}[[service]]\n{head}{}\n{wrong}", section.heading),
                "[service.rollout]" => format!("{agent}[[service]]\n{head}{}\n{steps}\n{wrong}", section.heading),
                "a step" if key.name == "weight" => format!("{agent}[[service]]\n{head}rollout.steps = [{{ {wrong} }}]"),
                "a step" => format!("{agent}[[service]]\n{head}rollout.steps = [{{ weight = \"5%\", {wrong} }}]"),
                "[service.rollout.compare]" => {
                    format!("{agent}[[service]]\n{head}rollout.{steps}\n{}\n{wrong}", section.heading)
                }
                "[[service.rollout.check]]" | "[[notify]]" => {
                    let whole = "name = \"a\"\npromql = \"up\"\nurl = \"http://a\"\nmax = 1\n";
                    let fields = match (section.heading, key.name) {
                        ("[[notify]]", "url_file") => "name = \"a\"\n",
                        ("[[notify]]", _) => "name = \"a\"\nurl = \"http://a\"\n",
                        (_, "webhook") => "name = \"a\"\n",
                        (_, _) => whole,
                    };
                    let fields: String = fields
                        .lines()
                        .filter(|line| !line.starts_with(&format!("{} ", key.name)))
                        .map(|line| format!("{line}\n"))
                        .collect();
                    let service = if section.heading == "[[notify]]" {
                        String::new()
                    } else {
                        format!("[[service]]\n{head}rollout.{steps}\n")
                    };
                    format!("{agent}{service}{}\n{fields}{wrong}", section.heading)
                }
                heading => panic!("{heading} is not tried"),
            };
            let lines = problems(&text);
            let found = lines
                .iter()
                .any(|line| line.contains("1979-05-27") || line.contains("a seed is") || line.contains("with two brackets"));
            assert!(found && lines.len() == 1, "{text}\n{lines:#?}");
            assert!(key.presence != Presence::Default(""), "{} has an empty default", key.name);
        }
    }
}

#[test]
fn networks_come_from_files_beside_the_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("splitter.toml");
    let text = service().replace("always_canary = []", "always_canary = [\"10.8.0.0/16\"]\nalways_canary_file = \"testers.txt\"");
    std::fs::write(&path, &text).expect("written");
    std::fs::write(directory.path().join("testers.txt"), "# testers\n10.9.0.0/16 # office\n\n  10.7.0.0/24\n").expect("written");
    let config = super::load(&path).expect("valid");
    let networks: Vec<String> = config.services[0].always_canary.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.7.0.0/24", "10.8.0.0/16", "10.9.0.0/16"]);

    std::fs::write(directory.path().join("testers.txt"), "10.9.0.0/16\n  10.7.0.1/24\noffice # where?\n").expect("written");
    let error = super::load(&path).expect_err("two lines are wrong");
    assert_eq!(
        error.lines(),
        [
            r#"testers.txt:2:3: service "checkout", always_canary: 10.7.0.1/24 has bits set behind its prefix: write 10.7.0.0/24"#,
            r#"testers.txt:3:1: service "checkout", always_canary_file: "office" is not a network: write it as "10.9.0.0/16" or "fd00:9::/32""#,
        ]
    );
    std::fs::remove_file(directory.path().join("testers.txt")).expect("removed");
    let error = super::load(&path).expect_err("the file is gone").to_string();
    assert!(error.ends_with("always_canary_file: cannot read testers.txt: No such file or directory (os error 2)"), "{error}");
}

#[test]
fn a_hundred_thousand_networks_are_read() {
    let networks = (0_u32..100_000).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0a80_0000 + n)));
    let networks: Vec<String> = networks.collect();
    let lines = networks.join("\n");
    let text = service().replace("always_canary = []", "never_canary_file = \"all.txt\"");
    let from_file = Config::parse_with(&text, "splitter.toml", |_| Ok(lines.clone())).expect("valid");
    assert_eq!(from_file.services[0].never_canary.len(), 100_000);
    let text = service().replace("always_canary = []", &format!("never_canary = [\"{}\"]", networks.join("\",\n\"")));
    assert_eq!(parse(&text).expect("valid"), from_file);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let error = super::load(Path::new("/nonexistent/splitter.toml")).expect_err("not there");
    assert!(matches!(error, ConfigError::Read { .. }));
    let expected = "cannot read the configuration /nonexistent/splitter.toml: No such file or directory (os error 2)";
    assert_eq!(error.lines(), [expected]);
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "splitter.toml")
}

fn problems(text: &str) -> Vec<String> {
    parse(text).expect_err("wrong").lines()
}

/// A valid configuration whose lines the tests change: the service begins at line 3.
fn service() -> String {
    r#"[agent]
interfaces = ["eth0"]
[[service]]
name = "checkout"
protocol = "tcp"
address = "10.0.0.10:80"
mode = "nat"
weight = "1%"
stable = ["10.0.1.1:8080"]
canary = ["10.0.1.9:8080"]
always_canary = []
"#
    .to_owned()
}
