//! Servers of other people's that need no more than a command line or a few lines of configuration.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{comes_up, program};
use crate::lab::{LabError, Namespace, Process, Result};

/// sshd's own directory, which it wants to be there; Debian's unit makes it.
const SSHD_DIRECTORY: &str = "/run/sshd";

/// A server; killed when dropped, and its files removed.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    _directory: TempDir,
}

/// A key with a certificate of its own making, for TLS and QUIC.
#[derive(Debug)]
pub struct TlsKey {
    /// The file of the private key.
    pub private: PathBuf,
    /// The file of the certificate.
    pub certificate: PathBuf,
    _directory: TempDir,
}

impl TlsKey {
    /// A new one, by openssl.
    ///
    /// # Errors
    /// When openssl is not installed or fails.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let directory = directory("tls")?;
        let (private, certificate) = (directory.path().join("key.pem"), directory.path().join("certificate.pem"));
        let mut command = program("openssl", "openssl")?;
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=lab", "-keyout"]).arg(&private).arg("-out").arg(&certificate);
        namespace.run(command)?;
        Ok(Self { private, certificate, _directory: directory })
    }
}

/// The keys of servers and of a client of ssh: files `host` and `client`, and `.pub` of either.
#[derive(Debug)]
pub struct SshKeys(TempDir);

impl SshKeys {
    /// New ones, by ssh-keygen.
    ///
    /// # Errors
    /// When ssh-keygen is not installed or fails.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let keys = Self(directory("ssh")?);
        for name in ["host", "client"] {
            let mut command = program("ssh-keygen", "openssh-client")?;
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.path(name));
            namespace.run(command)?;
        }
        Ok(keys)
    }

    /// One of the files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Server {
    /// Starts what the command says and waits until it is as it has to be.
    fn start(
        namespace: &Namespace,
        what: &str,
        mut command: Command,
        directory: TempDir,
        has: &(dyn Fn() -> io::Result<()> + Sync),
    ) -> Result<Self> {
        let log = directory.path().join("log");
        let file = File::create(&log).map_err(LabError::io(format!("create {}", log.display())))?;
        command.stdout(file.try_clone().map_err(LabError::io("duplicate a descriptor"))?).stderr(file);
        command.stdin(std::process::Stdio::null());
        let mut process = namespace.spawn(command)?;
        comes_up(namespace, what, &mut process, &log, has)?;
        Ok(Self { _process: process, _directory: directory })
    }
}

/// dnsmasq as a name server that knows a few names below `lab.test`: `short` (A, AAAA), `text` (TXT of one string), `long` (TXT of so many that the answer
/// doesn't fit 512 octets, nor one packet of 1,500).
///
/// # Errors
/// When it is not installed or does not come up, with what it wrote.
pub fn dnsmasq(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Server> {
    let directory = directory("dnsmasq")?;
    let mut command = program("dnsmasq", "dnsmasq-base")?;
    let port = addresses[0].port();
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--user=root", "--log-facility=-", "--edns-packet-max=4096", "--pid-file", "--except-interface=none"]);
    command.arg(format!("--port={port}"));
    command.args(addresses.iter().map(|address| format!("--listen-address={}", address.ip())));
    command.args([
        "--address=/short.lab.test/192.0.2.1",
        "--address=/short.lab.test/2001:db8::1",
        "--txt-record=text.lab.test,hello",
    ]);
    let long: Vec<String> = (0..12).map(|number| format!("{number:0200}")).collect();
    command.arg(format!("--txt-record=long.lab.test,{}", long.join(",")));
    Server::start(namespace, "dnsmasq", command, directory, &|| accepts(addresses))
}

/// A redis that keeps nothing.
///
/// # Errors
/// When it is not installed or does not come up, with what it wrote.
pub fn redis(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Server> {
    let directory = directory("redis")?;
    let mut command = program("redis-server", "redis-server")?;
    command.args(["--port", &addresses[0].port().to_string(), "--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    command.arg("--dir").arg(directory.path()).arg("--bind").args(addresses.iter().map(|address| address.ip().to_string()));
    Server::start(namespace, "redis", command, directory, &|| accepts(addresses))
}

/// iperf3, on one address.
///
/// # Errors
/// When it is not installed or does not come up, with what it wrote.
pub fn iperf3(namespace: &Namespace, address: SocketAddr) -> Result<Server> {
    let directory = directory("iperf3")?;
    let mut command = program("iperf3", "iperf3")?;
    command.args(["--server", "--port", &address.port().to_string(), "--bind", &address.ip().to_string()]);
    // A connection would be a test to it, so it isn't asked by one.
    let taken = || match std::net::TcpListener::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Ok(_) => Err(io::Error::other("nobody listens")),
        Err(error) => Err(error),
    };
    Server::start(namespace, "iperf3", command, directory, &taken)
}

/// sshd, for root with the client's key.
///
/// # Errors
/// When it is not installed or does not come up, with what it wrote.
pub fn sshd(namespace: &Namespace, addresses: &[SocketAddr], keys: &SshKeys) -> Result<Server> {
    let directory = directory("sshd")?;
    let listen: String = addresses.iter().map(|address| format!("ListenAddress {address}\n")).collect();
    let text = format!(
        "{listen}HostKey {host}\nAuthorizedKeysFile {client}.pub\nStrictModes no\nUsePAM no\nPidFile none\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
        host = keys.path("host").display(),
        client = keys.path("client").display(),
    );
    let configuration = directory.path().join("sshd_config");
    fs::write(&configuration, text).map_err(LabError::io(format!("write {}", configuration.display())))?;
    fs::create_dir_all(SSHD_DIRECTORY).map_err(LabError::io(format!("make {SSHD_DIRECTORY}")))?;
    let mut command = program("sshd", "openssh-server")?;
    command.args(["-D", "-e", "-f"]).arg(&configuration);
    Server::start(namespace, "sshd", command, directory, &|| accepts(addresses))
}

/// A server of HTTP/3 (ngtcp2's), on one address, that has a file `big` of 300,000 octets.
///
/// # Errors
/// When it is not installed or does not come up, with what it wrote.
pub fn quic(namespace: &Namespace, address: SocketAddr, key: &TlsKey) -> Result<Server> {
    let directory = directory("quic")?;
    let files = directory.path().join("files");
    let big = files.join("big");
    fs::create_dir(&files)
        .and_then(|()| fs::write(&big, vec![b'.'; QUIC_BIG]))
        .map_err(LabError::io("write a file to be served"))?;
    let mut command = program("gtlsserver", "ngtcp2-server")?;
    command.arg("--quiet").arg("-d").arg(&files).arg(address.ip().to_string()).arg(address.port().to_string());
    command.arg(&key.private).arg(&key.certificate);
    let taken = || match UdpSocket::bind(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Ok(_) => Err(io::Error::other("nobody listens")),
        Err(error) => Err(error),
    };
    Server::start(namespace, "gtlsserver", command, directory, &taken)
}

/// The length of the file `big` of [`quic`].
pub const QUIC_BIG: usize = 300_000;

fn accepts(addresses: &[SocketAddr]) -> io::Result<()> {
    addresses.iter().try_for_each(|address| TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop))
}

fn directory(name: &str) -> Result<TempDir> {
    tempfile::Builder::new().prefix(name).tempdir().map_err(LabError::io("make a directory"))
}
