//! The core's task: what wakes it, and nothing else.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{clock, core::Core, error::AgentError, handle::Request, ways::WaySource};

/// What errors call it.
pub(super) const NAME: &str = "the core";

/// How often connections are counted, and what failed is tried again.
const SWEEP: Duration = Duration::from_secs(1);

/// How often reported decisions are fetched while somebody reads them.
const TRACE: Duration = Duration::from_millis(50);

/// Works until the core says that it has ended.
pub(super) async fn work<W: WaySource>(
    mut core: Core,
    mut ways: W,
    mut requests: mpsc::Receiver<Request>,
) -> Result<(), AgentError> {
    let mut every = core.config.agent.sample_interval;
    let (mut sample, mut sweep, mut trace) = (ticks(every), ticks(SWEEP), ticks(TRACE));
    let mut watched = core.destinations();
    loop {
        tokio::select! {
            Some(request) = requests.recv() => {
                request(&mut core, clock::now());
                if core.destinations() != watched {
                    watched = core.destinations();
                    ways.watch(watched.clone());
                }
            }
            _ = sample.tick() => core.observe(clock::now()),
            _ = sweep.tick() => {
                core.sweep(clock::now());
                super::signals::alive();
            }
            _ = trace.tick(), if core.tracing.is_some() => core.on_trace(clock::now()),
            changed = ways.changed() => match changed {
                Ok(()) => core.on_ways(ways.ways(), clock::now()),
                Err(lost) => {
                    let why = format!("whoever follows routes and neighbours has ended ({lost:?})");
                    return Err(AgentError::Task { task: NAME, why });
                }
            },
        }
        core.published.alive.send_replace(clock::now().instant);
        if core.ended {
            break;
        }
        if core.config.agent.sample_interval != every {
            every = core.config.agent.sample_interval;
            sample = ticks(every);
        }
    }
    ways.stop().await;
    Ok(())
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
