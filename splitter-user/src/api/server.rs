//! The agent's end: commands over the unix socket.

use std::{io, sync::Arc, time::Duration};

use axum::{Extension, Router};
use nix::unistd::{Uid, User};
use tokio::{net::UnixStream, sync::watch};

use super::{
    command::{Caller, Commands},
    connections::{Ended, Welcome, serve},
    routes::router,
    socket::Socket,
};

/// How patient the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A request that isn't answered by then fails.
    pub request_timeout: Duration,
    /// When the server is stopped, requests in flight get so long.
    pub shutdown_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(10), shutdown_deadline: Duration::from_secs(5) }
    }
}

/// Serves the API until `stop` turns true (or its sender is dropped), then removes the socket's file.
///
/// # Errors
/// The socket can't be used by the runtime.
pub async fn run<C: Commands>(
    socket: Socket,
    commands: Arc<C>,
    options: Options,
    stop: watch::Receiver<bool>,
) -> io::Result<Ended> {
    let (listener, file) = socket.into_parts()?;
    let router = router(commands, options.request_timeout, stop.clone());
    let ended = serve(listener, Known { router }, stop, options.shutdown_deadline).await;
    drop(file);
    Ok(ended)
}

/// Adds to a connection who is at its other end.
#[derive(Clone)]
struct Known {
    router: Router,
}

impl Welcome<UnixStream> for Known {
    async fn welcome(&self, io: &UnixStream) -> io::Result<Router> {
        let uid = io.peer_cred()?.uid();
        // The name may come from a directory service over the network: not on a thread that serves others.
        let user = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await.map_err(io::Error::other)?;
        // Without a name the number will do: a directory that doesn't answer must not stop a flip.
        let user = user.ok().flatten().map(|user| user.name);
        Ok(self.router.clone().layer(Extension(Caller { uid, user })))
    }
}

#[cfg(test)]
mod tests;
