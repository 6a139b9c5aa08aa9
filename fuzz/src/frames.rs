//! Frames as an input of octets, and sums over them: for the targets of the packet path.

use crate::packet::{
    checksum::Sum,
    get_u16,
    parse::{Fragment, Transport, View},
    put_u16,
};
use splitter_ebpf::{address::Address, frame::Frame, rewrite::End};

/// What an input of octets says: two octets of choices, then a frame.
#[derive(Clone, Debug)]
pub struct Input {
    /// What to do, a bit each.
    pub choices: u8,
    /// A number for whoever needs one.
    pub number: u8,
    /// The frame.
    pub frame: Vec<u8>,
}

/// The choice to make checksums right first, where that can be told.
pub const MEND: u8 = 1;

impl Input {
    /// Takes the choices off.
    #[must_use]
    pub fn of(octets: &[u8]) -> Option<Self> {
        let (&[choices, number], frame) = octets.split_first_chunk()?;
        Some(Self { choices, number, frame: frame.to_vec() })
    }

    /// Whether this was chosen.
    #[must_use]
    pub const fn chose(&self, choice: u8) -> bool {
        self.choices & choice != 0
    }
}

/// A frame of which only so many octets lie in the first piece, as the kernel hands over a jumbo frame.
#[derive(Debug)]
pub struct Pieces<'a> {
    /// The first piece.
    pub first: &'a mut [u8],
    /// Octets in all pieces.
    pub all: usize,
}

impl Frame for Pieces<'_> {
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.first.get(offset..)?.first_chunk()
    }

    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.first.get_mut(offset..)?.first_chunk_mut()
    }

    fn holds(&self, octets: usize) -> bool {
        self.all >= octets
    }
}

/// Other ends for a packet, of its family, from a number.
#[must_use]
pub fn ends(ipv4: bool, number: u8) -> (End, End) {
    // Zeroes and ones are where sums in one's complement go wrong.
    let fill = [number, 0, 0xff, number.wrapping_mul(31)][usize::from(number & 3)];
    let address = |last: u8| {
        if ipv4 {
            Address::v4([fill, number, fill, last])
        } else {
            let mut octets = [fill; 16];
            (octets[0], octets[7], octets[15]) = (number, last, last);
            Address::v6(&octets)
        }
    };
    let port = |value: u16| value.to_be();
    let source = End { address: address(number.wrapping_add(1)), port: port(u16::from(number) << 8 | u16::from(fill)) };
    let destination = End { address: address(number.wrapping_mul(7)), port: port(u16::from(fill) << 8) };
    (source, destination)
}

/// Octets of an address as a packet of this family has it.
#[must_use]
pub fn octets_of(address: Address, ipv4: bool) -> Vec<u8> {
    if ipv4 { address.v4_octets().to_vec() } else { address.octets().to_vec() }
}

/// Where in a frame the transport's checksum is, if the packet carries one.
#[must_use]
pub const fn transport_checksum(view: &View) -> Option<usize> {
    match view.transport {
        Transport::Tcp(_) => Some(view.ip.payload + 16),
        Transport::Udp(_) => Some(view.ip.payload + 6),
        Transport::Icmp { .. } => Some(view.ip.payload + 2),
        Transport::None => None,
    }
}

/// What the packet's checksums are wrong by, each summed over everything that it covers: 0 where they are right. A fragment's transport
/// checksum covers octets that aren't there; they don't change, so neither does what the rest is wrong by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The IPv4 header's; `None` in IPv6.
    pub network: Option<u16>,
    /// The transport's; `None` where there is none to be seen, or UDP says that there is none.
    pub transport: Option<u16>,
}

/// Sums over the whole packet.
#[must_use]
pub fn wrong(frame: &[u8], view: &View) -> Wrong {
    let ip = &view.ip;
    let network = ip.is_ipv4().then(|| residue(Sum::new().octets(&frame[ip.at..ip.header_end(frame)])));
    let transport = transport_checksum(view)
        .filter(|at| !matches!(view.transport, Transport::Udp(_)) || get_u16(frame, *at) != 0)
        .map(|_| residue(pseudo(view).octets(&frame[ip.payload..ip.end])));
    Wrong { network, transport }
}

/// The sum over a pseudo-header; ICMP in IPv4 has none.
fn pseudo(view: &View) -> Sum {
    let ip = &view.ip;
    if ip.is_ipv4() && matches!(view.transport, Transport::Icmp { .. }) {
        return Sum::new();
    }
    let length = u32::try_from(ip.end - ip.payload).expect("a packet's length fits 32 bits");
    Sum::new().address(ip.source).address(ip.destination).word(u16::from(ip.protocol)).octets(&length.to_be_bytes())
}

/// A sum with one spelling of zero: over what a right checksum covers it is 0.
#[must_use]
pub fn residue(sum: Sum) -> u16 {
    sum.folded() % 0xffff
}

/// Makes the checksums of a packet right, but for one that UDP says isn't there, and those of fragments.
pub fn mend(frame: &mut [u8], view: &View) {
    let ip = &view.ip;
    if ip.is_ipv4() {
        let end = ip.header_end(frame);
        put_u16(frame, ip.at + 10, 0);
        let right = Sum::new().octets(&frame[ip.at..end]).checksum();
        put_u16(frame, ip.at + 10, right);
    }
    let Some(at) = transport_checksum(view) else { return };
    let is_udp = matches!(view.transport, Transport::Udp(_));
    if view.ip.fragment != Fragment::Whole || is_udp && get_u16(frame, at) == 0 {
        return;
    }
    put_u16(frame, at, 0);
    let right = pseudo(view).octets(&frame[ip.payload..ip.end]).checksum();
    put_u16(frame, at, if is_udp && right == 0 { 0xffff } else { right });
}

/// Fails unless the frame is what was expected, but for these checksums (which are judged by their sums).
///
/// # Panics
/// Then.
pub fn assert_only(expected: &[u8], frame: &[u8], checksums: impl IntoIterator<Item = usize>) {
    let mut expected = expected.to_vec();
    for at in checksums {
        expected[at..at + 2].copy_from_slice(&frame[at..at + 2]);
    }
    assert_eq!(expected, frame, "an octet was written that isn't to be");
}
