//! `splitter rollout`: what is asked of a rollout, and a sentence about what came of it.

mod wait;

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Io,
    args::{Format, Output, RolloutCommand, RolloutName},
    failure::Failure,
    show,
    watch::{CLEAR, REDRAW},
};
use crate::{
    api::{
        client::Client,
        wire::{PromoteRequest, RolloutAction, RolloutPhase, RolloutStatus, RolloutWord},
    },
    model::ServiceName,
};

/// Carries out a command.
pub(super) async fn run(command: RolloutCommand, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let word = |word| RolloutAction::Word(word);
    match command {
        RolloutCommand::Start(name) => change(name, word(RolloutWord::Start), client, io).await,
        RolloutCommand::Pause(name) => change(name, word(RolloutWord::Pause), client, io).await,
        RolloutCommand::Resume(name) => change(name, word(RolloutWord::Resume), client, io).await,
        RolloutCommand::Approve(name) => change(name, word(RolloutWord::Approve), client, io).await,
        RolloutCommand::Abort(name) => change(name, word(RolloutWord::Abort), client, io).await,
        RolloutCommand::Retry(name) => change(name, word(RolloutWord::Retry), client, io).await,
        RolloutCommand::Promote { name, full } => change(name, RolloutAction::Promote(PromoteRequest { full }), client, io).await,
        RolloutCommand::Status { service, watch: true, output } => watch(&service, output, client, io).await,
        RolloutCommand::Status { service, watch: false, output } => {
            show::print(io, output, &client.rollout(&service).await?, show::rollout)
        }
        RolloutCommand::Wait { service, timeout, past_gates, agent_away, output } => {
            wait::run(&service, wait::Options { timeout, past_gates, agent_away, output }, client, io).await
        }
    }
}

async fn change(name: RolloutName, action: RolloutAction, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let status = client.change_rollout(&name.service, action).await?;
    show::print(io, name.output, &status, |status| sentence(did(action), status))
}

/// What was done, where the rollout is by it, and what comes next.
fn sentence(did: &str, status: &RolloutStatus) -> String {
    let RolloutStatus { service, number, next, .. } = status;
    format!("{service}: rollout {number} {did}: {}; next: {next}\n", standing(status))
}

const fn did(action: RolloutAction) -> &'static str {
    match action {
        RolloutAction::Word(RolloutWord::Start | RolloutWord::Retry) => "started",
        RolloutAction::Word(RolloutWord::Pause) => "paused",
        RolloutAction::Word(RolloutWord::Resume) => "resumed",
        RolloutAction::Word(RolloutWord::Approve) => "approved",
        RolloutAction::Word(RolloutWord::Abort) => "aborted",
        RolloutAction::Promote(PromoteRequest { full: false }) => "moved on",
        RolloutAction::Promote(PromoteRequest { full: true }) => "cut short",
    }
}

/// Where a rollout is, in a few words.
fn standing(status: &RolloutStatus) -> String {
    let place = show::place(status);
    let share = status.weight.0.map(|weight| format!("{weight} to the canary")).unwrap_or_default();
    match status.phase {
        RolloutPhase::Stepping | RolloutPhase::Gate => format!("{place}, {share}"),
        RolloutPhase::Paused => format!("it stays at {place}, {share}"),
        RolloutPhase::Flipped => "everything goes to stable".to_owned(),
        RolloutPhase::Promoting => "it's being promoted".to_owned(),
        RolloutPhase::Promoted => "the canary's backends are stable".to_owned(),
        RolloutPhase::Aborted => "nothing new goes to the canary".to_owned(),
    }
}

/// Shows it until it can't be had, or can't be written any more.
async fn watch(service: &ServiceName, output: Output, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let redraw = io.terminal && output.format == Format::Human;
    let mut ticks = interval(io.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if redraw {
        io.out.write_all(CLEAR.as_bytes())?;
    }
    loop {
        ticks.tick().await;
        let status = client.rollout(service).await?;
        if redraw {
            io.out.write_all(REDRAW.as_bytes())?;
        }
        show::print_line(io, output, &status, |status| {
            let text = show::rollout(status);
            // Blocks that follow each other in a file are told apart by an empty line.
            if redraw { text } else { format!("{text}\n") }
        })?;
    }
}
