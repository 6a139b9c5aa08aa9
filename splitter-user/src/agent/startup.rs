//! From what was kept to a core that works.

use std::{sync::Arc, time::Duration, time::Instant};

use tokio::sync::{mpsc, watch};

use super::{
    InForce,
    clock::{self, Moment},
    core::{Core, Published, key},
    error::AgentError,
    handle::{Handle, Request, Source},
    keep::{Change, Unsaved},
    ways::WaySource,
};
use crate::{
    checks::Wanted,
    config::Config,
    desired,
    model::Notify,
    neighbor::Ways,
    store::{History, Loaded, State, Store, fresh_seed},
};

/// How long the first start waits for the ways to the backends. Those whose way comes later come into use later.
const FIRST: Duration = Duration::from_secs(2);

/// How long an agent that takes over waits: the backends are in use, and none is to be taken out of it just because nobody has looked yet. The kernel takes
/// 3 s to find that a neighbour doesn't answer.
const ADOPTING: Duration = Duration::from_secs(5);

/// The state to start with.
pub(super) struct Kept {
    pub(super) state: State,
    pub(super) unsaved: Unsaved,
    /// The last event of which whoever is notified knows.
    pub(super) told: u64,
}

/// Loads the state and makes it fit the configuration.
///
/// # Errors
/// It can't be loaded; or secrets were made for the first time and can't be kept: the next agent would send clients elsewhere. An agent that only
/// can't write down what it knows already works, and says so.
pub(super) fn load(store: &mut dyn Store, config: &Config, in_force: &InForce, now: Moment) -> Result<Kept, AgentError> {
    let (loaded, damaged) = match store.load(now.at)? {
        Loaded::Fresh => (State::default(), false),
        Loaded::Found(state) => (*state, false),
        Loaded::Damaged { kept_as, why } => {
            tracing::error!(kept_as = %kept_as.display(), why, "the saved state is damaged: every service is held on stable");
            (desired::hold_on_stable(config, &kept_as, &why, now.at), true)
        }
    };
    // Of a damaged state everything is news.
    let told = if damaged { 0 } else { loaded.last_event() };
    let fitting = desired::reconcile(config, &loaded, now.at);
    // Where the state was lost and the data plane wasn't.
    let fitting = desired::keep_seeds(config, &fitting, |service| in_force.get(&key(service)).copied());
    let state = desired::give_seeds(config, &fitting, fresh_seed);
    let new_seeds = state.services != fitting.services;
    let unsaved = match store.save(&state) {
        Ok(()) => Unsaved::Nothing,
        Err(error) if new_seeds => return Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "the state could not be saved; it is tried again every second");
            Unsaved::Failed(error.to_string())
        }
    };
    Ok(Kept { state, unsaved, told })
}

/// The other ends of [`Published`].
pub(super) struct Seen {
    last_event: watch::Receiver<u64>,
    kept: watch::Receiver<u64>,
    ways: watch::Receiver<Arc<Ways>>,
    alive: watch::Receiver<Instant>,
    ready: watch::Receiver<bool>,
    checks: watch::Receiver<Vec<Wanted>>,
    notify: watch::Receiver<Vec<Notify>>,
}

impl Seen {
    /// The checks that rollouts want.
    pub(super) fn checks(&self) -> watch::Receiver<Vec<Wanted>> {
        self.checks.clone()
    }

    /// Who is to be notified.
    pub(super) fn notify(&self) -> watch::Receiver<Vec<Notify>> {
        self.notify.clone()
    }

    pub(super) fn handle(
        self,
        requests: mpsc::Sender<Request>,
        changes: mpsc::Sender<Change>,
        source: Source,
        history: Arc<dyn History>,
    ) -> Handle {
        let Self { last_event, kept, ways, alive, ready, checks: _, notify: _ } = self;
        Handle { requests, changes, source, history, last_event, kept, ways, alive, ready }
    }
}

pub(super) fn channels(last_event: u64, notify: Vec<Notify>) -> (Published, Seen) {
    let (kept, kept_seen) = watch::channel(last_event);
    let (last_event, last_event_seen) = watch::channel(last_event);
    let (ways, ways_seen) = watch::channel(Arc::default());
    let (alive, alive_seen) = watch::channel(clock::now().instant);
    let (ready, ready_seen) = watch::channel(false);
    let (checks, checks_seen) = watch::channel(Vec::new());
    let (notify, notify_seen) = watch::channel(notify);
    let seen = Seen {
        last_event: last_event_seen,
        kept: kept_seen,
        ways: ways_seen,
        alive: alive_seen,
        ready: ready_seen,
        checks: checks_seen,
        notify: notify_seen,
    };
    (Published { last_event, kept, ways, alive, ready, checks, notify }, seen)
}

/// Puts everything in force, once the ways are known as far as they can be.
pub(super) async fn begin<W: WaySource>(core: &mut Core, ways: &W) -> Result<(), AgentError> {
    let limit = if core.info.adoptions > 0 { ADOPTING } else { FIRST };
    ways.watch(core.destinations());
    let known = ways.settled(limit).await;
    core.begin(known, clock::now())
}
