//! Frames for this crate's own tests, and their checksums from scratch.

extern crate std;
use std::{vec, vec::Vec};

use crate::{address::Address, header::Packet, rewrite::End};

pub(crate) const CLIENT4: [u8; 4] = [203, 0, 113, 9];
pub(crate) const SERVICE4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0xa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
pub(crate) const SERVICE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_PORT: u16 = 4_000;
pub(crate) const SERVICE_PORT: u16 = 80;

/// An Ethernet header with 802.1Q tags, and what follows.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tci in tags {
        frame.extend([0x81, 0x00]);
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// From the client to the service, TTL 64.
pub(crate) fn ipv4(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = 20 + options.len();
    let mut packet = vec![0x40 | (length / 4) as u8, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&((length + payload.len()) as u16).to_be_bytes());
    packet.extend(CLIENT4);
    packet.extend(SERVICE4);
    packet.extend(options);
    let sum = !fold(sum(&packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// From the client to the service, hop limit 64. `next` is what the fixed header names; extension headers are part of the payload.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend(CLIENT6);
    packet.extend(SERVICE6);
    packet.extend(payload);
    packet
}

/// A TCP segment without a checksum. Its sequence number is 1,000, its acknowledgment number 2,000.
pub(crate) fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports().to_vec();
    segment.extend([0, 0, 0x03, 0xe8, 0, 0, 0x07, 0xd0, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// A UDP datagram without a checksum.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = ports().to_vec();
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

fn ports() -> [u8; 4] {
    let ([a, b], [c, d]) = (CLIENT_PORT.to_be_bytes(), SERVICE_PORT.to_be_bytes());
    [a, b, c, d]
}

/// An IPv4 address and a port.
pub(crate) fn end4(octets: [u8; 4], port: u16) -> End {
    End { address: Address::v4(octets), port: port.to_be() }
}

/// An IPv6 address and a port.
pub(crate) fn end6(octets: [u8; 16], port: u16) -> End {
    End { address: Address::v6(&octets), port: port.to_be() }
}

/// Fills in the transport checksum of an IP packet (from its network header on) whose transport header is at `transport`.
pub(crate) fn finish(packet: &mut [u8], transport: usize, protocol: u8) {
    let field = transport + field_of(protocol);
    packet[field..field + 2].fill(0);
    let sum = !fold(transport_sum(packet, transport, protocol));
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether the checksums of the packet in a frame are right: the network header's and the transport's.
pub(crate) fn is_right(frame: &[u8], packet: &Packet) -> bool {
    let network = &frame[packet.network as usize..][..packet.length as usize];
    let header = (packet.transport - packet.network) as usize;
    let network_right = network[0] >> 4 == 6 || fold(sum(&network[..header])) == 0xffff;
    network_right && fold(transport_sum(network, header, packet.protocol)) == 0xffff
}

const fn field_of(protocol: u8) -> usize {
    match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    }
}

/// Over the pseudo header, where the protocol has one, and the transport.
fn transport_sum(packet: &[u8], transport: usize, protocol: u8) -> u32 {
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let pseudo = sum(addresses) + u32::from(protocol) + (packet.len() - transport) as u32;
    sum(&packet[transport..]) + if protocol == 1 { 0 } else { pseudo }
}

fn sum(octets: &[u8]) -> u32 {
    octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
