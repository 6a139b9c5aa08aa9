//! The command line. It talks to the agent through the API only; what happens in its own process comes from [`Local`].
//!
//! `docs/cli.md` has every command's help, made from [`args`], and the exit codes of [`Code`].

mod args;
mod failure;
mod local;
mod remote;
mod rollout;
mod show;
mod simulate;
mod watch;

pub use args::AgentOptions;
pub use failure::{Code, Failure};
pub use local::Local;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use args::{Args, Command, Remote};
use clap::{CommandFactory, FromArgMatches};

use crate::{
    api::{DEFAULT_SOCKET, client::Client},
    config,
};

/// Where a command writes to, and how it is looked at.
pub struct Io<'a> {
    /// Results, with colours.
    pub out: &'a mut dyn Write,
    /// Errors, with colours.
    pub err: &'a mut dyn Write,
    /// Whether `out` is a terminal, so that `--watch` may redraw it.
    pub terminal: bool,
    /// How often `--watch` looks.
    pub tick: Duration,
}

/// Runs the command that the process was started with.
pub fn main(local: &dyn Local) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    // Not locked: the agent's log goes to standard error as well, from other threads.
    let (mut out, mut err) = (anstream::stdout(), anstream::stderr());
    let mut io = Io { out: &mut out, err: &mut err, terminal, tick: Duration::from_secs(1) };
    ExitCode::from(run(std::env::args_os(), local, &mut io) as u8)
}

/// Runs a command; `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, local: &dyn Local, io: &mut Io) -> Code {
    match parse(arguments) {
        Ok(args) => match dispatch(args, local, io) {
            Ok(()) => Code::Ok,
            Err(failure) => failure.report(io.err),
        },
        // Help and the version are errors to clap, and no failures.
        Err(error) => {
            let to: &mut dyn Write = if error.use_stderr() { io.err } else { io.out };
            let code = if error.use_stderr() { Code::Usage } else { Code::Ok };
            match write!(to, "{}", error.render().ansi()) {
                Ok(()) => code,
                Err(error) => Failure::from(error).report(io.err),
            }
        }
    }
}

/// Whether these words, the program's name first, are a command line. Nothing is done.
///
/// # Errors
/// They aren't, and why; or they ask for help or the version.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<(), clap::Error> {
    parse(arguments).map(drop)
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let matches = Args::command().try_get_matches_from(arguments)?;
    Args::from_arg_matches(&matches)
}

fn dispatch(args: Args, local: &dyn Local, io: &mut Io) -> Result<(), Failure> {
    let client = Client::new(args.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()));
    match args.command {
        Command::Agent(mut options) => {
            options.socket = args.socket;
            local.agent(&options)
        }
        Command::Check { file } => {
            let config = config::load(&file)?;
            let backends: usize = config.services.iter().map(|service| service.backends.len()).sum();
            let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let (services, backends) = (counted(config.services.len(), "service"), counted(backends, "backend"));
            writeln!(io.out, "{}: ok: {services}, {backends}", file.display())?;
            Ok(())
        }
        Command::Completions { shell } => {
            // Written to memory first: the generator panics when a pipe is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "splitter", &mut script);
            io.out.write_all(&script)?;
            Ok(())
        }
        Command::Simulate(asked) => simulate::run(&asked, io),
        Command::Doctor { config, output } => {
            let mut report = local.doctor(config.as_deref());
            runtime()?.block_on(remote::doctor(&client, &mut report));
            show::print(io, output, &report, show::doctor)?;
            if report.failed() { Err(Failure::silent(Code::Failed)) } else { Ok(()) }
        }
        Command::Remote(Remote::Detach { pins: Some(directory) }) => {
            local.detach(&directory)?;
            writeln!(io.out, "removed what was pinned in {}: nothing is split any more", directory.display())?;
            Ok(())
        }
        Command::Remote(command) => runtime()?.block_on(remote::run(command, &client, io)),
    }
}

/// Commands wait for one answer at a time: one thread will do.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::new(Code::Failed, format!("could not start: {error}")))
}

#[cfg(test)]
mod tests;
