//! One fault under a load of new connections, and what came of it.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use serde::Serialize;
use splitter_ebpf::breaker::Cause;
use splitter_user::{
    model::{Cohort, Mode},
    store::{EventKind, FlipReason},
};

use super::{Clock, Fault, Kind, Monotonic, Syn, Syns, Tripped, Trips};
use crate::{
    lab::Topology,
    node::{Family, Kind as Served, Site},
    workload::http::{self, Outcome, Pace},
};

/// What the agent does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// It runs
    Running,
    /// It was stopped with SIGSTOP before the fault
    Stopped,
    /// It was killed with SIGKILL before the fault
    Killed,
}

impl Agent {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
        }
    }
}

/// What is played. Attempts have 150 ms.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What breaks.
    pub kind: Kind,
    /// What the agent does meanwhile.
    pub agent: Agent,
    /// New connections a second.
    pub rate: f64,
    /// The canary's share of them.
    pub weight: &'static str,
    /// How long the load goes on after the trip.
    pub after: Duration,
    /// How long a trip is waited for; a fault that is not to trip lasts so long.
    pub patience: Duration,
    /// Of everything that the breaker can count.
    pub limit: &'static str,
    /// With fewer attempts in the breaker's window nothing trips.
    pub min_attempts: u64,
    /// How many times stable's share of failures the canary's has to be; `None`: nobody compares.
    pub worse_than_stable: Option<&'static str>,
    /// How long the canary has had its share, and served, when the fault begins; zero: its breaker's window is empty then, but for the first few.
    pub past: Duration,
}

/// A connection that took longer than this was held up.
const HELD_UP: Duration = Duration::from_millis(150);
/// The load runs for so long before anything happens.
const WARM_UP: Duration = Duration::from_millis(500);
/// A client gives up then.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
const LOAD_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);
const CLIENTS: u16 = 50;
const SERVICE: &str = "web4";

impl Plan {
    /// 1,000 connections a second, 5% of them to the canary.
    #[must_use]
    pub fn new(kind: Kind, agent: Agent) -> Self {
        let compares = kind == Kind::Both;
        Self {
            kind,
            agent,
            rate: 1_000.0,
            weight: "5%",
            after: Duration::from_secs(1),
            patience: Duration::from_secs(if compares { 2 } else { 15 }),
            limit: "5%",
            min_attempts: 20,
            worse_than_stable: compares.then_some("5x"),
            // Whoever compares has to have seen both for the same time: see docs/flip-latency.md.
            past: Duration::from_secs(if compares { 5 } else { 0 }),
        }
    }

    fn lines(&self) -> String {
        // Without an agent the lease would run out before long, and not only the breaker would send everything to stable.
        let limits = ["refused", "timeout", "reset", "retransmit"].map(|name| format!("{name} = {:?}\n", self.limit)).concat();
        let factor = self.worse_than_stable.map_or_else(String::new, |factor| format!("worse_than_stable = {factor:?}\n"));
        format!(
            "on_lease_expiry = \"hold\"\n[service.timeouts]\nconnect = \"150ms\"\n\
             [service.breaker]\n{limits}min_attempts = {}\nwindow = \"10s\"\n{factor}",
            self.min_attempts
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// The limit that tripped the breaker; none: it didn't.
    pub cause: Option<&'static str>,
    /// From the fault to the trip.
    pub flip: Option<Duration>,
    /// From the trip to the agent's flip, by the agent's own clock; where it runs.
    pub agent_flip: Option<Duration>,
    /// What was held against that limit: the canary's failures in the breaker's window.
    pub failures_at_trip: Option<u32>,
    /// Its samples in it.
    pub samples_at_trip: Option<u32>,
    /// New connections whose client sent its first SYN after the trip, and that reached a canary.
    pub canary_connections_after_trip: u64,
    /// SYNs that were sent again after the trip and still reached a canary.
    pub canary_retransmissions_after_trip: u64,
    /// Connections that were not answered as they should.
    pub failed: u64,
    /// Of those, the ones that failed after the trip though they had begun before: they were under way.
    pub failed_under_way: u64,
    /// Of those, the ones that had begun after the trip.
    pub failed_after_trip: u64,
    /// Connections that were answered, but not within 150 ms.
    pub held_up: u64,
    /// All new connections.
    pub connections: u64,
    /// New connections a second, as they came about.
    pub rate: f64,
}

impl Run {
    /// Plays it. Everything it has made is gone when it returns.
    ///
    /// # Errors
    /// When it cannot be played to its end; that something came out wrong is no error.
    pub fn play(plan: &Plan) -> Result<Self> {
        let has_past = !plan.past.is_zero();
        let builder = Site::builder(Topology::TwoArmSwitched, Mode::Nat).clients(CLIENTS).backends(2, plan.kind.canaries());
        let builder = builder.weight(if has_past { plan.weight } else { "0%" }).more(&plan.lines());
        let mut site = builder.prepare().context("the network and its servers")?;
        let mut fault = Fault::prepare(plan.kind, &mut site).context("preparing the fault")?;
        site.node.start().context("the agent")?;
        let (target, pins) = (site.target(Served::Web, Family::V4), site.node.pins().path().to_owned());
        let trips = Trips::of(&pins, target)?;

        let clients = Syns::start(site.lab.client(), "eth0")?;
        let canaries: Vec<Syns> =
            site.of(Cohort::Canary).map(|server| Syns::start(&server.namespace, "eth0")).collect::<Result<_, _>>()?;
        let load = http::Load { pace: Pace::PerSecond(plan.rate), duration: LOAD_LIMIT, ..site.web(Family::V4, u64::MAX) };
        let load = http::Load { timeout: CLIENT_TIMEOUT, ..load }.start(site.lab.client())?;
        let (begun, clock) = (load.begun, Clock::now());
        thread::sleep(if has_past { plan.past } else { WARM_UP });
        if !has_past {
            // The canary has no past in the breaker's window: whoever fails is among its first.
            site.node.run(&["weight", SERVICE, plan.weight]).context("raising the weight")?;
        }
        match plan.agent {
            Agent::Running => {}
            Agent::Stopped => site.node.signal(Signal::SIGSTOP)?,
            Agent::Killed => site.node.kill(),
        }
        ensure!(trips.look()?.is_none(), "the breaker has tripped before there was a fault: {:?}", trips.look()?);
        let broken = Monotonic::now();
        fault.begin(&site).context("beginning the fault")?;
        let tripped = wait(&trips, plan.patience)?;
        if tripped.is_some() {
            thread::sleep(plan.after);
        }
        let loaded = begun.elapsed();
        let report = load.stop()?;
        let (clients, canaries) = (clients.stop()?, canaries.into_iter().map(Syns::stop).collect::<Result<Vec<_>, _>>()?);

        let mut run = Self::of(&report.records, clock.of(begun), broken, tripped)?;
        let canaries = canaries.concat();
        if let Some(tripped) = tripped {
            ensure!(canaries.iter().any(|syn| syn.at < tripped.at), "the observer saw none of what tripped the breaker");
            let after = after(&clients, &canaries, tripped.at)?;
            (run.canary_connections_after_trip, run.canary_retransmissions_after_trip) = after;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of connections is far below 2^52")]
        let connections = run.connections as f64;
        run.rate = connections / loaded.as_secs_f64();
        if plan.agent == Agent::Running && tripped.is_some() {
            run.agent_flip = Some(agent_flip(&site)?);
        }
        Ok(run)
    }

    /// What clients saw.
    fn of(records: &[http::Record], load: Monotonic, broken: Monotonic, tripped: Option<Tripped>) -> Result<Self> {
        let mut run = Self::default();
        if let Some(Tripped { at, cause, canary }) = tripped {
            run.cause = Some(word(cause));
            run.flip = Some(at.since(broken).context("tripped before the fault")?);
            (run.failures_at_trip, run.samples_at_trip) = (Some(canary.failures), Some(canary.samples));
        }
        let moment = |offset: Duration| Monotonic(load.0 + u64::try_from(offset.as_nanos()).expect("a minute"));
        for record in records {
            let (begun, ended) = (moment(record.begun), moment(record.begun + record.took));
            run.connections += 1;
            match &record.outcome {
                Outcome::Answered(_) => run.held_up += u64::from(record.took > HELD_UP),
                Outcome::Refused | Outcome::Reset | Outcome::TimedOut | Outcome::Failed(_) => {
                    ensure!(ended >= broken, "a connection failed before there was a fault: {record:?}");
                    run.failed += 1;
                    if let Some(Tripped { at, .. }) = tripped {
                        run.failed_after_trip += u64::from(begun > at);
                        run.failed_under_way += u64::from(begun <= at && ended > at);
                    }
                }
            }
        }
        Ok(run)
    }
}

fn wait(trips: &Trips, patience: Duration) -> Result<Option<Tripped>> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(tripped) = trips.look()? {
            return Ok(Some(tripped));
        }
        thread::sleep(LOOK);
    }
    Ok(None)
}

/// Of the SYNs at canaries, those that their clients sent after a moment: connections that began then, and retransmissions of older ones.
///
/// The same sequence number tells the same SYN on both sides. A moment is set against that of the *client's* sending: what was under way at the trip isn't counted, all else is.
fn after(clients: &[Syn], canaries: &[Syn], moment: Monotonic) -> Result<(u64, u64)> {
    let mut sent: HashMap<u32, Vec<Monotonic>> = HashMap::new();
    for syn in clients {
        sent.entry(syn.sequence).or_default().push(syn.at);
    }
    let (mut begun, mut retransmitted) = (HashSet::new(), 0);
    for syn in canaries {
        let Some(sent) = sent.get(&syn.sequence) else { bail!("no client has sent {syn:?}") };
        // A moment of slack: the two observers' times are converted one by one.
        let last =
            sent.iter().rfind(|at| at.0 <= syn.at.0 + 1_000_000).with_context(|| format!("sent after it came: {syn:?}"))?;
        if sent[0] > moment {
            begun.insert(syn.sequence);
        } else if *last > moment {
            retransmitted += 1;
        }
    }
    Ok((begun.len() as u64, retransmitted))
}

/// From the trip to the flip, as the agent's events have them.
fn agent_flip(site: &Site) -> Result<Duration> {
    site.node.wait_until("a flip", |status| status.services.iter().any(|service| service.flip.is_some()))?;
    for event in site.node.events()? {
        if let EventKind::Flipped { reason: FlipReason::Breaker { finding }, .. } = &event.kind {
            let took = event.at.duration_since(finding.tripped_at);
            return Ok(Duration::try_from(took).unwrap_or_default());
        }
    }
    bail!("the agent has flipped the service for another reason: {:?}", site.node.service(SERVICE)?.flip)
}

const fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Refused => "refused",
        Cause::Timeout => "timeout",
        Cause::Reset => "reset",
        Cause::Retransmit => "retransmit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn syn(at: u64, sequence: u32) -> Syn {
        Syn { at: Monotonic(at * 1_000_000_000), sequence }
    }

    #[test]
    fn what_reaches_a_canary_after_the_trip_is_told_from_what_was_under_way() {
        let clients = [syn(1, 10), syn(2, 20), syn(2, 30), syn(3, 20), syn(4, 40), syn(5, 40), syn(6, 50)];
        let trip = Monotonic(2_500_000_000);
        let seen = |canaries: &[Syn]| after(&clients, canaries, trip).expect("all were sent");
        assert_eq!(seen(&[syn(1, 10), syn(2, 20), syn(2, 30)]), (0, 0));
        assert_eq!(seen(&[syn(3, 30)]), (0, 0), "sent before the trip, under way for long");
        assert_eq!(seen(&[syn(2, 20), syn(3, 20)]), (0, 1), "sent again");
        assert_eq!(seen(&[syn(4, 40), syn(5, 40), syn(6, 50)]), (2, 0), "one connection, however often it asks");
        assert!(after(&clients, &[syn(1, 99)], trip).is_err());
    }
}
