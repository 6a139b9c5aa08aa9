//! Where and how figures were measured.

use std::fs;

use serde::Serialize;

/// What figures depend on, and how to get them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Its cores that this machine has.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The day, in UTC: year, month, day.
    pub date: String,
    /// The command line.
    pub command: String,
}

impl Machine {
    /// This one, running the bench.
    #[must_use]
    pub fn this() -> Self {
        Self::of("bench")
    }

    /// This one, running this program, which is a command of `cargo xtask`.
    #[must_use]
    pub fn of(command: &str) -> Self {
        let arguments = named(std::env::args().skip(1));
        Self {
            cpu: fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(model).unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned()),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            command: std::iter::once(format!("cargo xtask {command}")).chain(arguments).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The arguments, with `FILE` for where somebody had figures written: whose that place is says nothing about them.
fn named(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for argument in arguments {
        let is_file = named.last().is_some_and(|before| before == "--json");
        named.push(if is_file { "FILE".to_owned() } else { argument });
    }
    named
}

/// The processor's name, where `/proc/cpuinfo` has one (arm64 has none).
fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_no_place_of_the_machine_it_ran_on() {
        let arguments = ["--runs", "5", "--json", "/somewhere/x.json", "--write-docs"].map(str::to_owned);
        assert_eq!(named(arguments.into_iter()), ["--runs", "5", "--json", "FILE", "--write-docs"]);
    }

    #[test]
    fn the_processors_name_is_read_where_there_is_one() {
        assert_eq!(model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), Some("Some CPU @ 2 GHz"));
        assert_eq!(model("processor\t: 0\nCPU implementer\t: 0x41\n"), None);
    }
}
