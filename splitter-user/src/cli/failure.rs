//! How a command ends.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::{
    api::{client::ClientError, wire::ErrorCode},
    config::ConfigError,
};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// Not done, or found to be wrong.
    Failed = 1,
    /// The command line, or what it names, can't mean anything; clap's code, too.
    Usage = 2,
    /// No agent answers.
    NotReachable = 3,
    /// This user may not.
    NotPermitted = 4,
    /// The service, backend or prefix isn't there.
    NotFound = 5,
    /// The present state forbids it.
    Conflict = 6,
    /// The rollout that was waited for was flipped.
    Flipped = 7,
    /// It was given up.
    Aborted = 8,
    /// It waits for somebody.
    AtGate = 9,
    /// It has not ended in time.
    TimedOut = 10,
}

impl Code {
    /// All of them, with what they mean.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Ok, "done"),
        (Self::Failed, "failed, or `doctor` found that packets don't get through"),
        (Self::Usage, "wrong usage or wrong input, an invalid configuration included; nothing was changed"),
        (Self::NotReachable, "no agent answers on the socket"),
        (Self::NotPermitted, "not permitted"),
        (Self::NotFound, "the service, backend or prefix isn't there"),
        (Self::Conflict, "refused by the present state: nothing to undo, there already, another agent runs"),
        (Self::Flipped, "`rollout wait`: the rollout was flipped, everything goes to stable"),
        (Self::Aborted, "`rollout wait`: the rollout was aborted"),
        (Self::AtGate, "`rollout wait`: the rollout waits at a gate until somebody approves"),
        (Self::TimedOut, "`rollout wait`: the rollout has not ended within `--timeout`"),
    ];
}

/// A command that wasn't done: what is told, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong: each entry becomes an `error:` line.
    pub errors: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// With one error.
    #[must_use]
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Self { code, errors: vec![error.into()], hint: None }
    }

    /// An exit code alone: everything was said.
    #[must_use]
    pub fn silent(code: Code) -> Self {
        Self { code, errors: vec![], hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes it down; the exit code.
    pub(super) fn report(&self, err: &mut dyn Write) -> Code {
        let styled = |style: Style, word: &str| format!("{style}{word}{style:#}");
        let error = styled(AnsiColor::Red.on_default().bold(), "error:");
        let hint = styled(AnsiColor::Cyan.on_default(), "hint:");
        let lines = self.errors.iter().map(|text| format!("{error} {text}\n"));
        let text: String = lines.chain(self.hint.iter().map(|text| format!("{hint} {text}\n"))).collect();
        // Where errors can't be told, the exit code still is.
        drop(err.write_all(text.as_bytes()));
        self.code
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NotRunning { .. } => Code::NotReachable,
            ClientError::NotPermitted { .. } => Code::NotPermitted,
            ClientError::Refused { body } => match body.code {
                ErrorCode::Invalid => Code::Usage,
                ErrorCode::NotFound => Code::NotFound,
                ErrorCode::Conflict => Code::Conflict,
                ErrorCode::Unavailable | ErrorCode::Internal | ErrorCode::Unsupported => Code::Failed,
            },
            ClientError::Lost { .. } | ClientError::TimedOut { .. } | ClientError::NotUnderstood { .. } => Code::Failed,
        };
        // A refused configuration has a problem a line.
        Self { code, errors: error.to_string().lines().map(str::to_owned).collect(), hint: error.remedy() }
    }
}

/// A configuration that can't be used: every problem.
impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { code: Code::Usage, errors: error.lines(), hint: None }
    }
}

/// Output that can't be written. A reader that has seen enough (`| head`) is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Code::Ok)
        } else {
            Self::new(Code::Failed, format!("could not write: {error}"))
        }
    }
}
