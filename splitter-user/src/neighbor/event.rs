//! What an event of the kernel can have changed. Pure.

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

use super::facts::{self, Entry, Interface, Key};

/// What has to be looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing of interest.
    Nothing,
    /// One neighbour; the event says all there is to know.
    Neighbor(Key, Option<Entry>),
    /// The routes to destinations inside this prefix.
    RoutesWithin(IpNet),
    /// Interfaces and every route: a link, an address, a rule or a next hop changed.
    Routes,
    /// All of it: events were lost, or nobody listened for a while.
    Everything,
}

/// Reads one message of the multicast groups that the watcher listens to.
pub(super) fn effect_of(message: &NetlinkMessage<RouteNetlinkMessage>) -> Effect {
    let inner = match &message.payload {
        NetlinkPayload::InnerMessage(inner) => inner,
        // The socket's buffer ran over (ENOBUFS), and the kernel threw events away.
        NetlinkPayload::Overrun(_) => return Effect::Everything,
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | NetlinkPayload::Noop | _ => return Effect::Nothing,
    };
    if let RouteNetlinkMessage::NewNeighbour(neighbor) = inner {
        facts::neighbor_of(neighbor).map_or(Effect::Nothing, |(key, entry)| Effect::Neighbor(key, entry))
    } else if let RouteNetlinkMessage::DelNeighbour(neighbor) = inner {
        facts::neighbor_of(neighbor).map_or(Effect::Nothing, |(key, _)| Effect::Neighbor(key, None))
    } else if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = inner {
        facts::prefix_of(route).map_or(Effect::Nothing, Effect::RoutesWithin)
    } else if let RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) = inner {
        // Bridges speak of their ports in the same words, in their own family.
        Interface::from_message(link).map_or(Effect::Nothing, |_| Effect::Routes)
    } else {
        // Addresses decide sources and local routes, rules decide which table is asked. Next hop objects need no group
        // of their own: the kernel announces the routes that use them (net.ipv4.nexthop_compat_mode).
        Effect::Routes
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::{
        AddressFamily,
        address::AddressMessage,
        link::{LinkAttribute, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage},
        rule::RuleMessage,
    };
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_overrun_concerns_everything() {
        let message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()));
        assert_eq!(effect_of(&message), Effect::Everything);
    }

    #[test]
    fn a_neighbors_event_says_its_new_state() {
        use NeighbourState::{Delay, Failed, Incomplete, Noarp, None as Nothing, Other, Permanent, Probe, Reachable, Stale};
        let fresh = Some(Entry::Fresh(MAC));
        for (state, entry) in [
            (Reachable, fresh),
            (Delay, fresh),
            (Probe, fresh),
            (Permanent, fresh),
            (Noarp, fresh),
            (Stale, Some(Entry::Stale(MAC))),
            (Failed, Some(Entry::Failed)),
            (Incomplete, None),
            (Nothing, None),
            (Other(0x100), None),
        ] {
            let message = RouteNetlinkMessage::NewNeighbour(neighbor(state));
            assert_eq!(effect(message), Effect::Neighbor(key(), entry), "{state:?}");
        }
        let gone = RouteNetlinkMessage::DelNeighbour(neighbor(Reachable));
        assert_eq!(effect(gone), Effect::Neighbor(key(), None));
    }

    #[test]
    fn an_address_that_is_not_of_ethernet_is_no_address() {
        let mut message = neighbor(NeighbourState::Reachable);
        message.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![10, 0, 0, 1]);
        assert_eq!(effect(RouteNetlinkMessage::NewNeighbour(message)), Effect::Neighbor(key(), None));
    }

    #[test]
    fn forwarding_tables_of_bridges_proxies_and_ports_are_none_of_our_business() {
        let mut forwarding = neighbor(NeighbourState::Reachable);
        forwarding.attributes.remove(0);
        assert_eq!(effect(RouteNetlinkMessage::NewNeighbour(forwarding)), Effect::Nothing);
        let mut proxy = neighbor(NeighbourState::Reachable);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(effect(RouteNetlinkMessage::NewNeighbour(proxy)), Effect::Nothing);
        let mut port = LinkMessage::default();
        port.header.interface_family = AddressFamily::Bridge;
        port.attributes.push(LinkAttribute::IfName("port".into()));
        assert_eq!(effect(RouteNetlinkMessage::DelLink(port)), Effect::Nothing);
    }

    #[test]
    fn a_route_concerns_its_prefix_and_a_default_route_its_family() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        assert_eq!(effect(RouteNetlinkMessage::DelRoute(message.clone())), within("0.0.0.0/0"));
        message.header.destination_prefix_length = 24;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet([198, 51, 100, 0].into())));
        assert_eq!(effect(RouteNetlinkMessage::NewRoute(message)), within("198.51.100.0/24"));
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        assert_eq!(effect(RouteNetlinkMessage::NewRoute(message.clone())), within("::/0"));
        message.header.address_family = AddressFamily::Mpls;
        assert_eq!(effect(RouteNetlinkMessage::NewRoute(message)), Effect::Nothing);
    }

    #[test]
    fn links_addresses_and_rules_concern_all_routes() {
        for message in [
            RouteNetlinkMessage::NewLink(LinkMessage::default()),
            RouteNetlinkMessage::DelLink(LinkMessage::default()),
            RouteNetlinkMessage::NewAddress(AddressMessage::default()),
            RouteNetlinkMessage::DelAddress(AddressMessage::default()),
            RouteNetlinkMessage::NewRule(RuleMessage::default()),
            RouteNetlinkMessage::DelRule(RuleMessage::default()),
        ] {
            let shown = format!("{message:?}");
            assert_eq!(effect(message), Effect::Routes, "{shown}");
        }
    }

    fn effect(inner: RouteNetlinkMessage) -> Effect {
        effect_of(&NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(inner)))
    }

    fn within(prefix: &str) -> Effect {
        Effect::RoutesWithin(prefix.parse().expect("a prefix"))
    }

    fn key() -> Key {
        Key { device: 2, address: [10, 0, 0, 9].into() }
    }

    fn neighbor(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 2;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 9].into())));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
        message
    }
}
