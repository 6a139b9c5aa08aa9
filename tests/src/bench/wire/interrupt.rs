//! Ctrl-C and SIGTERM while a lab stands: they are noted, so that it is taken down in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

static NOTED: AtomicBool = AtomicBool::new(false);

/// While it lives, the signals are noted; after it, they do what they did before.
#[derive(Debug)]
pub(super) struct Interrupts {
    before: Vec<(Signal, SigAction)>,
}

impl Interrupts {
    /// From now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn note() -> Result<Self> {
        NOTED.store(false, Ordering::Relaxed);
        let mut interrupts = Self { before: Vec::new() };
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the handler stores to an atomic, which is allowed at any moment (signal-safety(7)).
            let before = unsafe { sigaction(signal, &action) }.with_context(|| format!("handle {signal}"))?;
            interrupts.before.push((signal, before));
        }
        Ok(interrupts)
    }

    /// An error once there was one.
    pub fn go_on(&self) -> Result<()> {
        if NOTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: puts back what was in force before, whose handler was sound then.
            let restored = unsafe { sigaction(*signal, before) };
            restored.expect("a signal that could be handled can be given back");
        }
    }
}

extern "C" fn note(_signal: c_int) {
    NOTED.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn an_interrupt_is_noted_and_does_not_end_the_process() {
        let interrupts = Interrupts::note().expect("signals can be handled");
        interrupts.go_on().expect("there was none yet");
        raise(Signal::SIGTERM).expect("raised");
        assert_eq!(interrupts.go_on().expect_err("there was one").to_string(), "interrupted");
    }
}
