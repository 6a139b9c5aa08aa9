//! The packets of a measurement: a frame, and what differs between its flows.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use splitter_ebpf::bench::{Flow, Plan, TEMPLATE, does};

use crate::{
    oracle::{Protocol, sample},
    packet::{Packet, SYN},
    rig::play::CLIENT_MAC,
};

/// Where a packet's headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IPv4; else IPv6.
    pub ipv4: bool,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// VLAN tags, of which there is one or none.
    pub tagged: bool,
}

impl Layout {
    const fn network(self) -> usize {
        if self.tagged { 18 } else { 14 }
    }

    const fn transport(self) -> usize {
        self.network() + if self.ipv4 { 20 } else { 40 }
    }

    /// The bits of a plan that say the same.
    pub fn does(self) -> u32 {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        bit(!self.ipv4, does::IPV6) | bit(matches!(self.protocol, Protocol::Udp), does::UDP) | bit(self.tagged, does::TAGGED)
    }

    /// What a frame has of its own among those of its kind.
    pub fn flow(self, frame: &[u8]) -> Flow {
        let (network, transport) = (self.network(), self.transport());
        let checksum = transport + if matches!(self.protocol, Protocol::Udp) { 6 } else { 16 };
        let (source, destination) = if self.ipv4 {
            (u64::from(load(frame, network + 12)), u64::from(load(frame, network + 16)))
        } else {
            (load64(frame, network + 16), load64(frame, network + 32))
        };
        Flow {
            source,
            destination,
            ports: load(frame, transport),
            network_checksum: if self.ipv4 { load16(frame, network + 10) } else { 0 },
            transport_checksum: load16(frame, checksum),
        }
    }

    /// A plan that undoes what becomes of this frame.
    pub fn plan(self, frame: &[u8], does: u32, flows: u32) -> Plan {
        let network = self.network();
        let mut template = [0; TEMPLATE];
        let known = frame.len().min(TEMPLATE);
        template[..known].copy_from_slice(&frame[..known]);
        let mut words = [0; TEMPLATE / 8];
        for (word, octets) in words.iter_mut().zip(template.chunks_exact(8)) {
            *word = load64(octets, 0);
        }
        let high = if self.ipv4 { [0; 2] } else { [load64(frame, network + 8), load64(frame, network + 24)] };
        Plan {
            does: does | self.does(),
            flows,
            next: 0,
            place: 0,
            length: u32::try_from(frame.len()).expect("a short frame"),
            ttl: load16(frame, network + if self.ipv4 { 8 } else { 6 }),
            _pad: 0,
            high,
            template: words,
        }
    }

    /// A packet of 64 octets or little more, from one end to the other. A SYN has the options that clients send.
    pub fn packet(self, source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
        let packet = match self.protocol {
            Protocol::Tcp if flags & SYN != 0 => {
                Packet::tcp(source, destination, flags).with_tcp(|tcp| tcp.options = vec![1; 20])
            }
            Protocol::Tcp => Packet::tcp(source, destination, flags).payload(&b"ten octets"[..]),
            Protocol::Udp => Packet::udp(source, destination, &b"twenty-two octets here"[..]),
        };
        let packet = packet.ethernet(sample::node(sample::FRONT), CLIENT_MAC);
        let packet = if self.tagged { packet.tagged(u16::from(u8::MAX)) } else { packet };
        packet.build().to_vec()
    }
}

/// So many different clients, in no order, the same each time.
pub fn clients(ipv4: bool, count: usize) -> Vec<SocketAddr> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut seen = HashSet::with_capacity(count);
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let address: IpAddr = if ipv4 {
            // 100.64.0.0/10, RFC 6598.
            Ipv4Addr::from(0x6440_0000 | rng.random_range(0..1_u32 << 22)).into()
        } else {
            Ipv6Addr::from(0x2001_0db8_00c0_0000_u128 << 64 | u128::from(rng.random::<u64>())).into()
        };
        let client = SocketAddr::new(address, rng.random_range(1_024..=u16::MAX));
        if seen.insert(client) {
            clients.push(client);
        }
    }
    clients
}

fn load(frame: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(frame[at..at + 4].try_into().expect("four octets"))
}

fn load16(frame: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(frame[at..at + 2].try_into().expect("two octets"))
}

fn load64(frame: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(frame[at..at + 8].try_into().expect("eight octets"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ACK;

    #[test]
    fn a_flow_is_what_a_frame_has_of_its_own() {
        let (client, service) =
            ("100.64.1.2:3456".parse().expect("written right"), "198.18.0.1:80".parse().expect("written right"));
        let layout = Layout { ipv4: true, protocol: Protocol::Tcp, tagged: true };
        let frame = layout.packet(client, service, ACK);
        let flow = layout.flow(&frame);
        assert_eq!(flow.source as u32, u32::from_ne_bytes([100, 64, 1, 2]));
        assert_eq!(flow.destination as u32, u32::from_ne_bytes([198, 18, 0, 1]));
        assert_eq!(flow.ports.to_ne_bytes(), [3456_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat()[..]);
        let plan = layout.plan(&frame, does::VARY, 2);
        assert_eq!(plan.does, does::VARY | does::TAGGED);
        assert_eq!(plan.ttl.to_ne_bytes(), [64, 6], "TTL and protocol");
    }

    #[test]
    fn clients_differ_and_are_the_same_each_time() {
        for ipv4 in [true, false] {
            let some = clients(ipv4, 5_000);
            assert_eq!(some.iter().collect::<HashSet<_>>().len(), 5_000);
            assert_eq!(some, clients(ipv4, 5_000));
        }
    }
}
