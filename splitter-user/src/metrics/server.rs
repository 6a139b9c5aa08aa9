//! What monitoring asks for over TCP: `/metrics`, `/healthz` and `/readyz`.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{CLASSIC, OPEN_METRICS, Snapshot, classic, open_metrics};
use crate::api::connections::{Ended, Welcome, serve};

/// How long a scrape that is under way when the agent ends may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the agent's core has to be able to say.
pub trait Observed: Send + Sync + 'static {
    /// The numbers of this moment.
    ///
    /// # Errors
    /// Why there are none, in words.
    fn snapshot(&self) -> impl Future<Output = Result<Snapshot, String>> + Send;

    /// Whether the agent works: if not, it should be started anew.
    ///
    /// # Errors
    /// Why not, in words.
    fn healthy(&self) -> Result<(), String>;

    /// Whether packets are split as they should be: the data plane is attached and has the configuration.
    ///
    /// # Errors
    /// Why not, in words.
    fn ready(&self) -> Result<(), String>;
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address} for metrics: {source}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

impl ListenError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let port = self.address.port();
        if self.source.kind() == io::ErrorKind::AddrInUse {
            format!("`ss -ltnp 'sport = :{port}'` shows who has it; or set another `metrics_address` in `[agent]`")
        } else {
            "set another `metrics_address` in `[agent]`".to_owned()
        }
    }
}

/// Takes the address.
///
/// # Errors
/// It is in use, isn't this node's, or isn't allowed.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves until `stop` turns true (or its sender is dropped).
pub async fn run<O: Observed>(listener: TcpListener, observed: Arc<O>, stop: watch::Receiver<bool>) -> Ended {
    let router = Router::new()
        .route("/metrics", get(metrics::<O>))
        .route("/healthz", get(healthz::<O>))
        .route("/readyz", get(readyz::<O>))
        .with_state(observed);
    serve(listener, Everyone { router }, stop, DEADLINE).await
}

async fn metrics<O: Observed>(State(observed): State<Arc<O>>, headers: HeaderMap) -> Response {
    let snapshot = match observed.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    };
    let (content_type, text) =
        if wants_open_metrics(&headers) { (OPEN_METRICS, open_metrics(snapshot)) } else { (CLASSIC, classic(snapshot)) };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics could not be written: {error}\n")).into_response(),
    }
}

/// Prometheus names it; a person with curl, and `promtool check metrics`, know the classic format.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| range.trim_start().starts_with("application/openmetrics-text"))
}

async fn healthz<O: Observed>(State(observed): State<Arc<O>>) -> Response {
    probe(observed.healthy())
}

async fn readyz<O: Observed>(State(observed): State<Arc<O>>) -> Response {
    probe(observed.ready())
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// There is nothing secret here and nothing to be changed: the address that is listened on decides who may look.
#[derive(Clone)]
struct Everyone {
    router: Router,
}

impl Welcome<TcpStream> for Everyone {
    async fn welcome(&self, _: &TcpStream) -> io::Result<Router> {
        Ok(self.router.clone())
    }
}
