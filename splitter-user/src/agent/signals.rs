//! Signals from outside, and to the service manager.

use std::io;

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{error::AgentError, handle::Handle};
use crate::api::command::{Caller, Commands as _};

/// What an agent is told from outside, besides commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Read the configuration anew.
    Reload,
    /// Stop in order.
    Stop,
}

/// Takes SIGHUP, SIGTERM and SIGINT for the agent.
///
/// # Errors
/// The system refuses.
pub fn from_system() -> Result<mpsc::Receiver<Signal>, AgentError> {
    let open = |kind| signal(kind).map_err(AgentError::Signals);
    let (mut hangup, mut terminate, mut interrupt) =
        (open(SignalKind::hangup())?, open(SignalKind::terminate())?, open(SignalKind::interrupt())?);
    let (to, signals) = mpsc::channel(4);
    // Ends with the agent, which holds the other end.
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = hangup.recv() => Signal::Reload,
                Some(()) = terminate.recv() => Signal::Stop,
                Some(()) = interrupt.recv() => Signal::Stop,
                () = to.closed() => return,
            };
            if to.send(signal).await.is_err() {
                return;
            }
        }
    });
    Ok(signals)
}

/// Reloads when told to, and ends when told to stop, or when nobody can tell any more.
pub(super) async fn obey(mut signals: mpsc::Receiver<Signal>, handle: Handle) {
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Stop => break,
            Signal::Reload => {
                let by = Caller { uid: nix::unistd::getuid().as_raw(), user: Some("SIGHUP".to_owned()) };
                match handle.reload(by).await {
                    Ok(reload) => tracing::info!("reloaded: {}", reload.message),
                    Err(error) => tracing::error!(%error, "the configuration was refused; the one before stays in force"),
                }
            }
        }
    }
    tell(&[NotifyState::Stopping]);
}

/// The agent is up: to the service manager, if there is one.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The core moves: for the service manager's watchdog.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(what: &[NotifyState<'_>]) {
    match sd_notify::notify(what) {
        Ok(()) => {}
        // A sandbox may hide its socket; the agent works without.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "the service manager could not be told"),
    }
}
