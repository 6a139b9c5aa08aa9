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

const ETHERTYPE_IPV4: u16 = EtherType::Ipv4 as u16;
const ETHERTYPE_IPV6: u16 = EtherType::Ipv6 as u16;
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

/// Reads a frame's headers.
///
/// # Errors
/// The reason why the frame is nothing to split.
#[inline(always)]
pub fn decode(frame: &impl Frame) -> Result<Packet, Skip> {
    let ethernet: &[u8; ETHERNET] = frame.get(0).ok_or(Skip::TruncatedEthernet)?;
    let mut ethertype = load16(ethernet, 12);
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
    let ethertype = load16(first, 2);
    if !is_tag(ethertype) {
        return Ok((ethertype, ETHERNET + TAG, 1));
    }
    let second: &[u8; TAG] = frame.get(ETHERNET + TAG).ok_or(Skip::TruncatedVlan)?;
    let ethertype = load16(second, 2);
    if is_tag(ethertype) {
        return Err(Skip::TooManyVlanTags);
    }
    Ok((ethertype, ETHERNET + 2 * TAG, 2))
}

#[inline(always)]
fn ipv4(frame: &impl Frame, network: usize, tags: u32) -> Result<Packet, Skip> {
    let ip: &[u8; IPV4] = frame.get(network).ok_or(Skip::TruncatedIpv4)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    let length = usize::from(be16(ip, 2));
    if ip[0] >> 4 != 4 || header < IPV4 || length < header || !frame.holds(network + length) {
        return Err(Skip::BadIpv4Header);
    }
    let word = be16(ip, 6);
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
        source: Address::v4_word(load32(ip, 12)),
        destination: Address::v4_word(load32(ip, 16)),
        identification: u32::from(load16(ip, 4)),
        length: length as u32,
        network: network as u32,
        transport: (network + header) as u32,
        source_port: 0,
        destination_port: 0,
        tags,
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
    let payload = usize::from(be16(ip, 4));
    if ip[0] >> 4 != 6 || !frame.holds(network + IPV6 + payload) {
        return Err(Skip::BadIpv6Header);
    }
    let mut packet = Packet {
        source: Address { high: load64(ip, 8), low: load64(ip, 16) },
        destination: Address { high: load64(ip, 24), low: load64(ip, 32) },
        identification: 0,
        length: (IPV6 + payload) as u32,
        network: network as u32,
        transport: (network + IPV6) as u32,
        source_port: 0,
        destination_port: 0,
        tags,
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
            let word = be16(header, 2);
            let offset = usize::from(word & 0xfff8);
            identification = load32(header, 4);
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
            packet.source_port = load16(tcp, 0);
            packet.destination_port = load16(tcp, 2);
            packet.flags = tcp[13];
        }
        protocol::UDP => {
            if room < UDP {
                return Err(Skip::TruncatedUdp);
            }
            let udp: &[u8; UDP] = frame.get(at).ok_or(Skip::TruncatedUdp)?;
            let length = usize::from(be16(udp, 4));
            if length < UDP || length > room && matches!(packet.fragment, Fragment::Whole) {
                return Err(Skip::BadUdpHeader);
            }
            packet.source_port = load16(udp, 0);
            packet.destination_port = load16(udp, 2);
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
