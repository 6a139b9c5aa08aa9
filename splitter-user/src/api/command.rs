//! The seam to the agent's core: what it has to be able to do, and how it says that it can't.

use std::{fmt, future::Future, net::SocketAddr};

use futures::stream::BoxStream;

use super::wire::{
    AddBackend, BackendList, Detached, DoctorReport, ErrorBody, ErrorCode, Event, ExplainRequest, Explanation, FlipRequest,
    History, NetworkChange, NetworkChanged, Networks, Reload, RolloutAction, RolloutStatus, ServiceStatus, Status, TraceFilter,
    TraceRecord, VersionInfo,
};
use crate::{
    config::ConfigError,
    desired::Refusal,
    model::{BackendWeight, ServiceName, Weight},
};

/// Who asks: the process at the other end of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user's number.
    pub uid: u32,
    /// Its user's name, where the number has one.
    pub user: Option<String>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => f.pad(user),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// A command that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// What kind of failure.
    pub kind: CommandErrorKind,
    /// What was tried, on what, and why it failed.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Where in the input.
    pub place: Option<String>,
}

/// The kinds of failures that the core knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandErrorKind {
    /// The service, backend or prefix isn't there.
    NotFound,
    /// The request can't mean anything.
    Invalid,
    /// The request is right, the present state forbids it.
    Conflict,
    /// It can't be done now.
    Unavailable,
    /// The agent failed.
    Internal,
}

impl CommandError {
    /// An error without a remedy.
    #[must_use]
    pub fn new(kind: CommandErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None, place: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With where in the input it is.
    #[must_use]
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// There is no such service.
    #[must_use]
    pub fn no_service(name: &ServiceName) -> Self {
        Self::new(CommandErrorKind::NotFound, format!("there is no service `{name}`"))
            .remedy("`splitter status` lists the services")
    }

    /// The service has no such backend.
    #[must_use]
    pub fn no_backend(name: &ServiceName, backend: SocketAddr) -> Self {
        Self::new(CommandErrorKind::NotFound, format!("service `{name}` has no backend {backend}"))
            .remedy(format!("`splitter backend list {name}` lists its backends"))
    }

    /// The service has had no rollout.
    #[must_use]
    pub fn no_rollout(name: &ServiceName) -> Self {
        Refusal::NoRollout { service: name.clone() }.into()
    }

    /// `explain` without a port on a service whose decisions depend on it.
    #[must_use]
    pub fn port_needed(name: &ServiceName, request: &ExplainRequest) -> Self {
        let with_port = SocketAddr::new(request.client, 40_000);
        Self::new(CommandErrorKind::Invalid, format!("service `{name}` decides by address and port, and no port was given"))
            .remedy(format!("name the client's port, as in `--from {with_port}`"))
    }
}

/// What was refused by the rules of `desired`; its sentences name the remedy.
impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::UnknownService { .. }
            | Refusal::UnknownBackend { .. }
            | Refusal::UnknownNetwork { .. }
            | Refusal::NoRollout { .. } => CommandErrorKind::NotFound,
            Refusal::BackendExists { .. }
            | Refusal::AlreadyDraining { .. }
            | Refusal::NotDraining { .. }
            | Refusal::AlreadyFlipped { .. }
            | Refusal::NotFlipped { .. }
            | Refusal::NetworkExists { .. }
            | Refusal::NetworkInOther { .. }
            | Refusal::RolloutRuns { .. }
            | Refusal::RolloutFlipped { .. }
            | Refusal::NoPlan { .. }
            | Refusal::NoCanary { .. }
            | Refusal::FlippedAlready { .. }
            | Refusal::Rollout { .. } => CommandErrorKind::Conflict,
            Refusal::Invalid { .. } => CommandErrorKind::Invalid,
        };
        Self::new(kind, refusal.to_string())
    }
}

/// A configuration that was refused: every problem, one a line.
impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::new(CommandErrorKind::Invalid, error.lines().join("\n"))
    }
}

impl From<CommandErrorKind> for ErrorCode {
    fn from(kind: CommandErrorKind) -> Self {
        match kind {
            CommandErrorKind::NotFound => Self::NotFound,
            CommandErrorKind::Invalid => Self::Invalid,
            CommandErrorKind::Conflict => Self::Conflict,
            CommandErrorKind::Unavailable => Self::Unavailable,
            CommandErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<CommandError> for ErrorBody {
    fn from(error: CommandError) -> Self {
        Self { code: error.kind.into(), message: error.message, remedy: error.remedy, place: error.place }
    }
}

/// What a command gives back.
pub type CommandResult<T> = Result<T, CommandError>;

/// What the agent's core can do.
///
/// A future may be dropped before it is ready: the client went away, or the request's time was up. A change must then
/// either not happen or happen as a whole, so it belongs into a task of the agent, with the future waiting for the answer.
///
/// A change answers when the data plane has it: from then on every packet is treated accordingly.
pub trait Commands: Send + Sync + 'static {
    /// The agent's version.
    fn version(&self) -> impl Future<Output = CommandResult<VersionInfo>> + Send;

    /// How things stand, for all services or for one.
    fn status(&self, service: Option<ServiceName>) -> impl Future<Output = CommandResult<Status>> + Send;

    /// Changes the weight that is asked for.
    fn set_weight(
        &self,
        service: ServiceName,
        weight: Weight,
        by: Caller,
    ) -> impl Future<Output = CommandResult<ServiceStatus>> + Send;

    /// Sends everything to stable. On a service that is flipped already, only what happens to established connections is changed; if
    /// nothing is, it is a [`CommandErrorKind::Conflict`].
    fn flip(
        &self,
        service: ServiceName,
        request: FlipRequest,
        by: Caller,
    ) -> impl Future<Output = CommandResult<ServiceStatus>> + Send;

    /// Lets the weight count again. A service that isn't flipped is a [`CommandErrorKind::Conflict`].
    fn unflip(&self, service: ServiceName, by: Caller) -> impl Future<Output = CommandResult<ServiceStatus>> + Send;

    /// The service's backends.
    fn backends(&self, service: ServiceName) -> impl Future<Output = CommandResult<BackendList>> + Send;

    /// Adds a backend. One that is there already is a [`CommandErrorKind::Conflict`].
    fn add_backend(
        &self,
        service: ServiceName,
        backend: AddBackend,
        by: Caller,
    ) -> impl Future<Output = CommandResult<BackendList>> + Send;

    /// Removes a backend. Its connections go on; it is listed as `removed` until the last has ended.
    fn remove_backend(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        by: Caller,
    ) -> impl Future<Output = CommandResult<BackendList>> + Send;

    /// Stops new connections to a backend (`true`), or lets them come again.
    fn drain_backend(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        drain: bool,
        by: Caller,
    ) -> impl Future<Output = CommandResult<BackendList>> + Send;

    /// Changes a backend's share inside its cohort.
    fn set_backend_weight(
        &self,
        service: ServiceName,
        backend: SocketAddr,
        weight: BackendWeight,
        by: Caller,
    ) -> impl Future<Output = CommandResult<BackendList>> + Send;

    /// The service's lists of networks.
    fn networks(&self, service: ServiceName) -> impl Future<Output = CommandResult<Networks>> + Send;

    /// Changes one of them, as a whole or not at all.
    fn change_networks(
        &self,
        service: ServiceName,
        change: NetworkChange,
        by: Caller,
    ) -> impl Future<Output = CommandResult<NetworkChanged>> + Send;

    /// Which backend a client gets, and why. Without a port where one is needed: [`CommandError::port_needed`].
    fn explain(&self, service: ServiceName, request: ExplainRequest) -> impl Future<Output = CommandResult<Explanation>> + Send;

    /// What happened: everything that is kept, oldest first, and with `follow` also what comes.
    fn events(&self, follow: bool) -> impl Future<Output = CommandResult<BoxStream<'static, Event>>> + Send;

    /// Decisions as they are made. Tracing costs nothing when the stream is dropped. The filter's `count` is seen to by
    /// the server; it is in the filter so that the core may stop early.
    fn trace(
        &self,
        service: ServiceName,
        filter: TraceFilter,
    ) -> impl Future<Output = CommandResult<BoxStream<'static, TraceRecord>>> + Send;

    /// Reads the configuration anew. A wrong one is [`CommandErrorKind::Invalid`] with its place, and changes nothing.
    fn reload(&self, by: Caller) -> impl Future<Output = CommandResult<Reload>> + Send;

    /// Takes the program off the interfaces and removes what is pinned: traffic isn't split any more.
    fn detach(&self, by: Caller) -> impl Future<Output = CommandResult<Detached>> + Send;

    /// The agent's view of why packets may not reach a backend.
    fn doctor(&self) -> impl Future<Output = CommandResult<DoctorReport>> + Send;

    /// The service's rollout that goes on, or its last one. A service that had none is [`CommandErrorKind::NotFound`].
    fn rollout(&self, service: ServiceName) -> impl Future<Output = CommandResult<RolloutStatus>> + Send;

    /// Begins a rollout, or carries out what is asked of it. What the rollout's state forbids is a [`CommandErrorKind::Conflict`].
    fn change_rollout(
        &self,
        service: ServiceName,
        action: RolloutAction,
        by: Caller,
    ) -> impl Future<Output = CommandResult<RolloutStatus>> + Send;

    /// Rollouts, of one service or of all: those that go on, then the latest. A service that isn't there and had none is [`CommandErrorKind::NotFound`].
    fn history(&self, service: Option<ServiceName>, limit: u32) -> impl Future<Output = CommandResult<History>> + Send;
}
