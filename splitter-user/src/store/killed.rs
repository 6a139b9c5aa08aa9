//! For tests: this very test program as a process of its own, that can be killed.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const PLACE: &str = "SPLITTER_TEST_PLACE";
const STEP: &str = "SPLITTER_TEST_STEP";
const ACKNOWLEDGED: &str = "acknowledged";

/// Starts the test that calls this once more, as a process that works in a directory: there [`place`] tells it that it's the one to be killed. `step`: where it's to end
/// itself, if at one.
pub fn start(module: &str, test: &str, place: &Path, step: Option<usize>) -> Child {
    let (_, module) = module.split_once("::").expect("a module of this crate");
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(PLACE, place).stdout(Stdio::null());
    if let Some(step) = step {
        command.env(STEP, step.to_string());
    }
    command.spawn().expect("started")
}

/// The directory to work in until it's killed, for the one that was started.
pub fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Where to end, for the one that was started.
pub fn step() -> Option<usize> {
    std::env::var(STEP).ok().map(|step| step.parse().expect("a number"))
}

/// Where it tells what it has done.
pub fn acknowledgements(place: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(place.join(ACKNOWLEDGED)).expect("opened")
}

/// Tells that something is done: one write, which outlives the process.
pub fn acknowledge(to: &mut File, number: u64) {
    to.write_all(format!("{number}\n").as_bytes()).expect("acknowledged");
}

/// What was told last, 0 before anything was.
pub fn acknowledged(place: &Path) -> u64 {
    let lines = std::fs::read_to_string(place.join(ACKNOWLEDGED)).unwrap_or_default();
    lines.lines().last().map_or(0, |number| number.parse().expect("a number"))
}
