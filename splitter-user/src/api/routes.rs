//! Paths to commands. A handler reads the request, calls one command and writes its answer; nothing else.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{self, DefaultBodyLimit, FromRequest, FromRequestParts, Request, State},
    http::{header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::{
    MAX_REQUEST_BODY,
    command::{Caller, CommandResult, Commands},
    connections::stopped,
    reject::{Reject, unknown_method, unknown_path},
    wire::{
        AddBackend, BackendList, Detached, DoctorReport, ErrorCode, ExplainRequest, Explanation, FlipRequest, History,
        NetworkChange, NetworkChanged, Networks, PromoteRequest, Reload, RolloutAction, RolloutStatus, RolloutWord,
        ServiceStatus, SetBackendWeight, SetWeight, Status, TraceFilter, VersionInfo,
    },
};
use crate::model::ServiceName;

/// The content type of a stream: one JSON value a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Every call of version 1, as method and path; what `docs/api.md` lists.
pub const CALLS: [(&str, &str); 23] = [
    ("GET", "/v1/version"),
    ("GET", "/v1/status"),
    ("PUT", "/v1/services/{service}/weight"),
    ("POST", "/v1/services/{service}/flip"),
    ("POST", "/v1/services/{service}/unflip"),
    ("GET", "/v1/services/{service}/backends"),
    ("POST", "/v1/services/{service}/backends"),
    ("DELETE", "/v1/services/{service}/backends/{address}"),
    ("POST", "/v1/services/{service}/backends/{address}/drain"),
    ("POST", "/v1/services/{service}/backends/{address}/undrain"),
    ("PUT", "/v1/services/{service}/backends/{address}/weight"),
    ("GET", "/v1/services/{service}/networks"),
    ("POST", "/v1/services/{service}/networks"),
    ("POST", "/v1/services/{service}/explain"),
    ("GET", "/v1/services/{service}/trace"),
    ("GET", "/v1/events"),
    ("POST", "/v1/reload"),
    ("POST", "/v1/detach"),
    ("GET", "/v1/doctor"),
    ("GET", "/v1/services/{service}/rollout"),
    ("POST", "/v1/services/{service}/rollout/promote"),
    ("POST", "/v1/services/{service}/rollout/{action}"),
    ("GET", "/v1/history"),
];

/// What every handler has at hand.
struct Context<C> {
    commands: Arc<C>,
    stop: watch::Receiver<bool>,
}

impl<C> Clone for Context<C> {
    fn clone(&self) -> Self {
        Self { commands: Arc::clone(&self.commands), stop: self.stop.clone() }
    }
}

/// All calls. Each connection has to add its [`Caller`] as an extension. A request that isn't answered within
/// `request_timeout` fails; streams end when `stop` turns true.
pub fn router<C: Commands>(commands: Arc<C>, request_timeout: Duration, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/version", get(version::<C>))
        .route("/v1/status", get(status::<C>))
        .route("/v1/services/{service}/weight", put(set_weight::<C>))
        .route("/v1/services/{service}/flip", post(flip::<C>))
        .route("/v1/services/{service}/unflip", post(unflip::<C>))
        .route("/v1/services/{service}/backends", get(backends::<C>).post(add_backend::<C>))
        .route("/v1/services/{service}/backends/{address}", delete(remove_backend::<C>))
        .route("/v1/services/{service}/backends/{address}/drain", post(drain_backend::<C>))
        .route("/v1/services/{service}/backends/{address}/undrain", post(undrain_backend::<C>))
        .route("/v1/services/{service}/backends/{address}/weight", put(set_backend_weight::<C>))
        .route("/v1/services/{service}/networks", get(networks::<C>).post(change_networks::<C>))
        .route("/v1/services/{service}/explain", post(explain::<C>))
        .route("/v1/services/{service}/trace", get(trace::<C>))
        .route("/v1/events", get(events::<C>))
        .route("/v1/reload", post(reload::<C>))
        .route("/v1/detach", post(detach::<C>))
        .route("/v1/doctor", get(doctor::<C>))
        .route("/v1/services/{service}/rollout", get(rollout::<C>))
        .route("/v1/services/{service}/rollout/promote", post(promote_rollout::<C>))
        .route("/v1/services/{service}/rollout/{action}", post(change_rollout::<C>))
        .route("/v1/history", get(history::<C>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
        .layer(middleware::from_fn(move |request, next| within(request_timeout, request, next)))
        .with_state(Context { commands, stop })
}

/// The time is that until the head of the answer: a stream may last.
async fn within(limit: Duration, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        Reject::new(ErrorCode::Unavailable, format!("the agent did not answer within {} s", limit.as_secs_f64()))
            .remedy("look at `splitter status` before you repeat it: the change may still take place")
            .into_response()
    })
}

type Answer<T> = Result<Json<T>, Reject>;

async fn answer<T>(command: impl Future<Output = CommandResult<T>>) -> Answer<T> {
    Ok(Json(command.await?))
}

async fn version<C: Commands>(State(context): State<Context<C>>) -> Answer<VersionInfo> {
    answer(context.commands.version()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    service: Option<ServiceName>,
}

async fn status<C: Commands>(State(context): State<Context<C>>, Query(query): Query<StatusQuery>) -> Answer<Status> {
    answer(context.commands.status(query.service)).await
}

async fn set_weight<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Input(SetWeight { weight }): Input<SetWeight>,
) -> Answer<ServiceStatus> {
    answer(context.commands.set_weight(service, weight, by)).await
}

async fn flip<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Input(request): Input<FlipRequest>,
) -> Answer<ServiceStatus> {
    answer(context.commands.flip(service, request, by)).await
}

async fn unflip<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
) -> Answer<ServiceStatus> {
    answer(context.commands.unflip(service, by)).await
}

async fn backends<C: Commands>(State(context): State<Context<C>>, Path(service): Path<ServiceName>) -> Answer<BackendList> {
    answer(context.commands.backends(service)).await
}

async fn add_backend<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Input(backend): Input<AddBackend>,
) -> Answer<BackendList> {
    answer(context.commands.add_backend(service, backend, by)).await
}

async fn remove_backend<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path((service, address)): Path<(ServiceName, SocketAddr)>,
) -> Answer<BackendList> {
    answer(context.commands.remove_backend(service, address, by)).await
}

async fn drain_backend<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path((service, address)): Path<(ServiceName, SocketAddr)>,
) -> Answer<BackendList> {
    answer(context.commands.drain_backend(service, address, true, by)).await
}

async fn undrain_backend<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path((service, address)): Path<(ServiceName, SocketAddr)>,
) -> Answer<BackendList> {
    answer(context.commands.drain_backend(service, address, false, by)).await
}

async fn set_backend_weight<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path((service, address)): Path<(ServiceName, SocketAddr)>,
    Input(SetBackendWeight { weight }): Input<SetBackendWeight>,
) -> Answer<BackendList> {
    answer(context.commands.set_backend_weight(service, address, weight, by)).await
}

async fn networks<C: Commands>(State(context): State<Context<C>>, Path(service): Path<ServiceName>) -> Answer<Networks> {
    answer(context.commands.networks(service)).await
}

async fn change_networks<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Input(change): Input<NetworkChange>,
) -> Answer<NetworkChanged> {
    if change.add.is_empty() && change.remove.is_empty() {
        return Err(Reject::new(ErrorCode::Invalid, "no prefix to add or to remove was given"));
    }
    answer(context.commands.change_networks(service, change, by)).await
}

async fn explain<C: Commands>(
    State(context): State<Context<C>>,
    Path(service): Path<ServiceName>,
    Input(request): Input<ExplainRequest>,
) -> Answer<Explanation> {
    answer(context.commands.explain(service, request)).await
}

async fn reload<C: Commands>(State(context): State<Context<C>>, Extension(by): Extension<Caller>) -> Answer<Reload> {
    answer(context.commands.reload(by)).await
}

async fn detach<C: Commands>(State(context): State<Context<C>>, Extension(by): Extension<Caller>) -> Answer<Detached> {
    answer(context.commands.detach(by)).await
}

async fn doctor<C: Commands>(State(context): State<Context<C>>) -> Answer<DoctorReport> {
    answer(context.commands.doctor()).await
}

async fn rollout<C: Commands>(State(context): State<Context<C>>, Path(service): Path<ServiceName>) -> Answer<RolloutStatus> {
    answer(context.commands.rollout(service)).await
}

async fn promote_rollout<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Input(request): Input<PromoteRequest>,
) -> Answer<RolloutStatus> {
    answer(context.commands.change_rollout(service, RolloutAction::Promote(request), by)).await
}

async fn change_rollout<C: Commands>(
    State(context): State<Context<C>>,
    Extension(by): Extension<Caller>,
    Path((service, word)): Path<(ServiceName, RolloutWord)>,
) -> Answer<RolloutStatus> {
    answer(context.commands.change_rollout(service, RolloutAction::Word(word), by)).await
}

/// So many rollouts are told if nobody says how many, and so many at most.
const ROLLOUTS: (u32, u32) = (20, 1_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    service: Option<ServiceName>,
    limit: Option<u32>,
}

async fn history<C: Commands>(
    State(context): State<Context<C>>,
    Query(HistoryQuery { service, limit }): Query<HistoryQuery>,
) -> Answer<History> {
    let (usual, most) = ROLLOUTS;
    let limit = limit.unwrap_or(usual);
    if !(1..=most).contains(&limit) {
        return Err(Reject::new(ErrorCode::Invalid, format!("`limit` is {limit}: it may be 1 to {most}")));
    }
    answer(context.commands.history(service, limit)).await
}

async fn trace<C: Commands>(
    State(context): State<Context<C>>,
    Path(service): Path<ServiceName>,
    Query(filter): Query<TraceFilter>,
) -> Result<Response, Reject> {
    let records = context.commands.trace(service, filter).await?;
    let limit = filter.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    Ok(lines(records.take(limit), context.stop))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    follow: bool,
}

async fn events<C: Commands>(
    State(context): State<Context<C>>,
    Query(EventsQuery { follow }): Query<EventsQuery>,
) -> Result<Response, Reject> {
    let events = context.commands.events(follow).await?;
    Ok(lines(events, context.stop))
}

/// A body of one JSON value a line, that ends with the stream or with the server.
fn lines<T: Serialize>(values: impl Stream<Item = T> + Send + 'static, stop: watch::Receiver<bool>) -> Response {
    let lines = values.take_until(stopped(stop)).map(|value| line(&value));
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

fn line<T: Serialize>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(Bytes::from(line))
}

/// A JSON body whose refusal is a [`Reject`].
struct Input<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Reject;

    async fn from_request(request: Request, state: &S) -> Result<Self, Reject> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// A path whose refusal is a [`Reject`].
struct Path<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Reject> {
        let extract::Path(value) = extract::Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// A query whose refusal is a [`Reject`].
struct Query<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Reject> {
        let extract::Query(value) = extract::Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}
