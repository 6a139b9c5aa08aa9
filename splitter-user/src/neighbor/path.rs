//! From facts to a decision. Pure.
//!
//! A way is decided in two steps, since they change for different reasons: the *path* follows from routes and interfaces,
//! the MAC address at its end from the neighbour ([`Reach`]).

use std::net::IpAddr;

use super::{
    facts::{Entry, Interface, Interfaces, Key, Lookup, RouteKind},
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
///    Refused ◀── table full ── Unknown           from every state:
///       │                         ▲
///       └──── the kernel asks ────┘              fresh or stale entry ──▶ Known(mac)
///                                                failed entry ──────────▶ Failed
///    Known(mac)                Failed            no or incomplete entry: stays
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
        RouteKind::Unicast => {}
        RouteKind::Local => return Err(WayError::LocalDestination { destination }),
        RouteKind::Many => return Err(WayError::NotUnicast { destination }),
        RouteKind::Refuses(errno) => return Err(WayError::NoRoute { destination, errno }),
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
    let not_ethernet = |interface: &Interface| WayError::NotEthernet { destination, interface: interface.name.clone() };
    lower.mac.ok_or_else(|| not_ethernet(lower))?;
    let source_mac = device.mac.ok_or_else(|| not_ethernet(device))?;
    if let Some(down) = [lower, device].into_iter().find(|interface| !interface.up) {
        return Err(WayError::InterfaceDown { destination, interface: down.name.clone() });
    }
    Ok(Path {
        neighbor: Key { device: device.index, address: route.gateway.unwrap_or(destination) },
        device_name: device.name.clone(),
        interface: lower.index,
        interface_name: lower.name.clone(),
        vlan,
        source_mac,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbor::facts::{Route, VlanDevice};

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const OTHER: Mac = [2, 0, 0, 0, 0, 8];

    #[test]
    fn what_is_held_about_a_neighbor_changes_only_by_an_answer_or_a_verdict() {
        use Reach::{Failed, Known, Refused, Unknown};
        let (fresh, stale, failed) = (Some(Entry::Fresh(OTHER)), Some(Entry::Stale(OTHER)), Some(Entry::Failed));
        for held in [Unknown, Refused, Known(MAC), Failed] {
            assert_eq!(held.after(fresh), Known(OTHER), "{held:?}");
            assert_eq!(held.after(stale), Known(OTHER), "{held:?}");
            assert_eq!(held.after(failed), Failed, "{held:?}");
            assert_eq!(held.after(None), held);
        }
        let asked = |table_full| [Unknown, Refused, Known(MAC), Failed].map(|held| held.after_asking(table_full));
        assert_eq!(asked(true), [Refused, Refused, Known(MAC), Failed]);
        assert_eq!(asked(false), [Unknown, Unknown, Known(MAC), Failed]);
    }

    #[test]
    fn through_a_vlan_device_frames_leave_tagged_by_the_device_below() {
        let path = path(destination(), &via(3), &interfaces()).expect("a path");
        assert_eq!(path.neighbor, Key { device: 3, address: destination() }, "asked for on the VLAN device");
        let way = way(&path, Reach::Known(MAC)).expect("a way");
        assert_eq!((way.interface, way.interface_name.as_str(), way.vlan), (2, "wire", Some(42)));
        assert_eq!((way.source_mac, way.mtu), ([2, 0, 0, 0, 0, 3], 1400), "those of the VLAN device");
    }

    #[test]
    fn a_gateway_is_the_neighbor_and_the_lesser_mtu_counts() {
        for (route_mtu, expected) in [(None, 1500), (Some(1280), 1280), (Some(9000), 1500)] {
            let gateway = IpAddr::from([10, 0, 0, 254]);
            let lookup = Lookup::Found(Route { gateway: Some(gateway), mtu: route_mtu, ..route(2) });
            let path = path(destination(), &lookup, &interfaces()).expect("a path");
            assert_eq!(path.neighbor.address, gateway);
            assert_eq!(way(&path, Reach::Known(MAC)).map(|way| (way.gateway, way.mtu)), Ok((Some(gateway), expected)));
        }
    }

    #[test]
    fn whatever_stands_in_the_way_is_named() {
        let destination = destination();
        let named = |interface: &str| interface.to_owned();
        let rows: [(&str, Lookup, WayError); 13] = [
            ("no route", Lookup::Refused(libc::ENETUNREACH), WayError::NoRoute { destination, errno: libc::ENETUNREACH }),
            ("prohibited", of_kind(RouteKind::Refuses(libc::EACCES)), WayError::NoRoute { destination, errno: libc::EACCES }),
            ("oneself", of_kind(RouteKind::Local), WayError::LocalDestination { destination }),
            ("everybody", of_kind(RouteKind::Many), WayError::NotUnicast { destination }),
            ("MPLS", Lookup::Found(Route { encapsulated: true, ..route(2) }), WayError::Encapsulated { destination }),
            ("not listed yet", via(99), WayError::NoInterface { destination, index: 99 }),
            ("no carrier", via(4), WayError::InterfaceDown { destination, interface: named("dark") }),
            ("VLAN on what is down", via(5), WayError::InterfaceDown { destination, interface: named("dark") }),
            ("tunnel", via(6), WayError::NotEthernet { destination, interface: named("tunnel") }),
            ("802.1ad", via(7), WayError::UnsupportedVlan { destination, interface: named("provider") }),
            ("VLAN on VLAN", via(8), WayError::UnsupportedVlan { destination, interface: named("stacked") }),
            ("lower device elsewhere", via(9), WayError::UnsupportedVlan { destination, interface: named("moved") }),
            (
                "no source",
                Lookup::Found(Route { source: None, ..route(2) }),
                WayError::NoSource { destination, interface: named("wire") },
            ),
        ];
        for (why, lookup, error) in rows {
            assert_eq!(path(destination, &lookup, &interfaces()), Err(error), "{why}");
        }
        let link_local: IpAddr = "fe80::1".parse().expect("an address");
        assert_eq!(path(link_local, &via(2), &interfaces()), Err(WayError::LinkLocal { destination: link_local }));
    }

    #[test]
    fn without_a_mac_address_the_reason_is_the_neighbors() {
        let path = path(destination(), &via(2), &interfaces()).expect("a path");
        let (neighbor, interface) = (destination(), "wire".to_owned());
        assert_eq!(way(&path, Reach::Unknown), Err(WayError::Unresolved { neighbor, interface: interface.clone() }));
        assert_eq!(way(&path, Reach::Refused), Err(WayError::TableFull { neighbor, interface: interface.clone() }));
        assert_eq!(way(&path, Reach::Failed), Err(WayError::Failed { neighbor, interface }));
    }

    fn destination() -> IpAddr {
        IpAddr::from([10, 0, 0, 7])
    }

    fn route(device: u32) -> Route {
        Route {
            kind: RouteKind::Unicast,
            device: Some(device),
            gateway: None,
            source: Some(IpAddr::from([10, 0, 0, 1])),
            mtu: None,
            encapsulated: false,
        }
    }

    fn via(device: u32) -> Lookup {
        Lookup::Found(route(device))
    }

    fn of_kind(kind: RouteKind) -> Lookup {
        Lookup::Found(Route { kind, ..route(2) })
    }

    fn interfaces() -> Interfaces {
        let ethernet = |index: u32, name: &str| Interface {
            index,
            name: name.into(),
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            mtu: 1500,
            up: true,
            kind: None,
            vlan: None,
            controller: None,
        };
        let vlan = |index, name, lower| Interface {
            mtu: 1400,
            vlan: Some(VlanDevice { id: 42, provider: false, lower }),
            ..ethernet(index, name)
        };
        [
            ethernet(2, "wire"),
            vlan(3, "tagged", Some(2)),
            Interface { up: false, ..ethernet(4, "dark") },
            vlan(5, "tagged-dark", Some(4)),
            Interface { mac: None, ..ethernet(6, "tunnel") },
            Interface { vlan: Some(VlanDevice { id: 42, provider: true, lower: Some(2) }), ..ethernet(7, "provider") },
            vlan(8, "stacked", Some(3)),
            vlan(9, "moved", None),
        ]
        .into_iter()
        .map(|interface| (interface.index, interface))
        .collect()
    }
}
