//! What is wrong with a configuration, and where.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// A configuration that isn't used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and is refused.
    #[error("{}", Lines(problems))]
    Invalid {
        /// All that is wrong, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Each problem as one line; one line for a file that can't be read.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Read { .. } => vec![self.to_string()],
            Self::Invalid { problems } => problems.iter().map(Problem::to_string).collect(),
        }
    }
}

/// One thing that is wrong: `file:line:column: place in words: what, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where in which file.
    pub mark: Mark,
    /// The place in words, such as `service "checkout", canary backend 2`; empty for the file as a whole.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.mark)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

/// A place in a file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Mark {
    /// The place of the octet at `offset` of `text`.
    #[must_use]
    pub fn new(file: &Arc<str>, text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        // UTF-8 continuation octets (10xxxxxx) don't begin a character.
        let column = before[start..].iter().filter(|b| **b & 0xc0 != 0x80).count() + 1;
        Self { file: Arc::clone(file), line, column }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let file: Arc<str> = Arc::from("x.toml");
        let text = "a = 1\nñö = 2\n";
        let mark = |offset| Mark::new(&file, text, offset).to_string();
        assert_eq!(mark(0), "x.toml:1:1");
        assert_eq!(mark(text.find('=').expect("there")), "x.toml:1:3");
        assert_eq!(mark(text.rfind('=').expect("there")), "x.toml:2:4");
        assert_eq!(mark(text.len()), "x.toml:3:1");
    }
}
