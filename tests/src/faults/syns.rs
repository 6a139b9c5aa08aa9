//! Who is asked for connections: every SYN that passes a device, with the moment at which it did.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

use super::time::{Clock, Monotonic};
use crate::{
    lab::{self, LabError, Namespace, Result},
    packet::parse::{self, Transport},
};

/// A SYN without an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// When it passed.
    pub at: Monotonic,
    /// Its sequence number, which no splitter changes, and which a retransmission has in common with its original.
    pub sequence: u32,
}

/// An observer, beside everything that is observed.
#[derive(Debug)]
pub struct Syns {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Vec<Syn>>>>,
    what: String,
}

impl Syns {
    /// Starts to observe a device. When this returns, no later SYN is missed.
    ///
    /// # Errors
    /// When there is no such device or no privilege.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Self> {
        let what = format!("observe {device} in {}", namespace.name());
        let socket =
            tap(namespace, device).map_err(|error| LabError::Unexpected { what: what.clone(), why: error.to_string() })?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(LabError::io(what.clone()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("syns".into()).spawn(move || observe(&socket, &stopped));
        Ok(Self { stop, thread: Some(thread.map_err(LabError::io("start a thread"))?), what })
    }

    /// Ends it, with all that has passed until now.
    ///
    /// # Errors
    /// When the kernel refused a read, or some were lost.
    pub fn stop(mut self) -> Result<Vec<Syn>> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("joined once: this consumes it");
        let joined = thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked));
        joined.map_err(LabError::io(self.what.clone()))
    }
}

impl Drop for Syns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Who asks for nothing is told of no error.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn observe(socket: &OwnedFd, stop: &AtomicBool) -> io::Result<Vec<Syn>> {
    let mut syns = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match receive(socket, &mut buffer)? {
            Some((frame, wall)) => {
                let at = Clock::now().of_wall(wall);
                syns.extend(sequence(frame).map(|sequence| Syn { at, sequence }));
            }
            None if stop.load(Ordering::Acquire) => break,
            None => {}
        }
    }
    match lab::lost(socket)? {
        0 => Ok(syns),
        lost => Err(io::Error::other(format!("{lost} SYNs were not seen"))),
    }
}

/// A frame with its wall-clock time; `None` when none came for a moment.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<(&'a [u8], u64)>> {
    let mut control = nix::cmsg_space!(TimeSpec, [u8; 64]);
    let (length, wall) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            message => message?,
        };
        let wall = message.cmsgs()?.find_map(|control| {
            let ControlMessageOwned::ScmTimestampns(at) = control else { return None };
            Some(at.tv_sec().unsigned_abs() * 1_000_000_000 + at.tv_nsec().unsigned_abs())
        });
        (message.bytes, wall)
    };
    let wall = wall.ok_or_else(|| io::Error::other("a frame without its time"))?;
    Ok(Some((&buffer[..length], wall)))
}

fn sequence(frame: &[u8]) -> Option<u32> {
    match parse::parse(frame).ok()?.transport {
        Transport::Tcp(tcp) => Some(tcp.sequence),
        Transport::Udp(_) | Transport::Icmp { .. } | Transport::None => None,
    }
}

/// A socket that gets the SYNs of a device, and nothing else.
pub(super) fn tap(namespace: &Namespace, device: &str) -> Result<OwnedFd> {
    let what = || format!("listen to {device} in {}", namespace.name());
    let index = namespace.ifindex(device)?;
    namespace.enter(|| lab::open_filtered(index, &SYNS))?.map_err(LabError::io(what()))
}

/// Of Ethernet frames without tags, TCP over IPv4 and IPv6 (without extension headers): SYN, and not ACK. In the kernel's classic filter language.
const SYNS: [libc::sock_filter; 15] = {
    const fn code(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    const fn is(value: u32, jt: u8, jf: u8) -> libc::sock_filter {
        code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, jt, jf)
    }
    const fn octet(at: u32) -> libc::sock_filter {
        code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at, 0, 0)
    }
    const TCP: u32 = 6;
    const SYN: u32 = 2;
    const SYN_OR_ACK: u32 = 0x12;
    [
        // 0: the EtherType
        code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 12, 0, 0),
        is(libc::ETH_P_IP as u32, 0, 5),
        // 2: IPv4: the protocol, and the header's length
        octet(14 + 9),
        is(TCP, 0, 10),
        code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14, 0, 0),
        code(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 14 + 13, 0, 0),
        code(libc::BPF_JMP | libc::BPF_JA, 4, 0, 0),
        // 7: IPv6
        is(libc::ETH_P_IPV6 as u32, 0, 6),
        octet(14 + 6),
        is(TCP, 0, 4),
        octet(14 + 40 + 13),
        // 11: the flags
        code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN_OR_ACK, 0, 0),
        is(SYN, 0, 1),
        code(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
};
