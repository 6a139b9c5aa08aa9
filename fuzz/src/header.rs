//! The readers of frames: `header::decode` and `usual`, which the kernel runs, and the tests' own, which was written from the page.

use crate::packet::parse::{self, Flaw, Transport, View, parse};
use splitter_ebpf::{
    frame::{Frame, Octets},
    header::{self, Family, Fragment, Packet, protocol},
    reason::Skip,
    usual::{Head, TCP4, TCP6, UDP4, UDP6, Usual, V4, V6},
};

use crate::frames::{Input, Pieces, octets_of};

/// The choice to have only a part of the frame in its first piece.
const IN_PIECES: u8 = 2;

/// Reads a frame in every way.
///
/// # Panics
/// When they don't agree, or what they say can't be.
pub fn check(octets: &[u8]) {
    let Some(input) = Input::of(octets) else { return };
    let mut frame = input.frame.clone();
    let decoded = header::decode(&Octets(&mut frame));
    match (parse(&input.frame), &decoded) {
        (Ok(view), Ok(packet)) => {
            assert_inside(packet, &input.frame);
            assert_same(&view, packet, &input.frame);
        }
        (Err(flaw), Err(skip)) => assert_eq!(reason(flaw), *skip, "another reason"),
        (by_the_page, decoded) => panic!("by the page {by_the_page:?}, decoded {decoded:?}"),
    }
    let linear = frame.len();
    assert_usual(&mut Octets(&mut frame), linear, &decoded);
    assert_eq!(frame, input.frame, "reading wrote");

    if input.chose(IN_PIECES) {
        let linear = usize::from(input.number).min(frame.len());
        let mut pieces = Pieces { all: frame.len(), first: &mut frame[..linear] };
        let in_pieces = header::decode(&pieces);
        // Headers that don't lie in the first piece are cut short; nothing else may differ.
        let cut_short = in_pieces.is_err_and(|skip| skip.label().starts_with("truncated"));
        assert!(in_pieces == decoded || cut_short, "in one piece {decoded:?}, in several {in_pieces:?}");
        assert_usual(&mut pieces, linear, &in_pieces);
    }
}

/// The quick readers take nothing but what the decoder reads the same, and all of it that is usual.
fn assert_usual(frame: &mut impl Frame, linear: usize, decoded: &Result<Packet, Skip>) {
    let usual = usual_of(frame, linear);
    match (usual, decoded) {
        (Some(packet), decoded) => assert_eq!(decoded, &Ok(packet), "the quick reader took it"),
        (None, Ok(packet)) => {
            let plain = packet.transport == packet.network + if packet.family == Family::V4 { 20 } else { 40 };
            let is_usual = packet.tags == 0
                && plain
                && packet.fragment == Fragment::Whole
                && matches!(packet.protocol, protocol::TCP | protocol::UDP)
                && linear >= (packet.network + packet.length) as usize;
            assert!(!is_usual, "the quick reader didn't take {packet:?}");
        }
        (None, Err(_)) => {}
    }
}

fn usual_of(frame: &mut impl Frame, linear: usize) -> Option<Packet> {
    let head = Head(frame.get(0)?);
    match (head.protocol4(), head.protocol6()) {
        (Some(protocol::TCP), None) => V4::<TCP4>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
        (Some(protocol::UDP), None) => V4::<UDP4>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
        (None, Some(protocol::TCP)) => V6::<TCP6>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
        (None, Some(protocol::UDP)) => V6::<UDP6>::of(frame.get_mut(0)?, linear).map(|usual| usual.packet()),
        _ => None,
    }
}

/// All that it says lies in the frame.
fn assert_inside(packet: &Packet, frame: &[u8]) {
    let (network, transport, length) = (packet.network_at(), packet.transport_at(), packet.length as usize);
    assert_eq!((network, transport), (packet.network as usize, packet.transport as usize), "an offset was masked away");
    assert!(network + length <= frame.len(), "it ends behind the frame");
    let header = match (packet.fragment, packet.protocol) {
        (Fragment::Later, _) => 0,
        (Fragment::Whole | Fragment::First, protocol::TCP) => 20,
        (Fragment::Whole | Fragment::First, _) => 8,
    };
    assert!(transport + header + packet.data as usize <= network + length, "its transport doesn't lie within it");
}

fn assert_same(view: &View, packet: &Packet, frame: &[u8]) {
    let ip = &view.ip;
    let ipv4 = packet.family == Family::V4;
    assert_eq!((ip.is_ipv4(), ip.protocol, ip.ttl), (ipv4, packet.protocol, packet.ttl));
    assert_eq!(view.tags.len(), packet.tags as usize);
    assert_eq!((ip.at, ip.payload), (packet.network as usize, packet.transport as usize));
    assert_eq!(ip.end - ip.at, packet.length as usize);
    let addresses = [(packet.source, ip.source_at()), (packet.destination, ip.destination_at())];
    for (address, at) in addresses {
        let octets = octets_of(address, ipv4);
        assert_eq!(octets, frame[at..at + octets.len()]);
    }
    let (fragment, identification) = match ip.fragment {
        parse::Fragment::Whole => (Fragment::Whole, None),
        parse::Fragment::First { identification } => (Fragment::First, Some(identification)),
        parse::Fragment::Later { identification } => (Fragment::Later, Some(identification)),
    };
    assert_eq!(fragment, packet.fragment);
    if let Some(identification) = identification {
        // As loaded: the lower half is what a field of 16 bits left there.
        let loaded = u32::from_be(packet.identification);
        assert_eq!(identification, if ipv4 { loaded >> 16 } else { loaded });
    }
    let ports = (u16::from_be(packet.source_port), u16::from_be(packet.destination_port));
    let (theirs, flags, data) = match view.transport {
        Transport::Tcp(tcp) => ((tcp.source, tcp.destination), tcp.flags, ip.end - ip.payload - tcp.header),
        Transport::Udp(udp) => ((udp.source, udp.destination), 0, 0),
        Transport::Icmp { kind } => ((0, 0), kind, 0),
        Transport::None => ((0, 0), 0, 0),
    };
    assert_eq!((theirs, flags, data), (ports, packet.flags, packet.data as usize));
}

const fn reason(flaw: Flaw) -> Skip {
    match flaw {
        Flaw::TruncatedEthernet => Skip::TruncatedEthernet,
        Flaw::TruncatedVlan => Skip::TruncatedVlan,
        Flaw::TooManyVlanTags => Skip::TooManyVlanTags,
        Flaw::NotIp => Skip::NotIp,
        Flaw::TruncatedIpv4 => Skip::TruncatedIpv4,
        Flaw::BadIpv4Header => Skip::BadIpv4Header,
        Flaw::TruncatedIpv6 => Skip::TruncatedIpv6,
        Flaw::BadIpv6Header => Skip::BadIpv6Header,
        Flaw::TooManyExtensions => Skip::TooManyExtensions,
        Flaw::TruncatedExtension => Skip::TruncatedExtension,
        Flaw::SourceRouted => Skip::SourceRouted,
        Flaw::BadFragment => Skip::BadFragment,
        Flaw::NotTcpUdp => Skip::NotTcpUdp,
        Flaw::TruncatedTcp => Skip::TruncatedTcp,
        Flaw::BadTcpHeader => Skip::BadTcpHeader,
        Flaw::TruncatedUdp => Skip::TruncatedUdp,
        Flaw::BadUdpHeader => Skip::BadUdpHeader,
        Flaw::TruncatedIcmp => Skip::TruncatedIcmp,
    }
}
