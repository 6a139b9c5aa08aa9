//! What a machine tells by its second serial port, and whether that is a success.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::machine::Ended;

/// One line, as `tests/src/guest/plan.rs` writes it.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", tag = "line")]
enum Line {
    Begun { release: String },
    Test { name: String, passed: bool, seconds: f64 },
    Verified { program: String, instructions: Option<u32> },
    Cost { case: String, instructions: f64 },
    Ended { tests: usize },
}

/// All that a machine told.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    pub release: Option<String>,
    pub tests: Vec<Test>,
    /// Instructions that the verifier has gone through, by program.
    pub verified: BTreeMap<String, u32>,
    /// Instructions by packet, by case.
    pub cost: BTreeMap<String, f64>,
    /// How many tests the machine says it told of; `None`: it didn't come to its end.
    pub ended: Option<usize>,
}

/// A test's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub name: String,
    pub passed: bool,
    pub seconds: f64,
}

/// What a machine's run comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub passed: usize,
    /// One sentence each.
    pub failures: Vec<String>,
}

impl Told {
    /// Reads everything that came. The last line may be torn where the machine died; any other that isn't understood is an error.
    pub fn read(text: &str) -> Result<Self> {
        let mut told = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let line = serde_json::from_str(line).with_context(|| format!("the machine told something unknown: {line:?}"))?;
            match line {
                Line::Begun { release } => told.release = Some(release),
                Line::Test { name, passed, seconds } => told.tests.push(Test { name, passed, seconds }),
                Line::Verified { program, instructions } => told.verified.extend(instructions.map(|count| (program, count))),
                Line::Cost { case, instructions } => {
                    told.cost.insert(case, instructions);
                }
                Line::Ended { tests } => told.ended = Some(tests),
            }
        }
        Ok(told)
    }

    /// A success is only what was told as one: the right kernel, each expected test once and passed, the count at the end, and the code that is the guest's
    /// own.
    pub fn judge(&self, release: &str, expected: &BTreeSet<String>, ended: Ended) -> Judgement {
        let mut failures: Vec<String> = Vec::new();
        match &self.release {
            Some(found) if found == release => {}
            Some(found) => failures.push(format!("the kernel that runs is {found}, not {release}")),
            None => failures.push("the kernel did not come up".to_owned()),
        }
        let mut seen = BTreeSet::new();
        let mut passed = 0;
        for test in &self.tests {
            if !expected.contains(&test.name) {
                failures.push(format!("{}: nobody expected this test", test.name));
            } else if !seen.insert(&test.name) {
                failures.push(format!("{}: told of twice", test.name));
            } else if test.passed {
                passed += 1;
            } else {
                failures.push(format!("{}: failed", test.name));
            }
        }
        failures.extend(expected.iter().filter(|name| !seen.contains(name)).map(|name| format!("{name}: was not run")));
        match self.ended {
            Some(tests) if tests == self.tests.len() => {}
            Some(tests) => failures.push(format!("the machine counted {tests} tests and told of {}", self.tests.len())),
            None => failures.push("the machine did not come to the end of its plan".to_owned()),
        }
        match ended {
            Ended::Passed => {}
            // Its failed tests were named above.
            Ended::Failed if !failures.is_empty() => {}
            Ended::Failed => failures.push("the machine says that something failed, and not what".to_owned()),
            Ended::Otherwise(how) => failures.push(format!("the machine ended in another way than by itself: {how}")),
        }
        Judgement { passed, failures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    const GOOD: &str = r#"{"line":"begun","release":"6.1.0"}
{"line":"verified","program":"splitter","instructions":1200}
{"line":"verified","program":"old","instructions":null}
{"line":"test","name":"a","passed":true,"seconds":0.5}
{"line":"test","name":"b","passed":true,"seconds":1.5}
{"line":"cost","case":"not-ours","instructions":12.5}
{"line":"ended","tests":2}
"#;

    #[test]
    fn a_machines_lines_are_understood() {
        let told = Told::read(GOOD).expect("all are known");
        assert_eq!(told.release.as_deref(), Some("6.1.0"));
        assert_eq!(told.tests[1], Test { name: "b".into(), passed: true, seconds: 1.5 });
        assert_eq!(told.verified, BTreeMap::from([("splitter".into(), 1_200)]));
        assert_eq!(told.cost, BTreeMap::from([("not-ours".into(), 12.5)]));
        assert_eq!(told.judge("6.1.0", &names(&["a", "b"]), Ended::Passed), Judgement { passed: 2, failures: vec![] });
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_strange_one_is_an_error() {
        let torn = &GOOD[..GOOD.len() - 5];
        assert_eq!(Told::read(torn).expect("the rest is whole").ended, None);
        assert!(Told::read(&GOOD.replace("begun", "began")).is_err());
    }

    #[test]
    fn nothing_but_everything_is_a_success() {
        let timed_out = || Ended::Otherwise(run::Ended::TimedOut(std::time::Duration::from_secs(9)));
        for (from, to, expected, ended, failure) in [
            ("", "", &["a", "b"][..], timed_out(), "ended in another way"),
            ("", "", &["a", "b"], Ended::Failed, "says that something failed"),
            ("", "", &["a", "b", "c"], Ended::Passed, "c: was not run"),
            ("", "", &["a"], Ended::Passed, "b: nobody expected"),
            ("\"b\",\"passed\":true", "\"b\",\"passed\":false", &["a", "b"], Ended::Failed, "b: failed"),
            ("\"b\"", "\"a\"", &["a", "b"], Ended::Passed, "a: told of twice"),
            ("6.1.0", "6.1.1", &["a", "b"], Ended::Passed, "is 6.1.1, not 6.1.0"),
            (
                r#"{"line":"ended","tests":2}"#,
                r#"{"line":"ended","tests":3}"#,
                &["a", "b"],
                Ended::Passed,
                "counted 3 tests and told of 2",
            ),
            ("{\"line\":\"ended\",\"tests\":2}\n", "", &["a", "b"], Ended::Passed, "did not come to the end"),
        ] {
            let told = Told::read(&GOOD.replace(from, to)).expect("well-formed");
            let judged = told.judge("6.1.0", &names(expected), ended);
            assert!(judged.failures.iter().any(|told| told.contains(failure)), "{failure}: {judged:?}");
        }
        let nothing = Told::default().judge("6.1.0", &BTreeSet::new(), Ended::Passed);
        assert_eq!(nothing.failures.len(), 2, "a machine that says nothing has not passed: {nothing:?}");
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
