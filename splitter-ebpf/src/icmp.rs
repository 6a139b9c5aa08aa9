//! ICMP and ICMPv6 errors: whose packet do they quote, and what has to be written so that they arrive (RFC 792, RFC 4443, RFC 5508).

use crate::{
    address::Address,
    checksum::Delta,
    frame::{Frame, be16, load16, load32, load64, store16, store32, store64},
    header::{Family, ICMP, IPV4, IPV6, Packet, protocol},
    reason::Skip,
    rewrite::{End, OutOfFrame, network, udp_checksum},
};

/// Whether a message of this type quotes the packet that it is about.
#[inline(always)]
#[must_use]
pub const fn is_error(family: Family, kind: u8) -> bool {
    match family {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        Family::V4 => matches!(kind, 3 | 4 | 11 | 12),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        Family::V6 => matches!(kind, 1..=4),
    }
}

/// Whether the error says that nobody listens on the port: ICMP 3/3, ICMPv6 1/4.
#[inline(always)]
#[must_use]
pub const fn is_port_unreachable(family: Family, kind: u8, code: u8) -> bool {
    match family {
        Family::V4 => kind == 3 && code == 3,
        Family::V6 => kind == 1 && code == 4,
    }
}

/// Whether the error says that the destination can't be reached, or not by this protocol or port: ICMP 3 but for "fragmentation needed", ICMPv6 1.
#[inline(always)]
#[must_use]
pub const fn is_unreachable(family: Family, kind: u8, code: u8) -> bool {
    match family {
        Family::V4 => kind == 3 && code != 4,
        Family::V6 => kind == 1,
    }
}

/// The packet that an error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote {
    /// Who sent the quoted packet.
    pub source: End,
    /// Whom it was for.
    pub destination: End,
    /// Its network header, from the frame's first octet.
    pub network: u32,
    /// Its transport header.
    pub transport: u32,
    /// Octets of its transport header that the quote holds.
    pub room: u32,
    /// TCP or UDP.
    pub protocol: u8,
    /// The error's code.
    pub code: u8,
}

/// Reads what an error quotes.
///
/// # Errors
/// Not an error message; a quote that is cut short; a quote of another protocol or of a later fragment.
#[inline(always)]
pub fn quote(frame: &impl Frame, packet: &Packet) -> Result<Quote, Skip> {
    if !is_error(packet.family, packet.flags) {
        return Err(Skip::IcmpNotError);
    }
    let icmp: &[u8; ICMP] = frame.get(packet.transport_at()).ok_or(Skip::TruncatedIcmp)?;
    let code = icmp[1];
    let at = packet.transport_at() + ICMP;
    let end = (packet.network + packet.length) as usize;
    let cut = Skip::IcmpTruncatedQuote;
    let (source, destination, protocol, transport) = match packet.family {
        Family::V4 => {
            if at + IPV4 > end {
                return Err(cut);
            }
            let ip: &[u8; IPV4] = frame.get(at).ok_or(cut)?;
            let header = usize::from(ip[0] & 0x0f) * 4;
            if ip[0] >> 4 != 4 || header < IPV4 {
                return Err(cut);
            }
            if be16::<6, _>(ip) & 0x1fff != 0 {
                return Err(Skip::IcmpUnrelated);
            }
            let source = Address::v4_word(load32::<12, _>(ip));
            let destination = Address::v4_word(load32::<16, _>(ip));
            (source, destination, ip[9], at + header)
        }
        Family::V6 => {
            if at + IPV6 > end {
                return Err(cut);
            }
            let ip: &[u8; IPV6] = frame.get(at).ok_or(cut)?;
            if ip[0] >> 4 != 6 {
                return Err(cut);
            }
            let (mut next, mut transport) = (ip[6], at + IPV6);
            if next == 44 {
                if transport + 8 > end {
                    return Err(cut);
                }
                let fragment: &[u8; 8] = frame.get(transport).ok_or(cut)?;
                if be16::<2, _>(fragment) & 0xfff8 != 0 {
                    return Err(Skip::IcmpUnrelated);
                }
                next = fragment[0];
                transport += 8;
            }
            let source = Address { high: load64::<8, _>(ip), low: load64::<16, _>(ip) };
            let destination = Address { high: load64::<24, _>(ip), low: load64::<32, _>(ip) };
            (source, destination, next, transport)
        }
    };
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Err(Skip::IcmpUnrelated);
    }
    if transport + 8 > end {
        return Err(cut);
    }
    let ports: &[u8; 4] = frame.get(transport).ok_or(cut)?;
    Ok(Quote {
        source: End { address: source, port: load16::<0, _>(ports) },
        destination: End { address: destination, port: load16::<2, _>(ports) },
        network: at as u32,
        transport: transport as u32,
        room: (end - transport) as u32,
        protocol,
        code,
    })
}

/// Where a translated error goes, and what it quotes then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The error's own source.
    pub source: Address,
    /// The error's own destination.
    pub destination: Address,
    /// The quoted packet's source.
    pub quoted_source: End,
    /// The quoted packet's destination.
    pub quoted_destination: End,
}

/// Writes a translated error: its own addresses and TTL, those that it quotes, and every checksum that covers them.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn translate(frame: &mut impl Frame, packet: &Packet, quote: &Quote, to: &Translation) -> Result<(), OutOfFrame> {
    let outer = Delta::ZERO.address(packet.source, to.source).address(packet.destination, to.destination);
    network(frame, packet, to.source, to.destination, outer)?;

    let addresses = Delta::ZERO
        .address(quote.source.address, to.quoted_source.address)
        .address(quote.destination.address, to.quoted_destination.address);
    let ports =
        Delta::ZERO.word(quote.source.port, to.quoted_source.port).word(quote.destination.port, to.quoted_destination.port);
    let mut message = addresses.and(ports);

    let at = quote.network as usize;
    match packet.family {
        Family::V4 => {
            let ip: &mut [u8; 20] = frame.get_mut(at).ok_or(OutOfFrame)?;
            let old = load16::<10, _>(ip);
            let new = addresses.update(old);
            store16::<10, _>(ip, new);
            store32::<12, _>(ip, to.quoted_source.address.to_v4_word());
            store32::<16, _>(ip, to.quoted_destination.address.to_v4_word());
            message = message.word(old, new);
        }
        Family::V6 => {
            let ip: &mut [u8; 40] = frame.get_mut(at).ok_or(OutOfFrame)?;
            store64::<8, _>(ip, to.quoted_source.address.high);
            store64::<16, _>(ip, to.quoted_source.address.low);
            store64::<24, _>(ip, to.quoted_destination.address.high);
            store64::<32, _>(ip, to.quoted_destination.address.low);
            // ICMPv6 sums a pseudo header too (RFC 4443, 2.3), and so covers the outer addresses.
            message = message.and(outer);
        }
    }

    let at = quote.transport as usize;
    let head: &mut [u8; 4] = frame.get_mut(at).ok_or(OutOfFrame)?;
    store16::<0, _>(head, to.quoted_source.port);
    store16::<2, _>(head, to.quoted_destination.port);
    let (checksum_at, is_udp) = if quote.protocol == protocol::UDP { (6, true) } else { (16, false) };
    if quote.room >= checksum_at + 2 {
        let field: &mut [u8; 2] = frame.get_mut(at + checksum_at as usize).ok_or(OutOfFrame)?;
        let old = u16::from_ne_bytes(*field);
        let change = addresses.and(ports);
        let new = if is_udp { udp_checksum(old, change) } else { change.update(old) };
        *field = new.to_ne_bytes();
        message = message.word(old, new);
    }

    let field: &mut [u8; 2] = frame.get_mut(packet.transport_at() + 2).ok_or(OutOfFrame)?;
    *field = message.update(u16::from_ne_bytes(*field)).to_ne_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::{
        frame::Octets,
        header::decode,
        testing::{
            CLIENT_PORT, CLIENT4, CLIENT6, SERVICE_PORT, SERVICE4, end4, end6, ethernet, finish, ipv4, ipv6, is_right, tcp, udp,
        },
    };

    /// An error of this type that quotes these octets, in a frame.
    fn error(kind: u8, quoted: &[u8], ipv4_error: bool) -> Vec<u8> {
        let message = [&[kind, 3, 0, 0, 0, 0, 5, 0xdc][..], quoted].concat();
        let mut packet = if ipv4_error { ipv4(1, &[], &message) } else { ipv6(58, &message) };
        let (transport, protocol, ethertype) = if ipv4_error { (20, 1, 0x0800) } else { (40, 58, 0x86dd) };
        finish(&mut packet, transport, protocol);
        ethernet(&[], ethertype, &packet)
    }

    fn read(mut frame: Vec<u8>) -> Result<Quote, Skip> {
        let frame = Octets(&mut frame);
        quote(&frame, &decode(&frame)?)
    }

    #[test]
    fn a_quote_says_whose_it_is_or_why_not() {
        let tcp4 = ipv4(6, &[1; 4], &tcp(0x10, b"")[..8]);
        let found = read(error(3, &tcp4, true)).expect("a good quote");
        let expected = Quote {
            source: end4(CLIENT4, CLIENT_PORT),
            destination: end4(SERVICE4, SERVICE_PORT),
            network: 42,
            transport: 66,
            room: 8,
            protocol: protocol::TCP,
            code: 3,
        };
        assert_eq!(found, expected);
        let fragment6 = ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp(b"")].concat());
        let found = read(error(2, &fragment6, false)).expect("a first fragment");
        assert_eq!((found.source, found.transport), (end6(CLIENT6, CLIENT_PORT), 14 + 40 + 8 + 48));

        let later4 = {
            let mut packet = ipv4(6, &[], &tcp(0, b""));
            packet[7] = 1;
            packet
        };
        let later6 = ipv6(44, &[&[17, 0, 0, 8, 0, 0, 0, 9][..], &udp(b"")].concat());
        let with = |mut octets: Vec<u8>, value| {
            octets[0] = value;
            octets
        };
        let rows = [
            ("echo", error(8, &tcp4, true), Skip::IcmpNotError),
            ("ICMPv6 echo", error(128, &fragment6, false), Skip::IcmpNotError),
            ("19 octets", error(3, &tcp4[..19], true), Skip::IcmpTruncatedQuote),
            ("7 octets of TCP", error(3, &tcp4[..31], true), Skip::IcmpTruncatedQuote),
            ("IPv6 quoted by ICMP", error(3, &fragment6, true), Skip::IcmpTruncatedQuote),
            ("IHL 4", error(3, &with(tcp4.clone(), 0x44), true), Skip::IcmpTruncatedQuote),
            ("IPv4 quoted by ICMPv6", error(1, &tcp4, false), Skip::IcmpTruncatedQuote),
            ("39 octets", error(1, &fragment6[..39], false), Skip::IcmpTruncatedQuote),
            ("half a fragment header", error(1, &fragment6[..44], false), Skip::IcmpTruncatedQuote),
            ("a later fragment", error(3, &later4, true), Skip::IcmpUnrelated),
            ("a later fragment of IPv6", error(1, &later6, false), Skip::IcmpUnrelated),
            ("GRE", error(11, &ipv4(47, &[], &[]), true), Skip::IcmpUnrelated),
            ("an extension header", error(1, &ipv6(60, &[6, 0, 1, 4, 0, 0, 0, 0]), false), Skip::IcmpUnrelated),
        ];
        for (why, frame, reason) in rows {
            assert_eq!(read(frame), Err(reason), "{why}");
        }
    }

    #[test]
    fn a_translated_error_is_right_inside_and_out() {
        for (ipv4_error, quoted_protocol, held) in
            [(true, 6, 200), (true, 17, 200), (true, 6, 28), (false, 6, 200), (false, 17, 200), (false, 6, 48)]
        {
            let transport = if quoted_protocol == 6 { tcp(0x18, b"hello!") } else { udp(b"hello!") };
            let (mut quoted, header) =
                if ipv4_error { (ipv4(quoted_protocol, &[], &transport), 20) } else { (ipv6(quoted_protocol, &transport), 40) };
            finish(&mut quoted, header, quoted_protocol);
            quoted.truncate(held);
            let is_whole = quoted.len() > header + 8;
            let mut frame = error(1 + 2 * u8::from(ipv4_error), &quoted, ipv4_error);
            let mut octets = Octets(&mut frame);
            let packet = decode(&octets).expect("a good frame");
            let quote = super::quote(&octets, &packet).expect("a good quote");
            let (nat, backend) = if ipv4_error {
                (end4([10, 0, 0, 250], 20_000), end4([10, 0, 0, 5], 8_080))
            } else {
                (end6([0xfd; 16], 20_000), end6([0xfe; 16], 8_080))
            };
            let to = Translation {
                source: nat.address,
                destination: backend.address,
                quoted_source: backend,
                quoted_destination: nat,
            };
            translate(&mut octets, &packet, &quote, &to).expect("inside the frame");
            let sent = decode(&octets).expect("still a good frame");
            assert_eq!((sent.source, sent.destination, sent.ttl), (nat.address, backend.address, 63));
            assert!(is_right(octets.0, &sent), "the error's own checksums");
            let after = super::quote(&octets, &sent).expect("still a good quote");
            assert_eq!((after.source, after.destination), (backend, nat));
            if is_whole {
                // The quote in a frame of its own.
                let mut inner = ethernet(&[], if ipv4_error { 0x0800 } else { 0x86dd }, &octets.0[quote.network as usize..]);
                let packet = decode(&Octets(&mut inner)).expect("a good packet");
                assert!(is_right(&inner, &packet), "the quoted checksums");
            }
        }
    }

    #[test]
    fn port_unreachable_is_told_from_the_rest() {
        assert!(is_port_unreachable(Family::V4, 3, 3) && is_port_unreachable(Family::V6, 1, 4));
        assert!(
            !is_port_unreachable(Family::V4, 3, 4)
                && !is_port_unreachable(Family::V4, 1, 4)
                && !is_port_unreachable(Family::V6, 3, 3)
        );
        assert!(is_unreachable(Family::V4, 3, 1) && is_unreachable(Family::V4, 3, 13) && is_unreachable(Family::V6, 1, 0));
        assert!(!is_unreachable(Family::V4, 3, 4) && !is_unreachable(Family::V4, 11, 0) && !is_unreachable(Family::V6, 2, 0));
        assert_eq!((0..=255).filter(|kind| is_error(Family::V4, *kind)).count(), 4);
        assert_eq!((0..=255).filter(|kind| is_error(Family::V6, *kind)).count(), 4);
    }
}
