//! What `cargo xtask bench` and its entry program (`bin/bench.rs`) share. Nothing of it ships.

use crate::abi::assert_layout;

/// Bits of [`Plan::does`].
pub mod does {
    /// Writes the flow's own fields: addresses, ports, checksums.
    pub const VARY: u32 = 1;
    /// Writes back what `nat` changes besides them: MAC addresses, TTL, the upper halves of IPv6 addresses.
    pub const UNDO_NAT: u32 = 1 << 1;
    /// Writes back the headers as they stand in [`Plan::template`](super::Plan::template), and the frame's place and length.
    pub const UNDO_ANSWER: u32 = 1 << 2;
    /// Forgets the connection at [`Plan::place`](super::Plan::place) of the `dsr` table.
    pub const FORGET_DSR: u32 = 1 << 3;
    /// Forgets the connection at [`Plan::place`](super::Plan::place) of the `nat` table, and its slot.
    pub const FORGET_NAT: u32 = 1 << 4;
    /// Forgets the ICMP errors that this CPU has sent.
    pub const FORGET_ERRORS: u32 = 1 << 5;
    /// The packet is UDP; clear: TCP.
    pub const UDP: u32 = 1 << 6;
    /// The packet is IPv6; clear: IPv4.
    pub const IPV6: u32 = 1 << 7;
    /// The frame has one VLAN tag (IPv4 alone).
    pub const TAGGED: u32 = 1 << 8;
}

/// Octets of headers that are written back: Ethernet, IPv6, TCP, rounded up to words.
pub const TEMPLATE: usize = 80;

/// What the entry does before each run. One element, written between measurements.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Plan {
    /// See [`does`].
    pub does: u32,
    /// How many flows there are.
    pub flows: u32,
    /// Which comes next.
    pub next: u32,
    /// Where the connection lies that is forgotten: `bucket · 8 + way`.
    pub place: u32,
    /// The frame's length.
    pub length: u32,
    /// The second-last octet of an IPv4 header's first ten and the last, that is TTL and protocol; of an IPv6 header next header and hop limit. As
    /// loaded.
    pub ttl: u16,
    /// Zero.
    pub _pad: u16,
    /// Upper halves of source and destination of an IPv6 packet, as loaded.
    pub high: [u64; 2],
    /// The frame's first octets.
    pub template: [u64; TEMPLATE / 8],
}

/// What differs between flows, as it's loaded from a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The source address: its lower half, or an IPv4 one.
    pub source: u64,
    /// The destination address.
    pub destination: u64,
    /// Source port, destination port.
    pub ports: u32,
    /// The IPv4 header's checksum.
    pub network_checksum: u16,
    /// The transport header's.
    pub transport_checksum: u16,
}

/// Places in the entry's table of programs.
pub mod target {
    /// Answers `XDP_TX`.
    pub const EMPTY: u32 = 0;
    /// The program that ships.
    pub const SHIPPED: u32 = 1;
    /// Another build of it.
    pub const OTHER: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}

macro_rules! steps {
    ($($(#[$doc:meta])+ $step:ident = $name:literal,)+) => {
        /// A step of the usual packet's path, of which the bench makes a build: one that ends there, or for the last ones one that does without.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step { $($(#[$doc])+ $step,)+ }

        impl Step {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$step,)+];

            /// As it's called on the command line, in file names and in results.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$step => $name,)+ }
            }
        }
    };
}

steps! {
    /// The program has begun: registers saved, the frame's ends looked up.
    Entered = "entered",
    /// The frame is one of the four kinds, whole and good.
    Parsed = "parsed",
    /// It's known what it goes to: a service, or for a reply a NAT address.
    Asked = "asked",
    /// The client is hashed.
    Hashed = "hashed",
    /// The connection is looked up in the affinity table.
    Known = "known",
    /// A backend is chosen for a new connection.
    Chosen = "chosen",
    /// There is a port for a new connection (`nat`).
    Port = "port",
    /// The connection's slot is read, and is its own (`nat`).
    Slot = "slot",
    /// The backend's record is read, and the way to it.
    Backend = "backend",
    /// The connection may go on, and its stamp is today's.
    Kept = "kept",
    /// The packet is counted.
    Counted = "counted",
    /// Addresses, ports, TTL and checksums are written (`nat`).
    Rewritten = "rewritten",
    /// The whole path without counting the packet.
    NoCounters = "no-counters",
    /// The whole path without writing the MAC addresses.
    NoMacs = "no-macs",
}

impl Step {
    /// The step of this name.
    #[must_use]
    pub const fn named(name: &str) -> Option<Self> {
        let mut number = 0;
        while number < Self::ALL.len() {
            if is_same(Self::ALL[number].name().as_bytes(), name.as_bytes()) {
                return Some(Self::ALL[number]);
            }
            number += 1;
        }
        None
    }
}

/// `==` can't be asked at compile time.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut place = 0;
    while place < one.len() && place < other.len() && one[place] == other[place] {
        place += 1;
    }
    place == one.len() && place == other.len()
}

assert_layout!(Plan, size 120, does @ 0, flows @ 4, next @ 8, place @ 12, length @ 16, ttl @ 20, high @ 24, template @ 40);
assert_layout!(Flow, size 24, source @ 0, destination @ 8, ports @ 16, network_checksum @ 20, transport_checksum @ 22);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_by_its_name_and_by_no_other() {
        for step in Step::ALL {
            assert_eq!(Step::named(step.name()), Some(*step));
        }
        for name in ["", "know", "knownn", "no such"] {
            assert_eq!(Step::named(name), None, "{name}");
        }
    }
}
