use clap::CommandFactory;

use super::*;
use crate::{cli::args::Args, golden::golden_part};

#[test]
fn the_document_has_every_commands_help_and_every_exit_code() {
    let mut text = String::new();
    for_each_command(|name, help| {
        let lines: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        text += &format!("### {name}\n\n```text\n{lines}```\n\n");
    });
    golden_part("cli.md", "commands", &text);

    let mut table = String::from("| code | meaning |\n| --- | --- |\n");
    for (code, meaning) in Code::ALL {
        table += &format!("| {} | {meaning} |\n", code as u8);
    }
    golden_part("cli.md", "codes", &table);
}

#[test]
fn every_help_fits_the_terminal_and_has_an_example_that_is_right() {
    for_each_command(|name, help| {
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let example = unwrapped.split_once("Example: `").and_then(|(_, rest)| rest.split_once('`'));
        let (example, _) = example.unwrap_or_else(|| panic!("{name} has no example"));
        for command in example.split(" && ") {
            let (command, _) = command.split_once(" > ").unwrap_or((command, ""));
            let command = command.replace("\"500s since 14:02\"", "x");
            if let Err(error) = Args::command().try_get_matches_from(command.split(' ')) {
                panic!("{name}: {command}: {error}");
            }
        }
    });
}

#[test]
fn help_and_version_are_no_errors() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    for line in ["--help", "-h", "help", "--version", "backend add --help", "help network add"] {
        let outcome = splitter(nowhere, line);
        assert_eq!((outcome.code, outcome.err.as_str()), (Code::Ok, ""), "{line}");
        assert!(outcome.out.contains("splitter"), "{line}");
    }
}

/// Every command that does something, with its long help.
fn for_each_command(mut visit: impl FnMut(&str, &str)) {
    fn descend(command: &mut clap::Command, path: &str, visit: &mut dyn FnMut(&str, &str)) {
        let name = if path.is_empty() { command.get_name().to_owned() } else { format!("{path} {}", command.get_name()) };
        let below: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).filter(|name| name != "help").collect();
        if below.is_empty() {
            visit(&name, &command.render_long_help().to_string());
        }
        for child in below {
            descend(command.find_subcommand_mut(&child).expect("it was listed"), &name, visit);
        }
    }
    let mut command = Args::command().term_width(80);
    command.build();
    descend(&mut command, "", &mut visit);
}
