//! What all machines come to, as it's printed and written.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Purpose,
    budgets::{Instructions, Verdict},
    told::{Judgement, Told},
};
use crate::{report::elapsed, workspace::Workspace};

/// All machines'.
pub struct Results {
    pub rows: Vec<Row>,
    pub took: Duration,
}

/// One machine's.
pub struct Row {
    pub version: String,
    pub purpose: Purpose,
    pub outcome: Outcome,
    pub took: Duration,
}

pub enum Outcome {
    /// Its kernel isn't there, and nothing may be downloaded.
    Skipped,
    /// It didn't come to a run.
    Failed(String),
    Ran {
        told: Told,
        judgement: Judgement,
        console: PathBuf,
    },
}

/// Tests, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: u64,
    pub failed: u64,
}

impl Row {
    /// One line.
    pub fn headline(&self) -> String {
        let what = match self.purpose {
            Purpose::Tests => "",
            Purpose::Cost => " cost",
        };
        let head = format!("Linux {:<10} {:>12}  ", format!("{}{what}", self.version), elapsed(self.took));
        match &self.outcome {
            Outcome::Skipped => format!("{head}skipped: not in target/kernels, and --offline downloads nothing"),
            Outcome::Failed(why) => format!("{head}FAILED: {why}"),
            Outcome::Ran { told, judgement, .. } => {
                let verified: String = told.verified.iter().map(|(program, count)| format!(", {program} {count}")).collect();
                let cost = if told.cost.is_empty() { String::new() } else { format!(", {} cases", told.cost.len()) };
                format!("{head}{} passed, {} failed{verified}{cost}", judgement.passed, judgement.failures.len())
            }
        }
    }

    fn sum(&self) -> Sum {
        match &self.outcome {
            Outcome::Skipped => Sum::default(),
            Outcome::Failed(_) => Sum { passed: 0, failed: 1 },
            Outcome::Ran { judgement, .. } => Sum { passed: judgement.passed as u64, failed: judgement.failures.len() as u64 },
        }
    }
}

impl Results {
    /// For a person.
    pub fn shown(&self, workspace: &Workspace, verdict: &Verdict) -> String {
        let mut text = String::new();
        let mut line = |words: String| text.push_str(&(words + "\n"));
        for row in &self.rows {
            line(row.headline());
            if let Outcome::Ran { judgement, console, .. } = &row.outcome
                && !judgement.failures.is_empty()
            {
                judgement.failures.iter().for_each(|failure| line(format!("    {failure}")));
                line(format!("    what it printed is in {}", workspace.shown(console)));
            }
        }
        let Verdict { within, failures, notes } = verdict;
        if within + failures.len() > 0 {
            line(format!("budgets: {within} within, {} failed", failures.len()));
        }
        failures.iter().chain(notes).for_each(|sentence| line(format!("    {sentence}")));
        line(format!("all in {}", elapsed(self.took)));
        text
    }

    pub fn sum(&self) -> Sum {
        self.rows
            .iter()
            .map(Row::sum)
            .fold(Sum::default(), |a, b| Sum { passed: a.passed + b.passed, failed: a.failed + b.failed })
    }

    /// The kernels on which nothing was run, because they aren't there and nothing may be downloaded.
    pub fn untested(&self) -> Vec<String> {
        let tests = self.rows.iter().filter(|row| row.purpose == Purpose::Tests);
        tests.filter(|row| matches!(row.outcome, Outcome::Skipped)).map(|row| row.version.clone()).collect()
    }

    /// What was counted.
    pub fn instructions(&self) -> Instructions {
        let mut found = Instructions::default();
        for row in &self.rows {
            let Outcome::Ran { told, .. } = &row.outcome else { continue };
            if !told.verified.is_empty() {
                found.verifier.insert(row.version.clone(), told.verified.clone());
            }
            found.packet.extend(told.cost.iter().map(|(case, count)| (case.clone(), count.round() as u32)));
        }
        found
    }

    /// `kernels[] {version, passed, failed, seconds, insns {case: n}}`: those that the verifier goes through, by `verifier-<program>`, and those of a packet, by
    /// the bench's case.
    pub fn json(&self, verdict: &Verdict) -> Value {
        let tests = self.rows.iter().filter(|row| row.purpose == Purpose::Tests);
        let kernels: Vec<Value> = tests.map(|row| self.kernel(row)).collect();
        let Verdict { within, failures, notes } = verdict;
        json!({"kernels": kernels, "seconds": self.took.as_secs_f64(), "budgets": {"within": within, "failures": failures, "notes": notes}})
    }

    fn kernel(&self, tests: &Row) -> Value {
        let (mut sum, mut seconds, mut insns) = (Sum::default(), 0.0, Map::new());
        let (mut failures, mut skipped) = (Vec::new(), false);
        for row in self.rows.iter().filter(|row| row.version == tests.version) {
            let own = row.sum();
            sum = Sum { passed: sum.passed + own.passed, failed: sum.failed + own.failed };
            seconds += row.took.as_secs_f64();
            match &row.outcome {
                Outcome::Skipped => skipped = true,
                Outcome::Failed(why) => failures.push(why.clone()),
                Outcome::Ran { told, judgement, .. } => {
                    failures.extend(judgement.failures.iter().cloned());
                    insns.extend(told.verified.iter().map(|(program, count)| (format!("verifier-{program}"), json!(count))));
                    insns.extend(told.cost.iter().map(|(case, count)| (case.clone(), json!(count))));
                }
            }
        }
        json!({
            "version": tests.version, "passed": sum.passed, "failed": sum.failed, "failures": failures, "skipped": skipped, "seconds": seconds,
            "insns": insns,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_kernels_machines_are_one_entry_of_the_json() {
        let ran = |passed, failures: &[&str], told| Outcome::Ran {
            told,
            judgement: Judgement { passed, failures: failures.iter().map(|failure| (*failure).to_owned()).collect() },
            console: PathBuf::new(),
        };
        let row =
            |version: &str, purpose, outcome| Row { version: version.into(), purpose, outcome, took: Duration::from_secs(2) };
        let verified = Told { verified: BTreeMap::from([("splitter".into(), 7)]), ..Told::default() };
        let cost = Told { cost: BTreeMap::from([("not-ours".into(), 12.4)]), ..Told::default() };
        let rows = vec![
            row("6.12", Purpose::Cost, ran(0, &[], cost)),
            row("5.10", Purpose::Tests, Outcome::Skipped),
            row("6.12", Purpose::Tests, ran(3, &["a: failed"], verified)),
            row("7.2", Purpose::Tests, Outcome::Failed("gone".into())),
        ];
        let results = Results { rows, took: Duration::from_secs(4) };
        assert_eq!(results.sum(), Sum { passed: 3, failed: 2 });
        assert_eq!(results.untested(), ["5.10"]);
        let json = results.json(&Verdict::default());
        let kernels = json["kernels"].as_array().expect("a list");
        let versions: Vec<_> = kernels.iter().map(|kernel| kernel["version"].as_str().expect("text")).collect();
        assert_eq!(versions, ["5.10", "6.12", "7.2"]);
        assert_eq!((&kernels[0]["skipped"], &kernels[2]["failed"]), (&json!(true), &json!(1)));
        assert_eq!(kernels[1]["insns"], json!({"verifier-splitter": 7, "not-ours": 12.4}));
        assert_eq!((&kernels[1]["passed"], &kernels[1]["seconds"]), (&json!(3), &json!(4.0)));
        let found = results.instructions();
        assert_eq!((found.verifier["6.12"]["splitter"], found.packet["not-ours"]), (7, 12));
    }
}
