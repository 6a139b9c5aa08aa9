//! What one task owns: configuration, state, store and data plane. All of it is synchronous, and time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    breaker,
    clock::Moment,
    error::AgentError,
    history::Archive,
    keep::{Keeper, Unsaved, Waiting},
    lease::Lapses,
    observe::Gauge,
    rollout::Conductor,
    trace::Tracing,
};
use crate::{
    api::{
        command::{CommandError, CommandErrorKind, CommandResult},
        wire::{FlipCause, Reload},
    },
    checks::Wanted,
    config::Config,
    controller::Recent,
    dataplane::{ApplyError, Dataplane, Info, Live, Sample, ServiceKey, WantedBackend, WantedService},
    desired::{self, Desired, Origin},
    model::{BackendWeight, Cohort, Mode, Notify, Service, ServiceName},
    neighbor::{Way, Ways},
    store::{EventKind, FlipReason, State},
};

/// Who does what nobody asked for.
pub(super) const AGENT: &str = "the agent";

/// The agent's core.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) keeper: Keeper,
    /// Rollouts on their way into the history.
    pub(super) archive: Archive,
    /// A change that is being kept, before it's put in force.
    pub(super) waiting: Option<Waiting>,
    /// The state has changed since one was given to be kept, and is to be kept at once.
    pub(super) save_again: bool,
    /// None after it was detached.
    pub(super) dataplane: Option<Box<dyn Dataplane>>,
    pub(super) info: Info,
    /// What configuration and state ask for.
    pub(super) desired: Vec<Desired>,
    /// What the data plane was told last.
    pub(super) wanted: Vec<WantedService>,
    pub(super) ways: Arc<Ways>,
    /// Destinations of a change that is about to be made.
    pub(super) anticipated: BTreeSet<IpAddr>,
    /// The weights of backends that aren't wanted any more and may still have connections.
    pub(super) removed: HashMap<(ServiceKey, SocketAddr), BackendWeight>,
    pub(super) sample: Sample,
    pub(super) live: Option<Live>,
    /// When the sample was taken.
    pub(super) sampled_at: Option<Instant>,
    pub(super) gauges: HashMap<ServiceName, Gauge>,
    pub(super) recents: HashMap<ServiceName, Recent>,
    /// Of the rollouts that are going on.
    pub(super) conductors: HashMap<ServiceName, Conductor>,
    pub(super) told: Told,
    /// Flips since the agent's start.
    pub(super) flips: BTreeMap<(ServiceName, FlipCause), u64>,
    pub(super) sampling: Option<Duration>,
    pub(super) lapses: Lapses,
    /// What the start found and that goes on, such as a driver without native XDP.
    pub(super) warnings: Vec<String>,
    pub(super) unsaved: Unsaved,
    /// Why the data plane isn't what it should be. It's tried again.
    pub(super) not_applied: Option<String>,
    pub(super) last_reload: Option<Reload>,
    pub(super) started_at: Timestamp,
    pub(super) tracing: Option<Tracing>,
    /// For whoever follows: the latest event's number, the ways, and that the core is alive.
    pub(super) published: Published,
    /// Nothing more is to be done.
    pub(super) ended: bool,
}

/// What was told as an event, so that it's told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Backends without a way.
    pub(super) unreachable: BTreeSet<(ServiceName, SocketAddr)>,
    /// Cohorts without a usable backend.
    pub(super) unusable: BTreeSet<(ServiceName, Cohort)>,
    /// Backends that drain and have no connections left.
    pub(super) drained: BTreeSet<(ServiceName, SocketAddr)>,
    /// Services that ran out of room for connections: the reason's label, the counter, and when it moved last.
    pub(super) exhausted: BTreeMap<(ServiceKey, &'static str), (u64, Option<Instant>)>,
}

/// What others see of the core without asking it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) last_event: watch::Sender<u64>,
    /// The last event of the state that was last kept, or could not be.
    pub(super) kept: watch::Sender<u64>,
    pub(super) ways: watch::Sender<Arc<Ways>>,
    pub(super) alive: watch::Sender<Instant>,
    pub(super) ready: watch::Sender<bool>,
    /// What rollouts want to be checked.
    pub(super) checks: watch::Sender<Vec<Wanted>>,
    /// Who is to be notified.
    pub(super) notify: watch::Sender<Vec<Notify>>,
}

/// What the core starts with.
pub(super) struct Beginning {
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) keeper: Keeper,
    pub(super) archive: Archive,
    pub(super) dataplane: Box<dyn Dataplane>,
    pub(super) warnings: Vec<String>,
    pub(super) published: Published,
    pub(super) unsaved: Unsaved,
}

impl Core {
    /// Takes over what there is. Nothing is changed yet.
    pub(super) fn new(beginning: Beginning, now: Moment) -> Result<Self, AgentError> {
        let Beginning { config, mut state, keeper, archive, mut dataplane, warnings, published, mut unsaved } = beginning;
        let info = dataplane.info();
        let sample = dataplane.sample();
        if info.adoptions > 0 {
            state.adoptions += 1;
            state = with_flips_found(&config, state, &sample, now);
        }
        state.record(now.at, None, EventKind::AgentStarted { adopted: info.adoptions > 0 });
        unsaved.note();
        Ok(Self {
            desired: desired::services(&config, &state)?,
            config,
            state,
            keeper,
            archive,
            waiting: None,
            save_again: false,
            dataplane: Some(dataplane),
            info,
            wanted: Vec::new(),
            ways: Arc::default(),
            anticipated: BTreeSet::new(),
            removed: HashMap::new(),
            sample,
            live: None,
            sampled_at: None,
            gauges: HashMap::new(),
            recents: HashMap::new(),
            conductors: HashMap::new(),
            told: Told::default(),
            flips: BTreeMap::new(),
            sampling: None,
            lapses: Lapses::default(),
            warnings,
            unsaved,
            not_applied: None,
            last_reload: None,
            started_at: now.at,
            tracing: None,
            published,
            ended: false,
        })
    }

    /// Puts everything in force for the first time.
    pub(super) fn begin(&mut self, ways: Arc<Ways>, now: Moment) -> Result<(), AgentError> {
        self.ways = Arc::clone(&ways);
        let wanted = self.wanted(&self.desired);
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.apply(&wanted)?;
        }
        self.wanted = wanted;
        self.published.ways.send_replace(ways);
        self.note_reachability(now);
        self.observe(now);
        // Behind everything that may flip, for with it the weights count.
        self.keep_lease(now);
        self.look_around();
        self.sweep(now);
        self.publish_events();
        self.published.ready.send_replace(true);
        Ok(())
    }

    /// Where packets have to get to.
    pub(super) fn destinations(&self) -> BTreeSet<IpAddr> {
        let wanted = self.desired.iter().flat_map(|desired| &desired.service.backends).map(|backend| backend.address.ip());
        wanted.chain(self.anticipated.iter().copied()).collect()
    }

    /// Other ways than before.
    pub(super) fn on_ways(&mut self, ways: Arc<Ways>, now: Moment) {
        self.ways = Arc::clone(&ways);
        self.reapply(now);
        self.published.ways.send_replace(ways);
    }

    /// Makes the data plane what it should be, if it isn't.
    pub(super) fn reapply(&mut self, now: Moment) {
        let wanted = self.wanted(&self.desired);
        let Some(dataplane) = &mut self.dataplane else { return };
        if wanted == self.wanted {
            self.not_applied = None;
        } else {
            match dataplane.apply(&wanted) {
                Ok(_) => {
                    self.wanted = wanted;
                    self.not_applied = None;
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.not_applied.as_ref() != Some(&why) {
                        tracing::error!(%error, "the data plane could not be changed; it goes on as it was");
                    }
                    self.not_applied = Some(why);
                }
            }
        }
        self.note_reachability(now);
    }

    /// A flip: in force first, and kept afterwards, for which the core doesn't wait. One that can't be kept stays in force: the data plane itself remembers it for the
    /// next agent, and saving is tried again.
    pub(super) fn commit_flip(&mut self, service: &ServiceName, next: State, now: Moment) -> CommandResult<()> {
        let desired = desired::services(&self.config, &next).map_err(internal)?;
        self.steer(service, &desired).map_err(|error| not_applied(&error))?;
        self.replace(next, desired, now);
        self.save();
        Ok(())
    }

    /// Tells the data plane a service's weight and flip, and nothing else.
    pub(super) fn steer(&mut self, name: &ServiceName, desired: &[Desired]) -> Result<(), ApplyError> {
        let Some(desired) = desired.iter().find(|desired| desired.service.name == *name) else { return Ok(()) };
        let key = key(&desired.service);
        let (weight, flip) = (desired.service.weight, desired.flip.as_ref().map(|flip| flip.existing));
        let dataplane = self.dataplane.as_mut().ok_or(ApplyError::NoService(key))?;
        dataplane.steer(&key, weight, flip)?;
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.key == key) {
            (wanted.weight, wanted.flip) = (weight, flip);
        }
        Ok(())
    }

    /// By the short way if weights and flips alone differ.
    pub(super) fn put_in_force(&mut self, desired: &[Desired], wanted: Vec<WantedService>) -> Result<(), ApplyError> {
        let steered = only_steered(&self.wanted, &wanted);
        match steered.as_deref() {
            Some([]) => Ok(()),
            Some([index]) => self.steer(&desired[*index].service.name.clone(), desired),
            Some(_) | None => {
                self.stretch_lease();
                if let Some(dataplane) = &mut self.dataplane {
                    dataplane.apply(&wanted)?;
                }
                self.wanted = wanted;
                self.not_applied = None;
                Ok(())
            }
        }
    }

    /// Goes on with what was put in force.
    pub(super) fn replace(&mut self, next: State, desired: Vec<Desired>, now: Moment) {
        for before in &self.desired {
            let key = key(&before.service);
            let gone = before.service.backends.iter().map(|backend| ((key, backend.address), backend.weight));
            self.removed.extend(gone);
        }
        let flipped = |of: &[Desired]| -> BTreeSet<ServiceName> {
            of.iter().filter(|desired| desired.flip.is_some()).map(|desired| desired.service.name.clone()).collect()
        };
        // What the canary did before a flip, or while there was one, says nothing about what it does after.
        for name in flipped(&self.desired).symmetric_difference(&flipped(&desired)) {
            if let Some(gauge) = self.gauges.get_mut(name) {
                gauge.clear();
            }
        }
        // Nor what the cohorts did before they changed places.
        for after in &desired {
            let before = self.desired.iter().find(|before| before.service.name == after.service.name);
            if before.is_some_and(|before| moved(&before.service, &after.service))
                && let Some(gauge) = self.gauges.get_mut(&after.service.name)
            {
                gauge.clear();
            }
        }
        for desired in &desired {
            if let Some(flip) = &desired.flip
                && self.desired.iter().any(|before| before.service.name == desired.service.name && before.flip.is_none())
            {
                *self.flips.entry((desired.service.name.clone(), FlipCause::from(&flip.reason))).or_default() += 1;
            }
        }
        self.desired = desired;
        self.state = next;
        self.anticipated.clear();
        self.publish_events();
        self.note_reachability(now);
    }

    /// What the data plane is to do.
    pub(super) fn wanted(&self, desired: &[Desired]) -> Vec<WantedService> {
        desired.iter().map(|desired| self.wanted_service(desired)).collect()
    }

    fn wanted_service(&self, desired: &Desired) -> WantedService {
        let service = &desired.service;
        let backends = service.backends.iter().map(|backend| WantedBackend {
            address: backend.address,
            cohort: backend.cohort,
            weight: backend.weight,
            draining: backend.draining,
            way: self.way(service.mode, backend.address.ip()).ok(),
        });
        WantedService {
            key: key(service),
            mode: service.mode,
            affinity: service.affinity,
            seed: desired.seed,
            timeouts: service.timeouts,
            // A canary that gets nothing new has nothing to be flipped for: its last connections may end as they like.
            breaker: service.breaker.filter(|_| has_canary(service)),
            on_lease_expiry: service.on_lease_expiry,
            weight: service.weight,
            flip: desired.flip.as_ref().map(|flip| flip.existing),
            backends: backends.collect(),
            always_canary: service.always_canary.clone(),
            never_canary: service.never_canary.clone(),
        }
    }

    /// The way to an address that can be used. In `nat` mode one by an interface without the program can't: replies would pass by.
    pub(super) fn way(&self, mode: Mode, to: IpAddr) -> Result<Way, NoWay> {
        let way = self.ways.get(&to).ok_or(NoWay::Pending(format!("the way to {to} is being looked up")))?;
        match way {
            Ok(way) if mode == Mode::Dsr || self.info.interfaces.iter().any(|attached| attached.index == way.interface) => {
                Ok(way.clone())
            }
            Ok(way) => Err(NoWay::Never(format!(
                "{to} is reached by {}, where the program is not attached: add it to `interfaces` in [agent] and restart the agent",
                way.interface_name
            ))),
            Err(error) => Err(no_way(error)),
        }
    }

    /// Notes something that happened; it's kept with the next sweep.
    pub(super) fn record(&mut self, now: Moment, service: Option<&ServiceName>, kind: EventKind) {
        tracing::info!(service = service.map(tracing::field::display), "{kind}");
        self.state.record(now.at, service.cloned(), kind);
        self.unsaved.note();
        self.published.last_event.send_replace(self.state.last_event());
    }

    /// Tells whoever follows, and the log, about events that came with a state.
    fn publish_events(&mut self) {
        let told = *self.published.last_event.borrow();
        for event in self.state.events_after(told) {
            tracing::info!("{event}");
        }
        self.published.last_event.send_replace(self.state.last_event());
    }

    /// Ends in order: what is to be kept is kept, and the data plane stays unless it's to go.
    pub(super) fn end(&mut self, end: End, now: Moment) {
        if let Some(tracing) = self.tracing.take() {
            self.end_trace(&tracing);
        }
        // By command, maybe.
        let mut detached = self.dataplane.is_none();
        match (end, self.dataplane.take()) {
            (End::Detach, Some(mut dataplane)) => match dataplane.detach() {
                Ok(()) => detached = true,
                Err(error) => tracing::error!(%error, "the data plane could not be taken away as a whole"),
            },
            (End::Stop, Some(mut dataplane)) => {
                dataplane.renew(None);
                self.dataplane = Some(dataplane);
            }
            // Nobody wanted it to end: if no other agent comes, its lease is to run out.
            (End::Failed, dataplane) => self.dataplane = dataplane,
            (End::Detach | End::Stop, None) => {}
        }
        // Nobody is told any more, and so nothing is changed.
        self.waiting = None;
        self.record(now, None, EventKind::AgentStopped { detached });
        self.save();
        self.published.ready.send_replace(false);
        self.ended = true;
    }

    /// A service as it is asked for.
    pub(super) fn find(&self, name: &ServiceName) -> CommandResult<&Desired> {
        self.desired.iter().find(|desired| desired.service.name == *name).ok_or_else(|| CommandError::no_service(name))
    }
}

/// How an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to. Traffic flows on, and no lease runs out.
    Stop,
    /// It was told to, and takes the data plane with it.
    Detach,
    /// One of its tasks failed.
    Failed,
}

/// Why packets can't get somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoWay {
    /// It isn't known yet.
    Pending(String),
    /// The other end doesn't answer, or something on the way is down: it may come back by itself.
    Now(String),
    /// As this node is set up, never.
    Never(String),
}

impl NoWay {
    /// In words.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Pending(why) | Self::Now(why) | Self::Never(why) => why,
        }
    }
}

/// Whether a backend has changed its cohort.
fn moved(before: &Service, after: &Service) -> bool {
    before.backends.iter().any(|was| {
        let mut same = after.backends.iter().filter(|is| is.address == was.address);
        same.any(|is| is.cohort != was.cohort)
    })
}

/// Whether a canary backend is to get new connections.
pub(super) fn has_canary(service: &Service) -> bool {
    service.backends.iter().any(|backend| backend.cohort == Cohort::Canary && !backend.draining)
}

/// What a service is to the data plane.
pub(super) fn key(service: &Service) -> ServiceKey {
    ServiceKey { protocol: service.protocol, address: service.address }
}

/// The data plane was taken away by command.
pub(super) fn detached() -> CommandError {
    CommandError::new(CommandErrorKind::Unavailable, "the data plane was detached: nothing is split")
        .remedy("restart the agent to attach it again: `systemctl restart splitter`")
}

pub(super) fn not_applied(error: &ApplyError) -> CommandError {
    let kind = match error {
        ApplyError::NoService(_) | ApplyError::Kernel { .. } => CommandErrorKind::Internal,
        ApplyError::NoRoom { .. } | ApplyError::NoNat { .. } | ApplyError::NotAttached { .. } => CommandErrorKind::Conflict,
    };
    CommandError::new(kind, format!("nothing was changed: {error}"))
}

pub(super) fn internal(error: impl std::fmt::Display) -> CommandError {
    CommandError::new(CommandErrorKind::Internal, error.to_string())
}

fn no_way(error: &crate::neighbor::WayError) -> NoWay {
    use crate::neighbor::WayError as E;
    let why = error.to_string();
    match error {
        E::Unresolved { .. } => NoWay::Pending(why),
        E::Failed { .. } | E::TableFull { .. } | E::InterfaceDown { .. } | E::NoInterface { .. } | E::NoSource { .. } => {
            NoWay::Now(why)
        }
        E::NoRoute { .. }
        | E::LocalDestination { .. }
        | E::NotUnicast { .. }
        | E::LinkLocal { .. }
        | E::Encapsulated { .. }
        | E::NotEthernet { .. }
        | E::UnsupportedVlan { .. } => NoWay::Never(why),
    }
}

/// The services that differ in weight and flip, if nothing else differs.
fn only_steered(before: &[WantedService], after: &[WantedService]) -> Option<Vec<usize>> {
    if before.len() != after.len() {
        return None;
    }
    let mut steered = Vec::new();
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        if before == after {
            continue;
        }
        let mut as_before = after.clone();
        (as_before.weight, as_before.flip) = (before.weight, before.flip);
        if as_before != *before {
            return None;
        }
        steered.push(index);
    }
    Some(steered)
}

/// An agent that ended between a flip and its saving left a data plane that is flipped, and a state that doesn't know. The data plane is right: whoever
/// flipped it had a reason. If its breaker has tripped, that's the one.
fn with_flips_found(config: &Config, mut state: State, sample: &Sample, now: Moment) -> State {
    for service in &config.services {
        let Some(sample) = sample.services.get(&key(service)) else { continue };
        let Some(existing) = sample.flip else { continue };
        let reason = sample.trip.map_or(FlipReason::Found, |trip| FlipReason::Breaker { finding: breaker::finding(&trip, now) });
        let origin = Origin { at: now.at, by: AGENT };
        if state.service(&service.name).is_none_or(|asked| asked.flip.is_none())
            && let Ok(next) = desired::flip(config, &state, &service.name, reason, existing, origin)
        {
            state = next;
        }
    }
    state
}
