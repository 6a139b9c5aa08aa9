//! The oracle's rules, one by one, and that it notices when they are broken.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::sample::{BACK, FRONT, VLAN, node, world};
use super::*;
use crate::packet::generate::{Generator, Scenario};
use crate::packet::{ACK, Checksum, Extension, FIN, Mac, Packet, RST, SYN, Tag, Units};

mod behaviour;

#[test]
fn a_frame_that_cannot_be_steered_goes_to_the_kernel_with_its_reason() {
    let (v4, v6) = (address("192.0.0.1:80"), address("[2001:db8::192:0:8]:80"));
    let (client4, client6) = (address("203.0.113.9:4000"), address("[2001:db8:a::9]:4000"));
    let syn4 = || Packet::tcp(client4, v4, SYN);
    let syn6 = || Packet::tcp(client6, v6, SYN);
    let udp4 = || Packet::udp(client4, v4, &b"0123456789abcdef"[..]);
    let units = |held, claimed| Units { held, claimed };
    let extended = |extensions: Vec<Extension>| syn6().v6(|ip| ip.extensions = extensions).build();
    let fragment = |offset, more| Extension::Fragment { offset, more, identification: 1 };
    let seven = vec![Extension::Destination(units(1, None)); 7];
    let quoted = Packet::tcp(v4, client4, ACK).build_network();
    let elsewhere = Packet::icmp(client4.ip(), address("192.0.0.2:0").ip(), 3, 1, quoted);
    let service_tag = Tag { ethertype: crate::packet::ETHERTYPE_8021AD, tci: 1 };
    let mut foreign = syn4();
    foreign.tags.push(Tag { ethertype: 0x0806, tci: 0 });
    let mut service_tagged = syn4().tagged(2).tagged(3);
    service_tagged.tags[0] = service_tag;
    let rows = [
        ("13 octets", syn4().build().slice(..13), Reason::TruncatedEthernet),
        ("a tag of 3 octets", syn4().tagged(1).build().slice(..17), Reason::TruncatedVlan),
        ("three tags", syn4().tagged(1).tagged(2).tagged(3).build(), Reason::TooManyVlanTags),
        ("a third tag that isn't even there", service_tagged.tagged(4).build().slice(..22), Reason::TooManyVlanTags),
        ("ARP", foreign.build(), Reason::NotIp),
        ("19 octets of IPv4", syn4().build().slice(..33), Reason::TruncatedIpv4),
        ("IPv4 of version 6", syn4().v4(|ip| ip.version = Some(6)).build(), Reason::BadIpv4Header),
        ("IHL 4", syn4().v4(|ip| ip.ihl = Some(4)).build(), Reason::BadIpv4Header),
        ("a total length inside the header", syn4().v4(|ip| ip.total_length = Some(19)).build(), Reason::BadIpv4Header),
        ("a total length behind the frame", syn4().v4(|ip| ip.total_length = Some(41)).build(), Reason::BadIpv4Header),
        ("39 octets of IPv6", syn6().build().slice(..53), Reason::TruncatedIpv6),
        ("IPv6 of version 4", syn6().v6(|ip| ip.version = Some(4)).build(), Reason::BadIpv6Header),
        ("a payload length behind the frame", syn6().v6(|ip| ip.payload_length = Some(21)).build(), Reason::BadIpv6Header),
        ("a jumbogram", hop_by_hop(&syn6()).v6(|ip| ip.payload_length = Some(0)).build(), Reason::TruncatedExtension),
        ("seven extension headers", extended(seven), Reason::TooManyExtensions),
        ("an extension longer than all", extended(vec![Extension::Destination(units(1, Some(9)))]), Reason::TruncatedExtension),
        ("segments left", extended(vec![Extension::Routing(units(1, None), 1)]), Reason::SourceRouted),
        ("two fragment headers", extended(vec![fragment(0, false), fragment(0, false)]), Reason::BadFragment),
        ("a fragment beyond the end", extended(vec![fragment(0x1fff, false)]), Reason::BadFragment),
        ("the same in IPv4", syn4().v4(|ip| ip.offset = 0x1fff).build(), Reason::BadFragment),
        ("GRE", Packet::raw(client4.ip(), v4.ip(), 47, vec![0; 20]).build(), Reason::NotTcpUdp),
        ("ICMPv6 in IPv4", Packet::raw(client4.ip(), v4.ip(), 58, vec![1; 20]).build(), Reason::NotTcpUdp),
        ("ICMP in IPv6", Packet::raw(client6.ip(), v6.ip(), 1, vec![3; 20]).build(), Reason::NotTcpUdp),
        (
            "a fragment of ICMP",
            Packet::icmp(client4.ip(), v4.ip(), 3, 3, vec![0; 40]).fragment(1, 0..24).build(),
            Reason::NotTcpUdp,
        ),
        ("19 octets of TCP", syn4().fragment(1, 0..19).build(), Reason::TruncatedTcp),
        ("data offset 4", syn4().with_tcp(|tcp| tcp.data_offset = Some(4)).build(), Reason::BadTcpHeader),
        ("a data offset behind the packet", syn4().with_tcp(|tcp| tcp.data_offset = Some(6)).build(), Reason::BadTcpHeader),
        ("7 octets of UDP", udp4().fragment(1, 0..7).build(), Reason::TruncatedUdp),
        ("UDP length 7", udp_length(udp4(), 7).build(), Reason::BadUdpHeader),
        ("a UDP length behind the packet", udp_length(udp4(), 25).build(), Reason::BadUdpHeader),
        ("7 octets of ICMP", Packet::raw(client4.ip(), v4.ip(), 1, vec![3; 7]).build(), Reason::TruncatedIcmp),
        ("another port", Packet::tcp(client4, address("192.0.0.1:81"), SYN).build(), Reason::NotOurs),
        ("another protocol", udp4().build(), Reason::NotOurs),
        ("a later fragment of nothing", udp4().fragment(7, 8..24).build(), Reason::FragmentUnknown),
        (
            "a later fragment of GRE",
            Packet::raw(client4.ip(), v4.ip(), 47, vec![0; 40]).fragment(7, 8..40).build(),
            Reason::NotTcpUdp,
        ),
        ("ping", Packet::icmp(client4.ip(), v4.ip(), 8, 0, vec![0; 40]).build(), Reason::IcmpNotError),
        ("an error without a quote", Packet::icmp(client4.ip(), v4.ip(), 3, 1, vec![0; 27]).build(), Reason::IcmpTruncatedQuote),
        ("an error about nobody", error(&Packet::tcp(v4, client4, ACK)), Reason::IcmpUnrelated),
        ("a quote of 7 octets of TCP", error(&Packet::tcp(v4, client4, ACK).fragment(1, 0..7)), Reason::IcmpTruncatedQuote),
        ("a quote of a later fragment", error(&Packet::tcp(v4, client4, ACK).fragment(1, 8..20)), Reason::IcmpUnrelated),
        ("a quote of GRE", error(&Packet::raw(v4.ip(), client4.ip(), 47, vec![0; 7])), Reason::IcmpUnrelated),
        ("an error to another than the sender", elsewhere.build(), Reason::IcmpUnrelated),
        ("a TTL of 1", syn4().ttl(1).build(), Reason::TtlExpired),
        ("a hop limit of 0", syn6().ttl(0).build(), Reason::TtlExpired),
    ];
    let oracle = Oracle::new(world());
    for (why, frame, reason) in rows {
        let expectation = oracle.expect(&frame, FRONT);
        assert!(expectation.outcomes().all(|outcome| *outcome == Outcome::ToKernel { reason }), "{why}: {expectation:?}");
        let counted = [reason];
        let untouched = Observed { action: Action::Pass, frame: &frame, redirect: None, counted: Some(&counted) };
        oracle.check(&expectation, &untouched).map(drop).unwrap_or_else(|difference| panic!("{why}: {difference}"));
    }
}

#[test]
fn what_only_looks_odd_is_steered() {
    let (v4, v6) = (address("192.0.0.1:80"), address("[2001:db8::192:0:8]:80"));
    let (client4, client6) = (address("203.0.113.9:4000"), address("[2001:db8:a::9]:4000"));
    let syn6 = Packet::tcp(client6, v6, SYN);
    let atomic = Extension::Fragment { offset: 0, more: false, identification: 1 };
    let six = [Extension::HopByHop(Extension::honest(2)), Extension::Routing(Extension::honest(3), 0), atomic]
        .into_iter()
        .chain([Extension::Destination(Extension::honest(1)); 2])
        .chain([Extension::HopByHop(Extension::honest(1))])
        .collect();
    let rows = [
        ("IPv4 options", Packet::tcp(client4, v4, SYN).v4(|ip| ip.options = vec![1; 40]).build()),
        ("a wrong header checksum", Packet::tcp(client4, v4, SYN).v4(|ip| ip.checksum = Checksum::Zero).build()),
        ("six extension headers, one an atomic fragment", syn6.clone().v6(|ip| ip.extensions = six).build()),
        ("a first fragment", Packet::tcp(client4, v4, SYN).payload(vec![0; 40]).fragment(1, 0..24).build()),
        ("a reserved TCP flag", Packet::tcp(client4, v4, SYN | 0xc0).build()),
    ];
    let oracle = Oracle::new(world());
    for (why, frame) in rows {
        let expectation = oracle.expect(&frame, FRONT);
        let forwarded =
            |outcome: &Outcome| matches!(outcome, Outcome::Forward { .. } | Outcome::ToKernel { reason: Reason::VlanMismatch });
        assert!(expectation.outcomes().all(forwarded), "{why}: {expectation:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_change_of_any_octet_of_any_right_output_is_a_difference(seed in any::<u64>(), bits in 1..=255_u8) {
        let mut generator = Generator::new(Scenario::from(&world()), seed);
        let mut oracle = Oracle::new(world());
        for pick in 0..300_usize {
            let frame = generator.next(oracle.knowledge());
            let expectation = oracle.expect(&frame.bytes, frame.ingress);
            let performed = oracle.perform(&expectation, pick.wrapping_mul(7919));
            let free = expectation.outcomes().any(|outcome| {
                matches!(outcome, Outcome::Forward { translation: Translation::Flow { source: None, .. }, .. })
            });
            if performed.action != Action::Drop && !performed.frame.is_empty() {
                for step in 0..8 {
                    let at = (pick * 31 + step * 97) % performed.frame.len();
                    let mut changed = performed.clone();
                    changed.frame[at] ^= bits;
                    let verdict = oracle.check(&expectation, &changed.observed());
                    // Without a checksum, another free port is as good as the one that was chosen.
                    // So is another backend, which an Ethernet address's last octet names, where it is the program's choice.
                    let choice = at == 5 && expectation.outcomes().count() > 1;
                    let another = choice || free && matches!(crate::packet::parse::field_at(&performed.frame, at), "source port" | "source address");
                    prop_assert!(verdict.is_err() || another, "{}: octet {at} ^ {bits:#x}", frame.label);
                }
            }
            let judged = oracle.judge(&frame.bytes, frame.ingress, &performed.observed());
            prop_assert_eq!(judged, Ok(()), "{}", frame.label);
        }
    }

    #[test]
    fn another_action_reason_or_interface_is_a_difference(seed in any::<u64>()) {
        let mut generator = Generator::new(Scenario::from(&world()), seed);
        let mut oracle = Oracle::new(world());
        for pick in 0..300_usize {
            let frame = generator.next(oracle.knowledge());
            let expectation = oracle.expect(&frame.bytes, frame.ingress);
            let right = oracle.perform(&expectation, pick.wrapping_mul(7919));
            let mut wrong = Vec::new();
            for action in [Action::Pass, Action::Tx, Action::Redirect, Action::Drop, Action::Aborted] {
                // A refusal may be suppressed, and a drop may be a refusal in truth.
                if action != right.action && action != Action::Drop {
                    wrong.push(Performed { action, ..right.clone() });
                }
            }
            wrong.push(Performed { counted: vec![Reason::TruncatedVlan, Reason::TruncatedIcmp], ..right.clone() });
            wrong.push(Performed { frame: [&right.frame[..], &[0]].concat(), ..right.clone() });
            wrong.extend(right.redirect.map(|_| Performed { redirect: Some(99), ..right.clone() }));
            for wrong in wrong.iter().filter(|wrong| wrong.action != Action::Drop) {
                let verdict = oracle.check(&expectation, &wrong.observed());
                prop_assert!(verdict.is_err(), "{}: {right:?} and {wrong:?}", frame.label);
            }
            let judged = oracle.judge(&frame.bytes, frame.ingress, &right.observed());
            prop_assert_eq!(judged, Ok(()), "{}", frame.label);
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

fn hop_by_hop(packet: &Packet) -> Packet {
    packet.clone().v6(|ip| ip.extensions = vec![Extension::HopByHop(Extension::honest(1))])
}

fn udp_length(mut packet: Packet, length: u16) -> Packet {
    if let crate::packet::Transport::Udp(udp) = &mut packet.transport {
        udp.length = Some(length);
    }
    packet
}

/// Host unreachable, quoting this packet, from its destination.
fn error(quoted: &Packet) -> bytes::Bytes {
    let crate::packet::Network::V4(ip) = &quoted.network else { panic!("an IPv4 packet") };
    Packet::icmp(ip.destination.into(), ip.source.into(), 3, 1, quoted.build_network()).build()
}
