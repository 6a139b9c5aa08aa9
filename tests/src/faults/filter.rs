//! What a backend's kernel does with packets to a port, by nftables.

use std::{io, process::Command, time::Duration};

use crate::lab::{LabError, Namespace, Result};

const TABLE: &str = "inet fault";
const LIMIT: Duration = Duration::from_secs(10);

/// What becomes of packets to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They vanish.
    Vanish,
    /// As a router with no way to the host would do it: ICMP host unreachable.
    Unreachable,
    /// Those that begin a connection vanish, if they come by `eth0`.
    OpeningsVanish,
    /// So many of 10,000 that begin a connection are answered with a RST, by chance.
    SomeRefused(u16),
}

impl Fate {
    fn rule(self, port: u16) -> String {
        match self {
            Self::Vanish => format!("iifname eth0 tcp dport {port} drop"),
            Self::Unreachable => format!("iifname eth0 tcp dport {port} reject with icmpx type host-unreachable"),
            Self::OpeningsVanish => format!("iifname eth0 tcp dport {port} tcp flags & (syn | ack) == syn drop"),
            Self::SomeRefused(of_10_000) => format!(
                "iifname eth0 tcp dport {port} tcp flags & (syn | ack) == syn numgen random mod 10000 < {of_10_000} reject with tcp reset"
            ),
        }
    }
}

/// From its making until its drop packets have another fate. It goes with the namespace at the latest.
#[derive(Debug)]
pub(super) struct Filter {
    namespace: Namespace,
}

impl Filter {
    pub(super) fn set(namespace: &Namespace, port: u16, fate: Fate) -> Result<Self> {
        // Before the kernel knows of connections.
        let hook = "type filter hook prerouting priority raw";
        nft(namespace, &format!("table {TABLE} {{\nchain arrives {{\n{hook}\n{}\n}}\n}}\n", fate.rule(port)))?;
        Ok(Self { namespace: namespace.clone() })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Err(error) = nft(&self.namespace, &format!("delete table {TABLE}\n")) {
            // A drop cannot fail.
            eprintln!("the fault's rule stays: {error}");
        }
    }
}

fn nft(namespace: &Namespace, script: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    let missing = |error: LabError| {
        let is_absent = matches!(&error, LabError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        if is_absent { LabError::MissingProgram { program: "nft".into(), package: "nftables" } } else { error }
    };
    let (status, _, stderr, name) = namespace.output(command, Some(script), LIMIT).map_err(missing)?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::Command { command: format!("{name}: {script}"), status, stderr: stderr.trim().into() })
}
