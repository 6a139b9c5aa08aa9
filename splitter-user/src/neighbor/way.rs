//! What is asked for, a [`Way`], and every reason why there is none.

use std::{io, net::IpAddr};

use thiserror::Error;

/// An Ethernet (MAC-48) address, in the order in which it is on the wire.
pub type Mac = [u8; 6];

/// How frames for one destination leave this node.
///
/// Everything that a data plane writes in front of the IP header, and where it sends the frame. A way says how the
/// kernel itself would send a packet to this destination now; with several next hops of equal cost it is the one that
/// the kernel picks for this destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface that frames leave by. Where the route leads through a VLAN device, this is the device
    /// below it, for that one puts frames on the wire.
    pub interface: u32,
    /// Name of that interface.
    pub interface_name: String,
    /// The 802.1Q VLAN identifier (1 to 4094) to tag frames with, when the route leads through a VLAN device.
    pub vlan: Option<u16>,
    /// Source address of the frames: that of the route's device (a VLAN device may have its own).
    pub source_mac: Mac,
    /// Destination address of the frames: that of the destination, or of the gateway to it.
    pub destination_mac: Mac,
    /// The source address that the kernel prefers for this destination.
    pub source_address: IpAddr,
    /// The router in between, if there is one. Not always of the destination's family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The largest IP packet, in bytes, that may be sent this way: the lesser of the device's and the route's MTU.
    pub mtu: u32,
}

/// Why there is no [`Way`] to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WayError {
    /// The routing tables have no answer, or a refusal (`unreachable`, `prohibit`, `blackhole`). Also what is left when
    /// an interface is set down, for the kernel then withdraws its routes.
    #[error("no route to {destination}: {}; see `ip route get {destination}`", io::Error::from_raw_os_error(*.errno))]
    NoRoute {
        /// Where to.
        destination: IpAddr,
        /// The kernel's reason: `ENETUNREACH`, `EHOSTUNREACH`, `EACCES` or `EINVAL`.
        errno: i32,
    },
    /// The destination is an address of this node. Frames to oneself never pass an interface, so XDP cannot forward
    /// them.
    #[error("{destination} is an address of this node; XDP can only forward to other machines or network namespaces")]
    LocalDestination {
        /// Where to.
        destination: IpAddr,
    },
    /// The destination is a broadcast or multicast address.
    #[error("{destination} is not the address of one machine (broadcast or multicast)")]
    NotUnicast {
        /// Where to.
        destination: IpAddr,
    },
    /// The destination is an IPv6 link-local address, which means nothing without an interface (RFC 4007, section 6).
    #[error("{destination} is link-local, and so ambiguous; use a global or unique local address")]
    LinkLocal {
        /// Where to.
        destination: IpAddr,
    },
    /// The route asks for an encapsulation (MPLS, SRv6, …), so bare frames would go astray.
    #[error("the route to {destination} encapsulates packets, which Splitter does not do")]
    Encapsulated {
        /// Where to.
        destination: IpAddr,
    },
    /// The route names an interface that is not there (any more); the kernel's next event settles it.
    #[error("the route to {destination} leads to interface {index}, which does not exist")]
    NoInterface {
        /// Where to.
        destination: IpAddr,
        /// Index of the interface.
        index: u32,
    },
    /// The interface is set down or has lost its carrier.
    #[error("interface {interface}, on the way to {destination}, is down or has no carrier")]
    InterfaceDown {
        /// Where to.
        destination: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The interface does not carry Ethernet frames: a tunnel, for instance.
    #[error("interface {interface}, on the way to {destination}, is not Ethernet")]
    NotEthernet {
        /// Where to.
        destination: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The VLAN device is of 802.1ad, stacked on another one, or its lower device lives in another network namespace.
    #[error("VLAN device {interface}, on the way to {destination}, is not a single 802.1Q tag on a device of this namespace")]
    UnsupportedVlan {
        /// Where to.
        destination: IpAddr,
        /// The VLAN device's name.
        interface: String,
    },
    /// The kernel has no source address for this destination: none is configured, or duplicate address detection is
    /// still at work.
    #[error("interface {interface}, on the way to {destination}, has no usable source address")]
    NoSource {
        /// Where to.
        destination: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// The neighbour was asked for its MAC address, and has not answered yet.
    #[error("{neighbor} on {interface} has been asked for its MAC address; no answer yet")]
    Unresolved {
        /// The destination or the gateway to it.
        neighbor: IpAddr,
        /// Name of the route's device.
        interface: String,
    },
    /// The neighbour did not answer. It is asked again every few seconds.
    #[error("{neighbor} on {interface} does not answer {}", question(.neighbor))]
    Failed {
        /// The destination or the gateway to it.
        neighbor: IpAddr,
        /// Name of the route's device.
        interface: String,
    },
    /// The kernel would not ask, since its neighbour table is full.
    #[error(
        "the kernel's neighbour table has no room for {neighbor} on {interface}; raise net.{}.neigh.default.gc_thresh3",
        family(.neighbor)
    )]
    TableFull {
        /// The destination or the gateway to it.
        neighbor: IpAddr,
        /// Name of the route's device.
        interface: String,
    },
}

impl WayError {
    /// Whether an answer is still awaited, so that this is no verdict yet.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Unresolved { .. })
    }
}

fn question(neighbor: &IpAddr) -> &'static str {
    match neighbor {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}

fn family(neighbor: &IpAddr) -> &'static str {
    match neighbor {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}
