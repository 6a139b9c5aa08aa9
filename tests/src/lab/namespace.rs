//! One network namespace: running things in it, and its devices.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    panic,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    device::{self, Device, Offload},
    error::{LabError, Result},
    owner::NAMESPACES,
};

/// How long a helper program may run.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A handle on a network namespace; cheap to clone.
///
/// Only the network namespace is entered, never a mount namespace: `ip netns exec` would put a fresh `/sys` in
/// place and hide a BPF file system. So inside, `/proc/sys/net` and sockets are the namespace's, while `/sys`
/// and `/proc/net` (a link to the *main* thread's view; use `/proc/thread-self/net`) are not.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    label: String,
    name: String,
    file: File,
}

impl Namespace {
    pub(crate) fn open(label: &str, name: String) -> Result<Self> {
        let path = Path::new(NAMESPACES).join(&name);
        let file = File::open(&path).map_err(LabError::io(format!("open {}", path.display())))?;
        Ok(Self { inner: Arc::new(Inner { label: label.into(), name, file }) })
    }

    /// Its name in the lab, such as `client`.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// Its name on this machine, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs a closure on a fresh thread inside the namespace and waits for it. Sockets made there stay in the
    /// namespace wherever they are used later.
    ///
    /// # Errors
    /// When the namespace cannot be entered, which needs root.
    ///
    /// # Panics
    /// With the closure's own panic.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter_this_thread()?;
                Ok(body())
            });
            thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Moves the calling thread into the namespace for good. For threads of one's own making only.
    ///
    /// # Errors
    /// When the namespace cannot be entered, which needs root.
    pub fn enter_this_thread(&self) -> Result<()> {
        setns(self.inner.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(LabError::io(format!("enter network namespace {}", self.name())))
    }

    /// Drives a future to its end on a single-threaded runtime inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the runtime not be made.
    ///
    /// # Panics
    /// With the future's own panic.
    pub fn block_on<F>(&self, future: F) -> Result<F::Output>
    where
        F: Future + Send,
        F::Output: Send,
    {
        self.enter(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LabError::io("make a runtime"))?;
            Ok(runtime.block_on(future))
        })?
    }

    /// A multi-threaded runtime, all of whose threads (those for blocking calls too) are inside the namespace.
    /// What is *spawned* on it runs inside; `Runtime::block_on` itself polls on the caller's thread, outside.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the runtime not be made.
    pub fn runtime(&self, workers: usize) -> Result<tokio::runtime::Runtime> {
        // Entering once here turns a lack of privilege into an error instead of a panic on a worker.
        self.enter(|| ())?;
        let namespace = self.clone();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .thread_name(format!("{}-worker", self.label()))
            .on_thread_start(move || {
                namespace.enter_this_thread().expect("entered the same namespace a moment ago");
            })
            .build()
            .map_err(LabError::io("make a runtime"))
    }

    /// A command that will run inside the namespace, to be refined and then started by whatever starts commands.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.place(&mut command);
        command
    }

    fn place(&self, command: &mut Command) {
        let inner = Arc::clone(&self.inner);
        // SAFETY: between fork and exec only setns(2) is called, which is a bare system call: it takes no lock
        // and allocates nothing. The descriptor is held open by the closure.
        unsafe {
            command.pre_exec(move || Ok(setns(inner.file.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
    }

    /// Starts a process inside the namespace, in a process group of its own. It is killed when the returned
    /// handle is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        self.place(&mut command);
        command.process_group(0);
        let name = format!("{command:?}");
        let child = command.spawn().map_err(LabError::io(format!("start {name} in {}", self.name())))?;
        Ok(Process { name, child, ended: false })
    }

    /// Runs a process inside the namespace to its end (at most a minute) and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started, does not end in time, or ends with another code than 0.
    pub fn run(&self, command: Command) -> Result<String> {
        let (status, stdout, stderr, name) = self.output(command, None, COMMAND_LIMIT)?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = if stderr.trim().is_empty() { stdout } else { stderr };
        Err(LabError::Command { command: name, status, stderr: stderr.trim().into() })
    }

    /// [`Self::run`] with something to read, whatever the exit code: status, standard output and error, name.
    pub(crate) fn output(
        &self,
        mut command: Command,
        stdin: Option<&str>,
        limit: Duration,
    ) -> Result<(ExitStatus, String, String, String)> {
        command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = self.spawn(command)?;
        let name = process.name.clone();
        let child = process.child_mut();
        let (input, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // The pipes are served by threads of their own, so that neither side waits for the other.
        let outcome = thread::scope(|scope| {
            let writer = scope.spawn(move || match (input, stdin) {
                (Some(mut pipe), Some(text)) => io::Write::write_all(&mut pipe, text.as_bytes()),
                (Some(_) | None, _) => Ok(()),
            });
            let stdout = scope.spawn(move || read_all(stdout.as_mut()));
            let stderr = scope.spawn(move || read_all(stderr.as_mut()));
            let status = process.wait(limit);
            if status.is_err() {
                // Closes the pipes, for the readers to end.
                process.kill();
            }
            let join = |reader: thread::ScopedJoinHandle<'_, io::Result<String>>| {
                reader.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            };
            let (stdout, stderr) = (join(stdout), join(stderr));
            // A program that does not read its input to the end says why in its own way: by its exit code.
            drop(writer.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)));
            (status, stdout, stderr)
        });
        let failed = |error| LabError::io(format!("read the output of {name}"))(error);
        let (status, stdout, stderr) = (outcome.0?, outcome.1.map_err(failed)?, outcome.2.map_err(failed)?);
        Ok((status, stdout, stderr, name))
    }

    /// Runs lines of `ip -batch` inside the namespace.
    ///
    /// # Errors
    /// With the line that failed.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let script: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]);
        let (status, _, stderr, name) = self.output(command, Some(&script), COMMAND_LIMIT)?;
        if status.success() {
            return Ok(());
        }
        // It says "Command failed -:<line>" for the line that failed.
        let number = stderr.rsplit_once("-:").and_then(|(_, number)| number.trim().parse::<usize>().ok());
        let line = number.and_then(|number| Some(lines.get(number.checked_sub(1)?)?.as_ref())).unwrap_or(&script);
        let command = format!("{name} in {}: {line}", self.label());
        Err(LabError::Command { command, status, stderr: stderr.trim().into() })
    }

    /// Sets a kernel parameter of the namespace, such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// When there is no such parameter or the kernel refuses the value.
    pub fn sysctl(&self, parameter: &str, value: impl ToString) -> Result<()> {
        let value = value.to_string();
        self.enter(|| write_sysctl(parameter, &value))?
    }

    /// All its devices.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn devices(&self) -> Result<Vec<Device>> {
        self.enter(device::devices)?.map_err(LabError::io(format!("list the devices of {}", self.name())))
    }

    /// One of its devices.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn device(&self, name: &str) -> Result<Device> {
        self.devices()?
            .into_iter()
            .find(|device| device.name == name)
            .ok_or_else(|| LabError::UnknownDevice { namespace: self.name().into(), device: name.into() })
    }

    /// A device's Ethernet address.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        Ok(self.device(device)?.mac)
    }

    /// A device's index in this namespace.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn ifindex(&self, device: &str) -> Result<u32> {
        Ok(self.device(device)?.index)
    }

    /// Sets the MTU, in bytes, of a device's own end. A veth drops what is longer than its *peer's* MTU.
    ///
    /// # Errors
    /// When there is no such device or it refuses the value.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> Result<()> {
        self.ip(&[format!("link set dev {device} mtu {mtu}")])
    }

    /// Switches an offload of a device.
    ///
    /// # Errors
    /// When there is no such device, or the offload does not follow.
    pub fn set_offload(&self, device: &str, offload: Offload, on: bool) -> Result<()> {
        self.enter(|| device::set_offload(device, offload, on))?
            .map_err(LabError::io(format!("switch {offload:?} of {device} in {}", self.name())))
    }

    /// Whether an offload of a device is on.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn offload_is_on(&self, device: &str, offload: Offload) -> Result<bool> {
        self.enter(|| device::offload_is_on(device, offload))?
            .map_err(LabError::io(format!("read {offload:?} of {device} in {}", self.name())))
    }
}

/// Writes a kernel parameter of the calling thread's namespace.
pub(crate) fn write_sysctl(parameter: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", parameter.replace('.', "/"));
    fs::write(&path, value).map_err(LabError::io(format!("write {value} to {path}")))
}

/// A process inside a namespace; killed, with its process group, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Whether it has been waited for: from then on its id may be another's.
    ended: bool,
}

impl Process {
    /// The process's id, which is also its process group's; `None` once it was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        (!self.ended).then(|| self.child.id())
    }

    /// The standard library's handle, for its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let what = || format!("send {signal} to {}", self.name);
        let id = self.id().ok_or(Errno::ESRCH).map_err(LabError::io(what()))?;
        nix::sys::signal::kill(Pid::from_raw(id.cast_signed()), signal).map_err(LabError::io(what()))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.try_wait()?.is_none())
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().map_err(LabError::io(format!("wait for {}", self.name)))?;
        self.ended = status.is_some();
        Ok(status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; it runs on then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(LabError::Late { what: format!("the end of {}", self.name), limit });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Kills its process group and waits for its end. Does nothing when it was waited for already: what its
    /// group may have left behind is ended with the lab.
    pub fn kill(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // Not waited for, it holds its id even when it has ended. So this reaches its own group; the only error
        // left is that the whole group is gone, which is what is wanted.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        // A killed child that was not waited for can be; there is no error but an interrupted call, which the
        // standard library repeats.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_all(pipe: Option<&mut impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
