//! A server that answers as a test wants, and remembers what it was asked.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri, header},
};
use tokio::{net::TcpListener, task::JoinSet};

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// This status and body.
    Status(u16, String),
    /// That it has moved.
    Redirect(String),
    /// Nothing at all.
    Never,
    /// A body without an end.
    Endless,
}

impl Says {
    pub(crate) fn ok(body: &str) -> Self {
        Self::Status(200, body.to_owned())
    }
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// A server on loopback; gone when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    /// One after the other; the last again and again.
    says: Mutex<VecDeque<Says>>,
    asked: Mutex<Vec<Asked>>,
}

impl Server {
    pub(crate) async fn start(says: impl IntoIterator<Item = Says>) -> Self {
        let shared = Arc::new(Shared { says: Mutex::new(says.into_iter().collect()), asked: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, shared, _serving: serving }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response<Body> {
    lock(&shared.asked).push(Asked { method, uri, headers, body });
    let says = {
        let mut says = lock(&shared.says);
        if says.len() > 1 { says.pop_front() } else { says.front().cloned() }
    };
    let (status, location, body) = match says.expect("something to say") {
        Says::Status(status, body) => (status, None, Body::from(body)),
        Says::Redirect(to) => (307, Some(to), Body::empty()),
        Says::Never => pending().await,
        Says::Endless => {
            let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
            (200, None, Body::from_stream(chunks))
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(location) = location {
        response = response.header(header::LOCATION, location);
    }
    response.body(body).expect("a response")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
