//! `tests/budgets.toml`: how many instructions there may be.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where they are, from the workspace's root.
pub const PLACE: &str = "tests/budgets.toml";
/// The workspace's own.
pub const TEXT: &str = include_str!("../../../tests/budgets.toml");

/// Figures further below their budget than this are told of, in parts of the budget.
const FAR: f64 = 0.03;
/// The kernel divides the instructions of many runs by their number and drops the rest, for the program and for the empty one: what is the same can come
/// out one higher or lower when something moves by which the timer's interrupts meet other runs.
const ROUNDING: u32 = 1;
/// How far the verifier's figure may be over its budget, in parts of it. The compiler orders a program's functions and blocks by names that hold a hash of the
/// workspace's path, and the verifier forgets a state the sooner or later by that order: builds of one commit in two directories were 0.15% apart.
const ORDER: f64 = 0.01;

/// Instructions: what may be, or what was found.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// That the verifier goes through: by kernel, by program.
    #[serde(default)]
    pub verifier: BTreeMap<String, BTreeMap<String, u32>>,
    /// That a processor runs for a packet, by case, beyond those of an empty program.
    #[serde(default)]
    pub packet: BTreeMap<String, u32>,
}

/// What a comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Figures compared that are within their budgets.
    pub within: usize,
    /// One sentence each.
    pub failures: Vec<String>,
    /// Budgets that could be lower, one sentence each.
    pub notes: Vec<String>,
}

impl Instructions {
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).with_context(|| format!("{PLACE} is not as it should be"))
    }

    /// Compares what was found with what may be. A kernel that wasn't run, or all cases where none was measured, aren't missed; one that lacks a figure that has
    /// a budget is.
    pub fn judge(&self, found: &Self) -> Verdict {
        let mut verdict = Verdict::default();
        for (kernel, found) in &found.verifier {
            let none = BTreeMap::new();
            let budgets = self.verifier.get(kernel).unwrap_or(&none);
            verdict.compare(&format!("verifier on {kernel}, "), budgets, found, |budget| (f64::from(budget) * ORDER) as u32);
        }
        if !found.packet.is_empty() {
            verdict.compare("packet, ", &self.packet, &found.packet, |_| ROUNDING);
        }
        verdict
    }

    /// These budgets with everything that was found in its place.
    #[must_use]
    pub fn blessed(&self, found: &Self) -> Self {
        let mut blessed = self.clone();
        blessed.verifier.extend(found.verifier.clone());
        if !found.packet.is_empty() {
            blessed.packet.clone_from(&found.packet);
        }
        blessed
    }

    /// Writes these budgets below the head comment of what is there.
    pub fn write(&self, to: &Path) -> Result<()> {
        let head: String = TEXT.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let text = toml::to_string(self).context("TOML of plain values")?;
        std::fs::write(to, format!("{head}\n{text}")).with_context(|| format!("cannot write {}", to.display()))
    }
}

impl Verdict {
    fn compare(&mut self, of: &str, budgets: &BTreeMap<String, u32>, found: &BTreeMap<String, u32>, room: impl Fn(u32) -> u32) {
        for (case, &figure) in found {
            match budgets.get(case) {
                Some(&budget) if figure > budget.saturating_add(room(budget)) => self.failures.push(format!(
                    "{of}{case}: {figure} instructions are over the budget of {budget}; make it cheaper, or raise the budget in {PLACE} with the \
                     reason in the commit"
                )),
                Some(&budget) => {
                    self.within += 1;
                    if f64::from(budget.saturating_sub(figure)) > f64::from(budget) * FAR {
                        self.notes.push(format!(
                            "{of}{case}: {figure} instructions are far under the budget of {budget}; `cargo xtask vm --bless-budgets` lowers it"
                        ));
                    }
                }
                None => self.failures.push(format!(
                    "{of}{case}: {figure} instructions and no budget; `cargo xtask vm --bless-budgets` writes one into {PLACE}"
                )),
            }
        }
        for case in budgets.keys().filter(|case| !found.contains_key(*case)) {
            self.failures.push(format!("{of}{case}: it has a budget in {PLACE} and was not measured"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspaces_budgets_are_read_and_say_how_they_are_raised() {
        let budgets = Instructions::parse(TEXT).expect("the file is the workspace's own");
        assert!(["6.1", "6.12", "7.2"].iter().all(|kernel| budgets.verifier.contains_key(*kernel)), "{budgets:?}");
        assert!(budgets.packet.contains_key("dsr-v4-tcp-established") && budgets.packet.contains_key("not-ours"), "{budgets:?}");
        assert!(TEXT.lines().take_while(|line| line.starts_with('#')).any(|line| line.contains("reason in the commit")));
    }

    #[test]
    fn what_is_over_budget_fails_by_name_and_what_is_far_under_is_told() {
        let budgets = of(&[("6.1", "splitter", 1_000)], &[("a", 100), ("b", 100), ("c", 100)]);
        let verdict = budgets.judge(&of(&[("6.1", "splitter", 1_011)], &[("a", 101), ("b", 97), ("c", 96)]));
        assert_eq!(verdict.within, 3, "one instruction more by packet is rounding");
        let [failure] = &verdict.failures[..] else { panic!("{verdict:?}") };
        assert!(failure.contains("verifier on 6.1, splitter: 1011 instructions are over the budget of 1000"), "{failure}");
        let [note] = &verdict.notes[..] else { panic!("{verdict:?}") };
        assert!(note.contains("packet, c: 96") && note.contains("--bless-budgets"), "{note}");
    }

    #[test]
    fn a_verifiers_figure_that_another_build_directory_explains_is_within() {
        let verdict = of(&[("6.1", "splitter", 1_000)], &[]).judge(&of(&[("6.1", "splitter", 1_010)], &[]));
        assert_eq!((verdict.within, verdict.failures.len()), (1, 0), "{verdict:?}");
    }

    #[test]
    fn a_packet_that_takes_two_instructions_more_fails() {
        let verdict = of(&[], &[("a", 100)]).judge(&of(&[], &[("a", 102)]));
        assert_eq!((verdict.within, verdict.failures.len()), (0, 1), "{verdict:?}");
    }

    #[test]
    fn a_figure_without_a_budget_and_a_budget_without_a_figure_fail() {
        let budgets = of(&[("6.1", "splitter", 10), ("6.12", "splitter", 10)], &[("a", 10)]);
        let verdict = budgets.judge(&of(&[("6.1", "other", 10)], &[("b", 10)]));
        assert_eq!((verdict.within, verdict.failures.len()), (0, 4), "{verdict:?}");
        let verdict = budgets.judge(&of(&[("6.1", "splitter", 10)], &[]));
        assert_eq!(verdict, Verdict { within: 1, ..Verdict::default() }, "6.12 and packets were not asked for");
    }

    #[test]
    fn blessing_takes_over_what_was_found_and_leaves_the_rest() {
        let budgets = of(&[("6.1", "splitter", 10), ("6.12", "splitter", 10)], &[("a", 10), ("gone", 10)]);
        let blessed = budgets.blessed(&of(&[("6.1", "splitter", 9)], &[("a", 12)]));
        assert_eq!(blessed, of(&[("6.1", "splitter", 9), ("6.12", "splitter", 10)], &[("a", 12)]));
        assert_eq!(budgets.blessed(&Instructions::default()), budgets);
        let path = std::env::temp_dir().join(format!("splitter-xtask-{}-budgets.toml", std::process::id()));
        blessed.write(&path).expect("the temporary directory can be written to");
        let text = std::fs::read_to_string(&path).expect("just written");
        assert!(text.starts_with('#') && Instructions::parse(&text).expect("just written") == blessed, "{text}");
        std::fs::remove_file(path).expect("made above");
    }

    fn of(verifier: &[(&str, &str, u32)], packet: &[(&str, u32)]) -> Instructions {
        let mut all = Instructions::default();
        for (kernel, program, count) in verifier {
            all.verifier.entry((*kernel).to_owned()).or_default().insert((*program).to_owned(), *count);
        }
        all.packet.extend(packet.iter().map(|(case, count)| ((*case).to_owned(), *count)));
        all
    }
}
