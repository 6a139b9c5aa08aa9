//! `splitter rollout wait`: for pipelines, which want lines, an end, and an exit code.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::standing;
use crate::{
    api::{
        client::{Client, ClientError},
        wire::{ErrorCode, RolloutEntry, RolloutPhase, RolloutStatus, VerdictWord},
    },
    cli::{
        Io,
        args::{Format, Output},
        failure::{Code, Failure},
        show,
    },
    model::ServiceName,
    store::{EventKind, Moved},
};

/// How it's waited.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// So long at most.
    pub timeout: Option<Duration>,
    /// At gates as well.
    pub past_gates: bool,
    /// So long may the agent not answer.
    pub agent_away: Duration,
    /// For whom lines are written.
    pub output: Output,
}

/// Waits for the end of the rollout that goes on; of one that is over, tells how it ended.
pub(super) async fn run(service: &ServiceName, options: Options, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let waits = wait(service, options, client, io);
    let Some(limit) = options.timeout else { return waits.await };
    // No limit that can be written is as far off as the clock's end; if it were, there would be none.
    let Some(deadline) = Instant::now().checked_add(limit) else { return waits.await };
    timeout_at(deadline, waits).await.unwrap_or_else(|_| {
        let limit = humantime::format_duration(limit);
        let hint = format!("`splitter rollout status {service}` shows where it is");
        Err(Failure::new(Code::TimedOut, format!("the rollout of {service} has not ended within {limit}")).hint(hint))
    })
}

async fn wait(service: &ServiceName, options: Options, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let mut ticks = interval(io.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut contact = Contact { since: Instant::now(), ever: false, told: false };
    let mut before: Option<RolloutStatus> = None;
    loop {
        ticks.tick().await;
        let now = match client.rollout(service).await {
            Ok(now) => now,
            Err(error) => {
                contact.lost(error, options.agent_away, io)?;
                continue;
            }
        };
        contact.found(io)?;
        if let Some(before) = before.as_ref().filter(|before| before.number != now.number) {
            return replaced(before, &now, client).await;
        }
        tell(before.as_ref(), &now, options.output, io)?;
        if let Some(end) = end(&now, options.past_gates) {
            return end;
        }
        before = Some(now);
    }
}

/// How it is with the agent.
struct Contact {
    /// When it last answered, or when it was first asked.
    since: Instant,
    /// It has answered.
    ever: bool,
    /// It doesn't answer, and that was said.
    told: bool,
}

impl Contact {
    fn found(&mut self, io: &mut Io<'_>) -> Result<(), Failure> {
        if self.told {
            writeln!(io.err, "the agent answers again")?;
        }
        *self = Self { since: Instant::now(), ever: true, told: false };
        Ok(())
    }

    /// An agent that is restarted or replaced comes back; what else goes wrong, and what lasts too long, ends the wait.
    fn lost(&mut self, error: ClientError, patience: Duration, io: &mut Io<'_>) -> Result<(), Failure> {
        let passes = match &error {
            ClientError::NotRunning { .. } | ClientError::Lost { .. } | ClientError::TimedOut { .. } => true,
            ClientError::Refused { body } => body.code == ErrorCode::Unavailable,
            // A new socket isn't its group's yet for a moment.
            ClientError::NotPermitted { .. } => self.ever,
            ClientError::NotUnderstood { .. } => false,
        };
        if !passes || self.since.elapsed() >= patience {
            return Err(error.into());
        }
        if !self.told {
            writeln!(io.err, "{error}; waiting for it, at most {}", humantime::format_duration(patience))?;
            self.told = true;
        }
        Ok(())
    }
}

/// Tells what has changed, if something has.
fn tell(before: Option<&RolloutStatus>, now: &RolloutStatus, output: Output, io: &mut Io<'_>) -> Result<(), Failure> {
    let known = before.and_then(|before| before.log.last());
    let known = known.and_then(|last| now.log.iter().rposition(|entry| entry == last)).map_or(0, |at| at + 1);
    // Who begins to wait is told where it is, not how it came there.
    let new: &[RolloutEntry] = if before.is_some() { now.log.get(known..).unwrap_or_default() } else { &[] };
    let changed = before.is_none_or(|before| !new.is_empty() || key(before) != key(now));
    if !changed {
        return Ok(());
    }
    match output.format {
        Format::Human => {
            for entry in new {
                // Not wrapped: whoever reads a pipeline's log searches it by lines.
                writeln!(io.out, "{}  {}", show::time(entry.at), entry.message)?;
            }
            let (number, next) = (now.number, &now.next);
            let verdict = now.verdict.as_ref().map(|verdict| format!("; {}", show::verdict(verdict))).unwrap_or_default();
            writeln!(io.out, "{}: rollout {number}, {}{verdict}; next: {next}", now.service, standing(now))?;
            io.out.flush()?;
            Ok(())
        }
        Format::Json => show::print_line(io, output, now, |_| String::new()),
    }
}

/// What makes a line when it changes. Counts and shares change with every look, and don't.
fn key(status: &RolloutStatus) -> (RolloutPhase, Option<usize>, Option<VerdictWord>) {
    (status.phase, status.step, status.verdict.as_ref().map(|verdict| verdict.word))
}

/// How the wait ends, if it does.
fn end(now: &RolloutStatus, past_gates: bool) -> Option<Result<(), Failure>> {
    let RolloutStatus { service, number, next, .. } = now;
    let why = now.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let failed =
        |code, what: &str| Some(Err(Failure::new(code, format!("rollout {number} of {service} {what}")).hint(next.clone())));
    match now.phase {
        RolloutPhase::Promoted => Some(Ok(())),
        RolloutPhase::Flipped => failed(Code::Flipped, &format!("was flipped{why}")),
        RolloutPhase::Aborted => failed(Code::Aborted, &format!("was aborted{why}")),
        RolloutPhase::Gate if now.needs_approval && !past_gates => {
            failed(Code::AtGate, &format!("waits at {}", show::place(now)))
        }
        RolloutPhase::Gate | RolloutPhase::Stepping | RolloutPhase::Paused | RolloutPhase::Promoting => None,
    }
}

/// Another rollout has begun since: how the one that was waited for ended is among the events.
async fn replaced(before: &RolloutStatus, now: &RolloutStatus, client: &Client) -> Result<(), Failure> {
    let RolloutStatus { service, number, .. } = before;
    let mut events = client.events(false).await?;
    let mut ended = None;
    while let Some(event) = events.next().await? {
        if let EventKind::Rollout { rollout, what } = event.kind
            && rollout == *number
            && ended.is_none()
        {
            ended = ending(&what).map(|end| (end, event.message));
        }
    }
    let after = format!("rollout {} has begun since: `splitter rollout status {service}` shows it", now.number);
    match ended {
        Some((Code::Ok, _)) => Ok(()),
        Some((code, message)) => Err(Failure::new(code, format!("{service}: {message}")).hint(after)),
        None => {
            let error = format!("rollout {number} of {service} is over, and no event says how it ended");
            Err(Failure::new(Code::Failed, error).hint(after))
        }
    }
}

/// The end of a wait by what happened to the rollout; none if it went on.
const fn ending(what: &Moved) -> Option<Code> {
    match what {
        Moved::Promoted => Some(Code::Ok),
        Moved::Flipped { .. } => Some(Code::Flipped),
        Moved::Aborted { .. } => Some(Code::Aborted),
        Moved::Started { .. }
        | Moved::Step { .. }
        | Moved::Passed { .. }
        | Moved::Gate { .. }
        | Moved::Opened { .. }
        | Moved::Proceeded { .. }
        | Moved::Skipped { .. }
        | Moved::Paused { .. }
        | Moved::Resumed { .. }
        | Moved::Promoting { .. } => None,
    }
}
