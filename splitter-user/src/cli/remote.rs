//! Commands that the agent carries out: one call each, and a sentence about what came of it.

use std::net::SocketAddr;

use super::{
    Io,
    args::{BackendCommand, NetworkArgs, NetworkCommand, Remote},
    failure::{Code, Failure},
    rollout, show, watch,
};
use crate::{
    api::{
        client::{Client, ClientError},
        wire::{
            AddBackend, BackendList, BackendState, BackendStatus, Check, CheckResult, DoctorReport, ExplainRequest, FlipRequest,
            NetworkChange, ServiceStatus, TraceFilter, Way,
        },
    },
    model::{Existing, ServiceName},
};

/// Carries out a command.
pub(super) async fn run(command: Remote, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    match command {
        Remote::Status { service, watch: true, output } => watch::status(client, service.as_ref(), output, io).await,
        Remote::Status { service, watch: false, output } => {
            let status = client.status(service.as_ref()).await?;
            show::print(io, output, &status, |status| show::status(status, None))
        }
        Remote::Weight { service, weight } => {
            let status = client.set_weight(&service, weight).await?;
            say(io, &format!("{service}: weight {}, {}", status.weights.asked, in_force(&status)))
        }
        Remote::Flip { service, existing, reason } => {
            let status = client.flip(&service, &FlipRequest { existing: existing.into(), reason }).await?;
            let existing = status.flip.map_or(existing.into(), |flip| flip.existing);
            let fate = match existing {
                Existing::Keep => "go on",
                Existing::Reset => "are reset with their next packet",
            };
            say(io, &format!("{service}: flipped, everything new goes to stable; established canary connections {fate}"))
        }
        Remote::Unflip { service } => {
            let status = client.unflip(&service).await?;
            say(io, &format!("{service}: not flipped any more, {}", in_force(&status)))
        }
        Remote::Backend(command) => backend(command, client, io).await,
        Remote::Network(command) => network(command, client, io).await,
        Remote::Explain { service, from, at, output } => {
            let request = ExplainRequest { client: from.address, port: from.port, at };
            let explanation = client.explain(&service, &request).await?;
            show::print(io, output, &explanation, show::explanation)
        }
        Remote::Events { follow, output } => {
            let mut events = client.events(follow).await?;
            while let Some(event) = events.next().await? {
                show::print_line(io, output, &event, show::event)?;
            }
            // With `follow`, only the agent ends the stream.
            if follow { Err(ended(client)) } else { Ok(()) }
        }
        Remote::Trace { service, from, count, output } => {
            let mut records = client.trace(&service, TraceFilter { from, count }).await?;
            let mut seen = 0;
            while let Some(record) = records.next().await? {
                seen += 1;
                show::print_line(io, output, &record, show::trace_record)?;
            }
            if count.is_some_and(|count| seen >= count) { Ok(()) } else { Err(ended(client)) }
        }
        Remote::Reload => {
            let reload = client.reload().await?;
            if !reload.ok {
                return Err(Failure::new(Code::Failed, format!("the configuration was not taken over: {}", reload.message)));
            }
            say(io, &format!("reloaded: {}", reload.message))
        }
        Remote::Detach { pins: _ } => {
            let detached = client.detach().await?;
            say(io, &format!("detached from {}: nothing is split any more", show::joined(&detached.interfaces)))
        }
        Remote::Rollout(command) => rollout::run(command, client, io).await,
        Remote::History { service, limit, output } => {
            let history = client.history(service.as_ref(), limit).await?;
            show::print(io, output, &history, show::history)
        }
    }
}

async fn backend(command: BackendCommand, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    match command {
        BackendCommand::List { service, output } => {
            let list = client.backends(&service).await?;
            show::print(io, output, &list, show::backends)
        }
        BackendCommand::Add { service, cohort, address, weight } => {
            let add = AddBackend { address, cohort: cohort.into(), weight };
            let list = client.add_backend(&service, &add).await?;
            let way = match find(&list, address).map(|backend| &backend.way) {
                Some(Way::Missing { missing }) => format!("; it gets nothing yet: {missing}"),
                Some(Way::Known { .. }) | None => String::new(),
            };
            say(io, &format!("{service}: added {address} to {}{way}", add.cohort))
        }
        BackendCommand::Remove(name) => {
            let list = client.remove_backend(&name.service, name.address).await?;
            say(io, &format!("{}: removed {}{}", name.service, name.address, left(&list, name.address)))
        }
        BackendCommand::Drain(name) => {
            let list = client.drain_backend(&name.service, name.address, true).await?;
            say(io, &format!("{}: draining {}{}", name.service, name.address, left(&list, name.address)))
        }
        BackendCommand::Undrain(name) => {
            client.drain_backend(&name.service, name.address, false).await?;
            say(io, &format!("{}: {} gets new connections again", name.service, name.address))
        }
        BackendCommand::Weight { name, weight } => {
            client.set_backend_weight(&name.service, name.address, weight).await?;
            say(io, &format!("{}: {} has weight {} in its cohort", name.service, name.address, weight.get()))
        }
    }
}

async fn network(command: NetworkCommand, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    match command {
        NetworkCommand::List { service, output } => {
            let networks = client.networks(&service).await?;
            show::print(io, output, &networks, show::networks)
        }
        NetworkCommand::Add(NetworkArgs { service, list, prefixes }) => {
            let change = NetworkChange { list: list.into(), add: prefixes, remove: vec![] };
            change_networks(&service, &change, client, io).await
        }
        NetworkCommand::Remove(NetworkArgs { service, list, prefixes }) => {
            let change = NetworkChange { list: list.into(), add: vec![], remove: prefixes };
            change_networks(&service, &change, client, io).await
        }
    }
}

async fn change_networks(service: &ServiceName, change: &NetworkChange, client: &Client, io: &mut Io<'_>) -> Result<(), Failure> {
    let done = client.change_networks(service, change).await?;
    let (list, added, removed, total) = (done.list.as_str(), done.added, done.removed, done.total);
    let what = match (added, removed) {
        (added, 0) => format!("{added} added"),
        (0, removed) => format!("{removed} removed"),
        (added, removed) => format!("{added} added, {removed} removed"),
    };
    say(io, &format!("{service}: {list}: {what}, {total} in the list"))
}

/// Adds the agent's view to a report, or that there is none.
pub(super) async fn doctor(client: &Client, report: &mut DoctorReport) {
    let about_agent = |result, finding: String, remedy| Check {
        name: "agent".to_owned(),
        subject: Some(client.socket().display().to_string()),
        result,
        finding,
        remedy,
    };
    match client.doctor().await {
        Ok(agent) => {
            report.checks.push(about_agent(CheckResult::Ok, "it answers".to_owned(), None));
            report.checks.extend(agent.checks);
        }
        Err(error @ ClientError::NotPermitted { .. }) => {
            report.checks.push(about_agent(CheckResult::Unknown, error.to_string(), error.remedy()));
        }
        Err(
            error @ (ClientError::NotRunning { .. }
            | ClientError::Refused { .. }
            | ClientError::Lost { .. }
            | ClientError::TimedOut { .. }
            | ClientError::NotUnderstood { .. }),
        ) => report.checks.push(about_agent(CheckResult::Fail, error.to_string(), error.remedy())),
    }
}

fn say(io: &mut Io<'_>, sentence: &str) -> Result<(), Failure> {
    writeln!(io.out, "{sentence}")?;
    Ok(())
}

fn ended(client: &Client) -> Failure {
    let error = format!("the agent on {} ended the stream", client.socket().display());
    Failure::new(Code::NotReachable, error).hint("see whether it was stopped: `systemctl status splitter`")
}

fn in_force(status: &ServiceStatus) -> String {
    match status.weights.in_force {
        Some(_) if status.flip.is_some() => {
            format!("but the service is flipped: nothing goes to the canary until `splitter unflip {}`", status.name)
        }
        Some(weight) => format!("{weight} in force"),
        None => "what is in force is not known".to_owned(),
    }
}

fn find(list: &BackendList, address: SocketAddr) -> Option<&BackendStatus> {
    list.cohorts.iter().flat_map(|cohort| &cohort.backends).find(|backend| backend.address == address)
}

/// How many connections it still has, where that is known.
fn left(list: &BackendList, address: SocketAddr) -> String {
    let backend = find(list, address).filter(|b| matches!(b.state, BackendState::Draining | BackendState::Removed));
    match backend.and_then(|backend| backend.connections) {
        Some(1) => ", 1 connection left".to_owned(),
        Some(connections) => format!(", {connections} connections left"),
        None => String::new(),
    }
}
