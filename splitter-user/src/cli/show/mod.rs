//! Answers as people read them: pure, from a wire type to text with colours, at most 80 columns wide where nothing in it
//! is longer by itself.

mod decision;
mod history;
mod layout;
mod list;
mod rollout;
mod simulation;
mod status;

pub(super) use decision::{explanation, trace_record};
pub(super) use history::history;
pub(super) use layout::time;
pub(super) use list::{doctor, event, networks};
pub(super) use rollout::{place, rollout, verdict};
pub(super) use simulation::simulation;
pub(super) use status::{Change, backends, status};

use serde::Serialize;

use super::{
    Io,
    args::{Format, Output},
    failure::{Code, Failure},
};

/// Prints an answer: for people by `human`, for programs as indented JSON.
pub(super) fn print<T: Serialize>(
    io: &mut Io<'_>,
    output: Output,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match output.format {
        Format::Human => human(value),
        Format::Json => serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))? + "\n",
    };
    write_now(io, &text)
}

/// Prints one value of a stream, as JSON on one line.
pub(super) fn print_line<T: Serialize>(
    io: &mut Io<'_>,
    output: Output,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match output.format {
        Format::Human => human(value),
        Format::Json => serde_json::to_string(value).map_err(|error| unwritable(&error))? + "\n",
    };
    write_now(io, &text)
}

fn write_now(io: &mut Io<'_>, text: &str) -> Result<(), Failure> {
    io.out.write_all(text.as_bytes())?;
    io.out.flush()?;
    Ok(())
}

fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::new(Code::Failed, format!("the answer could not be written as JSON: {error}"))
}

/// With commas, or `nothing`.
pub(super) fn joined(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
