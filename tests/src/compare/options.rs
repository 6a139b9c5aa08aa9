//! What can be chosen of `cargo xtask oracle`.

use std::{ops::Range, path::PathBuf};

use clap::Parser;

use super::BATCH;

/// Hold the XDP program against the oracle
///
/// Frames at random, with the structure that finds faults, go through the program that ships (by BPF_PROG_TEST_RUN) and through a second implementation that
/// was written from docs/packet-path.md alone. Or what real programs say to each other does (--real). Octets, actions and counters must be equal. Exit code 0: they are; 1: they aren't; 2: wrong usage, or not root.
#[derive(Clone, Debug, Parser)]
#[command(name = "oracle")]
pub struct Options {
    /// How many frames
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = number())]
    pub frames: usize,

    /// Of all chance; another one each time if left out, and printed
    #[arg(long, value_name = "SEED", default_value_t = rand::random::<u32>().into(), hide_default_value = true)]
    pub seed: u64,

    /// This batch of 100,000 frames alone
    #[arg(long, value_name = "NUMBER")]
    pub batch: Option<usize>,

    /// Record real programs in the lab instead, and replay what passed
    #[arg(long, conflicts_with_all = ["frames", "batch"])]
    pub real: bool,

    /// Keep what was recorded in this directory, as pcapng files
    #[arg(long, value_name = "DIR", requires = "real")]
    pub keep: Option<PathBuf>,

    /// Replay files that were kept
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["frames", "batch", "real"])]
    pub pcap: Vec<PathBuf>,

    /// How many times each recorded frame is sent cut short or changed as well
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub changed: usize,

    /// Write the figures into a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn number() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..=1_000_000_000_000).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

impl Options {
    /// The batches' numbers.
    #[must_use]
    pub fn batches(&self) -> Range<usize> {
        match self.batch {
            Some(number) => number..number.saturating_add(1),
            None => 0..self.frames.div_ceil(BATCH),
        }
    }

    /// How many frames a batch has: the last may be shorter.
    #[must_use]
    pub fn frames_of(&self, number: usize) -> usize {
        self.frames.saturating_sub(number.saturating_mul(BATCH)).clamp(1, BATCH)
    }

    /// The seed of a batch.
    #[must_use]
    pub const fn seed_of(&self, number: usize) -> u64 {
        self.seed.wrapping_add(number as u64)
    }

    /// The command that runs a batch again.
    #[must_use]
    pub fn again(&self, number: usize) -> String {
        format!("cargo xtask oracle --frames {} --seed {} --batch {number}", self.frames, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Options {
        Options::try_parse_from([&["oracle"], arguments].concat()).expect("they are right")
    }

    #[test]
    fn the_batches_hold_all_frames() {
        let options = read(&["--frames", "250000", "--seed", "7"]);
        assert_eq!(options.batches(), 0..3);
        assert_eq!(options.batches().map(|number| options.frames_of(number)).collect::<Vec<_>>(), [BATCH, BATCH, 50_000]);
        assert_eq!(options.batches().map(|number| options.seed_of(number)).collect::<Vec<_>>(), [7, 8, 9]);
        let again = options.again(2);
        let words: Vec<_> = again.strip_prefix("cargo xtask oracle ").expect("the command").split(' ').collect();
        let alone = read(&words);
        assert_eq!((alone.batches(), alone.frames_of(2), alone.seed_of(2)), (2..3, 50_000, 9));
    }

    #[test]
    fn ten_millions_unless_it_is_told() {
        let options = read(&[]);
        assert_eq!(options.batches().map(|number| options.frames_of(number)).sum::<usize>(), 10_000_000);
    }
}
