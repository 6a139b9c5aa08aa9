//! The core's task: what wakes it, and nothing else.

use std::{future::pending, io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    clock,
    core::Core,
    error::AgentError,
    handle::Request,
    keep::{self, Change, Kept},
    ways::WaySource,
};
use crate::checks::Said;

/// What errors call it.
pub(super) const NAME: &str = "the core";

/// How often connections are counted, and what failed is tried again.
const SWEEP: Duration = Duration::from_secs(1);

/// How often reported decisions are fetched while somebody reads them.
const TRACE: Duration = Duration::from_millis(50);

/// What the core is told.
pub(super) struct Inbox {
    /// What is done at once.
    pub(super) requests: mpsc::Receiver<Request>,
    /// What has to be kept first: one after the other.
    pub(super) changes: mpsc::Receiver<Change>,
    /// What became of states that were to be kept.
    pub(super) kept: mpsc::UnboundedReceiver<Kept>,
    /// What checks have answered.
    pub(super) said: mpsc::Receiver<Said>,
}

/// Works until the core says that it has ended.
pub(super) async fn work<W: WaySource>(mut core: Core, mut ways: W, inbox: Inbox) -> Result<(), AgentError> {
    let Inbox { mut requests, mut changes, mut kept, mut said } = inbox;
    let mut every = core.config.agent.sample_interval;
    let (mut sample, mut sweep, mut trace) = (ticks(every), ticks(SWEEP), ticks(TRACE));
    let mut watched = core.destinations();
    let mut bell = hang_up(&core);
    loop {
        let asked = tokio::select! {
            Some(request) = requests.recv() => {
                request(&mut core, clock::now());
                true
            }
            Some(change) = changes.recv(), if core.waiting.is_none() => {
                core.begin_change(change, clock::now());
                true
            }
            told = kept.recv() => {
                core.on_kept(told.ok_or_else(gone)?, clock::now());
                true
            }
            Some(said) = said.recv() => {
                core.answered(said);
                false
            }
            heard = ring(bell.as_ref()) => {
                if let Err(error) = heard {
                    tracing::error!(%error, "breakers can't be listened to any more; trips are found with the next sample");
                    bell = None;
                }
                core.hear(clock::now());
                false
            }
            _ = sample.tick() => {
                core.observe(clock::now());
                core.keep_lease(clock::now());
                false
            }
            _ = sweep.tick() => {
                core.sweep(clock::now());
                super::signals::alive();
                false
            }
            _ = trace.tick(), if core.tracing.is_some() => {
                core.on_trace(clock::now());
                false
            }
            changed = ways.changed() => match changed {
                Ok(()) => {
                    core.on_ways(ways.ways(), clock::now());
                    false
                }
                Err(lost) => {
                    let why = format!("whoever follows routes and neighbours has ended ({lost:?})");
                    return Err(AgentError::Task { task: NAME, why });
                }
            },
        };
        core.published.alive.send_replace(clock::now().instant);
        if core.ended {
            break;
        }
        if core.dataplane.is_none() {
            bell = None;
        }
        if asked {
            let destinations = core.destinations();
            if destinations != watched {
                ways.watch(destinations.clone());
                watched = destinations;
            }
        }
        if core.config.agent.sample_interval != every {
            every = core.config.agent.sample_interval;
            sample = ticks(every);
        }
    }
    while !core.keeper.is_idle() {
        let told = kept.recv().await.ok_or_else(gone)?;
        core.on_kept(told, clock::now());
    }
    core.keeper.end();
    core.archive.end();
    ways.stop().await;
    Ok(())
}

/// The data plane's bell, where it has one. Without it trips are found with the next sample.
fn hang_up(core: &Core) -> Option<AsyncFd<OwnedFd>> {
    let bell = core.dataplane.as_ref()?.bell()?;
    // SAFETY: the descriptor is open, for it is owned; the `AsyncFd` has it until it's dropped and is only asked for readiness, so nobody closes or replaces it meanwhile.
    let registered = unsafe { AsyncFd::register_with_interest(bell, Interest::READABLE) };
    match registered {
        Ok(bell) => Some(bell),
        Err(error) => {
            tracing::warn!(%error, "breakers can't be listened to; trips are found with the next sample");
            None
        }
    }
}

/// Waits until the bell rings.
async fn ring(bell: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(bell) = bell else { return pending().await };
    // Cleared before it's read: what rings in between rings again.
    bell.readable().await?.clear_ready();
    Ok(())
}

fn gone() -> AgentError {
    AgentError::Task { task: keep::NAME, why: "it doesn't tell any more what it has kept".to_owned() }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
