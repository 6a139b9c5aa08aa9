//! Every section and key of the configuration: the list that unknown keys are held against, that defaults are read
//! from, and that `docs/configuration.md` is checked against.

/// A section: a table of the file.
#[derive(Debug)]
pub struct Section {
    /// As its heading is written.
    pub heading: &'static str,
    /// What it may hold.
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// Its type, in words.
    pub kind: &'static str,
    /// Whether it may be absent, and what that means.
    pub presence: Presence,
}

/// Whether a key may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may not.
    Required,
    /// It may; there is no value then.
    Optional,
    /// It may; then this TOML value is read in its place.
    Default(&'static str),
}

use Presence::{Default, Optional, Required};

const fn key(name: &'static str, kind: &'static str, presence: Presence) -> Key {
    Key { name, kind, presence }
}

/// The file as a whole.
pub const FILE: Section = Section {
    heading: "the file",
    keys: &[
        key("agent", "table", Required),
        key("nat", "table", Optional),
        key("tables", "table", Optional),
        key("notify", "list of tables", Optional),
        key("service", "list of tables", Optional),
    ],
};

/// `[agent]`
pub const AGENT: Section = Section {
    heading: "[agent]",
    keys: &[
        key("interfaces", "list of names", Required),
        key("xdp_mode", "`native`, `generic` or `auto`", Default("\"native\"")),
        key("socket", "path", Default("\"/run/splitter/splitter.sock\"")),
        key("socket_group", "group name", Optional),
        key("metrics_address", "address and port, or `off`", Default("\"127.0.0.1:9616\"")),
        key("state_directory", "path", Default("\"/var/lib/splitter\"")),
        key("pin_directory", "path", Default("\"/sys/fs/bpf/splitter\"")),
        key("sample_interval", "duration, 10ms to 10s", Default("\"100ms\"")),
        key("detach_on_stop", "boolean", Default("false")),
        key("lease", "duration, 500ms to 10m", Default("\"10s\"")),
        key("resume", "`auto` or `manual`", Default("\"auto\"")),
    ],
};

/// `[nat]`
pub const NAT: Section = Section {
    heading: "[nat]",
    keys: &[key("addresses", "list of addresses", Default("[]")), key("ports", "port range", Default("\"1024-32767\""))],
};

/// `[tables]`
pub const TABLES: Section = Section {
    heading: "[tables]",
    keys: &[
        key("services", "integer, 1 to 4096", Default("256")),
        key("backends", "integer, 1 to 16384", Default("1024")),
        key("connections", "integer, 1024 to 4194304", Default("262144")),
        key("networks", "integer, 1 to 1048576", Default("131072")),
    ],
};

/// `[[service]]`
pub const SERVICE: Section = Section {
    heading: "[[service]]",
    keys: &[
        key("name", "name", Required),
        key("protocol", "`tcp` or `udp`", Required),
        key("address", "address and port", Required),
        key("mode", "`nat` or `dsr`", Default("\"nat\"")),
        key("affinity", "`connection` or `client`", Default("\"connection\"")),
        key("weight", "percentage", Default("\"0%\"")),
        key("seed", "32 hexadecimal digits", Optional),
        key("stable", "list of backends", Required),
        key("canary", "list of backends", Default("[]")),
        key("always_canary", "list of networks", Default("[]")),
        key("always_canary_file", "path", Optional),
        key("never_canary", "list of networks", Default("[]")),
        key("never_canary_file", "path", Optional),
        key("timeouts", "table", Optional),
        key("breach", "table", Optional),
        key("breaker", "table", Optional),
        key("rollout", "table", Optional),
        key("on_lease_expiry", "`stable` or `hold`", Default("\"stable\"")),
    ],
};

/// A backend that is written as a table.
pub const BACKEND: Section = Section {
    heading: "a backend",
    keys: &[key("address", "address and port", Required), key("weight", "integer, 1 to 1000", Default("1"))],
};

/// `[service.timeouts]`
pub const TIMEOUTS: Section = Section {
    heading: "[service.timeouts]",
    keys: &[
        key("connect", "duration, 100ms to 2m", Default("\"3s\"")),
        key("established", "duration, 1s to 4h", Default("\"2h\"")),
        key("udp", "duration, 1s to 4h", Default("\"2m\"")),
        key("closing", "duration, 1s to 4h", Default("\"30s\"")),
    ],
};

/// `[service.breach]`
pub const BREACH: Section = Section {
    heading: "[service.breach]",
    keys: &[
        key("refused", "percentage", Optional),
        key("reset", "percentage", Optional),
        key("timeout", "percentage", Optional),
        key("min_attempts", "integer, at least 1", Default("50")),
        key("window", "duration, 1s to 1h", Default("\"10s\"")),
        key("existing", "`keep` or `reset`", Default("\"reset\"")),
    ],
};

/// `[service.breaker]`
pub const BREAKER: Section = Section {
    heading: "[service.breaker]",
    keys: &[
        key("refused", "percentage", Optional),
        key("timeout", "percentage", Optional),
        key("reset", "percentage", Optional),
        key("retransmit", "percentage", Optional),
        key("min_attempts", "integer, at least 1", Default("50")),
        key("window", "duration, 1s to 5m", Default("\"10s\"")),
        key("worse_than_stable", "factor, 1x to 100x", Optional),
        key("existing", "`keep` or `reset`", Default("\"reset\"")),
    ],
};

/// `[service.rollout]`
pub const ROLLOUT: Section = Section {
    heading: "[service.rollout]",
    keys: &[
        key("steps", "list of steps", Required),
        key("min_connections", "integer, at least 0", Default("500")),
        key("on_breach", "`flip` or `pause`", Default("\"flip\"")),
        key("existing", "`keep` or `reset`", Default("\"reset\"")),
        key("on_no_data", "`hold`, `flip` or `proceed`", Default("\"hold\"")),
        key("no_data_for", "duration, 0s to 1d", Default("\"5m\"")),
        key("deadline", "duration, 1s to 30d", Default("\"6h\"")),
        key("on_deadline", "`abort` or `flip`", Default("\"abort\"")),
        key("compare", "table", Optional),
        key("check", "list of tables", Optional),
    ],
};

/// A step that is written as a table.
pub const STEP: Section = Section {
    heading: "a step",
    keys: &[
        key("weight", "percentage, or a step as a text", Required),
        key("for", "duration, 100ms to 30d", Optional),
        key("gate", "`manual` or `check:NAME`", Optional),
    ],
};

/// `[service.rollout.compare]`
pub const COMPARE: Section = Section {
    heading: "[service.rollout.compare]",
    keys: &[
        key("false_alarm_rate", "number, above 0, at most 0.5", Default("0.01")),
        key("failures", "boolean", Default("true")),
        key("handshake_p90", "boolean", Default("true")),
        key("tolerance", "factor, 1x to 100x", Default("\"1.2x\"")),
        key("stable_failing", "percentage", Default("\"5%\"")),
    ],
};

/// `[[service.rollout.check]]`
pub const CHECK: Section = Section {
    heading: "[[service.rollout.check]]",
    keys: &[
        key("name", "name", Required),
        key("promql", "PromQL expression", Optional),
        key("url", "URL", Optional),
        key("max", "number", Optional),
        key("min", "number", Optional),
        key("webhook", "URL", Optional),
        key("interval", "duration, 1s to 10m", Default("\"10s\"")),
        key("timeout", "duration, 100ms to 1m", Default("\"5s\"")),
        key("retries", "integer, 0 to 10", Default("2")),
        key("failures", "integer, 1 to 100", Default("1")),
        key("token_file", "path", Optional),
    ],
};

/// `[[notify]]`
pub const NOTIFY: Section = Section {
    heading: "[[notify]]",
    keys: &[
        key("name", "name", Required),
        key("url", "URL", Optional),
        key("url_file", "path", Optional),
        key("token_file", "path", Optional),
        key("timeout", "duration, 100ms to 1m", Default("\"5s\"")),
    ],
};

/// All of them, in the order of the documentation.
pub const SECTIONS: [&Section; 14] =
    [&FILE, &AGENT, &NAT, &TABLES, &NOTIFY, &SERVICE, &BACKEND, &TIMEOUTS, &BREACH, &BREAKER, &ROLLOUT, &STEP, &COMPARE, &CHECK];

impl Section {
    /// The key of that name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that a wrong name was probably meant to be.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        let distance = |key: &&'static Key| strsim::damerau_levenshtein(&name.to_lowercase(), key.name);
        let nearest = self.keys.iter().min_by_key(distance)?;
        // A third of the letters wrong is still a slip; more is another word.
        (distance(&nearest) <= (name.chars().count() / 3).max(1)).then_some(nearest.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_key_with_its_type_and_default() {
        let documented: Vec<String> = documented(include_str!("../../../docs/configuration.md"));
        let known: Vec<String> = SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| row(section, key))).collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn the_example_shows_every_key() {
        let example = include_str!("../../../deploy/splitter.example.toml");
        for section in SECTIONS {
            for key in section.keys {
                let shown = example.lines().any(|line| {
                    let line = line.trim_start_matches("# ").trim_start();
                    let table = line.starts_with('[') && line.contains(key.name);
                    let inline = line.contains(&format!("{{ {} = ", key.name)) || line.contains(&format!(", {} = ", key.name));
                    table || inline || line.split_once(" = ").is_some_and(|(name, _)| name == key.name)
                });
                assert!(shown, "{} {} is missing in the example", section.heading, key.name);
            }
        }
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(SERVICE.nearest("wieght"), Some("weight"));
        assert_eq!(SERVICE.nearest("Weight"), Some("weight"));
        assert_eq!(TABLES.nearest("conections"), Some("connections"));
        assert_eq!(FILE.nearest("services"), Some("service"));
        assert_eq!(SERVICE.nearest("colour"), None);
    }

    fn row(section: &Section, key: &Key) -> String {
        let default = match key.presence {
            Required => "required".to_owned(),
            Optional => "none".to_owned(),
            Default(text) => format!("`{text}`"),
        };
        format!("{}: {} | {} | {default}", section.heading, key.name, key.kind)
    }

    /// The rows `| key | type | default | meaning |` under each `## heading` of the page.
    fn documented(page: &str) -> Vec<String> {
        let mut heading = String::new();
        let mut rows = Vec::new();
        for line in page.lines() {
            if let Some(text) = line.strip_prefix("## ") {
                heading = text.trim_matches('`').to_owned();
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let ["", key, kind, default, meaning, ""] = cells[..] else { continue };
            if let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) {
                assert!(meaning.len() > 10, "{heading} {key} has no meaning");
                rows.push(format!("{heading}: {key} | {kind} | {default}"));
            }
        }
        rows
    }
}
