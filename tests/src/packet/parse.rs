//! Reading frames: section 1 of `docs/packet-path.md`, step by step, over a slice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{
    DESTINATION_OPTIONS, ETHERTYPE_8021AD, ETHERTYPE_8021Q, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6,
    Mac, ROUTING, TCP, UDP, get_u16, get_u32,
};

/// Why a frame can't be steered, in the page's order of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Flaw {
    #[error("fewer than 14 octets")]
    TruncatedEthernet,
    #[error("cut short inside a VLAN tag")]
    TruncatedVlan,
    #[error("a third VLAN tag")]
    TooManyVlanTags,
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    #[error("cut short inside the IPv4 header")]
    TruncatedIpv4,
    #[error("an IPv4 header that contradicts itself or the frame")]
    BadIpv4Header,
    #[error("cut short inside the IPv6 header")]
    TruncatedIpv6,
    #[error("an IPv6 header that contradicts the frame")]
    BadIpv6Header,
    #[error("more than six IPv6 extension headers")]
    TooManyExtensions,
    #[error("an IPv6 extension header reaches behind the payload")]
    TruncatedExtension,
    #[error("a routing header with segments left")]
    SourceRouted,
    #[error("a second fragment header, or a fragment that reaches behind octet 65,535")]
    BadFragment,
    #[error("neither TCP nor UDP nor the family's ICMP")]
    NotTcpUdp,
    #[error("cut short inside the TCP header")]
    TruncatedTcp,
    #[error("a TCP data offset that cannot be")]
    BadTcpHeader,
    #[error("cut short inside the UDP header")]
    TruncatedUdp,
    #[error("a UDP length that cannot be")]
    BadUdpHeader,
    #[error("cut short inside the ICMP header")]
    TruncatedIcmp,
}

/// A frame's structure. Offsets count from the frame's first octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Destination Ethernet address.
    pub destination: Mac,
    /// Source Ethernet address.
    pub source: Mac,
    /// The VLAN tags' control information (PCP, DEI, VLAN ID), outermost first; that of tag `i` is at `14 + 4 * i`.
    pub tags: Vec<u16>,
    /// The network layer.
    pub ip: Ip,
    /// The transport layer.
    pub transport: Transport,
}

/// The network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Where the header starts.
    pub at: usize,
    /// Where the transport (or a later fragment's data) starts: behind options and extension headers.
    pub payload: usize,
    /// Where the packet ends, by its own account; octets behind are padding.
    pub end: usize,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The protocol that the last header names.
    pub protocol: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It isn't, or it is an atomic one.
    Whole,
    /// Offset 0, more to come.
    First {
        /// Identification.
        identification: u32,
    },
    /// Offset not 0.
    Later {
        /// Identification.
        identification: u32,
    },
}

/// The transport layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP in IPv4, `ICMPv6` in IPv6.
    Icmp {
        /// Type.
        kind: u8,
    },
    /// A later fragment of TCP or UDP: no header here.
    None,
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Header length in octets.
    pub header: usize,
    /// Flags.
    pub flags: u8,
}

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length field.
    pub length: u16,
    /// Checksum field.
    pub checksum: u16,
}

impl View {
    /// Source and destination with their ports; `None` for ICMP and later fragments.
    #[must_use]
    pub fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (source, destination) = match self.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            Transport::Icmp { .. } | Transport::None => return None,
        };
        Some((SocketAddr::new(self.ip.source, source), SocketAddr::new(self.ip.destination, destination)))
    }

    /// The VLAN IDs, outermost first.
    pub fn vlans(&self) -> impl Iterator<Item = u16> {
        self.tags.iter().map(|tci| tci & 0x0fff)
    }
}

impl Ip {
    /// Whether it is IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Where the TTL or hop limit is.
    #[must_use]
    pub const fn ttl_at(&self) -> usize {
        self.at + if self.is_ipv4() { 8 } else { 7 }
    }

    /// Where the source address is.
    #[must_use]
    pub const fn source_at(&self) -> usize {
        self.at + if self.is_ipv4() { 12 } else { 8 }
    }

    /// Where the destination address is.
    #[must_use]
    pub const fn destination_at(&self) -> usize {
        self.at + if self.is_ipv4() { 16 } else { 24 }
    }

    /// Where the IPv4 header, or the IPv6 fixed header, ends.
    #[must_use]
    pub fn header_end(&self, frame: &[u8]) -> usize {
        self.at + if self.is_ipv4() { usize::from(frame[self.at] & 0x0f) * 4 } else { 40 }
    }
}

/// Reads a frame.
///
/// # Errors
/// The first flaw in the page's order.
pub fn parse(frame: &[u8]) -> Result<View, Flaw> {
    let mac = |at: usize| Mac([frame[at], frame[at + 1], frame[at + 2], frame[at + 3], frame[at + 4], frame[at + 5]]);
    if frame.len() < 14 {
        return Err(Flaw::TruncatedEthernet);
    }
    let mut tags = Vec::new();
    let mut at = 14;
    let mut ethertype = get_u16(frame, 12);
    while matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD) {
        if tags.len() == 2 {
            return Err(Flaw::TooManyVlanTags);
        }
        if frame.len() < at + 4 {
            return Err(Flaw::TruncatedVlan);
        }
        tags.push(get_u16(frame, at));
        ethertype = get_u16(frame, at + 2);
        at += 4;
    }
    let ip = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, at)?,
        ETHERTYPE_IPV6 => ipv6(frame, at)?,
        _ => return Err(Flaw::NotIp),
    };
    let transport = transport(&ip, frame)?;
    Ok(View { destination: mac(0), source: mac(6), tags, ip, transport })
}

fn ipv4(frame: &[u8], at: usize) -> Result<Ip, Flaw> {
    let packet = &frame[at..];
    if packet.len() < 20 {
        return Err(Flaw::TruncatedIpv4);
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    let total = usize::from(get_u16(packet, 2));
    if packet[0] >> 4 != 4 || header < 20 || total < header || total > packet.len() {
        return Err(Flaw::BadIpv4Header);
    }
    let flags = get_u16(packet, 6);
    let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    let identification = u32::from(get_u16(packet, 4));
    let fragment = fragment(more, offset, total - header, identification)?;
    let address = |at: usize| IpAddr::from(Ipv4Addr::from(get_u32(packet, at)));
    Ok(Ip {
        at,
        payload: at + header,
        end: at + total,
        source: address(12),
        destination: address(16),
        ttl: packet[8],
        protocol: packet[9],
        fragment,
    })
}

fn ipv6(frame: &[u8], at: usize) -> Result<Ip, Flaw> {
    let packet = &frame[at..];
    if packet.len() < 40 {
        return Err(Flaw::TruncatedIpv6);
    }
    let end = 40 + usize::from(get_u16(packet, 4));
    if packet[0] >> 4 != 6 || end > packet.len() {
        return Err(Flaw::BadIpv6Header);
    }
    let (mut next, mut here, mut extensions) = (packet[6], 40, 0);
    let mut found = None;
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT) {
        if extensions == 6 {
            return Err(Flaw::TooManyExtensions);
        }
        extensions += 1;
        if end - here < 8 {
            return Err(Flaw::TruncatedExtension);
        }
        let header = &packet[here..end];
        let length = if next == FRAGMENT { 8 } else { (usize::from(header[1]) + 1) * 8 };
        if header.len() < length {
            return Err(Flaw::TruncatedExtension);
        }
        if next == ROUTING && header[3] != 0 {
            return Err(Flaw::SourceRouted);
        }
        here += length;
        if next == FRAGMENT {
            if found.is_some() {
                return Err(Flaw::BadFragment);
            }
            let field = get_u16(header, 2);
            let (more, offset) = (field & 1 != 0, usize::from(field & 0xfff8));
            let this = fragment(more, offset, end - here, get_u32(header, 4))?;
            found = Some(this);
            if matches!(this, Fragment::Later { .. }) {
                next = header[0];
                break;
            }
        }
        next = header[0];
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen octets were cut out");
        IpAddr::from(Ipv6Addr::from(octets))
    };
    Ok(Ip {
        at,
        payload: at + here,
        end: at + end,
        source: address(8),
        destination: address(24),
        ttl: packet[7],
        protocol: next,
        fragment: found.unwrap_or(Fragment::Whole),
    })
}

fn fragment(more: bool, offset: usize, data: usize, identification: u32) -> Result<Fragment, Flaw> {
    if offset + data > 65_535 {
        return Err(Flaw::BadFragment);
    }
    Ok(match (more, offset) {
        (false, 0) => Fragment::Whole,
        (true, 0) => Fragment::First { identification },
        (_, _) => Fragment::Later { identification },
    })
}

fn transport(ip: &Ip, frame: &[u8]) -> Result<Transport, Flaw> {
    let icmp = if ip.is_ipv4() { ICMP } else { ICMPV6 };
    let octets = &frame[ip.payload..ip.end];
    let whole = ip.fragment == Fragment::Whole;
    match ip.protocol {
        TCP | UDP if matches!(ip.fragment, Fragment::Later { .. }) => Ok(Transport::None),
        TCP => tcp(octets),
        UDP => udp(octets, whole),
        protocol if protocol == icmp && whole => {
            if octets.len() < 8 {
                Err(Flaw::TruncatedIcmp)
            } else {
                Ok(Transport::Icmp { kind: octets[0] })
            }
        }
        _ => Err(Flaw::NotTcpUdp),
    }
}

fn tcp(octets: &[u8]) -> Result<Transport, Flaw> {
    if octets.len() < 20 {
        return Err(Flaw::TruncatedTcp);
    }
    let header = usize::from(octets[12] >> 4) * 4;
    if header < 20 || header > octets.len() {
        return Err(Flaw::BadTcpHeader);
    }
    Ok(Transport::Tcp(Tcp {
        source: get_u16(octets, 0),
        destination: get_u16(octets, 2),
        sequence: get_u32(octets, 4),
        acknowledgement: get_u32(octets, 8),
        header,
        flags: octets[13],
    }))
}

fn udp(octets: &[u8], whole: bool) -> Result<Transport, Flaw> {
    if octets.len() < 8 {
        return Err(Flaw::TruncatedUdp);
    }
    let length = get_u16(octets, 4);
    if length < 8 || whole && usize::from(length) > octets.len() {
        return Err(Flaw::BadUdpHeader);
    }
    let (source, destination, checksum) = (get_u16(octets, 0), get_u16(octets, 2), get_u16(octets, 6));
    Ok(Transport::Udp(Udp { source, destination, length, checksum }))
}

/// The packet that an ICMP error quotes. Offsets count from the quote's first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Source of the quoted packet.
    pub source: SocketAddr,
    /// Destination of the quoted packet.
    pub destination: SocketAddr,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Where its transport header starts.
    pub transport: usize,
}

/// Why a quote doesn't tell a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteFlaw {
    /// It ends too early, or begins with no network header of the error's family.
    Truncated,
    /// It is a later fragment, or not of TCP or UDP.
    Unrelated,
}

/// Reads a quote of the given family: a whole network header (IPv6: at most a fragment header behind it), no later fragment,
/// and 8 octets of TCP or UDP.
///
/// # Errors
/// It isn't all of that.
pub fn parse_quote(octets: &[u8], ipv4: bool) -> Result<Quote, QuoteFlaw> {
    let holds = |length: usize| if octets.len() < length { Err(QuoteFlaw::Truncated) } else { Ok(()) };
    let (protocol, transport, source, destination, offset): (u8, usize, IpAddr, IpAddr, u16);
    if ipv4 {
        holds(20)?;
        if octets[0] >> 4 != 4 || octets[0] & 0x0f < 5 {
            return Err(QuoteFlaw::Truncated);
        }
        (protocol, transport, offset) = (octets[9], usize::from(octets[0] & 0x0f) * 4, get_u16(octets, 6) & 0x1fff);
        (source, destination) = (Ipv4Addr::from(get_u32(octets, 12)).into(), Ipv4Addr::from(get_u32(octets, 16)).into());
    } else {
        holds(40)?;
        if octets[0] >> 4 != 6 {
            return Err(QuoteFlaw::Truncated);
        }
        if octets[6] == FRAGMENT {
            holds(48)?;
            (protocol, transport, offset) = (octets[40], 48, get_u16(octets, 42) & 0xfff8);
        } else {
            (protocol, transport, offset) = (octets[6], 40, 0);
        }
        let address = |at: usize| <[u8; 16]>::try_from(&octets[at..at + 16]).expect("sixteen octets were cut out");
        (source, destination) = (Ipv6Addr::from(address(8)).into(), Ipv6Addr::from(address(24)).into());
    }
    if offset != 0 || !matches!(protocol, TCP | UDP) {
        return Err(QuoteFlaw::Unrelated);
    }
    holds(transport + 8)?;
    let ports = (get_u16(octets, transport), get_u16(octets, transport + 2));
    Ok(Quote {
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        protocol,
        transport,
    })
}

/// What lies at `offset` of a frame, for messages.
#[must_use]
pub fn field_at(frame: &[u8], offset: usize) -> &'static str {
    match offset {
        0..6 => return "destination MAC",
        6..12 => return "source MAC",
        _ => {}
    }
    let Ok(view) = parse(frame) else { return "a frame that can't be read" };
    let (ip, within_ip) = (&view.ip, offset.wrapping_sub(view.ip.at));
    if offset < ip.at {
        return "EtherType or VLAN tag";
    }
    if offset >= ip.end {
        return "padding";
    }
    if offset >= ip.payload {
        return match (view.transport, offset - ip.payload) {
            (Transport::Tcp(_) | Transport::Udp(_), 0..2) => "source port",
            (Transport::Tcp(_) | Transport::Udp(_), 2..4) => "destination port",
            (Transport::Tcp(_), 4..8) => "sequence number",
            (Transport::Tcp(_), 8..12) => "acknowledgement number",
            (Transport::Tcp(_), 12..14) => "data offset and flags",
            (Transport::Tcp(_), 14..16) => "window",
            (Transport::Tcp(_), 16..18) => "TCP checksum",
            (Transport::Tcp(_), 18..20) => "urgent pointer",
            (Transport::Tcp(tcp), within) if within < tcp.header => "TCP options",
            (Transport::Udp(_), 4..6) => "UDP length",
            (Transport::Udp(_), 6..8) => "UDP checksum",
            (Transport::Icmp { .. }, 0..2) => "ICMP type and code",
            (Transport::Icmp { .. }, 2..4) => "ICMP checksum",
            (Transport::Icmp { .. }, 4..8) => "ICMP rest of header",
            (Transport::Icmp { .. }, _) => "ICMP body",
            (Transport::Tcp(_) | Transport::Udp(_) | Transport::None, _) => "payload",
        };
    }
    match (ip.is_ipv4(), within_ip) {
        (true, 2..4) => "total length",
        (true, 8) | (false, 7) => "TTL",
        (true, 10..12) => "IPv4 header checksum",
        (true, 12..16) | (false, 8..24) => "source address",
        (true, 16..20) | (false, 24..40) => "destination address",
        (true, 20..) => "IPv4 options",
        (false, 4..=5) => "payload length",
        (false, 40..) => "extension header",
        (_, _) => "network header",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Packet, SYN};

    #[test]
    fn a_frame_cut_anywhere_has_a_flaw_that_moves_inwards() {
        let source = "[2001:db8::1]:1000".parse().expect("an address");
        let frame = Packet::tcp(source, source, SYN).tagged(1).tagged(2).build();
        let flaws: Vec<_> = (0..frame.len()).map(|length| parse(&frame[..length]).expect_err("cut short")).collect();
        let expected = [
            (14, Flaw::TruncatedEthernet),
            (8, Flaw::TruncatedVlan),
            (40, Flaw::TruncatedIpv6),
            // The payload length speaks of octets that aren't there.
            (20, Flaw::BadIpv6Header),
        ];
        let expected: Vec<_> = expected.into_iter().flat_map(|(count, flaw)| [flaw].repeat(count)).collect();
        assert_eq!(flaws, expected);
        parse(&frame).expect("a whole frame");
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), tail in 0_usize..6) {
            for start in [&[][..], &[0x08, 0x00, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0x00], &[0x88, 0xa8, 0, 1, 0x81, 0]] {
                let frame = [&[0; 12][..], start, &octets].concat();
                std::hint::black_box(parse(&frame).map(|view| view.endpoints()).ok());
                std::hint::black_box(field_at(&frame, frame.len().saturating_sub(tail)));
            }
            std::hint::black_box((parse_quote(&octets, true).ok(), parse_quote(&octets, false).ok()));
        }
    }
}
