//! Child processes: every one is waited for, some with a time limit, some with their output in a log.

use std::{
    ffi::c_int,
    fs::{self, File},
    io::{BufRead, BufReader, IsTerminal, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::Pid,
};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often a child whose output goes to a log is heard of, where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// How much of a log is shown when its command failed.
const TAIL_LINES: usize = 40;

/// The signal that asked us to stop; 0: none.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// Makes SIGINT, SIGTERM and SIGHUP wait for the child: a handler, unlike "ignore", is not inherited, so the child
/// ends as it sees fit, and what must be put back afterwards is put back.
pub fn catch_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot catch {signal}"))?;
    }
    Ok(())
}

extern "C" fn remember(signal: c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// The exit code for a stop by signal, as shells count it, if one was asked for.
pub fn interrupted() -> Option<ExitCode> {
    match CAUGHT.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)))),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself or by a signal.
    Status(ExitStatus),
    /// By us: it had not ended within its limit.
    TimedOut(Duration),
}

impl Ended {
    pub fn success(self) -> bool {
        matches!(self, Self::Status(status) if status.success())
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::TimedOut(limit) => write!(f, "no end within {} s", limit.as_secs()),
        }
    }
}

/// The file that takes a child's output while the step only gives signs of life.
pub struct Log<'a> {
    step: &'a str,
    path: &'a Path,
}

impl<'a> Log<'a> {
    /// An empty log for `step`; what an earlier run left there is gone.
    pub fn create(step: &'a str, path: &'a Path) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { step, path })
    }

    fn writer(&self) -> Result<Stdio> {
        let file = File::options().append(true).open(self.path);
        Ok(file.with_context(|| format!("cannot write {}", self.path.display()))?.into())
    }

    /// The last lines, for the message about a failure.
    pub fn tail(&self) -> String {
        let text = fs::read(self.path).unwrap_or_else(|error| format!("(unreadable: {error})").into_bytes());
        tail(&String::from_utf8_lossy(&text), TAIL_LINES)
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Runs a command on our own terminal.
pub fn attended(command: &mut Command) -> Result<ExitStatus> {
    let child = spawn(command)?;
    match supervise(child, None, None)? {
        Ended::Status(status) => Ok(status),
        Ended::TimedOut(_) => bail!("a limit ended {}, which has none", line(command)),
    }
}

/// Runs a command whose output nobody needs unless it fails.
pub fn logged(command: &mut Command, log: &Log<'_>, limit: Option<Duration>) -> Result<Ended> {
    command.stdin(Stdio::null()).stdout(log.writer()?).stderr(log.writer()?);
    let child = spawn(command)?;
    supervise(child, limit, Some(log))
}

/// Runs a command and hands over its standard output line by line; standard error goes to the log, or to ours.
pub fn lines(command: &mut Command, log: Option<&Log<'_>>, mut each: impl FnMut(&str) + Send) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(log) = log {
        command.stderr(log.writer()?);
    }
    let mut child = spawn(command)?;
    let output = child.stdout.take().context("a piped child has no standard output")?;
    let (ended, read) = thread::scope(|scope| {
        let reader = scope.spawn(move || for_each_line(BufReader::new(output), &mut each));
        let ended = supervise(child, None, log);
        (ended, reader.join())
    });
    match read {
        Ok(result) => result.with_context(|| format!("cannot read what {} prints", line(command)))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    match ended? {
        Ended::Status(status) => Ok(status),
        Ended::TimedOut(_) => bail!("a limit ended {}, which has none", line(command)),
    }
}

fn for_each_line(mut input: impl BufRead, each: &mut impl FnMut(&str)) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while input.read_until(b'\n', &mut bytes)? > 0 {
        each(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        bytes.clear();
    }
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| format!("cannot run {}", line(command)))
}

/// Waits for a child, within a limit if there is one.
fn supervise(child: Child, limit: Option<Duration>, log: Option<&Log<'_>>) -> Result<Ended> {
    let mut child = child;
    let started = Instant::now();
    let mut life = log.map(|log| SignOfLife::new(log, started));
    let mut told = false;
    let ended = loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            break Ended::Status(status);
        }
        if let Some(limit) = limit
            && started.elapsed() >= limit
        {
            child.kill().context("cannot end a child process")?;
            child.wait().context("cannot wait for a child process")?;
            break Ended::TimedOut(limit);
        }
        // A terminal sends SIGINT to the child as well; the others reach only us.
        let caught = CAUGHT.load(Ordering::Relaxed);
        if !told && (caught == Signal::SIGTERM as c_int || caught == Signal::SIGHUP as c_int) {
            told = true;
            terminate(&child)?;
        }
        if let Some(life) = &mut life {
            life.show();
        }
        thread::sleep(POLL);
    };
    drop(life);
    Ok(ended)
}

fn terminate(child: &Child) -> Result<()> {
    let pid = i32::try_from(child.id()).context("a process id beyond i32")?;
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        // It ended by itself in between; the next look will tell.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("cannot end a child process"),
    }
}

/// The line that says that a long step goes on, and with what.
struct SignOfLife<'a> {
    log: &'a Log<'a>,
    started: Instant,
    last: Instant,
    every: Duration,
    terminal: bool,
    shown: bool,
}

impl<'a> SignOfLife<'a> {
    fn new(log: &'a Log<'a>, started: Instant) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let every = if terminal { Duration::from_secs(1) } else { SIGN_OF_LIFE };
        Self { log, started, last: started, every, terminal, shown: false }
    }

    fn show(&mut self) {
        if self.last.elapsed() < self.every {
            return;
        }
        self.last = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let doing = self.log.tail();
        let doing: String = doing.lines().last().unwrap_or_default().trim().chars().take(80).collect();
        if self.terminal {
            print!("\r\x1b[K[{}] {seconds} s  {doing}", self.log.step);
            self.shown = true;
            // A terminal that cannot be written to needs no sign of life.
            std::io::stdout().flush().ok();
        } else {
            println!("[{}] {seconds} s  {doing}", self.log.step);
        }
    }
}

impl Drop for SignOfLife<'_> {
    fn drop(&mut self) {
        if self.shown {
            print!("\r\x1b[K");
        }
    }
}

/// Fails when a signal asked us to stop: what comes after the child that just ended is not begun.
pub fn go_on() -> Result<()> {
    if interrupted().is_some() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// A command as one would type it: without the directory it was found in.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = std::iter::once(program.file_name().unwrap_or(program.as_os_str())).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A child's exit code as ours: a death by signal counts as shells count it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_does_not_end_is_ended_at_its_limit() {
        let path = scratch("limit");
        let log = Log::create("test", &path).expect("a log in the temporary directory");
        let limit = Duration::from_millis(200);
        let started = Instant::now();
        let ended = logged(Command::new("sleep").arg("30"), &log, Some(limit)).expect("sleep can be run");
        assert_eq!(ended, Ended::TimedOut(limit));
        assert!(!ended.success());
        assert!(started.elapsed() < Duration::from_secs(10));
        fs::remove_file(path).expect("the log was made above");
    }

    #[test]
    fn what_a_logged_child_prints_is_in_its_log() {
        let path = scratch("output");
        let log = Log::create("test", &path).expect("a log in the temporary directory");
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = logged(&mut command, &log, None).expect("sh can be run");
        assert!(!ended.success());
        assert_eq!(ended.to_string(), "exit status: 3");
        assert_eq!(log.tail(), "out\nerr");
        fs::remove_file(path).expect("the log was made above");
    }

    #[test]
    fn lines_arrive_one_by_one_even_when_they_are_not_utf8() {
        let mut seen = Vec::new();
        let mut command = Command::new("printf");
        command.arg("one\\n\\377two\\nthree");
        let status = lines(&mut command, None, |line| seen.push(line.to_owned())).expect("printf can be run");
        assert!(status.success());
        assert_eq!(seen, ["one", "\u{fffd}two", "three"]);
    }

    #[test]
    fn a_log_shows_its_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
        assert_eq!(tail("", 5), "");
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = attended(Command::new("no-such-command-anywhere").arg("--now")).expect_err("it cannot exist");
        assert_eq!(error.to_string(), "cannot run no-such-command-anywhere --now");
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("splitter-xtask-{}-{name}.log", std::process::id()))
    }
}
