//! Connections of a listener: each a task of its own, all of them ended when the server ends.

mod activity;

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, middleware, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};

use self::activity::{Activity, PATIENCE};

/// For more than these, whoever has been silent the longest makes room: hundreds who connect and say nothing must not keep anybody from a flip.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send a request's head; also how long a kept connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a new connection is served with.
pub trait Welcome<Io>: Clone + Send + 'static {
    /// The router for it.
    ///
    /// # Errors
    /// It can't be found out who is at the other end.
    fn welcome(&self, io: &Io) -> impl Future<Output = io::Result<Router>> + Send;
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// Connections that had to be cut, because they were not done by the deadline.
    pub cut: usize,
}

/// Ready when `stop` is true, or when nobody is left who could make it so.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the sender is gone: whoever would have stopped us has ended.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Serves connections until `stop` is true, then lets requests in flight end, and cuts what lasts longer than `deadline`.
pub async fn serve<L, W>(mut listener: L, welcome: W, stop: watch::Receiver<bool>, deadline: Duration) -> Ended
where
    L: Listener,
    L::Io: Sync,
    W: Welcome<L::Io>,
{
    let mut connections = JoinSet::new();
    let mut open: Vec<Open> = Vec::new();
    let begun = Instant::now();
    let mut stopping = pin!(stopped(stop.clone()));
    loop {
        open.retain(|open| !open.task.is_finished());
        let now = begun.elapsed();
        let idlest = if open.len() < MAX_CONNECTIONS { None } else { idlest(&open, now) };
        let full = open.len() >= MAX_CONNECTIONS && idlest.is_none();
        tokio::select! {
            () = &mut stopping => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            (io, _) = listener.accept(), if !full => {
                if let Some(idlest) = idlest {
                    tracing::debug!(connections = open.len(), "a connection that was silent made room for another");
                    open.swap_remove(idlest).task.abort();
                }
                let activity = Arc::new(Activity::new(begun));
                let task = connections.spawn(connection(io, welcome.clone(), stop.clone(), Arc::clone(&activity)));
                open.push(Open { task, activity });
            }
            // All were heard of a moment ago. They may not be when it's over.
            () = tokio::time::sleep(PATIENCE), if full => {}
        }
    }
    drop(listener);
    let all_done = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    match tokio::time::timeout(deadline, all_done).await {
        Ok(()) => Ended { cut: 0 },
        Err(_) => {
            let cut = connections.len();
            connections.shutdown().await;
            Ended { cut }
        }
    }
}

/// A connection, seen from the listener.
struct Open {
    task: AbortHandle,
    activity: Arc<Activity>,
}

/// Which of them has been silent the longest, if that is long enough to be cut.
fn idlest(open: &[Open], now: Duration) -> Option<usize> {
    let silent = |open: &Open| open.activity.silent_for(now);
    let (place, _) =
        open.iter().enumerate().filter_map(|(place, open)| Some((place, silent(open)?))).max_by_key(|(_, span)| *span)?;
    Some(place)
}

async fn connection<Io, W>(io: Io, welcome: W, stop: watch::Receiver<bool>, activity: Arc<Activity>)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + Sync + 'static,
    W: Welcome<Io>,
{
    let router = match welcome.welcome(&io).await {
        Ok(router) => router.layer(middleware::from_fn_with_state(activity, activity::watch)),
        Err(error) => {
            tracing::warn!(%error, "a connection was dropped: its other end is unknown");
            return;
        }
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away or wrote no HTTP.
        tracing::debug!(%error, "a connection ended early");
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    // Those that were cut have made room for others.
    if let Err(error) = ended
        && !error.is_cancelled()
    {
        tracing::error!(%error, "a request's handler failed");
    }
}
