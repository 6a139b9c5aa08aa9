//! What is written into a frame that is forwarded, and over one that is refused.

use crate::packet::{
    get_u16,
    parse::{Fragment, Transport, View, parse},
};
use splitter_ebpf::{
    abi::Macs,
    frame::{Frame as _, Octets},
    header::{Family, Packet, decode, protocol},
    refusal, rewrite,
    rewrite::{Deltas, End},
    tcp::flag,
};

use crate::frames::{self, Input, MEND, assert_only, octets_of, transport_checksum, wrong};

/// Rewrites a frame in every way that it may be.
///
/// # Panics
/// When an octet is written that isn't to be, or a checksum isn't what it has to be.
pub fn check(octets: &[u8]) {
    let Some(Input { choices, number, mut frame }) = Input::of(octets) else { return };
    let Ok(packet) = decode(&Octets(&mut frame)) else { return };
    let view = parse(&frame).expect("the decoder took it");
    if choices & MEND != 0 {
        frames::mend(&mut frame, &view);
    }
    link_header(&frame, &packet, number);
    if !matches!(packet.protocol, protocol::TCP | protocol::UDP) {
        return;
    }
    if packet.ttl > 1 {
        there_and_back(&frame, &packet, &view, number);
    }
    match view.transport {
        // A RST is never answered.
        Transport::Tcp(tcp) if tcp.flags & flag::RST == 0 => reset(&frame, &packet, &view, tcp.flags),
        Transport::Udp(_) => unreachable(&frame, &packet, &view),
        Transport::Tcp(_) | Transport::Icmp { .. } | Transport::None => {}
    }
}

fn link_header(before: &[u8], packet: &Packet, number: u8) {
    let mut frame = before.to_vec();
    let (destination, source) = ([number; 6], [!number; 6]);
    let mut octets = Octets(&mut frame);
    rewrite::macs(&mut octets, Macs::new(destination, source)).expect("inside the frame");
    for index in 0..packet.tags as usize {
        rewrite::vlan(&mut octets, index, u16::from(number) * 17).expect("inside the frame");
    }
    let mut expected = before.to_vec();
    expected[..6].fill(number);
    expected[6..12].fill(!number);
    for index in 0..packet.tags as usize {
        let at = 14 + 4 * index;
        let id = (u16::from(number) * 17) & 0x0fff;
        let tci = get_u16(&expected, at) & 0xf000 | id;
        expected[at..at + 2].copy_from_slice(&tci.to_be_bytes());
    }
    assert_eq!(expected, frame, "more than MAC addresses and VLAN IDs");
}

fn there_and_back(before: &[u8], packet: &Packet, view: &View, number: u8) {
    let (source, destination) = frames::ends(packet.family == Family::V4, number);
    let old = (
        End { address: packet.source, port: packet.source_port },
        End { address: packet.destination, port: packet.destination_port },
    );
    let deltas = Deltas::of(old, (source, destination));
    let mut frame = before.to_vec();
    rewrite::ends(&mut Octets(&mut frame), packet, source, destination, deltas).expect("inside the frame");
    assert_rewritten(before, &frame, view, (source, destination));

    // What the reply's way does: the same, turned round.
    let there = decode(&Octets(&mut frame)).expect("it can still be read");
    if there.ttl > 1 {
        let view = parse(&frame).expect("it can still be read");
        let halfway = frame.clone();
        rewrite::ends(&mut Octets(&mut frame), &there, old.0, old.1, deltas.reversed()).expect("inside the frame");
        assert_rewritten(&halfway, &frame, &view, old);
    }
}

fn assert_rewritten(before: &[u8], frame: &[u8], view: &View, (source, destination): (End, End)) {
    let ip = &view.ip;
    let mut expected = before.to_vec();
    expected[ip.ttl_at()] -= 1;
    for (end, at) in [(source, ip.source_at()), (destination, ip.destination_at())] {
        let octets = octets_of(end.address, ip.is_ipv4());
        expected[at..at + octets.len()].copy_from_slice(&octets);
    }
    let none = matches!(view.transport, Transport::Udp(udp) if udp.checksum == 0);
    if !matches!(ip.fragment, Fragment::Later { .. }) {
        expected[ip.payload..ip.payload + 2].copy_from_slice(&source.port.to_ne_bytes());
        expected[ip.payload + 2..ip.payload + 4].copy_from_slice(&destination.port.to_ne_bytes());
    }
    let checksums = [ip.is_ipv4().then_some(ip.at + 10), transport_checksum(view).filter(|_| !none)];
    assert_only(&expected, frame, checksums.into_iter().flatten());
    let after = parse(frame).expect("it can still be read");
    assert_eq!(wrong(frame, &after), wrong(before, view), "a checksum is wrong by something else than before");
}

fn reset(before: &[u8], packet: &Packet, view: &View, flags: u8) {
    let mut frame = before.to_vec();
    let length = refusal::reset(&mut Octets(&mut frame), packet).expect("inside the frame");
    assert!(length <= frame.len(), "a RST is no longer than what it answers");
    frame.truncate(length);
    let answer = assert_answer(&frame, before, view);
    let Transport::Tcp(tcp) = answer.transport else { panic!("{:?} is no RST", answer.transport) };
    let expected = if flags & flag::ACK == 0 { flag::RST | flag::ACK } else { flag::RST };
    assert_eq!((tcp.flags, tcp.header, answer.ip.end - answer.ip.payload), (expected, 20, 20));
    let (from, to) = (view.endpoints().expect("TCP"), answer.endpoints().expect("TCP"));
    assert_eq!((from.0, from.1), (to.1, to.0), "both ends exchanged");
}

fn unreachable(before: &[u8], packet: &Packet, view: &View) {
    let growth = refusal::unreachable_growth(packet.family);
    let mut frame = [vec![0xee; growth], before.to_vec()].concat();
    let mut octets = Octets(&mut frame);
    assert!(octets.holds(growth));
    let length = refusal::unreachable(&mut octets, packet).expect("inside the frame");
    assert!(length <= frame.len(), "it fits");
    frame.truncate(length);
    let answer = assert_answer(&frame, before, view);
    let quoted = (view.ip.payload + 8 - view.ip.at).min(refusal::QUOTE);
    assert_eq!(frame[answer.ip.payload..][..2], if view.ip.is_ipv4() { [3, 3] } else { [1, 4] });
    assert_eq!(frame[answer.ip.payload + 8..], before[view.ip.at..][..quoted], "it quotes what was refused");
    assert_eq!((answer.ip.source, answer.ip.destination), (view.ip.destination, view.ip.source));
}

/// An answer can be read, goes back to where the packet came from, and its checksums are right.
fn assert_answer(frame: &[u8], before: &[u8], view: &View) -> View {
    let answer = parse(frame).expect("an answer can be read");
    assert_eq!((answer.destination, answer.source), (view.source, view.destination), "MAC addresses exchanged");
    assert_eq!(frame[12..view.ip.at - 2], before[12..view.ip.at - 2], "the tags are kept");
    assert_eq!((answer.ip.ttl, answer.ip.end), (64, frame.len()));
    let wrong = wrong(frame, &answer);
    assert_eq!((wrong.network.unwrap_or(0), wrong.transport), (0, Some(0)), "an answer's checksums are right");
    answer
}
