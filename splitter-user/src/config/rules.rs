//! What must hold between the values of services: one list of rules, for the configuration and for commands alike.
//!
//! The rules look at [`Draft`]s, in which a value may be unknown because it could not be read; a rule that needs it is
//! silent then, so that one mistake isn't reported as three.

mod rollout;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use humantime::format_duration;
use ipnet::IpNet;

pub use self::rollout::DraftPlan;
use super::{Nat, PortRange, Tables};
use crate::model::{Breach, Breaker, Cohort, Mode, NetworkList, Protocol, Service, ServiceName, Weight};

/// A service as far as it is known.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What errors call it.
    pub label: String,
    /// Its name.
    pub name: Option<ServiceName>,
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Its mode.
    pub mode: Option<Mode>,
    /// Its backends.
    pub backends: Vec<DraftBackend>,
    /// Some of its stable backends could not be read.
    pub stable_unknown: bool,
    /// Networks that always get the canary.
    pub always_canary: Vec<IpNet>,
    /// Networks that never get it.
    pub never_canary: Vec<IpNet>,
    /// Its limits.
    pub breach: Option<Breach>,
    /// Its breaker's limits.
    pub breaker: Option<Breaker>,
    /// How a rollout of it goes.
    pub rollout: Option<DraftPlan>,
}

/// A backend, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct DraftBackend {
    /// Its cohort.
    pub cohort: Cohort,
    /// Its number in that cohort's list, from 0.
    pub index: usize,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it gets no new connections.
    pub draining: bool,
}

impl From<&Service> for Draft {
    fn from(service: &Service) -> Self {
        let numbered = |cohort: Cohort| {
            let of_cohort = service.backends.iter().filter(move |backend| backend.cohort == cohort);
            of_cohort.enumerate().map(move |(index, backend)| DraftBackend {
                cohort,
                index,
                address: backend.address,
                draining: backend.draining,
            })
        };
        Self {
            label: format!("service \"{}\"", service.name),
            name: Some(service.name.clone()),
            protocol: Some(service.protocol),
            address: Some(service.address),
            mode: Some(service.mode),
            backends: Cohort::ALL.into_iter().flat_map(numbered).collect(),
            stable_unknown: false,
            always_canary: service.always_canary.iter().copied().collect(),
            never_canary: service.never_canary.iter().copied().collect(),
            breach: service.breach,
            breaker: service.breaker,
            rollout: service.rollout.as_ref().map(DraftPlan::from),
        }
    }
}

/// A rule that is broken, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The service's number in the list that was checked; `None`: all together.
    pub service: Option<usize>,
    /// What errors call it.
    pub label: String,
    /// The part of it.
    pub part: Part,
    /// What is wrong and what to do.
    pub rule: Rule,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.rule)
    }
}

impl Violation {
    /// The place in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self.part {
            Part::Whole => self.label.clone(),
            Part::Key(key) => format!("{}, {key}", self.label),
            Part::Backend { cohort, index } => format!("{}, {cohort} backend {}", self.label, index + 1),
            Part::Step { index } => format!("{}, step {}", self.label, index + 1),
            Part::Check { index } => format!("{}, check {}", self.label, index + 1),
            Part::Network { list: NetworkList::AlwaysCanary, .. } => format!("{}, always_canary", self.label),
            Part::Network { list: NetworkList::NeverCanary, .. } => format!("{}, never_canary", self.label),
        }
    }
}

/// A part of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The service as such.
    Whole,
    /// A key, as in the configuration.
    Key(&'static str),
    /// A backend.
    Backend {
        /// Its cohort.
        cohort: Cohort,
        /// Its number there, from 0.
        index: usize,
    },
    /// A step of its rollout.
    Step {
        /// Its number, from 0.
        index: usize,
    },
    /// A check of its rollout.
    Check {
        /// Its number, from 0.
        index: usize,
    },
    /// A network.
    Network {
        /// Its list.
        list: NetworkList,
        /// Its number there, from 0.
        index: usize,
    },
}

/// What must hold. The message says what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is and what its fields are")]
pub enum Rule {
    #[error("the name is taken by an earlier service: give each service a name of its own")]
    DuplicateName,
    #[error("{protocol} {address} is the address of {other} already: use another address or port")]
    Overlap { protocol: Protocol, address: SocketAddr, other: String },
    #[error("{address} {fault}")]
    Address { address: SocketAddr, fault: Fault },
    #[error(
        "{address} is {}, but the service's address {service} is {}: a service is of one family, write a second service for the other",
        family(address.ip()), family(service.ip())
    )]
    BackendFamily { address: SocketAddr, service: SocketAddr },
    #[error("{address} is {first} already: list a backend once, and give it a larger weight for a larger share")]
    BackendTwice { address: SocketAddr, first: String },
    #[error("{address} is {first} already: a backend runs one version, list it in one cohort")]
    BackendInBothCohorts { address: SocketAddr, first: String },
    #[error("{address} is the address of {other}: a backend is a server behind the splitter, not a service of it")]
    BackendIsService { address: SocketAddr, other: String },
    #[error("{address} has another port than the service: dsr rewrites no ports, so the backend must listen on {port}")]
    DsrPort { address: SocketAddr, port: u16 },
    #[error("there is no stable backend: list at least one, for everything that isn't the canary's goes there")]
    NoStable,
    #[error("every stable backend is draining: keep at least one that takes new connections")]
    AllStableDraining,
    #[error(
        "{address} is a NAT address, and its port lies in the NAT ports {}-{}: use another address, or move [nat] ports",
        ports.low, ports.high
    )]
    NatPort { address: SocketAddr, ports: PortRange },
    #[error(
        "[nat] addresses holds no {family} address for this nat service: add one, or leave addresses out to use the node's own"
    )]
    NatFamily { family: &'static str },
    #[error(
        "{network} is {}, but the service's address {service} is {}: its clients are never in that network",
        family(network.addr()), family(service.ip())
    )]
    NetworkFamily { network: IpNet, service: SocketAddr },
    #[error("{network} has bits set behind its prefix: write {right}")]
    HostBits { network: IpNet, right: IpNet },
    #[error("{network} is IPv4 written as IPv6, which clients never are on the wire: write the IPv4 network")]
    MappedNetwork { network: IpNet },
    #[error("{network} is in always_canary and in never_canary: a network is in one of the two")]
    NetworkInBoth { network: IpNet },
    #[error("there is no limit: set at least one of refused, reset and timeout, or leave the section out")]
    NoLimit,
    #[error("the breaker has no limit: set at least one of refused, timeout, reset and retransmit, or leave the section out")]
    NoTrip,
    #[error("{limit} can never be crossed: use a limit below 100%, or leave it out")]
    LimitNeverCrossed { limit: Weight },
    #[error("in dsr mode refusals go straight to the client, so they aren't seen: limit timeout instead")]
    RefusedInDsr,
    #[error(
        "in dsr mode what the backend sends goes straight to the client, so its resets aren't seen: limit timeout or retransmit instead"
    )]
    ResetInDsr,
    #[error("UDP has no RST, so there is nothing to count: limit timeout instead")]
    ResetInUdp,
    #[error("UDP has no SYN to be sent again: limit timeout instead")]
    RetransmitInUdp,
    #[error(
        "of UDP in dsr mode nothing is seen but the client's packets, so nothing can be limited: use mode nat, or leave the section out"
    )]
    UdpInDsr,
    #[error("there is no step: list at least one, such as \"100%\"")]
    NoSteps,
    #[error("there are {count} steps: use at most {most}, and \"1% to 10% over 30m\" for a weight that rises slowly")]
    TooManySteps { count: usize, most: usize },
    #[error(
        "the first step's weight is 0%, which tries nothing: begin with at least 0.01%, and hold a rollout at its start by a gate"
    )]
    FirstStepIsNothing,
    #[error("weight falls from {from} to {to}: each step's is at least the one's before; to go back, abort the rollout")]
    WeightFalls { from: Weight, to: Weight },
    #[error(
        "the ramp from {from} to {to} does not rise: write the lower weight first, or \"{to} for {}\" to stay there",
        format_duration(*lasts)
    )]
    RampFalls { from: Weight, to: Weight, lasts: Duration },
    #[error("the ramp begins at {from}, below the {before} of the step before: begin it at {before} or above")]
    RampBeginsBelow { from: Weight, before: Weight },
    #[error(
        "the gate names check \"{name}\", which there isn't: write a [[service.rollout.check]] of that name, or name another"
    )]
    UnknownGateCheck { name: String },
    #[error("the name \"{name}\" is taken by check {first}: give each check a name of its own")]
    CheckTwice { name: String, first: usize },
    #[error(
        "timeout ({}) is longer than interval ({}): wait shorter, or ask less often",
        format_duration(*timeout), format_duration(*interval)
    )]
    TimeoutAboveInterval { timeout: Duration, interval: Duration },
    #[error("nothing says which numbers are bad: set max, min or both")]
    NoBound,
    #[error("max ({max}) is below min ({min}), so no number passes: swap them, or leave one out")]
    NothingPasses { max: String, min: String },
    #[error(
        "the steps take {}, so a deadline of {} always ends the rollout first: make it longer, with room for gates and verdicts",
        format_duration(*take), format_duration(*deadline)
    )]
    DeadlineTooShort { deadline: Duration, take: Duration },
    #[error(
        "of UDP in dsr mode nothing is seen but the client's packets, so nothing can be compared: use mode nat, or leave the section out"
    )]
    CompareInUdpDsr,
    #[error(
        "of UDP in dsr mode nothing is seen but the client's packets, so no outcome is known and no step would be passed: use mode nat, or set min_connections = 0"
    )]
    ConnectionsInUdpDsr,
    #[error("{count} {what} are asked for, but [tables] {what} is {room}: raise it")]
    TooMany { what: &'static str, count: usize, room: u32 },
}

/// Why an address can't be a service's or a backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum Fault {
    #[error("is the unspecified address, nobody's: write the address itself")]
    Unspecified,
    #[error("is a loopback address, which never comes in by an interface: write the address that the network knows")]
    Loopback,
    #[error("is a multicast address: connections are split to unicast addresses alone")]
    Multicast,
    #[error("is the broadcast address: connections are split to unicast addresses alone")]
    Broadcast,
    #[error("is IPv4 written as IPv6: write the IPv4 address")]
    Mapped,
    #[error("has a zone: write an address that is unique without one")]
    Zone,
    #[error("has port 0: write the port that is listened on")]
    PortZero,
}

/// What keeps an IP address from being a server's, if anything.
#[must_use]
pub fn fault(address: IpAddr) -> Option<Fault> {
    let mapped = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    match address {
        _ if address.is_unspecified() => Some(Fault::Unspecified),
        _ if address.is_loopback() => Some(Fault::Loopback),
        _ if address.is_multicast() => Some(Fault::Multicast),
        _ if mapped(address) => Some(Fault::Mapped),
        IpAddr::V4(v4) if v4.is_broadcast() => Some(Fault::Broadcast),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn socket_fault(address: SocketAddr) -> Option<Fault> {
    let zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    fault(address.ip()).or(zone.then_some(Fault::Zone)).or((address.port() == 0).then_some(Fault::PortZero))
}

/// Holds valid services against the rules.
#[must_use]
pub fn check_services(services: &[Service], nat: &Nat, tables: &Tables) -> Vec<Violation> {
    let drafts: Vec<Draft> = services.iter().map(Draft::from).collect();
    check(&drafts, Some(nat), Some(tables))
}

/// Every rule that is broken, in the order of the services.
#[must_use]
pub fn check(drafts: &[Draft], nat: Option<&Nat>, tables: Option<&Tables>) -> Vec<Violation> {
    let mut broken = Vec::new();
    between_services(drafts, &mut broken);
    let mut addresses: HashMap<SocketAddr, &str> = HashMap::new();
    for draft in drafts {
        if let Some(address) = draft.address {
            addresses.entry(address).or_insert(&draft.label);
        }
    }
    for (index, draft) in drafts.iter().enumerate() {
        let mut add = |part, rule| broken.push(Violation { service: Some(index), label: draft.label.clone(), part, rule });
        if let Some(address) = draft.address {
            if let Some(fault) = socket_fault(address) {
                add(Part::Key("address"), Rule::Address { address, fault });
            }
            if let Some(nat) = nat {
                nat_rules(draft.mode, address, nat, &mut add);
            }
        }
        backends(draft, &addresses, &mut add);
        networks(draft, &mut add);
        if let Some(breach) = &draft.breach {
            limits(draft, breach, &mut add);
        }
        if let Some(breaker) = &draft.breaker {
            trips(draft, breaker, &mut add);
        }
        if let Some(plan) = &draft.rollout {
            rollout::rollout(draft, plan, &mut add);
        }
    }
    if let Some(tables) = tables {
        sizes(drafts, tables, &mut broken);
    }
    broken
}

fn between_services(drafts: &[Draft], broken: &mut Vec<Violation>) {
    let mut names = HashSet::new();
    let mut taken: HashMap<(Protocol, SocketAddr), &str> = HashMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let mut add =
            |key, rule| broken.push(Violation { service: Some(index), label: draft.label.clone(), part: Part::Key(key), rule });
        if let Some(name) = &draft.name
            && !names.insert(name)
        {
            add("name", Rule::DuplicateName);
        }
        let (Some(protocol), Some(address)) = (draft.protocol, draft.address) else { continue };
        if let Some(other) = taken.get(&(protocol, address)) {
            add("address", Rule::Overlap { protocol, address, other: (*other).to_owned() });
        } else {
            taken.insert((protocol, address), &draft.label);
        }
    }
}

fn nat_rules(mode: Option<Mode>, address: SocketAddr, nat: &Nat, add: &mut impl FnMut(Part, Rule)) {
    if nat.addresses.contains(&address.ip()) && nat.ports.contains(address.port()) {
        add(Part::Key("address"), Rule::NatPort { address, ports: nat.ports });
    }
    let same_family = |own: &IpAddr| own.is_ipv4() == address.is_ipv4();
    if mode == Some(Mode::Nat) && !nat.addresses.is_empty() && !nat.addresses.iter().any(same_family) {
        add(Part::Key("address"), Rule::NatFamily { family: family(address.ip()) });
    }
}

fn backends(draft: &Draft, services: &HashMap<SocketAddr, &str>, add: &mut impl FnMut(Part, Rule)) {
    let mut seen: HashMap<SocketAddr, &DraftBackend> = HashMap::new();
    for backend in &draft.backends {
        let DraftBackend { cohort, index, address, .. } = *backend;
        let part = Part::Backend { cohort, index };
        let fault = socket_fault(address);
        if let Some(fault) = fault {
            add(part, Rule::Address { address, fault });
        }
        if let Some(first) = seen.get(&address) {
            let named = format!("{} backend {}", first.cohort, first.index + 1);
            let both = first.cohort != cohort;
            add(
                part,
                if both {
                    Rule::BackendInBothCohorts { address, first: named }
                } else {
                    Rule::BackendTwice { address, first: named }
                },
            );
        } else {
            seen.insert(address, backend);
        }
        if let Some(other) = services.get(&address) {
            add(part, Rule::BackendIsService { address, other: (*other).to_owned() });
        }
        // The family of a mapped address is in doubt, and the mapping was named.
        let in_doubt = [fault, draft.address.and_then(socket_fault)].contains(&Some(Fault::Mapped));
        let Some(service) = draft.address.filter(|_| !in_doubt) else { continue };
        if service.is_ipv4() != address.is_ipv4() {
            add(part, Rule::BackendFamily { address, service });
        } else if draft.mode == Some(Mode::Dsr) && service.port() != address.port() {
            add(part, Rule::DsrPort { address, port: service.port() });
        }
    }
    let mut stable = draft.backends.iter().filter(|backend| backend.cohort == Cohort::Stable).peekable();
    if draft.stable_unknown {
        return;
    }
    if stable.peek().is_none() {
        add(Part::Key("stable"), Rule::NoStable);
    } else if stable.all(|backend| backend.draining) {
        add(Part::Key("stable"), Rule::AllStableDraining);
    }
}

fn networks(draft: &Draft, add: &mut impl FnMut(Part, Rule)) {
    let always: HashSet<IpNet> = draft.always_canary.iter().copied().collect();
    for (list, networks) in [(NetworkList::AlwaysCanary, &draft.always_canary), (NetworkList::NeverCanary, &draft.never_canary)] {
        for (index, network) in networks.iter().copied().enumerate() {
            let part = Part::Network { list, index };
            let right = network.trunc();
            if network != right {
                add(part, Rule::HostBits { network, right });
                continue;
            }
            if network.prefix_len() >= 96 && fault(network.addr()) == Some(Fault::Mapped) {
                add(part, Rule::MappedNetwork { network });
            } else if let Some(service) = draft.address
                && service.is_ipv4() != network.addr().is_ipv4()
            {
                add(part, Rule::NetworkFamily { network, service });
            }
            if list == NetworkList::NeverCanary && always.contains(&network) {
                add(part, Rule::NetworkInBoth { network });
            }
        }
    }
}

fn limits(draft: &Draft, breach: &Breach, add: &mut impl FnMut(Part, Rule)) {
    let limits = [("breach.refused", breach.refused), ("breach.reset", breach.reset), ("breach.timeout", breach.timeout)];
    if limits.iter().all(|(_, limit)| limit.is_none()) {
        add(Part::Key("breach"), Rule::NoLimit);
    }
    for (key, limit) in limits {
        let Some(limit) = limit else { continue };
        if limit == Weight::ALL {
            add(Part::Key(key), Rule::LimitNeverCrossed { limit });
        }
        if key == "breach.reset" && draft.protocol == Some(Protocol::Udp) {
            add(Part::Key(key), Rule::ResetInUdp);
        } else if key == "breach.refused" && draft.mode == Some(Mode::Dsr) {
            add(Part::Key(key), Rule::RefusedInDsr);
        }
    }
}

fn trips(draft: &Draft, breaker: &Breaker, add: &mut impl FnMut(Part, Rule)) {
    let (udp, dsr) = (draft.protocol == Some(Protocol::Udp), draft.mode == Some(Mode::Dsr));
    if udp && dsr {
        return add(Part::Key("breaker"), Rule::UdpInDsr);
    }
    let limits = [
        ("breaker.refused", breaker.refused, dsr.then_some(Rule::RefusedInDsr)),
        ("breaker.timeout", breaker.timeout, None),
        ("breaker.reset", breaker.reset, udp.then_some(Rule::ResetInUdp).or(dsr.then_some(Rule::ResetInDsr))),
        ("breaker.retransmit", breaker.retransmit, udp.then_some(Rule::RetransmitInUdp)),
    ];
    if limits.iter().all(|(_, limit, _)| limit.is_none()) {
        add(Part::Key("breaker"), Rule::NoTrip);
    }
    for (key, limit, unseen) in limits {
        let Some(limit) = limit else { continue };
        if limit == Weight::ALL {
            add(Part::Key(key), Rule::LimitNeverCrossed { limit });
        }
        if let Some(rule) = unseen {
            add(Part::Key(key), rule);
        }
    }
}

fn sizes(drafts: &[Draft], tables: &Tables, broken: &mut Vec<Violation>) {
    let backends = drafts.iter().map(|draft| draft.backends.len()).sum();
    let networks = drafts.iter().map(|draft| draft.always_canary.len() + draft.never_canary.len()).sum();
    for (what, count, room) in [
        ("services", drafts.len(), tables.services),
        ("backends", backends, tables.backends),
        ("networks", networks, tables.networks),
    ] {
        if u32::try_from(count).is_ok_and(|count| count <= room) {
            continue;
        }
        let rule = Rule::TooMany { what, count, room };
        broken.push(Violation { service: None, label: "[tables]".to_owned(), part: Part::Key(what), rule });
    }
}

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
