//! The usual packet: a whole TCP segment or UDP datagram on Ethernet without tags, in IPv4 without options or IPv6 without extensions.
//!
//! Nearly every packet is one, and all of its headers lie at places known beforehand. The readers here take no other, and say the same as [`header::decode`](crate::header::decode)
//! of those that they take: what is built on it may only do sooner what is done for every packet.

use crate::{
    address::Address,
    frame::{Frame, be16, load16, load32, load64},
    header::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, Fragment, IPV4, IPV6, Packet, TCP, UDP, protocol},
};

/// Octets of the headers of TCP in IPv4.
pub const TCP4: usize = ETHERNET + IPV4 + TCP;
/// Octets of the headers of UDP in IPv4.
pub const UDP4: usize = ETHERNET + IPV4 + UDP;
/// Octets of the headers of TCP in IPv6.
pub const TCP6: usize = ETHERNET + IPV6 + TCP;
/// Octets of the headers of UDP in IPv6.
pub const UDP6: usize = ETHERNET + IPV6 + UDP;

/// The headers of the shortest of the four kinds, by which they are told apart: each reader takes only its own.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a>(&'a [u8; UDP4]);

impl<'a> Head<'a> {
    /// A frame's.
    #[inline(always)]
    pub fn of(frame: &'a impl Frame) -> Option<Self> {
        frame.get(0).map(Self)
    }

    /// The protocol, if it's IPv4.
    #[inline(always)]
    #[must_use]
    pub fn protocol4(self) -> Option<u8> {
        if load16::<12, _>(self.0) == ETHERTYPE_IPV4 { Some(self.0[ETHERNET + 9]) } else { None }
    }

    /// The next header, if it's IPv6.
    #[inline(always)]
    #[must_use]
    pub fn protocol6(self) -> Option<u8> {
        if load16::<12, _>(self.0) == ETHERTYPE_IPV6 { Some(self.0[ETHERNET + 6]) } else { None }
    }
}

/// Reads a frame with TCP in IPv4, of which `linear` octets lie in its first piece. `None`: it isn't a usual packet, or not a good one.
#[inline(always)]
pub fn tcp4(head: &[u8; TCP4], linear: usize) -> Option<Packet> {
    tcp(ipv4(head, linear, protocol::TCP, TCP)?, head[46], IPV4, head[47], load32::<34, _>(head))
}

/// The same for UDP in IPv4.
#[inline(always)]
pub fn udp4(head: &[u8; UDP4], linear: usize) -> Option<Packet> {
    udp(ipv4(head, linear, protocol::UDP, UDP)?, be16::<38, _>(head), IPV4, load32::<34, _>(head))
}

/// The same for TCP in IPv6.
#[inline(always)]
pub fn tcp6(head: &[u8; TCP6], linear: usize) -> Option<Packet> {
    tcp(ipv6(head, linear, protocol::TCP, TCP)?, head[66], IPV6, head[67], load32::<54, _>(head))
}

/// The same for UDP in IPv6.
#[inline(always)]
pub fn udp6(head: &[u8; UDP6], linear: usize) -> Option<Packet> {
    udp(ipv6(head, linear, protocol::UDP, UDP)?, be16::<58, _>(head), IPV6, load32::<54, _>(head))
}

/// Fragment offset and "more fragments", as loaded.
const FRAGMENTED: u16 = 0x3fff_u16.to_be();

#[inline(always)]
fn ipv4<const N: usize>(head: &[u8; N], linear: usize, protocol: u8, transport: usize) -> Option<Packet> {
    let length = usize::from(be16::<16, _>(head));
    let is_usual = head[14] == 0x45 && load16::<20, _>(head) & FRAGMENTED == 0;
    if !is_usual || length < IPV4 + transport || linear < ETHERNET + length {
        return None;
    }
    Some(Packet {
        source: Address::v4_word(load32::<26, _>(head)),
        destination: Address::v4_word(load32::<30, _>(head)),
        identification: u32::from(load16::<18, _>(head)),
        length: length as u32,
        transport: (ETHERNET + IPV4) as u32,
        family: Family::V4,
        ttl: head[22],
        ..whole(protocol)
    })
}

#[inline(always)]
fn ipv6<const N: usize>(head: &[u8; N], linear: usize, protocol: u8, transport: usize) -> Option<Packet> {
    let payload = usize::from(be16::<18, _>(head));
    if head[14] >> 4 != 6 || payload < transport || linear < ETHERNET + IPV6 + payload {
        return None;
    }
    Some(Packet {
        source: Address { high: load64::<22, _>(head), low: load64::<30, _>(head) },
        destination: Address { high: load64::<38, _>(head), low: load64::<46, _>(head) },
        length: (IPV6 + payload) as u32,
        transport: (ETHERNET + IPV6) as u32,
        family: Family::V6,
        ttl: head[21],
        ..whole(protocol)
    })
}

/// What is the same for all.
#[inline(always)]
const fn whole(protocol: u8) -> Packet {
    Packet {
        source: Address { high: 0, low: 0 },
        destination: Address { high: 0, low: 0 },
        identification: 0,
        length: 0,
        network: ETHERNET as u32,
        transport: 0,
        source_port: 0,
        destination_port: 0,
        tags: 0,
        data: 0,
        family: Family::V4,
        protocol,
        flags: 0,
        ttl: 0,
        fragment: Fragment::Whole,
    }
}

/// `offset` and `flags` are the octets of these names, `ports` both ports as loaded.
#[inline(always)]
const fn tcp(packet: Packet, offset: u8, network: usize, flags: u8, ports: u32) -> Option<Packet> {
    let (header, room) = ((offset >> 4) as usize * 4, packet.length as usize - network);
    if header < TCP || header > room {
        return None;
    }
    Some(Packet { flags, data: (room - header) as u32, ..with_ports(packet, ports) })
}

/// `length` is the field of this name.
#[inline(always)]
const fn udp(packet: Packet, length: u16, network: usize, ports: u32) -> Option<Packet> {
    let length = length as usize;
    if length < UDP || length > packet.length as usize - network { None } else { Some(with_ports(packet, ports)) }
}

#[inline(always)]
const fn with_ports(packet: Packet, ports: u32) -> Packet {
    Packet { source_port: ports as u16, destination_port: (ports >> 16) as u16, ..packet }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        frame::Octets,
        header,
        testing::{ethernet, ipv4, ipv6, tcp, udp},
    };

    fn usual(octets: &mut [u8]) -> Option<Packet> {
        let linear = octets.len();
        let frame = Octets(octets);
        let head = Head::of(&frame)?;
        match (head.protocol4(), head.protocol6()) {
            (Some(protocol::TCP), None) => tcp4(frame.get(0)?, linear),
            (Some(protocol::UDP), None) => udp4(frame.get(0)?, linear),
            (None, Some(protocol::TCP)) => tcp6(frame.get(0)?, linear),
            (None, Some(protocol::UDP)) => udp6(frame.get(0)?, linear),
            _ => None,
        }
    }

    /// One of each kind, then one of each with what no usual packet has.
    fn frames(payload: &[u8], flags: u8) -> [Vec<u8>; 8] {
        let (segment, datagram) = (tcp(flags, payload), udp(payload));
        let options = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &segment].concat();
        [
            ethernet(&[], 0x0800, &ipv4(6, &[], &segment)),
            ethernet(&[], 0x0800, &ipv4(17, &[], &datagram)),
            ethernet(&[], 0x86dd, &ipv6(6, &segment)),
            ethernet(&[], 0x86dd, &ipv6(17, &datagram)),
            ethernet(&[100], 0x0800, &ipv4(6, &[], &segment)),
            ethernet(&[], 0x0800, &ipv4(6, &[1; 8], &segment)),
            ethernet(&[], 0x86dd, &ipv6(60, &options)),
            ethernet(&[], 0x0800, &ipv4(1, &[], &datagram)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_usual_is_taken_and_nothing_else_is(payload: [u8; 9], flags: u8) {
            for (index, mut frame) in frames(&payload, flags).into_iter().enumerate() {
                prop_assert_eq!(usual(&mut frame).is_some(), index < 4, "frame {}", index);
            }
        }

        #[test]
        fn whatever_is_taken_says_what_the_decoder_says(
            which in 0_usize..8, payload: [u8; 9], flags: u8, changes in prop::collection::vec((12_usize..80, any::<u8>()), 0..4), cut in 0_usize..90,
        ) {
            let mut frame = frames(&payload, flags)[which].clone();
            frame.truncate(frame.len().min(cut + 20));
            for (at, value) in changes {
                if let Some(octet) = frame.get_mut(at) {
                    *octet = value;
                }
            }
            if let Some(packet) = usual(&mut frame) {
                prop_assert_eq!(header::decode(&Octets(&mut frame)), Ok(packet));
            }
        }
    }
}
