//! The emulator. Always by translation (TCG): the same on every machine, whatever its processor allows.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::{prctl, signal::Signal};

use crate::{
    packages::Tool,
    run::{self, Log},
};

/// The emulator's package.
pub const TOOL: Tool = ("qemu-system-x86_64", "qemu-system-x86");

/// Where `tests/src/guest/machine.rs` writes its exit code.
const EXIT_DEVICE: &str = "isa-debug-exit,iobase=0xf4,iosize=0x04";
/// The guest's own codes, `PASSED` and `FAILED` of `tests/src/guest/mod.rs`, as the device passes them on.
const PASSED: i32 = 0x2a << 1 | 1;
const FAILED: i32 = 0x2b << 1 | 1;

/// What the kernel is told. The emulated processor has no speculation to be guarded against, and guarding takes its time; so does clearing memory.
const PARAMETERS: &str = "console=ttyS0 loglevel=4 panic=-1 mitigations=off init_on_alloc=0 rdinit=/init";

/// The same chance and the same time in each run, for machines that are to do the same to the instruction.
const ALIKE: [&str; 4] = ["-seed", "1", "-rtc", "base=2026-01-01T00:00:00,clock=vm"];

/// A machine to be run.
pub struct Machine<'a> {
    /// What its files are called.
    pub name: &'a str,
    pub image: &'a Path,
    pub initramfs: &'a Path,
    /// Where what it prints and tells is kept.
    pub directory: &'a Path,
    pub cpus: usize,
    /// The clock counts instructions: one each nanosecond, and nothing else.
    pub counts_instructions: bool,
    pub limit: Duration,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest says that all of its plan passed.
    Passed,
    /// The guest says that something didn't.
    Failed,
    /// A panic (which exits with 0), a triple fault, the limit.
    Otherwise(run::Ended),
}

impl Machine<'_> {
    /// Runs it to its end.
    pub fn run(&self) -> Result<Ended> {
        let log = self.log();
        for old in [self.console(), self.told()] {
            fs::write(&old, "").with_context(|| format!("cannot write {}", old.display()))?;
        }
        let ended = run::logged(&mut self.command(), &Log::create(self.name, &log)?, Some(self.limit))?;
        run::go_on()?;
        Ok(judge(ended))
    }

    /// What its kernel and its tests print.
    pub fn console(&self) -> PathBuf {
        self.directory.join(format!("{}.console", self.name))
    }

    /// What its guest tells.
    pub fn told(&self) -> PathBuf {
        self.directory.join(format!("{}.told", self.name))
    }

    /// What the emulator prints.
    fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.qemu", self.name))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(TOOL.0);
        command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512"]);
        command.arg("-smp").arg(self.cpus.to_string());
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-device", EXIT_DEVICE]);
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        command.arg("-serial").arg(format!("file:{}", self.told().display()));
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        command.arg("-append").arg(PARAMETERS);
        if self.counts_instructions {
            command.args(["-icount", "shift=0,sleep=off"]).args(ALIKE);
        }
        // A killed run leaves no machine behind, which the next one's would meet. By the thread that starts it, which waits for its end.
        // SAFETY: between fork and exec one system call is made, and no memory is touched.
        unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
        command
    }
}

fn judge(ended: run::Ended) -> Ended {
    match ended {
        run::Ended::Status(status) if status.code() == Some(PASSED) => Ended::Passed,
        run::Ended::Status(status) if status.code() == Some(FAILED) => Ended::Failed,
        run::Ended::Status(_) | run::Ended::TimedOut(_) => Ended::Otherwise(ended),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    #[test]
    fn only_the_guests_own_code_is_a_success() {
        let ended = |raw| run::Ended::Status(ExitStatus::from_raw(raw));
        assert_eq!(judge(ended(85 << 8)), Ended::Passed);
        assert_eq!(judge(ended(87 << 8)), Ended::Failed);
        for raw in [0, 1 << 8, 42 << 8, 9] {
            assert_eq!(judge(ended(raw)), Ended::Otherwise(ended(raw)), "{raw}: a panicking kernel exits with 0");
        }
    }
}
