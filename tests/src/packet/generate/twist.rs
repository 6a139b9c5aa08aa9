//! What can be odd or broken about a packet.

use bytes::{Bytes, BytesMut};
use rand::RngExt;

use super::{Draft, Frame, Generator, Label};
use crate::packet::{Checksum, ETHERTYPE_8021AD, ETHERTYPE_8021Q, Extension, Mac, Network, Packet, Tag, Transport, Units};

/// What is odd or broken about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    None,
    Ttl,
    Checksum,
    Tags,
    Extensions,
    Lie,
    Truncated,
    Fragments,
    FlippedBits,
    Moved,
}

/// Every kind of every twist, as [`Label::detail`] has it.
pub const DETAILS: [&str; 44] = [
    "TTL 0",
    "TTL 1",
    "TTL 2",
    "the IPv4 header's",
    "zero",
    "the transport's",
    "0 tags",
    "1 tag",
    "2 tags",
    "3 tags",
    "4 tags",
    "IPv4 options",
    "TCP options",
    "1 extension header",
    "2 extension headers",
    "3 extension headers",
    "4 extension headers",
    "5 extension headers",
    "6 extension headers",
    "7 extension headers",
    "8 extension headers",
    "segments left",
    "two fragment headers",
    "an extension header that nobody follows",
    "IPv4 version",
    "header length",
    "total length",
    "IPv6 version",
    "payload length",
    "extension length",
    "offset at the very end",
    "TCP data offset",
    "UDP length",
    "a quote's octet",
    "in the Ethernet header",
    "in the tags",
    "in the network header",
    "in options or extension headers",
    "in the transport header",
    "in the payload",
    "in order",
    "backwards",
    "overlapping",
    "header cut",
];

/// What may be done to a packet before its twist, as [`Label::also`] has it.
pub const ALSO: [&str; 4] = [Twist::Ttl.name(), Twist::Checksum.name(), Twist::Tags.name(), Twist::Extensions.name()];

impl Twist {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Twist; 10] = [
        Twist::None,
        Twist::Ttl,
        Twist::Checksum,
        Twist::Tags,
        Twist::Extensions,
        Twist::Lie,
        Twist::Truncated,
        Twist::Fragments,
        Twist::FlippedBits,
        Twist::Moved,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Twist::None => "none",
            Twist::Ttl => "small TTL",
            Twist::Checksum => "wrong checksum",
            Twist::Tags => "other tags",
            Twist::Extensions => "options or extension headers",
            Twist::Lie => "lie",
            Twist::Truncated => "truncated",
            Twist::Fragments => "fragments",
            Twist::FlippedBits => "flipped bits",
            Twist::Moved => "moved",
        }
    }
}

impl Generator {
    /// Something odd before the twist: what is broken about a frame may lie behind what is merely rare.
    pub(super) fn also(&mut self, packet: &mut Packet) -> &'static str {
        if !self.rng.random_ratio(self.scenario.mix.also.min(100), 100) {
            return "";
        }
        let twist = [Twist::Ttl, Twist::Checksum, Twist::Tags, Twist::Extensions][self.number(4)];
        if self.odd(twist, packet).is_empty() { "" } else { twist.name() }
    }

    /// Does what can be done to any packet, and says which kind of it; nothing for the other twists.
    fn odd(&mut self, twist: Twist, packet: &mut Packet) -> &'static str {
        match twist {
            Twist::Ttl => self.small_ttl(packet),
            Twist::Checksum => self.wrong_checksum(packet),
            Twist::Tags => self.tags(packet),
            Twist::Extensions => self.extend(packet),
            Twist::None | Twist::Lie | Twist::Truncated | Twist::Fragments | Twist::FlippedBits | Twist::Moved => "",
        }
    }

    pub(super) fn twisted(&mut self, draft: Draft, also: &'static str, twist: Twist) -> Frame {
        let Draft { mut packet, mut ingress, base } = draft;
        let mut label = Label { twist: twist.name(), also, ..Label::plain(base) };
        match twist {
            Twist::None => {}
            Twist::Ttl | Twist::Checksum | Twist::Tags | Twist::Extensions => label.detail = self.odd(twist, &mut packet),
            Twist::Lie => label.detail = self.lie(&mut packet),
            Twist::Truncated => {
                let whole = packet.build();
                // Most often in a header: each of its octets is another case.
                let headers = whole.len().min(14 + 4 * packet.tags.len() + 88);
                let bound = if self.rng.random_bool(0.7) { headers } else { whole.len() };
                let length = self.number(bound);
                label = Label { detail: part(&packet, whole.len(), length), left: Some(length), ..label };
                return Frame { bytes: whole.slice(..length), ingress, label };
            }
            Twist::FlippedBits => {
                let mut octets = BytesMut::from(packet.build());
                for _ in 0..self.rng.random_range(1..=3) {
                    let (at, bit) = (self.number(octets.len()), self.number(8));
                    octets[at] ^= 1 << bit;
                }
                return Frame { bytes: octets.freeze(), ingress, label };
            }
            Twist::Fragments => return self.fragments(packet, ingress, label),
            Twist::Moved => {
                let interface = self.number(self.scenario.interfaces.len());
                ingress = self.scenario.interfaces[interface].0;
                packet = packet.ethernet(self.node(ingress), Mac::local(0x60_0000));
            }
        }
        Frame { bytes: packet.build(), ingress, label }
    }

    fn small_ttl(&mut self, packet: &mut Packet) -> &'static str {
        let ttl = self.rng.random_range(0..=2);
        match &mut packet.network {
            Network::V4(ip) => ip.ttl = ttl,
            Network::V6(ip) => ip.hop_limit = ttl,
        }
        ["TTL 0", "TTL 1", "TTL 2"][usize::from(ttl)]
    }

    fn wrong_checksum(&mut self, packet: &mut Packet) -> &'static str {
        let bits = match self.number(4) {
            0 => 0xffff,
            1 => 1,
            _ => self.rng.random(),
        };
        let (checksum, detail) = match (self.number(4), &mut packet.network) {
            (0, Network::V4(ip)) => {
                ip.checksum = Checksum::Wrong(bits);
                return "the IPv4 header's";
            }
            (1, _) => (Checksum::Zero, "zero"),
            (_, _) => (Checksum::Wrong(bits), "the transport's"),
        };
        match &mut packet.transport {
            Transport::Tcp(tcp) => tcp.checksum = checksum,
            Transport::Udp(udp) => udp.checksum = checksum,
            Transport::Icmp(icmp) => icmp.checksum = checksum,
            Transport::Raw(..) => return "",
        }
        detail
    }

    fn tags(&mut self, packet: &mut Packet) -> &'static str {
        let count = self.number(5);
        let ethertype = |service: bool| if service { ETHERTYPE_8021AD } else { ETHERTYPE_8021Q };
        packet.tags = (0..count).map(|_| Tag { ethertype: ethertype(self.rng.random()), tci: self.rng.random() }).collect();
        ["0 tags", "1 tag", "2 tags", "3 tags", "4 tags"][count]
    }

    fn extend(&mut self, packet: &mut Packet) -> &'static str {
        if let Transport::Tcp(tcp) = &mut packet.transport
            && self.rng.random_ratio(1, 4)
        {
            tcp.options = (0..self.rng.random_range(1..=40)).map(|_| self.rng.random()).collect();
            return "TCP options";
        }
        let count = self.rng.random_range(1..=8);
        let ip = match &mut packet.network {
            Network::V4(ip) => {
                ip.options = (0..self.rng.random_range(1..=40)).map(|_| self.rng.random()).collect();
                return "IPv4 options";
            }
            Network::V6(ip) => ip,
        };
        for _ in 0..count {
            let units = Units { held: if self.rng.random_ratio(1, 8) { 8 } else { 1 }, claimed: None };
            ip.extensions.push(match self.rng.random_range(0..24) {
                0..8 => Extension::HopByHop(units),
                8..16 => Extension::Destination(units),
                16..20 => Extension::Routing(units, 0),
                20 => Extension::Routing(units, self.rng.random_range(0..3)),
                21 => Extension::Foreign(FOREIGN[self.rng.random_range(0..FOREIGN.len())], units),
                _ => Extension::Fragment { offset: 0, more: false, identification: self.rng.random() },
            });
        }
        let count = |which: fn(&Extension) -> bool| ip.extensions.iter().filter(|extension| which(extension)).count();
        if count(|extension| matches!(extension, Extension::Foreign(..))) > 0 {
            "an extension header that nobody follows"
        } else if count(|extension| matches!(extension, Extension::Routing(_, 1..))) > 0 {
            "segments left"
        } else if count(|extension| matches!(extension, Extension::Fragment { .. })) > 1 {
            "two fragment headers"
        } else {
            DETAILS[EXTENSION_HEADERS..][..8].get(ip.extensions.len() - 1).copied().unwrap_or_default()
        }
    }

    /// A length or version field that isn't true, or an octet of what an ICMP error quotes.
    fn lie(&mut self, packet: &mut Packet) -> &'static str {
        let near = self.rng.random_range(0..=80);
        let length = if self.rng.random_bool(0.8) { near } else { self.rng.random() };
        let small = self.rng.random_range(0..16);
        if self.rng.random_bool(0.5) {
            match &mut packet.transport {
                Transport::Tcp(tcp) => {
                    tcp.data_offset = Some(small);
                    return "TCP data offset";
                }
                Transport::Udp(udp) => {
                    udp.length = Some(length);
                    return "UDP length";
                }
                Transport::Icmp(icmp) if !icmp.body.is_empty() => {
                    let mut body = BytesMut::from(&icmp.body[..]);
                    // Its headers: version, lengths, fragment offset, protocol.
                    let at = self.rng.random_range(0..body.len().min(48));
                    body[at] = self.rng.random();
                    icmp.body = body.freeze();
                    return "a quote's octet";
                }
                Transport::Icmp(_) | Transport::Raw(..) => {}
            }
        }
        let (which, any) = (self.number(4), self.rng.random());
        match &mut packet.network {
            Network::V4(ip) => match which {
                0 => {
                    ip.version = Some(small);
                    "IPv4 version"
                }
                1 => {
                    ip.ihl = Some(small);
                    "header length"
                }
                // A fragment at the very end, whose octets may reach behind 65,535.
                2 if length < 40 => {
                    (ip.offset, ip.more_fragments) = (0x1fff, length < 20);
                    "offset at the very end"
                }
                _ => {
                    ip.total_length = Some(length);
                    "total length"
                }
            },
            Network::V6(ip) => match which {
                0 => {
                    ip.version = Some(small);
                    "IPv6 version"
                }
                1 => {
                    ip.extensions.push(Extension::Destination(Units { held: 1, claimed: Some(any) }));
                    "extension length"
                }
                2 if length < 40 => {
                    ip.extensions.push(Extension::Fragment { offset: 0x1fff, more: length < 20, identification: 1 });
                    "offset at the very end"
                }
                _ => {
                    ip.payload_length = Some(length);
                    "payload length"
                }
            },
        }
    }

    /// Cuts a packet in up to three; the rest follows later, or comes first.
    fn fragments(&mut self, packet: Packet, ingress: u32, mut label: Label) -> Frame {
        let length = packet.transport_length();
        let identification: u32 = self.rng.random();
        let mut cuts = vec![0];
        for _ in 0..self.rng.random_range(1..=2_u8) {
            let at = self.number(length.max(1)) / 8 * 8;
            // A header is seldom cut itself.
            cuts.push(if at < 24 && self.rng.random_bool(0.9) { 24.min(length / 8 * 8) } else { at });
        }
        cuts.sort_unstable();
        cuts.dedup();
        cuts.push(length);
        label.detail = if cuts.get(1).is_some_and(|first| *first < 20 && *first < length) { "header cut" } else { "in order" };
        // Later ones that begin before the one before them ends (RFC 5722): each is a fragment by itself here.
        let back = if self.rng.random_ratio(1, 8) { 8 } else { 0 };
        if back > 0 && cuts.len() > 2 {
            label.detail = "overlapping";
        }
        let backwards = self.rng.random_ratio(1, 8);
        if backwards && cuts.len() > 2 {
            label.detail = "backwards";
        }
        let piece = |range: &[usize]| {
            let start = if range[0] >= 16 { range[0] - back } else { range[0] };
            let bytes: Bytes = packet.clone().fragment(identification, start..range[1]).build();
            Frame { bytes, ingress, label }
        };
        let mut pieces: Vec<_> = cuts.windows(2).filter(|range| range[0] < range[1]).map(piece).collect();
        if pieces.is_empty() {
            return Frame { bytes: packet.build(), ingress, label };
        }
        if backwards {
            pieces.reverse();
        }
        let now = pieces.remove(0);
        self.pending.extend(pieces);
        now
    }
}

/// Where in [`DETAILS`] the lengths of chains begin.
const EXTENSION_HEADERS: usize = 13;

/// Extension headers that the page doesn't list, so that they are a protocol like any other: authentication, mobility, HIP, shim6, for experiments.
const FOREIGN: [u8; 6] = [51, 135, 139, 140, 253, 254];

/// In which part of a frame it ends that is cut short to `left` octets.
fn part(packet: &Packet, whole: usize, left: usize) -> &'static str {
    let tags = 14 + 4 * packet.tags.len();
    let fixed = match packet.network {
        Network::V4(_) => 20,
        Network::V6(_) => 40,
    };
    let header = match packet.transport {
        Transport::Tcp(_) => 20,
        Transport::Udp(_) | Transport::Icmp(_) => 8,
        Transport::Raw(..) => 0,
    };
    let transport = whole - packet.padding.len() - packet.transport_length();
    match left {
        _ if left < 14 => "in the Ethernet header",
        _ if left < tags => "in the tags",
        _ if left < tags + fixed => "in the network header",
        _ if left < transport => "in options or extension headers",
        _ if left < transport + header => "in the transport header",
        _ => "in the payload",
    }
}
