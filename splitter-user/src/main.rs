//! The `splitter` binary.

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use nix::sys::stat::{Mode, umask};
use splitter_user::{
    agent::{self, AgentError, InForce, Kernel, OpenFailure, OpenFailureKind, Opened, signals},
    api::{socket::SocketError, wire::DoctorReport},
    cli::{self, AgentOptions, Code, Failure, Local},
    config::{self, Config, ConfigError},
    dataplane::{ApplyError, kernel},
    doctor,
    neighbor::{self, Watcher},
    store::{FileHistory, FileStore, History, Store, StoreError},
};
use tracing_subscriber::EnvFilter;

/// What this binary has besides the command line.
struct Parts;

impl Local for Parts {
    fn agent(&self, options: &AgentOptions) -> Result<(), Failure> {
        let config = load(options)?;
        log();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Code::Failed, format!("could not start: {error}")))?;
        runtime.block_on(run(config, options)).map_err(|error| failure(&error))
    }

    fn detach(&self, pins: &Path) -> Result<(), Failure> {
        let failed = |code, message: String| Err(Failure::new(code, message));
        match kernel::remove_abandoned(pins) {
            Ok(true) => Ok(()),
            Ok(false) => failed(Code::NotFound, format!("nothing of Splitter's is pinned in {}", pins.display())),
            Err(error) if error.is_permission() => failed(Code::NotPermitted, error.to_string()),
            Err(error) if error.is_conflict() => failed(Code::Conflict, error.to_string()),
            Err(error) => failed(Code::Failed, error.to_string()),
        }
    }

    fn doctor(&self, config: Option<&Path>) -> DoctorReport {
        doctor::examine(config)
    }
}

fn main() -> ExitCode {
    cli::main(&Parts)
}

/// Opens or adopts the kernel's data plane.
fn open(config: &Config) -> Result<Opened, OpenFailure> {
    let opened = kernel::open(&kernel::Options::of(config));
    let (dataplane, warnings) = opened.map_err(|error| OpenFailure { kind: kind(&error), message: error.to_string() })?;
    Ok((Box::new(dataplane), warnings))
}

/// The seeds of a data plane that runs; what is wrong with it is found out, and said, when it's opened.
fn seeds(config: &Config) -> InForce {
    kernel::seeds(&config.agent.pin_directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "the seeds of the running data plane can't be read");
        InForce::default()
    })
}

fn kind(error: &kernel::OpenError) -> OpenFailureKind {
    if error.is_permission() {
        OpenFailureKind::NotPermitted
    } else if error.is_conflict() {
        OpenFailureKind::Conflict
    } else {
        OpenFailureKind::Failed
    }
}

/// The configuration, and the socket of the command line, which goes before it.
fn load(options: &AgentOptions) -> Result<Config, ConfigError> {
    let mut config = config::load(&options.config)?;
    if let Some(socket) = &options.socket {
        config.agent.socket.clone_from(socket);
    }
    Ok(config)
}

async fn run(config: Config, options: &AgentOptions) -> Result<(), AgentError> {
    // Whatever the agent makes, pins and state with their seeds above all, is for its own user; what others may use is opened by name.
    umask(Mode::from_bits_truncate(0o077));
    let signals = signals::from_system()?;
    let again = options.clone();
    let parts = agent::Parts {
        config,
        source: Arc::new(move || load(&again)),
        store: Box::new(|config| Ok(Box::new(FileStore::open(&config.agent.state_directory)?) as Box<dyn Store>)),
        history: Box::new(|config| remember(&config.agent.state_directory)),
        seeds: Box::new(seeds),
        open: Box::new(open),
        ways: Box::new(|| Ok(Kernel::from(Watcher::start(neighbor::Settings::default())?))),
        detach: options.detach,
        ready: Box::new(signals::ready),
    };
    agent::run(parts, signals).await
}

/// Opens the history; what is wrong with it is worth a warning.
fn remember(directory: &Path) -> (Arc<dyn History>, Vec<String>) {
    let (history, opening) = FileHistory::open(directory, agent::clock::now().at);
    (Arc::new(history), opening.warnings())
}

/// To standard error; the journal has a clock of its own. `SPLITTER_LOG` filters as `RUST_LOG` does elsewhere.
fn log() {
    let filter = EnvFilter::try_from_env("SPLITTER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().with_ansi(false).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// What ends the agent, as an exit code and a sentence.
fn failure(error: &AgentError) -> Failure {
    let failed = |code| Failure::new(code, error.to_string());
    match error {
        AgentError::Store(store) => failed(store_code(store)),
        AgentError::Socket(socket) => failed(socket_code(socket)).hint(socket.remedy()),
        AgentError::Metrics(listen) => failed(io_code(&listen.source)).hint(listen.remedy()),
        AgentError::Open(open) => failed(match open.kind {
            OpenFailureKind::NotPermitted => Code::NotPermitted,
            OpenFailureKind::Conflict => Code::Conflict,
            OpenFailureKind::Failed => Code::Failed,
        }),
        AgentError::Apply(ApplyError::NotAttached { .. } | ApplyError::NoRoom { .. } | ApplyError::NoNat { .. }) => {
            failed(Code::Usage)
        }
        AgentError::Apply(ApplyError::NoService(_) | ApplyError::Kernel { .. })
        | AgentError::Neighbors(_)
        | AgentError::Desired(_)
        | AgentError::Task { .. }
        | AgentError::Signals(_) => failed(Code::Failed),
    }
}

fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::Locked { .. } => Code::Conflict,
        StoreError::Directory { source, .. }
        | StoreError::Lock { source, .. }
        | StoreError::Read { source, .. }
        | StoreError::KeepAside { source, .. }
        | StoreError::ReadOnly { source, .. }
        | StoreError::Write { source, .. } => io_code(source),
        StoreError::Full { .. } | StoreError::Encode { .. } => Code::Failed,
    }
}

fn socket_code(error: &SocketError) -> Code {
    match error {
        SocketError::SecondAgent { .. } | SocketError::NotASocket { .. } => Code::Conflict,
        SocketError::NoGroup { .. } => Code::Usage,
        SocketError::NotInGroup { .. } => Code::NotPermitted,
        SocketError::Io { source, .. } => io_code(source),
    }
}

fn io_code(error: &io::Error) -> Code {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Code::NotPermitted
    } else if error.kind() == io::ErrorKind::AddrInUse {
        Code::Conflict
    } else {
        Code::Failed
    }
}
