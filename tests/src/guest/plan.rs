//! What the machine is told to do, and what it tells: JSON, both ways.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where the plan lies in the machine's initial file system.
const PLAN: &str = "/plan.json";

/// What a machine does.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Plan {
    /// Kernel modules, in the order of loading.
    pub modules: Vec<PathBuf>,
    /// What is run, in order.
    pub suites: Vec<Suite>,
}

/// A part of the plan.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", tag = "suite")]
pub enum Suite {
    /// The program is loaded, verified, attached: [`super::checks`].
    Checks {
        /// Which of them.
        tests: Vec<String>,
    },
    /// Tests of a binary that `cargo test` would run.
    Binary {
        /// Where it lies.
        path: PathBuf,
        /// Which of its tests, by their full names.
        tests: Vec<String>,
    },
    /// Instructions by packet, for a machine whose clock counts them.
    Cost,
}

/// What the machine tells.
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// The kernel runs, its modules are there.
    Begun {
        /// `uname -r`.
        release: String,
    },
    /// A test ended.
    Test {
        /// Its name: of the suite, `::`, its own.
        name: String,
        /// How.
        passed: bool,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// The verifier has taken a program.
    Verified {
        /// Its name.
        program: String,
        /// Instructions that the verifier has processed; `None` where the kernel doesn't tell (before 5.16).
        instructions: Option<u32>,
    },
    /// What a packet costs.
    Cost {
        /// The case.
        case: String,
        /// Instructions of the machine's processor.
        instructions: f64,
    },
    /// The plan was gone through to its end.
    Ended {
        /// How many tests were told of.
        tests: usize,
    },
}

impl Plan {
    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(PLAN).with_context(|| format!("reading {PLAN}"))?;
        serde_json::from_str(&text).with_context(|| format!("understanding {PLAN}"))
    }
}

/// The port to the host, and what went out by it.
pub(super) struct Told {
    port: File,
    tests: usize,
    failed: usize,
}

impl Told {
    pub(super) fn new(port: &Path) -> Result<Self> {
        let port_file = File::options().write(true).open(port).with_context(|| format!("opening {}", port.display()))?;
        Ok(Self { port: port_file, tests: 0, failed: 0 })
    }

    pub(super) fn tell(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        eprintln!("guest: {text}");
        text.push('\n');
        self.port.write_all(text.as_bytes()).context("telling the host")
    }

    /// Tells a test's result; its error goes to the console.
    pub(super) fn test(&mut self, name: String, took: Duration, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome {
            eprintln!("guest: {name}: {error:#}");
        }
        self.result(name, outcome.is_ok(), took.as_secs_f64())
    }

    pub(super) fn result(&mut self, name: String, passed: bool, seconds: f64) -> Result<()> {
        self.tests += 1;
        self.failed += usize::from(!passed);
        self.tell(&Line::Test { name, passed, seconds })
    }

    /// Tells the end; whether everything passed.
    pub(super) fn end(mut self) -> Result<bool> {
        let tests = self.tests;
        self.tell(&Line::Ended { tests })?;
        self.port.flush().context("telling the host")?;
        Ok(self.failed == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_the_host_writes_it() {
        let text = r#"{"modules": ["/modules/veth.ko"], "suites": [{"suite": "checks", "tests": ["b"]},
            {"suite": "binary", "path": "/tests/program", "tests": ["a"]}, {"suite": "cost"}]}"#;
        let expected = Plan {
            modules: vec!["/modules/veth.ko".into()],
            suites: vec![
                Suite::Checks { tests: vec!["b".into()] },
                Suite::Binary { path: "/tests/program".into(), tests: vec!["a".into()] },
                Suite::Cost,
            ],
        };
        assert_eq!(serde_json::from_str::<Plan>(text).expect("a plan"), expected);
    }

    #[test]
    fn lines_are_written_as_the_host_reads_them() {
        for (line, expected) in [
            (Line::Begun { release: "6.1".into() }, r#"{"line":"begun","release":"6.1"}"#),
            (
                Line::Test { name: "program::a".into(), passed: true, seconds: 1.5 },
                r#"{"line":"test","name":"program::a","passed":true,"seconds":1.5}"#,
            ),
            (
                Line::Verified { program: "splitter".into(), instructions: None },
                r#"{"line":"verified","program":"splitter","instructions":null}"#,
            ),
            (
                Line::Cost { case: "not-ours".into(), instructions: 12.0 },
                r#"{"line":"cost","case":"not-ours","instructions":12.0}"#,
            ),
            (Line::Ended { tests: 3 }, r#"{"line":"ended","tests":3}"#),
        ] {
            assert_eq!(serde_json::to_string(&line).expect("JSON"), expected);
        }
    }
}
