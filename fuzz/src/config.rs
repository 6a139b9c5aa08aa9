//! Configuration files.

use std::io;

use splitter_user::config::{Config, ConfigError, Problem};

const NAME: &str = "fuzz.toml";

/// Reads a configuration. Files with networks that it names hold whatever stands behind the text's first NUL.
///
/// # Panics
/// When it's refused without a place, or read in two ways.
pub fn check(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let (text, networks) = text.split_once('\0').unwrap_or((text, ""));
    let read = || {
        Config::parse_with(text, NAME, |path| match path.to_str() {
            Some("absent") => Err(io::ErrorKind::NotFound.into()),
            Some(_) | None => Ok(networks.to_owned()),
        })
    };
    match (read(), read()) {
        (Ok(config), Ok(again)) => {
            assert_eq!(config, again, "it is read in two ways");
            assert!(!config.agent.interfaces.is_empty() && config.nat.ports.low <= config.nat.ports.high);
            assert!(config.tables.connections.is_power_of_two(), "{:?}", config.tables);
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.lines(), again.lines(), "it is refused in two ways");
            let ConfigError::Invalid { problems } = &error else { panic!("no file is read here: {error}") };
            assert!(!problems.is_empty(), "it is refused without a reason");
            problems.iter().for_each(|problem| assert_placed(problem, text, networks));
        }
        (one, other) => panic!("once {one:?}, once {other:?}"),
    }
}

/// A problem's place is one that the file has.
fn assert_placed(problem: &Problem, text: &str, networks: &str) {
    assert!(!problem.message.trim().is_empty(), "{problem} says nothing");
    let file = if &*problem.mark.file == NAME { text } else { networks };
    let (line, column) = (problem.mark.line, problem.mark.column);
    // One behind the last is the end of the file.
    let lines: Vec<&str> = file.split('\n').collect();
    assert!((1..=lines.len()).contains(&line), "{problem}: the file has {} lines", lines.len());
    let longest = lines[line - 1].chars().count() + 1;
    assert!((1..=longest).contains(&column), "{problem}: the line has {longest} columns");
}
