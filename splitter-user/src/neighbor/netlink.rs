//! The sockets: questions to the kernel, and its events.

use std::{collections::BTreeMap, io, net::IpAddr, time::Duration};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkExtentMask, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::{AsyncSocket, SocketAddr},
};
use thiserror::Error;
use tokio::{task::JoinSet, time::timeout};

use super::{
    event::{Effect, effect_of},
    facts::{self, Interface, Interfaces, LocalAddress, Lookup, Route, Table},
    state::Ask,
};

/// The kernel answers within microseconds, and a dump within milliseconds. A reply that has not come by now was lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What changes a way. Rules too, since they choose the table; next hop objects announce themselves as routes.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Talking to the kernel failed. It says nothing about the network.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused a request.
    #[error("netlink: cannot {what}: {source}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// The library's error, with the kernel's errno in it.
        source: rtnetlink::Error,
    },
    /// The kernel did not answer in time.
    #[error("netlink: no answer within {} s when trying to {what}", PATIENCE.as_secs())]
    Silence {
        /// What was asked.
        what: &'static str,
    },
    /// The socket closed.
    #[error("netlink: the socket for events closed")]
    Closed,
    /// There is no such interface.
    #[error("there is no interface {name:?}; `ip -brief link` lists those of this network namespace")]
    NoSuchInterface {
        /// The name that was asked for.
        name: String,
    },
}

/// A socket for questions. Apart from that for events, so that a flood of events cannot push answers out of the buffer.
///
/// Belongs to the network namespace of the thread that opens it.
pub(super) struct Requests {
    handle: Handle,
    /// Moves messages; ends with this value.
    _connection: JoinSet<()>,
}

/// A socket for events.
pub(super) struct Events {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// As above.
    _connection: JoinSet<()>,
}

/// What came of asking the kernel to resolve a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    TableFull,
    /// The interface is gone or down; an event says so.
    NotNow,
}

impl Events {
    /// As if the socket had failed.
    #[cfg(test)]
    pub(super) async fn break_off(&mut self) {
        self._connection.shutdown().await;
    }

    pub(super) fn open(buffer: usize) -> Result<Self, NetlinkError> {
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Open)?;
        let socket = connection.socket_mut().socket_ref();
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN, which the agent has anyway, for XDP.
        if let Err(error) = setsockopt(socket, sockopt::RcvBufForce, &buffer) {
            tracing::warn!(%error, buffer, "netlink: cannot enlarge the buffer for events; more of them may get lost");
        }
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { messages, _connection: task })
    }

    /// The next event's effect; `None` when the socket closed.
    pub(super) async fn next(&mut self) -> Option<Effect> {
        self.messages.next().await.map(|(message, _)| effect_of(&message))
    }

    /// The same, of an event that is here already; `None` when there is none.
    pub(super) fn waiting(&mut self) -> Option<Option<Effect>> {
        self.next().now_or_never()
    }
}

impl Requests {
    /// As if the socket had failed.
    #[cfg(test)]
    pub(super) async fn break_off(&mut self) {
        self._connection.shutdown().await;
    }

    pub(super) fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { handle, _connection: task })
    }

    pub(super) async fn interfaces(&self) -> Result<Interfaces, NetlinkError> {
        // Statistics would be the bulk of the answer.
        let request = self.handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let messages = collect("list interfaces", request.execute()).await?;
        let interfaces = messages.iter().filter_map(Interface::from_message);
        Ok(interfaces.map(|interface| (interface.index, interface)).collect::<BTreeMap<_, _>>())
    }

    /// One interface, with everything that the kernel tells of it.
    pub(super) async fn link(&self, index: u32) -> Result<LinkMessage, NetlinkError> {
        const WHAT: &str = "look at an interface";
        let messages = collect(WHAT, self.handle.link().get().match_index(index).execute()).await?;
        messages.into_iter().next().ok_or(NetlinkError::Silence { what: WHAT })
    }

    pub(super) async fn addresses(&self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let messages = collect("list addresses", self.handle.address().get().execute()).await?;
        Ok(messages.iter().filter_map(LocalAddress::from_message).collect())
    }

    pub(super) async fn table(&self) -> Result<Table, NetlinkError> {
        let messages = collect("list neighbours", self.handle.neighbours().get().execute()).await?;
        let entries = messages.iter().filter_map(facts::neighbor_of);
        Ok(entries.filter_map(|(key, entry)| Some((key, entry?))).collect())
    }

    /// As `ip route get DESTINATION`.
    pub(super) async fn route(&self, destination: IpAddr) -> Result<Lookup, NetlinkError> {
        const WHAT: &str = "look up a route";
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination)));
        match collect(WHAT, self.handle.route().get(message).execute()).await {
            Ok(answer) => match answer.first() {
                Some(route) => Ok(Lookup::Found(Route::from_message(route))),
                None => Err(NetlinkError::Silence { what: WHAT }),
            },
            Err(NetlinkError::Request { source, what }) => match errno(&source) {
                // The lookup's own verdicts, as opposed to a failure of asking.
                Some(errno @ (libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::ENETDOWN)) => {
                    Ok(Lookup::Refused(errno))
                }
                _ => Err(NetlinkError::Request { source, what }),
            },
            Err(other) => Err(other),
        }
    }

    /// Tells the kernel that a neighbour is in use (`ip neigh … use`), so that it resolves it if it is unknown, and
    /// confirms it if it is stale.
    ///
    /// `NTF_USE` does just what a packet from this node would do, without one: nothing reaches the backend but ARP or
    /// neighbour discovery, no socket or port is needed, and no firewall is in the way. (Linux 5.16 has
    /// `NTF_EXT_MANAGED`, by which the kernel does this forever by itself; older kernels lack it, and it would outlive
    /// the agent.)
    pub(super) async fn ask(&self, ask: Ask) -> Result<Asked, NetlinkError> {
        const WHAT: &str = "ask for a neighbour";
        let mut message = NeighbourMessage::default();
        message.header.ifindex = ask.key.device;
        message.header.flags = NeighbourFlags::Use;
        let (family, address) = match ask.key.address {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        message.header.family = family;
        message.attributes.push(NeighbourAttribute::Destination(address));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        if ask.create {
            // Exclusively: should somebody have made a permanent entry a moment ago, it is not to be touched.
            request.header.flags |= NLM_F_CREATE | NLM_F_EXCL;
        }
        let mut handle = self.handle.clone();
        let answers = handle.request(request).map_err(|source| NetlinkError::Request { what: WHAT, source })?;
        let answers = answers.map(|message| {
            if let NetlinkPayload::Error(error) = message.payload {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
            Ok(())
        });
        match collect(WHAT, answers).await {
            Ok(_) => Ok(Asked::Yes),
            Err(NetlinkError::Request { source, what }) => match errno(&source) {
                // There is an entry now, or none any more: its event is under way.
                Some(libc::EEXIST | libc::ENOENT) => Ok(Asked::Yes),
                Some(libc::ENOBUFS) => Ok(Asked::TableFull),
                Some(libc::ENODEV | libc::ENETDOWN | libc::EINVAL) => Ok(Asked::NotNow),
                _ => Err(NetlinkError::Request { source, what }),
            },
            Err(other) => Err(other),
        }
    }
}

async fn collect<T>(
    what: &'static str,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetlinkError> {
    match timeout(PATIENCE, answers.try_collect::<Vec<T>>()).await {
        Ok(result) => result.map_err(|source| NetlinkError::Request { what, source }),
        Err(_elapsed) => Err(NetlinkError::Silence { what }),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    let rtnetlink::Error::NetlinkError(message) = error else { return None };
    message.code.map(|code| code.get().saturating_neg())
}
