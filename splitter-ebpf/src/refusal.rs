//! The quick no: a RST, or ICMP port unreachable, written over the packet that is refused. All fields are listed in
//! `docs/packet-path.md`, section 5.

use crate::{
    address::Address,
    checksum::Delta,
    frame::Frame,
    header::{ETHERNET, Family, ICMP, IPV4, IPV6, Packet, TAG, TCP, protocol},
    rewrite::OutOfFrame,
    tcp::flag,
};

/// TTL and hop limit of what the node says itself.
const TTL: u8 = 64;

/// Most octets of the refused packet that an ICMP error quotes.
pub const QUOTE: usize = 136;

/// Octets by which the frame has to grow at its front for [`unreachable`].
#[inline(always)]
#[must_use]
pub const fn unreachable_growth(family: Family) -> usize {
    match family {
        Family::V4 => IPV4 + ICMP,
        Family::V6 => IPV6 + ICMP,
    }
}

/// Turns a TCP segment into the RST that answers it (RFC 9293, 3.10.7.1), and returns the length to cut the frame to. `packet` must not be
/// a RST itself.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn reset(frame: &mut impl Frame, packet: &Packet) -> Result<usize, OutOfFrame> {
    let network = packet.network_at();
    let segment: &[u8; TCP] = frame.get(packet.transport_at()).ok_or(OutOfFrame)?;
    let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    let acknowledgment = [segment[8], segment[9], segment[10], segment[11]];
    let header = u32::from(segment[12] >> 4) * 4;
    let payload = packet.length - (packet.transport - packet.network) - header;
    let (sequence, acknowledgment, flags) = if packet.flags & flag::ACK != 0 {
        (acknowledgment, [0; 4], flag::RST)
    } else {
        let length = payload + u32::from(packet.flags & flag::SYN != 0) + u32::from(packet.flags & flag::FIN != 0);
        ([0; 4], sequence.wrapping_add(length).to_be_bytes(), flag::RST | flag::ACK)
    };

    let header = write_network(frame, packet, network, TCP as u16, protocol::TCP)?;
    let mut tcp = [0; TCP];
    tcp[0..2].copy_from_slice(&packet.destination_port.to_ne_bytes());
    tcp[2..4].copy_from_slice(&packet.source_port.to_ne_bytes());
    tcp[4..8].copy_from_slice(&sequence);
    tcp[8..12].copy_from_slice(&acknowledgment);
    tcp[12] = (TCP as u8 / 4) << 4;
    tcp[13] = flags;
    let mut sum = pseudo_header(packet, TCP as u16, protocol::TCP);
    for pair in 0..TCP / 2 {
        sum = sum.add_word(u16::from_ne_bytes([tcp[2 * pair], tcp[2 * pair + 1]]));
    }
    tcp[16..18].copy_from_slice(&(!sum.fold()).to_ne_bytes());
    *frame.get_mut::<TCP>(network + header).ok_or(OutOfFrame)? = tcp;
    swap_macs(frame)?;
    Ok(network + header + TCP)
}

/// Turns a UDP datagram into the ICMP error that says that nobody listens, and returns the length to cut the frame to. `frame` has grown by
/// [`unreachable_growth`] at its front since `packet` was decoded from it.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn unreachable(frame: &mut impl Frame, packet: &Packet) -> Result<usize, OutOfFrame> {
    let growth = unreachable_growth(packet.family);
    let network = packet.network_at();
    move_link_header(frame, packet.tags, growth)?;
    let quoted = ((packet.transport - packet.network) as usize + 8).min(QUOTE);

    let (kind, code, number) = match packet.family {
        Family::V4 => (3, 3, protocol::ICMP),
        Family::V6 => (1, 4, protocol::ICMPV6),
    };
    let length = (ICMP + quoted) as u16;
    let header = write_network(frame, packet, network, length, number)?;
    let message = network + header;
    let mut sum = match packet.family {
        Family::V4 => Delta::ZERO,
        Family::V6 => pseudo_header(packet, length, number),
    };
    sum = sum.add_word(u16::from_ne_bytes([kind, code]));
    for word in 0..QUOTE / 4 {
        if word * 4 >= quoted {
            break;
        }
        let octets: &[u8; 4] = frame.get(message + ICMP + word * 4).ok_or(OutOfFrame)?;
        sum = sum.add_word(u16::from_ne_bytes([octets[0], octets[1]])).add_word(u16::from_ne_bytes([octets[2], octets[3]]));
    }
    let [low, high] = (!sum.fold()).to_ne_bytes();
    *frame.get_mut::<ICMP>(message).ok_or(OutOfFrame)? = [kind, code, low, high, 0, 0, 0, 0];
    swap_macs(frame)?;
    Ok(message + ICMP + quoted)
}

/// Writes a network header for an answer: the packet's addresses exchanged. Returns its length.
#[inline(always)]
fn write_network(frame: &mut impl Frame, packet: &Packet, at: usize, payload: u16, protocol: u8) -> Result<usize, OutOfFrame> {
    match packet.family {
        Family::V4 => {
            let mut ip = [0; IPV4];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(payload + IPV4 as u16).to_be_bytes());
            ip[6] = 0x40;
            ip[8] = TTL;
            ip[9] = protocol;
            ip[12..16].copy_from_slice(&packet.destination.v4_octets());
            ip[16..20].copy_from_slice(&packet.source.v4_octets());
            let mut sum = Delta::ZERO;
            for pair in 0..IPV4 / 2 {
                sum = sum.add_word(u16::from_ne_bytes([ip[2 * pair], ip[2 * pair + 1]]));
            }
            ip[10..12].copy_from_slice(&(!sum.fold()).to_ne_bytes());
            *frame.get_mut::<IPV4>(at).ok_or(OutOfFrame)? = ip;
            Ok(IPV4)
        }
        Family::V6 => {
            let mut ip = [0; IPV6];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&payload.to_be_bytes());
            ip[6] = protocol;
            ip[7] = TTL;
            ip[8..24].copy_from_slice(&packet.destination.octets());
            ip[24..40].copy_from_slice(&packet.source.octets());
            *frame.get_mut::<IPV6>(at).ok_or(OutOfFrame)? = ip;
            Ok(IPV6)
        }
    }
}

/// The sum over the pseudo header of an answer (RFC 9293, 3.1; RFC 8200, 8.1). The mapped prefixes of two IPv4 addresses have to be left out.
#[inline(always)]
fn pseudo_header(packet: &Packet, length: u16, protocol: u8) -> Delta {
    let half = |sum: Delta, word: u32| sum.add_word(word as u16).add_word((word >> 16) as u16);
    let whole = |sum: Delta, address: Address| match packet.family {
        Family::V4 => half(sum, (address.low >> 32) as u32),
        Family::V6 => half(
            half(half(half(sum, address.high as u32), (address.high >> 32) as u32), address.low as u32),
            (address.low >> 32) as u32,
        ),
    };
    whole(whole(Delta::ZERO, packet.source), packet.destination).add_word(length.to_be()).add_word(u16::from(protocol).to_be())
}

#[inline(always)]
fn swap_macs(frame: &mut impl Frame) -> Result<(), OutOfFrame> {
    let macs: &mut [u8; 12] = frame.get_mut(0).ok_or(OutOfFrame)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *macs;
    *macs = [g, h, i, j, k, l, a, b, c, d, e, f];
    Ok(())
}

/// Moves Ethernet header and tags to the front of a frame that has grown by `growth` octets.
#[inline(always)]
fn move_link_header(frame: &mut impl Frame, tags: u32, growth: usize) -> Result<(), OutOfFrame> {
    let ethernet = *frame.get::<ETHERNET>(growth).ok_or(OutOfFrame)?;
    *frame.get_mut::<ETHERNET>(0).ok_or(OutOfFrame)? = ethernet;
    for index in 0..2 {
        if index < tags as usize {
            let at = ETHERNET + index * TAG;
            let tag = *frame.get::<TAG>(growth + at).ok_or(OutOfFrame)?;
            *frame.get_mut::<TAG>(at).ok_or(OutOfFrame)? = tag;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;
    use crate::{
        frame::Octets,
        header::decode,
        tcp::flag::{ACK, FIN, RST, SYN},
        testing::{CLIENT_PORT, SERVICE_PORT, ethernet, ipv4, ipv6, is_right, tcp, udp},
    };

    #[test]
    fn a_segment_is_answered_as_rfc_9293_says() {
        // (why, flags, payload, flags of the answer, its sequence number, its acknowledgment number)
        type Row = (&'static str, u8, &'static [u8], u8, u32, u32);
        let rows: [Row; 6] = [
            ("SYN", SYN, b"", RST | ACK, 0, 1_001),
            ("SYN with data", SYN, b"12345", RST | ACK, 0, 1_006),
            ("data without ACK", 0, b"123", RST | ACK, 0, 1_003),
            ("FIN without ACK", FIN, b"123", RST | ACK, 0, 1_004),
            ("ACK", ACK, b"123", RST, 2_000, 0),
            ("FIN and ACK", FIN | ACK, b"", RST, 2_000, 0),
        ];
        for (why, flags, payload, answer, sequence, acknowledgment) in rows {
            for (tags, ethertype, network) in [
                (&[][..], 0x0800, ipv4(6, &[], &tcp(flags, payload))),
                (&[100], 0x0800, ipv4(6, &[1; 12], &tcp(flags, payload))),
                (&[100, 200], 0x86dd, ipv6(6, &tcp(flags, payload))),
                (&[], 0x86dd, ipv6(60, &[&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(flags, payload)].concat())),
            ] {
                let mut frame = ethernet(tags, ethertype, &network);
                let packet = decode(&Octets(&mut frame)).expect("a good frame");
                let length = reset(&mut Octets(&mut frame), &packet).expect("inside the frame");
                frame.truncate(length);
                let told = decode(&Octets(&mut frame)).expect("a good answer");
                assert_eq!((told.source, told.source_port), (packet.destination, SERVICE_PORT.to_be()), "{why}");
                assert_eq!((told.destination, told.destination_port), (packet.source, CLIENT_PORT.to_be()), "{why}");
                assert_eq!((told.flags, told.ttl, told.tags), (answer, 64, packet.tags), "{why}");
                let segment = &frame[told.transport as usize..];
                assert_eq!(segment.len(), 20, "{why}");
                assert_eq!(segment[4..8], sequence.to_be_bytes(), "{why}");
                assert_eq!(segment[8..12], acknowledgment.to_be_bytes(), "{why}");
                assert!(is_right(&frame, &told), "{why}");
                assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], "{why}");
            }
        }
    }

    #[test]
    fn a_datagram_is_answered_by_port_unreachable_that_quotes_it() {
        let options = |units: u8| [vec![17, units - 1], vec![0; usize::from(units) * 8 - 2]].concat();
        for (tags, ethertype, network, quoted) in [
            (&[][..], 0x0800, ipv4(17, &[], &udp(b"question")), 28),
            (&[1, 2], 0x0800, ipv4(17, &[1; 40], &udp(b"question")), 68),
            (&[1], 0x86dd, ipv6(17, &udp(b"question")), 48),
            (&[], 0x86dd, ipv6(60, &[options(11), udp(b"question")].concat()), 136),
            (&[], 0x86dd, ipv6(60, &[options(40), udp(b"question")].concat()), QUOTE),
        ] {
            let mut frame = ethernet(tags, ethertype, &network);
            let packet = decode(&Octets(&mut frame)).expect("a good frame");
            let mut grown: Vec<u8> = [vec![0xee; unreachable_growth(packet.family)], frame].concat();
            let length = unreachable(&mut Octets(&mut grown), &packet).expect("inside the frame");
            grown.truncate(length);
            let told = decode(&Octets(&mut grown)).expect("a good answer");
            assert_eq!((told.source, told.destination, told.ttl), (packet.destination, packet.source, 64));
            assert_eq!(told.tags, packet.tags);
            let kind = if ethertype == 0x0800 { [3, 3] } else { [1, 4] };
            let message = &grown[told.transport as usize..];
            assert_eq!(message[..2], kind);
            assert_eq!(message[8..], network[..quoted]);
            assert!(is_right(&grown, &told));
            assert_eq!(grown[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        }
    }

    #[test]
    fn nothing_is_written_outside_of_the_frame() {
        let mut frame = ethernet(&[], 0x0800, &ipv4(6, &[], &tcp(SYN, b"")));
        let packet = decode(&Octets(&mut frame)).expect("a good frame");
        frame.truncate(40);
        assert_eq!(reset(&mut Octets(&mut frame), &packet), Err(OutOfFrame));
    }
}
