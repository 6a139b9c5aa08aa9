//! The decision about a new connection: the same code for the program and for `explain`.

use crate::{
    abi::{Control, Service, Table, flags},
    address::Address,
    cohort::{self, Cohort, Hold, Rule},
    hash::{self, Hash},
    maglev,
};

/// Where a decision looks things up: the kernel's maps, or the agent's view of the same memory.
pub trait Lookup {
    /// What the prefix table says of a client of this service: a value of [`crate::abi::verdict`], 0: nothing.
    fn network(&self, service: u32, client: Address) -> u8;

    /// The backend's number in an entry of the Maglev map.
    fn maglev(&self, entry: maglev::Entry) -> Option<u32>;
}

/// What a decision needs to know of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its number.
    pub number: u32,
    /// The key of its hash.
    pub seed: [u64; 2],
    /// See [`flags`].
    pub flags: u32,
    /// Its steering word, read once.
    pub control: Control,
    /// What else keeps it on stable.
    pub hold: Hold,
    /// The tables in force: stable's, then the canary's.
    pub tables: [Table; 2],
}

impl Subject {
    /// As the service stands at this moment.
    #[inline(always)]
    #[must_use]
    pub fn of(number: u32, service: &Service, hold: Hold) -> Self {
        Self { hold, ..Self::under(number, service, service.control()) }
    }

    /// As the service stands under this steering word, which was read from it, if nothing else keeps it on stable.
    #[inline(always)]
    #[must_use]
    pub const fn under(number: u32, service: &Service, control: Control) -> Self {
        // Written out, not indexed, so that the verifier has no variable offset to follow.
        let tables = if control.generation() == 0 { service.tables[0] } else { service.tables[1] };
        Self { number, seed: service.seed, flags: service.flags, control, hold: Hold::None, tables }
    }
}

/// A cohort and a backend for a new connection, and how they were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The hash that was looked at: of address and port, or of the address alone.
    pub hash: Hash,
    /// The rule that put the connection into its cohort.
    pub rule: Rule,
    /// The table that was asked.
    pub table: Table,
    /// The entry and the backend's number; `None`: the cohort has no usable backend.
    pub backend: Option<(maglev::Entry, u32)>,
}

/// The hash that finds a connection in the affinity table.
#[inline(always)]
#[must_use]
pub const fn flow(seed: [u64; 2], client: Address, port: u16) -> Hash {
    hash::client(seed, client, port)
}

/// Decides about a new connection. `flow` is [`flow`] of the same client.
#[inline(always)]
pub fn decide(lookup: &impl Lookup, subject: &Subject, client: Address, flow: Hash) -> Decision {
    let hash =
        if subject.flags & flags::CLIENT_AFFINITY == 0 { flow } else { hash::client(subject.seed, client, hash::ANY_PORT) };
    let network = if subject.control.has_networks() { lookup.network(subject.number, client) } else { 0 };
    let rule = cohort::choose(subject.control, subject.hold, network, hash.place(), subject.tables[1].size != 0);
    let table = match rule.cohort() {
        Cohort::Stable => subject.tables[0],
        Cohort::Canary => subject.tables[1],
    };
    let backend = match maglev::entry(table, hash.slot()) {
        Some(entry) => lookup.maglev(entry).map(|number| (entry, number)),
        None => None,
    };
    Decision { hash, rule, table, backend }
}
