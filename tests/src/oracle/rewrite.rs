//! Sections 4, 6, 7 and 8 of the page: what a forwarded frame looks like.
//!
//! Fields are set in a copy of the frame; checksums are then computed from scratch over the old and the new octets. Where
//! the old one was right, the new one must be; where it was wrong, the new one must be wrong by the same amount.

use std::net::{IpAddr, SocketAddr};

use crate::packet::parse::{Quote, Transport, View, parse_quote};
use crate::packet::{ICMPV6, Mac, TCP, UDP, checksum, get_u16, put_u16};

/// The way that a frame leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Interface index.
    pub interface: u32,
    /// Source Ethernet address.
    pub source: Mac,
    /// Destination Ethernet address.
    pub destination: Mac,
    /// What the tags' VLAN IDs become, outermost first; those of tags behind these stay.
    pub vlans: Vec<u16>,
}

/// What changes behind the Ethernet header and its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing: `dsr`.
    Nothing,
    /// TTL, addresses, ports and their checksums.
    Flow {
        /// New source; `None`: any free port of a NAT address, for the program to choose.
        source: Option<SocketAddr>,
        /// New destination.
        destination: SocketAddr,
    },
    /// TTL, addresses and the IPv4 header's checksum: a later fragment.
    Addresses {
        /// New source.
        source: IpAddr,
        /// New destination.
        destination: IpAddr,
    },
    /// TTL and addresses of an ICMP error, addresses and ports of the packet it quotes.
    Error {
        /// New source.
        source: IpAddr,
        /// New destination.
        destination: IpAddr,
        /// New source in the quote.
        quoted_source: SocketAddr,
        /// New destination in the quote.
        quoted_destination: SocketAddr,
    },
}

/// A checksum that need only be equal modulo 0xffff, for it was wrong (or its other spelling) before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Congruent {
    pub at: usize,
    /// Zero would mean "none" (UDP).
    pub not_zero: bool,
}

/// A frame as it must leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub octets: Vec<u8>,
    pub congruent: Vec<Congruent>,
}

/// Makes the frame that must leave. `chosen` is the source for a [`Translation::Flow`] that leaves it open.
pub(super) fn render(frame: &[u8], view: &View, path: &Path, translation: &Translation, chosen: Option<SocketAddr>) -> Rendered {
    let mut out = Rewriting { before: frame, octets: frame.to_vec(), congruent: Vec::new() };
    out.octets[0..6].copy_from_slice(&path.destination.0);
    out.octets[6..12].copy_from_slice(&path.source.0);
    for (tag, (vlan, tci)) in path.vlans.iter().zip(&view.tags).enumerate() {
        put_u16(&mut out.octets, 14 + 4 * tag, tci & 0xf000 | vlan);
    }
    match *translation {
        Translation::Nothing => {}
        Translation::Flow { source, destination } => {
            let source = source.or(chosen).expect("the caller read the chosen source from what it observed");
            out.network(view, source.ip(), destination.ip());
            put_u16(&mut out.octets, view.ip.payload, source.port());
            put_u16(&mut out.octets, view.ip.payload + 2, destination.port());
            out.transport(view, source.ip(), destination.ip());
        }
        Translation::Addresses { source, destination } => out.network(view, source, destination),
        Translation::Error { source, destination, quoted_source, quoted_destination } => {
            out.network(view, source, destination);
            out.quote(view, quoted_source, quoted_destination);
            out.icmp(view, source, destination);
        }
    }
    Rendered { octets: out.octets, congruent: out.congruent }
}

struct Rewriting<'a> {
    before: &'a [u8],
    octets: Vec<u8>,
    congruent: Vec<Congruent>,
}

impl Rewriting<'_> {
    fn network(&mut self, view: &View, source: IpAddr, destination: IpAddr) {
        let ip = &view.ip;
        self.octets[ip.ttl_at()] = ip.ttl - 1;
        put_address(&mut self.octets, ip.source_at(), source);
        put_address(&mut self.octets, ip.destination_at(), destination);
        if ip.is_ipv4() {
            self.ipv4_checksum(ip.at, ip.payload);
        }
    }

    fn ipv4_checksum(&mut self, start: usize, end: usize) {
        let scratch = |octets: &[u8]| checksum::plain(&octets[start..end], 10);
        let (before, after) = (scratch(self.before), scratch(&self.octets));
        self.settle(start + 10, before, after, false);
    }

    fn transport(&mut self, view: &View, source: IpAddr, destination: IpAddr) {
        let ip = &view.ip;
        match view.transport {
            Transport::Tcp(_) => {
                let scratch = |octets: &[u8], source, destination| {
                    checksum::transport(source, destination, TCP, ip.end - ip.payload, &octets[ip.payload..ip.end], 16)
                };
                let before = scratch(self.before, ip.source, ip.destination);
                let after = scratch(&self.octets, source, destination);
                self.settle(ip.payload + 16, before, after, false);
            }
            Transport::Udp(udp) if udp.checksum != 0 => {
                // A first fragment doesn't hold all that the length speaks of; what is missing is the same before and after.
                let length = usize::from(udp.length);
                let end = ip.end.min(ip.payload + length);
                let scratch = |octets: &[u8], source, destination| {
                    checksum::udp(checksum::transport(source, destination, UDP, length, &octets[ip.payload..end], 6))
                };
                let before = scratch(self.before, ip.source, ip.destination);
                let after = scratch(&self.octets, source, destination);
                self.settle(ip.payload + 6, before, after, true);
            }
            Transport::Udp(_) | Transport::Icmp { .. } | Transport::None => {}
        }
    }

    fn quote(&mut self, view: &View, source: SocketAddr, destination: SocketAddr) {
        let (at, end, ipv4) = (view.ip.payload + 8, view.ip.end, view.ip.is_ipv4());
        let quote = parse_quote(&self.before[at..end], ipv4).expect("the caller read the quote");
        let Quote { source: old_source, destination: old_destination, protocol, transport } = quote;
        let transport = at + transport;
        put_address(&mut self.octets, at + if ipv4 { 12 } else { 8 }, source.ip());
        put_address(&mut self.octets, at + if ipv4 { 16 } else { 24 }, destination.ip());
        put_u16(&mut self.octets, transport, source.port());
        put_u16(&mut self.octets, transport + 2, destination.port());
        if ipv4 {
            self.ipv4_checksum(at, at + usize::from(self.before[at] & 0x0f) * 4);
        }
        let (field, udp) = if protocol == TCP { (16, false) } else { (6, true) };
        let held = end - transport;
        if held < field + 2 || udp && get_u16(self.before, transport + field) == 0 {
            return;
        }
        let scratch = |octets: &[u8], source: SocketAddr, destination: SocketAddr| {
            let found = checksum::transport(source.ip(), destination.ip(), protocol, held, &octets[transport..end], field);
            if udp { checksum::udp(found) } else { found }
        };
        let before = scratch(self.before, old_source, old_destination);
        let after = scratch(&self.octets, source, destination);
        self.settle(transport + field, before, after, udp);
    }

    fn icmp(&mut self, view: &View, source: IpAddr, destination: IpAddr) {
        let ip = &view.ip;
        let scratch = |octets: &[u8], source, destination| {
            let message = &octets[ip.payload..ip.end];
            if ip.is_ipv4() {
                checksum::plain(message, 2)
            } else {
                checksum::transport(source, destination, ICMPV6, message.len(), message, 2)
            }
        };
        let before = scratch(self.before, ip.source, ip.destination);
        let after = scratch(&self.octets, source, destination);
        self.settle(ip.payload + 2, before, after, false);
    }

    /// Writes the checksum at `at`, given what it ought to have been before and ought to be now.
    fn settle(&mut self, at: usize, right_before: u16, right_after: u16, not_zero: bool) {
        let found = get_u16(self.before, at);
        if found == right_before {
            put_u16(&mut self.octets, at, right_after);
            return;
        }
        let carried = checksum::with_error_of(right_after, found, right_before);
        put_u16(&mut self.octets, at, if not_zero { checksum::udp(carried) } else { carried });
        self.congruent.push(Congruent { at, not_zero });
    }
}

fn put_address(octets: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => octets[at..at + 4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets[at..at + 16].copy_from_slice(&v6.octets()),
    }
}
