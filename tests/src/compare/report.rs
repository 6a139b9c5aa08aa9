//! The figures of a comparison.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{Seen, options::Options};
use crate::bench::machine::Machine;

/// What `--json` writes.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// Of all chance.
    pub seed: u64,
    /// Frames that the program and the oracle treated alike.
    pub frames: usize,
    /// Frames that they didn't; a difference ends the comparison.
    pub differences: usize,
    /// How long it took.
    pub seconds: f64,
    /// What was met.
    pub seen: Seen,
}

impl Report {
    /// Of a comparison that came to its end.
    #[must_use]
    pub fn of(options: &Options, seen: Seen, took: Duration) -> Self {
        Self {
            machine: Machine::of("oracle"),
            seed: options.seed,
            frames: seen.frames,
            differences: 0,
            seconds: took.as_secs_f64(),
            seen,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = self.seen.actions.iter().map(|(action, count)| format!("{action:?} {count}"));
        writeln!(f, "became of them: {}", actions.collect::<Vec<_>>().join(", "))?;
        let reasons = self.seen.reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
        writeln!(f, "counted: {}", reasons.collect::<Vec<_>>().join(", "))?;
        for (twist, details) in &self.seen.twists {
            let details = details.iter().map(|(detail, count)| format!("{detail} {count}").trim_start().to_owned());
            writeln!(f, "{twist}: {}", details.collect::<Vec<_>>().join(", "))?;
        }
        let rate = self.frames as f64 / self.seconds.max(1e-9);
        let Self { frames, differences, seconds, seed, .. } = self;
        write!(f, "{frames} frames, {differences} differences, in {seconds:.0} s ({rate:.0} frames/s), seed {seed}")
    }
}
