//! nginx as a backend.

use std::{
    fmt::Write,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;

use super::{TlsKey, comes_up, program};
use crate::{
    lab::{LabError, Namespace, Process, Result},
    workload::{
        Identity,
        http::{BACKEND_HEADER, VERSION_HEADER},
    },
};

/// What is spoken on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, known to be spoken (RFC 9113, 3.3).
    Http2,
    /// HTTP/2 or HTTP/1.1 over TLS, as the client likes.
    Tls,
}

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
        let listens: Vec<_> = addresses.iter().map(|address| (*address, Speaks::Http1)).collect();
        Self::start_speaking(namespace, identity, &listens, None)
    }

    /// The same, with a protocol for each address. For TLS it needs a key.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_speaking(
        namespace: &Namespace,
        identity: &Identity,
        listens: &[(SocketAddr, Speaks)],
        key: Option<&TlsKey>,
    ) -> Result<Self> {
        let mut command = program("nginx", "nginx-light")?;
        let directory = tempfile::Builder::new().prefix("nginx").tempdir().map_err(LabError::io("make a directory"))?;
        let root = directory.path();
        let log = root.join("log");
        write(&root.join("nginx.conf"), configuration(root, identity, listens, key).as_bytes())?;
        write(&root.join("1M"), &vec![b'.'; 1 << 20])?;
        let log_file = File::create(&log).map_err(LabError::io(format!("create {}", log.display())))?;
        command.arg("-p").arg(root).arg("-c").arg(root.join("nginx.conf")).arg("-e").arg(&log);
        command.stdout(log_file.try_clone().map_err(LabError::io("duplicate a descriptor"))?).stderr(log_file);
        let mut process = namespace.spawn(command)?;
        comes_up(namespace, &format!("nginx {identity}"), &mut process, &log, || {
            listens.iter().try_for_each(|(address, _)| TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop))
        })?;
        Ok(Self { _process: process, _directory: directory })
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(LabError::io(format!("write {}", path.display())))
}

fn configuration(root: &Path, identity: &Identity, listens: &[(SocketAddr, Speaks)], key: Option<&TlsKey>) -> String {
    let root = root.display();
    let Identity { version, name } = identity;
    let tls = key.map_or_else(String::new, |key| {
        let TlsKey { private, certificate, .. } = key;
        format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), private.display())
    });
    let listen = listens.iter().fold(String::new(), |mut text, (address, speaks)| {
        let family = if address.is_ipv6() { " ipv6only=on" } else { "" };
        let speaks = match speaks {
            Speaks::Http1 => "",
            Speaks::Http2 => " http2",
            Speaks::Tls => " ssl http2",
        };
        writeln!(text, "listen {address}{speaks} backlog=4096 reuseport{family};").expect("writing to a string does not fail");
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
        {tls}
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
