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
    let icmp: &[u8; ICMP] = frame.get(packet.transport as usize).ok_or(Skip::TruncatedIcmp)?;
    let code = icmp[1];
    let at = packet.transport as usize + ICMP;
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
            if be16(ip, 6) & 0x1fff != 0 {
                return Err(Skip::IcmpUnrelated);
            }
            let source = Address::v4_word(load32(ip, 12));
            let destination = Address::v4_word(load32(ip, 16));
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
                if be16(fragment, 2) & 0xfff8 != 0 {
                    return Err(Skip::IcmpUnrelated);
                }
                next = fragment[0];
                transport += 8;
            }
            let source = Address { high: load64(ip, 8), low: load64(ip, 16) };
            let destination = Address { high: load64(ip, 24), low: load64(ip, 32) };
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
        source: End { address: source, port: load16(ports, 0) },
        destination: End { address: destination, port: load16(ports, 2) },
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
            let old = load16(ip, 10);
            let new = addresses.update(old);
            store16(ip, 10, new);
            store32(ip, 12, to.quoted_source.address.to_v4_word());
            store32(ip, 16, to.quoted_destination.address.to_v4_word());
            message = message.word(old, new);
        }
        Family::V6 => {
            let ip: &mut [u8; 40] = frame.get_mut(at).ok_or(OutOfFrame)?;
            store64(ip, 8, to.quoted_source.address.high);
            store64(ip, 16, to.quoted_source.address.low);
            store64(ip, 24, to.quoted_destination.address.high);
            store64(ip, 32, to.quoted_destination.address.low);
            // ICMPv6 sums a pseudo header too (RFC 4443, 2.3), and so covers the outer addresses.
            message = message.and(outer);
        }
    }

    let at = quote.transport as usize;
    let head: &mut [u8; 4] = frame.get_mut(at).ok_or(OutOfFrame)?;
    store16(head, 0, to.quoted_source.port);
    store16(head, 2, to.quoted_destination.port);
    let (checksum_at, is_udp) = if quote.protocol == protocol::UDP { (6, true) } else { (16, false) };
    if quote.room >= checksum_at + 2 {
        let field: &mut [u8; 2] = frame.get_mut(at + checksum_at as usize).ok_or(OutOfFrame)?;
        let old = u16::from_ne_bytes(*field);
        let change = addresses.and(ports);
        let new = if is_udp { udp_checksum(old, change) } else { change.update(old) };
        *field = new.to_ne_bytes();
        message = message.word(old, new);
    }

    let field: &mut [u8; 2] = frame.get_mut(packet.transport as usize + 2).ok_or(OutOfFrame)?;
    *field = message.update(u16::from_ne_bytes(*field)).to_ne_bytes();
    Ok(())
}
