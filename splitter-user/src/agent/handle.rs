//! The way to the core for everybody else: questions and changes are handed to its task and carried out one after the other.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
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
    view::VERSION,
};
use crate::{
    api::{
        API_VERSION,
        command::{Caller, CommandError, CommandErrorKind, CommandResult, Commands},
        wire::{
            AddBackend, BackendList, Detached, DoctorReport, Event, ExplainRequest, Explanation, FlipRequest, NetworkChange,
            NetworkChanged, Networks, Reload, ServiceStatus, Status, TraceFilter, TraceRecord, VersionInfo,
        },
    },
    config::{Config, ConfigError},
    desired,
    metrics::{Snapshot, server::Observed},
    model::{BackendWeight, ServiceName, Weight},
    neighbor::Ways,
};

/// Something for the core to do.
pub(super) type Request = Box<dyn FnOnce(&mut Core, Moment) + Send>;

/// Reads the configuration.
pub type Source = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// So long may it take until the ways to new backends are known: the common case takes a millisecond, and a backend that doesn't answer isn't waited for.
const LOOKUP: Duration = Duration::from_secs(1);

/// The core does something about once a second. If it hasn't for so long, it hangs.
const HANGS: Duration = Duration::from_secs(3);

/// Asks the core.
#[derive(Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) source: Source,
    pub(super) last_event: watch::Receiver<u64>,
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

    async fn change(
        &self,
        name: ServiceName,
        by: Caller,
        ask: impl FnOnce(
            &Config,
            &crate::store::State,
            &ServiceName,
            desired::Origin<'_>,
        ) -> Result<crate::store::State, desired::Refusal>
        + Send
        + 'static,
    ) -> CommandResult<BackendList> {
        self.ask(move |core, now| {
            core.change(now, &by.to_string(), |config, state, origin| ask(config, state, &name, origin))?;
            core.observe(now);
            core.backend_list(&name)
        })
        .await?
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
        self.ask(move |core, now| {
            core.change(now, &by.to_string(), |config, state, origin| {
                desired::set_weight(config, state, &service, weight, origin)
            })?;
            core.observe(now);
            Ok(core.service_status(core.find(&service)?, now))
        })
        .await?
    }

    async fn flip(&self, service: ServiceName, request: FlipRequest, by: Caller) -> CommandResult<ServiceStatus> {
        self.ask(move |core, now| {
            core.flip(&service, request, &by.to_string(), now)?;
            core.observe(now);
            Ok(core.service_status(core.find(&service)?, now))
        })
        .await?
    }

    async fn unflip(&self, service: ServiceName, by: Caller) -> CommandResult<ServiceStatus> {
        self.ask(move |core, now| {
            core.change(now, &by.to_string(), |config, state, origin| desired::unflip(config, state, &service, origin))?;
            core.observe(now);
            Ok(core.service_status(core.find(&service)?, now))
        })
        .await?
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
        self.ask(move |core, now| {
            core.add_backend(&service, &backend, &by.to_string(), now)?;
            core.observe(now);
            core.backend_list(&service)
        })
        .await?
    }

    async fn remove_backend(&self, service: ServiceName, backend: SocketAddr, by: Caller) -> CommandResult<BackendList> {
        self.change(service, by, move |config, state, name, origin| desired::remove_backend(config, state, name, backend, origin))
            .await
    }

    async fn drain_backend(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        drain: bool,
        by: Caller,
    ) -> CommandResult<BackendList> {
        let ask = if drain { desired::drain } else { desired::undrain };
        self.change(service, by, move |config, state, name, origin| ask(config, state, name, backend, origin)).await
    }

    async fn set_backend_weight(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        weight: BackendWeight,
        by: Caller,
    ) -> CommandResult<BackendList> {
        self.change(service, by, move |config, state, name, origin| {
            desired::set_backend_weight(config, state, name, backend, weight, origin)
        })
        .await
    }

    async fn networks(&self, service: ServiceName) -> CommandResult<Networks> {
        self.ask(move |core, _| core.networks(&service)).await?
    }

    async fn change_networks(&self, service: ServiceName, change: NetworkChange, by: Caller) -> CommandResult<NetworkChanged> {
        self.ask(move |core, now| core.change_networks(&service, &change, &by.to_string(), now)).await?
    }

    async fn explain(&self, service: ServiceName, request: ExplainRequest) -> CommandResult<Explanation> {
        self.ask(move |core, _| core.explain(&service, &request)).await?
    }

    async fn events(&self, follow: bool) -> CommandResult<BoxStream<'static, Event>> {
        let kept = self.ask(|core, _| core.events_after(0)).await?;
        if !follow {
            return Ok(stream::iter(kept).boxed());
        }
        let seen = kept.last().map_or(0, |event| event.id);
        let following = stream::unfold((self.clone(), seen), |(mut handle, seen)| async move {
            handle.last_event.wait_for(|last| *last > seen).await.ok()?;
            // The channel may have told of events of a state that isn't there any more; then there is nothing new yet.
            let events = handle.ask(move |core, _| core.events_after(seen)).await.ok()?;
            let seen = events.last().map_or(seen, |event| event.id);
            Some((stream::iter(events), (handle, seen)))
        });
        Ok(stream::iter(kept).chain(following.flatten()).boxed())
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
                self.ask(move |core, now| core.reload(config, now)).await?
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
