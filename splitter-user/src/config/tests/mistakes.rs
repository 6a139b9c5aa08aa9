//! Mistakes in a service, and the one line that each gives.

use super::{problems, service};

#[test]
fn each_mistake_in_a_service_has_its_own_message() {
    let base = service();
    for (name, from, to, expected) in [
        (
            "weight too large",
            r#"weight = "1%""#,
            r#"weight = "101%""#,
            r#"8:10: service "checkout", weight: weight `101%` is out of range: use 0% to 100%"#,
        ),
        (
            "weight negative",
            r#"weight = "1%""#,
            r#"weight = "-1%""#,
            r#"8:10: service "checkout", weight: weight `-1%` is out of range: use 0% to 100%"#,
        ),
        (
            "weight not a number",
            r#"weight = "1%""#,
            r#"weight = "abc""#,
            r#"8:10: service "checkout", weight: `abc` is not a weight: write a percentage such as `5%` or `0.25%`"#,
        ),
        (
            "weight too fine",
            r#"weight = "1%""#,
            r#"weight = "0.001%""#,
            r#"8:10: service "checkout", weight: weight `0.001%` is finer than 0.01%: use at most two decimals"#,
        ),
        (
            "weight of the wrong type",
            r#"weight = "1%""#,
            "weight = 1",
            r#"8:10: service "checkout", weight: expected a text such as "5%", found the integer 1"#,
        ),
        (
            "unknown key",
            r#"weight = "1%""#,
            r#"wieght = "1%""#,
            r#"8:1: service "checkout": unknown key "wieght", did you mean "weight"?"#,
        ),
        (
            "misspelled required key is reported once",
            r#"protocol = "tcp""#,
            r#"protocoll = "tcp""#,
            r#"5:1: service "checkout": unknown key "protocoll", did you mean "protocol"?"#,
        ),
        ("missing key", r#"protocol = "tcp""#, "", r#"3:1: service "checkout": "protocol" is missing"#),
        (
            "unknown protocol",
            r#"protocol = "tcp""#,
            r#"protocol = "sctp""#,
            r#"5:12: service "checkout", protocol: "sctp" is unknown: use one of "tcp", "udp""#,
        ),
        (
            "bad name",
            r#"name = "checkout""#,
            r#"name = "check out""#,
            r#"4:8: service "check out", name: `check out` is not a service name: use 1 to 63 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            "address without a port",
            r#""10.0.0.10:80""#,
            r#""10.0.0.10""#,
            r#"6:11: service "checkout", address: "10.0.0.10" is not an address with a port: write it as "10.0.0.10:80" or "[fd00::10]:80" (names aren't resolved)"#,
        ),
        (
            "unspecified address",
            r#""10.0.0.10:80""#,
            r#""0.0.0.0:80""#,
            r#"6:11: service "checkout", address: 0.0.0.0:80 is the unspecified address, nobody's: write the address itself"#,
        ),
        (
            "loopback address",
            r#""10.0.0.10:80""#,
            r#""127.0.0.1:80""#,
            r#"6:11: service "checkout", address: 127.0.0.1:80 is a loopback address, which never comes in by an interface: write the address that the network knows"#,
        ),
        (
            "multicast address",
            r#""10.0.0.10:80""#,
            r#""224.0.0.1:80""#,
            r#"6:11: service "checkout", address: 224.0.0.1:80 is a multicast address: connections are split to unicast addresses alone"#,
        ),
        (
            "broadcast address",
            r#""10.0.0.10:80""#,
            r#""255.255.255.255:80""#,
            r#"6:11: service "checkout", address: 255.255.255.255:80 is the broadcast address: connections are split to unicast addresses alone"#,
        ),
        (
            "port 0",
            r#""10.0.0.10:80""#,
            r#""10.0.0.10:0""#,
            r#"6:11: service "checkout", address: 10.0.0.10:0 has port 0: write the port that is listened on"#,
        ),
        (
            "no stable backend",
            r#"stable = ["10.0.1.1:8080"]"#,
            "stable = []",
            r#"3:1: service "checkout", stable: there is no stable backend: list at least one, for everything that isn't the canary's goes there"#,
        ),
        (
            "stable backends that aren't a list",
            r#"stable = ["10.0.1.1:8080"]"#,
            r#"stable = "10.0.1.1:8080""#,
            r#"9:10: service "checkout", stable: expected a list, found the text "10.0.1.1:8080""#,
        ),
        (
            "families mixed",
            r#"["10.0.1.9:8080"]"#,
            r#"["10.0.1.9:8080", "[fd00::9]:8080"]"#,
            r#"10:28: service "checkout", canary backend 2: [fd00::9]:8080 is IPv6, but the service's address 10.0.0.10:80 is IPv4: a service is of one family, write a second service for the other"#,
        ),
        (
            "mapped backend",
            r#"["10.0.1.9:8080"]"#,
            r#"["10.0.1.9:8080", "[::ffff:10.0.1.8]:8080"]"#,
            r#"10:28: service "checkout", canary backend 2: [::ffff:10.0.1.8]:8080 is IPv4 written as IPv6: write the IPv4 address"#,
        ),
        (
            "loopback backend",
            r#"["10.0.1.9:8080"]"#,
            r#"["127.0.0.1:8080"]"#,
            r#"10:11: service "checkout", canary backend 1: 127.0.0.1:8080 is a loopback address, which never comes in by an interface: write the address that the network knows"#,
        ),
        (
            "backend twice",
            r#"["10.0.1.9:8080"]"#,
            r#"["10.0.1.9:8080", "10.0.1.9:8080"]"#,
            r#"10:28: service "checkout", canary backend 2: 10.0.1.9:8080 is canary backend 1 already: list a backend once, and give it a larger weight for a larger share"#,
        ),
        (
            "backend in both cohorts",
            r#"["10.0.1.9:8080"]"#,
            r#"["10.0.1.1:8080"]"#,
            r#"10:11: service "checkout", canary backend 1: 10.0.1.1:8080 is stable backend 1 already: a backend runs one version, list it in one cohort"#,
        ),
        (
            "backend is a service",
            r#"["10.0.1.9:8080"]"#,
            r#"["10.0.0.10:80"]"#,
            r#"10:11: service "checkout", canary backend 1: 10.0.0.10:80 is the address of service "checkout": a backend is a server behind the splitter, not a service of it"#,
        ),
        (
            "zero weight",
            r#"["10.0.1.9:8080"]"#,
            r#"[{ address = "10.0.1.9:8080", weight = 0 }]"#,
            r#"10:49: service "checkout", canary backend 1, weight: backend weight 0 is out of range: use 1 to 1000; to take a backend out of use, drain or remove it"#,
        ),
        (
            "unknown key of a backend",
            r#"["10.0.1.9:8080"]"#,
            r#"[{ address = "10.0.1.9:8080", wight = 2 }]"#,
            r#"10:40: service "checkout", canary backend 1: unknown key "wight", did you mean "weight"?"#,
        ),
        (
            "backend of the wrong type",
            r#"["10.0.1.9:8080"]"#,
            "[8080]",
            r#"10:11: service "checkout", canary backend 1: expected a text such as "10.0.0.10:80", found the integer 8080"#,
        ),
        (
            "host bits",
            r#"always_canary = []"#,
            r#"always_canary = ["10.9.0.0/16", "10.8.7.1/16"]"#,
            r#"11:33: service "checkout", always_canary: 10.8.7.1/16 has bits set behind its prefix: write 10.8.0.0/16"#,
        ),
        (
            "address for a network",
            r#"always_canary = []"#,
            r#"always_canary = ["10.9.0.1"]"#,
            r#"11:18: service "checkout", always_canary 1: "10.9.0.1" has no prefix length: for this address alone write "10.9.0.1/32""#,
        ),
        (
            "no network",
            r#"always_canary = []"#,
            r#"always_canary = ["office"]"#,
            r#"11:18: service "checkout", always_canary 1: "office" is not a network: write it as "10.9.0.0/16" or "fd00:9::/32""#,
        ),
        (
            "network of the other family",
            r#"always_canary = []"#,
            r#"always_canary = ["fd00:9::/32"]"#,
            r#"11:18: service "checkout", always_canary: fd00:9::/32 is IPv6, but the service's address 10.0.0.10:80 is IPv4: its clients are never in that network"#,
        ),
        (
            "mapped network",
            r#"always_canary = []"#,
            r#"always_canary = ["::ffff:10.9.0.0/112"]"#,
            r#"11:18: service "checkout", always_canary: ::ffff:10.9.0.0/112 is IPv4 written as IPv6, which clients never are on the wire: write the IPv4 network"#,
        ),
        (
            "network in both lists",
            r#"always_canary = []"#,
            "always_canary = [\"10.9.0.0/16\"]\nnever_canary = [\"10.9.0.0/16\"]",
            r#"12:17: service "checkout", never_canary: 10.9.0.0/16 is in always_canary and in never_canary: a network is in one of the two"#,
        ),
        (
            "seed, not repeated in the message",
            r#"always_canary = []"#,
            r#"seed = "5ec2e7""#,
            r#"11:8: service "checkout", seed: a seed is 32 hexadecimal digits; make one with `openssl rand -hex 16`"#,
        ),
        (
            "file in a text",
            r#"always_canary = []"#,
            r#"always_canary_file = "x.txt""#,
            r#"11:22: service "checkout", always_canary_file: cannot read x.txt: only a configuration on disk may name files"#,
        ),
        (
            "timeout too long",
            r#"always_canary = []"#,
            r#"timeouts.established = "5h""#,
            r#"11:24: service "checkout", timeouts, established: "5h" is out of range: use 1s to 4h"#,
        ),
        (
            "timeout of zero",
            r#"always_canary = []"#,
            r#"timeouts.connect = "0s""#,
            r#"11:20: service "checkout", timeouts, connect: "0s" is out of range: use 100ms to 2m"#,
        ),
        (
            "timeout too fine",
            r#"always_canary = []"#,
            r#"timeouts.closing = "1500ms""#,
            r#"11:20: service "checkout", timeouts, closing: "1500ms" is finer than the data plane's clock: use whole seconds"#,
        ),
        (
            "no duration",
            r#"always_canary = []"#,
            r#"timeouts.connect = "3""#,
            r#"11:20: service "checkout", timeouts, connect: "3" is not a duration (time unit needed, for example 3sec or 3ms): write it as "250ms", "3s" or "2h""#,
        ),
        (
            "breach without a limit",
            r#"always_canary = []"#,
            "[service.breach]\nmin_attempts = 10",
            r#"11:1: service "checkout", breach: there is no limit: set at least one of refused, reset and timeout, or leave the section out"#,
        ),
        (
            "limit that is never crossed",
            r#"always_canary = []"#,
            r#"breach.timeout = "100%""#,
            r#"11:18: service "checkout", breach.timeout: 100% can never be crossed: use a limit below 100%, or leave it out"#,
        ),
        (
            "no attempts at all",
            r#"always_canary = []"#,
            "[service.breach]\ntimeout = \"5%\"\nmin_attempts = 0",
            r#"13:16: service "checkout", breach, min_attempts: 0 is out of range: use at least 1"#,
        ),
        (
            "unknown key of the breach",
            r#"always_canary = []"#,
            "[service.breach]\ntimeout = \"5%\"\nresets = \"5%\"",
            r#"13:1: service "checkout", breach: unknown key "resets", did you mean "reset"?"#,
        ),
        (
            "breaker without a limit",
            r#"always_canary = []"#,
            "[service.breaker]\nmin_attempts = 10",
            r#"11:1: service "checkout", breaker: the breaker has no limit: set at least one of refused, timeout, reset and retransmit, or leave the section out"#,
        ),
        (
            "breaker that never trips",
            r#"always_canary = []"#,
            r#"breaker.retransmit = "100%""#,
            r#"11:22: service "checkout", breaker.retransmit: 100% can never be crossed: use a limit below 100%, or leave it out"#,
        ),
        (
            "breaker without attempts",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nmin_attempts = 0",
            r#"13:16: service "checkout", breaker, min_attempts: 0 is out of range: use 1 to 4294967295"#,
        ),
        (
            "breaker with a window that is too long",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nwindow = \"6m\"",
            r#"13:10: service "checkout", breaker, window: "6m" is out of range: use 1s to 5m"#,
        ),
        (
            "factor without its unit",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nworse_than_stable = \"2\"",
            r#"13:21: service "checkout", breaker, worse_than_stable: `2` is not a factor: write how many times as much, such as `2x` or `1.5x`"#,
        ),
        (
            "factor of the wrong type",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nworse_than_stable = 2",
            r#"13:21: service "checkout", breaker, worse_than_stable: expected a text such as "2x", found the integer 2"#,
        ),
        (
            "factor below one",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nworse_than_stable = \"0.5x\"",
            r#"13:21: service "checkout", breaker, worse_than_stable: factor `0.5x` is out of range: use 1x to 100x"#,
        ),
        (
            "unknown key of the breaker",
            r#"always_canary = []"#,
            "[service.breaker]\ntimeout = \"5%\"\nretransmits = \"5%\"",
            r#"13:1: service "checkout", breaker: unknown key "retransmits", did you mean "retransmit"?"#,
        ),
        (
            "unknown end of the lease",
            r#"always_canary = []"#,
            r#"on_lease_expiry = "keep""#,
            r#"11:19: service "checkout", on_lease_expiry: "keep" is unknown: use one of "stable", "hold""#,
        ),
        (
            "unknown table of the service",
            r#"always_canary = []"#,
            "[service.timeout]\nconnect = \"1s\"",
            r#"11:10: service "checkout": unknown key "timeout", did you mean "timeouts"?"#,
        ),
    ] {
        assert!(base.contains(from), "{name}: nothing to replace");
        assert_eq!(problems(&base.replace(from, to)), [format!("splitter.toml:{expected}")], "{name}");
    }
}
