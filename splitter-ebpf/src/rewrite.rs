//! What is written into a forwarded packet.

use crate::{
    abi::Macs,
    address::Address,
    checksum::Delta,
    frame::{Frame, load16, load32, store16, store32, store64},
    header::{ETHERNET, Family, Fragment, Packet, protocol},
};

/// The frame turned out shorter than its headers said. Can't happen to a packet that was decoded from it; the kernel's verifier wants
/// the question asked all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrame;

/// One end of a packet's journey.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Its address.
    pub address: Address,
    /// Its port, as loaded from network order.
    pub port: u16,
}

/// What replacing both ends of a packet does to its checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deltas {
    /// To an IPv4 header's: the addresses.
    pub network: Delta,
    /// To a transport header's: addresses (by the pseudo header) and ports.
    pub transport: Delta,
}

impl Deltas {
    /// Of replacing `old` (source, destination) by `new`.
    #[inline(always)]
    #[must_use]
    pub const fn of(old: (End, End), new: (End, End)) -> Self {
        let network = Delta::ZERO.address(old.0.address, new.0.address).address(old.1.address, new.1.address);
        let transport = network.word(old.0.port, new.0.port).word(old.1.port, new.1.port);
        Self { network, transport }
    }

    /// Of the way back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { network: self.network.reversed(), transport: self.transport.reversed() }
    }
}

/// Writes both MAC addresses.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn macs(frame: &mut impl Frame, macs: Macs) -> Result<(), OutOfFrame> {
    let ethernet: &mut [u8; 12] = frame.get_mut(0).ok_or(OutOfFrame)?;
    store32::<0, _>(ethernet, macs.0[0]);
    store32::<4, _>(ethernet, macs.0[1]);
    store32::<8, _>(ethernet, macs.0[2]);
    Ok(())
}

/// Both MAC addresses.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn macs_of(frame: &impl Frame) -> Result<Macs, OutOfFrame> {
    let ethernet: &[u8; 12] = frame.get(0).ok_or(OutOfFrame)?;
    Ok(Macs([load32::<0, _>(ethernet), load32::<4, _>(ethernet), load32::<8, _>(ethernet)]))
}

/// Writes both ends, takes one from TTL or hop limit, and brings the checksums after.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn ends(frame: &mut impl Frame, packet: &Packet, source: End, destination: End, deltas: Deltas) -> Result<(), OutOfFrame> {
    network(frame, packet, source.address, destination.address, deltas.network)?;
    if matches!(packet.fragment, Fragment::Later) {
        return Ok(());
    }
    transport(frame, packet.transport_at(), packet.protocol, source.port, destination.port, deltas.transport)
}

/// Writes addresses, TTL and the network header's checksum.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn network(
    frame: &mut impl Frame,
    packet: &Packet,
    source: Address,
    destination: Address,
    delta: Delta,
) -> Result<(), OutOfFrame> {
    let at = packet.network_at();
    match packet.family {
        Family::V4 => {
            let ip: &mut [u8; 20] = frame.get_mut(at).ok_or(OutOfFrame)?;
            ip[8] = packet.ttl.wrapping_sub(1);
            let checksum = delta.and(Delta::TTL).update(load16::<10, _>(ip));
            store16::<10, _>(ip, checksum);
            store32::<12, _>(ip, source.to_v4_word());
            store32::<16, _>(ip, destination.to_v4_word());
        }
        Family::V6 => {
            let ip: &mut [u8; 40] = frame.get_mut(at).ok_or(OutOfFrame)?;
            ip[7] = packet.ttl.wrapping_sub(1);
            store64::<8, _>(ip, source.high);
            store64::<16, _>(ip, source.low);
            store64::<24, _>(ip, destination.high);
            store64::<32, _>(ip, destination.low);
        }
    }
    Ok(())
}

/// Writes ports and the transport header's checksum.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
fn transport(
    frame: &mut impl Frame,
    at: usize,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    delta: Delta,
) -> Result<(), OutOfFrame> {
    if protocol == protocol::TCP {
        let tcp: &mut [u8; 18] = frame.get_mut(at).ok_or(OutOfFrame)?;
        store16::<0, _>(tcp, source_port);
        store16::<2, _>(tcp, destination_port);
        let checksum = delta.update(load16::<16, _>(tcp));
        store16::<16, _>(tcp, checksum);
    } else {
        let udp: &mut [u8; 8] = frame.get_mut(at).ok_or(OutOfFrame)?;
        store16::<0, _>(udp, source_port);
        store16::<2, _>(udp, destination_port);
        let checksum = udp_checksum(load16::<6, _>(udp), delta);
        store16::<6, _>(udp, checksum);
    }
    Ok(())
}

/// A UDP checksum after a change: zero says that there is none (RFC 768), so none stays none and a computed zero is written as all ones.
#[inline(always)]
#[must_use]
pub const fn udp_checksum(checksum: u16, delta: Delta) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match delta.update(checksum) {
        0 => 0xffff,
        updated => updated,
    }
}

/// The TCIs of a frame's tags, outermost first, as octets.
#[inline(always)]
#[must_use]
pub fn tags(frame: &impl Frame, count: u32) -> [[u8; 2]; 2] {
    let at = |offset| frame.get::<2>(offset).copied().unwrap_or_default();
    match count {
        0 => [[0; 2]; 2],
        1 => [at(ETHERNET), [0; 2]],
        _ => [at(ETHERNET), at(ETHERNET + 4)],
    }
}

/// Gives the `index`-th tag another VLAN ID; priority and drop eligibility stay (IEEE 802.1Q, 9.6).
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn vlan(frame: &mut impl Frame, index: usize, id: u16) -> Result<(), OutOfFrame> {
    let tci: &mut [u8; 2] = frame.get_mut(ETHERNET + 4 * index).ok_or(OutOfFrame)?;
    let [high, low] = id.to_be_bytes();
    *tci = [tci[0] & 0xf0 | high & 0x0f, low];
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::Octets,
        header::decode,
        testing::{
            CLIENT_PORT, CLIENT4, CLIENT6, SERVICE_PORT, SERVICE4, SERVICE6, end4, end6, ethernet, finish, ipv4, ipv6, is_right,
            tcp, udp,
        },
    };

    const NAT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfa];

    #[test]
    fn both_ends_are_replaced_and_every_checksum_is_right_there_and_back() {
        let mut packets = [
            (ipv4(6, &[], &tcp(0x10, b"hello")), 20, 6),
            (ipv4(6, &[1; 40], &tcp(0x10, b"hello!")), 60, 6),
            (ipv4(17, &[], &udp(b"hello")), 20, 17),
            (ipv6(6, &tcp(0x10, b"hello")), 40, 6),
            (ipv6(17, &udp(b"hello!")), 40, 17),
        ];
        for (packet, transport, protocol) in &mut packets {
            finish(packet, *transport, *protocol);
            let v4 = packet[0] >> 4 == 4;
            let mut frame = ethernet(&[5], if v4 { 0x0800 } else { 0x86dd }, packet);
            let before = frame.clone();
            let (client, service, nat, backend) = if v4 {
                let (client, service) = (end4(CLIENT4, CLIENT_PORT), end4(SERVICE4, SERVICE_PORT));
                (client, service, end4([10, 0, 0, 250], 20_000), end4([10, 0, 0, 5], 8_080))
            } else {
                let (client, service) = (end6(CLIENT6, CLIENT_PORT), end6(SERVICE6, SERVICE_PORT));
                (client, service, end6(NAT6, 20_000), end6([0xfe; 16], 8_080))
            };
            let there = Deltas::of((client, service), (nat, backend));
            let mut octets = Octets(&mut frame);
            let packet = decode(&octets).expect("a good frame");
            ends(&mut octets, &packet, nat, backend, there).expect("inside the frame");
            let sent = decode(&octets).expect("still a good frame");
            assert_eq!((sent.source, sent.source_port), (nat.address, nat.port));
            assert_eq!((sent.destination, sent.destination_port), (backend.address, backend.port));
            assert_eq!(sent.ttl, 63);
            assert!(is_right(octets.0, &sent), "{sent:?}");
            // The same changes undone, TTL and header checksum but for two hops.
            let back = Deltas { network: there.network.reversed(), transport: there.transport.reversed() };
            ends(&mut octets, &sent, client, service, back).expect("inside the frame");
            let returned = decode(&octets).expect("still a good frame");
            assert!(is_right(octets.0, &returned));
            assert_eq!(octets.0[packet.transport as usize..], before[packet.transport as usize..]);
        }
    }

    #[test]
    fn a_later_fragment_is_addressed_anew_and_its_octets_stay() {
        let mut packet = ipv4(17, &[], &[0xaa; 24]);
        packet[7] = 3;
        let mut frame = ethernet(&[], 0x0800, &packet);
        let mut octets = Octets(&mut frame);
        let packet = decode(&octets).expect("a good frame");
        let (source, destination) = (end4([10, 0, 0, 250], 1), end4([10, 0, 0, 5], 2));
        let deltas = Deltas::of((end4(CLIENT4, 0), end4(SERVICE4, 0)), (source, destination));
        ends(&mut octets, &packet, source, destination, deltas).expect("inside the frame");
        let sent = decode(&octets).expect("still a good frame");
        assert_eq!((sent.source, sent.destination), (source.address, destination.address));
        assert_eq!(octets.0[34..], [0xaa; 24]);
    }

    #[test]
    fn a_udp_checksum_of_none_stays_and_one_of_zero_is_written_as_ones() {
        let delta = Delta::ZERO.word(1, 2);
        assert_eq!(udp_checksum(0, delta), 0);
        assert_eq!(udp_checksum(1, delta), 0xffff);
        assert_eq!(udp_checksum(0x1234, delta), 0x1233);
    }

    #[test]
    fn tags_are_read_and_given_other_ids() {
        let mut frame = ethernet(&[0xf064, 0x30c8], 0x0800, &ipv4(17, &[], &udp(b"")));
        let mut octets = Octets(&mut frame);
        assert_eq!(tags(&octets, 2), [[0xf0, 0x64], [0x30, 0xc8]]);
        assert_eq!(tags(&octets, 1), [[0xf0, 0x64], [0, 0]]);
        assert_eq!(tags(&octets, 0), [[0; 2]; 2]);
        vlan(&mut octets, 0, 300).expect("inside the frame");
        // Of a TCI, the VLAN ID alone is taken.
        vlan(&mut octets, 1, 0xe123).expect("inside the frame");
        assert_eq!(tags(&octets, 2), [[0xf1, 0x2c], [0x31, 0x23]]);
        macs(&mut octets, Macs::new([1; 6], [2; 6])).expect("inside the frame");
        assert_eq!(octets.0[..12], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn what_lies_outside_of_the_frame_is_not_written() {
        let mut short = [0; 11];
        assert_eq!(macs(&mut Octets(&mut short), Macs::new([1; 6], [2; 6])), Err(OutOfFrame));
        assert_eq!(vlan(&mut Octets(&mut short), 0, 1), Err(OutOfFrame));
        assert_eq!(short, [0; 11]);
    }
}
