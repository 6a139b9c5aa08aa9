//! Building frames: a [`Packet`] says what is in one, with a lie wherever a test wants it; the rest comes out right.
//!
//! ```text
//! let syn = Packet::tcp(client, service, SYN).ethernet(node_mac, client_mac).tagged(100).ttl(3).build();
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    DESTINATION_OPTIONS, ETHERTYPE_8021Q, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, Mac, ROUTING, TCP,
    UDP, checksum, put_u16,
};

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The `EtherType` that announces the tag.
    pub ethertype: u16,
    /// Tag control information: PCP (3 bits), DEI, VLAN ID (12 bits).
    pub tci: u16,
}

/// How a checksum field is filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// As the RFCs want it.
    #[default]
    Right,
    /// The right one with these bits turned over.
    Wrong(u16),
    /// Zero: "none" for UDP, most likely wrong for the others.
    Zero,
}

/// What a frame holds. Start with [`Packet::tcp`], [`Packet::udp`], [`Packet::icmp`] or [`Packet::raw`].
#[derive(Clone, Debug)]
pub struct Packet {
    /// Destination Ethernet address.
    pub destination: Mac,
    /// Source Ethernet address.
    pub source: Mac,
    /// VLAN tags, outermost first.
    pub tags: Vec<Tag>,
    /// The network header.
    pub network: Network,
    /// What the network header carries.
    pub transport: Transport,
    /// The part of the transport's octets that this packet carries: a fragment; `None`: all.
    pub piece: Option<Range<usize>>,
    /// Octets behind the packet, not counted in its length (Ethernet padding).
    pub padding: Vec<u8>,
}

/// A network header.
#[derive(Clone, Debug)]
pub enum Network {
    /// IPv4.
    V4(Ipv4),
    /// IPv6.
    V6(Ipv6),
}

/// An IPv4 header. `None` in an optional field means "what is right".
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// DSCP (6 bits) and ECN.
    pub traffic_class: u8,
    /// Identification.
    pub identification: u16,
    /// Flag "don't fragment".
    pub dont_fragment: bool,
    /// Flag "more fragments".
    pub more_fragments: bool,
    /// Fragment offset, in units of 8 octets.
    pub offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options; padded with end-of-options to a multiple of 4 octets.
    pub options: Vec<u8>,
    /// A version other than 4.
    pub version: Option<u8>,
    /// A header length (in units of 4 octets) other than the true one.
    pub ihl: Option<u8>,
    /// A total length other than the true one.
    pub total_length: Option<u16>,
    /// The header checksum.
    pub checksum: Checksum,
}

/// An IPv6 header with its extension headers. `None` in an optional field means "what is right".
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Extension headers in order.
    pub extensions: Vec<Extension>,
    /// A version other than 6.
    pub version: Option<u8>,
    /// A payload length other than the true one.
    pub payload_length: Option<u16>,
}

/// An extension header's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// True length in units of 8 octets, 1 to 255.
    pub held: u8,
    /// A length field (units of 8 octets behind the first 8) other than the true one.
    pub claimed: Option<u8>,
}

/// An IPv6 extension header. Options are one `PadN`, or `Pad1`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options.
    HopByHop(Units),
    /// Routing header of type 253 (RFC 4727: for experiments, so nobody minds its data), with this many segments left.
    Routing(Units, u8),
    /// Destination options.
    Destination(Units),
    /// A header of another number, that begins as options do.
    Foreign(u8, Units),
    /// Fragment header.
    Fragment {
        /// Offset in units of 8 octets.
        offset: u16,
        /// More fragments follow.
        more: bool,
        /// Identification.
        identification: u32,
    },
}

/// What the network header carries.
#[derive(Clone, Debug)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An ICMP message; `ICMPv6` in an IPv6 packet.
    Icmp(Icmp),
    /// Octets under any protocol number.
    Raw(u8, Bytes),
}

/// A TCP segment.
#[derive(Clone, Debug, Default)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags, e.g. `SYN | ACK`.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; padded with end-of-options to a multiple of 4 octets.
    pub options: Vec<u8>,
    /// A data offset (in units of 4 octets) other than the true one.
    pub data_offset: Option<u8>,
    /// The checksum.
    pub checksum: Checksum,
    /// Payload.
    pub payload: Bytes,
}

/// A UDP datagram.
#[derive(Clone, Debug, Default)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// A length other than the true one.
    pub length: Option<u16>,
    /// The checksum.
    pub checksum: Checksum,
    /// Payload.
    pub payload: Bytes,
}

/// An ICMP or `ICMPv6` message.
#[derive(Clone, Debug, Default)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Octets 4 to 7: identifier and sequence number, or MTU, or unused.
    pub rest: [u8; 4],
    /// The checksum.
    pub checksum: Checksum,
    /// What follows: echo data or the quoted packet.
    pub body: Bytes,
}

impl Extension {
    /// A header of `held` times 8 octets that tells the truth about its length.
    #[must_use]
    pub const fn honest(held: u8) -> Units {
        Units { held, claimed: None }
    }

    const fn number(self) -> u8 {
        match self {
            Extension::HopByHop(_) => HOP_BY_HOP,
            Extension::Routing(..) => ROUTING,
            Extension::Destination(_) => DESTINATION_OPTIONS,
            Extension::Foreign(number, _) => number,
            Extension::Fragment { .. } => FRAGMENT,
        }
    }

    fn write(self, next: u8, out: &mut BytesMut) {
        let (units, routing) = match self {
            Extension::HopByHop(units) | Extension::Destination(units) | Extension::Foreign(_, units) => (units, None),
            Extension::Routing(units, segments_left) => (units, Some(segments_left)),
            Extension::Fragment { offset, more, identification } => {
                out.put_slice(&[next, 0]);
                out.put_u16(offset << 3 | u16::from(more));
                out.put_u32(identification);
                return;
            }
        };
        let held = units.held.max(1);
        out.put_slice(&[next, units.claimed.unwrap_or(held - 1)]);
        let body = usize::from(held) * 8 - 2;
        match routing {
            Some(segments_left) => {
                out.put_slice(&[253, segments_left]);
                out.put_bytes(0, body - 2);
            }
            // PadN (RFC 8200, 4.2) holds up to 255 octets; a longer body is Pad1 throughout.
            None => match u8::try_from(body - 2) {
                Ok(length) => {
                    out.put_slice(&[1, length]);
                    out.put_bytes(0, body - 2);
                }
                Err(_) => out.put_bytes(0, body),
            },
        }
    }
}

impl Packet {
    /// A packet between two addresses with TTL 64 and everything else plain.
    ///
    /// # Panics
    /// When the two addresses are of different families.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Packet {
        let network = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Network::V4(Ipv4 {
                source,
                destination,
                traffic_class: 0,
                identification: 0,
                dont_fragment: false,
                more_fragments: false,
                offset: 0,
                ttl: 64,
                options: Vec::new(),
                version: None,
                ihl: None,
                total_length: None,
                checksum: Checksum::Right,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Network::V6(Ipv6 {
                source,
                destination,
                traffic_class: 0,
                flow_label: 0,
                hop_limit: 64,
                extensions: Vec::new(),
                version: None,
                payload_length: None,
            }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("a packet from {source} to {destination} would mix address families")
            }
        };
        let (destination, source) = (Mac::local(1), Mac::local(2));
        Packet { destination, source, tags: Vec::new(), network, transport, piece: None, padding: Vec::new() }
    }

    /// A TCP segment with these flags and no payload.
    #[must_use]
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Packet {
        let tcp = Tcp { source: source.port(), destination: destination.port(), flags, window: 64_240, ..Tcp::default() };
        Packet::new(source.ip(), destination.ip(), Transport::Tcp(tcp))
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(source: SocketAddr, destination: SocketAddr, payload: impl Into<Bytes>) -> Packet {
        let udp = Udp { source: source.port(), destination: destination.port(), payload: payload.into(), ..Udp::default() };
        Packet::new(source.ip(), destination.ip(), Transport::Udp(udp))
    }

    /// An ICMP or `ICMPv6` message, by the addresses' family.
    #[must_use]
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: impl Into<Bytes>) -> Packet {
        let icmp = Icmp { kind, code, body: body.into(), ..Icmp::default() };
        Packet::new(source, destination, Transport::Icmp(icmp))
    }

    /// Octets under a protocol number.
    #[must_use]
    pub fn raw(source: IpAddr, destination: IpAddr, protocol: u8, octets: impl Into<Bytes>) -> Packet {
        Packet::new(source, destination, Transport::Raw(protocol, octets.into()))
    }

    /// Sets the Ethernet addresses.
    #[must_use]
    pub fn ethernet(mut self, destination: Mac, source: Mac) -> Packet {
        (self.destination, self.source) = (destination, source);
        self
    }

    /// Adds an 802.1Q tag inside those there are.
    #[must_use]
    pub fn tagged(mut self, tci: u16) -> Packet {
        self.tags.push(Tag { ethertype: ETHERTYPE_8021Q, tci });
        self
    }

    /// Sets the TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Packet {
        match &mut self.network {
            Network::V4(ip) => ip.ttl = ttl,
            Network::V6(ip) => ip.hop_limit = ttl,
        }
        self
    }

    /// Sets the payload: TCP's, UDP's, the ICMP body or the raw octets.
    #[must_use]
    pub fn payload(mut self, octets: impl Into<Bytes>) -> Packet {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp.payload = octets.into(),
            Transport::Udp(udp) => udp.payload = octets.into(),
            Transport::Icmp(icmp) => icmp.body = octets.into(),
            Transport::Raw(_, raw) => *raw = octets.into(),
        }
        self
    }

    /// Sets how the transport checksum is filled in.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Packet {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp.checksum = checksum,
            Transport::Udp(udp) => udp.checksum = checksum,
            Transport::Icmp(icmp) => icmp.checksum = checksum,
            Transport::Raw(..) => {}
        }
        self
    }

    /// Changes the IPv4 header; nothing happens to an IPv6 packet.
    #[must_use]
    pub fn v4(mut self, change: impl FnOnce(&mut Ipv4)) -> Packet {
        if let Network::V4(ip) = &mut self.network {
            change(ip);
        }
        self
    }

    /// Changes the IPv6 header; nothing happens to an IPv4 packet.
    #[must_use]
    pub fn v6(mut self, change: impl FnOnce(&mut Ipv6)) -> Packet {
        if let Network::V6(ip) = &mut self.network {
            change(ip);
        }
        self
    }

    /// Changes the TCP header; nothing happens to a packet of another kind.
    #[must_use]
    pub fn with_tcp(mut self, change: impl FnOnce(&mut Tcp)) -> Packet {
        if let Transport::Tcp(tcp) = &mut self.transport {
            change(tcp);
        }
        self
    }

    /// Makes it the fragment that carries these octets of the transport (checksummed whole). The range's start should be a
    /// multiple of 8; "more" is set unless the range reaches the transport's end.
    #[must_use]
    pub fn fragment(mut self, identification: u32, octets: Range<usize>) -> Packet {
        let more = octets.end < self.transport_length();
        let offset = u16::try_from(octets.start / 8).unwrap_or(u16::MAX) & 0x1fff;
        match &mut self.network {
            Network::V4(ip) => {
                let [_, _, high, low] = identification.to_be_bytes();
                (ip.identification, ip.more_fragments, ip.offset) = (u16::from_be_bytes([high, low]), more, offset);
            }
            Network::V6(ip) => ip.extensions.push(Extension::Fragment { offset, more, identification }),
        }
        self.piece = Some(octets);
        self
    }

    /// Length of the whole transport, in octets.
    #[must_use]
    pub fn transport_length(&self) -> usize {
        match &self.transport {
            Transport::Tcp(tcp) => 20 + tcp.options.len().next_multiple_of(4) + tcp.payload.len(),
            Transport::Udp(udp) => 8 + udp.payload.len(),
            Transport::Icmp(icmp) => 8 + icmp.body.len(),
            Transport::Raw(_, octets) => octets.len(),
        }
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(14 + 4 * self.tags.len() + 128 + self.transport_length() + self.padding.len());
        out.put_slice(&self.destination.0);
        out.put_slice(&self.source.0);
        for tag in &self.tags {
            out.put_u16(tag.ethertype);
            out.put_u16(tag.tci);
        }
        out.put_u16(match self.network {
            Network::V4(_) => ETHERTYPE_IPV4,
            Network::V6(_) => ETHERTYPE_IPV6,
        });
        self.write_network(&mut out);
        out.put_slice(&self.padding);
        out.freeze()
    }

    /// The packet without its Ethernet header, tags and padding, as an ICMP error quotes it.
    #[must_use]
    pub fn build_network(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128 + self.transport_length());
        self.write_network(&mut out);
        out.freeze()
    }

    fn write_network(&self, out: &mut BytesMut) {
        let transport = self.transport_octets();
        let carried = match &self.piece {
            Some(piece) => &transport[piece.start.min(transport.len())..piece.end.min(transport.len())],
            None => &transport[..],
        };
        match &self.network {
            Network::V4(ip) => ip.write(self.protocol(), carried.len(), out),
            Network::V6(ip) => ip.write(self.protocol(), carried.len(), out),
        }
        out.put_slice(carried);
    }

    fn protocol(&self) -> u8 {
        match (&self.transport, &self.network) {
            (Transport::Tcp(_), _) => TCP,
            (Transport::Udp(_), _) => UDP,
            (Transport::Icmp(_), Network::V4(_)) => ICMP,
            (Transport::Icmp(_), Network::V6(_)) => ICMPV6,
            (Transport::Raw(protocol, _), _) => *protocol,
        }
    }

    fn transport_octets(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.transport_length());
        match &self.transport {
            Transport::Tcp(tcp) => {
                tcp.write(&mut out);
                self.fill_checksum(tcp.checksum, 16, &mut out);
            }
            Transport::Udp(udp) => {
                udp.write(&mut out);
                self.fill_checksum(udp.checksum, 6, &mut out);
            }
            Transport::Icmp(icmp) => {
                out.put_slice(&[icmp.kind, icmp.code, 0, 0]);
                out.put_slice(&icmp.rest);
                out.put_slice(&icmp.body);
                self.fill_checksum(icmp.checksum, 2, &mut out);
            }
            Transport::Raw(_, octets) => out.put_slice(octets),
        }
        out
    }

    fn fill_checksum(&self, how: Checksum, field: usize, segment: &mut [u8]) {
        let (source, destination): (IpAddr, IpAddr) = match &self.network {
            Network::V4(ip) => (ip.source.into(), ip.destination.into()),
            Network::V6(ip) => (ip.source.into(), ip.destination.into()),
        };
        let protocol = self.protocol();
        let right = match protocol {
            ICMP => checksum::plain(segment, field),
            UDP => checksum::udp(checksum::transport(source, destination, protocol, segment.len(), segment, field)),
            _ => checksum::transport(source, destination, protocol, segment.len(), segment, field),
        };
        put_u16(segment, field, how.apply(right));
    }
}

impl Checksum {
    const fn apply(self, right: u16) -> u16 {
        match self {
            Checksum::Right => right,
            Checksum::Wrong(bits) => right ^ bits,
            Checksum::Zero => 0,
        }
    }
}

impl Ipv4 {
    fn write(&self, protocol: u8, carried: usize, out: &mut BytesMut) {
        let start = out.len();
        let length = 20 + self.options.len().next_multiple_of(4);
        let version = self.version.unwrap_or(4);
        let ihl = self.ihl.unwrap_or_else(|| u8::try_from(length / 4).unwrap_or(u8::MAX)) & 0x0f;
        out.put_slice(&[version << 4 | ihl, self.traffic_class]);
        out.put_u16(self.total_length.unwrap_or_else(|| u16::try_from(length + carried).unwrap_or(u16::MAX)));
        out.put_u16(self.identification);
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
        out.put_u16(flags | self.offset & 0x1fff);
        out.put_slice(&[self.ttl, protocol, 0, 0]);
        out.put_slice(&self.source.octets());
        out.put_slice(&self.destination.octets());
        out.put_slice(&self.options);
        out.put_bytes(0, length - 20 - self.options.len());
        let header = &mut out[start..];
        let right = checksum::plain(header, 10);
        put_u16(header, 10, self.checksum.apply(right));
    }
}

impl Ipv6 {
    fn write(&self, protocol: u8, carried: usize, out: &mut BytesMut) {
        let start = out.len();
        let first = u32::from(self.version.unwrap_or(6)) << 28 | u32::from(self.traffic_class) << 20;
        out.put_u32(first | self.flow_label & 0x000f_ffff);
        out.put_u16(0);
        out.put_slice(&[self.extensions.first().map_or(protocol, |extension| extension.number()), self.hop_limit]);
        out.put_slice(&self.source.octets());
        out.put_slice(&self.destination.octets());
        for (index, extension) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(index + 1).map_or(protocol, |extension| extension.number());
            extension.write(next, out);
        }
        let payload = out.len() - start - 40 + carried;
        put_u16(out, start + 4, self.payload_length.unwrap_or_else(|| u16::try_from(payload).unwrap_or(u16::MAX)));
    }
}

impl Tcp {
    fn write(&self, out: &mut BytesMut) {
        let length = 20 + self.options.len().next_multiple_of(4);
        out.put_u16(self.source);
        out.put_u16(self.destination);
        out.put_u32(self.sequence);
        out.put_u32(self.acknowledgement);
        let data_offset = self.data_offset.unwrap_or_else(|| u8::try_from(length / 4).unwrap_or(u8::MAX));
        out.put_slice(&[data_offset << 4, self.flags]);
        out.put_u16(self.window);
        out.put_u16(0);
        out.put_u16(self.urgent);
        out.put_slice(&self.options);
        out.put_bytes(0, length - 20 - self.options.len());
        out.put_slice(&self.payload);
    }
}

impl Udp {
    fn write(&self, out: &mut BytesMut) {
        out.put_u16(self.source);
        out.put_u16(self.destination);
        out.put_u16(self.length.unwrap_or_else(|| u16::try_from(8 + self.payload.len()).unwrap_or(u16::MAX)));
        out.put_u16(0);
        out.put_slice(&self.payload);
    }
}
