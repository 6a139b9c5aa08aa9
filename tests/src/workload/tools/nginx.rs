//! nginx as a backend.

use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;

use super::{comes_up, program};
use crate::{
    lab::{LabError, Namespace, Process, Result},
    workload::{
        Identity,
        http::{BACKEND_HEADER, VERSION_HEADER},
    },
};

/// A running nginx with one worker; killed when dropped. `/` is answered with the version's name, `/1M` with
/// 1 MiB, both with the headers of [`crate::workload::http`].
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// Starts it and waits until it accepts on every address.
    ///
    /// # Errors
    /// When it is not installed or does not come up, with what it wrote.
    pub fn start(namespace: &Namespace, identity: &Identity, addresses: &[SocketAddr]) -> Result<Self> {
        let mut command = program("nginx", "nginx-light")?;
        let directory = tempfile::Builder::new().prefix("nginx").tempdir().map_err(LabError::io("make a directory"))?;
        let root = directory.path();
        let log = root.join("log");
        write(&root.join("nginx.conf"), configuration(root, identity, addresses).as_bytes())?;
        write(&root.join("1M"), &vec![b'.'; 1 << 20])?;
        let log_file = File::create(&log).map_err(LabError::io(format!("create {}", log.display())))?;
        command.arg("-p").arg(root).arg("-c").arg(root.join("nginx.conf")).arg("-e").arg(&log);
        command.stdout(log_file.try_clone().map_err(LabError::io("duplicate a descriptor"))?).stderr(log_file);
        let mut process = namespace.spawn(command)?;
        comes_up(namespace, &format!("nginx {identity}"), &mut process, &log, || {
            addresses.iter().try_for_each(|address| TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop))
        })?;
        Ok(Self { _process: process, _directory: directory })
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(LabError::io(format!("write {}", path.display())))
}

fn configuration(root: &Path, identity: &Identity, addresses: &[SocketAddr]) -> String {
    let root = root.display();
    let Identity { version, name } = identity;
    let listen = addresses.iter().fold(String::new(), |mut text, address| {
        let family = if address.is_ipv6() { " ipv6only=on" } else { "" };
        writeln!(text, "listen {address} backlog=4096 reuseport{family};").expect("writing to a string does not fail");
        text
    });
    // The directory is root's alone, so the worker stays root: it lives in a namespace of a test that is root.
    format!(
        "daemon off; user root; worker_processes 1; pid {root}/pid; worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
    server {{
        {listen}
        root {root};
        default_type text/plain;
        add_header {VERSION_HEADER} {version};
        add_header {BACKEND_HEADER} {name};
        location = / {{ return 200 \"{version}\\n\"; }}
        location = /1M {{ }}
        location / {{ return 404; }}
    }}
}}
"
    )
}
