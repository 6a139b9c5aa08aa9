//! Process 1 of a virtual machine that `cargo xtask vm` starts: loads modules, runs the checks of its plan, tells each result, and ends the machine.
//!
//! On no account run it on a machine of one's own: it mounts file systems and powers off.

use std::process::ExitCode;

fn main() -> ExitCode {
    splitter_tests::guest::main()
}
