//! What stands while the soak runs: a one-arm network whose backends hold the service's address, so that both modes work side by side; backends that are processes; Splitter, whose state is
//! kept on a small disk of its own, and whose binary can be replaced.

use std::{
    fmt::Write,
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use splitter_user::model::{Cohort, Mode};

use super::{
    host::{Host, service_port},
    model::Model,
    rules::Served,
};
use crate::{
    lab::{Lab, LabError, Process, SERVICE, Topology},
    node::{FAMILIES, Family, Kind, Node, Service, binary},
};

/// How long the agent may be silent. Long enough for one on a machine with much else to do.
pub const LEASE: Duration = Duration::from_secs(5);
/// After so much silence a connection is forgotten: more than any trouble lasts, and what a client waits for.
pub const FORGOTTEN: Duration = Duration::from_secs(20);
/// An attempt has longer than any trouble lasts: whose SYN is sent again after `connect` while the backend still answers the first one can be reset, see docs/reliability.md.
const CONNECT: Duration = Duration::from_secs(10);
const CLIENTS: u16 = 50;
/// Room for the state and the history of rollouts, and for what replaces them.
const DISK: &str = "16m";
/// Where Debian has the library that gives a process another wall clock.
const LIBRARIES: &str = "/usr/lib";
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";
const DISK_LIMIT: Duration = Duration::from_secs(20);

/// A rollout that compares nothing: the events of the soak would be proof enough against any canary.
const ROLLOUT: &str = "\
[service.rollout]
steps = [\"30% for 1h\", { weight = \"60%\", for = \"1h\", gate = \"manual\" }]
min_connections = 0

[service.rollout.compare]
failures = false
handshake_p90 = false
";

/// Everything that stands. Dropping it takes it down.
#[derive(Debug)]
pub struct World {
    /// Splitter. Before the lab, so that it goes first.
    pub node: Node,
    /// The backends: stable ones, canaries, and last a stable one that the configuration doesn't have.
    pub hosts: Vec<Host>,
    /// Keeps the disk.
    disk: Process,
    faketime: Option<PathBuf>,
    upgrades: u32,
    /// The network.
    pub lab: Lab,
}

/// How the agent is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As it was built.
    Plain,
    /// A copy of the binary, by another name.
    Upgrade,
    /// With a wall clock of its own.
    Clock,
}

/// All services.
#[must_use]
pub fn services() -> Vec<Served> {
    let mut services = Vec::new();
    for mode in [Mode::Nat, Mode::Dsr] {
        for kind in [Kind::Web, Kind::Echo, Kind::Udp] {
            services.extend(FAMILIES.map(|family| Served { kind, mode, family }));
        }
    }
    services
}

/// Where its clients connect to.
#[must_use]
pub fn target(served: Served) -> SocketAddr {
    SocketAddr::new(served.family.of(SERVICE), service_port(served.kind, served.mode))
}

impl World {
    /// Builds it; the agent doesn't run yet.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn build() -> Result<Self> {
        let names = ["stable1", "stable2", "canary1", "canary2", "stable3"];
        let lab = Lab::builder(Topology::OneArm).backends(names).client_addresses(CLIENTS).dsr().start()?;
        let mut hosts: Vec<_> = lab.backends().iter().zip(1..).map(|(backend, number)| Host::new(backend, number)).collect();
        for host in &mut hosts {
            // Who has another MAC address tells the others, as a virtual machine does that has moved.
            host.namespace.sysctl("net.ipv4.conf.eth0.arp_notify", 1)?;
            host.namespace.sysctl("net.ipv6.conf.eth0.ndisc_notify", 1)?;
            host.start()?;
        }
        // The lab gives local sockets nearly all ports; the splitter's own are to be kept clear of them.
        lab.node().namespace.sysctl("net.ipv4.ip_local_port_range", "32768 60999")?;
        let node = Node::new(&lab)?;
        fs::create_dir(node.state()).context("make the state directory")?;
        let disk = disk(&node)?;
        Ok(Self { node, hosts, disk, faketime: faketime(), upgrades: 0, lab })
    }

    /// The backends that the configuration has.
    #[must_use]
    pub fn configured(&self) -> &[Host] {
        &self.hosts[..self.hosts.len() - 1]
    }

    /// The one that it doesn't have.
    ///
    /// # Panics
    /// Never: there are five.
    #[must_use]
    pub fn spare(&self) -> &Host {
        self.hosts.last().expect("five backends")
    }

    /// Whether processes can be given another wall clock.
    #[must_use]
    pub const fn has_faketime(&self) -> bool {
        self.faketime.is_some()
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// The file system's.
    pub fn configure(&self, model: &Model) -> Result<()> {
        Ok(self.node.write_config(&self.config(model))?)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self, model: &Model) -> String {
        let lease = format!("[agent]\nlease = \"{}s\"\n", LEASE.as_secs());
        let head = self.node.agent_section().replace("[agent]\n", &lease).replace("backends = 64", "backends = 128");
        let mut text = head + "\n";
        for served in services() {
            let service = Service::new(&served.name(), protocol(served), target(served), served.mode);
            let service = service.weight(&model.configured_weight(served)).more(&more(served));
            let service =
                self.configured().iter().fold(service, |service, host| service.backend(host.cohort, host.backend(served)));
            text += &service.text();
        }
        text
    }

    /// Launches the agent, and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, start: Start) -> Result<()> {
        let program = match start {
            Start::Upgrade => {
                self.upgrades += 1;
                let copy = self.node.path(&format!("splitter-{}", self.upgrades));
                // By another process: a descriptor of this one that is open for writing would be inherited by whoever is started meanwhile, and make the copy busy.
                let copied = Command::new("cp").arg(binary()?).arg(&copy).status().context("run cp")?;
                if !copied.success() {
                    bail!("copying the binary ended with {copied}");
                }
                copy
            }
            Start::Plain | Start::Clock => binary()?.to_owned(),
        };
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.disk_pid()?)).arg("--").arg("env");
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("SPLITTER_SOCKET");
        if start == Start::Clock {
            let library = self.faketime.as_ref().context("there is no libfaketime")?;
            self.set_clock(0)?;
            command.arg(format!("LD_PRELOAD={}", library.display()));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock_file().display()));
            // Looked at with each reading of the clock; durations stay the kernel's.
            command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1"]);
        }
        command.arg(program).args(["agent", "--config"]).arg(self.node.config());
        Ok(self.node.launch_as(command)?)
    }

    /// Steps the wall clock of an agent that was started with one of its own: so many seconds from the machine's.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_clock(&self, offset: i64) -> Result<()> {
        let (file, next) = (self.clock_file(), self.node.path("clock.next"));
        fs::write(&next, format!("{offset:+}\n")).context("write the clock")?;
        // A reader never sees half of it.
        fs::rename(next, file).context("step the clock")
    }

    fn clock_file(&self) -> PathBuf {
        self.node.path("clock")
    }

    fn disk_pid(&self) -> Result<u32> {
        self.disk.id().context("whoever keeps the disk has ended")
    }

    /// A path on the agent's disk, as this process reaches it.
    ///
    /// # Errors
    /// When whoever keeps the disk has ended.
    pub fn on_disk(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{}", self.disk_pid()?, self.node.state().join(name).display())))
    }

    /// Fills the disk to the last page.
    ///
    /// # Errors
    /// When it isn't full then.
    pub fn fill_disk(&self) -> Result<()> {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.on_disk("filler")?).context("open the filler")?;
        for _ in 0..1_024 {
            // What fits of it is written: to the last page.
            match filler.write_all(&[0; 1 << 16]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        bail!("the disk of {DISK} takes more")
    }

    /// Makes room on the disk.
    ///
    /// # Errors
    /// The file system's.
    pub fn free_disk(&self) -> Result<()> {
        fs::remove_file(self.on_disk("filler")?).context("free the disk")
    }

    /// Sets a port of the switch up or down: the other end of its link loses its carrier, or gets it back.
    ///
    /// # Errors
    /// When it can't be done.
    pub fn set_link(&self, port: &str, up: bool) -> Result<()> {
        let word = if up { "up" } else { "down" };
        Ok(self.lab.ns("switch")?.ip(&[format!("link set dev {port} {word}")])?)
    }
}

/// A process that keeps a mount namespace in which the state directory is a small disk.
fn disk(node: &Node) -> Result<Process> {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o \"size=$2\" none \"$1\" && : > \"$1/ready\" && exec sleep infinity";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(node.state()).arg(DISK);
    // In the node's namespace, so that it's found should this process be killed.
    let process = node.namespace().spawn(command)?;
    let pid = process.id().context("whoever keeps the disk has ended")?;
    let ready = PathBuf::from(format!("/proc/{pid}/root{}/ready", node.state().display()));
    let deadline = Instant::now() + DISK_LIMIT;
    while !ready.exists() {
        if Instant::now() > deadline {
            return Err(LabError::Late { what: "a small disk".into(), limit: DISK_LIMIT }.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    fs::remove_file(&ready).context("clear the disk")?;
    Ok(process)
}

/// The library, where the machine has it.
fn faketime() -> Option<PathBuf> {
    let directories = fs::read_dir(LIBRARIES).ok()?;
    directories.filter_map(|entry| Some(entry.ok()?.path().join(FAKETIME))).find(|path| path.is_file())
}

const fn protocol(served: Served) -> splitter_user::model::Protocol {
    match served.kind {
        Kind::Web | Kind::Echo => splitter_user::model::Protocol::Tcp,
        Kind::Udp => splitter_user::model::Protocol::Udp,
    }
}

/// What a service has besides addresses. One family's seed is configured, the other's the agent's own; one goes to stable without a lease, the other holds.
fn more(served: Served) -> String {
    let mut more = String::new();
    let (connect, seconds) = (CONNECT.as_secs(), FORGOTTEN.as_secs());
    let (on_expiry, existing) = match served.family {
        Family::V4 => ("stable", "reset"),
        Family::V6 => ("hold", "keep"),
    };
    let mut say = |line: String| writeln!(more, "{line}").expect("writing to a string does not fail");
    say(format!("on_lease_expiry = \"{on_expiry}\""));
    if served.family == Family::V6 {
        say(format!("seed = \"{:032x}\"", 0x5eed_u32 + u32::from(service_port(served.kind, served.mode))));
    }
    say(format!(
        "timeouts = {{ connect = \"{connect}s\", established = \"{seconds}s\", udp = \"{seconds}s\", closing = \"2s\" }}"
    ));
    if served.kind == Kind::Web {
        if served.mode == Mode::Nat {
            say(format!("breaker = {{ refused = \"50%\", min_attempts = 10, window = \"5s\", existing = \"{existing}\" }}"));
        }
        say(ROLLOUT.into());
    }
    more
}

/// Whether a breaker's trip resets what the canary has.
#[must_use]
pub const fn trips_reset(served: Served) -> bool {
    matches!(served, Served { kind: Kind::Web, mode: Mode::Nat, family: Family::V4 })
}

/// Whether a service has a breaker.
#[must_use]
pub const fn has_breaker(served: Served) -> bool {
    matches!(served, Served { kind: Kind::Web, mode: Mode::Nat, family: _ })
}

/// Whether its weight is held while the agent's lease has run out.
#[must_use]
pub const fn holds(served: Served) -> bool {
    matches!(served.family, Family::V6)
}

/// Of a version.
pub fn of(hosts: &[Host], cohort: Cohort) -> impl Iterator<Item = &Host> {
    hosts.iter().filter(move |host| host.cohort == cohort)
}
