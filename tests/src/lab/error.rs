//! What can go wrong while a lab is built or used.

use std::{io, time::Duration};

/// An error of the lab: what was tried, on what, and where known what to do.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A builder was asked for a combination that has no meaning.
    #[error("a lab cannot be built like this: {0}")]
    Impossible(&'static str),
    /// The lab has no namespace of this label.
    #[error("this lab has no namespace {label:?}; it has {known}")]
    UnknownNamespace {
        /// What was asked for.
        label: String,
        /// The labels that exist, comma separated.
        known: String,
    },
    /// A namespace has no such network device.
    #[error("namespace {namespace}: no network device {device:?}")]
    UnknownDevice {
        /// The namespace's full name.
        namespace: String,
        /// What was asked for.
        device: String,
    },
    /// A system call or a file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program is not installed.
    #[error("{program:?} is not installed; on Debian: apt-get install {package}")]
    MissingProgram {
        /// The program's name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("{command} ended with {status}: {stderr}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to its standard error and, where that is empty, to its standard output.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A program or a server answered with something else than was expected.
    #[error("{what}: {why}")]
    Unexpected {
        /// Who answered.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl LabError {
    /// A closure for `map_err` that says what was tried.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what: what.into(), source: source.into() }
    }
}

/// Results of the lab.
pub type Result<T> = std::result::Result<T, LabError>;
