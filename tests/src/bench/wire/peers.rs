//! The peers' configurations: what each one's own documentation recommends for the job, nothing that holds it back.
//!
//! `docs/benchmarks-peers.md` explains each; a test keeps the page and this file together.

use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::flood;
use crate::{
    lab::{LabError, Namespace, Process},
    workload::tools::{comes_up, program},
};

/// Where Debian puts nginx's modules.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The rule set of destination NAT by a hash of the client's address and port.
pub(super) fn nftables_rules(service: SocketAddr, backends: &[SocketAddr]) -> String {
    let addresses = |backends: &[SocketAddr]| {
        let one = |(number, backend): (usize, &SocketAddr)| format!("{number} : {}", backend.ip());
        backends.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
    };
    let (map, count, address) = (addresses(backends), backends.len(), service.ip());
    let (web, flood) = (service.port(), flood::PORT);
    format!(
        "table ip bench {{
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr {address} tcp dport {web} dnat to jhash ip saddr . tcp sport mod {count} map {{ {map} }}
        ip daddr {address} udp dport {flood} dnat to jhash ip saddr . udp sport mod {count} map {{ {map} }}
    }}
}}
"
    )
}

/// Loads the rules into a namespace, with which they go.
///
/// # Errors
/// `nft` is not installed, or the kernel refuses them.
pub(super) fn nftables(node: &Namespace, service: SocketAddr, backends: &[SocketAddr]) -> Result<()> {
    let mut command = program("nft", "nftables")?;
    let file = tempfile::NamedTempFile::new().context("make a file")?;
    fs::write(file.path(), nftables_rules(service, backends)).context("write nft's rules")?;
    command.arg("-f").arg(file.path());
    node.run(command)?;
    Ok(())
}

/// HAProxy's configuration.
pub(super) fn haproxy_configuration(service: SocketAddr, backends: &[SocketAddr]) -> String {
    let mut text = format!(
        "global
    maxconn 8192
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind {service}
    balance roundrobin
"
    );
    for (number, backend) in backends.iter().enumerate() {
        writeln!(text, "    server backend{number} {backend}").expect("writing to a string does not fail");
    }
    text
}

/// The configuration of nginx as a TCP proxy.
pub(super) fn nginx_configuration(root: &Path, service: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: String = backends.iter().map(|backend| format!("        server {backend};\n")).collect();
    let root = root.display();
    format!(
        "load_module {STREAM_MODULE};
daemon off; user root; pid {root}/pid;
worker_processes auto; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
stream {{
    upstream backends {{
{servers}    }}
    server {{
        listen {service} backlog=4096 reuseport;
        proxy_pass backends;
    }}
}}
"
    )
}

/// A proxy on the node; killed when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    _process: Process,
    _directory: TempDir,
}

impl Proxy {
    /// Starts HAProxy and waits until it accepts.
    ///
    /// # Errors
    /// It is not installed or does not come up, with what it wrote.
    pub fn haproxy(node: &Namespace, service: SocketAddr, backends: &[SocketAddr]) -> Result<Self> {
        let command = program("haproxy", "haproxy")?;
        Self::start(node, command, service, |command, root| {
            let file = root.join("haproxy.cfg");
            fs::write(&file, haproxy_configuration(service, backends)).context("write HAProxy's configuration")?;
            command.arg("-db").arg("-f").arg(file);
            Ok(())
        })
    }

    /// Starts nginx and waits until it accepts.
    ///
    /// # Errors
    /// It is not installed or does not come up, with what it wrote.
    pub fn nginx(node: &Namespace, service: SocketAddr, backends: &[SocketAddr]) -> Result<Self> {
        let command = program("nginx", "nginx-light")?;
        if !Path::new(STREAM_MODULE).exists() {
            return Err(LabError::MissingProgram { program: STREAM_MODULE.into(), package: "libnginx-mod-stream" }.into());
        }
        Self::start(node, command, service, |command, root| {
            let file = root.join("nginx.conf");
            fs::write(&file, nginx_configuration(root, service, backends)).context("write nginx's configuration")?;
            command.arg("-p").arg(root).arg("-c").arg(file).arg("-e").arg(root.join("error"));
            Ok(())
        })
    }

    fn start(
        node: &Namespace,
        mut command: Command,
        service: SocketAddr,
        configure: impl FnOnce(&mut Command, &Path) -> Result<()>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("splitter-bench").tempdir().context("make a directory")?;
        configure(&mut command, directory.path())?;
        let log = directory.path().join("log");
        let file = File::create(&log).context("make a log")?;
        command.stdout(file.try_clone().context("duplicate a descriptor")?).stderr(file);
        let mut process = node.spawn(command)?;
        let accepts = || TcpStream::connect_timeout(&service, Duration::from_secs(1)).map(drop);
        comes_up(node, "a proxy", &mut process, &log, accepts)?;
        Ok(Self { _process: process, _directory: directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_configurations_that_are_used() {
        let page = include_str!("../../../../docs/benchmarks-peers.md");
        let service = "10.79.0.1:80".parse().expect("an address");
        let backends = ["10.72.100.1:80", "10.73.100.1:80"].map(|text| text.parse().expect("an address"));
        let configurations = [
            nftables_rules(service, &backends),
            haproxy_configuration(service, &backends),
            nginx_configuration(Path::new("DIRECTORY"), service, &backends),
        ];
        for configuration in configurations {
            assert!(page.contains(&format!("```text\n{configuration}```")), "not on the page:\n{configuration}");
        }
    }
}
