//! What lies in the maps.
//!
//! Dull on purpose: integers and octet arrays, explicit padding, no `bool`, no `enum`. Size and offsets are asserted at
//! compile time, on both sides. A field named `_be` or typed `[u8; N]` holds octets in network order as they stand in a packet;
//! every other integer is in the machine's order (little-endian on all targets).
//!
//! Whoever changes a layout raises [`ABI_VERSION`]: an agent adopts only maps of its own version.

mod backend;
mod counters;
mod destination;
mod service;
mod settings;
mod shared;
mod signals;
mod slot;

pub use backend::{Backend, Macs, Way};
pub use counters::{BackendCounters, ReasonCounters, ServiceCounters};
pub use destination::{Destination, KIND_FREE, KIND_NAT, KIND_SERVICE, destination_indexes};
pub use service::{Control, Service, Table, flags};
pub use settings::{Identity, Nat, NatCursor, NetworkKey, REFUSALS_PER_UNIT, RefusalBudget, Settings, TraceFilter, verdict};
pub use shared::{SharedCount, SharedWord};
pub use signals::{
    Breaker, HANDSHAKE_BUCKETS, HISTOGRAM_BUCKETS, Histogram, NO_LIMIT, Trip, WINDOW_SLOTS, Window, WindowSlot, WindowTally, kind,
};
pub use slot::{Bucket, MaglevLine, Slot};

/// The version of everything in this module. Checked when an agent adopts pinned maps.
pub const ABI_VERSION: u32 = 4;

/// Entries in one generation of the destination table.
pub const DESTINATIONS: u32 = 16_384;

/// Maglev entries in one map element (a cache line of 16-bit backend numbers).
pub const MAGLEV_LINE: u32 = 32;

/// Connections in one bucket of an affinity table (a cache line of 64-bit words).
pub const BUCKET: usize = 8;

/// Remembered first fragments; a power of two.
pub const FRAGMENTS: u32 = 8_192;

/// Asserts a type's size and its fields' offsets at compile time, in kernel and host builds alike.
macro_rules! assert_layout {
    ($type:ty, size $size:literal, $($field:ident @ $offset:literal),+ $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)+
        };
    };
}
pub(crate) use assert_layout;
