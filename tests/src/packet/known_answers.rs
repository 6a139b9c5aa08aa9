//! The builder against frames that a real network stack made, octet by octet.

use std::net::SocketAddr;

use bytes::Bytes;

use super::parse::{Fragment, parse};
use super::*;

/// The frames of `captured.txt` by name.
pub(crate) fn captured(name: &str) -> Vec<u8> {
    let mut lines = include_str!("captured.txt").lines().filter(|line| !line.starts_with('#'));
    lines.find(|line| *line == name).expect("a name of captured.txt");
    hex(lines.next().expect("octets behind the name"))
}

pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "an odd number of digits");
    let octet = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal digits");
    pairs.iter().map(octet).collect()
}

const A: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);

#[test]
fn a_syn_is_built_as_linux_builds_it() {
    let options = |timestamp: u32, mss: u16| {
        let mut options = vec![2, 4];
        options.extend(mss.to_be_bytes());
        options.extend([4, 2, 8, 10]);
        options.extend(timestamp.to_be_bytes());
        options.extend([0, 0, 0, 0, 1, 3, 3, 10]);
        options
    };
    let v4 = Packet::tcp(at("10.9.0.1:33392"), at("10.9.0.2:81"), SYN)
        .ethernet(B, A)
        .v4(|ip| (ip.identification, ip.dont_fragment) = (0xd010, true))
        .with_tcp(|tcp| (tcp.sequence, tcp.options) = (0xec8e_4f02, options(0x3bd7_4bf2, 1460)));
    assert_eq!(v4.build(), captured("IPv4 SYN"));
    let v6 = Packet::tcp(at("[2001:db8:9::1]:39588"), at("[2001:db8:9::2]:81"), SYN)
        .ethernet(B, A)
        .v6(|ip| ip.flow_label = 0x12132)
        .with_tcp(|tcp| {
            (tcp.sequence, tcp.window, tcp.options) = (0x3c48_bf58, 0xfd20, options(0xe1d2_9545, 1440));
        });
    assert_eq!(v6.build(), captured("IPv6 SYN"));
}

#[test]
fn a_datagram_is_built_as_linux_builds_it() {
    let v4 = Packet::udp(at("10.9.0.1:55985"), at("10.9.0.2:82"), &b"hello, splitter!"[..])
        .ethernet(B, A)
        .v4(|ip| (ip.identification, ip.dont_fragment) = (0xe83d, true));
    assert_eq!(v4.build(), captured("IPv4 UDP"));
    let v6 = Packet::udp(at("[2001:db8:9::1]:49927"), at("[2001:db8:9::2]:82"), &b"hello, splitter!"[..])
        .ethernet(B, A)
        .v6(|ip| ip.flow_label = 0xc0de7);
    assert_eq!(v6.build(), captured("IPv6 UDP"));
}

#[test]
fn a_datagram_is_fragmented_as_linux_fragments_it() {
    let payload: Bytes = (0..2048_u32).map(|i| i.to_le_bytes()[0]).collect();
    let v4 = Packet::udp(at("10.9.0.1:42197"), at("10.9.0.2:83"), payload.clone()).ethernet(B, A);
    assert_eq!(v4.clone().fragment(0x0fae, 0..1480).build(), captured("IPv4 first fragment"));
    assert_eq!(v4.fragment(0x0fae, 1480..2056).build(), captured("IPv4 last fragment"));
    let v6 = Packet::udp(at("[2001:db8:9::1]:50220"), at("[2001:db8:9::2]:83"), payload).ethernet(B, A).v6(|ip| {
        ip.flow_label = 0xaf3c2;
    });
    let (first, last) = (captured("IPv6 first fragment"), captured("IPv6 last fragment"));
    assert_eq!(v6.clone().fragment(0xafc5_a517, 0..1448).build(), first);
    assert_eq!(v6.fragment(0xafc5_a517, 1448..2056).build(), last);
    assert_eq!(parse(&first).expect("readable").ip.fragment, Fragment::First { identification: 0xafc5_a517 });
    assert_eq!(parse(&last).expect("readable").ip.fragment, Fragment::Later { identification: 0xafc5_a517 });
}

#[test]
fn an_icmp_error_is_built_as_linux_builds_it() {
    let v4 = Packet::icmp(at("10.9.0.2:0").ip(), at("10.9.0.1:0").ip(), 3, 3, captured("IPv4 UDP")[14..].to_vec())
        .ethernet(A, B)
        .v4(|ip| (ip.identification, ip.traffic_class) = (0xb8d7, 0xc0));
    assert_eq!(v4.build(), captured("IPv4 port unreachable"));
    let quote = captured("IPv6 UDP")[14..].to_vec();
    let v6 = Packet::icmp(at("[2001:db8:9::2]:0").ip(), at("[2001:db8:9::1]:0").ip(), 1, 4, quote)
        .ethernet(A, B)
        .v6(|ip| ip.flow_label = 0x76bfa);
    assert_eq!(v6.build(), captured("IPv6 port unreachable"));
}

#[test]
fn a_lie_is_told_and_the_rest_stays_true() {
    let honest = Packet::udp(at("10.9.0.1:1"), at("10.9.0.2:2"), &b"payload"[..]);
    let differing = |liar: &Packet| -> Vec<usize> {
        let (honest, liar) = (honest.build(), liar.build());
        assert_eq!(honest.len(), liar.len());
        (0..honest.len()).filter(|i| honest[*i] != liar[*i]).collect()
    };
    // The header checksum covers the lie, for a lie is told with a straight face.
    assert_eq!(differing(&honest.clone().v4(|ip| ip.version = Some(5))), [14, 24]);
    assert_eq!(differing(&honest.clone().v4(|ip| ip.total_length = Some(36))), [17, 25]);
    assert_eq!(differing(&honest.clone().v4(|ip| ip.checksum = Checksum::Wrong(0x0100))), [24]);
    assert_eq!(differing(&honest.clone().checksum(Checksum::Wrong(0x0001))), [41]);
    assert_eq!(honest.clone().checksum(Checksum::Zero).build()[40..42], [0, 0]);
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address with a port")
}
