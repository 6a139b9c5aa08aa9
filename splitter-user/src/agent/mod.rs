//! The agent: tasks around one core that owns configuration, state, store and data plane.
//!
//! ```text
//!                 ┌ api ─────┐                       ┌──────┐ ── steer, apply ──▶ data plane
//!  clients ──────▶│ metrics  │── Handle ─ requests ─▶│ core │ ◀─ states, kept ─▶ store, on a thread of its own
//!                 └ signals ─┘                       └──────┘ ◀─ samples ───────── data plane
//!                                                        ▲ └── ways ───────────── routes and neighbours
//!                                                     a clock
//! ```
//!
//! The core does one thing after the other and never waits: a change is carried out as a whole before the next change is looked at, whether or not somebody still
//! waits for the answer. A change is kept before it is in force; a flip is in force before it is kept, for it must not depend on a disk.
//! Changes wait for the disk. If that hangs, so do they; samples, flips and questions go on.
//!
//! The tasks are [`run`]'s: each has a name and is waited for, an end that nobody asked for ends the agent, and at the agent's end each has a deadline. What
//! the program in the kernel does goes on in any case.

mod breaker;
mod change;
mod checks;
pub mod clock;
mod core;
mod error;
mod explain;
mod handle;
mod history;
mod keep;
mod lease;
mod observe;
mod recent;
mod rollout;
pub mod signals;
mod startup;
mod trace;
mod view;
mod ways;
mod work;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};

pub use error::{AgentError, OpenFailure, OpenFailureKind};
pub use handle::{Handle, Source};
pub use signals::Signal;
pub use ways::{Kernel, Lost, WaySource};

use self::core::End;
use crate::{
    api::{connections::Ended, server, socket::Socket},
    checks::{self as probes, Said, Wanted},
    config::Config,
    dataplane::{Dataplane, ServiceKey},
    http::Client,
    metrics,
    model::{Notify, Seed},
    neighbor::NetlinkError,
    notify::{self, Tallies},
    store::{History, Store, StoreError},
};

/// A data plane, and what is worth a warning about it.
pub type Opened = (Box<dyn Dataplane>, Vec<String>);

/// Opens or adopts a data plane for a configuration.
pub type Open = Box<dyn FnOnce(&Config) -> Result<Opened, OpenFailure> + Send>;

/// The seeds that a running data plane has, by service.
pub type InForce = BTreeMap<ServiceKey, Seed>;

/// Reads them; without a data plane there are none. What is wrong with one is found out when it's opened.
pub type Seeds = Box<dyn FnOnce(&Config) -> InForce + Send>;

/// Takes the place where the state is kept.
pub type Keep = Box<dyn FnOnce(&Config) -> Result<Box<dyn Store>, StoreError> + Send>;

/// Opens the history, once the place of the state is taken; and what is worth a warning about it. It's never a reason not to start.
pub type Remember = Box<dyn FnOnce(&Config) -> (Arc<dyn History>, Vec<String>) + Send>;

/// Begins to follow routes and neighbours.
pub type Follow<W> = Box<dyn FnOnce() -> Result<W, NetlinkError> + Send>;

/// What an agent is made of: `main` gives the real parts, tests give others.
pub struct Parts<W> {
    /// The configuration to start with.
    pub config: Config,
    /// Reads it anew.
    pub source: Source,
    /// Takes the place where the state is kept.
    pub store: Keep,
    /// Keeps rollouts that are over.
    pub history: Remember,
    /// The seeds that are in force.
    pub seeds: Seeds,
    /// The data plane.
    pub open: Open,
    /// Routes and neighbours.
    pub ways: Follow<W>,
    /// Take the data plane away at the end, whatever the configuration says.
    pub detach: bool,
    /// Told when everything is in force and the API is served.
    pub ready: Box<dyn FnOnce() + Send>,
}

/// Longer than what the servers grant to requests in flight.
const DEADLINE: Duration = Duration::from_secs(8);

/// Runs an agent until it is told to stop, or fails. It begins to change the data plane only when everything else that can fail has not.
///
/// # Errors
/// It could not start, or one of its tasks failed. The data plane stays as it was.
pub async fn run<W: WaySource>(parts: Parts<W>, signals: mpsc::Receiver<Signal>) -> Result<(), AgentError> {
    let Parts { config, source, store, history, seeds, open, ways, detach, ready } = parts;
    let mut store = store(&config)?;
    let socket = Socket::bind(&config.agent.socket, config.agent.socket_group.as_deref())?;
    let metrics = match config.agent.metrics_address {
        Some(address) => Some(metrics::server::listen(address).await?),
        None => None,
    };
    let kept = startup::load(store.as_mut(), &config, &seeds(&config), clock::now())?;
    let (history, mut warnings) = history(&config);
    let ways = ways()?;
    let (dataplane, found) = open(&config)?;
    warnings.extend(found);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }

    let (published, seen) = startup::channels(kept.state.last_event(), config.notify.clone());
    let told = kept.told;
    let mut state = kept.state;
    // A state that was lost has lost count of them.
    match history.list(None, 1) {
        Ok(last) => state.rollouts = state.rollouts.max(last.first().map_or(0, |record| record.run.id)),
        Err(error) => tracing::error!(%error, "the last rollout's number is not known"),
    }
    let (keeper, kept_states) = keep::Keeper::start(store)?;
    let archive = history::Archive::start(Arc::clone(&history))?;
    let beginning = core::Beginning { config, state, keeper, archive, dataplane, warnings, published, unsaved: kept.unsaved };
    let mut core = core::Core::new(beginning, clock::now())?;
    startup::begin(&mut core, &ways).await?;

    let (requests, requested) = mpsc::channel(64);
    let (changes, changed) = mpsc::channel(64);
    let (answers, said) = mpsc::channel(64);
    let inbox = work::Inbox { requests: requested, changes: changed, kept: kept_states, said };
    let checks = Checks { wanted: seen.checks(), answers };
    let targets = seen.notify();
    let handle = seen.handle(requests, changes, source, history);
    let notifications = Notifications { targets, told };
    supervise(Tasks { core, ways, inbox, handle, socket, metrics, checks, notifications, signals, detach, ready }).await
}

struct Tasks<W> {
    core: core::Core,
    ways: W,
    inbox: work::Inbox,
    handle: Handle,
    socket: Socket,
    metrics: Option<TcpListener>,
    checks: Checks,
    notifications: Notifications,
    signals: mpsc::Receiver<Signal>,
    detach: bool,
    ready: Box<dyn FnOnce() + Send>,
}

/// What rollouts want to be checked, and who is told what was answered.
struct Checks {
    wanted: watch::Receiver<Vec<Wanted>>,
    answers: mpsc::Sender<Said>,
}

/// Who is notified of what happens after which event.
struct Notifications {
    targets: watch::Receiver<Vec<Notify>>,
    told: u64,
}

/// Starts the tasks, waits for the signal to stop or for one that ends by itself, and ends them: first those that take requests, then the core.
async fn supervise<W: WaySource>(tasks: Tasks<W>) -> Result<(), AgentError> {
    let Tasks { core, ways, inbox, handle, socket, metrics, checks, notifications, signals, detach, ready } = tasks;
    let (stop, stopped) = watch::channel(false);
    let detach = detach || core.config.agent.detach_on_stop;

    let mut core_task = JoinSet::new();
    core_task.spawn(work::work(core, ways, inbox));
    let mut servers = JoinSet::new();
    spawn(&mut servers, "the API's server", {
        let (handle, stopped) = (Arc::new(handle.clone()), stopped.clone());
        async move { server::run(socket, handle, server::Options::default(), stopped).await.map_err(|error| error.to_string()) }
    });
    if let Some(listener) = metrics {
        let (handle, stopped) = (Arc::new(handle.clone()), stopped.clone());
        spawn(&mut servers, "the metrics' server", async move { Ok(metrics::server::run(listener, handle, stopped).await) });
    }
    spawn(&mut servers, probes::NAME, {
        let (Checks { wanted, answers }, stopped) = (checks, stopped.clone());
        async move {
            probes::run(Arc::new(Client::default()), wanted, answers, stopped).await;
            Ok(Ended { cut: 0 })
        }
    });
    spawn(&mut servers, notify::NAME, {
        let (Notifications { targets, told }, stopped) = (notifications, stopped.clone());
        let events = handle.follow(told);
        async move {
            notify::run(Arc::new(Client::default()), targets, events, notify::node_name(), Tallies::default(), stopped).await;
            Ok(Ended { cut: 0 })
        }
    });
    let mut obey = JoinSet::new();
    obey.spawn(signals::obey(signals, handle.clone()));
    ready();

    let unexpected = tokio::select! {
        Some(ended) = core_task.join_next() => Some(work_failed(ended)),
        Some(ended) = servers.join_next() => Some(server_failed(ended)),
        Some(ended) = obey.join_next() => ended.err().map(|error| failed("the task that obeys signals", &error)),
    };
    let failed_before = unexpected.is_some();

    // From here on everything ends, whatever the reason; each step has its deadline.
    stop.send_replace(true);
    obey.shutdown().await;
    let all_served = async {
        while let Some(ended) = servers.join_next().await {
            match ended {
                Ok((name, Ok(Ended { cut }))) if cut > 0 => tracing::warn!(cut, "{name} had to cut requests"),
                Ok((_, Ok(_))) => {}
                Ok(_) | Err(_) => tracing::error!(error = %server_failed(ended), "a server ended badly"),
            }
        }
    };
    if timeout(DEADLINE, all_served).await.is_err() {
        tracing::error!("the servers did not end within {} s, and were ended", DEADLINE.as_secs());
        servers.shutdown().await;
    }
    if core_task.is_empty() {
        return unexpected.map_or(Ok(()), Err);
    }
    let ending = async {
        // If the core is gone, that is found out with its task.
        let end = if failed_before {
            End::Failed
        } else if detach {
            End::Detach
        } else {
            End::Stop
        };
        drop(handle.ask(move |core, now| core.end(end, now)).await);
        core_task.join_next().await
    };
    let ended = match timeout(DEADLINE, ending).await {
        Ok(Some(Ok(Ok(())))) | Ok(None) => None,
        Ok(Some(ended)) => Some(work_failed(ended)),
        Err(_) => {
            core_task.shutdown().await;
            Some(AgentError::Task { task: work::NAME, why: format!("it did not end within {} s", DEADLINE.as_secs()) })
        }
    };
    unexpected.or(ended).map_or(Ok(()), Err)
}

type Served = (&'static str, Result<Ended, String>);

fn spawn(set: &mut JoinSet<Served>, name: &'static str, task: impl Future<Output = Result<Ended, String>> + Send + 'static) {
    set.spawn(async move { (name, task.await) });
}

fn server_failed(ended: Result<Served, JoinError>) -> AgentError {
    match ended {
        Ok((task, Ok(_))) => AgentError::Task { task, why: "nobody told it to".to_owned() },
        Ok((task, Err(why))) => AgentError::Task { task, why },
        Err(error) => failed("a server", &error),
    }
}

fn work_failed(ended: Result<Result<(), AgentError>, JoinError>) -> AgentError {
    match ended {
        Ok(Ok(())) => AgentError::Task { task: work::NAME, why: "nobody told it to".to_owned() },
        Ok(Err(error)) => error,
        Err(error) => failed(work::NAME, &error),
    }
}

fn failed(task: &'static str, error: &JoinError) -> AgentError {
    AgentError::Task { task, why: error.to_string() }
}
