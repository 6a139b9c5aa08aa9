//! A lab of network namespaces: a client, a node, backends, and what lies between them.
//!
//! A lab comes up in some tens of milliseconds, many stand beside each other (in threads and in processes),
//! and each takes everything down when it is dropped, processes included. What a killed test process leaves
//! behind is removed by the next lab that starts, see [`Lab::reap`].
//!
//! ```no_run
//! use splitter_tests::lab::{Lab, Topology};
//!
//! let lab = Lab::builder(Topology::OneArm).backends(["stable1", "canary1"]).dsr().start()?;
//! let greeting = lab.client().run({
//!     let mut ping = std::process::Command::new("ping");
//!     ping.args(["-c", "1", &lab.backend("canary1")?.address.v4.to_string()]);
//!     ping
//! })?;
//! # Ok::<(), splitter_tests::lab::LabError>(())
//! ```
//!
//! # What veth needs for native XDP
//!
//! A frame that an XDP program sends by `XDP_TX` or a redirect reaches the *other* end of a veth pair only if that
//! end polls (NAPI), which it does when its GRO is on or when it has an XDP program itself; otherwise the frame is
//! dropped without a word. For `XDP_TX` GRO alone is not enough, seen on Linux 6.18: the frames are queued, but
//! only an end with a program is woken. And packets made on this machine travel with partial checksums as
//! long as the sending veth promises to finish them, which no veth does: a program that rewrites addresses
//! would finish with a wrong sum.
//!
//! So every end that faces the node has a program that passes everything, its [`Offload::Gro`] is on and its
//! [`Offload::TxChecksum`] off, which does for packets that were merely switched through, too. `tests/lab.rs`
//! shows each of these.
//!
//! GRO at an end merges TCP segments before [`Capture`] sees them. Where single frames matter, capture behind a
//! switch: a backend's end takes its frames from the bridge, needs nothing of the above, and has GRO off.

mod capture;
mod device;
mod error;
mod namespace;
mod owner;
mod plan;
mod solo;
pub(crate) mod xdp;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::capture::{lost, open_filtered};
pub use self::{
    capture::{Capture, Captured, Direction, Frame, inject},
    device::{Device, Offload},
    error::{LabError, Result},
    namespace::{Namespace, Process},
    plan::{Addresses, SERVICE, Topology},
    solo::Solo,
    xdp::{Attached, Verdict, attach},
};
use self::{
    namespace::write_sysctl,
    owner::Owner,
    plan::{End, Options, Plan},
};

/// How long the kernel may take to bring all links up.
const LINKS_UP: Duration = Duration::from_secs(5);

/// The first index of an interface; 1 is the loopback's.
const FIRST_INDEX: u32 = 2;

/// A standing lab; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    namespaces: BTreeMap<String, Namespace>,
    node: Node,
    backends: Vec<Backend>,
    client_addresses: Vec<Addresses>,
    polling: Vec<Attached>,
    /// Last: the handles above are closed before the names go.
    _names: Names,
}

/// The machine in the middle.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its namespace.
    pub namespace: Namespace,
    /// The interface that requests come in by.
    pub front: String,
    /// The interfaces that lead to backends only; empty in a one-arm lab.
    pub backs: Vec<String>,
    /// Its addresses: of the front first, then one for each interface of `backs`.
    pub addresses: Vec<Addresses>,
}

impl Node {
    /// All its interfaces, the front first.
    #[must_use]
    pub fn interfaces(&self) -> Vec<&str> {
        std::iter::once(&self.front).chain(&self.backs).map(String::as_str).collect()
    }
}

/// A machine that serves. Its only interface is `eth0`.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name, which is its namespace's label.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its own addresses.
    pub address: Addresses,
}

/// The choices of a lab to be built.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    options: Options,
}

impl Builder {
    /// The backends, by name. Without this there are two, `backend1` and `backend2`.
    pub fn backends<I: IntoIterator<Item: Into<String>>>(mut self, names: I) -> Self {
        self.options.backends = names.into_iter().map(Into::into).collect();
        self
    }

    /// How many addresses of each family the client has (1 without this).
    pub fn client_addresses(mut self, count: u16) -> Self {
        self.options.clients = count;
        self
    }

    /// A router (namespace `router`, interfaces `client` and `node`) stands between client and node.
    pub fn router(mut self) -> Self {
        self.options.router = true;
        self
    }

    /// Backends hold the service address on their loopback, keep silent about it, and have a way to the client
    /// that does not pass the node. One-arm only.
    pub fn dsr(mut self) -> Self {
        self.options.dsr = true;
        self
    }

    /// The MTU of all links, in bytes (1500 without this).
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.options.mtu = mtu;
        self
    }

    /// The MTU of the backends' links (both ends) where it differs.
    pub fn backend_mtu(mut self, mtu: u32) -> Self {
        self.options.backend_mtu = Some(mtu);
        self
    }

    /// Builds it, after removing what dead processes left.
    ///
    /// # Errors
    /// When the choices contradict each other, or something cannot be made; nothing is left behind then.
    pub fn start(self) -> Result<Lab> {
        reap_once()?;
        build(&Plan::new(&self.options)?)
    }
}

impl Lab {
    /// A lab of this shape, to be refined.
    pub fn builder(topology: Topology) -> Builder {
        Builder {
            options: Options {
                topology,
                backends: vec!["backend1".into(), "backend2".into()],
                clients: 1,
                router: false,
                dsr: false,
                mtu: 1500,
                backend_mtu: None,
            },
        }
    }

    /// Removes the namespaces of labs whose process is gone, with the processes left in them, and returns
    /// their names. Every process does this once, before its first lab.
    ///
    /// # Errors
    /// When a namespace cannot be removed.
    pub fn reap() -> Result<Vec<String>> {
        owner::reap()
    }

    /// A namespace by its label: `client`, `node`, `router`, `switch`, or a backend's name.
    ///
    /// # Errors
    /// When this lab has no such namespace.
    pub fn ns(&self, label: &str) -> Result<&Namespace> {
        self.namespaces.get(label).ok_or_else(|| LabError::UnknownNamespace {
            label: label.into(),
            known: self.namespaces.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Every namespace of the lab.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// Where the clients are. Its interface is `eth0`.
    ///
    /// # Panics
    /// Never: every lab has one.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.namespaces["client"]
    }

    /// The client's addresses, at least one.
    #[must_use]
    pub fn client_addresses(&self) -> &[Addresses] {
        &self.client_addresses
    }

    /// The machine in the middle.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The address that clients connect to; the node holds it on its loopback.
    #[must_use]
    pub fn service(&self) -> Addresses {
        SERVICE
    }

    /// The backends, in the order they were named.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// A backend by name.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn backend(&self, name: &str) -> Result<&Backend> {
        self.backends.iter().find(|backend| backend.name == name).ok_or_else(|| LabError::UnknownNamespace {
            label: name.into(),
            known: self.backends.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Takes the programs that pass everything off the ends that face the node. Such an end still polls, for its GRO is on: a
    /// redirect reaches it, `XDP_TX` doesn't. For programs of one's own, or none.
    pub fn bare_ends(&mut self) {
        self.polling.clear();
    }

    /// Makes the router's way to the client narrower than its links: a longer packet that may not be
    /// fragmented gets an ICMP error. The client does not notice and announces its link's segment size.
    ///
    /// # Errors
    /// When the lab has no router.
    pub fn narrow_path_to_client(&self, mtu: u32) -> Result<()> {
        self.narrow(&plan::FAR_PREFIXES, "dev client", mtu)
    }

    /// Makes the router's way to the node narrower than its links.
    ///
    /// # Errors
    /// When the lab has no router.
    pub fn narrow_path_to_node(&self, mtu: u32) -> Result<()> {
        let node = self.node.addresses[0];
        let router = self.ns("router")?;
        router.ip(&[
            format!("route replace default via {} mtu {mtu}", node.v4),
            format!("route replace ::/0 via {} mtu {mtu}", node.v6),
        ])
    }

    fn narrow(&self, [v4, v6]: &[&str; 2], device: &str, mtu: u32) -> Result<()> {
        self.ns("router")?.ip(&[
            format!("route replace {v4} {device} mtu {mtu}"),
            // The kernel's own route to the network has metric 256; this one is found before it.
            format!("route replace {v6} {device} mtu {mtu} metric 1"),
        ])
    }
}

/// Where a machine keeps the names of its network namespaces.
pub const NAMESPACES_AT: &str = owner::NAMESPACES;

/// Whether a name was made from a namespace's name of a lab whose process is gone.
pub(crate) fn is_orphan(name: &str) -> bool {
    owner::is_orphan(name)
}

/// The names of a lab's namespaces, made or about to be made.
#[derive(Debug)]
struct Names(Vec<String>);

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = owner::remove(name) {
                // A drop cannot fail; the next lab's reaping tries again.
                eprintln!("lab: {name} stays behind: {error}");
            }
        }
    }
}

/// Removes what dead processes left, once in this process.
fn reap_once() -> Result<()> {
    static REAPED: Once = Once::new();
    let mut reaped = Ok(Vec::new());
    REAPED.call_once(|| reaped = Lab::reap());
    reaped.map(drop)
}

fn build(plan: &Plan) -> Result<Lab> {
    let owner = Owner::next()?;
    let full = |label: &str| owner.namespace(label);
    let names = Names(plan.namespaces.iter().map(|made| full(&made.label)).collect());

    ip_outside(names.0.iter().map(|name| format!("netns add {name}")))?;
    let mut namespaces = BTreeMap::new();
    for made in &plan.namespaces {
        let namespace = Namespace::open(&made.label, full(&made.label))?;
        // Before there are devices: they take the defaults of the moment they appear.
        namespace.enter(|| made.sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value)))??;
        namespaces.insert(made.label.clone(), namespace);
    }
    // Every end gets an index of its own. Where both ends of a pair have the same one, each in its namespace, the
    // kernel takes the carrier's coming for a thing that is not urgent and acts on it a second later
    // (net/core/link_watch.c, linkwatch_urgent_event).
    let mut index = FIRST_INDEX..;
    ip_outside(plan.cables.iter().map(|cable| {
        let [a, b] = cable.ends.each_ref().map(|End { namespace, device, .. }| {
            let index = index.next().expect("fewer than four billion ends");
            format!("{device} netns {} index {index} mtu {}", full(namespace), cable.mtu)
        });
        format!("link add {a} type veth peer name {b}")
    }))?;
    for made in &plan.namespaces {
        namespaces[&made.label].ip(&made.ip)?;
    }
    let mut polling = Vec::new();
    for end in plan.cables.iter().flat_map(|cable| &cable.ends).filter(|end| end.faces_node) {
        let namespace = &namespaces[&end.namespace];
        namespace.set_offload(&end.device, Offload::TxChecksum, false)?;
        namespace.set_offload(&end.device, Offload::Gro, true)?;
        polling.push(attach(namespace, &end.device, Verdict::Pass)?);
    }
    for end in plan.cables.iter().flat_map(|cable| &cable.ends) {
        link_up(&namespaces[&end.namespace], &end.device)?;
    }

    let node = Node {
        namespace: namespaces["node"].clone(),
        front: plan.node_front.into(),
        backs: plan.node_backs.clone(),
        addresses: plan.node_addresses.clone(),
    };
    let backends = plan
        .backends
        .iter()
        .map(|(name, address)| Backend { name: name.clone(), namespace: namespaces[name].clone(), address: *address })
        .collect();
    Ok(Lab { namespaces, node, backends, client_addresses: plan.client.clone(), polling, _names: names })
}

/// A carrier is noticed by a kernel worker, so a link can be lame for a moment after it was set up.
fn link_up(namespace: &Namespace, device: &str) -> Result<()> {
    let deadline = Instant::now() + LINKS_UP;
    while !namespace.device(device)?.running {
        if Instant::now() > deadline {
            let what = format!("link {device} of {}", namespace.name());
            return Err(LabError::Late { what, limit: LINKS_UP });
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs lines of `ip -batch` outside the lab.
fn ip_outside(lines: impl Iterator<Item = String>) -> Result<()> {
    use std::io::Write;
    let script = lines.map(|line| line + "\n").collect::<String>();
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() == std::io::ErrorKind::NotFound {
        true => LabError::MissingProgram { program: "ip".into(), package: "iproute2" },
        false => LabError::Io { what: "start ip".into(), source },
    })?;
    let mut stdin = child.stdin.take().expect("its standard input is a pipe");
    stdin.write_all(script.as_bytes()).map_err(LabError::io("write to ip"))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(LabError::io("wait for ip"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: format!("ip -batch: {script}"),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().into(),
    })
}
