//! Backends, and the way to each.

use super::{SharedWord, assert_layout};
use crate::address::Address;

/// Both addresses of an Ethernet header, as they stand in it: destination, then source. In words as loaded, as which they are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Macs(pub [u32; 3]);

impl Macs {
    /// From a destination and a source.
    #[must_use]
    pub const fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination, source);
        Self([u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l])])
    }

    /// Of the way back: destination and source exchanged.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        let Self([first, second, third]) = self;
        Self([second >> 16 | third << 16, third >> 16 | first << 16, first >> 16 | second << 16])
    }
}

/// How frames reach a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Way {
    /// The next hop's MAC address, and that of the interface that frames leave by.
    pub macs: Macs,
    /// That interface's index in its network namespace; 0: no way is known.
    pub interface: u32,
}

/// One backend of one service. A cache line.
///
/// Address, port, service and cohort never change while a number is in use: what does change is the way, of which there are two,
/// and `selected` says which is in force, so that no packet sees half a new one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Backend {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: Address,
    /// Which of them is in force says `selected`.
    pub ways: [Way; 2],
    /// Bit 0: the way in force; bits 16 to 27: the VLAN ID that it needs, 0: none.
    pub selected: SharedWord,
    /// Its port, in network order.
    pub port: [u8; 2],
    /// Its service's number.
    pub service: u16,
    /// 0 stable, 1 canary.
    pub cohort: u8,
    /// Non-zero: in use.
    pub in_use: u8,
    /// `nat`: the first of the NAT addresses that connections to it leave from.
    pub nat_first: u8,
    /// `nat`: how many there are.
    pub nat_count: u8,
}

impl Backend {
    /// The way in force and its VLAN ID (0: none), once it's known.
    #[inline(always)]
    #[must_use]
    pub fn way(&self) -> Option<(&Way, u16)> {
        let selected = self.selected.load();
        let way = &self.ways[(selected & 1) as usize];
        let vlan = (selected >> 16) as u16 & 0xfff;
        if way.interface == 0 { None } else { Some((way, vlan)) }
    }
}

assert_layout!(Way, size 16, macs @ 0, interface @ 12);
assert_layout!(Backend, size 64, address @ 0, ways @ 16, selected @ 48, port @ 56, service @ 58, cohort @ 60, in_use @ 61,
    nat_first @ 62, nat_count @ 63);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_has_its_ends_exchanged() {
        let (one, other) = ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        assert_eq!(Macs::new(one, other).reversed(), Macs::new(other, one));
    }
}
