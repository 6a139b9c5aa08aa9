//! What the kernel tells, as values: interfaces, routes, neighbours; and their reading from netlink messages.
//!
//! Pure: messages in, values out.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, VlanProtocol},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::way::Mac;

/// A network interface, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index of it, unique in the network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// The largest IP packet, in bytes, that fits a frame.
    pub mtu: u32,
    /// Whether it has been set up (`IFF_UP`) *and* has a carrier (`IFF_LOWER_UP`).
    pub up: bool,
    /// What made it, as in `ip link add … type KIND` (`veth`, `vlan`, `bond`); `None` for physical devices.
    pub kind: Option<String>,
    /// What it tags frames with, if it is a VLAN device.
    pub vlan: Option<VlanDevice>,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
}

/// What makes an interface a VLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanDevice {
    /// The VLAN identifier.
    pub id: u16,
    /// Whether its tag is of 802.1ad (`0x88a8`) rather than of 802.1Q (`0x8100`).
    pub provider: bool,
    /// Index of the device below; `None` if that is in another network namespace.
    pub lower: Option<u32>,
}

/// An address that this node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddress {
    /// Index of the interface that holds it.
    pub interface: u32,
    /// The address, with the length of its network's prefix.
    pub address: IpNet,
    /// Whether it may be used: not so while duplicate address detection runs (RFC 4862, section 5.4), or after it failed.
    pub usable: bool,
}

/// All interfaces of the namespace, by index.
pub(super) type Interfaces = BTreeMap<u32, Interface>;

/// The kernel's answer to "how would you send to this destination?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    Found(Route),
    /// An errno.
    Refused(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub kind: RouteKind,
    pub device: Option<u32>,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
    pub encapsulated: bool,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    Unicast,
    /// To this node itself.
    Local,
    /// Broadcast or multicast.
    Many,
    /// Drops them; a sender is told this errno.
    Refuses(i32),
}

/// A neighbour: who is asked, on which interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub device: u32,
    pub address: IpAddr,
}

/// An entry of the kernel's neighbour table, as far as it matters here.
///
/// `NONE` and `INCOMPLETE` entries are the same as none: nothing is known. (The kernel sends no event when an entry
/// becomes `INCOMPLETE` or `DELAY`, so nothing may depend on seeing those states.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// `REACHABLE`, `DELAY`, `PROBE`, `PERMANENT`, `NOARP`: the address is known, and the kernel has confirmed it, is
    /// about to, or was told never to.
    Fresh(Mac),
    /// `STALE`: the address is known, and the kernel won't confirm it before somebody uses the entry.
    Stale(Mac),
    /// `FAILED`: it was asked for and did not answer.
    Failed,
}

/// The kernel's neighbour table; without the entries that say nothing.
pub(super) type Table = HashMap<Key, Entry>;

impl Interface {
    /// `None` for messages that are not about the interface as such, like those of a bridge about its port.
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut interface = Self {
            index: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            kind: None,
            vlan: None,
            controller: None,
        };
        let mut lower = None;
        let mut elsewhere = false;
        let mut details: &[LinkInfo] = &[];
        for attribute in &message.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                interface.name.clone_from(name);
            } else if let LinkAttribute::Address(address) = attribute
                && header.link_layer_type == LinkLayerType::Ether
            {
                interface.mac = Mac::try_from(address.as_slice()).ok();
            } else if let LinkAttribute::Mtu(mtu) = attribute {
                interface.mtu = *mtu;
            } else if let LinkAttribute::Link(index) = attribute {
                lower = Some(*index);
            } else if let LinkAttribute::LinkNetNsId(_) = attribute {
                elsewhere = true;
            } else if let LinkAttribute::Controller(index) = attribute {
                interface.controller = Some(*index);
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                details = infos;
            }
        }
        for detail in details {
            if let LinkInfo::Kind(kind) = detail {
                interface.kind = Some(kind.to_string());
            } else if let LinkInfo::Data(InfoData::Vlan(data)) = detail {
                interface.vlan = vlan_device(data, lower.filter(|_| !elsewhere));
            }
        }
        Some(interface)
    }
}

fn vlan_device(data: &[InfoVlan], lower: Option<u32>) -> Option<VlanDevice> {
    let id = data.iter().find_map(|info| if let InfoVlan::Id(id) = info { Some(*id) } else { None })?;
    let provider = data.iter().any(|info| matches!(info, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)));
    Some(VlanDevice { id, provider, lower })
}

impl LocalAddress {
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut flags = AddressFlags::empty();
        for attribute in &message.attributes {
            // On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL one's own; IPv6 has often the first alone.
            if let AddressAttribute::Local(own) = attribute {
                local = Some(*own);
            } else if let AddressAttribute::Address(either) = attribute {
                address = Some(*either);
            } else if let AddressAttribute::Flags(all) = attribute {
                flags = *all;
            }
        }
        let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        let usable =
            !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) || flags.contains(AddressFlags::Optimistic);
        Some(Self { interface: message.header.index, address, usable })
    }
}

impl RouteKind {
    /// With the errnos of the kernel's `fib_props`. IPv4 lookups fail with them, IPv6 lookups show the route.
    fn of(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local | RouteType::Anycast => Self::Local,
            RouteType::Broadcast | RouteType::Multicast => Self::Many,
            RouteType::Prohibit => Self::Refuses(libc::EACCES),
            RouteType::BlackHole => Self::Refuses(libc::EINVAL),
            RouteType::Unreachable => Self::Refuses(libc::EHOSTUNREACH),
            RouteType::Unspec | RouteType::Throw | RouteType::Nat | RouteType::ExternalResolve | RouteType::Other(_) | _ => {
                Self::Refuses(libc::ENETUNREACH)
            }
        }
    }
}

impl Route {
    pub(super) fn from_message(message: &RouteMessage) -> Self {
        let mut route = Self {
            kind: RouteKind::of(message.header.kind),
            device: None,
            gateway: None,
            source: None,
            mtu: None,
            encapsulated: false,
        };
        for attribute in &message.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                route.device = Some(*index);
            } else if let RouteAttribute::Gateway(address) = attribute {
                route.gateway = ip_address(address);
            } else if let RouteAttribute::Via(via) = attribute {
                route.gateway = match via {
                    RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
                    RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
                    RouteVia::Packet(_) | RouteVia::Other(_) | _ => None,
                };
            } else if let RouteAttribute::PrefSource(address) = attribute {
                route.source = ip_address(address);
            } else if let RouteAttribute::Metrics(metrics) = attribute {
                route.mtu = metrics
                    .iter()
                    .find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
                    .filter(|mtu| *mtu > 0);
            } else if let RouteAttribute::Encap(_) = attribute {
                route.encapsulated = true;
            }
        }
        route
    }
}

/// The prefix that a route's message is about; `None` if it is not of IP.
pub(super) fn prefix_of(message: &RouteMessage) -> Option<IpNet> {
    let named = message
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Destination(address) = attribute { ip_address(address) } else { None });
    // A default route has no destination in its message.
    let any = if message.header.address_family == AddressFamily::Inet {
        IpAddr::from([0u8; 4])
    } else if message.header.address_family == AddressFamily::Inet6 {
        IpAddr::from([0u8; 16])
    } else {
        return None;
    };
    IpNet::new(named.unwrap_or(any), message.header.destination_prefix_length).ok()
}

/// Whom a neighbour's message is about, and what it says; `None` if it is not of IP (a bridge's forwarding table, for
/// instance) or about an address answered for on behalf of others (`NTF_PROXY`).
pub(super) fn neighbor_of(message: &NeighbourMessage) -> Option<(Key, Option<Entry>)> {
    let header = &message.header;
    if header.flags.contains(netlink_packet_route::neighbour::NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(destination) = attribute {
            address = match destination {
                NeighbourAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
                NeighbourAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
                NeighbourAddress::Other(_) | _ => None,
            };
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = Mac::try_from(bytes.as_slice()).ok();
        }
    }
    let key = Key { device: header.ifindex, address: address? };
    let entry = match header.state {
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Noarp
        | NeighbourState::Permanent => mac.map(Entry::Fresh),
        NeighbourState::Stale => mac.map(Entry::Stale),
        NeighbourState::Failed => Some(Entry::Failed),
        NeighbourState::Incomplete | NeighbourState::None | NeighbourState::Other(_) | _ => None,
    };
    Some((key, entry))
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    #[test]
    fn a_vlan_device_is_read_with_its_tag_and_the_device_below() {
        let plain = Some(VlanDevice { id: 42, provider: false, lower: Some(2) });
        let cases = [
            ("802.1Q", VlanProtocol::Ieee8021Q, None, plain),
            ("802.1ad", VlanProtocol::Ieee8021Ad, None, plain.map(|vlan| VlanDevice { provider: true, ..vlan })),
            (
                "below in another namespace",
                VlanProtocol::Ieee8021Q,
                Some(7),
                plain.map(|vlan| VlanDevice { lower: None, ..vlan }),
            ),
        ];
        for (why, protocol, namespace, expected) in cases {
            let mut message = LinkMessage::default();
            message.header.index = 3;
            message.header.link_layer_type = LinkLayerType::Ether;
            message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
            let data = InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(42)]);
            message.attributes = vec![
                LinkAttribute::IfName("tagged".into()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]),
                LinkAttribute::Address(vec![2, 0, 0, 0, 0, 3]),
            ];
            message.attributes.extend(namespace.map(LinkAttribute::LinkNetNsId));
            let interface = Interface::from_message(&message).expect("an interface");
            assert_eq!(interface.vlan, expected, "{why}");
            assert_eq!((interface.kind.as_deref(), interface.mac, interface.up), (Some("vlan"), Some([2, 0, 0, 0, 0, 3]), true));
        }
    }

    #[test]
    fn an_interface_is_up_when_it_is_set_up_and_has_a_carrier() {
        for (flags, up) in [
            (LinkFlags::empty(), false),
            (LinkFlags::Up, false),
            (LinkFlags::LowerUp, false),
            (LinkFlags::Up | LinkFlags::LowerUp, true),
        ] {
            let mut message = LinkMessage::default();
            message.header.flags = flags;
            assert_eq!(Interface::from_message(&message).map(|interface| interface.up), Some(up), "{flags:?}");
        }
    }

    #[test]
    fn an_address_that_duplicate_detection_still_doubts_is_not_usable_unless_optimistic() {
        for (flags, usable) in [
            (AddressFlags::Permanent, true),
            (AddressFlags::Tentative, false),
            (AddressFlags::Dadfailed, false),
            (AddressFlags::Tentative | AddressFlags::Optimistic, true),
        ] {
            let mut message = AddressMessage::default();
            message.header.prefix_len = 64;
            let address = "fd09::1".parse().expect("an address");
            message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Flags(flags)];
            let held = LocalAddress::from_message(&message).expect("an address");
            assert_eq!((held.usable, held.address.addr()), (usable, address), "{flags:?}");
        }
    }

    #[test]
    fn on_a_point_to_point_link_the_nodes_own_address_counts() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        message.attributes =
            vec![AddressAttribute::Address([192, 0, 2, 2].into()), AddressAttribute::Local([192, 0, 2, 1].into())];
        let held = LocalAddress::from_message(&message).expect("an address");
        assert_eq!(held.address.to_string(), "192.0.2.1/32");
    }

    #[test]
    fn a_routes_answer_is_read_with_its_gateway_source_and_mtu() {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Via(RouteVia::Inet6("fd09::2".parse().expect("an address"))),
            RouteAttribute::PrefSource(RouteAddress::Inet([10, 0, 0, 1].into())),
            RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1400)]),
        ];
        let expected = Route {
            kind: RouteKind::Unicast,
            device: Some(4),
            gateway: Some("fd09::2".parse().expect("an address")),
            source: Some([10, 0, 0, 1].into()),
            mtu: Some(1400),
            encapsulated: false,
        };
        assert_eq!(Route::from_message(&message), expected);
    }
}
