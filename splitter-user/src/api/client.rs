//! The other end: typed calls over the unix socket.

use std::{
    fs, io,
    marker::PhantomData,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinHandle};

use super::wire::{
    AddBackend, BackendList, Detached, DoctorReport, ErrorBody, Event, ExplainRequest, Explanation, FlipRequest, History,
    NetworkChange, NetworkChanged, Networks, Reload, RolloutAction, RolloutStatus, ServiceStatus, SetBackendWeight, SetWeight,
    Status, TraceFilter, TraceRecord, VersionInfo,
};
use crate::model::{BackendWeight, ServiceName, Weight};

/// The largest answer that is read, in octets: two full lists of 100,000 networks are a tenth of it.
const MAX_RESPONSE: usize = 64 << 20;

/// The longest line of a stream, in octets.
const MAX_LINE: usize = 1 << 20;

/// Longer than the agent's own limit, so that the agent is the one to say what happened.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Calls an agent. Every call has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the agent is not running: nobody answers on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket isn't for this user.
    #[error("no permission to use {}", socket.display())]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
        /// The group whose members may; unknown if the directory can't be read either.
        group: Option<String>,
    },
    /// The agent says no.
    #[error("{}{}", body.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default(), body.message)]
    Refused {
        /// Why.
        body: ErrorBody,
    },
    /// The connection failed in the middle.
    #[error("the connection to the agent on {} was lost: {reason}", socket.display())]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What the system or the protocol says.
        reason: String,
    },
    /// The agent listens and doesn't answer.
    #[error("the agent on {} did not answer within {} s", socket.display(), TIMEOUT.as_secs())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
    },
    /// The answer isn't what this version understands.
    #[error("the answer from {} is not understood: {reason}", socket.display())]
    NotUnderstood {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some(
                "start it with `systemctl start splitter` or `splitter agent --config FILE`, or name its socket with `--socket`"
                    .to_owned(),
            ),
            Self::NotPermitted { group: Some(group), .. } if group == "root" => Some("run this as root".to_owned()),
            Self::NotPermitted { group: Some(group), .. } => {
                Some(format!("run this as root or as a member of the group `{group}`"))
            }
            Self::NotPermitted { group: None, .. } => Some("run this as root".to_owned()),
            Self::Refused { body } => body.remedy.clone(),
            Self::Lost { .. } => Some("see whether the agent still runs: `splitter status`, and the agent's log".to_owned()),
            Self::TimedOut { .. } => Some("look at the agent's log".to_owned()),
            Self::NotUnderstood { .. } => Some("use the command line of the agent's version".to_owned()),
        }
    }
}

impl Client {
    /// For the agent behind this socket. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the agent is expected.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/version`.
    ///
    /// # Errors
    /// See [`ClientError`]; so for every call.
    pub async fn version(&self) -> Result<VersionInfo, ClientError> {
        self.get("/v1/version").await
    }

    /// `GET /v1/status`, of all services or of one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, service: Option<&ServiceName>) -> Result<Status, ClientError> {
        match service {
            Some(service) => self.get(&format!("/v1/status?service={service}")).await,
            None => self.get("/v1/status").await,
        }
    }

    /// Changes the weight.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_weight(&self, service: &ServiceName, weight: Weight) -> Result<ServiceStatus, ClientError> {
        self.send(Method::PUT, &format!("/v1/services/{service}/weight"), &SetWeight { weight }).await
    }

    /// Sends everything to stable.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn flip(&self, service: &ServiceName, request: &FlipRequest) -> Result<ServiceStatus, ClientError> {
        self.send(Method::POST, &format!("/v1/services/{service}/flip"), request).await
    }

    /// Lets the weight count again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unflip(&self, service: &ServiceName) -> Result<ServiceStatus, ClientError> {
        self.call(Method::POST, &format!("/v1/services/{service}/unflip")).await
    }

    /// The service's backends.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backends(&self, service: &ServiceName) -> Result<BackendList, ClientError> {
        self.get(&format!("/v1/services/{service}/backends")).await
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_backend(&self, service: &ServiceName, backend: &AddBackend) -> Result<BackendList, ClientError> {
        self.send(Method::POST, &format!("/v1/services/{service}/backends"), backend).await
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_backend(&self, service: &ServiceName, backend: SocketAddr) -> Result<BackendList, ClientError> {
        self.call(Method::DELETE, &backend_path(service, backend, "")).await
    }

    /// Stops new connections to a backend, or lets them come again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drain_backend(
        &self,
        service: &ServiceName,
        backend: SocketAddr,
        drain: bool,
    ) -> Result<BackendList, ClientError> {
        let verb = if drain { "/drain" } else { "/undrain" };
        self.call(Method::POST, &backend_path(service, backend, verb)).await
    }

    /// Changes a backend's share inside its cohort.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_backend_weight(
        &self,
        service: &ServiceName,
        backend: SocketAddr,
        weight: BackendWeight,
    ) -> Result<BackendList, ClientError> {
        self.send(Method::PUT, &backend_path(service, backend, "/weight"), &SetBackendWeight { weight }).await
    }

    /// The service's lists of networks.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn networks(&self, service: &ServiceName) -> Result<Networks, ClientError> {
        self.get(&format!("/v1/services/{service}/networks")).await
    }

    /// Changes one of them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_networks(&self, service: &ServiceName, change: &NetworkChange) -> Result<NetworkChanged, ClientError> {
        self.send(Method::POST, &format!("/v1/services/{service}/networks"), change).await
    }

    /// Which backend a client gets, and why.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn explain(&self, service: &ServiceName, request: &ExplainRequest) -> Result<Explanation, ClientError> {
        self.send(Method::POST, &format!("/v1/services/{service}/explain"), request).await
    }

    /// What happened, and with `follow` what happens.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self, follow: bool) -> Result<Lines<Event>, ClientError> {
        self.stream(&format!("/v1/events?follow={follow}")).await
    }

    /// Decisions as they are made.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trace(&self, service: &ServiceName, filter: TraceFilter) -> Result<Lines<TraceRecord>, ClientError> {
        let from = filter.from.map(|from| format!("from={from}"));
        let count = filter.count.map(|count| format!("count={count}"));
        let query: Vec<_> = from.into_iter().chain(count).collect();
        self.stream(&format!("/v1/services/{service}/trace?{}", query.join("&"))).await
    }

    /// Has the configuration read anew.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reload(&self) -> Result<Reload, ClientError> {
        self.call(Method::POST, "/v1/reload").await
    }

    /// Takes the program off the interfaces.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn detach(&self) -> Result<Detached, ClientError> {
        self.call(Method::POST, "/v1/detach").await
    }

    /// The agent's view of why packets may not reach a backend.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.get("/v1/doctor").await
    }

    /// The service's rollout.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rollout(&self, service: &ServiceName) -> Result<RolloutStatus, ClientError> {
        self.get(&format!("/v1/services/{service}/rollout")).await
    }

    /// Begins a rollout, or asks something of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_rollout(&self, service: &ServiceName, action: RolloutAction) -> Result<RolloutStatus, ClientError> {
        let path = |word: &str| format!("/v1/services/{service}/rollout/{word}");
        match action {
            RolloutAction::Word(word) => self.call(Method::POST, &path(word.as_str())).await,
            RolloutAction::Promote(request) => self.send(Method::POST, &path("promote"), &request).await,
        }
    }

    /// Rollouts, of one service or of all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(&self, service: Option<&ServiceName>, limit: Option<u32>) -> Result<History, ClientError> {
        let service = service.map(|service| format!("service={service}"));
        let limit = limit.map(|limit| format!("limit={limit}"));
        let query: Vec<String> = service.into_iter().chain(limit).collect();
        self.get(&format!("/v1/history?{}", query.join("&"))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        self.finish(self.request(method, path, Bytes::new())).await
    }

    async fn send<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.not_understood(&error))?;
        self.finish(self.request(method, path, Bytes::from(body))).await
    }

    /// The whole answer, in time.
    async fn finish<T: DeserializeOwned>(
        &self,
        request: impl Future<Output = Result<Exchange, ClientError>>,
    ) -> Result<T, ClientError> {
        let whole = async {
            let exchange = request.await?;
            let body = self.whole(exchange).await?;
            serde_json::from_slice(&body).map_err(|error| self.not_understood(&error))
        };
        tokio::time::timeout(TIMEOUT, whole).await.unwrap_or_else(|_| Err(ClientError::TimedOut { socket: self.socket.clone() }))
    }

    /// The head of the answer in time; what follows may last.
    async fn stream<T>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let exchange = tokio::time::timeout(TIMEOUT, self.request(Method::GET, path, Bytes::new()))
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { socket: self.socket.clone() }))?;
        Ok(Lines { client: self.clone(), exchange, buffer: BytesMut::new(), item: PhantomData })
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Exchange, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_connection(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        let driver = Driver(tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The caller learns of it from its request or body, which fail as well.
                tracing::debug!(%error, "the connection to the agent ended early");
            }
        }));
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "splitter");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| self.not_understood(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.lost(&error))?;
        let (head, body) = response.into_parts();
        let exchange = Exchange { body, _driver: driver };
        if head.status == StatusCode::OK {
            return Ok(exchange);
        }
        let body = self.whole(exchange).await?;
        let body = serde_json::from_slice(&body).map_err(|error| self.not_understood(&error))?;
        Err(ClientError::Refused { body })
    }

    async fn whole(&self, exchange: Exchange) -> Result<Bytes, ClientError> {
        let collected = Limited::new(exchange.body, MAX_RESPONSE).collect().await;
        collected.map(http_body_util::Collected::to_bytes).map_err(|error| self.lost(&*error))
    }

    fn no_connection(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            ClientError::NotRunning { socket }
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            ClientError::NotPermitted { group: group_of(&socket), socket }
        } else {
            self.lost(error)
        }
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Lost { socket: self.socket.clone(), reason: error.to_string() }
    }

    fn not_understood(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::NotUnderstood { socket: self.socket.clone(), reason: error.to_string() }
    }
}

/// The values of a stream, as they come.
#[derive(Debug)]
pub struct Lines<T> {
    client: Client,
    exchange: Exchange,
    buffer: BytesMut,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// The connection was lost, or a line isn't understood.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|octet| *octet == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| self.client.not_understood(&error));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(self.client.not_understood(&io::Error::other("a line is longer than 1 MiB")));
            }
            match self.exchange.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.client.lost(&io::Error::from(io::ErrorKind::UnexpectedEof))),
                Some(Err(error)) => return Err(self.client.lost(&error)),
                // Trailers carry nothing for us.
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().into_iter().flatten()),
            }
        }
    }
}

/// An answer that is being read, and the task that moves its octets.
#[derive(Debug)]
struct Exchange {
    body: Incoming,
    _driver: Driver,
}

/// Ends with the exchange that it serves.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// In a path, the brackets of an IPv6 address must be escaped (RFC 3986, 3.3).
fn backend_path(service: &ServiceName, backend: SocketAddr, verb: &str) -> String {
    let backend = backend.to_string().replace('[', "%5B").replace(']', "%5D");
    format!("/v1/services/{service}/backends/{backend}{verb}")
}

/// The name of the group that a socket belongs to, or its number if it has none.
fn group_of(socket: &Path) -> Option<String> {
    let gid = fs::metadata(socket).ok()?.gid();
    let name = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
    Some(name.unwrap_or_else(|| gid.to_string()))
}
