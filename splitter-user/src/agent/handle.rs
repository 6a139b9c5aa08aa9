//! The way to the core for everybody else: questions and changes are handed to its task and carried out one after the other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    clock::{self, Moment},
    core::{Core, internal},
    history::listed,
    keep::{Asked, Change},
    view::VERSION,
};
use crate::{
    api::{
        API_VERSION,
        command::{Caller, CommandError, CommandErrorKind, CommandResult, Commands},
        wire::{
            AddBackend, BackendList, Detached, DoctorReport, Event, ExplainRequest, Explanation, FlipRequest,
            History as RolloutHistory, NetworkChange, NetworkChanged, Networks, Reload, RolloutAction, RolloutStatus,
            RolloutWord, ServiceStatus, Status, TraceFilter, TraceRecord, VersionInfo,
        },
    },
    config::{Config, ConfigError},
    controller::rollout::Verb,
    desired::{self, Origin, Refusal},
    metrics::{Snapshot, server::Observed},
    model::{BackendWeight, Seed, ServiceName, Weight},
    neighbor::Ways,
    store::{self, History, State, fresh_seed},
};

/// Something for the core to do.
pub(super) type Request = Box<dyn FnOnce(&mut Core, Moment) + Send>;

/// Reads the configuration.
pub type Source = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// So long may it take until the ways to new backends are known: the common case takes a millisecond, and a backend that doesn't answer isn't waited for.
const LOOKUP: Duration = Duration::from_secs(1);

/// So long does the answer to a flip, which is in force, wait until it's kept.
const KEPT: Duration = Duration::from_secs(1);

/// The core does something about once a second. If it hasn't for so long, it hangs.
const HANGS: Duration = Duration::from_secs(3);

/// Asks the core.
#[derive(Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) source: Source,
    pub(super) history: Arc<dyn History>,
    pub(super) last_event: watch::Receiver<u64>,
    pub(super) kept: watch::Receiver<u64>,
    pub(super) ways: watch::Receiver<Arc<Ways>>,
    pub(super) alive: watch::Receiver<Instant>,
    pub(super) ready: watch::Receiver<bool>,
}

impl Handle {
    /// Has the core do something. It is done as a whole even if nobody waits for the answer any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Core, Moment) -> T + Send + 'static,
    ) -> CommandResult<T> {
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |core, now| {
            // The one who asked may have gone; what was done stays done.
            drop(answer.send(what(core, now)));
        });
        self.requests.send(request).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }

    /// Has the core change something, which is kept before it is in force. It is carried out as a whole even if nobody waits for the answer any more. `propose` may
    /// be asked more than once, `answer` is once, with how it ended: the configuration that was in force before, if there is another now.
    async fn alter<T: Send + 'static>(
        &self,
        propose: impl FnMut(&Core, Moment) -> CommandResult<Asked> + Send + 'static,
        answer: impl FnOnce(&mut Core, CommandResult<Option<Config>>, Moment) -> CommandResult<T> + Send + 'static,
    ) -> CommandResult<T> {
        let (tell, told) = oneshot::channel();
        let done = move |core: &mut Core, result: CommandResult<Option<Config>>, now: Moment| {
            // The one who asked may have gone; what was done stays done.
            drop(tell.send(answer(core, result, now)));
        };
        let change = Change { propose: Box::new(propose), done: Box::new(done) };
        self.changes.send(change).await.map_err(|_| stopping())?;
        told.await.map_err(|_| stopping())?
    }

    /// Changes what is asked of a service, and answers with what `tell` says of it.
    async fn change<T: Send + 'static>(
        &self,
        name: ServiceName,
        by: Caller,
        ask: impl Fn(&Config, &State, &ServiceName, Origin<'_>) -> Result<State, Refusal> + Send + 'static,
        tell: impl FnOnce(&Core, &ServiceName, Moment) -> CommandResult<T> + Send + 'static,
    ) -> CommandResult<T> {
        let (of, by) = (name.clone(), by.to_string());
        let propose =
            move |core: &Core, now: Moment| core.asked(now, &by, |config, state, origin| ask(config, state, &name, origin));
        let answer = move |core: &mut Core, result: CommandResult<Option<Config>>, now: Moment| {
            result?;
            core.observe(now);
            tell(core, &of, now)
        };
        self.alter(propose, answer).await
    }

    /// Puts a new configuration in force, as a whole or not at all.
    async fn put_in_force(&self, config: Config) -> CommandResult<Reload> {
        let mut seeds: Vec<Seed> = Vec::new();
        let propose = move |core: &Core, now: Moment| {
            let mut made = 0;
            let fresh = || {
                if made == seeds.len() {
                    seeds.push(fresh_seed());
                }
                made += 1;
                seeds[made - 1]
            };
            core.reload(&config, fresh, now)
        };
        let answer = |core: &mut Core, result: CommandResult<Option<Config>>, now: Moment| {
            core.anticipated.clear();
            core.reloaded(result, now)
        };
        self.alter(propose, answer).await
    }

    /// What happens after an event, as it happens. Ends with the agent.
    pub(super) fn follow(&self, after: u64) -> impl Stream<Item = store::Event> + Send + use<> {
        let following = stream::unfold((self.clone(), after), |(mut handle, seen)| async move {
            handle.last_event.wait_for(|last| *last > seen).await.ok()?;
            // The channel may have told of events of a state that isn't there any more; then there is nothing new yet.
            let events = handle.ask(move |core, _| core.events_after(seen)).await.ok()?;
            let seen = events.last().map_or(seen, |event| event.id);
            Some((stream::iter(events), (handle, seen)))
        });
        following.flatten()
    }

    /// Looks up the ways to destinations that a change will need, so that new connections aren't refused for the moment that it takes.
    async fn look_up(&self, destinations: BTreeSet<IpAddr>) -> CommandResult<()> {
        let mut ways = self.ways.clone();
        let looked_up = destinations.clone();
        self.ask(move |core, _| core.anticipate(looked_up)).await?;
        let known = ways.wait_for(|ways| {
            destinations.iter().all(|to| match ways.get(to) {
                Some(Ok(_)) => true,
                Some(Err(error)) => !error.is_pending(),
                None => false,
            })
        });
        match timeout(LOOKUP, known).await {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
        }
    }
}

fn status_of(core: &Core, name: &ServiceName, now: Moment) -> CommandResult<ServiceStatus> {
    Ok(core.service_status(core.find(name)?, now))
}

fn backends_of(core: &Core, name: &ServiceName, _: Moment) -> CommandResult<BackendList> {
    core.backend_list(name)
}

fn rollout_of(core: &Core, name: &ServiceName, _: Moment) -> CommandResult<RolloutStatus> {
    core.rollout_status(name)
}

fn stopping() -> CommandError {
    CommandError::new(CommandErrorKind::Unavailable, "the agent is stopping")
}

impl Commands for Handle {
    async fn version(&self) -> CommandResult<VersionInfo> {
        Ok(VersionInfo { version: VERSION.to_owned(), api: API_VERSION })
    }

    async fn status(&self, service: Option<ServiceName>) -> CommandResult<Status> {
        self.ask(move |core, now| {
            core.observe(now);
            core.status(service.as_ref(), now)
        })
        .await?
    }

    async fn set_weight(&self, service: ServiceName, weight: Weight, by: Caller) -> CommandResult<ServiceStatus> {
        let ask = move |config: &Config, state: &State, name: &ServiceName, origin: Origin<'_>| {
            desired::set_weight(config, state, name, weight, origin)
        };
        self.change(service, by, ask, status_of).await
    }

    async fn flip(&self, service: ServiceName, request: FlipRequest, by: Caller) -> CommandResult<ServiceStatus> {
        let flipped = self.ask(move |core, now| {
            core.flip(&service, request, &by.to_string(), now)?;
            let event = core.state.last_event();
            core.observe(now);
            Ok::<_, CommandError>((status_of(core, &service, now)?, event))
        });
        let (status, event) = flipped.await??;
        // It's in force; that it outlives the agent as well, with its reason, is worth a moment. A disk that hangs isn't waited for: saving is tried until it succeeds.
        drop(timeout(KEPT, self.kept.clone().wait_for(|kept| *kept >= event)).await);
        Ok(status)
    }

    async fn unflip(&self, service: ServiceName, by: Caller) -> CommandResult<ServiceStatus> {
        self.change(service, by, desired::unflip, status_of).await
    }

    async fn backends(&self, service: ServiceName) -> CommandResult<BackendList> {
        self.ask(move |core, now| {
            core.observe(now);
            core.backend_list(&service)
        })
        .await?
    }

    async fn add_backend(&self, service: ServiceName, backend: AddBackend, by: Caller) -> CommandResult<BackendList> {
        self.look_up([backend.address.ip()].into()).await?;
        let (name, by) = (service.clone(), by.to_string());
        let propose = move |core: &Core, now: Moment| core.add_backend(&name, &backend, &by, now);
        let answer = move |core: &mut Core, result: CommandResult<Option<Config>>, now: Moment| {
            core.anticipated.clear();
            result?;
            core.observe(now);
            core.backend_list(&service)
        };
        self.alter(propose, answer).await
    }

    async fn remove_backend(&self, service: ServiceName, backend: SocketAddr, by: Caller) -> CommandResult<BackendList> {
        let ask = move |config: &Config, state: &State, name: &ServiceName, origin: Origin<'_>| {
            desired::remove_backend(config, state, name, backend, origin)
        };
        self.change(service, by, ask, backends_of).await
    }

    async fn drain_backend(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        drain: bool,
        by: Caller,
    ) -> CommandResult<BackendList> {
        let ask = if drain { desired::drain } else { desired::undrain };
        let ask = move |config: &Config, state: &State, name: &ServiceName, origin: Origin<'_>| {
            ask(config, state, name, backend, origin)
        };
        self.change(service, by, ask, backends_of).await
    }

    async fn set_backend_weight(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        weight: BackendWeight,
        by: Caller,
    ) -> CommandResult<BackendList> {
        let ask = move |config: &Config, state: &State, name: &ServiceName, origin: Origin<'_>| {
            desired::set_backend_weight(config, state, name, backend, weight, origin)
        };
        self.change(service, by, ask, backends_of).await
    }

    async fn networks(&self, service: ServiceName) -> CommandResult<Networks> {
        self.ask(move |core, _| core.networks(&service)).await?
    }

    async fn change_networks(&self, service: ServiceName, change: NetworkChange, by: Caller) -> CommandResult<NetworkChanged> {
        let (name, by, asked) = (service.clone(), by.to_string(), change.clone());
        let propose = move |core: &Core, now: Moment| {
            core.asked(now, &by, |config, state, origin| {
                desired::change_networks(config, state, &name, asked.list, (&asked.remove, &asked.add), origin)
            })
        };
        let answer = move |core: &mut Core, result: CommandResult<Option<Config>>, _: Moment| {
            result?;
            core.networks_changed(&service, &change)
        };
        self.alter(propose, answer).await
    }

    async fn explain(&self, service: ServiceName, request: ExplainRequest) -> CommandResult<Explanation> {
        self.ask(move |core, _| core.explain(&service, &request)).await?
    }

    async fn events(&self, follow: bool) -> CommandResult<BoxStream<'static, Event>> {
        let kept = self.ask(|core, _| core.events_after(0)).await?;
        if !follow {
            return Ok(stream::iter(kept).map(Event::from).boxed());
        }
        let seen = kept.last().map_or(0, |event| event.id);
        Ok(stream::iter(kept).chain(self.follow(seen)).map(Event::from).boxed())
    }

    async fn trace(&self, service: ServiceName, filter: TraceFilter) -> CommandResult<BoxStream<'static, TraceRecord>> {
        let records = self.ask(move |core, _| core.trace(&service, &filter)).await??;
        Ok(ReceiverStream::new(records).boxed())
    }

    async fn reload(&self, by: Caller) -> CommandResult<Reload> {
        tracing::info!(%by, "reading the configuration anew");
        let source = Arc::clone(&self.source);
        match spawn_blocking(move || source()).await.map_err(internal)? {
            Ok(config) => {
                let backends = config.services.iter().flat_map(|service| &service.backends);
                self.look_up(backends.map(|backend| backend.address.ip()).collect()).await?;
                self.put_in_force(config).await
            }
            Err(error) => {
                let error = self.ask(move |core, now| {
                    core.refuse_reload(&error, now);
                    error
                });
                Err(CommandError::from(error.await?))
            }
        }
    }

    async fn detach(&self, by: Caller) -> CommandResult<Detached> {
        self.ask(move |core, now| core.detach(&by.to_string(), now)).await?
    }

    async fn doctor(&self) -> CommandResult<DoctorReport> {
        self.ask(|core, now| {
            core.observe(now);
            core.examine()
        })
        .await
    }

    async fn rollout(&self, service: ServiceName) -> CommandResult<RolloutStatus> {
        self.ask(move |core, now| {
            core.observe(now);
            core.rollout_status(&service)
        })
        .await?
    }

    async fn change_rollout(&self, service: ServiceName, action: RolloutAction, by: Caller) -> CommandResult<RolloutStatus> {
        let ask = move |config: &Config, state: &State, name: &ServiceName, origin: Origin<'_>| {
            let verb = match action {
                RolloutAction::Word(RolloutWord::Start) => return desired::start_rollout(config, state, name, origin),
                RolloutAction::Word(RolloutWord::Retry) => return desired::retry_rollout(config, state, name, origin),
                RolloutAction::Word(RolloutWord::Pause) => Verb::Pause,
                RolloutAction::Word(RolloutWord::Resume) => Verb::Resume,
                RolloutAction::Word(RolloutWord::Approve) => Verb::Approve,
                RolloutAction::Word(RolloutWord::Abort) => Verb::Abort,
                RolloutAction::Promote(request) => Verb::Promote { full: request.full },
            };
            desired::ask_rollout(config, state, name, verb, origin)
        };
        self.change(service, by, ask, rollout_of).await
    }

    async fn history(&self, service: Option<ServiceName>, limit: u32) -> CommandResult<RolloutHistory> {
        let (history, of, limit) = (Arc::clone(&self.history), service.clone(), limit as usize);
        // The state is asked first: what leaves it meanwhile is in the history already.
        let (held, is_known) = self.ask(move |core, _| core.rollouts(of.as_ref())).await?;
        let of = service.clone();
        let kept = spawn_blocking(move || history.list(of.as_ref(), limit)).await.map_err(internal)?;
        let kept = kept.map_err(|error| CommandError::new(CommandErrorKind::Unavailable, error.to_string()))?;
        let rollouts = listed(held, kept, limit);
        match service {
            Some(name) if rollouts.is_empty() && !is_known => Err(CommandError::no_service(&name)),
            Some(_) | None => Ok(RolloutHistory { rollouts: rollouts.into_iter().map(Into::into).collect() }),
        }
    }
}

impl Observed for Handle {
    async fn snapshot(&self) -> Result<Snapshot, String> {
        let snapshot = self.ask(|core, now| {
            core.observe(now);
            core.snapshot()
        });
        snapshot.await.map_err(|error| error.to_string())
    }

    fn healthy(&self) -> Result<(), String> {
        let age = clock::now().instant.saturating_duration_since(*self.alive.borrow());
        if age < HANGS { Ok(()) } else { Err(format!("the agent's core has not moved for {} s", age.as_secs())) }
    }

    fn ready(&self) -> Result<(), String> {
        if *self.ready.borrow() { Ok(()) } else { Err("the data plane is not attached".to_owned()) }
    }
}
