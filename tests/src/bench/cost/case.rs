//! What is measured.

use super::stage::{MILLION, Setting, Stage};
use crate::oracle::{Mode, Protocol};

/// A kind of packet in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// As it's called in results. Rows of one name differ in flows or services.
    pub name: String,
    /// The configuration.
    pub stage: Stage,
    /// The packet.
    pub kind: Kind,
    /// How many flows.
    pub flows: usize,
    /// The program that takes multi-buffer frames, which is attached wherever the kernel has them; else the other one.
    pub multi_buffer: bool,
}

/// What every packet of a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a client, in a connection that is known and established.
    Established,
    /// The first of a client's connection: a SYN, or a datagram.
    New,
    /// Of a backend, in an established connection.
    Reply,
    /// To a service without a usable backend: answered with a RST or an ICMP error.
    NoBackend,
    /// In the middle of a connection that isn't known: answered with a RST.
    Unknown,
    /// The first of a connection for which no port is free: answered with a RST.
    NoPort,
    /// To an address that is no service's, to this port.
    NotOurs(u16),
}

/// Few enough for the processor's caches, and for one NAT address's ports on one of two CPUs.
const SOME: usize = 16_000;

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, ipv4, protocol) in kinds() {
        for kind in packets(mode) {
            cases.push(Case::of(mode, ipv4, protocol, *kind));
        }
    }
    for (mode, ipv4, protocol) in kinds() {
        if protocol == Protocol::Udp {
            continue;
        }
        for kind in packets(mode) {
            for services in [64, 1_000] {
                cases.push(Case::of(mode, ipv4, protocol, *kind).services(services));
            }
            for (services, flows) in [(1, SOME), (1_000, SOME), (1, MILLION)] {
                cases.push(Case::of(mode, ipv4, protocol, *kind).services(services).flows(flows));
            }
        }
    }
    let tcp = |mode, ipv4, kind| Case::of(mode, ipv4, Protocol::Tcp, kind);
    for mode in [Mode::Dsr, Mode::Nat] {
        for ipv4 in [true, false] {
            for kind in [Kind::Established, Kind::New] {
                cases.push(tcp(mode, ipv4, kind).setting(Setting::Networks, "networks"));
            }
        }
        for kind in packets(mode) {
            cases.push(tcp(mode, true, *kind).setting(Setting::TwoArm, "redirect"));
        }
        cases.push(tcp(mode, true, Kind::Established).setting(Setting::Vlan, "vlan"));
        for (ipv4, protocol) in [(true, Protocol::Tcp), (false, Protocol::Tcp), (true, Protocol::Udp), (false, Protocol::Udp)] {
            cases.push(Case::of(mode, ipv4, protocol, Kind::NoBackend).setting(Setting::NoBackend, ""));
        }
    }
    for ipv4 in [true, false] {
        cases.push(tcp(Mode::Nat, ipv4, Kind::Unknown));
        cases.push(tcp(Mode::Nat, ipv4, Kind::NoPort).setting(Setting::FewPorts, ""));
    }
    for ipv4 in [true, false] {
        for port in [22, 40_000] {
            cases.push(tcp(Mode::Dsr, ipv4, Kind::NotOurs(port)));
        }
    }
    for services in [64, 1_000] {
        cases.push(tcp(Mode::Dsr, true, Kind::NotOurs(22)).services(services));
    }
    for (mode, kind) in [(Mode::Dsr, Kind::Established), (Mode::Nat, Kind::Established), (Mode::Nat, Kind::Reply)] {
        let mut case = tcp(mode, true, kind);
        case.multi_buffer = false;
        case.name.push_str("-single-buffer");
        cases.push(case);
    }
    cases
}

fn kinds() -> impl Iterator<Item = (Mode, bool, Protocol)> {
    let modes = [Mode::Dsr, Mode::Nat].into_iter();
    let families = modes.flat_map(|mode| [true, false].map(|ipv4| (mode, ipv4)));
    families.flat_map(|(mode, ipv4)| [Protocol::Tcp, Protocol::Udp].map(|protocol| (mode, ipv4, protocol)))
}

/// The packets of a connection of either mode.
const fn packets(mode: Mode) -> &'static [Kind] {
    match mode {
        Mode::Dsr => &[Kind::Established, Kind::New],
        Mode::Nat => &[Kind::Established, Kind::Reply, Kind::New],
    }
}

impl Case {
    fn of(mode: Mode, ipv4: bool, protocol: Protocol, kind: Kind) -> Self {
        let stage = Stage { mode, ipv4, protocol, services: 1, setting: Setting::OneArm };
        Self { name: name(&stage, kind), stage, kind, flows: 1, multi_buffer: true }
    }

    const fn services(mut self, services: usize) -> Self {
        self.stage.services = services;
        self
    }

    fn flows(mut self, flows: usize) -> Self {
        self.flows = flows;
        if flows == MILLION {
            self.stage.setting = Setting::Million;
        }
        self
    }

    fn setting(mut self, setting: Setting, suffix: &str) -> Self {
        self.stage.setting = setting;
        if !suffix.is_empty() {
            self.name = format!("{}-{suffix}", self.name);
        }
        self
    }
}

fn name(stage: &Stage, kind: Kind) -> String {
    let packet = match kind {
        Kind::Established => "established",
        Kind::New => "new",
        Kind::Reply => "reply",
        Kind::NoBackend => "refused",
        Kind::Unknown => "refused-unknown",
        Kind::NoPort => "refused-no-port",
        // Nothing but the family matters to what isn't ours.
        Kind::NotOurs(port) => {
            let family = if stage.ipv4 { "" } else { "-v6" };
            let range = if port < 20_000 { "" } else { "-nat-port" };
            return format!("not-ours{family}{range}");
        }
    };
    let mode = match stage.mode {
        Mode::Dsr => "dsr",
        Mode::Nat => "nat",
    };
    let family = if stage.ipv4 { "v4" } else { "v6" };
    let protocol = match stage.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{mode}-{family}-{protocol}-{packet}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_rows_are_called_the_same() {
        let all = all();
        let rows: BTreeSet<_> = all.iter().map(|case| (&case.name, case.flows, case.stage.services)).collect();
        assert_eq!(rows.len(), all.len());
        for name in ["dsr-v4-tcp-established", "nat-v6-udp-reply", "not-ours", "nat-v4-tcp-new", "dsr-v6-tcp-new-networks"] {
            assert!(all.iter().any(|case| case.name == name), "{name}");
        }
    }

    #[test]
    fn what_has_targets_is_measured_in_the_program_that_ships() {
        assert!(all().iter().all(|case| case.multi_buffer != case.name.ends_with("-single-buffer")));
    }
}
