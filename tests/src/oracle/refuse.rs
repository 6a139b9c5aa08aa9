//! Section 5 of the page: what a client is told when its packet is refused.

use bytes::Bytes;

use crate::packet::parse::{Tcp, Transport, View};
use crate::packet::{ACK, FIN, Packet, RST, SYN, Tag, get_u16};

/// Most octets of a packet that an ICMP error of the node quotes.
const QUOTE: usize = 136;

/// The frame that refuses this one; `None` for an RST, which is never answered, and for what has no ports.
pub(super) fn refusal(frame: &[u8], view: &View) -> Option<Bytes> {
    let answer = match view.transport {
        Transport::Tcp(tcp) if tcp.flags & RST != 0 => return None,
        Transport::Tcp(tcp) => reset(view, tcp)?,
        Transport::Udp(_) => unreachable(frame, view),
        Transport::Icmp { .. } | Transport::None => return None,
    };
    let mut answer = answer.ethernet(view.source, view.destination).ttl(64).v4(|ip| ip.dont_fragment = true);
    // The EtherType that announces tag i stands before it.
    answer.tags = view.tags.iter().enumerate().map(|(i, tci)| Tag { ethertype: get_u16(frame, 12 + 4 * i), tci: *tci }).collect();
    Some(answer.build())
}

/// RFC 9293, 3.10.7.1.
fn reset(view: &View, tcp: Tcp) -> Option<Packet> {
    let (source, destination) = view.endpoints()?;
    let control = u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
    let payload = u32::try_from(view.ip.end - view.ip.payload - tcp.header).ok()?;
    let (flags, sequence, acknowledgement) = if tcp.flags & ACK != 0 {
        (RST, tcp.acknowledgement, 0)
    } else {
        (RST | ACK, 0, tcp.sequence.wrapping_add(payload).wrapping_add(control))
    };
    Some(Packet::tcp(destination, source, flags).with_tcp(|answer| {
        (answer.sequence, answer.acknowledgement, answer.window) = (sequence, acknowledgement, 0);
    }))
}

/// RFC 792 and RFC 4443, 3.1: port unreachable.
fn unreachable(frame: &[u8], view: &View) -> Packet {
    let ip = &view.ip;
    let (kind, code) = if ip.is_ipv4() { (3, 3) } else { (1, 4) };
    let quote = Bytes::copy_from_slice(&frame[ip.at..(ip.payload + 8).min(ip.at + QUOTE)]);
    Packet::icmp(ip.destination, ip.source, kind, code, quote)
}
