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
    pub(super) fn twisted(&mut self, draft: Draft, twist: Twist) -> Frame {
        let Draft { mut packet, mut ingress, base } = draft;
        let label = Label { base, twist: twist.name() };
        match twist {
            Twist::None => {}
            Twist::Ttl => packet = packet.ttl(self.rng.random_range(0..=2)),
            Twist::Checksum => packet = self.wrong_checksum(packet),
            Twist::Tags => packet.tags = self.tags(),
            Twist::Extensions => self.extend(&mut packet),
            Twist::Lie => self.lie(&mut packet),
            Twist::Truncated => {
                let whole = packet.build();
                let length = self.number(whole.len());
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

    fn wrong_checksum(&mut self, packet: Packet) -> Packet {
        let bits = match self.number(4) {
            0 => 0xffff,
            1 => 1,
            _ => self.rng.random(),
        };
        match self.number(4) {
            0 => packet.v4(|ip| ip.checksum = Checksum::Wrong(bits)),
            1 => packet.checksum(Checksum::Zero),
            _ => packet.checksum(Checksum::Wrong(bits)),
        }
    }

    fn tags(&mut self) -> Vec<Tag> {
        let count = self.number(5);
        let ethertype = |service: bool| if service { ETHERTYPE_8021AD } else { ETHERTYPE_8021Q };
        (0..count).map(|_| Tag { ethertype: ethertype(self.rng.random()), tci: self.rng.random() }).collect()
    }

    fn extend(&mut self, packet: &mut Packet) {
        let count = self.rng.random_range(1..=8);
        match &mut packet.network {
            Network::V4(ip) => ip.options = (0..self.rng.random_range(1..=40)).map(|_| self.rng.random()).collect(),
            Network::V6(ip) => {
                for _ in 0..count {
                    let units = Units { held: if self.rng.random_ratio(1, 8) { 8 } else { 1 }, claimed: None };
                    ip.extensions.push(match self.rng.random_range(0..12) {
                        0..4 => Extension::HopByHop(units),
                        4..8 => Extension::Destination(units),
                        8..10 => Extension::Routing(units, 0),
                        10 => Extension::Routing(units, self.rng.random_range(0..3)),
                        _ => Extension::Fragment { offset: 0, more: false, identification: self.rng.random() },
                    });
                    if self.rng.random_bool(0.4) {
                        break;
                    }
                }
            }
        }
    }

    /// A length or version field that isn't true.
    fn lie(&mut self, packet: &mut Packet) {
        let near = self.rng.random_range(0..=80);
        let length = if self.rng.random_bool(0.8) { near } else { self.rng.random() };
        let small = self.rng.random_range(0..16);
        if self.rng.random_bool(0.5) {
            match &mut packet.transport {
                Transport::Tcp(tcp) => tcp.data_offset = Some(small),
                Transport::Udp(udp) => udp.length = Some(length),
                Transport::Icmp(_) | Transport::Raw(..) => {}
            }
            return;
        }
        let (which, any) = (self.number(4), self.rng.random());
        match &mut packet.network {
            Network::V4(ip) => match which {
                0 => ip.version = Some(small),
                1 => ip.ihl = Some(small),
                // A fragment at the very end, whose octets may reach behind 65,535.
                2 if length < 40 => (ip.offset, ip.more_fragments) = (0x1fff, length < 20),
                _ => ip.total_length = Some(length),
            },
            Network::V6(ip) => match which {
                0 => ip.version = Some(small),
                1 => ip.extensions.push(Extension::Destination(Units { held: 1, claimed: Some(any) })),
                2 if length < 40 => {
                    ip.extensions.push(Extension::Fragment { offset: 0x1fff, more: length < 20, identification: 1 });
                }
                _ => ip.payload_length = Some(length),
            },
        }
    }

    /// Cuts a packet in up to three; the rest follows later, or comes first.
    fn fragments(&mut self, packet: Packet, ingress: u32, label: Label) -> Frame {
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
        let piece = |range: &[usize]| {
            let bytes: Bytes = packet.clone().fragment(identification, range[0]..range[1]).build();
            Frame { bytes, ingress, label }
        };
        let mut pieces: Vec<_> = cuts.windows(2).filter(|range| range[0] < range[1]).map(piece).collect();
        if pieces.is_empty() {
            return Frame { bytes: packet.build(), ingress, label };
        }
        if self.rng.random_ratio(1, 8) {
            pieces.reverse();
        }
        let now = pieces.remove(0);
        self.pending.extend(pieces);
        now
    }
}
