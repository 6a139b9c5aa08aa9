//! Loading, pinning, attaching, adopting.
//!
//! In the pin directory lie `maps/`, complete or not there at all (it's filled under another name and renamed), and `links/`, one pin per interface, named
//! by how and where it's attached. Whoever finds `maps/` adopts: the program is loaded anew on the same maps, and each link is switched to it by one
//! system call, so every packet meets the old program or the new one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, MapError, ProgramArray, RingBuf, lpm_trie::LpmTrie},
    programs::{ProgramError, Xdp},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use splitter_ebpf::abi::{
    ABI_VERSION, Backend, BackendCounters, Breaker, Bucket, Destination, Histogram, Identity, MaglevLine, Nat, ReasonCounters,
    Service, ServiceCounters, Settings, Slot, TraceFilter, Trip, Window,
};

use super::{
    ApplyError, capabilities,
    direct::{self, Direct, Table},
    features,
    mapped::{Mapped, Plain},
    object::PROGRAM,
};

/// Why a data plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The binary was built by plain cargo.
    #[error("this binary was built without its XDP program; build it with `cargo xtask build`")]
    NoProgram,
    /// More NAT ports than connections can be told apart.
    #[error(
        "{addresses} NAT addresses with {ports} ports each, TCP and UDP, are more than 4194304 connections; name fewer in [nat]"
    )]
    TooManyPorts {
        /// NAT addresses that there is to be room for.
        addresses: u32,
        /// Ports of each.
        ports: u32,
    },
    /// Not root, and without the capabilities.
    #[error(
        "loading the XDP program is not permitted: {}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        lacking(missing)
    )]
    NotPermitted {
        /// Those of the capabilities that this process doesn't have.
        missing: Vec<&'static str>,
    },
    /// The capabilities are there, and the directory is somebody else's.
    #[error(
        "the agent's user may not use {directory}; as root, give it to that user: \
         `install -d -m 0700 -o {} {directory}`, and see that the user may pass the directories above",
        nix::unistd::geteuid()
    )]
    NotOurs {
        /// The pin directory.
        directory: PathBuf,
    },
    /// No BPF file system where pins should go.
    #[error(
        "{directory} is not on a BPF file system: {why}; mount one with `mount -t bpf bpf /sys/fs/bpf`, or set `pin_directory`"
    )]
    NoBpfFs {
        /// The pin directory.
        directory: PathBuf,
        /// What failed.
        why: String,
    },
    /// What is pinned was made by another version.
    #[error(
        "the data plane in {directory} has ABI version {found}, and this agent needs {ABI_VERSION}; remove it with \
         `splitter detach --pins {directory}` (its connections are cut), then start this agent"
    )]
    Abi {
        /// The pin directory.
        directory: PathBuf,
        /// The version found.
        found: u32,
    },
    /// What is pinned can't be read.
    #[error("the data plane in {directory} can't be adopted: {why}; `splitter detach --pins {directory}` removes it")]
    Unadoptable {
        /// The pin directory.
        directory: PathBuf,
        /// What failed.
        why: String,
    },
    /// Another agent works with it.
    #[error(
        "another agent works with the data plane in {directory}; stop that one first, or give this one its own `pin_directory`"
    )]
    InUse {
        /// The pin directory.
        directory: PathBuf,
    },
    /// No such interface.
    #[error("there is no interface `{name}`; `ip link` lists them, and `interfaces` in [agent] names those to use")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// Somebody else's program is there.
    #[error(
        "interface `{name}` has an XDP program of somebody else; `ip link show {name}` names it, `ip link set {name} xdp off` removes it"
    )]
    Taken {
        /// The interface.
        name: String,
    },
    /// The driver can't.
    #[error("interface `{name}` has no native XDP: {why}; set `xdp_mode = \"generic\"` (slower), or \"auto\"")]
    NoNative {
        /// The interface.
        name: String,
        /// What the kernel said.
        why: String,
    },
    /// Something else.
    #[error("{tried}: {why}")]
    Kernel {
        /// What was tried.
        tried: String,
        /// What the kernel said.
        why: String,
    },
}

impl OpenError {
    /// Whether privileges are what is missing.
    #[must_use]
    pub const fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted { .. } | Self::NotOurs { .. })
    }

    /// Whether somebody else is in the way.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Abi { .. } | Self::InUse { .. })
    }

    /// The kernel doesn't permit it: names what is missing.
    pub(super) fn not_permitted() -> Self {
        Self::NotPermitted { missing: capabilities::missing() }
    }

    pub(super) fn kernel(tried: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Kernel { tried: tried.into(), why: why.to_string() }
    }
}

/// What is missing, in words.
fn lacking(missing: &[&str]) -> String {
    match missing {
        [] => "the kernel refuses it although all capabilities are there (a security module, or kernel lockdown)".to_owned(),
        [one] => format!("{one} is missing"),
        [first @ .., last] => format!("{} and {last} are missing", first.join(", ")),
    }
}

/// Sizes of a data plane, fixed when it's made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Services.
    pub services: u32,
    /// Backends.
    pub backends: u32,
    /// Buckets of each affinity table; a power of two.
    pub buckets: u32,
    /// Prefixes.
    pub networks: u32,
    /// NAT addresses.
    pub nats: u32,
    /// Ports in the NAT range.
    pub nat_ports: u32,
    /// CPUs.
    pub cpus: u32,
}

impl Sizes {
    /// Lines of the Maglev map: for each service two generations of two tables of the smallest size, and for each backend what the larger sizes need.
    fn lines(&self) -> u32 {
        self.services * 2 * 2 * 128 + self.backends * 26
    }

    fn slots(&self) -> u32 {
        self.nats * 2 * self.nat_ports
    }

    fn entries(&self) -> [(&'static str, u32); 19] {
        [
            ("SERVICES", self.services),
            ("BACKENDS", self.backends),
            ("MAGLEV", self.lines()),
            ("NATS", self.nats),
            ("AFFINITY", self.buckets),
            ("NAT_AFFINITY", self.buckets),
            ("SLOTS", self.slots()),
            ("CURSORS", self.cpus * self.nats),
            ("BUDGETS", self.cpus),
            ("NETWORKS", self.networks),
            ("BACKEND_COUNTERS", self.cpus * self.backends),
            ("SERVICE_COUNTERS", self.cpus * self.services),
            ("REASON_COUNTERS", self.cpus),
            ("SWEEP_COUNTERS", self.backends),
            ("TRACE", 1),
            ("BREAKERS", self.services),
            ("WINDOWS", 2 * self.services),
            ("TRIPS", self.services),
            ("HISTOGRAMS", 4 * self.services),
        ]
    }
}

/// The maps, as memory.
#[derive(Debug)]
pub struct Maps {
    pub identity: Mapped<Identity>,
    pub settings: Mapped<Settings>,
    pub destinations: Mapped<Destination>,
    pub services: Mapped<Service>,
    pub backends: Mapped<Backend>,
    pub maglev: Mapped<MaglevLine>,
    pub nats: Mapped<Nat>,
    pub affinity: Mapped<Bucket>,
    pub nat_affinity: Mapped<Bucket>,
    pub slots: Mapped<Slot>,
    pub backend_counters: Mapped<BackendCounters>,
    pub service_counters: Mapped<ServiceCounters>,
    pub reason_counters: Mapped<ReasonCounters>,
    pub sweep_counters: Mapped<BackendCounters>,
    pub trace: Mapped<TraceFilter>,
    pub breakers: Mapped<Breaker>,
    pub windows: Mapped<Window>,
    pub trips: Mapped<Trip>,
    pub histograms: Mapped<Histogram>,
}

/// A program loaded on maps, not attached yet.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub maps: Maps,
    /// Taken by whoever changes them.
    pub networks: Option<NetworksMap>,
    pub networks_room: usize,
    pub program: &'static Pair,
    pub adopted: bool,
    pub verified: Option<u32>,
}

const MAPS: &str = "maps";
const HALF_MADE: &str = "maps-half-made";
pub(super) const LINKS: &str = "links";
const MULTI_BUFFER: Pair = Pair { attached: "splitter_frags", any: "splitter_any_frags", place: "ANY_FRAGS" };
const SINGLE_BUFFER: Pair = Pair { attached: "splitter", any: "splitter_any", place: "ANY" };
const CLOCK: &str = "splitter_clock";

/// Takes the pin directory, so that no second agent takes over a data plane that has one. A dead agent's hold on it goes with it.
pub fn lock(directory: &Path) -> Result<Flock<File>, OpenError> {
    fs::create_dir_all(directory).map_err(|error| no_bpffs(directory, &error))?;
    let opened = File::open(directory).map_err(|error| no_bpffs(directory, &error))?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            OpenError::InUse { directory: directory.to_owned() }
        } else {
            OpenError::kernel(format!("locking {}", directory.display()), errno)
        }
    })
}

/// Loads the program, on the maps of a running data plane if there is one.
pub fn load(
    directory: &Path,
    sizes: &Sizes,
    settings: impl FnOnce(&Ebpf) -> Result<Settings, OpenError>,
) -> Result<Loaded, OpenError> {
    let object = PROGRAM.ok_or(OpenError::NoProgram)?;
    // Without CAP_PERFMON the verifier would refuse the program with a page of reasons that aren't the reason.
    let missing = capabilities::missing();
    if !missing.is_empty() {
        return Err(OpenError::NotPermitted { missing });
    }
    raise_memory_limit();
    let maps = directory.join(MAPS);
    let adopted = maps.exists();
    let pins = if adopted {
        check_version(directory, &maps.join("IDENTITY"))?;
        maps.clone()
    } else {
        let fresh = directory.join(HALF_MADE);
        remove(&fresh).map_err(|error| no_bpffs(directory, &error))?;
        fs::create_dir_all(&fresh).map_err(|error| no_bpffs(directory, &error))?;
        if !is_bpffs(&fresh) {
            let why = "it is on another kind of file system".to_owned();
            return Err(OpenError::NoBpfFs { directory: directory.to_owned(), why });
        }
        fresh
    };
    let direct = Direct::at(&pins).map_err(|error| match adopted {
        true => OpenError::Unadoptable { directory: directory.to_owned(), why: error.to_string() },
        false => OpenError::kernel("making the maps", error),
    })?;
    let mut ebpf = load_object(object, &pins, sizes, &direct).map_err(|error| explain_load(directory, adopted, &error))?;
    let (program, verified) = load_program(&mut ebpf)?;
    xdp(&mut ebpf, CLOCK)?.load().map_err(|error| explain_program("loading the clock", &error))?;
    let (mapped, networks, networks_room) = take_maps(&mut ebpf)?;
    let identity = mapped.identity.read(0);
    if adopted {
        mapped.identity.write(0, Identity { adoptions: identity.adoptions + 1, ..identity });
    } else {
        mapped.settings.write(0, settings(&ebpf)?);
        mapped.identity.write(0, Identity { abi_version: ABI_VERSION, adoptions: 0 });
        fs::rename(&pins, &maps).map_err(|error| OpenError::kernel(format!("moving the maps to {}", maps.display()), error))?;
    }
    Ok(Loaded { ebpf, maps: mapped, networks: Some(networks), networks_room, program, adopted, verified })
}

fn load_object(object: &[u8], pins: &Path, sizes: &Sizes, direct: &Direct) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins);
    direct.put_into(&mut loader);
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries.max(1));
    }
    loader.load(object)
}

/// The program that takes jumbo frames, or where the kernel has none of those, the one that doesn't. Where it has them, a program that is refused is not
/// replaced: the other one would drop what this node has to carry. With it, how many instructions the verifier looked at.
fn load_program(ebpf: &mut Ebpf) -> Result<(&'static Pair, Option<u32>), OpenError> {
    let multi_buffer = features::multi_buffer().map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return OpenError::not_permitted();
        }
        OpenError::kernel("finding out whether the kernel takes jumbo frames in XDP", error)
    })?;
    if !multi_buffer {
        tracing::warn!("this kernel's XDP takes no frames of more than one buffer: jumbo frames need Linux 5.18");
    }
    let pair = if multi_buffer { &MULTI_BUFFER } else { &SINGLE_BUFFER };
    pair.load(ebpf).map(|verified| (pair, verified))
}

/// Two programs: the one that is attached and takes the usual packet, and the one that it leaves all others to.
#[derive(Debug, PartialEq, Eq)]
pub struct Pair {
    attached: &'static str,
    any: &'static str,
    /// Where the first finds the second.
    place: &'static str,
}

impl Pair {
    /// Loads both, and lets the first find the second.
    fn load(&self, ebpf: &mut Ebpf) -> Result<Option<u32>, OpenError> {
        let mut verified = Some(0);
        for name in [self.any, self.attached] {
            let program = xdp(ebpf, name)?;
            program.load().map_err(|error| explain_program(&format!("loading the XDP program {name}"), &error))?;
            let instructions = program.info().ok().and_then(|info| info.verified_instruction_count());
            verified = verified.zip(instructions).map(|(sum, more)| sum + more);
        }
        // The kernel forgets what is in the array when nobody holds it any more; it is pinned with the other maps.
        let mut place = ProgramArray::try_from(take(ebpf, self.place)?)
            .map_err(|error| OpenError::kernel(format!("opening {}", self.place), error))?;
        let any = xdp(ebpf, self.any)?.fd().map_err(|error| explain_program("the XDP program's descriptor", &error))?;
        place.set(0, any, 0).map_err(|error| OpenError::kernel(format!("filling in {}", self.place), error))?;
        Ok(verified)
    }
}

pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, OpenError> {
    let program = ebpf.program_mut(name).ok_or_else(|| OpenError::kernel("reading the object", format!("no program {name}")))?;
    program.try_into().map_err(|error: ProgramError| OpenError::kernel(format!("reading program {name}"), error))
}

/// The XDP program that tells the data plane's time.
pub fn clock(ebpf: &Ebpf) -> Result<&Xdp, OpenError> {
    let program = ebpf.program(CLOCK).ok_or_else(|| OpenError::kernel("reading the object", "no clock"))?;
    program.try_into().map_err(|error: ProgramError| OpenError::kernel("reading the clock", error))
}

/// The prefix table.
pub type NetworksMap = LpmTrie<MapData, [u8; 20], u8>;

fn take_maps(ebpf: &mut Ebpf) -> Result<(Maps, NetworksMap, usize), OpenError> {
    let maps = Maps {
        identity: mapped(ebpf, "IDENTITY")?,
        settings: directly_mapped(ebpf, direct::SETTINGS)?,
        destinations: directly_mapped(ebpf, direct::DESTINATIONS)?,
        services: mapped(ebpf, "SERVICES")?,
        backends: mapped(ebpf, "BACKENDS")?,
        maglev: mapped(ebpf, "MAGLEV")?,
        nats: mapped(ebpf, "NATS")?,
        affinity: mapped(ebpf, "AFFINITY")?,
        nat_affinity: mapped(ebpf, "NAT_AFFINITY")?,
        slots: mapped(ebpf, "SLOTS")?,
        backend_counters: mapped(ebpf, "BACKEND_COUNTERS")?,
        service_counters: mapped(ebpf, "SERVICE_COUNTERS")?,
        reason_counters: mapped(ebpf, "REASON_COUNTERS")?,
        sweep_counters: mapped(ebpf, "SWEEP_COUNTERS")?,
        trace: mapped(ebpf, "TRACE")?,
        breakers: mapped(ebpf, "BREAKERS")?,
        windows: mapped(ebpf, "WINDOWS")?,
        trips: mapped(ebpf, "TRIPS")?,
        histograms: mapped(ebpf, "HISTOGRAMS")?,
    };
    let map = take(ebpf, "NETWORKS")?;
    let room = room(&map).map_err(|error| OpenError::kernel("reading the networks' size", error))?;
    let networks = LpmTrie::try_from(map).map_err(|error| OpenError::kernel("opening the networks", error))?;
    Ok((maps, networks, room))
}

/// The ring of breakers' trips.
pub fn bell(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, OpenError> {
    RingBuf::try_from(take(ebpf, "BELL")?).map_err(|error| OpenError::kernel("opening the ring of trips", error))
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, OpenError> {
    ebpf.take_map(name).ok_or_else(|| no_map(name))
}

fn no_map(name: &str) -> OpenError {
    OpenError::kernel("reading the object", format!("no map {name}"))
}

fn room(map: &Map) -> Result<usize, MapError> {
    let (Map::Array(data) | Map::LpmTrie(data)) = map else {
        return Err(MapError::InvalidMapType { map_type: map_type(map) });
    };
    Ok(data.info()?.max_entries() as usize)
}

fn map_type(map: &Map) -> u32 {
    // Only reached when the object isn't this crate's.
    matches!(map, Map::Unsupported(_)).into()
}

/// A map's memory; the map stays with the object, for a program that is loaded later. An adopted map has the size that it was made with, whatever the configuration says now.
fn mapped<T: Plain>(ebpf: &Ebpf, name: &str) -> Result<Mapped<T>, OpenError> {
    let failed = |why: String| OpenError::kernel(format!("mapping {name} into memory"), why);
    let map = ebpf.map(name).ok_or_else(|| no_map(name))?;
    let length = room(map).map_err(|error| failed(error.to_string()))?;
    let Map::Array(data) = map else { return Err(failed("it isn't an array".to_owned())) };
    Mapped::new(data.fd(), length).map_err(|error| failed(error.to_string()))
}

/// The memory of a table that is its map's only value.
fn directly_mapped<T: Plain>(ebpf: &Ebpf, table: Table) -> Result<Mapped<T>, OpenError> {
    let failed = |why: String| OpenError::kernel(format!("mapping {} into memory", table.name), why);
    match ebpf.map(table.section) {
        Some(Map::Array(data)) => {
            Mapped::new(data.fd(), table.octets / size_of::<T>()).map_err(|error| failed(error.to_string()))
        }
        Some(_) => Err(failed("it isn't an array".to_owned())),
        None => Err(no_map(table.name)),
    }
}

/// The services of a data plane that is pinned here; none where there is no data plane.
pub fn services(directory: &Path) -> Result<Vec<Service>, OpenError> {
    let maps = directory.join(MAPS);
    if !maps.exists() {
        return Ok(Vec::new());
    }
    check_version(directory, &maps.join("IDENTITY"))?;
    let failed = |why: String| OpenError::kernel("reading the services", why);
    let data = MapData::from_pin(maps.join("SERVICES")).map_err(|error| failed(error.to_string()))?;
    let length = data.info().map_err(|error| failed(error.to_string()))?.max_entries() as usize;
    let mapped = Mapped::<Service>::new(data.fd(), length).map_err(|error| failed(error.to_string()))?;
    Ok((0..mapped.len()).map(|number| mapped.read(number)).collect())
}

fn check_version(directory: &Path, identity: &Path) -> Result<(), OpenError> {
    let unadoptable = |why: String| OpenError::Unadoptable { directory: directory.to_owned(), why };
    let data = MapData::from_pin(identity).map_err(|error| match permission(&error) {
        true => no_bpffs(directory, &io::ErrorKind::PermissionDenied.into()),
        false => unadoptable(error.to_string()),
    })?;
    let mapped = Mapped::<Identity>::new(data.fd(), 1).map_err(|error| unadoptable(error.to_string()))?;
    match mapped.read(0).abi_version {
        ABI_VERSION => Ok(()),
        found => Err(OpenError::Abi { directory: directory.to_owned(), found }),
    }
}

/// Kernels before 5.11 count maps against this limit.
fn raise_memory_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%error, "the limit of locked memory stays; only kernels before 5.11 mind");
    }
}

/// Removes what an agent that doesn't run any more has left; `false`: there is nothing.
///
/// # Errors
/// An agent runs on it, or it can't be removed.
pub fn remove_abandoned(directory: &Path) -> Result<bool, OpenError> {
    if !directory.join(MAPS).exists() && !directory.join(LINKS).exists() {
        return Ok(false);
    }
    let _held = lock(directory)?;
    unpin(directory).map(|()| true).map_err(|error| OpenError::kernel(format!("emptying {}", directory.display()), error))
}

/// Removes everything that is pinned, the links first. Works without an agent and whatever version made it.
///
/// # Errors
/// The file system's.
pub fn unpin(directory: &Path) -> Result<(), ApplyError> {
    for part in [LINKS, MAPS, HALF_MADE] {
        let path = directory.join(part);
        remove(&path)
            .map_err(|error| ApplyError::Kernel { tried: format!("removing {}", path.display()), why: error.to_string() })?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ApplyError::Kernel { tried: format!("removing {}", directory.display()), why: error.to_string() })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn no_bpffs(directory: &Path, error: &io::Error) -> OpenError {
    if error.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() {
        let missing = capabilities::missing();
        return match missing.is_empty() {
            true => OpenError::NotOurs { directory: directory.to_owned() },
            false => OpenError::NotPermitted { missing },
        };
    }
    OpenError::NoBpfFs { directory: directory.to_owned(), why: error.to_string() }
}

fn explain_load(directory: &Path, adopted: bool, error: &EbpfError) -> OpenError {
    if permission(error) {
        return no_bpffs(directory, &io::ErrorKind::PermissionDenied.into());
    }
    match adopted {
        true => OpenError::Unadoptable { directory: directory.to_owned(), why: chain(error) },
        false => OpenError::kernel("making the maps", chain(error)),
    }
}

fn explain_program(tried: &str, error: &ProgramError) -> OpenError {
    if permission(error) && !matches!(error, ProgramError::LoadError { verifier_log, .. } if !verifier_log.to_string().is_empty())
    {
        return OpenError::not_permitted();
    }
    OpenError::kernel(tried, chain(error))
}

fn is_bpffs(directory: &Path) -> bool {
    nix::sys::statfs::statfs(directory).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}

fn permission(error: &(dyn std::error::Error + 'static)) -> bool {
    root_cause(error).is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

/// The operating system's error at the bottom of a chain.
pub(super) fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(error) = cause {
        found = error.downcast_ref::<io::Error>().or(found);
        cause = error.source();
    }
    found
}

/// All of an error's causes in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl Loaded {
    /// The program to attach.
    pub fn attached(&mut self) -> Result<&mut Xdp, OpenError> {
        xdp(&mut self.ebpf, self.program.attached)
    }

    /// The program that takes jumbo frames, or the one that doesn't; with `any`, the one that it leaves all but the usual packet to. What isn't attached is
    /// loaded for the asking, on the same maps.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn program(&mut self, multi_buffer: bool, any: bool) -> Result<&Xdp, OpenError> {
        let pair = if multi_buffer { &MULTI_BUFFER } else { &SINGLE_BUFFER };
        if xdp(&mut self.ebpf, pair.attached)?.fd().is_err() {
            pair.load(&mut self.ebpf)?;
        }
        xdp(&mut self.ebpf, if any { pair.any } else { pair.attached }).map(|program| &*program)
    }

    /// Whether the program takes jumbo frames.
    pub fn is_multi_buffer(&self) -> bool {
        *self.program == MULTI_BUFFER
    }
}
