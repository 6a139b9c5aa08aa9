//! Carries events out, and sees that what was asked is in force afterwards.

mod agent;
mod asked;
mod trouble;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use splitter_user::{
    api::wire::{FlipCause, Status},
    model::{Cohort, Mode, Weight},
};

use super::{
    journal::{Invariant, Journal},
    load::Clients,
    model::Model,
    objects::Objects,
    rules::{Harm, Served},
    schedule::{Event, Kind as Happens},
    watch::Watch,
    world::{self, Start, World, services},
};
use crate::node::Kind;

/// The weight of the first configuration.
const WEIGHT: u16 = 2_000;
/// Weights that are asked for, in basis points.
const WEIGHTS: [u16; 8] = [0, 100, 500, 1_000, 2_500, 5_000, 7_500, 10_000];
/// How long it may take until what was asked is in force: a way that was lost has to be found again, on a machine with much else to do.
const SETTLES: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// A new agent may have loaded its programs a moment before the old ones are gone.
const OBJECTS_SETTLE: Duration = Duration::from_secs(20);
/// Attempts that backends refused.
const REFUSED: &str = "splitter_backend_connections_refused_total";

/// Whoever carries the events out.
#[derive(Debug)]
pub struct Driver<'a> {
    /// What stands.
    pub world: World,
    /// What was asked.
    pub model: Model,
    journal: &'a Journal,
    clients: &'a Clients<'a>,
    watch: &'a Watch,
    signal: &'a AtomicI32,
    /// All that was ever ours in the kernel.
    ever: Objects,
    /// What there was in the beginning.
    first: Objects,
    /// Leases that this agent has found to have run out.
    lapses: f64,
    /// Times that nobody had planned in which a lease had run out.
    pub unplanned_lapses: u64,
    /// An event could not be carried out: nobody knows how things stand, and the run ends.
    is_stuck: bool,
    /// Backends whose processes were killed in this event.
    killed: Vec<usize>,
    /// Attempts that backends had refused before it, by series.
    refused: BTreeMap<String, f64>,
}

/// One was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl<'a> Driver<'a> {
    /// Starts the agent.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(
        world: World,
        journal: &'a Journal,
        clients: &'a Clients<'a>,
        watch: &'a Watch,
        signal: &'a AtomicI32,
    ) -> Result<Self> {
        let model = Model::new(world.configured(), Weight::from_basis_points(WEIGHT)?);
        world.configure(&model)?;
        let (ever, first) = (Objects::default(), Objects::default());
        let mut driver = Self {
            world,
            model,
            journal,
            clients,
            watch,
            signal,
            ever,
            first,
            lapses: 0.0,
            unplanned_lapses: 0,
            is_stuck: false,
            killed: Vec::new(),
            refused: BTreeMap::new(),
        };
        driver.launch(Start::Plain)?;
        driver.settle(&[])?;
        driver.first = driver.objects()?;
        driver.ever = driver.first.clone();
        services().into_iter().for_each(|served| clients.steady(served, driver.model.of(served).share()));
        Ok(driver)
    }

    /// Carries one out, lets things settle, and looks.
    ///
    /// # Errors
    /// When it was interrupted, or could not be carried out.
    pub fn perform(&mut self, event: &Event) -> Result<()> {
        self.journal.event(&event.to_string());
        let unsteady: Vec<_> = services().into_iter().filter(|served| !self.keeps_share(event, *served)).collect();
        unsteady.iter().for_each(|served| self.clients.unsteady(*served));
        match self.carry_out(event) {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                self.journal.violate(Invariant::Asked, format!("{event} could not be carried out: {error:#}"));
                self.is_stuck = true;
                return Err(Interrupted.into());
            }
            Ok(()) => {}
        }
        self.settle(self.may_trip(event))?;
        self.journal.no_excuse(event.number);
        unsteady.iter().for_each(|served| self.clients.steady(*served, self.model.of(*served).share()));
        if is_long_away(event) {
            self.lapses = self.counted_lapses();
        }
        self.journal.is_over();
        self.look_at_objects()?;
        self.sleep(event.rest)?;
        let lapses = self.counted_lapses();
        let nothing_in_between = lapses <= self.lapses;
        if !nothing_in_between {
            self.unplanned_lapses += 1;
            self.journal.say("the agent was late, and its lease ran out: nobody counts what the canaries got meanwhile");
        }
        self.lapses = lapses;
        self.clients.look_at_shares(nothing_in_between);
        self.look_at_refusals();
        Ok(())
    }

    /// Whether backends that were there have refused anybody. A client that was refused can't say by whom; the data plane can, in `nat` mode.
    fn look_at_refusals(&mut self) {
        let page = self.watch.page();
        let now: BTreeMap<String, f64> = page.of(REFUSED).map(|(series, count)| (series.to_owned(), count)).collect();
        let own = |host: &usize| {
            let address = self.world.hosts[*host].address;
            [format!("\"{}:", address.v4), format!("\"[{}]:", address.v6)]
        };
        let killed: Vec<_> = std::mem::take(&mut self.killed).iter().flat_map(own).collect();
        for (series, count) in &now {
            let before = self.refused.get(series).copied().unwrap_or_default();
            let was_killed = killed.iter().any(|address| series.contains(address));
            self.journal.check(Invariant::Attempts, *count <= before || was_killed, || {
                format!("{series} went from {before} to {count}, and the backend was there all the while")
            });
        }
        self.refused = now;
    }

    /// Kills a backend's process.
    fn kill_server(&mut self, host: usize) {
        self.world.hosts[host].kill();
        self.killed.push(host);
    }

    fn carry_out(&mut self, event: &Event) -> Result<()> {
        match event.kind {
            Happens::Weights => self.weights(event),
            Happens::BackendRemoved => self.backend_removed(event),
            Happens::BackendAdded => self.backend_added(event),
            Happens::BackendDrained => self.backend_drained(event),
            Happens::ServerKilled
            | Happens::ServerFrozen
            | Happens::BackendLinkDown
            | Happens::NodeLinkDown
            | Happens::MacChanged
            | Happens::NeighborsDeleted
            | Happens::RouteChanged => self.trouble(event, event.kind, event.lasts),
            Happens::AgentKilled => self.agent_killed(event),
            Happens::AgentStopped => self.agent_stopped(event),
            Happens::AgentRestarted => self.agent_restarted(event, Start::Plain),
            Happens::AgentUpgraded => self.agent_restarted(event, Start::Upgrade),
            Happens::Reloaded => self.reloaded(event),
            Happens::ReloadRefused => self.reload_refused(event),
            Happens::StateDamaged => self.state_damaged(event),
            Happens::DiskFull => self.disk_full(event),
            Happens::ClockStepped => self.clock_stepped(event),
            Happens::FlippedKeep => self.flipped(event, "keep"),
            Happens::FlippedReset => self.flipped(event, "reset"),
            Happens::BreakerTripped => self.breaker_tripped(event),
            Happens::RolloutAborted => self.rollout_aborted(event),
        }
    }

    /// Whether the canary's share stays what it is during the event, and no client that should reach the canary fails more often than another.
    fn keeps_share(&self, event: &Event, served: Served) -> bool {
        let hurts = |kind: Happens| {
            matches!(kind, Happens::ServerKilled | Happens::BackendLinkDown | Happens::NodeLinkDown | Happens::MacChanged)
        };
        let chosen = || self.chosen(event).contains(&served);
        match event.kind {
            kind if hurts(kind) => false,
            Happens::Weights | Happens::Reloaded | Happens::DiskFull | Happens::FlippedKeep | Happens::FlippedReset => !chosen(),
            Happens::RolloutAborted => !(served.kind == Kind::Web && self.chosen(event)[0].mode == served.mode),
            Happens::AgentKilled | Happens::AgentStopped => {
                !event.beside.is_some_and(hurts) && (world::holds(served) || !is_long_away(event))
            }
            Happens::StateDamaged | Happens::BreakerTripped => false,
            Happens::BackendRemoved
            | Happens::BackendAdded
            | Happens::BackendDrained
            | Happens::ServerKilled
            | Happens::ServerFrozen
            | Happens::BackendLinkDown
            | Happens::NodeLinkDown
            | Happens::MacChanged
            | Happens::NeighborsDeleted
            | Happens::RouteChanged
            | Happens::AgentRestarted
            | Happens::AgentUpgraded
            | Happens::ReloadRefused
            | Happens::ClockStepped => true,
        }
    }

    /// Services whose breaker may trip by what the event does, though it isn't what the event is for.
    fn may_trip(&self, event: &Event) -> &'static [Served] {
        const BREAKERS: [Served; 2] = [
            Served { kind: Kind::Web, mode: Mode::Nat, family: crate::node::Family::V4 },
            Served { kind: Kind::Web, mode: Mode::Nat, family: crate::node::Family::V6 },
        ];
        let kills = event.kind == Happens::ServerKilled || event.beside == Some(Happens::ServerKilled);
        if kills { &BREAKERS } else { &[] }
    }

    /// The two services, one of each family, that an event is about.
    fn chosen(&self, event: &Event) -> [Served; 2] {
        // They are listed in pairs.
        let all = services();
        let pair = event.choose(0, all.len() / 2) * 2;
        [all[pair], all[pair + 1]]
    }

    /// The backend, of the configured ones, that an event is about.
    fn victim(&self, event: &Event) -> usize {
        event.choose(1, self.world.configured().len())
    }

    /// The name of the backend that an event is about.
    fn victims_name(&self, event: &Event) -> String {
        self.world.hosts[self.victim(event)].name.clone()
    }

    /// Waits, unless interrupted.
    fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.signal.load(Ordering::Acquire) != 0 {
                return Err(Interrupted.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(PAUSE));
        }
    }

    /// Waits until what was asked is in force. A breaker of these that has tripped is armed again.
    fn settle(&self, may_trip: &[Served]) -> Result<()> {
        let deadline = Instant::now() + SETTLES;
        loop {
            let status = self.world.node.status();
            let differs = match &status {
                Ok(status) => self.rearm(status, may_trip)?,
                Err(error) => vec![error.to_string()],
            };
            if differs.is_empty() {
                self.journal.looked(Invariant::Asked, services().len() as u64);
                return Ok(());
            }
            if Instant::now() > deadline {
                self.journal.violate(Invariant::Asked, format!("not within {SETTLES:?}: {}", differs.join("; ")));
                return Ok(());
            }
            self.sleep(PAUSE)?;
        }
    }

    fn rearm(&self, status: &Status, may_trip: &[Served]) -> Result<Vec<String>> {
        let mut differs = self.model.differs(status);
        for served in may_trip {
            let name = served.name();
            let service = status.services.iter().find(|service| service.name.as_str() == name);
            let Some(service) = service.filter(|service| service.breaker.as_ref().is_some_and(|breaker| breaker.tripped)) else {
                continue;
            };
            differs.push(format!("{name}: its breaker has tripped"));
            // Until the agent has heard of it there is nothing to undo.
            if service.flip.as_ref().is_some_and(|flip| flip.cause == FlipCause::Breaker) && self.model.of(*served).flip.is_none()
            {
                self.world.node.run(&["unflip", &name])?;
            }
        }
        Ok(differs)
    }

    /// Puts everything back as it was, which may hurt anybody.
    fn put_back(&mut self) -> Result<()> {
        self.journal.excuse(u64::MAX, &[Harm::Broken, Harm::Failed, Harm::Lost, Harm::Moved], Vec::new(), &[]);
        for port in ["node", "b1", "b2", "b3", "b4", "b5"] {
            self.world.set_link(port, true)?;
        }
        for host in 0..self.world.hosts.len() {
            self.kill_server(host);
            self.world.hosts[host].start()?;
        }
        if self.world.on_disk("filler")?.exists() {
            self.world.free_disk()?;
        }
        self.world.configure(&self.model)?;
        self.watch.no_agent();
        self.world.node.kill();
        self.launch(Start::Plain)
    }

    /// Starts an agent, and waits until it's ready.
    fn launch(&mut self, start: Start) -> Result<()> {
        self.world.launch(start)?;
        self.world.node.wait_ready()?;
        self.agent_runs()
    }

    fn agent_runs(&mut self) -> Result<()> {
        let pid = self.world.node.agent().id().context("the agent has ended")?;
        self.watch.agent_runs(pid);
        self.lapses = 0.0;
        Ok(())
    }

    /// Ends the agent in order.
    fn stop(&mut self) -> Result<()> {
        self.watch.no_agent();
        let code = self.world.node.stop()?;
        self.journal.check(Invariant::Asked, code == Some(0), || format!("a stop in order ended with {code:?}"));
        Ok(())
    }

    fn counted_lapses(&self) -> f64 {
        if self.watch.next_page() { self.watch.page().sum("splitter_agent_leases_ran_out_total") } else { self.lapses }
    }

    fn objects(&mut self) -> Result<Objects> {
        let pid = self.world.node.agent().id();
        Objects::of(self.world.node.pins().path(), pid)
    }

    /// Whether the kernel has as many programs and maps of ours as in the beginning, and none of former agents.
    fn look_at_objects(&mut self) -> Result<()> {
        let deadline = Instant::now() + OBJECTS_SETTLE;
        loop {
            let now = self.objects()?;
            self.ever.add(&now);
            let of_former = self.ever.without(&now).left();
            let same = now.maps.len() == self.first.maps.len() && now.programs.len() == self.first.programs.len();
            if same && of_former.is_empty() {
                self.journal.looked(Invariant::Objects, 1);
                return Ok(());
            }
            if Instant::now() > deadline {
                let count = |objects: &Objects| format!("{} programs and {} maps", objects.programs.len(), objects.maps.len());
                let (now, first) = (count(&now), count(&self.first));
                self.journal.violate(Invariant::Objects, format!("{now}, at first {first}; of former agents {of_former:?}"));
                return Ok(());
            }
            self.sleep(PAUSE * 5)?;
        }
    }

    /// Takes the data plane away, ends the agent, and says what was ever ours in the kernel.
    ///
    /// # Errors
    /// When it can't be taken away.
    pub fn end(mut self) -> Result<(World, Objects)> {
        self.watch.no_agent();
        self.world.node.run(&["detach"]).context("splitter detach")?;
        let pinned = self.world.node.pins().content()?;
        self.journal.check(Invariant::Leftovers, pinned.is_empty(), || format!("after detach there are {pinned:?}"));
        self.stop()?;
        Ok((self.world, self.ever))
    }

    /// Whatever an event has left as it was that was interrupted, or could not be carried out: an agent runs, and everybody can be reached.
    ///
    /// # Errors
    /// When that can't be brought about.
    pub fn mend(&mut self) -> Result<()> {
        if self.signal.load(Ordering::Acquire) == 0 && !self.is_stuck {
            return Ok(());
        }
        self.put_back()
    }

    /// Names of the canaries.
    fn canaries(&self) -> Vec<String> {
        world::of(self.world.configured(), Cohort::Canary).map(|host| host.name.clone()).collect()
    }
}

/// Whether the agent is away for so long that its lease may run out.
fn is_long_away(event: &Event) -> bool {
    let expires = event.kind == Happens::AgentStopped && event.lasts >= world::LEASE / 2;
    expires || matches!(event.kind, Happens::AgentKilled | Happens::StateDamaged)
}
