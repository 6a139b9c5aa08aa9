//! Splitter on a lab's node: the real binary, with a configuration, a state and pins of its own.
//!
//! A [`Node`] is one installation; the agent on it can be started, killed and started again. A [`Site`] is a whole lab with
//! servers of both versions behind it.

mod binary;
mod pins;
mod service;
pub mod share;
mod site;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use splitter_user::api::{
    client::{Client, ClientError},
    wire::{BackendState, Event, ServiceStatus, Status},
};
use tempfile::TempDir;

pub use self::{
    binary::binary,
    pins::Pins,
    service::Service,
    site::{Builder as SiteBuilder, FAMILIES, Family, Kind, Server, Site},
};
use crate::{
    lab::{Lab, LabError, Namespace, Process, Result},
    workload::http,
};

/// How long the agent may take until it is ready, or to end: seconds at most, ten times that on an emulated machine, and many times that on one whose
/// processor others want as well.
pub const AGENT_LIMIT: Duration = Duration::from_secs(180);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);
/// Where the agent serves its metrics: a namespace has its own loopback.
pub const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9616);

/// An installation of Splitter on the machine in the middle. Dropping it ends the agent and removes everything.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    interfaces: Vec<String>,
    agent: Option<Process>,
    starts: u32,
    /// After the agent: it may not outlive what it has pinned.
    pins: Pins,
    directory: TempDir,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Node {
    /// An installation on the lab's node; nothing runs yet.
    ///
    /// # Errors
    /// When there is no binary, or the file system refuses.
    pub fn new(lab: &Lab) -> Result<Self> {
        binary()?;
        let namespace = lab.node().namespace.clone();
        let directory = tempfile::Builder::new().prefix("splitter-node").tempdir().map_err(LabError::io("make a directory"))?;
        Ok(Self {
            interfaces: lab.node().interfaces().into_iter().map(Into::into).collect(),
            pins: Pins::new(namespace.name())?,
            namespace,
            agent: None,
            starts: 0,
            directory,
        })
    }

    /// Where the agent runs.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A file of the installation.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("splitter.toml")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("splitter.sock")
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Its pins.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The part of its configuration that says how the agent runs. Tables are small, so that many nodes fit beside each other.
    #[must_use]
    pub fn agent_section(&self) -> String {
        self.agent_section_for(16)
    }

    /// The same, with room for so many services.
    #[must_use]
    pub fn agent_section_for(&self, services: u32) -> String {
        format!(
            "[agent]\ninterfaces = {:?}\nsocket = {:?}\nstate_directory = {:?}\npin_directory = {:?}\n\n\
             [tables]\nservices = {services}\nbackends = 64\nconnections = 65536\n",
            self.interfaces,
            self.socket(),
            self.state(),
            self.pins.path()
        )
    }

    /// Writes its configuration: how the agent runs, and then this.
    ///
    /// # Errors
    /// The file system's.
    pub fn configure(&self, services: &str) -> Result<()> {
        self.write_config(&format!("{}\n{services}", self.agent_section()))
    }

    /// Writes its configuration, all of it.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_config(&self, text: &str) -> Result<()> {
        self.write("splitter.toml", text)
    }

    /// Writes a file of the installation.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))
    }

    /// Starts the agent and waits until it is ready and every backend has a way.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with what it wrote.
    pub fn start(&mut self) -> Result<()> {
        self.start_only()?;
        self.wait_until("every backend has a way", |status| status.services.iter().all(has_ways)).map(drop)
    }

    /// Starts the agent and waits until it is ready, whatever its backends are.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with what it wrote.
    pub fn start_only(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    /// Waits until a launched agent is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with what it wrote.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + AGENT_LIMIT;
        loop {
            let runs = match &mut self.agent {
                Some(agent) => agent.runs()?,
                None => false,
            };
            if !runs {
                return Err(self.unexpected("it ended"));
            }
            match self.http("/readyz") {
                Ok((200, _)) => return Ok(()),
                last if Instant::now() > deadline => {
                    return Err(self.unexpected(&format!("not ready within {AGENT_LIMIT:?}: {last:?}")));
                }
                Ok(_) | Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Starts the agent and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        self.launch_as(self.agent_command())
    }

    /// Starts the agent by a command of one's own and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When there is one.
    pub fn launch_as(&mut self, mut command: Command) -> Result<()> {
        assert!(self.agent.is_none(), "one agent at a time; use `agent_fails` for a second one");
        self.starts += 1;
        let log = File::create(self.log_path()).map_err(LabError::io("make the agent's log"))?;
        command.stdout(log.try_clone().map_err(LabError::io("duplicate a descriptor"))?).stderr(log);
        self.agent = Some(self.namespace.spawn(command)?);
        Ok(())
    }

    /// Runs `splitter agent`, which is expected to refuse to start, to its end.
    ///
    /// # Errors
    /// When it goes on running.
    pub fn agent_fails(&self) -> Result<Outcome> {
        self.finish(self.agent_command(), AGENT_LIMIT)
    }

    /// The agent's process.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn agent(&mut self) -> &mut Process {
        self.agent.as_mut().expect("the agent was started")
    }

    /// Kills the agent with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Sends the agent a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.agent().signal(signal)
    }

    /// Stops the agent by SIGTERM and waits for its end; its exit code.
    ///
    /// # Errors
    /// When it goes on running.
    pub fn stop(&mut self) -> Result<Option<i32>> {
        self.signal(Signal::SIGTERM)?;
        let status = self.agent().wait(AGENT_LIMIT)?;
        self.agent = None;
        Ok(status.code())
    }

    /// Kills the agent and starts it again.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.kill();
        self.start()
    }

    /// The command that is the agent; its socket is its configuration's.
    #[must_use]
    pub fn agent_command(&self) -> Command {
        let mut command = self.command(&["agent", "--config"]);
        command.arg(self.config()).env_remove("SPLITTER_SOCKET");
        command
    }

    /// A command of the binary, told of the socket.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary().expect("it was there when the installation was made"));
        command.env("SPLITTER_SOCKET", self.socket()).env("NO_COLOR", "1").env_remove("RUST_LOG").args(arguments);
        command
    }

    /// Runs a command of the command line to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub fn cli(&self, arguments: &[&str]) -> Result<Outcome> {
        self.finish(self.command(arguments), COMMAND_LIMIT)
    }

    /// Runs a command that is expected to succeed; what it printed.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let outcome = self.cli(arguments)?;
        match outcome.code {
            Some(0) => Ok(outcome.stdout),
            Some(_) | None => {
                Err(LabError::Unexpected { what: format!("splitter {}", arguments.join(" ")), why: format!("{outcome:?}") })
            }
        }
    }

    /// Runs a command with `-o json`; its value.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| LabError::Unexpected {
            what: format!("splitter {} -o json", arguments.join(" ")),
            why: format!("{error} in {text}"),
        })
    }

    /// Runs any command in the node's namespace to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes too long.
    pub fn finish(&self, command: Command, limit: Duration) -> Result<Outcome> {
        let (status, stdout, stderr, _) = self.namespace.output(command, None, limit)?;
        Ok(Outcome { code: status.code(), stdout, stderr })
    }

    /// Calls the API.
    ///
    /// # Errors
    /// What the call says.
    ///
    /// # Panics
    /// When no runtime can be made.
    pub fn api<T>(
        &self,
        call: impl AsyncFnOnce(Client) -> std::result::Result<T, ClientError>,
    ) -> std::result::Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime for one call").block_on(call(Client::new(self.socket())))
    }

    /// How things stand.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn status(&self) -> Result<Status> {
        self.api(async |client| client.status(None).await).map_err(|error| self.unexpected(&error.to_string()))
    }

    /// How a service stands.
    ///
    /// # Errors
    /// When the agent does not answer, or has no such service.
    pub fn service(&self, name: &str) -> Result<ServiceStatus> {
        let status = self.status()?;
        status
            .services
            .into_iter()
            .find(|service| service.name.as_str() == name)
            .ok_or_else(|| self.unexpected("no such service"))
    }

    /// What happened until now.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn events(&self) -> Result<Vec<Event>> {
        let text = self.run(&["events", "-o", "json"])?;
        let event = |line: &str| serde_json::from_str(line).map_err(|error| self.unexpected(&format!("{error} in {line}")));
        text.lines().map(event).collect()
    }

    /// Waits until the status is as described; that status.
    ///
    /// # Errors
    /// When it isn't in time, with the last status.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<Status> {
        let deadline = Instant::now() + AGENT_LIMIT;
        loop {
            let status = self.status()?;
            if is_so(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.unexpected(&format!("{what}: not within {AGENT_LIMIT:?}; {status:?}")));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A page of the agent's metrics server: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        let answer = self.namespace.block_on(http::get(METRICS, path, COMMAND_LIMIT))?;
        let answer =
            answer.map_err(|error| LabError::Unexpected { what: format!("http://{METRICS}{path}"), why: error.to_string() })?;
        Ok((answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned()))
    }

    /// What the agent has written since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("log{}", self.starts))
    }

    fn unexpected(&self, why: &str) -> LabError {
        let what = format!("the agent in {}", self.namespace.name());
        LabError::Unexpected { what, why: format!("{why}; it wrote: {}", self.log().trim()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for start in 1..=self.starts {
                let log =
                    fs::read_to_string(self.path(&format!("log{start}"))).unwrap_or_else(|error| format!("(none: {error})"));
                eprintln!("-- log {start} of the agent in {}:\n{}", self.namespace.name(), log.trim_end());
            }
        }
        self.kill();
    }
}

/// Whether no backend waits for its way.
fn has_ways(service: &ServiceStatus) -> bool {
    service.cohorts.iter().flat_map(|cohort| &cohort.backends).all(|backend| backend.state != BackendState::Unreachable)
}

/// The file's content.
///
/// # Errors
/// The file system's.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(LabError::io(format!("read {}", path.display())))
}
