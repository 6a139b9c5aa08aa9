//! The API: requests as they arrive, and every type that travels.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, body::Body, http::Request};
use futures::{StreamExt as _, stream, stream::BoxStream};
use http_body_util::BodyExt as _;
use serde::{Serialize, de::DeserializeOwned};
use splitter_user::{
    api::{
        command::{Caller, CommandError, CommandErrorKind, CommandResult, Commands},
        routes::router,
        wire,
    },
    model::{BackendWeight, ServiceName, Weight},
};
use tokio::{runtime::Runtime, sync::watch};
use tower::ServiceExt as _;

/// What follows the target in a request of which the body isn't said to be JSON.
const PLAIN: &str = " plain";

/// Takes a text of a method, a target and (from the next line on) a body for a request; and the body for every type that travels.
///
/// # Panics
/// When the answer isn't one that a client understands, or a type doesn't read what it writes.
pub fn check(octets: &[u8]) {
    let at = octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len());
    let body = octets.get(at + 1..).unwrap_or_default();
    let Ok(head) = std::str::from_utf8(&octets[..at]) else { return };
    travels(body);
    let (head, content_type) = match head.strip_suffix(PLAIN) {
        Some(head) => (head, "text/plain"),
        None => (head, "application/json"),
    };
    let Some((method, target)) = head.split_once(' ') else { return };
    let request = Request::builder().method(method).uri(target).header("content-type", content_type);
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
    ANSWERS.with(|server| server.ask(request));
}

thread_local! {
    static ANSWERS: Server = Server::new();
}

struct Server {
    runtime: Runtime,
    router: Router,
    _stop: watch::Sender<bool>,
}

impl Server {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (stop, stopped) = watch::channel(false);
        let by = Caller { uid: 0, user: Some("fuzz".to_owned()) };
        let router = router(Arc::new(Busy), Duration::from_secs(10), stopped).layer(Extension(by));
        Self { runtime, router, _stop: stop }
    }

    fn ask(&self, request: Request<Body>) {
        let line = format!("{} {}", request.method(), request.uri());
        let answer = async {
            let answer = self.router.clone().oneshot(request).await.expect("a router doesn't fail");
            let status = answer.status();
            (status, answer.into_body().collect().await.expect("a body doesn't fail").to_bytes())
        };
        let (status, body) = self.runtime.block_on(answer);
        if status.is_success() {
            // Streams, of which there is nothing; or HEAD.
            assert!(body.is_empty(), "{line}: {status} and {body:?}");
        } else if !line.starts_with("HEAD ") {
            let error: wire::ErrorBody =
                serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{line}: {status} and {body:?}: {error}"));
            assert!(!error.message.trim().is_empty(), "{line}: refused without a word");
            assert_ne!(error.code, wire::ErrorCode::Internal, "{line}: {}", error.message);
            assert_eq!(status == 503, error.code == wire::ErrorCode::Unavailable, "{line}: {status}, {error:?}");
        }
    }
}

/// Each type reads what it writes of these octets, if it reads them.
fn travels(body: &[u8]) {
    macro_rules! each {
        ($($kind:ident),+ $(,)?) => { $( as_it_is::<wire::$kind>(stringify!($kind), body); )+ };
    }
    each![
        SetWeight,
        FlipRequest,
        AddBackend,
        SetBackendWeight,
        NetworkChange,
        ExplainRequest,
        TraceFilter,
        PromoteRequest,
        RolloutWord,
        ErrorBody,
        VersionInfo,
        Status,
        ServiceStatus,
        BackendList,
        Networks,
        NetworkChanged,
        Explanation,
        Event,
        TraceRecord,
        Reload,
        Detached,
        DoctorReport,
        RolloutStatus,
        History,
    ];
}

fn as_it_is<T: Serialize + DeserializeOwned>(name: &str, body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&value).unwrap_or_else(|error| panic!("{name} can't be written: {error}"));
    let read: T = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{name} doesn't read what it writes: {error}"));
    let again = serde_json::to_vec(&read).unwrap_or_else(|error| panic!("{name} can't be written again: {error}"));
    assert_eq!(written, again, "{name} reads something else than it writes");
}

/// An agent's core that can't do anything now.
struct Busy;

fn busy<T>() -> CommandResult<T> {
    Err(CommandError::new(CommandErrorKind::Unavailable, "busy"))
}

macro_rules! busy {
    ($($command:ident($($argument:ty),*) -> $answer:ty;)+) => { $(
        async fn $command(&self, $(_: $argument),*) -> CommandResult<$answer> { busy() }
    )+ };
}

impl Commands for Busy {
    busy! {
        version() -> wire::VersionInfo;
        status(Option<ServiceName>) -> wire::Status;
        set_weight(ServiceName, Weight, Caller) -> wire::ServiceStatus;
        flip(ServiceName, wire::FlipRequest, Caller) -> wire::ServiceStatus;
        unflip(ServiceName, Caller) -> wire::ServiceStatus;
        backends(ServiceName) -> wire::BackendList;
        add_backend(ServiceName, wire::AddBackend, Caller) -> wire::BackendList;
        remove_backend(ServiceName, SocketAddr, Caller) -> wire::BackendList;
        drain_backend(ServiceName, SocketAddr, bool, Caller) -> wire::BackendList;
        set_backend_weight(ServiceName, SocketAddr, BackendWeight, Caller) -> wire::BackendList;
        networks(ServiceName) -> wire::Networks;
        change_networks(ServiceName, wire::NetworkChange, Caller) -> wire::NetworkChanged;
        explain(ServiceName, wire::ExplainRequest) -> wire::Explanation;
        reload(Caller) -> wire::Reload;
        detach(Caller) -> wire::Detached;
        doctor() -> wire::DoctorReport;
        rollout(ServiceName) -> wire::RolloutStatus;
        change_rollout(ServiceName, wire::RolloutAction, Caller) -> wire::RolloutStatus;
        history(Option<ServiceName>, u32) -> wire::History;
    }

    async fn events(&self, _: bool) -> CommandResult<BoxStream<'static, wire::Event>> {
        Ok(stream::empty().boxed())
    }

    async fn trace(&self, _: ServiceName, _: wire::TraceFilter) -> CommandResult<BoxStream<'static, wire::TraceRecord>> {
        Ok(stream::empty().boxed())
    }
}
