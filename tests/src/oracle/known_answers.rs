//! The oracle against answers that were worked out by other means.

use std::net::SocketAddr;

use super::*;
use crate::packet::Mac;
use crate::packet::known_answers::{captured, hex};

#[test]
fn frames_made_by_scapy_are_judged_right() {
    let mut oracle = Oracle::new(world());
    let rows = rows();
    assert!(rows.len() > 15, "the file was read");
    for row in &rows {
        let observed = row.observed();
        let judged = oracle.judge(&row.frame, row.ingress, &observed);
        assert_eq!(judged, Ok(()), "{}", row.why);
    }
}

#[test]
fn a_change_of_any_octet_of_what_scapy_made_is_a_difference() {
    let mut oracle = Oracle::new(world());
    for row in rows() {
        let expectation = oracle.expect(&row.frame, row.ingress);
        for at in 0..row.output.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut output = row.output.clone();
                output[at] ^= bits;
                let changed = Observed { frame: &output, ..row.observed() };
                oracle.check(&expectation, &changed).expect_err(&format!("{}: octet {at} ^ {bits:#x}", row.why));
            }
        }
        let matched = oracle.check(&expectation, &row.observed()).expect("judged right by another test");
        oracle.learn(matched);
    }
}

#[test]
fn linux_resets_as_the_page_wants_it() {
    let mut world = world();
    world.services = vec![
        service("10.9.0.2:81", Protocol::Tcp, Mode::Nat, None),
        service("[2001:db8:9::2]:81", Protocol::Tcp, Mode::Nat, None),
    ];
    let oracle = Oracle::new(world);
    for (syn, rst) in [("IPv4 SYN", "IPv4 RST"), ("IPv6 SYN", "IPv6 RST")] {
        let (syn, mut rst) = (captured(syn), captured(rst));
        if rst[14] >> 4 == 6 {
            // Linux gives its answer a flow label, the page wants none.
            rst[15..18].fill(0);
        }
        let expectation = oracle.expect(&syn, 2);
        assert_eq!(expectation.only(), Some(&Outcome::Refuse { reason: Reason::NoBackend, frame: rst.into() }));
    }
}

/// A frame with what must become of it.
struct Row {
    why: &'static str,
    ingress: u32,
    frame: Vec<u8>,
    action: Action,
    output: Vec<u8>,
    redirect: Option<u32>,
    counted: Vec<Reason>,
}

impl Row {
    fn observed(&self) -> Observed<'_> {
        Observed { action: self.action, frame: &self.output, redirect: self.redirect, counted: Some(&self.counted) }
    }
}

/// The rows of `known_answers.txt`.
fn rows() -> Vec<Row> {
    let text = include_str!("known_answers.txt").split("\n\n").filter(|row| !row.starts_with('#') && !row.trim().is_empty());
    let row = |row: &'static str| {
        let mut lines = row.lines();
        let why = lines.next().expect("a reason why");
        let words: Vec<_> = lines.next().expect("a frame").split(' ').collect();
        assert_eq!(words[0], "in", "{why}");
        let (ingress, frame) = (words[1].parse().expect("an interface"), hex(words[2]));
        let words: Vec<_> = lines.next().expect("what becomes of it").split(' ').collect();
        let (action, output, redirect) = match words[..] {
            ["pass"] => (Action::Pass, frame.clone(), None),
            ["tx", output] => (Action::Tx, hex(output), None),
            ["redirect", interface, output] => (Action::Redirect, hex(output), Some(interface.parse().expect("an interface"))),
            _ => panic!("{why}: {words:?}"),
        };
        let reason = |line: &str| line.strip_prefix("counted ").and_then(Reason::named).expect("a reason's name");
        Row { why, ingress, frame, action, output, redirect, counted: lines.map(reason).collect() }
    };
    text.map(row).collect()
}

fn world() -> World {
    let back = Way { interface: 3, source: mac(0x03), destination: mac(0xb5), vlan: None };
    let in_vlan = Way { interface: 2, source: mac(0x02), destination: mac(0xb6), vlan: Some(300) };
    let straight = Way { destination: mac(0xdd), ..back };
    World {
        services: vec![
            service("192.0.2.1:80", Protocol::Tcp, Mode::Nat, Some(("10.0.0.5:8080", back))),
            service("192.0.2.1:53", Protocol::Udp, Mode::Nat, Some(("10.0.0.5:5353", back))),
            service("192.0.2.2:80", Protocol::Tcp, Mode::Dsr, Some(("10.0.0.6:80", straight))),
            service("192.0.2.3:53", Protocol::Udp, Mode::Nat, None),
            service("[2001:db8::1]:53", Protocol::Udp, Mode::Nat, Some(("[2001:db8:10::5]:5353", in_vlan))),
            service("[2001:db8::3]:53", Protocol::Udp, Mode::Dsr, None),
        ],
        nat_addresses: vec![address("10.0.0.250:0").ip(), address("[2001:db8:10::250]:0").ip()],
        nat_ports: Some(20_000..=20_999),
        leeway: Leeway::default(),
    }
}

fn service(at: &str, protocol: Protocol, mode: Mode, backend: Option<(&str, Way)>) -> Service {
    let backend = backend.map(|(at, way)| Backend { address: address(at), cohort: Cohort::Stable, weight: 1, way: Some(way) });
    Service {
        address: address(at),
        protocol,
        mode,
        affinity: Affinity::Connection,
        weight: 0,
        flipped: None,
        networks: Vec::new(),
        backends: backend.into_iter().collect(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

const fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}
