//! For tests: values with everything in them, and an agent's core that writes down what it was asked.

mod history;
pub mod rollout;

use std::{
    collections::VecDeque,
    future::pending,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

pub use history::{history, plan};

use super::{
    command::{Caller, CommandError, CommandErrorKind, CommandResult, Commands},
    wire::{
        AddBackend, AgentStatus, AttachMode, BackendList, BackendState, BackendStatus, BreakerStatus, Check, CheckResult,
        CohortStatus, Counters, Decision, Detached, DoctorReport, Event, ExplainRequest, Explanation, Flip, FlipCause,
        FlipRequest, History, Hypothetical, InterfaceStatus, LeaseStatus, MaglevSlot, NetworkChange, NetworkChanged, Networks,
        Place, RanOut, Recent, Reload, ResumeWord, RolloutAction, RolloutBrief, RolloutStatus, Rule, ServiceStatus, Status,
        Times, TraceFilter, TraceRecord, Traffic, Trip, Verdict, VersionInfo, Way, WeightSource, Weights,
    },
};
use crate::{
    model::{Affinity, BackendWeight, Cohort, Existing, Mode, OnLeaseExpiry, Protocol, ServiceName, Weight},
    store::{self, Abort, EventKind, Finding, FlipReason, Moved, Sample, TripCause, TripFinding, TripTally},
};

/// What was asked of a [`Fake`].
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Status(Option<ServiceName>),
    SetWeight(ServiceName, Weight, Caller),
    Flip(ServiceName, FlipRequest, Caller),
    Unflip(ServiceName, Caller),
    Backends(ServiceName),
    AddBackend(ServiceName, AddBackend, Caller),
    RemoveBackend(ServiceName, SocketAddr, Caller),
    DrainBackend(ServiceName, SocketAddr, bool, Caller),
    SetBackendWeight(ServiceName, SocketAddr, BackendWeight, Caller),
    Networks(ServiceName),
    ChangeNetworks(ServiceName, NetworkChange, Caller),
    Explain(ServiceName, ExplainRequest),
    Events(bool),
    Trace(ServiceName, TraceFilter),
    Reload(Caller),
    Detach(Caller),
    Doctor,
    Rollout(ServiceName),
    ChangeRollout(ServiceName, RolloutAction, Caller),
    History(Option<ServiceName>, u32),
}

/// An agent's core with the services of [`status`]: `web` and `dns`. Changes are written down and change nothing.
#[derive(Default)]
pub struct Fake {
    asked: Mutex<Vec<Asked>>,
    fails: Option<CommandError>,
    hangs: bool,
    rollouts: Mutex<VecDeque<CommandResult<RolloutStatus>>>,
}

impl Fake {
    /// Every command fails so.
    pub fn failing(error: CommandError) -> Self {
        Self { fails: Some(error), ..Self::default() }
    }

    /// No command is ever answered.
    pub fn hanging() -> Self {
        Self { hangs: true, ..Self::default() }
    }

    /// Every question about a rollout, and every change of one, is answered by the next of these; the last stays.
    pub fn with_rollouts(answers: impl IntoIterator<Item = CommandResult<RolloutStatus>>) -> Self {
        Self { rollouts: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    fn next_rollout(&self, service: &ServiceName) -> CommandResult<RolloutStatus> {
        found(service)?;
        let mut answers = self.rollouts.lock().unwrap_or_else(PoisonError::into_inner);
        let last = answers.len() <= 1;
        let next = if last { answers.front().cloned() } else { answers.pop_front() };
        match next {
            Some(answer) => answer,
            None if *service == name("web") => Ok(rollout::status()),
            None => Err(CommandError::no_rollout(service)),
        }
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask(&self, what: Asked) -> CommandResult<()> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        if self.hangs {
            pending::<()>().await;
        }
        self.fails.clone().map_or(Ok(()), Err)
    }
}

fn found(service: &ServiceName) -> CommandResult<ServiceStatus> {
    status().services.into_iter().find(|s| s.name == *service).ok_or_else(|| CommandError::no_service(service))
}

fn list(service: &ServiceName) -> CommandResult<BackendList> {
    let found = found(service)?;
    Ok(BackendList { service: found.name, cohorts: found.cohorts })
}

impl Commands for Fake {
    async fn version(&self) -> CommandResult<VersionInfo> {
        Ok(VersionInfo { version: "0.1.0".to_owned(), api: 1 })
    }

    async fn status(&self, service: Option<ServiceName>) -> CommandResult<Status> {
        self.ask(Asked::Status(service.clone())).await?;
        let mut all = status();
        if let Some(service) = service {
            all.services = vec![found(&service)?];
        }
        Ok(all)
    }

    async fn set_weight(&self, service: ServiceName, weight: Weight, by: Caller) -> CommandResult<ServiceStatus> {
        self.ask(Asked::SetWeight(service.clone(), weight, by)).await?;
        let mut found = found(&service)?;
        let in_force = if found.flip.is_some() { Weight::ZERO } else { weight };
        found.weights = Weights { asked: weight, in_force: Some(in_force), source: WeightSource::Command };
        Ok(found)
    }

    async fn flip(&self, service: ServiceName, request: FlipRequest, by: Caller) -> CommandResult<ServiceStatus> {
        self.ask(Asked::Flip(service.clone(), request.clone(), by.clone())).await?;
        let mut found = found(&service)?;
        found.flip = Some(Flip { by: by.to_string(), reason: request.reason, existing: request.existing, ..flip() });
        Ok(found)
    }

    async fn unflip(&self, service: ServiceName, by: Caller) -> CommandResult<ServiceStatus> {
        self.ask(Asked::Unflip(service.clone(), by)).await?;
        let mut found = found(&service)?;
        if found.flip.take().is_none() {
            return Err(CommandError::new(CommandErrorKind::Conflict, format!("service `{service}` is not flipped")));
        }
        found.weights.in_force = Some(found.weights.asked);
        Ok(found)
    }

    async fn backends(&self, service: ServiceName) -> CommandResult<BackendList> {
        self.ask(Asked::Backends(service.clone())).await?;
        list(&service)
    }

    async fn add_backend(&self, service: ServiceName, backend: AddBackend, by: Caller) -> CommandResult<BackendList> {
        self.ask(Asked::AddBackend(service.clone(), backend, by)).await?;
        list(&service)
    }

    async fn remove_backend(&self, service: ServiceName, backend: SocketAddr, by: Caller) -> CommandResult<BackendList> {
        self.ask(Asked::RemoveBackend(service.clone(), backend, by)).await?;
        list(&service)
    }

    async fn drain_backend(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        drain: bool,
        by: Caller,
    ) -> CommandResult<BackendList> {
        self.ask(Asked::DrainBackend(service.clone(), backend, drain, by)).await?;
        let list = list(&service)?;
        if !list.cohorts.iter().flat_map(|c| &c.backends).any(|b| b.address == backend) {
            return Err(CommandError::no_backend(&service, backend));
        }
        Ok(list)
    }

    async fn set_backend_weight(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        weight: BackendWeight,
        by: Caller,
    ) -> CommandResult<BackendList> {
        self.ask(Asked::SetBackendWeight(service.clone(), backend, weight, by)).await?;
        list(&service)
    }

    async fn networks(&self, service: ServiceName) -> CommandResult<Networks> {
        self.ask(Asked::Networks(service.clone())).await?;
        found(&service)?;
        Ok(networks())
    }

    async fn change_networks(&self, service: ServiceName, change: NetworkChange, by: Caller) -> CommandResult<NetworkChanged> {
        self.ask(Asked::ChangeNetworks(service.clone(), change.clone(), by)).await?;
        let (added, removed) = (change.add.len() as u64, change.remove.len() as u64);
        Ok(NetworkChanged { service, list: change.list, added, removed, total: 7 })
    }

    async fn explain(&self, service: ServiceName, request: ExplainRequest) -> CommandResult<Explanation> {
        self.ask(Asked::Explain(service.clone(), request)).await?;
        let found = found(&service)?;
        if request.port.is_none() && found.affinity == Affinity::Connection {
            return Err(CommandError::port_needed(&service, &request));
        }
        let full = explanation();
        Ok(Explanation {
            service,
            client: request.client,
            port: request.port,
            at: full.at.filter(|_| request.at.is_some()),
            ..full
        })
    }

    async fn events(&self, follow: bool) -> CommandResult<BoxStream<'static, Event>> {
        self.ask(Asked::Events(follow)).await?;
        let kept = stream::iter(events());
        Ok(if follow { kept.chain(stream::pending()).boxed() } else { kept.boxed() })
    }

    async fn trace(&self, service: ServiceName, filter: TraceFilter) -> CommandResult<BoxStream<'static, TraceRecord>> {
        self.ask(Asked::Trace(service.clone(), filter)).await?;
        found(&service)?;
        Ok(stream::iter(trace()).cycle().boxed())
    }

    async fn reload(&self, by: Caller) -> CommandResult<Reload> {
        self.ask(Asked::Reload(by)).await?;
        Ok(Reload { at: time("2026-03-01T10:00:00Z"), ok: true, message: "weight of `web`: 5% to 10%".to_owned() })
    }

    async fn detach(&self, by: Caller) -> CommandResult<Detached> {
        self.ask(Asked::Detach(by)).await?;
        Ok(Detached { interfaces: vec!["eth0".to_owned()] })
    }

    async fn doctor(&self) -> CommandResult<DoctorReport> {
        self.ask(Asked::Doctor).await?;
        Ok(doctor())
    }

    async fn rollout(&self, service: ServiceName) -> CommandResult<RolloutStatus> {
        self.ask(Asked::Rollout(service.clone())).await?;
        self.next_rollout(&service)
    }

    async fn change_rollout(&self, service: ServiceName, action: RolloutAction, by: Caller) -> CommandResult<RolloutStatus> {
        self.ask(Asked::ChangeRollout(service.clone(), action, by)).await?;
        self.next_rollout(&service)
    }

    async fn history(&self, service: Option<ServiceName>, limit: u32) -> CommandResult<History> {
        self.ask(Asked::History(service.clone(), limit)).await?;
        let mut all = history();
        all.rollouts.retain(|rollout| service.as_ref().is_none_or(|name| rollout.service == *name));
        all.rollouts.truncate(limit as usize);
        Ok(all)
    }
}

pub fn name(name: &str) -> ServiceName {
    name.parse().expect("a name in a test is right")
}

pub fn weight(weight: &str) -> Weight {
    weight.parse().expect("a weight in a test is right")
}

pub fn address(address: &str) -> SocketAddr {
    address.parse().expect("an address in a test is right")
}

pub fn time(time: &str) -> jiff::Timestamp {
    time.parse().expect("a time in a test is right")
}

fn share(weight: u32) -> BackendWeight {
    BackendWeight::try_from(weight).expect("a backend's weight in a test is right")
}

fn flip() -> Flip {
    Flip {
        at: time("2026-03-01T09:30:00.25Z"),
        by: "agent".to_owned(),
        cause: FlipCause::Refused,
        reason: Some("canary refused 12 of 80 attempts in 10 s; limit 5%".to_owned()),
        existing: Existing::Reset,
    }
}

fn way(last: u8) -> Way {
    Way::Known { interface: "eth1".to_owned(), mac: format!("02:00:00:00:00:{last:02x}") }
}

/// A `nat` service that was ramped by hand, and a `dsr` one over IPv6 that is flipped and has all that can go wrong.
pub fn status() -> Status {
    Status {
        agent: AgentStatus {
            version: "0.1.0".to_owned(),
            pid: 4242,
            started_at: time("2026-03-01T08:00:00Z"),
            adoptions: 1,
            interfaces: vec![
                InterfaceStatus { name: "eth0".to_owned(), mode: AttachMode::Native },
                InterfaceStatus { name: "eth1".to_owned(), mode: AttachMode::Generic },
            ],
            lease: Some(LeaseStatus {
                length_ms: 10_000,
                left_ms: 9_930,
                resume: ResumeWord::Auto,
                ran_out: Some(RanOut { at: time("2026-03-01T08:12:00.5Z"), lasted_ms: 4_250 }),
            }),
            last_reload: Some(Reload {
                at: time("2026-03-01T09:00:00Z"),
                ok: false,
                message: "service \"web\": `weigth` is not a key; did you mean `weight`?".to_owned(),
            }),
            alerts: vec!["eth1: the driver has no native XDP; packets are split slowly".to_owned()],
        },
        services: vec![web(), dns()],
    }
}

fn web() -> ServiceStatus {
    let backend = |address: &str, weight, state, connections, counters| BackendStatus {
        address: self::address(address),
        weight: share(weight),
        state,
        connections: Some(connections),
        way: way(u8::try_from(weight).expect("small")),
        counters: Some(counters),
    };
    let counters = |scale: u64, refused| Counters {
        to_backend: Traffic { packets: 1_000 * scale, bytes: 90_000 * scale },
        from_backend: Some(Traffic { packets: 1_100 * scale, bytes: 1_500_000 * scale }),
        opened: 100 * scale + refused,
        completed: 100 * scale,
        refused: Some(refused),
        timed_out: 2,
        reset: 1,
        closed: 90 * scale,
        reset_by_backend: Some(1),
        unreachable: Some(refused / 4),
        retransmitted: Some(3),
        established: Some(100 * scale),
        ended: Some(100 * scale - scale / 24),
    };
    let recent = |attempts, failed, handshake| Recent {
        window_ms: 58_000,
        attempts,
        resolved: attempts,
        failed,
        failure_ratio: (attempts >= 10).then_some(failed as f64 / attempts as f64),
        handshake: Some(handshake),
        first_response: Some(Times { count: 4, p50_us: None, p90_us: None, p99_us: None }),
    };
    let fast = Times { count: 5_510, p50_us: Some(412), p90_us: Some(1_234), p99_us: Some(10_300) };
    let few = Times { count: 75, p50_us: Some(1_020_000), p90_us: Some(1_310_000), p99_us: None };
    ServiceStatus {
        name: name("web"),
        protocol: Protocol::Tcp,
        address: address("192.0.2.10:80"),
        mode: Mode::Nat,
        affinity: Affinity::Connection,
        weights: Weights { asked: weight("5%"), in_force: Some(weight("5%")), source: WeightSource::Rollout },
        flip: None,
        breaker: Some(BreakerStatus { tripped: false, trip: None }),
        on_lease_expiry: Some(OnLeaseExpiry::Stable),
        canary_fallback: Some(0),
        refusals: [("unknown_connection".to_owned(), 3)].into(),
        cohorts: vec![
            CohortStatus {
                recent: Some(recent(5_510, 1, fast)),
                ..CohortStatus::new(
                    Cohort::Stable,
                    vec![
                        backend("10.1.0.2:8080", 1, BackendState::Active, 812, counters(19_000, 0)),
                        backend("10.1.0.3:8080", 2, BackendState::Draining, 7, counters(38, 0)),
                    ],
                )
            },
            CohortStatus {
                recent: Some(recent(92, 17, few)),
                ..CohortStatus::new(
                    Cohort::Canary,
                    vec![backend("10.1.0.4:8080", 1, BackendState::Active, 43, counters(1_000, 17))],
                )
            },
        ],
        alerts: vec![],
        rollout: Some(RolloutBrief::from(rollout::status())),
    }
}

fn dns() -> ServiceStatus {
    let counters = Counters {
        to_backend: Traffic { packets: 123_456, bytes: 9_876_543 },
        from_backend: None,
        opened: 4_321,
        completed: 4_300,
        refused: None,
        timed_out: 21,
        reset: 0,
        closed: 4_200,
        reset_by_backend: None,
        unreachable: None,
        retransmitted: None,
        established: Some(4_300),
        ended: Some(4_220),
    };
    let trip = Trip {
        at: time("2026-03-01T09:30:00.24Z"),
        cause: TripCause::Timeout,
        reason: "timeout 6 of 30 (20.00%) on canary, above the breaker's limit of 5%; 0 of 0 on stable".to_owned(),
    };
    ServiceStatus {
        name: name("dns"),
        protocol: Protocol::Udp,
        address: address("[2001:db8::53]:53"),
        mode: Mode::Dsr,
        affinity: Affinity::Client,
        weights: Weights { asked: weight("0.25%"), in_force: Some(Weight::ZERO), source: WeightSource::Configuration },
        flip: Some(flip()),
        breaker: Some(BreakerStatus { tripped: true, trip: Some(trip) }),
        on_lease_expiry: Some(OnLeaseExpiry::Hold),
        canary_fallback: None,
        refusals: [].into(),
        cohorts: vec![
            CohortStatus::new(
                Cohort::Stable,
                vec![BackendStatus {
                    address: address("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111]:53"),
                    weight: BackendWeight::ONE,
                    state: BackendState::Active,
                    connections: Some(80),
                    way: way(9),
                    counters: Some(counters),
                }],
            ),
            CohortStatus::new(
                Cohort::Canary,
                vec![BackendStatus {
                    address: address("[2001:db8::54]:53"),
                    weight: BackendWeight::ONE,
                    state: BackendState::Unreachable,
                    connections: None,
                    way: Way::Missing { missing: "no neighbour 2001:db8::54 on eth1".to_owned() },
                    counters: None,
                }],
            ),
        ],
        alerts: vec!["no canary backend is reachable".to_owned()],
        rollout: None,
    }
}

pub fn networks() -> Networks {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix in a test is right")).collect();
    Networks {
        service: name("web"),
        always_canary: nets(&["10.9.0.0/16", "198.51.100.7/32"]),
        never_canary: nets(&["203.0.113.0/24"]),
    }
}

/// Stable now, canary at 25%.
pub fn explanation() -> Explanation {
    let place = Place(0x2fae_147b);
    let decision = |rule, at: &str, threshold, cohort, index, backend: &str, last| Decision {
        rule,
        hash: "2fae147b9c0ffee1".to_owned(),
        place,
        weight: weight(at),
        threshold,
        cohort: Some(cohort),
        slot: Some(MaglevSlot { index, table_size: 4093 }),
        backend: Some(address(backend)),
        way: Some(way(last)),
    };
    Explanation {
        service: name("web"),
        client: address("198.51.100.23:40000").ip(),
        port: Some(40_000),
        decision: decision(Rule::PlaceAboveWeight, "5%", 214_748_365, Cohort::Stable, 2497, "10.1.0.2:8080", 1),
        at: Some(Hypothetical {
            weight: weight("25%"),
            decision: decision(Rule::PlaceBelowWeight, "25%", 1_073_741_824, Cohort::Canary, 2497, "10.1.0.4:8080", 4),
        }),
    }
}

pub fn events() -> Vec<Event> {
    let event =
        |id, at: &str, service: &str, kind| Event::from(store::Event { id, at: time(at), service: Some(name(service)), kind });
    let change = EventKind::WeightChanged { from: weight("1%"), to: weight("5%"), by: "alice".to_owned() };
    let finding = Finding {
        check: store::Check::Refused,
        canary: Sample { failures: 12, attempts: 80 },
        stable: Sample { failures: 1, attempts: 1_520 },
        limit: weight("5%"),
        window: Duration::from_secs(10),
    };
    let flip = EventKind::Flipped { reason: FlipReason::Breach { finding }, existing: Existing::Reset, by: "agent".to_owned() };
    let lapse = EventKind::LeaseRanOut {
        since: time("2026-03-01T10:00:00.5Z"),
        lasted: Duration::from_millis(4_250),
        to_stable: vec![name("web")],
        held: vec![name("dns")],
        resumed: true,
    };
    let canary = TripTally { attempts: 40, completed: 30, refused: 6, due: 35, ..TripTally::default() };
    let stable = TripTally { attempts: 700, completed: 690, refused: 1, ..TripTally::default() };
    let (cause, limit, tripped_at) = (TripCause::Refused, weight("5%"), time("2026-03-01T10:20:00Z"));
    let finding = TripFinding { cause, tripped_at, limit, canary, stable };
    let (existing, by) = (Existing::Reset, "the agent".to_owned());
    let trip = EventKind::Flipped { reason: FlipReason::Breaker { finding }, existing, by };
    let why = Abort::Person { by: "bob".to_owned() };
    let lapse = Event::from(store::Event { id: 19, at: time("2026-03-01T10:00:04.75Z"), service: None, kind: lapse });
    vec![
        event(17, "2026-03-01T09:10:00Z", "web", change),
        event(18, "2026-03-01T09:30:00.25Z", "dns", flip),
        lapse,
        event(20, "2026-03-01T10:20:00.001Z", "web", trip),
        event(21, "2026-03-01T10:30:00Z", "web", EventKind::Rollout { rollout: 3, what: Moved::Aborted { why } }),
    ]
}

pub fn trace() -> Vec<TraceRecord> {
    let record = |client: &str, verdict| TraceRecord {
        at: time("2026-03-01T09:31:00.5Z"),
        service: name("web"),
        protocol: Protocol::Tcp,
        client: address(client),
        verdict,
    };
    vec![
        record(
            "198.51.100.23:40000",
            Verdict::Forwarded {
                rule: Rule::NeverCanary { prefix: "198.51.100.0/24".parse().expect("a prefix") },
                cohort: Cohort::Stable,
                backend: address("10.1.0.2:8080"),
            },
        ),
        record("198.51.100.24:40001", Verdict::Refused { reason: "unknown_connection".to_owned() }),
    ]
}

pub fn doctor() -> DoctorReport {
    let check = |name: &str, subject: Option<&str>, result, finding: &str, remedy: Option<&str>| Check {
        name: name.to_owned(),
        subject: subject.map(str::to_owned),
        result,
        finding: finding.to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    DoctorReport {
        checks: vec![
            check("native_xdp", Some("eth0"), CheckResult::Ok, "attached in the driver", None),
            check(
                "neighbour",
                Some("dns [2001:db8::54]:53"),
                CheckResult::Fail,
                "no answer to neighbour solicitations on eth1",
                Some("see whether the backend is up: `ping 2001:db8::54`"),
            ),
        ],
    }
}
