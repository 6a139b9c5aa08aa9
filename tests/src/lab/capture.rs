//! Looking at what arrives in a namespace, and sending raw frames into it.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    error::{LabError, Result},
    namespace::Namespace,
};

/// How long a read waits before it looks at the clock and at a request to stop.
const TICK_US: libc::suseconds_t = 10_000;
/// Room for frames that wait to be read, in bytes.
const BUFFER: libc::c_int = 64 << 20;
/// The longest frame: a merged one may be 64 KiB long, and has its headers.
const LONGEST: usize = 65_536 + 64;
const VLAN_TAG: usize = 4;
/// Where an 802.1Q tag stands: behind the two addresses.
const TAG_OFFSET: usize = 12;

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header on, VLAN tags included. The transport checksum of a frame that was made in a
    /// neighbouring namespace may be partial, unless the sending end's [`super::Offload::TxChecksum`] is off.
    pub bytes: Vec<u8>,
    /// Which way it went.
    pub direction: Direction,
    /// When the kernel saw it, by the clock of the day: for spans.
    pub at: Duration,
}

/// Which way a frame went, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It arrived.
    In,
    /// It was sent.
    Out,
}

/// What a capture brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The frames that passed the filter, in order.
    pub frames: Vec<Frame>,
    /// How many frames (before the filter) were lost because the capture could not keep up. A test that counts
    /// frames checks that this is 0.
    pub lost: u32,
}

/// A capture that goes on in the background.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Captured>>>,
    what: String,
}

impl Capture {
    /// Starts to collect the frames of a device that pass the filter. It ends by itself after so many frames
    /// or so much time. When this returns, no later frame is missed.
    ///
    /// # Errors
    /// When there is no such device or no privilege.
    pub fn start(
        namespace: &Namespace,
        device: &str,
        most_frames: usize,
        limit: Duration,
        filter: impl Fn(&Frame) -> bool + Send + 'static,
    ) -> Result<Self> {
        let what = format!("capture on {device} in {}", namespace.name());
        let index = namespace.ifindex(device)?;
        let socket = namespace.enter(|| open(index))?.map_err(LabError::io(what.clone()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let deadline = Instant::now() + limit;
        let thread = thread::Builder::new()
            .name("capture".into())
            .spawn(move || {
                let mut captured = Captured::default();
                let mut buffer = vec![0; LONGEST];
                // A stop ends the capture only once nothing waits any more: what had arrived before is kept.
                while captured.frames.len() < most_frames && Instant::now() < deadline {
                    match receive(&socket, &mut buffer)? {
                        Some(frame) if filter(&frame) => captured.frames.push(frame),
                        Some(_) => {}
                        None if stopped.load(Ordering::Acquire) => break,
                        None => {}
                    }
                }
                captured.lost = lost(&socket)?;
                Ok(captured)
            })
            .map_err(LabError::io("start a thread"))?;
        Ok(Self { stop, thread: Some(thread), what })
    }

    /// Waits for the end: enough frames or enough time.
    ///
    /// # Errors
    /// When the kernel refused a read, as when the device went away.
    pub fn finish(mut self) -> Result<Captured> {
        self.join()
    }

    /// Ends it now, with all that has arrived until now.
    ///
    /// # Errors
    /// When the kernel refused a read, as when the device went away.
    pub fn stop(mut self) -> Result<Captured> {
        self.stop.store(true, Ordering::Release);
        self.join()
    }

    fn join(&mut self) -> Result<Captured> {
        let thread = self.thread.take().expect("joined once: finish and stop consume the capture");
        thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked)).map_err(LabError::io(self.what.clone()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A capture that nobody asks for its frames has no one to tell of an error either.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Sends a frame, from the Ethernet header on, out of a device.
///
/// # Errors
/// When there is no such device, or the frame is longer than its MTU.
pub fn inject(namespace: &Namespace, device: &str, frame: &[u8]) -> Result<()> {
    let what = || format!("send a frame of {} bytes by {device} in {}", frame.len(), namespace.name());
    let address = address(namespace.ifindex(device)?);
    let sent = namespace
        .enter(|| {
            // Protocol 0: this socket receives nothing.
            let socket = socket(0)?;
            // SAFETY: both pointers are to live values of the lengths given with them.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const address).cast(),
                    size_of_val(&address) as libc::socklen_t,
                )
            };
            if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent.cast_unsigned()) }
        })?
        .map_err(LabError::io(what()))?;
    if sent == frame.len() {
        return Ok(());
    }
    Err(LabError::Unexpected { what: what(), why: format!("only {sent} bytes were taken") })
}

fn socket(protocol_be: u16) -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers; the result is checked before it is owned.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol_be));
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn address(index: u32) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    address
}

fn open(index: u32) -> io::Result<OwnedFd> {
    open_filtered(index, &[])
}

/// A socket that gets the frames of a device that pass a classic filter, both ways; none: all. A read waits for at most 10 ms.
pub(crate) fn open_filtered(index: u32, filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    // Bound before it may receive: with a protocol from the start it would see every device's frames first.
    let socket = socket(0)?;
    if !filter.is_empty() {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(io::Error::other)?,
            // The kernel copies it and writes nothing.
            filter: filter.as_ptr().cast_mut(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    }
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 0, tv_usec: TICK_US })?;
    let address = address(index);
    // SAFETY: the pointer is to a live sockaddr_ll of the length given with it.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer is to a live value of the length given with it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size_of::<T>() as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One frame, or `None` when none came within a tick.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Frame>> {
    // SAFETY: these are plain data, for which all zeroes is a valid value.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
    let mut control = [0_u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message is to a live, writable value of the length given with it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if length < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted {
            true => Ok(None),
            false => Err(error),
        };
    }
    let mut bytes = buffer[..length.cast_unsigned()].to_vec();
    // SAFETY: recvmsg filled the message, whose control buffer is alive and aligned for cmsghdr (u64).
    let (tag, at) = unsafe { told(&message) };
    if let Some(tag) = tag
        && bytes.len() >= TAG_OFFSET
    {
        // The kernel takes the outer tag out of the frame on receive; put it back where the wire had it.
        bytes.splice(TAG_OFFSET..TAG_OFFSET, tag);
    }
    let direction = if from.sll_pkttype == libc::PACKET_OUTGOING { Direction::Out } else { Direction::In };
    Ok(Some(Frame { bytes, direction, at }))
}

/// The VLAN tag that the kernel took out of the frame, if it did, and when it saw the frame.
///
/// # Safety
/// The message must have been filled by recvmsg, and its control buffer be alive.
unsafe fn told(message: &libc::msghdr) -> (Option<[u8; VLAN_TAG]>, Duration) {
    let (mut tag, mut at) = (None, Duration::ZERO);
    // SAFETY: by this function's contract the CMSG functions walk a live, well-formed control buffer; the payload of PACKET_AUXDATA is a
    // tpacket_auxdata and that of SO_TIMESTAMPNS a timespec, both read without assuming their alignment.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if control.cmsg_level == libc::SOL_PACKET && control.cmsg_type == libc::PACKET_AUXDATA {
                let aux: libc::tpacket_auxdata = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                let given = |flag| aux.tp_status & flag != 0;
                if given(libc::TP_STATUS_VLAN_VALID) {
                    let kind = if given(libc::TP_STATUS_VLAN_TPID_VALID) { aux.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 };
                    let ([a, b], [c, d]) = (kind.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes());
                    tag = Some([a, b, c, d]);
                }
            } else if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                at = Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (tag, at)
}

/// How many frames were lost since the socket was opened.
pub(crate) fn lost(socket: &OwnedFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the pointers are to a live tpacket_stats and to its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(statistics.tp_drops) }
}
