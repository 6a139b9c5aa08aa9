//! The `splitter` binary.

use std::{path::Path, process::ExitCode};

use splitter_user::{
    api::wire::DoctorReport,
    cli::{self, AgentOptions, Code, Failure, Local},
};

/// What this binary has besides the command line.
struct Parts;

impl Parts {
    fn absent(what: &str) -> Failure {
        Failure::new(Code::Failed, format!("this build has no {what}"))
    }
}

impl Local for Parts {
    fn agent(&self, _: &AgentOptions) -> Result<(), Failure> {
        Err(Self::absent("agent"))
    }

    fn doctor(&self, _: Option<&Path>) -> DoctorReport {
        DoctorReport::default()
    }
}

fn main() -> ExitCode {
    cli::main(&Parts)
}
