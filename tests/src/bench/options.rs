//! The command line of the bench.

use std::path::PathBuf;

use clap::Parser;

/// Measures what a packet costs, what goes through the wire beside the peers, and what grows with what.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", max_term_width = 100)]
pub struct Options {
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Measure these alone: `cost`, `wire`, `scale`, or cases of `cost` by a part of their names.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Fewer rounds and runs: to see that it works, not to quote.
    #[arg(long)]
    pub quick: bool,
    /// Measure another build of the XDP program beside this one, in the same rounds (cost alone). It's put on the same maps, so it must be of the
    /// same ABI.
    #[arg(long, value_name = "FILE")]
    pub object: Option<PathBuf>,
    /// Measure instead where a packet's cost lies: builds of the program that end after a step of its path, or leave something out.
    #[arg(long, conflicts_with = "object")]
    pub steps: bool,
    /// Write what was measured into docs/benchmarks.md (steps: docs/benchmarks-steps.md), and draw docs/benchmarks.svg anew.
    #[arg(long, conflicts_with = "quick")]
    pub write_docs: bool,
}

/// One of the three parts of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What a packet costs.
    Cost,
    /// What goes through the wire.
    Wire,
    /// What grows with what.
    Scale,
}

impl Part {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Cost, Self::Wire, Self::Scale];

    /// The word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Wire => "wire",
            Self::Scale => "scale",
        }
    }
}

impl Options {
    /// Whether this part is asked for.
    #[must_use]
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == part.name()) || part == Part::Cost && !self.cases().is_empty()
    }

    /// Whether this case of `cost` is asked for.
    #[must_use]
    pub fn wants_case(&self, name: &str) -> bool {
        let cases = self.cases();
        self.wants(Part::Cost) && (cases.is_empty() || cases.iter().any(|part| name.contains(part)))
    }

    /// Parts of cases' names.
    fn cases(&self) -> Vec<&str> {
        let is_part = |word: &str| Part::ALL.iter().any(|part| part.name() == word);
        self.only.iter().map(String::as_str).filter(|word| !is_part(word)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn parts_and_cases_are_told_apart() {
        let options = |line: &[&str]| Options::parse_from(std::iter::once("bench").chain(line.iter().copied()));
        let all = options(&[]);
        assert!(Part::ALL.iter().all(|part| all.wants(*part)) && all.wants_case("not-ours"));
        let some = options(&["--only", "wire,scale"]);
        assert_eq!(Part::ALL.map(|part| some.wants(part)), [false, true, true]);
        assert!(!some.wants_case("not-ours"));
        let case = options(&["--only", "dsr-v4,reply"]);
        assert_eq!(Part::ALL.map(|part| case.wants(part)), [true, false, false]);
        assert!(case.wants_case("nat-v6-udp-reply") && case.wants_case("dsr-v4-tcp-new") && !case.wants_case("not-ours"));
    }
}
