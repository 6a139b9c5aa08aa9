//! Network devices as the calling thread's namespace has them: identity, state, offloads.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// What a namespace knows of one of its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index, unique within the namespace only.
    pub index: u32,
    /// Its Ethernet address; zeroes for loopback.
    pub mac: [u8; 6],
    /// Whether it is up and has a carrier.
    pub running: bool,
}

/// A switchable offload. The numbers are `ETHTOOL_G…` and `ETHTOOL_S…` of `linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Transmit checksums are left to the device, so packets travel with a partial checksum. A program that
    /// rewrites addresses cannot tell and would finish with a wrong one.
    TxChecksum,
    /// TCP segmentation on transmit.
    Tso,
    /// Any segmentation on transmit.
    Gso,
    /// Segments are merged on receive. On a veth this also starts NAPI, without which the other end's native
    /// `XDP_TX`, and any redirect to it, is dropped.
    Gro,
}

impl Offload {
    const fn commands(self) -> (u32, u32) {
        match self {
            Self::TxChecksum => (0x16, 0x17),
            Self::Tso => (0x1e, 0x1f),
            Self::Gso => (0x23, 0x24),
            Self::Gro => (0x2b, 0x2c),
        }
    }
}

/// All devices of the calling thread's namespace.
pub(crate) fn devices() -> io::Result<Vec<Device>> {
    Ok(getifaddrs()?
        .filter_map(|interface| {
            let link = *interface.address.as_ref()?.as_link_addr()?;
            Some(Device {
                index: u32::try_from(link.ifindex()).ok()?,
                mac: link.addr().unwrap_or_default(),
                running: interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING),
                name: interface.interface_name,
            })
        })
        .collect())
}

/// Switches an offload and reads it back: a device that ignores the request is an error.
pub(crate) fn set_offload(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    let (_, set) = offload.commands();
    ethtool(device, set, u32::from(on))?;
    if offload_is_on(device, offload)? == on {
        Ok(())
    } else {
        Err(io::Error::other(format!("{device} keeps {offload:?} {}", if on { "off" } else { "on" })))
    }
}

/// Whether an offload is in force.
pub(crate) fn offload_is_on(device: &str, offload: Offload) -> io::Result<bool> {
    let (get, _) = offload.commands();
    Ok(ethtool(device, get, 0)? != 0)
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn ethtool(device: &str, command: u32, data: u32) -> io::Result<u32> {
    // SAFETY: socket takes no pointers; the result is checked before it is owned.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let mut value = EthtoolValue { command, data };
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is kept for the terminating zero.
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "device name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a zero-terminated device and points at an ethtool_value that outlives the call
    // and is as large as these commands read and write.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
