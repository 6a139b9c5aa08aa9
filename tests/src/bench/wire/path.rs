//! The ways through the node that are compared, and what is sent over each.

/// A way from the client to the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Splitter in `dsr` mode; replies go straight to the client.
    SplitterDsr,
    /// Splitter in `nat` mode; replies come back through the node.
    SplitterNat,
    /// An XDP program that redirects everything from the front to one backend, and from there to the front: nothing is read or written.
    XdpRedirect,
    /// The least that a splitter does: it picks one of two backends by a bit of the source port and writes the Ethernet addresses.
    XdpMinimal,
    /// The kernel's own forwarding.
    Routing,
    /// The same with the offloads that a veth has by default, which no program that rewrites packets can live with.
    RoutingOffloads,
    /// nftables: destination NAT by a map that `jhash` picks from.
    NftablesDnat,
    /// HAProxy in TCP mode.
    HaproxyTcp,
    /// nginx's stream module.
    NginxStream,
}

impl Path {
    /// All, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::SplitterDsr,
        Self::SplitterNat,
        Self::XdpRedirect,
        Self::XdpMinimal,
        Self::Routing,
        Self::RoutingOffloads,
        Self::NftablesDnat,
        Self::HaproxyTcp,
        Self::NginxStream,
    ];

    /// Its name in the results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SplitterDsr => "splitter-dsr",
            Self::SplitterNat => "splitter-nat",
            Self::XdpRedirect => "xdp-redirect",
            Self::XdpMinimal => "xdp-minimal",
            Self::Routing => "routing",
            Self::RoutingOffloads => "routing-offloads",
            Self::NftablesDnat => "nftables-dnat",
            Self::HaproxyTcp => "haproxy-tcp",
            Self::NginxStream => "nginx-stream",
        }
    }

    /// Why a load says nothing of this way; `None` when it does.
    #[must_use]
    pub const fn absent(self, load: Load) -> Option<&'static str> {
        match (self, load) {
            (Self::HaproxyTcp, Load::Packets { .. }) => Some("carries no UDP"),
            (Self::NginxStream, Load::Packets { .. }) => Some("relays datagrams by sockets, a session each"),
            (Self::RoutingOffloads, Load::Packets { .. }) => Some("as `routing`: nothing to offload"),
            (Self::XdpMinimal, Load::KeepAlive | Load::ConnectionClose | Load::Body1Mb) => Some("for packets alone"),
            (
                Self::SplitterDsr
                | Self::SplitterNat
                | Self::XdpRedirect
                | Self::XdpMinimal
                | Self::Routing
                | Self::RoutingOffloads
                | Self::NftablesDnat
                | Self::HaproxyTcp
                | Self::NginxStream,
                Load::Packets { .. } | Load::KeepAlive | Load::ConnectionClose | Load::Body1Mb,
            ) => None,
        }
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// UDP packets of 64 bytes of so many flows in turn.
    Packets {
        /// Different source ports: a power of two.
        flows: u32,
    },
    /// Small HTTP requests on connections that stay.
    KeepAlive,
    /// Small HTTP requests, a connection each.
    ConnectionClose,
    /// HTTP answers of 1 MiB on connections that stay.
    Body1Mb,
}

impl Load {
    /// All, in the order they are shown.
    pub const ALL: [Self; 5] =
        [Self::Packets { flows: MANY_FLOWS }, Self::Packets { flows: 1 }, Self::KeepAlive, Self::ConnectionClose, Self::Body1Mb];

    /// Its name in the results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets { flows: 1 } => "packets-1-flow",
            Self::Packets { .. } => "packets",
            Self::KeepAlive => "keep-alive",
            Self::ConnectionClose => "connection-close",
            Self::Body1Mb => "body-1mb",
        }
    }
}

/// How many flows the load `packets` has.
pub const MANY_FLOWS: u32 = 4_096;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_rows_have_the_same_name() {
        let rows = Path::ALL.iter().flat_map(|path| Load::ALL.iter().map(|load| (path.name(), load.name())));
        assert_eq!(rows.collect::<BTreeSet<_>>().len(), Path::ALL.len() * Load::ALL.len());
    }
}
