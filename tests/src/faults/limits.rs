//! The agent's own way back to stable: the limits of `[service.breach]`, which it looks at with every sample. From the connection that crosses one to the flip.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use splitter_user::{
    model::{Cohort, Mode},
    store::{EventKind, FlipReason},
};

use super::{Clock, Fault, Kind, Monotonic, Syns};
use crate::{
    lab::Topology,
    node::{Family, Site},
    workload::http::{self, Outcome, Pace},
};

/// With fewer attempts of the canary nothing is judged.
const MIN_ATTEMPTS: usize = 20;
const WARM_UP: Duration = Duration::from_millis(500);
/// 20 attempts take 400 ms.
const ENOUGH: Duration = Duration::from_millis(1_500);
const LOAD_LIMIT: Duration = Duration::from_secs(30);
const CLIENTS: u16 = 50;
const SERVICE: &str = "web4";

/// One run: the canary gets 5% of 1,000 new connections a second, and refuses them all. From the end of its 20th attempt, as its client sees it, to the flip: to the later
/// one of what the agent's event says, and of the last new connection that reached the canary.
///
/// # Errors
/// It can't be played to its end, or the agent doesn't flip for the limit.
pub fn play() -> Result<Duration> {
    let lines = format!("[service.breach]\nrefused = \"5%\"\nmin_attempts = {MIN_ATTEMPTS}\nwindow = \"10s\"\n");
    let builder = Site::builder(Topology::TwoArmSwitched, Mode::Nat).clients(CLIENTS).backends(2, 1).weight("0%").more(&lines);
    let mut site = builder.prepare().context("the network and its servers")?;
    let mut fault = Fault::prepare(Kind::Refuse, &mut site).context("preparing the fault")?;
    site.node.start().context("the agent")?;
    let canary = site.of(Cohort::Canary).next().context("a canary")?;
    let syns = Syns::start(&canary.namespace, "eth0")?;
    let load = http::Load { pace: Pace::PerSecond(1_000.0), duration: LOAD_LIMIT, ..site.web(Family::V4, u64::MAX) };
    let load = load.start(site.lab.client())?;
    let (begun, clock) = (load.begun, Clock::now());
    thread::sleep(WARM_UP);
    fault.begin(&site).context("beginning the fault")?;
    site.node.run(&["weight", SERVICE, "5%"]).context("raising the weight")?;
    // Whoever asks an agent has it look at its counters: nobody asks until it's over.
    thread::sleep(ENOUGH);
    site.node.wait_until("a flip", |status| status.services.iter().any(|service| service.flip.is_some()))?;
    let report = load.stop()?;
    let last = syns.stop()?.iter().map(|syn| syn.at).max().context("nothing reached the canary")?;
    let mut refused: Vec<Monotonic> = report
        .records
        .iter()
        .filter(|record| record.outcome == Outcome::Refused)
        .map(|r| clock.of(begun + r.begun + r.took))
        .collect();
    refused.sort_unstable();
    let crossed = *refused.get(MIN_ATTEMPTS - 1).with_context(|| format!("{} attempts were refused", refused.len()))?;
    let flipped = flipped(&site, &clock)?.max(last);
    flipped.since(crossed).context("flipped before the limit was crossed")
}

/// When the agent's events say that it was.
fn flipped(site: &Site, clock: &Clock) -> Result<Monotonic> {
    for event in site.node.events()? {
        if let EventKind::Flipped { reason: FlipReason::Breach { .. }, .. } = &event.kind {
            let wall = u64::try_from(event.at.as_nanosecond()).context("before 1970")?;
            return Ok(clock.of_wall(wall));
        }
    }
    bail!("the agent has flipped the service for another reason: {:?}", site.node.service(SERVICE)?.flip)
}
