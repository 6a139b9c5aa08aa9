//! A service as a configuration has it.

use std::{fmt::Write, net::SocketAddr};

use splitter_user::model::{Cohort, Mode, Protocol};

/// A service to be written into a configuration. What it doesn't name is left to its default.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its virtual address.
    pub address: SocketAddr,
    /// How its packets reach the backends.
    pub mode: Mode,
    /// The canary's share, as text: it may be wrong on purpose.
    pub weight: String,
    /// Its backends.
    pub backends: Vec<(Cohort, SocketAddr)>,
    /// More lines, of its own table and then of its sub-tables.
    pub more: String,
}

impl Service {
    /// A service with a weight of 0% and no backends.
    #[must_use]
    pub fn new(name: &str, protocol: Protocol, address: SocketAddr, mode: Mode) -> Self {
        let (name, weight) = (name.into(), "0%".into());
        Self { name, protocol, address, mode, weight, backends: Vec::new(), more: String::new() }
    }

    /// With a backend.
    #[must_use]
    pub fn backend(mut self, cohort: Cohort, address: SocketAddr) -> Self {
        self.backends.push((cohort, address));
        self
    }

    /// With another weight.
    #[must_use]
    pub fn weight(mut self, weight: &str) -> Self {
        self.weight = weight.into();
        self
    }

    /// With more lines.
    #[must_use]
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Its part of the file.
    ///
    /// # Panics
    /// Never: writing to a string does not fail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "[[service]]\nname = {:?}\nprotocol = \"{}\"\naddress = \"{}\"\nmode = \"{}\"\nweight = {:?}\n",
            self.name, self.protocol, self.address, self.mode, self.weight
        );
        for cohort in Cohort::ALL {
            let of = |backend: &&(Cohort, SocketAddr)| backend.0 == cohort;
            let list: Vec<String> = self.backends.iter().filter(of).map(|(_, address)| format!("\"{address}\"")).collect();
            writeln!(text, "{cohort} = [{}]", list.join(", ")).expect("writing to a string does not fail");
        }
        text + &self.more + "\n"
    }
}
