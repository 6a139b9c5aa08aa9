//! What the whole machine's CPUs did meanwhile, from the first line of `/proc/stat`.

use std::fs;

use anyhow::{Context, Result};

/// CPU time that was not idle, of all CPUs since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Busy {
    ticks: u64,
}

impl Busy {
    /// As of now.
    ///
    /// # Errors
    /// The file can't be read, or has another form than proc_stat(5) says.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat does not begin with the CPUs' times")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        let [user, nice, system, _idle, _iowait, irq, softirq] = [next()?, next()?, next()?, next()?, next()?, next()?, next()?];
        // What follows is not this machine's doing (steal) or counted already (guest, as user).
        Some(Self { ticks: user + nice + system + irq + softirq })
    }

    /// Microseconds of CPU time since then.
    pub fn micros_since(self, then: Self) -> f64 {
        // USER_HZ, which the kernel promises to user space on every architecture that XDP runs on.
        const TICKS_PER_SECOND: f64 = 100.0;
        self.ticks.saturating_sub(then.ticks) as f64 * 1e6 / TICKS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_work() {
        let text = "cpu  100 20 300 99999 5555 6 70 8888 11 12\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(Busy::parse(text), Some(Busy { ticks: 100 + 20 + 300 + 6 + 70 }));
    }

    #[test]
    fn a_difference_is_in_microseconds() {
        assert_eq!(Busy { ticks: 350 }.micros_since(Busy { ticks: 300 }), 500_000.0);
    }

    #[test]
    fn another_form_is_refused() {
        for text in ["", "cpu0 1 2 3 4 5 6 7", "cpu  1 2 3", "cpu  1 2 3 4 5 6 x"] {
            assert_eq!(Busy::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        Busy::now().expect("proc is mounted");
    }
}
