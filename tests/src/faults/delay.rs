//! A backend that is slow to accept: each SYN is held back for a while before its kernel sees it.
//!
//! The kernel drops the SYNs that come by `eth0`. A thread sees them before that, and lets each come in once more a while later, by a device of its own. All other
//! packets go their usual way, so it's the handshake that is slow, and nothing else. (There is no netem on every kernel that this runs on.)

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};

use super::{
    filter::{Fate, Filter},
    syns,
};
use crate::lab::{self, LabError, Namespace, Result};

/// The ends of the way round: what is sent by the first comes in by the second.
const ENDS: [&str; 2] = ["slow0", "slow1"];
/// How long the way round may take to come up.
const UP: Duration = Duration::from_secs(5);
/// Between two looks at what is due. The socket's own wait is longer.
const TICK: Duration = Duration::from_millis(1);
const MAC: usize = 6;

/// In force until it's dropped.
#[derive(Debug)]
pub(super) struct Delay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    _filter: Filter,
}

impl Delay {
    /// Holds back what wants to connect to a port.
    pub(super) fn start(namespace: &Namespace, port: u16, by: Duration) -> Result<Self> {
        let [from, to] = ENDS;
        // Made once, and left until the namespace goes.
        if namespace.device(from).is_err() {
            namespace.ip(&[
                format!("link add {from} type veth peer name {to}"),
                format!("link set {from} up"),
                format!("link set {to} up"),
            ])?;
        }
        let deadline = Instant::now() + UP;
        while !(namespace.device(from)?.running && namespace.device(to)?.running) {
            if Instant::now() > deadline {
                return Err(LabError::Late { what: format!("link {from} of {}", namespace.name()), limit: UP });
            }
            thread::sleep(TICK);
        }
        let what = || format!("hold back SYNs in {}", namespace.name());
        let mac = namespace.mac(to)?;
        let comes = syns::tap(namespace, "eth0")?;
        let index = namespace.ifindex(from)?;
        let goes = namespace.enter(|| lab::open_filtered(index, &[]))?.map_err(LabError::io(what()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("delay".into()).spawn(move || hold_back(&comes, &goes, mac, by, &stopped));
        let thread = Some(thread.map_err(LabError::io("start a thread"))?);
        Ok(Self { stop, thread, _filter: Filter::set(namespace, port, Fate::OpeningsVanish)? })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            // A drop cannot fail.
            eprintln!("SYNs were held back for good: {error}");
        }
    }
}

fn hold_back(comes: &OwnedFd, goes: &OwnedFd, mac: [u8; MAC], by: Duration, stop: &AtomicBool) -> io::Result<()> {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Acquire) {
        match recv(comes.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) if length >= MAC => {
                let mut frame = buffer[..length].to_vec();
                frame[..MAC].copy_from_slice(&mac);
                held.push_back((Instant::now() + by, frame));
            }
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EINTR) => thread::sleep(TICK),
            Err(error) => return Err(error.into()),
        }
        while let Some((_, frame)) = held.pop_front_if(|(due, _)| *due <= Instant::now()) {
            send(goes.as_raw_fd(), &frame, MsgFlags::empty())?;
        }
    }
    Ok(())
}
