//! Frames: built field by field, generated at random, and read back from scratch.
//!
//! Nothing here shares code with the XDP program: checksums are summed over whole packets, headers are read at offsets
//! into a slice. Slow and plain on purpose, for the oracle stands on it.

pub mod build;
pub mod checksum;
pub mod generate;
pub mod parse;

#[cfg(test)]
pub(crate) mod known_answers;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use build::{Checksum, Extension, Icmp, Ipv4, Ipv6, Network, Packet, Tag, Tcp, Transport, Udp, Units};

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of an IEEE 802.1Q tag.
pub const ETHERTYPE_8021Q: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad (service) tag.
pub const ETHERTYPE_8021AD: u16 = 0x88a8;

/// IANA protocol number: IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IANA protocol number: ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number: TCP.
pub const TCP: u8 = 6;
/// IANA protocol number: UDP.
pub const UDP: u8 = 17;
/// IANA protocol number: IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IANA protocol number: IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// IANA protocol number: `ICMPv6`.
pub const ICMPV6: u8 = 58;
/// IANA protocol number: IPv6 destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address that ends in `number`, big-endian.
    #[must_use]
    pub const fn local(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([0x02, 0, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Puts `value` big-endian at `at`.
///
/// # Panics
/// When the two octets are not inside.
pub fn put_u16(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The big-endian number at `at`.
///
/// # Panics
/// When the two octets are not inside.
#[must_use]
pub fn get_u16(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

/// The big-endian number at `at`.
///
/// # Panics
/// When the four octets are not inside.
#[must_use]
pub fn get_u32(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}
