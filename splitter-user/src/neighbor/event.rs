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
