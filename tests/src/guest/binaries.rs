//! Test binaries, as `cargo test` runs them.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::plan::Told;
use crate::rig;

/// Runs these tests of a binary and tells each one's result. One that the binary doesn't tell of has failed.
pub(super) fn run(told: &mut Told, path: &Path, tests: &[String]) -> Result<()> {
    let suite = path.file_name().context("a binary has a name")?.to_string_lossy();
    let mut command = Command::new(path);
    // As many at a time as there are processors.
    command.arg("--exact").args(tests);
    command.env(rig::SHARES, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", path.display()))?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let mut missing: Vec<&String> = tests.iter().collect();
    let mut last = Instant::now();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading what it prints")?;
        let Some((name, passed)) = result(&line) else {
            eprintln!("{line}");
            continue;
        };
        let expected = missing.len();
        missing.retain(|test| *test != name);
        ensure!(missing.len() + 1 == expected, "{suite} tells of {name}, which it was not asked for or has told of before");
        // Since the one before: with several at a time no more can be known.
        told.result(format!("{suite}::{name}"), passed, last.elapsed().as_secs_f64())?;
        last = Instant::now();
    }
    let status = child.wait().context("waiting for it")?;
    eprintln!("guest: {suite} ended with {status}");
    for name in missing {
        told.result(format!("{suite}::{name}"), false, 0.0)?;
    }
    Ok(())
}

/// Reads `test NAME ... ok`.
fn result(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match outcome {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_what_a_test_binary_prints() {
        for (line, expected) in [
            ("test a_frame_is_split ... ok", Some(("a_frame_is_split", true))),
            ("test deep::down ... FAILED", Some(("deep::down", false))),
            ("test slow ... ignored", None),
            ("test result: ok. 3 passed; 0 failed; 0 ignored", None),
            ("running 3 tests", None),
        ] {
            assert_eq!(result(line), expected, "{line}");
        }
    }
}
