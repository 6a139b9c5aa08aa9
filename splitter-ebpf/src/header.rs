//! What a frame says, as far as it matters here. One decoder for kernel and host, over any [`Frame`].
//!
//! The order of the checks is the order of `docs/packet-path.md`, section 1.

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
    vlan::VlanHdr,
};

use crate::{
    address::Address,
    frame::{Frame, OFFSET, be16, load16, load32, load64},
    reason::Skip,
};

/// Protocol numbers (IANA).
pub mod protocol {
    use super::IpProto;

    /// TCP.
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// UDP.
    pub const UDP: u8 = IpProto::Udp as u8;
    /// ICMP.
    pub const ICMP: u8 = IpProto::Icmp as u8;
    /// ICMPv6.
    pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
}

pub(crate) const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
pub(crate) const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;
const ETHERTYPE_8021Q: u16 = EtherType::Ieee8021q as u16;
const ETHERTYPE_8021AD: u16 = EtherType::Ieee8021ad as u16;

/// Length of an Ethernet header.
pub const ETHERNET: usize = EthHdr::LEN;
/// Length of a VLAN tag.
pub const TAG: usize = VlanHdr::LEN;
/// Length of an IPv4 header without options.
pub const IPV4: usize = Ipv4Hdr::LEN;
/// Length of an IPv6 header without extensions.
pub const IPV6: usize = Ipv6Hdr::LEN;
/// Length of a TCP header without options.
pub const TCP: usize = TcpHdr::LEN;
/// Length of a UDP header.
pub const UDP: usize = UdpHdr::LEN;
/// Length of an ICMP header.
pub const ICMP: usize = 8;

/// Most IPv6 extension headers that are followed.
const EXTENSIONS: usize = 6;

/// The family, by the version field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// RFC 791.
    V4 = 4,
    /// RFC 8200.
    V6 = 6,
}

/// Part of a datagram, or the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// The whole.
    Whole,
    /// The beginning, with the transport header.
    First,
    /// Any other part: no ports to be seen.
    Later,
}

/// What a frame says. Offsets count from the frame's first octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Packet {
    /// The client's, or a backend's.
    pub source: Address,
    /// A service's, or ours.
    pub destination: Address,
    /// The identification that all fragments of the datagram share, as loaded.
    pub identification: u32,
    /// Octets from the network header to the end of what it says.
    pub length: u32,
    /// The network header.
    pub network: u32,
    /// The transport header.
    pub transport: u32,
    /// In network order, as loaded; 0 in ICMP and later fragments.
    pub source_port: u16,
    /// In network order, as loaded; 0 in ICMP and later fragments.
    pub destination_port: u16,
    /// VLAN tags: 0 to 2.
    pub tags: u32,
    /// TCP: octets of data in the segment (0 in other protocols).
    pub data: u32,
    /// The family.
    pub family: Family,
    /// See [`protocol`].
    pub protocol: u8,
    /// TCP flags (0 in other protocols), or the type of an ICMP message.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Part or whole.
    pub fragment: Fragment,
}

impl Packet {
    /// Where the network header begins in the frame: not beyond [`OFFSET`].
    ///
    /// Masked, not only said: the verifier knows nothing of a packet that was left in memory, and what a comparison tells it of a register, that of
    /// kernels before 6.2 doesn't carry over to the stack's copy of it.
    #[inline(always)]
    #[must_use]
    pub const fn network_at(&self) -> usize {
        (self.network & OFFSET) as usize
    }

    /// Where the transport header begins; as with [`Self::network_at`].
    #[inline(always)]
    #[must_use]
    pub const fn transport_at(&self) -> usize {
        (self.transport & OFFSET) as usize
    }
}

/// Reads a frame's headers.
///
/// # Errors
/// The reason why the frame is nothing to split.
#[inline(always)]
pub fn decode(frame: &impl Frame) -> Result<Packet, Skip> {
    let ethernet: &[u8; ETHERNET] = frame.get(0).ok_or(Skip::TruncatedEthernet)?;
    let mut ethertype = load16::<12, _>(ethernet);
    let mut network = ETHERNET;
    let mut tags = 0;
    if is_tag(ethertype) {
        (ethertype, network, tags) = untag(frame)?;
        network = frame.forget(network as u32, 0x1f) as usize;
        tags = frame.forget(tags, 3);
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, network, tags),
        ETHERTYPE_IPV6 => ipv6(frame, network, tags),
        _ => Err(Skip::NotIp),
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_8021Q || ethertype == ETHERTYPE_8021AD
}

/// The EtherType behind one or two tags, where it leads, and how many tags there are.
#[inline(always)]
fn untag(frame: &impl Frame) -> Result<(u16, usize, u32), Skip> {
    let first: &[u8; TAG] = frame.get(ETHERNET).ok_or(Skip::TruncatedVlan)?;
    let ethertype = load16::<2, _>(first);
    if !is_tag(ethertype) {
        return Ok((ethertype, ETHERNET + TAG, 1));
    }
    let second: &[u8; TAG] = frame.get(ETHERNET + TAG).ok_or(Skip::TruncatedVlan)?;
    let ethertype = load16::<2, _>(second);
    if is_tag(ethertype) {
        return Err(Skip::TooManyVlanTags);
    }
    Ok((ethertype, ETHERNET + 2 * TAG, 2))
}

#[inline(always)]
fn ipv4(frame: &impl Frame, network: usize, tags: u32) -> Result<Packet, Skip> {
    let ip: &[u8; IPV4] = frame.get(network).ok_or(Skip::TruncatedIpv4)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    let length = usize::from(be16::<2, _>(ip));
    if ip[0] >> 4 != 4 || header < IPV4 || length < header || !frame.holds(network + length) {
        return Err(Skip::BadIpv4Header);
    }
    let word = be16::<6, _>(ip);
    let (more, offset) = (word & 0x2000 != 0, usize::from(word & 0x1fff) * 8);
    let fragment = match (more, offset) {
        (false, 0) => Fragment::Whole,
        (true, 0) => Fragment::First,
        (_, _) => Fragment::Later,
    };
    if matches!(fragment, Fragment::Later) && offset + (length - header) > 65_535 {
        return Err(Skip::BadFragment);
    }
    let packet = Packet {
        source: Address::v4_word(load32::<12, _>(ip)),
        destination: Address::v4_word(load32::<16, _>(ip)),
        identification: u32::from(load16::<4, _>(ip)),
        length: length as u32,
        network: network as u32,
        transport: (network + header) as u32,
        source_port: 0,
        destination_port: 0,
        tags,
        data: 0,
        family: Family::V4,
        protocol: ip[9],
        flags: 0,
        ttl: ip[8],
        fragment,
    };
    if ip[9] == protocol::ICMPV6 {
        return Err(Skip::NotTcpUdp);
    }
    transport(frame, packet)
}

#[inline(always)]
fn ipv6(frame: &impl Frame, network: usize, tags: u32) -> Result<Packet, Skip> {
    let ip: &[u8; IPV6] = frame.get(network).ok_or(Skip::TruncatedIpv6)?;
    let payload = usize::from(be16::<4, _>(ip));
    if ip[0] >> 4 != 6 || !frame.holds(network + IPV6 + payload) {
        return Err(Skip::BadIpv6Header);
    }
    let mut packet = Packet {
        source: Address { high: load64::<8, _>(ip), low: load64::<16, _>(ip) },
        destination: Address { high: load64::<24, _>(ip), low: load64::<32, _>(ip) },
        identification: 0,
        length: (IPV6 + payload) as u32,
        network: network as u32,
        transport: (network + IPV6) as u32,
        source_port: 0,
        destination_port: 0,
        tags,
        data: 0,
        family: Family::V6,
        protocol: ip[6],
        flags: 0,
        ttl: ip[7],
        fragment: Fragment::Whole,
    };
    if ip[6] != protocol::TCP && ip[6] != protocol::UDP {
        let chain = extensions(frame, &packet)?;
        packet.transport = chain.transport;
        packet.protocol = chain.protocol;
        packet.identification = chain.identification;
        packet.fragment = chain.fragment;
        if packet.protocol == protocol::ICMP {
            return Err(Skip::NotTcpUdp);
        }
    }
    transport(frame, packet)
}

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const DESTINATION: u8 = IpProto::Ipv6Opts as u8;

/// Where a chain of extension headers ends.
struct Chain {
    transport: u32,
    identification: u32,
    protocol: u8,
    fragment: Fragment,
}

/// Follows the chain of extension headers (RFC 8200, 4).
#[inline(always)]
fn extensions(frame: &impl Frame, packet: &Packet) -> Result<Chain, Skip> {
    let end = (packet.network + packet.length) as usize;
    let mut at = packet.transport as usize;
    let mut next = packet.protocol;
    let mut identification = 0;
    let mut fragment = Fragment::Whole;
    let mut fragmented = false;
    for _ in 0..EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        if at + 8 > end {
            return Err(Skip::TruncatedExtension);
        }
        let header: &[u8; 8] = frame.get(at).ok_or(Skip::TruncatedExtension)?;
        let mut length = 8;
        if next == FRAGMENT {
            if fragmented {
                return Err(Skip::BadFragment);
            }
            fragmented = true;
            let word = be16::<2, _>(header);
            let offset = usize::from(word & 0xfff8);
            identification = load32::<4, _>(header);
            if offset != 0 {
                if offset + (end - at - 8) > 65_535 {
                    return Err(Skip::BadFragment);
                }
                let transport = frame.forget((at + 8) as u32, OFFSET);
                return Ok(Chain { transport, identification, protocol: header[0], fragment: Fragment::Later });
            }
            if word & 1 != 0 {
                fragment = Fragment::First;
            }
        } else {
            length = (usize::from(header[1]) + 1) * 8;
            if at + length > end {
                return Err(Skip::TruncatedExtension);
            }
            if next == ROUTING && header[3] != 0 {
                return Err(Skip::SourceRouted);
            }
        }
        next = header[0];
        at = frame.forget((at + length) as u32, OFFSET) as usize;
    }
    if is_extension(next) {
        return Err(Skip::TooManyExtensions);
    }
    Ok(Chain { transport: at as u32, identification, protocol: next, fragment })
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    next == HOP_BY_HOP || next == ROUTING || next == FRAGMENT || next == DESTINATION
}

/// Ports and flags.
#[inline(always)]
fn transport(frame: &impl Frame, mut packet: Packet) -> Result<Packet, Skip> {
    let at = packet.transport as usize;
    let room = (packet.network + packet.length) as usize - at;
    if matches!(packet.fragment, Fragment::Later) {
        return match packet.protocol {
            protocol::TCP | protocol::UDP => Ok(packet),
            _ => Err(Skip::NotTcpUdp),
        };
    }
    match packet.protocol {
        protocol::TCP => {
            if room < TCP {
                return Err(Skip::TruncatedTcp);
            }
            let tcp: &[u8; TCP] = frame.get(at).ok_or(Skip::TruncatedTcp)?;
            let header = usize::from(tcp[12] >> 4) * 4;
            if header < TCP || header > room {
                return Err(Skip::BadTcpHeader);
            }
            packet.source_port = load16::<0, _>(tcp);
            packet.destination_port = load16::<2, _>(tcp);
            packet.flags = tcp[13];
            packet.data = (room - header) as u32;
        }
        protocol::UDP => {
            if room < UDP {
                return Err(Skip::TruncatedUdp);
            }
            let udp: &[u8; UDP] = frame.get(at).ok_or(Skip::TruncatedUdp)?;
            let length = usize::from(be16::<4, _>(udp));
            if length < UDP || length > room && matches!(packet.fragment, Fragment::Whole) {
                return Err(Skip::BadUdpHeader);
            }
            packet.source_port = load16::<0, _>(udp);
            packet.destination_port = load16::<2, _>(udp);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if !matches!(packet.fragment, Fragment::Whole) {
                return Err(Skip::NotTcpUdp);
            }
            if room < ICMP {
                return Err(Skip::TruncatedIcmp);
            }
            let icmp: &[u8; ICMP] = frame.get(at).ok_or(Skip::TruncatedIcmp)?;
            packet.flags = icmp[0];
        }
        _ => return Err(Skip::NotTcpUdp),
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        frame::Octets,
        tcp::flag::SYN,
        testing::{CLIENT_PORT, CLIENT4, CLIENT6, SERVICE_PORT, SERVICE4, SERVICE6, ethernet, ipv4, ipv6, tcp, udp},
    };

    fn read(mut frame: Vec<u8>) -> Result<Packet, Skip> {
        decode(&Octets(&mut frame))
    }

    fn v4(packet: &[u8]) -> Vec<u8> {
        ethernet(&[], 0x0800, packet)
    }

    fn v6(packet: &[u8]) -> Vec<u8> {
        ethernet(&[], 0x86dd, packet)
    }

    /// The same with an octet changed.
    fn with(mut octets: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
        octets[at] = value;
        octets
    }

    #[test]
    fn what_a_frame_says_is_read() {
        let packet = read(ethernet(&[100, 0x2064], 0x0800, &ipv4(6, &[1; 8], &tcp(SYN, b"hello")))).expect("a good frame");
        let expected = Packet {
            source: Address::v4(CLIENT4),
            destination: Address::v4(SERVICE4),
            identification: u32::from(0x1234_u16.to_be()),
            length: 28 + 20 + 5,
            network: 22,
            transport: 50,
            source_port: CLIENT_PORT.to_be(),
            destination_port: SERVICE_PORT.to_be(),
            tags: 2,
            data: 5,
            family: Family::V4,
            protocol: protocol::TCP,
            flags: SYN,
            ttl: 64,
            fragment: Fragment::Whole,
        };
        assert_eq!(packet, expected);
        // Hop-by-hop, then a fragment header that says "first".
        let chain = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 0, 1, 0, 0, 0, 7], &udp(b"hello")].concat();
        let packet = read(v6(&ipv6(0, &chain))).expect("a good frame");
        assert_eq!((packet.source, packet.destination), (Address::v6(&CLIENT6), Address::v6(&SERVICE6)));
        assert_eq!((packet.protocol, packet.transport, packet.fragment), (protocol::UDP, 14 + 40 + 16, Fragment::First));
        assert_eq!(packet.identification, 7_u32.to_be());
    }

    #[test]
    fn the_first_check_that_fails_names_the_reason() {
        let syn4 = ipv4(6, &[], &tcp(SYN, b""));
        let syn6 = ipv6(6, &tcp(SYN, b""));
        let fragment4 = |offset: u16, more: bool, protocol| {
            let [high, low] = (offset / 8 + 0x2000 * u16::from(more)).to_be_bytes();
            v4(&with(with(ipv4(protocol, &[], &[8; 40]), 6, high), 7, low))
        };
        let extension = |next: u8, octets: [u8; 7]| [&[next][..], &octets].concat();
        let options = |next| extension(next, [0, 1, 4, 0, 0, 0, 0]);
        let seven = [options(60), options(60), options(60), options(60), options(60), options(60), options(6)].concat();
        let rows = [
            ("13 octets", v4(&syn4)[..13].to_vec(), Skip::TruncatedEthernet),
            ("a tag cut short", ethernet(&[1], 0x0800, &syn4)[..17].to_vec(), Skip::TruncatedVlan),
            ("three tags", ethernet(&[1, 2, 3], 0x0800, &syn4), Skip::TooManyVlanTags),
            ("ARP", ethernet(&[], 0x0806, &[0; 28]), Skip::NotIp),
            ("19 octets of IPv4", v4(&syn4[..19]), Skip::TruncatedIpv4),
            ("version 6 in IPv4", v4(&with(syn4.clone(), 0, 0x65)), Skip::BadIpv4Header),
            ("IHL 4", v4(&with(syn4.clone(), 0, 0x44)), Skip::BadIpv4Header),
            ("IHL beyond the total length", v4(&with(syn4.clone(), 0, 0x4b)), Skip::BadIpv4Header),
            ("a total length behind the frame", v4(&with(syn4.clone(), 3, 41)), Skip::BadIpv4Header),
            ("39 octets of IPv6", v6(&syn6[..39]), Skip::TruncatedIpv6),
            ("version 4 in IPv6", v6(&with(syn6.clone(), 0, 0x40)), Skip::BadIpv6Header),
            ("a payload length behind the frame", v6(&with(syn6, 5, 21)), Skip::BadIpv6Header),
            ("seven extension headers", v6(&ipv6(60, &[seven, tcp(SYN, b"")].concat())), Skip::TooManyExtensions),
            ("7 octets of extension", v6(&ipv6(60, &[6; 7])), Skip::TruncatedExtension),
            ("an extension longer than all", v6(&ipv6(60, &extension(6, [1, 0, 0, 0, 0, 0, 0]))), Skip::TruncatedExtension),
            ("segments left", v6(&ipv6(43, &extension(6, [0, 253, 1, 0, 0, 0, 0]))), Skip::SourceRouted),
            ("two fragment headers", v6(&ipv6(44, &[extension(44, [0; 7]), extension(6, [0; 7])].concat())), Skip::BadFragment),
            (
                "IPv6 beyond 65,535",
                v6(&ipv6(44, &[&extension(6, [0, 0xff, 0xf8, 0, 0, 0, 0])[..], &[0; 8]].concat())),
                Skip::BadFragment,
            ),
            ("IPv4 beyond 65,535", fragment4(65_528, false, 6), Skip::BadFragment),
            ("a fragment of ICMP", fragment4(0, true, 1), Skip::NotTcpUdp),
            ("a later fragment of GRE", fragment4(8, false, 47), Skip::NotTcpUdp),
            ("GRE", v4(&ipv4(47, &[], &[0; 20])), Skip::NotTcpUdp),
            ("ICMPv6 in IPv4", v4(&ipv4(58, &[], &[0; 20])), Skip::NotTcpUdp),
            ("ICMP in IPv6", v6(&ipv6(1, &[0; 20])), Skip::NotTcpUdp),
            ("19 octets of TCP", v4(&ipv4(6, &[], &tcp(SYN, b"")[..19])), Skip::TruncatedTcp),
            ("data offset 4", v4(&ipv4(6, &[], &with(tcp(SYN, b""), 12, 0x40))), Skip::BadTcpHeader),
            ("a data offset behind the packet", v4(&ipv4(6, &[], &with(tcp(SYN, b""), 12, 0x60))), Skip::BadTcpHeader),
            ("7 octets of UDP", v4(&ipv4(17, &[], &udp(b"")[..7])), Skip::TruncatedUdp),
            ("UDP length 7", v4(&ipv4(17, &[], &with(udp(b""), 5, 7))), Skip::BadUdpHeader),
            ("a UDP length behind the packet", v4(&ipv4(17, &[], &with(udp(b""), 5, 9))), Skip::BadUdpHeader),
            ("7 octets of ICMP", v4(&ipv4(1, &[], &[3; 7])), Skip::TruncatedIcmp),
        ];
        for (why, frame, reason) in rows {
            assert_eq!(read(frame), Err(reason), "{why}");
        }
    }

    #[test]
    fn what_lies_behind_the_packet_is_no_part_of_it() {
        let mut padded = v4(&ipv4(17, &[], &udp(b"x")));
        padded.extend([0xee; 17]);
        assert_eq!(read(padded).map(|packet| packet.length), Ok(29));
        // Seven octets of UDP and an eighth of padding.
        let mut short = v4(&ipv4(17, &[], &udp(b"")[..7]));
        short.push(0);
        assert_eq!(read(short), Err(Skip::TruncatedUdp));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200), tail in prop::collection::vec(any::<u8>(), 0..40)) {
            for start in [&[][..], &[0x08, 0x00, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0x00], &[0x88, 0xa8, 0, 1, 0x81, 0]] {
                let mut frame = [&[0; 12][..], start, &octets].concat();
                if let Ok(packet) = decode(&Octets(&mut frame)) {
                    prop_assert!(packet.transport >= packet.network + 20 && packet.network + packet.length <= frame.len() as u32);
                }
            }
            // Plausible up to a point: a chain of extension headers of any lengths.
            let mut frame = v6(&ipv6(octets.first().copied().unwrap_or(0), &[&octets[..], &tail].concat()));
            std::hint::black_box(decode(&Octets(&mut frame)).ok());
        }

        #[test]
        fn a_frame_cut_anywhere_is_refused(length in 0_usize..74, tags in 0_usize..3) {
            let frame = ethernet(&[7, 8][..tags], 0x86dd, &ipv6(6, &tcp(SYN, b"")));
            let cut = frame[..length.min(frame.len() - 1)].to_vec();
            prop_assert!(read(cut).is_err());
        }
    }
}
