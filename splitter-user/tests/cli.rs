//! The binary itself: what only a process of its own can show.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn without_an_agent_the_exit_code_is_3_and_no_escapes_go_into_a_pipe() {
    let output = splitter(Path::new("/nonexistent/agent.sock"), "status").output().expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let expected = "error: the agent is not running: nobody answers on /nonexistent/agent.sock\n\
        hint: start it with `systemctl start splitter` or `splitter agent --config FILE`, or name its socket with `--socket`\n";
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("", expected));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let output = splitter(Path::new("/nonexistent/agent.sock"), "weight web 101%").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("weight `101%` is out of range: use 0% to 100%"));
}

#[test]
fn the_socket_can_be_named_by_the_environment() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splitter"));
    let output = command.arg("status").env("SPLITTER_SOCKET", "/nowhere/else.sock").output().expect("it runs");
    assert!(text(&output.stderr).contains("nobody answers on /nowhere/else.sock"), "{output:?}");
}

/// Needs root, to become somebody else; like the rest of this project's tests that touch the system.
#[test]
fn a_user_who_may_not_gets_4_and_the_name_of_the_group_that_may() {
    assert!(nix::unistd::geteuid().is_root(), "run this test as root");
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("others may look into it");
    let socket = directory.path().join("agent.sock");
    let _listener = UnixListener::bind(&socket).expect("bound");
    fs::set_permissions(&socket, Permissions::from_mode(0o660)).expect("as the agent sets it");

    let adm = nix::unistd::Group::from_name("adm").expect("a look-up").expect("Debian has it");
    std::os::unix::fs::chown(&socket, None, Some(adm.gid.as_raw())).expect("root may");

    let program = directory.path().join("splitter");
    // Copied by another process: a descriptor of ours, open for writing, would go along with any child that another test starts meanwhile, and what
    // somebody has open for writing can't be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_splitter")).arg(&program).status().expect("cp runs");
    assert!(copied.success(), "a copy that others can reach");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("others may run it");
    let mut command = Command::new(&program);
    command.args(["--socket".as_ref(), socket.as_os_str(), "status".as_ref()]).uid(65_534).gid(65_534).current_dir("/");
    let output = command.output().expect("it runs");
    let expected =
        format!("error: no permission to use {}\nhint: run this as root or as a member of the group `adm`\n", socket.display());
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(4), expected));
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let mut child = splitter(Path::new("/nonexistent"), "completions bash").stdout(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(0), ""));
}

fn splitter(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splitter"));
    command.arg("--socket").arg(socket).args(line.split(' ')).env_remove("SPLITTER_SOCKET").stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
