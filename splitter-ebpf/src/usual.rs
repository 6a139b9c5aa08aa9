//! The usual packet: a whole TCP segment or UDP datagram on Ethernet without tags, in IPv4 without options or IPv6 without extensions.
//!
//! Nearly every packet is one, and all of its headers lie at places known beforehand. The readers here take no other, and say the same as [`header::decode`](crate::header::decode)
//! of those that they take: what is built on it may only do sooner what is done for every packet.

use crate::{
    address::Address,
    frame::{Octets, again, be16, load16, load32, load64},
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
pub struct Head<'a>(pub &'a [u8; UDP4]);

impl Head<'_> {
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

/// A usual packet, found whole and good. A field is read where it's asked for: that's one instruction, and to keep it until then would be two, for there are
/// more fields than registers.
pub trait Usual {
    /// Its family.
    const FAMILY: Family;
    /// Its protocol.
    const PROTOCOL: u8;

    /// [`Packet::source`].
    fn source(&self) -> Address;
    /// [`Packet::destination`].
    fn destination(&self) -> Address;
    /// [`Packet::source_port`].
    fn source_port(&self) -> u16;
    /// [`Packet::destination_port`].
    fn destination_port(&self) -> u16;
    /// [`Packet::identification`].
    fn identification(&self) -> u32;
    /// [`Packet::length`].
    fn length(&self) -> u32;
    /// [`Packet::data`].
    fn data(&self) -> u32;
    /// [`Packet::flags`].
    fn flags(&self) -> u8;
    /// [`Packet::ttl`].
    fn ttl(&self) -> u8;
    /// Its headers, to be read and written.
    fn head(&mut self) -> Octets<'_>;

    /// All of it.
    #[inline(always)]
    fn packet(&self) -> Packet {
        let network = match Self::FAMILY {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        };
        Packet {
            source: self.source(),
            destination: self.destination(),
            identification: self.identification(),
            length: self.length(),
            network: ETHERNET as u32,
            transport: (ETHERNET + network) as u32,
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            tags: 0,
            data: self.data(),
            family: Self::FAMILY,
            protocol: Self::PROTOCOL,
            flags: self.flags(),
            ttl: self.ttl(),
            fragment: Fragment::Whole,
        }
    }
}

/// One in IPv4, by the headers of TCP or of UDP: how many octets they are says which.
#[derive(Debug)]
pub struct V4<'a, const N: usize>(&'a mut [u8; N]);

/// One in IPv6, likewise.
#[derive(Debug)]
pub struct V6<'a, const N: usize>(&'a mut [u8; N]);

/// Fragment offset and "more fragments", as loaded.
const FRAGMENTED: u16 = 0x3fff_u16.to_be();

impl<'a, const N: usize> V4<'a, N> {
    const TRANSPORT: usize = N - ETHERNET - IPV4;

    /// The packet of these headers, of whose frame `linear` octets lie in its first piece. `None`: it isn't a usual packet, or not a good one.
    #[inline(always)]
    #[must_use]
    pub fn of(head: &'a mut [u8; N], linear: usize) -> Option<Self> {
        let length = usize::from(be16::<16, _>(head));
        let is_usual = head[14] == 0x45 && load16::<20, _>(head) & FRAGMENTED == 0;
        if !is_usual || linear < ETHERNET + length {
            return None;
        }
        let room = length as i64 - IPV4 as i64;
        let is_good = if Self::TRANSPORT == TCP { is_tcp(head[46], room) } else { is_udp(be16::<38, _>(head), room) };
        if is_good { Some(Self(head)) } else { None }
    }
}

impl<const N: usize> Usual for V4<'_, N> {
    const FAMILY: Family = Family::V4;
    const PROTOCOL: u8 = if Self::TRANSPORT == TCP { protocol::TCP } else { protocol::UDP };

    #[inline(always)]
    fn source(&self) -> Address {
        Address::v4_word(load32::<26, _>(self.0))
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address::v4_word(load32::<30, _>(self.0))
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        load16::<34, _>(self.0)
    }

    #[inline(always)]
    fn destination_port(&self) -> u16 {
        load16::<36, _>(self.0)
    }

    #[inline(always)]
    fn identification(&self) -> u32 {
        load16::<18, _>(self.0).into()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        be16::<16, _>(self.0).into()
    }

    #[inline(always)]
    fn data(&self) -> u32 {
        if Self::TRANSPORT == TCP { self.length() - IPV4 as u32 - tcp_header(self.0[46]) } else { 0 }
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        if Self::TRANSPORT == TCP { self.0[47] } else { 0 }
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.0[22]
    }

    #[inline(always)]
    fn head(&mut self) -> Octets<'_> {
        Octets(again(self.0))
    }
}

impl<'a, const N: usize> V6<'a, N> {
    const TRANSPORT: usize = N - ETHERNET - IPV6;

    /// As [`V4::of`].
    #[inline(always)]
    #[must_use]
    pub fn of(head: &'a mut [u8; N], linear: usize) -> Option<Self> {
        let payload = usize::from(be16::<18, _>(head));
        if head[14] >> 4 != 6 || linear < ETHERNET + IPV6 + payload {
            return None;
        }
        let room = payload as i64;
        let is_good = if Self::TRANSPORT == TCP { is_tcp(head[66], room) } else { is_udp(be16::<58, _>(head), room) };
        if is_good { Some(Self(head)) } else { None }
    }
}

impl<const N: usize> Usual for V6<'_, N> {
    const FAMILY: Family = Family::V6;
    const PROTOCOL: u8 = if Self::TRANSPORT == TCP { protocol::TCP } else { protocol::UDP };

    #[inline(always)]
    fn source(&self) -> Address {
        Address { high: load64::<22, _>(self.0), low: load64::<30, _>(self.0) }
    }

    #[inline(always)]
    fn destination(&self) -> Address {
        Address { high: load64::<38, _>(self.0), low: load64::<46, _>(self.0) }
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        load16::<54, _>(self.0)
    }

    #[inline(always)]
    fn destination_port(&self) -> u16 {
        load16::<56, _>(self.0)
    }

    #[inline(always)]
    fn identification(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        IPV6 as u32 + u32::from(be16::<18, _>(self.0))
    }

    #[inline(always)]
    fn data(&self) -> u32 {
        if Self::TRANSPORT == TCP { self.length() - IPV6 as u32 - tcp_header(self.0[66]) } else { 0 }
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        if Self::TRANSPORT == TCP { self.0[67] } else { 0 }
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.0[21]
    }

    #[inline(always)]
    fn head(&mut self) -> Octets<'_> {
        Octets(again(self.0))
    }
}

/// Octets of a TCP header, by the octet that says.
#[inline(always)]
const fn tcp_header(offset: u8) -> u32 {
    (offset >> 4) as u32 * 4
}

/// Whether a TCP header that says so lies in the octets that there are: fewer than none, where a packet ends within its network header.
#[inline(always)]
fn is_tcp(offset: u8, room: i64) -> bool {
    let header = i64::from(tcp_header(offset));
    header >= TCP as i64 && header <= room
}

/// Whether a UDP datagram that says so does.
#[inline(always)]
fn is_udp(length: u16, room: i64) -> bool {
    let length = i64::from(length);
    length >= UDP as i64 && length <= room
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        frame::Frame,
        header,
        testing::{ethernet, ipv4, ipv6, tcp, udp},
    };

    fn usual(octets: &mut [u8]) -> Option<Packet> {
        let linear = octets.len();
        let mut frame = Octets(octets);
        let head = Head(frame.get(0)?);
        match (head.protocol4(), head.protocol6()) {
            (Some(protocol::TCP), None) => V4::<TCP4>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
            (Some(protocol::UDP), None) => V4::<UDP4>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
            (None, Some(protocol::TCP)) => V6::<TCP6>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
            (None, Some(protocol::UDP)) => V6::<UDP6>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
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
