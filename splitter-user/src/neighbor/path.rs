//! From facts to a decision. Pure.
//!
//! A way is decided in two steps, since they change for different reasons: the *path* follows from routes and interfaces,
//! the MAC address at its end from the neighbour ([`Reach`]).

use std::net::IpAddr;

use netlink_packet_route::route::RouteType;

use super::{
    facts::{Entry, Interface, Interfaces, Key, Lookup},
    way::{Mac, Way, WayError},
};

/// A way but for the last thing, the neighbour's MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// Whose MAC address is needed. Its device is the route's own, which above a VLAN is not the one that frames leave by.
    pub neighbor: Key,
    device_name: String,
    interface: u32,
    interface_name: String,
    vlan: Option<u16>,
    source_mac: Mac,
    source_address: IpAddr,
    gateway: Option<IpAddr>,
    mtu: u32,
}

/// What is held about a neighbour's MAC address.
///
/// ```text
///              fresh, stale                    failed
///  Unknown ───────────────────▶ Known(mac) ───────────────▶ Failed
///     │                            ▲   ▲                      │ ▲
///     │ failed                     │   └──────────────────────┘ │
///     └────────────────────────────┼──── fresh, stale ──────────┘
///                                  │
///  Refused (table full) ───────────┘   back to Unknown when the kernel does ask
/// ```
///
/// An entry that is absent or incomplete moves nothing. It is no news about the neighbour: the kernel forgets entries
/// that nobody uses (and XDP's traffic does not count as use), an operator flushes the table, and in both cases the MAC
/// address is almost surely what it was. So a known one stays in use until the kernel, asked again, gets another
/// answer or none; and one that failed is not taken for reachable because its entry was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Unknown,
    Refused,
    Known(Mac),
    Failed,
}

impl Reach {
    /// What is held after the kernel's table was seen to hold `entry`.
    #[must_use]
    pub(super) fn after(self, entry: Option<Entry>) -> Self {
        match (self, entry) {
            (_, Some(Entry::Fresh(mac) | Entry::Stale(mac))) => Self::Known(mac),
            (_, Some(Entry::Failed)) => Self::Failed,
            (held, None) => held,
        }
    }

    /// What is held after the kernel was asked to resolve the neighbour.
    #[must_use]
    pub(super) fn after_asking(self, table_full: bool) -> Self {
        match (self, table_full) {
            (Self::Unknown, true) => Self::Refused,
            (Self::Refused, false) => Self::Unknown,
            (held, _) => held,
        }
    }
}

/// Where the kernel would send to this destination.
pub(super) fn path(destination: IpAddr, lookup: &Lookup, interfaces: &Interfaces) -> Result<Path, WayError> {
    if let IpAddr::V6(v6) = destination
        && v6.is_unicast_link_local()
    {
        return Err(WayError::LinkLocal { destination });
    }
    let route = match lookup {
        Lookup::Found(route) => route,
        Lookup::Refused(errno) => return Err(WayError::NoRoute { destination, errno: *errno }),
    };
    match route.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Anycast => return Err(WayError::LocalDestination { destination }),
        RouteType::Broadcast | RouteType::Multicast => return Err(WayError::NotUnicast { destination }),
        kind => return Err(WayError::NoRoute { destination, errno: refusal(kind) }),
    }
    if route.encapsulated {
        return Err(WayError::Encapsulated { destination });
    }
    let find = |index: u32| interfaces.get(&index).ok_or(WayError::NoInterface { destination, index });
    let device = find(route.device.unwrap_or(0))?;
    let (lower, vlan) = match device.vlan {
        None => (device, None),
        Some(vlan) => {
            let unsupported = || WayError::UnsupportedVlan { destination, interface: device.name.clone() };
            let lower = find(vlan.lower.ok_or_else(unsupported)?)?;
            if vlan.provider || lower.vlan.is_some() {
                return Err(unsupported());
            }
            (lower, Some(vlan.id))
        }
    };
    if let Some(down) = [lower, device].into_iter().find(|interface| !interface.up) {
        return Err(WayError::InterfaceDown { destination, interface: down.name.clone() });
    }
    let not_ethernet = |interface: &Interface| WayError::NotEthernet { destination, interface: interface.name.clone() };
    lower.mac.ok_or_else(|| not_ethernet(lower))?;
    Ok(Path {
        neighbor: Key { device: device.index, address: route.gateway.unwrap_or(destination) },
        device_name: device.name.clone(),
        interface: lower.index,
        interface_name: lower.name.clone(),
        vlan,
        source_mac: device.mac.ok_or_else(|| not_ethernet(device))?,
        source_address: route.source.ok_or_else(|| WayError::NoSource { destination, interface: device.name.clone() })?,
        gateway: route.gateway,
        mtu: route.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu)),
    })
}

/// The way at the end of a path.
pub(super) fn way(path: &Path, reach: Reach) -> Result<Way, WayError> {
    let neighbor = path.neighbor.address;
    let interface = path.device_name.clone();
    match reach {
        Reach::Known(destination_mac) => Ok(Way {
            interface: path.interface,
            interface_name: path.interface_name.clone(),
            vlan: path.vlan,
            source_mac: path.source_mac,
            destination_mac,
            source_address: path.source_address,
            gateway: path.gateway,
            mtu: path.mtu,
        }),
        Reach::Unknown => Err(WayError::Unresolved { neighbor, interface }),
        Reach::Refused => Err(WayError::TableFull { neighbor, interface }),
        Reach::Failed => Err(WayError::Failed { neighbor, interface }),
    }
}

/// What a sender would be told by a route of this kind (the kernel's `fib_props`). IPv4 lookups fail with it; IPv6
/// lookups show the route.
fn refusal(kind: RouteType) -> i32 {
    match kind {
        RouteType::Prohibit => libc::EACCES,
        RouteType::BlackHole => libc::EINVAL,
        RouteType::Unreachable => libc::EHOSTUNREACH,
        _ => libc::ENETUNREACH,
    }
}
