//! The whole command line against an agent with a fake core, over a real socket.

mod help;
mod outcome;
mod output;
mod rollout;
mod simulate;
mod watching;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anstream::adapter::strip_bytes;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch};

use super::{AgentOptions, Code, Failure, Io, Local, run};
use crate::api::{
    fake::Fake,
    server,
    socket::Socket,
    wire::{Check, CheckResult, DoctorReport},
};

/// An agent on a socket of its own, with threads of its own.
struct Agent {
    core: Arc<Fake>,
    directory: TempDir,
    stop: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Agent {
    fn start(core: Fake) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), core)
    }

    /// Where another one was before.
    fn start_in(directory: TempDir, core: Fake) -> Self {
        let (core, runtime) = (Arc::new(core), Runtime::new().expect("a runtime"));
        let (stop, stopping) = watch::channel(false);
        let socket = Socket::bind(&directory.path().join("agent.sock"), None).expect("bound");
        runtime.spawn(server::run(socket, Arc::clone(&core), server::Options::default(), stopping));
        Self { core, directory, stop, _runtime: runtime }
    }

    /// Ends it, with whatever it is doing.
    fn end(self) -> TempDir {
        let Self { directory, stop: _, _runtime: runtime, core: _ } = self;
        drop(runtime);
        directory
    }

    /// Runs a command line against it.
    fn splitter(&self, line: &str) -> Outcome {
        splitter(&self.directory.path().join("agent.sock"), line)
    }
}

/// What came of a command line.
#[derive(Debug)]
struct Outcome {
    code: Code,
    out: String,
    err: String,
}

/// Runs a command line; words are separated by spaces, `_` in a word stands for one.
fn splitter(socket: &Path, line: &str) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run_into(socket, line, &mut out, &mut err);
    let text = |bytes: &[u8]| String::from_utf8(strip_bytes(bytes).into_vec()).expect("text");
    Outcome { code, out: text(&out), err: text(&err) }
}

fn run_into(socket: &Path, line: &str, out: &mut dyn Write, err: &mut dyn Write) -> Code {
    let words = line.split_whitespace().map(|word| OsString::from(word.replace('_', " ")));
    let global = [OsString::from("splitter"), OsString::from("--socket"), socket.into()];
    run(global.into_iter().chain(words), &Here, &mut Io { out, err, terminal: false, tick: Duration::from_millis(5) })
}

/// The parts of a program that has no kernel.
struct Here;

impl Local for Here {
    fn agent(&self, options: &AgentOptions) -> Result<(), Failure> {
        assert!(options.socket.is_some(), "the global option reaches the agent");
        assert_eq!((options.config.as_path(), options.detach), (Path::new("/etc/splitter.toml"), true));
        Err(Failure::new(Code::NotPermitted, "loading a program needs CAP_BPF").hint("run it as root"))
    }

    fn detach(&self, pins: &Path) -> Result<(), Failure> {
        if pins == Path::new("/sys/fs/bpf/splitter") {
            Ok(())
        } else {
            Err(Failure::new(Code::NotFound, "nothing is pinned there"))
        }
    }

    fn doctor(&self, config: Option<&Path>) -> DoctorReport {
        let finding = config.map_or("5.10 or newer".to_owned(), |config| format!("looked at {}", config.display()));
        let check = Check { name: "kernel".to_owned(), subject: None, result: CheckResult::Ok, finding, remedy: None };
        DoctorReport { checks: vec![check] }
    }
}

/// Breaks after so many flushes, as a pipe does whose reader has seen enough.
struct Pipe {
    text: Vec<u8>,
    flushes: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.flushes == 0 {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        self.text.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes = self.flushes.saturating_sub(1);
        Ok(())
    }
}
