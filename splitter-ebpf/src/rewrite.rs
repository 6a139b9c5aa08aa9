//! What is written into a forwarded packet.

use crate::{
    address::Address,
    checksum::Delta,
    frame::{Frame, load16, store16, store32, store64},
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
}

/// Writes both MAC addresses.
///
/// # Errors
/// See [`OutOfFrame`].
#[inline(always)]
pub fn macs(frame: &mut impl Frame, destination: [u8; 6], source: [u8; 6]) -> Result<(), OutOfFrame> {
    let ethernet: &mut [u8; 12] = frame.get_mut(0).ok_or(OutOfFrame)?;
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination, source);
    store64(ethernet, 0, u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    store32(ethernet, 8, u32::from_ne_bytes([i, j, k, l]));
    Ok(())
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
    transport(frame, packet.transport as usize, packet.protocol, source.port, destination.port, deltas.transport)
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
    let at = packet.network as usize;
    match packet.family {
        Family::V4 => {
            let ip: &mut [u8; 20] = frame.get_mut(at).ok_or(OutOfFrame)?;
            ip[8] = packet.ttl.wrapping_sub(1);
            let checksum = delta.and(Delta::TTL).update(load16(ip, 10));
            store16(ip, 10, checksum);
            store32(ip, 12, source.to_v4_word());
            store32(ip, 16, destination.to_v4_word());
        }
        Family::V6 => {
            let ip: &mut [u8; 40] = frame.get_mut(at).ok_or(OutOfFrame)?;
            ip[7] = packet.ttl.wrapping_sub(1);
            store64(ip, 8, source.high);
            store64(ip, 16, source.low);
            store64(ip, 24, destination.high);
            store64(ip, 32, destination.low);
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
        store16(tcp, 0, source_port);
        store16(tcp, 2, destination_port);
        let checksum = delta.update(load16(tcp, 16));
        store16(tcp, 16, checksum);
    } else {
        let udp: &mut [u8; 8] = frame.get_mut(at).ok_or(OutOfFrame)?;
        store16(udp, 0, source_port);
        store16(udp, 2, destination_port);
        let checksum = udp_checksum(load16(udp, 6), delta);
        store16(udp, 6, checksum);
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
