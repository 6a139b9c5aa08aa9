//! The programs of a flood: one that sends, one that counts what comes, and a yardstick for what is between. Built, not yet loaded: pure but for the maps' descriptors.

use std::{net::Ipv4Addr, os::fd::BorrowedFd};

use bytes::Bytes;

use super::assembler::{Assembler, Comparison, Operation, R0, R1, R2, R3, R4, R6, R7, Register, Width};
use crate::packet::{Mac, Packet};

/// The port that is flooded.
pub(in crate::bench::wire) const PORT: u16 = 7_000;
/// The source port of the first flow.
const FIRST_SOURCE: u16 = 10_000;
/// The most flows: as many source ports.
pub(super) const MOST_FLOWS: u32 = 32_768;
/// 64 octets on the wire, of which a network card makes the last four.
pub(super) const FRAME: usize = 60;

// Of linux/bpf.h.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const KTIME_GET_NS: i32 = 5;
const REDIRECT: i32 = 23;
/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;

// Offsets in the frame: Ethernet, IPv4 without options, UDP, payload.
const ETHERTYPE: i16 = 12;
const PROTOCOL: i16 = 23;
const SOURCE_PORT: i16 = 34;
const DESTINATION_PORT: i16 = 36;
const UDP_CHECKSUM: i16 = 40;
const PAYLOAD: i16 = 42;
const HEADERS: usize = 42;
const UDP: i32 = 17;

/// The state of a generator, which its program and its user share: no two run at the same time.
///
/// Kept as plain words, for it is a map's value: see the offsets below.
pub(super) type State = [u64; 4];
/// Frames sent.
pub(super) const SENT: usize = 0;
/// The number of the next frame, which tells its flow.
const NEXT: usize = 1;
/// When the next frame is due: `bpf_ktime_get_ns`, in units of 1/256 ns.
const DUE: usize = 2;
/// From one frame to the next, in units of 1/256 ns; unless paced: unused.
pub(super) const INTERVAL: usize = 3;
/// The binary logarithm of the units in a nanosecond: 2^56 ns are more than two years of uptime.
pub(super) const FRACTION_BITS: i32 = 8;
/// How far a paced generator that was held up may catch up: what is sent at once must fit into a ring of 256.
const CATCH_UP_NS: i32 = 10_000;

/// Who sends a flood to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub source_mac: [u8; 6],
    pub next_hop: [u8; 6],
    pub source: Ipv4Addr,
    pub target: Ipv4Addr,
    /// The interface that frames leave by.
    pub device: u32,
}

impl Route {
    /// The first flow's frame. The payload begins with the source port's complement, so that every flow has the same checksum: port and
    /// complement add up to 0xffff, which is nothing in one's complement (RFC 1071).
    pub fn frame(&self) -> Bytes {
        let mut payload = [0; FRAME - HEADERS];
        payload[..2].copy_from_slice(&(!FIRST_SOURCE).to_be_bytes());
        let (source, target) = ((self.source, FIRST_SOURCE).into(), (self.target, PORT).into());
        Packet::udp(source, target, payload.to_vec()).ethernet(Mac(self.next_hop), Mac(self.source_mac)).build()
    }
}

/// Sends every frame it is run on, or, when paced, every frame that is due. It writes the headers anew each time, for a
/// frame that comes back is as the node has left it.
///
/// # Panics
/// Unless `flows` is a power of two that is at most [`MOST_FLOWS`].
pub(super) fn generator(route: &Route, flows: u32, paced: bool, state: BorrowedFd<'_>) -> Vec<u64> {
    assert!(flows.is_power_of_two() && flows <= MOST_FLOWS, "{flows} flows");
    let word = |index: usize| i16::try_from(index * 8).expect("four words");
    let mut program = Assembler::default();
    program.load(Width::Word, R6, R1, DATA);
    program.load(Width::Word, R2, R1, DATA_END);
    program.register(Operation::Move, R3, R6);
    program.immediate(Operation::Add, R3, FRAME as i32);
    program.out_if(R3, Comparison::Greater, R2);
    program.map_value(R7, state);
    if paced {
        program.call(KTIME_GET_NS);
        program.immediate(Operation::ShiftLeft, R0, FRACTION_BITS);
        program.load(Width::Double, R1, R7, word(DUE));
        program.out_if(R0, Comparison::Less, R1);
        program.immediate(Operation::Subtract, R0, CATCH_UP_NS << FRACTION_BITS);
        program.skip_if(R1, Comparison::GreaterOrEqual, R0);
        program.register(Operation::Move, R1, R0);
        program.load(Width::Double, R2, R7, word(INTERVAL));
        program.register(Operation::Add, R1, R2);
        program.store(Width::Double, R7, word(DUE), R1);
    }
    // The headers but the UDP checksum, by eight octets.
    let frame = route.frame();
    for (number, octets) in frame[..40].chunks_exact(8).enumerate() {
        program.constant(R3, u64::from_ne_bytes(octets.try_into().expect("chunks of eight")));
        program.store(Width::Double, R6, word(number), R3);
    }
    let sum = u16::from_ne_bytes([frame[40], frame[41]]);
    program.immediate(Operation::Move, R3, sum.into());
    program.store(Width::Half, R6, UDP_CHECKSUM, R3);
    // What tells the flow: the source port, and its complement as the payload's first word.
    program.load(Width::Double, R2, R7, word(NEXT));
    program.register(Operation::Move, R3, R2);
    program.immediate(Operation::Add, R3, 1);
    program.store(Width::Double, R7, word(NEXT), R3);
    program.immediate(Operation::And, R2, flows as i32 - 1);
    program.immediate(Operation::Add, R2, FIRST_SOURCE.into());
    program.big_endian_16(R2);
    program.store(Width::Half, R6, SOURCE_PORT, R2);
    program.immediate(Operation::Xor, R2, 0xffff);
    program.store(Width::Half, R6, PAYLOAD, R2);
    program.count(R7, word(SENT), R2);
    program.immediate(Operation::Move, R1, i32::try_from(route.device).expect("a small index"));
    program.immediate(Operation::Move, R2, 0);
    program.call(REDIRECT);
    program.exit();
    program.finish(XDP_DROP)
}

/// One of the backends of [`choose`].
#[derive(Clone, Copy, Debug)]
pub(in crate::bench::wire) struct Choice {
    /// The Ethernet address of the backend.
    pub to: [u8; 6],
    /// The Ethernet address of the device that leads there.
    pub from: [u8; 6],
    /// The index of that device.
    pub device: u32,
}

/// Sends every frame to one of two backends, by the lowest bit of its source port.
pub(in crate::bench::wire) fn choose(choices: [Choice; 2]) -> Vec<u64> {
    let mut program = Assembler::default();
    program.load(Width::Word, R2, R1, DATA);
    program.load(Width::Word, R3, R1, DATA_END);
    program.register(Operation::Move, R4, R2);
    program.immediate(Operation::Add, R4, HEADERS as i32);
    program.out_if(R4, Comparison::Greater, R3);
    program.load(Width::Byte, R4, R2, SOURCE_PORT + 1);
    program.immediate(Operation::And, R4, 1);
    let octets = choices.map(|choice| [choice.to, choice.from].concat());
    let first = octets.each_ref().map(|octets| u64::from_ne_bytes(octets[..8].try_into().expect("eight of twelve")));
    let rest = octets.each_ref().map(|octets| u32::from_ne_bytes(octets[8..].try_into().expect("four of twelve")));
    pick(&mut program, R3, first);
    program.store(Width::Double, R2, 0, R3);
    pick(&mut program, R3, rest.map(u64::from));
    program.store(Width::Word, R2, 8, R3);
    pick(&mut program, R1, choices.map(|choice| choice.device.into()));
    program.immediate(Operation::Move, R2, 0);
    program.call(REDIRECT);
    program.exit();
    program.finish(XDP_PASS)
}

/// The value that [`R4`], a bit, tells, without a branch. Overwrites [`R0`].
fn pick(program: &mut Assembler, to: Register, [zero, one]: [u64; 2]) {
    program.constant(to, one.wrapping_sub(zero));
    program.register(Operation::Multiply, to, R4);
    program.constant(R0, zero);
    program.register(Operation::Add, to, R0);
}

/// Counts and drops what belongs to a flood, and passes the rest (somebody must answer to ARP). A queue's program is never run by
/// two CPUs at a time, and a veth has one queue: the count is exact without being atomic.
pub(super) fn sink(count: BorrowedFd<'_>) -> Vec<u64> {
    let mut program = Assembler::default();
    program.load(Width::Word, R2, R1, DATA);
    program.load(Width::Word, R3, R1, DATA_END);
    program.register(Operation::Move, R4, R2);
    program.immediate(Operation::Add, R4, HEADERS as i32);
    program.out_if(R4, Comparison::Greater, R3);
    program.load(Width::Half, R4, R2, ETHERTYPE);
    program.out_if_value(R4, Comparison::NotEqual, u16::from_ne_bytes([8, 0]).into());
    program.load(Width::Byte, R4, R2, PROTOCOL);
    program.out_if_value(R4, Comparison::NotEqual, UDP);
    program.load(Width::Half, R4, R2, DESTINATION_PORT);
    program.out_if_value(R4, Comparison::NotEqual, u16::from_ne_bytes(PORT.to_be_bytes()).into());
    program.map_value(R1, count);
    program.count(R1, 0, R2);
    program.exit_with(XDP_DROP);
    program.finish(XDP_PASS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;

    #[test]
    fn every_flow_has_a_right_checksum() {
        let (source, target) = (Ipv4Addr::new(10, 70, 1, 1), Ipv4Addr::new(10, 79, 0, 1));
        let mut frame = Route { source_mac: [2; 6], next_hop: [4; 6], source, target, device: 2 }.frame().to_vec();
        assert_eq!(frame.len(), FRAME);
        let written = u16::from_be_bytes([frame[40], frame[41]]);
        for port in [FIRST_SOURCE, FIRST_SOURCE + 1, 65_535] {
            frame[34..36].copy_from_slice(&port.to_be_bytes());
            frame[42..44].copy_from_slice(&(!port).to_be_bytes());
            let right = checksum::transport(source.into(), target.into(), 17, FRAME - 34, &frame[34..], 6);
            assert_eq!(written, right, "from port {port}");
        }
    }
}
