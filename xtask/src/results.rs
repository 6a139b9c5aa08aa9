//! Sums of what test runs say about themselves.

use std::ops::AddAssign;

/// Counted tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Tally {
    /// Reads the line with which a test binary ends:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s`.
    pub fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?;
        let counts = rest.strip_prefix("ok. ").or_else(|| rest.strip_prefix("FAILED. "))?;
        let mut fields = counts.split("; ");
        let mut count = |name: &str| fields.next()?.strip_suffix(name)?.trim_end().parse().ok();
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }

    /// Reads the line with which a soak ends: `soak: 13 held, 1 did not`.
    pub fn read_soak(line: &str) -> Option<Self> {
        let (held, not) = line.strip_prefix("soak: ")?.strip_suffix(" did not")?.split_once(" held, ")?;
        Some(Self { passed: held.parse().ok()?, failed: not.parse().ok()?, ignored: 0 })
    }

    /// How many tests ran.
    pub fn executed(self) -> u64 {
        self.passed.saturating_add(self.failed)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.ignored = self.ignored.saturating_add(other.ignored);
    }
}

/// What became of one check: a tool's run, or a group of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// What was run passed; what was left out, as was asked for.
    Partly(String),
    /// There is nothing of this kind in the workspace.
    Absent,
    Failed(String),
}

/// Judges a run of tests by its sums and by whether cargo called it a success.
pub fn judge(tally: Tally, success: bool, may_be_empty: bool) -> Verdict {
    if tally.failed > 0 {
        Verdict::Failed(format!("{} failed", tally.failed))
    } else if !success {
        Verdict::Failed("did not build, or a test binary died".to_owned())
    } else if tally.ignored > 0 {
        // A test that is skipped reads as one that passed.
        Verdict::Failed(format!("{} ignored: a test that is not run proves nothing", tally.ignored))
    } else if tally.executed() == 0 && !may_be_empty {
        Verdict::Failed("no test was run".to_owned())
    } else {
        Verdict::Passed
    }
}

/// One row of the summary.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub verdict: Verdict,
    pub tally: Tally,
    pub took: std::time::Duration,
}

/// What the closing line says: every test, and each check that failed without a failed test of its own.
pub fn closing(rows: &[Row]) -> (u64, u64) {
    let mut sum = Tally::default();
    for row in rows {
        sum += row.tally;
        if matches!(row.verdict, Verdict::Failed(_)) && row.tally.failed == 0 {
            sum.failed += 1;
        }
    }
    // A run that checked formatting alone has run no test and is a pass; `judge` has seen to groups of tests.
    (sum.passed, sum.failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_test_binarys_last_line_is_read() {
        for (line, expected) in [
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s",
                Some(Tally { passed: 3, failed: 0, ignored: 1 }),
            ),
            (
                "test result: FAILED. 12 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.20s",
                Some(Tally { passed: 12, failed: 4, ignored: 0 }),
            ),
            ("test result: ok. 3 passed", None),
            ("    test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured", None),
            ("test results ... ok", None),
            ("running 3 tests", None),
            ("", None),
        ] {
            assert_eq!(Tally::read(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_soaks_last_line_is_read() {
        for (line, expected) in [
            ("soak: 14 held, 0 did not", Some((14, 0))),
            ("soak: 12 held, 2 did not", Some((12, 2))),
            ("soak: 12 held", None),
            ("[  3.1 s] soak: 12 held, 2 did not", None),
        ] {
            let sum = expected.map(|(passed, failed)| Tally { passed, failed, ignored: 0 });
            assert_eq!(Tally::read_soak(line), sum, "{line:?}");
        }
    }

    #[test]
    fn a_run_passes_only_when_every_test_ran_and_passed() {
        let good = Tally { passed: 3, failed: 0, ignored: 0 };
        assert_eq!(judge(good, true, false), Verdict::Passed);
        for (tally, success, why) in [
            (Tally { failed: 1, ..good }, false, "a test failed"),
            (Tally { failed: 1, ..good }, true, "a test failed and cargo did not notice"),
            (good, false, "a later test binary died"),
            (Tally { ignored: 1, ..good }, true, "a test was ignored"),
            (Tally::default(), true, "nothing was run"),
        ] {
            assert!(matches!(judge(tally, success, false), Verdict::Failed(_)), "{why}");
        }
        assert_eq!(judge(Tally::default(), true, true), Verdict::Passed, "there need not be doc tests");
    }

    #[test]
    fn the_closing_line_never_says_0_failed_after_a_failure() {
        let row = |verdict, tally| Row { name: "row", verdict, tally, took: Duration::ZERO };
        let failed = || Verdict::Failed("reason".to_owned());
        let rows = [
            row(failed(), Tally::default()),
            row(Verdict::Passed, Tally { passed: 7, failed: 0, ignored: 0 }),
            row(failed(), Tally { passed: 2, failed: 3, ignored: 0 }),
            row(failed(), Tally { passed: 1, failed: 0, ignored: 1 }),
            row(Verdict::Absent, Tally::default()),
        ];
        assert_eq!(closing(&rows), (10, 5), "three tests, the first row, and the one with an ignored test");
        assert_eq!(closing(&rows[1..2]), (7, 0));
    }
}
