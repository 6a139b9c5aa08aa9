//! Questions about this node's own interfaces and addresses, each asked once.
//!
//! Each opens a socket in the calling thread's network namespace, and closes it.

use std::{ffi::CStr, io, net::IpAddr, os::fd::AsRawFd};

use netlink_packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{
    facts::{Interface, LocalAddress, Lookup, RouteKind},
    netlink::{NetlinkError, Requests},
};

/// The interface of this name.
///
/// # Errors
///
/// [`NetlinkError::NoSuchInterface`] when there is none; others when the kernel cannot be asked.
pub async fn interface(name: &str) -> Result<Interface, NetlinkError> {
    let found = interfaces().await?.into_iter().find(|interface| interface.name == name);
    found.ok_or_else(|| NetlinkError::NoSuchInterface { name: name.to_owned() })
}

/// All interfaces, in the order of their indices.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub async fn interfaces() -> Result<Vec<Interface>, NetlinkError> {
    Ok(Requests::open()?.interfaces().await?.into_values().collect())
}

/// All addresses of this node.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub async fn addresses() -> Result<Vec<LocalAddress>, NetlinkError> {
    Requests::open()?.addresses().await
}

/// Whether the kernel takes packets to this address for its own. More than [`addresses`] can tell: a route of type
/// `local` (as in `ip route add local 192.0.2.0/24 dev lo`) makes addresses local that no interface has.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub async fn is_local(address: IpAddr) -> Result<bool, NetlinkError> {
    Ok(match Requests::open()?.route(address).await? {
        Lookup::Found(route) => route.kind == RouteKind::Local,
        Lookup::Refused(_) => false,
    })
}

/// How an XDP program is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpHook {
    /// In the driver, maybe several at once.
    Driver,
    /// Behind it.
    Generic,
    /// In the device itself.
    Hardware,
}

/// Whether an XDP program, anybody's, is attached to the interface of this index.
///
/// # Errors
///
/// When the interface is gone, or the kernel cannot be asked.
pub async fn xdp(index: u32) -> Result<Option<XdpHook>, NetlinkError> {
    let link = Requests::open()?.link(index).await?;
    let xdp =
        link.attributes.into_iter().find_map(|attribute| if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None });
    let how = xdp.into_iter().flatten().find_map(|part| if let LinkXdp::Attached(how) = part { Some(how) } else { None });
    Ok(match how {
        None | Some(XdpAttached::None) => None,
        Some(XdpAttached::SocketBuffer) => Some(XdpHook::Generic),
        Some(XdpAttached::Hardware) => Some(XdpHook::Hardware),
        // Kinds that later kernels may add are of the driver as far as is known.
        Some(XdpAttached::Driver | XdpAttached::Multiple | XdpAttached::Other(_) | _) => Some(XdpHook::Driver),
    })
}

impl Interface {
    /// The name of its driver, as `ethtool -i` says it (`veth`, `ixgbe`, `virtio_net`).
    ///
    /// Asked by `ioctl` and not read from `/sys/class/net`, which shows the network namespace of whoever mounted it.
    ///
    /// # Errors
    ///
    /// `ENODEV` when the interface is gone, `EOPNOTSUPP` when its driver does not say.
    pub fn driver(&self) -> io::Result<String> {
        let mut info = DriverInfo::default();
        // SAFETY: an ifreq is plain old data, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays 0: a name ends with a NUL.
        let room = request.ifr_name.len() - 1;
        if self.name.len() > room {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: SIOCETHTOOL reads the ifreq, whose data points to an ethtool_drvinfo as ETHTOOL_GDRVINFO wants it, writable
        // and of the kernel's size; both outlive the call, and the kernel keeps no pointer to them.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let name = CStr::from_bytes_until_nul(&info.driver).map_err(io::Error::other)?;
        Ok(name.to_string_lossy().into_owned())
    }
}

/// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
const GET_DRIVER_INFO: u32 = 3;

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    option_rom: [u8; 32],
    reserved: [u8; 12],
    numbers: [u32; 5],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

impl Default for DriverInfo {
    fn default() -> Self {
        Self {
            command: GET_DRIVER_INFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            option_rom: [0; 32],
            reserved: [0; 12],
            numbers: [0; 5],
        }
    }
}
