//! The figures of replayed recordings.

use std::{fmt, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{Figures, Recording};
use crate::bench::machine::Machine;

/// One recording's.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Of which program.
    pub program: String,
    /// Where.
    pub place: String,
    /// What was compared.
    pub figures: Figures,
    /// Frames that the recorder was too slow for, which are missing.
    pub lost: u32,
    /// Why there is none: the program failed, or a difference was found.
    pub failed: Option<String>,
}

impl Row {
    /// Of a replay that came to its end, or of one that didn't.
    #[must_use]
    pub fn new(recording: &Recording, outcome: anyhow::Result<Figures>) -> Self {
        let about = &recording.about;
        let (figures, failed) = match outcome {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::default(), Some(format!("{error:#}"))),
        };
        Self { program: about.program.clone(), place: about.place.clone(), figures, lost: about.lost, failed }
    }
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// Of the changed frames.
    pub seed: u64,
    /// How long it took, recording included.
    pub seconds: f64,
    /// The recordings.
    pub rows: Vec<Row>,
}

impl Report {
    /// Of these rows.
    #[must_use]
    pub fn new(seed: u64, took: Duration, rows: Vec<Row>) -> Self {
        Self { machine: Machine::of("oracle"), seed, seconds: took.as_secs_f64(), rows }
    }

    /// Whether the program and the oracle treated all frames alike, and each row has some.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.failed.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["program", "place", "frames", "octets", "flows", "forwarded", "compared", "differences"]);
        let mut sum = Figures::default();
        for Row { program, place, figures, failed, .. } in &self.rows {
            let Figures { frames, bytes, flows, forwarded, compared, .. } = figures;
            sum.frames += frames;
            sum.bytes += bytes;
            sum.flows += flows;
            sum.forwarded += forwarded;
            sum.compared += compared;
            let verdict = if failed.is_some() { "FAILED" } else { "0" };
            let numbers = [frames, bytes, flows, forwarded, compared].map(ToString::to_string);
            table.add_row([&[program.clone(), place.clone()][..], &numbers, &[verdict.into()]].concat());
        }
        let numbers = [sum.frames, sum.bytes, sum.flows, sum.forwarded, sum.compared].map(|number| number.to_string());
        let failed = self.rows.iter().filter(|row| row.failed.is_some()).count();
        table.add_row([&["all".into(), String::new()][..], &numbers, &[failed.to_string()]].concat());
        table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        writeln!(f, "{table}")?;
        for Row { program, place, figures, lost, failed } in &self.rows {
            if let Some(why) = failed {
                writeln!(f, "FAILED {program} ({place}): {why}")?;
            }
            if *lost > 0 {
                writeln!(f, "{program} ({place}): {lost} frames passed that the recorder was too slow for")?;
            }
            if !figures.reasons.is_empty() {
                writeln!(f, "{program} ({place}): counted {:?}", figures.reasons)?;
            }
        }
        write!(f, "{} recordings, {failed} failed, in {:.0} s, seed {}", self.rows.len(), self.seconds, self.seed)
    }
}
