//! The kinds of packets, before anything is odd about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{Draft, FLOWS, Flow, Frame, Generator, Knowledge, Label, Live};
use crate::packet::{ACK, Checksum, ETHERTYPE_8021AD, FIN, Mac, Network, PSH, Packet, RST, SYN, TCP, Tag, Transport, UDP};

/// All bases' names.
pub const NAMES: [&str; 10] =
    ["opening", "follow-up", "reply", "dead reply", "stranger", "ICMP error", "ICMP other", "other protocol", "not IP", "noise"];

/// The tags that clients' frames come with, most often none.
const TAGS: [&[u16]; 6] = [&[], &[], &[], &[100], &[0x2000 | 100], &[0xe000 | 100, 0x1000 | 200]];

impl Generator {
    pub(super) fn draft(&mut self, knowledge: &Knowledge) -> Draft {
        let bases = self.scenario.mix.bases();
        let (base, _) = *bases.choose_weighted(&mut self.rng, |(_, weight)| *weight).unwrap_or(&bases[0]);
        let (packet, ingress) = match base {
            "follow-up" => self.follow_up(),
            "reply" => match knowledge.live().choose(&mut self.rng) {
                Some(live) => self.reply(live),
                None => self.opening(),
            },
            "dead reply" => self.dead_reply(knowledge),
            "stranger" => self.stranger(),
            "ICMP error" => self.icmp_error(knowledge),
            "ICMP other" => self.icmp_other(),
            "other protocol" => self.other_protocol(),
            "not IP" => self.not_ip(),
            _ => self.opening(),
        };
        Draft { packet, ingress, base }
    }

    /// Octets without a meaning, half of them under a plausible Ethernet header.
    pub(super) fn noise(&mut self) -> Frame {
        let length = self.number(200);
        let mut octets: BytesMut = (0..length).map(|_| self.rng.random::<u8>()).collect();
        if length > 14 && self.rng.random_bool(0.5) {
            let (ethertype, first) = if self.rng.random_bool(0.5) { ([0x08, 0x00], 0x45) } else { ([0x86, 0xdd], 0x60) };
            octets[12..14].copy_from_slice(&ethertype);
            octets[14] = first;
        }
        let (ingress, _) = self.scenario.interfaces[0];
        Frame { bytes: octets.freeze(), ingress, label: Label::plain("noise") }
    }

    fn opening(&mut self) -> (Packet, u32) {
        let flow = self.begin();
        let packet = if self.scenario.targets[flow.target].protocol == TCP {
            let payload = if self.rng.random_ratio(1, 16) { self.payload(40) } else { Bytes::new() };
            let options = if self.rng.random_bool(0.7) { vec![2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 1, 1] } else { Vec::new() };
            let sequence = self.rng.random();
            self.client_packet(&flow, SYN).payload(payload).with_tcp(|tcp| {
                (tcp.sequence, tcp.options) = (sequence, options);
            })
        } else {
            self.client_packet(&flow, 0)
        };
        let ingress = flow.ingress;
        if self.flows.len() < FLOWS {
            self.flows.push(flow);
        } else {
            let index = self.number(FLOWS);
            self.flows[index] = flow;
        }
        (packet, ingress)
    }

    fn begin(&mut self) -> Flow {
        let target = self.number(self.scenario.targets.len());
        let address = self.scenario.targets[target].address;
        let client = loop {
            let client = *self.scenario.clients.choose(&mut self.rng).expect("asserted at the start");
            if client.is_ipv4() == address.is_ipv4() {
                break client;
            }
        };
        let port = match self.number(20) {
            0 => 0,
            1 => self.rng.random_range(1..1024),
            _ => self.rng.random_range(1024..=65_535),
        };
        let interface = if self.rng.random_ratio(1, 20) { self.number(self.scenario.interfaces.len()) } else { 0 };
        let (ingress, _) = self.scenario.interfaces[interface];
        let vlans = TAGS[self.number(TAGS.len())];
        let mac = Mac::local(0x40_0000 | self.rng.random_range(0..64));
        Flow { target, client: SocketAddr::new(client, port), ingress, mac, vlans }
    }

    fn follow_up(&mut self) -> (Packet, u32) {
        // Now and then a packet of a connection that never began.
        let known = if self.rng.random_ratio(1, 12) { None } else { self.flows.choose(&mut self.rng).cloned() };
        let flow = match known {
            Some(flow) => flow,
            None => self.begin(),
        };
        let flags = self.flags();
        (self.client_packet(&flow, flags), flow.ingress)
    }

    fn flags(&mut self) -> u8 {
        const USUAL: [u8; 12] = [ACK, ACK, ACK, ACK | PSH, ACK | PSH, ACK | PSH, SYN, FIN | ACK, RST, RST | ACK, FIN, SYN | ACK];
        if self.rng.random_ratio(1, 20) { self.rng.random() } else { USUAL[self.number(USUAL.len())] }
    }

    fn client_packet(&mut self, flow: &Flow, flags: u8) -> Packet {
        let target = self.scenario.targets[flow.target];
        let packet = self.transport(target.protocol, flow.client, target.address, flags);
        let node = self.node(flow.ingress);
        let mut packet = packet.ethernet(node, flow.mac);
        for tci in flow.vlans {
            packet = packet.tagged(*tci);
        }
        packet
    }

    /// A TCP segment or UDP datagram between two endpoints.
    fn transport(&mut self, protocol: u8, source: SocketAddr, destination: SocketAddr, flags: u8) -> Packet {
        let bound = if self.rng.random_ratio(1, 50) { 1400 } else { 64 };
        let payload = self.payload(bound);
        if protocol == TCP {
            let (sequence, acknowledgement, window) = (self.rng.random(), self.rng.random(), self.rng.random());
            let timestamps = self.rng.random_bool(0.3);
            let payload = if flags & SYN == 0 { payload } else { Bytes::new() };
            Packet::tcp(source, destination, flags).payload(payload).with_tcp(|tcp| {
                (tcp.sequence, tcp.acknowledgement, tcp.window) = (sequence, acknowledgement, window);
                if timestamps {
                    tcp.options = vec![1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
                }
            })
        } else {
            let none = self.rng.random_ratio(1, 6);
            let packet = Packet::udp(source, destination, payload);
            if none { packet.checksum(Checksum::Zero) } else { packet }
        }
    }

    fn payload(&mut self, bound: usize) -> Bytes {
        let length = self.number(bound);
        let mut octets = BytesMut::zeroed(length);
        self.rng.fill(&mut octets[..]);
        octets.freeze()
    }

    fn reply(&mut self, live: &Live) -> (Packet, u32) {
        // Under `dsr` it goes past the node; what comes here nevertheless is not ours.
        let destination = live.nat.unwrap_or(live.client);
        let flags = if self.rng.random_ratio(1, 4) { SYN | ACK } else { self.flags() };
        let packet = self.transport(live.protocol, live.backend, destination, flags);
        (self.on_backend_side(packet, live), live.backend_ingress)
    }

    fn on_backend_side(&mut self, packet: Packet, live: &Live) -> Packet {
        let mut packet = packet.ethernet(self.node(live.backend_ingress), Mac::local(0x50_0000));
        // The client's number of tags, under other VLAN IDs, but for the odd one.
        let tags = if self.rng.random_ratio(1, 30) { self.number(3) } else { live.client_vlans.len() };
        for _ in 0..tags {
            packet = packet.tagged(self.rng.random());
        }
        packet
    }

    /// To a NAT address, but from the wrong backend, to a free port, or outside the range.
    fn dead_reply(&mut self, knowledge: &Knowledge) -> (Packet, u32) {
        let Some(nat) = self.scenario.nat.choose(&mut self.rng).copied() else { return self.stranger() };
        let mut port =
            if self.rng.random_bool(0.8) { self.rng.random_range(self.scenario.ports.clone()) } else { self.rng.random() };
        let mut nat = nat;
        let mut protocol = if self.rng.random_bool(0.5) { TCP } else { UDP };
        if let Some(live) = knowledge.live().choose(&mut self.rng)
            && let Some(taken) = live.nat
            && self.rng.random_bool(0.5)
        {
            (nat, port, protocol) = (taken.ip(), taken.port(), live.protocol);
        }
        let backend = self.scenario.backends.iter().filter(|backend| backend.is_ipv4() == nat.is_ipv4());
        let backends: Vec<_> = backend.copied().collect();
        let source = match backends.choose(&mut self.rng) {
            Some(backend) => *backend,
            None => SocketAddr::new(nat, 1),
        };
        let (ingress, mac) = *self.scenario.interfaces.last().expect("asserted at the start");
        let flags = self.flags();
        (self.transport(protocol, source, SocketAddr::new(nat, port), flags).ethernet(mac, Mac::local(0x50_0000)), ingress)
    }

    /// Near a service, but not it: another port, another address, the other protocol; or a stranger altogether.
    fn stranger(&mut self) -> (Packet, u32) {
        let flow = self.begin();
        let target = self.scenario.targets[flow.target];
        let (mut to, mut protocol) = (target.address, target.protocol);
        match self.number(4) {
            0 => to.set_port(to.port().wrapping_add(1)),
            1 => to.set_ip(self.any_address(to.is_ipv4())),
            2 => protocol = if protocol == TCP { UDP } else { TCP },
            _ => to = SocketAddr::new(self.any_address(to.is_ipv4()), self.rng.random()),
        }
        let flags = self.flags();
        let node = self.node(flow.ingress);
        (self.transport(protocol, flow.client, to, flags).ethernet(node, flow.mac), flow.ingress)
    }

    fn icmp_error(&mut self, knowledge: &Knowledge) -> (Packet, u32) {
        let live = match knowledge.live().choose(&mut self.rng) {
            Some(live) if self.rng.random_bool(0.85) => live.clone(),
            Some(_) | None => self.invented(),
        };
        let ipv4 = live.service.is_ipv4();
        // From the backend's side it quotes what the node sent there; from the client's, what the service answered.
        let (from, to, ingress) = match live.nat {
            Some(nat) if self.rng.random_bool(0.5) => (nat, live.backend, live.backend_ingress),
            Some(_) | None => (live.service, live.client, live.client_ingress),
        };
        let flags = self.flags();
        let mut quoted = self.transport(live.protocol, from, to, flags);
        self.vary(&mut quoted);
        match self.number(12) {
            0 => quoted = quoted.fragment(9, 0..8),
            1 => quoted = quoted.fragment(9, 8..16),
            2 => quoted = quoted.checksum(Checksum::Wrong(self.rng.random())),
            3 => {
                let protocol = self.rng.random();
                quoted.transport = Transport::Raw(protocol, Bytes::from_static(&[0; 16]));
            }
            4 => quoted = quoted.v4(|ip| ip.checksum = Checksum::Wrong(0x0101)),
            _ => {}
        }
        let quote = quoted.build_network();
        let length = match self.number(4) {
            0 => quote.len().min(self.number(80)),
            1 => quote.len().min(if ipv4 { 28 } else { 48 }),
            _ => quote.len(),
        };
        let reporter = if self.rng.random_bool(0.5) { to.ip() } else { self.any_address(ipv4) };
        let kinds: &[u8] = if ipv4 { &[3, 4, 11, 12] } else { &[1, 2, 3, 4] };
        let kind = *kinds.choose(&mut self.rng).expect("four kinds");
        let code = self.rng.random_range(0..5);
        let mut packet = Packet::icmp(reporter, from.ip(), kind, code, quote.slice(..length));
        if let Transport::Icmp(icmp) = &mut packet.transport {
            icmp.rest = [0, 0, 5, 0xdc];
        }
        if ingress == live.backend_ingress && from != live.service {
            return (self.on_backend_side(packet, &live), ingress);
        }
        packet = packet.ethernet(self.node(ingress), live.client_mac);
        for vlan in &live.client_vlans {
            packet = packet.tagged(*vlan);
        }
        (packet, ingress)
    }

    /// A connection that isn't there.
    fn invented(&mut self) -> Live {
        let flow = self.begin();
        let target = self.scenario.targets[flow.target];
        let port = self.rng.random_range(self.scenario.ports.clone());
        let nat = self.scenario.nat.iter().find(|nat| nat.is_ipv4() == target.address.is_ipv4());
        let family = self.scenario.backends.iter().find(|backend| backend.is_ipv4() == target.address.is_ipv4());
        Live {
            protocol: target.protocol,
            service: target.address,
            client: flow.client,
            backend: family.copied().unwrap_or(target.address),
            nat: nat.map(|nat| SocketAddr::new(*nat, port)),
            client_mac: flow.mac,
            node_mac: self.node(flow.ingress),
            client_ingress: flow.ingress,
            client_vlans: flow.vlans.to_vec(),
            backend_ingress: flow.ingress,
        }
    }

    /// Echo requests and whatever else doesn't quote a packet.
    fn icmp_other(&mut self) -> (Packet, u32) {
        let flow = self.begin();
        let target = self.scenario.targets[flow.target].address;
        let echo = if target.is_ipv4() { 8 } else { 128 };
        let kind = if self.rng.random_bool(0.7) { echo } else { self.rng.random() };
        let body = self.payload(64);
        let packet = Packet::icmp(flow.client.ip(), target.ip(), kind, 0, body).ethernet(self.node(flow.ingress), flow.mac);
        (packet, flow.ingress)
    }

    fn other_protocol(&mut self) -> (Packet, u32) {
        let flow = self.begin();
        let target = self.scenario.targets[flow.target].address;
        // GRE, ESP, SCTP, no next header, each family's foreign ICMP, or any.
        let protocol = match self.number(7) {
            0 => 47,
            1 => 50,
            2 => 132,
            3 => 59,
            4 => 1,
            5 => 58,
            _ => self.rng.random(),
        };
        let octets = self.payload(64);
        let packet = Packet::raw(flow.client.ip(), target.ip(), protocol, octets).ethernet(self.node(flow.ingress), flow.mac);
        (packet, flow.ingress)
    }

    /// ARP, LLDP and the like: marked by a tag of that `EtherType`, which the reader takes for what it is.
    fn not_ip(&mut self) -> (Packet, u32) {
        let (mut packet, ingress) = self.stranger();
        let ethertype = match self.number(5) {
            0 => 0x0806,
            1 => 0x88cc,
            2 => 0x8847,
            3 => 0x9100,
            _ => self.rng.random(),
        };
        packet.tags.push(Tag { ethertype, tci: self.rng.random() });
        (packet, ingress)
    }

    /// What is legal and changes nothing: options, traffic class, identification, padding, urgent pointers.
    pub(super) fn vary(&mut self, packet: &mut Packet) {
        let (traffic_class, identification) = (self.rng.random(), self.rng.random());
        let dice = self.number(16);
        match &mut packet.network {
            Network::V4(ip) => {
                (ip.traffic_class, ip.identification) = (traffic_class, identification);
                ip.dont_fragment = dice & 1 == 0;
                if dice == 3 {
                    let words = self.rng.random_range(1..=10);
                    // No-operation options throughout.
                    ip.options = vec![1; words * 4];
                }
                ip.ttl = self.rng.random_range(2..=255);
            }
            Network::V6(ip) => {
                (ip.traffic_class, ip.flow_label) = (traffic_class, self.rng.random());
                ip.hop_limit = self.rng.random_range(2..=255);
            }
        }
        if dice == 4 {
            packet.padding = vec![0; self.rng.random_range(1..=26)];
        }
        if dice == 5 {
            packet.tags.iter_mut().for_each(|tag| tag.ethertype = ETHERTYPE_8021AD);
        }
    }

    pub(super) fn node(&self, ingress: u32) -> Mac {
        let found = self.scenario.interfaces.iter().find(|(interface, _)| *interface == ingress);
        found.map_or(Mac::local(1), |(_, mac)| *mac)
    }

    fn any_address(&mut self, ipv4: bool) -> IpAddr {
        if ipv4 { Ipv4Addr::from(self.rng.random::<u32>()).into() } else { Ipv6Addr::from(self.rng.random::<u128>()).into() }
    }
}
