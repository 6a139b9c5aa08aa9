//! A row: what is sent, and what has to come of it.

use splitter_tests::{oracle::Reason, packet};
pub use splitter_user::{
    dataplane::Counters,
    model::{Cohort, Existing},
};

pub const SYN: u8 = packet::SYN;
pub const ACK: u8 = packet::ACK;
pub const FIN: u8 = packet::FIN;
pub const RST: u8 = packet::RST;

/// Nothing moved. What is forwarded is added to it by whoever plays a row.
pub const NONE: Counters = Counters {
    packets_to: 0,
    bytes_to: 0,
    packets_from: 0,
    bytes_from: 0,
    opened: 0,
    completed: 0,
    refused: 0,
    timed_out: 0,
    reset_by_backend: 0,
    reset_by_client: 0,
    closed: 0,
    retransmitted: 0,
    unreachable: 0,
    established: 0,
    ended: 0,
};

/// One connection that was opened and completed.
pub const LIVES: Counters = Counters { opened: 1, completed: 1, established: 1, ..NONE };
/// One that then ended by FIN.
pub const CLOSED: Counters = Counters { closed: 1, ended: 1, ..LIVES };
/// An attempt of which nothing came.
pub const OPENED: Counters = Counters { opened: 1, ..NONE };

/// A service of the rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Nat,
    Dsr,
    NatUdp,
    DsrUdp,
}

/// What a service's connections wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// So long that nothing runs out during a test.
    Long,
    /// An attempt has 100 ms.
    ShortConnect,
    /// An established connection, and a UDP exchange, may be silent for one or two seconds.
    ShortSilence,
}

/// A wait after which an attempt of [`Patience::ShortConnect`] is out of time, in milliseconds.
pub const TOO_LATE: u64 = 150;
/// A wait after which a connection of [`Patience::ShortSilence`] has expired, on any clock that the kernel may have.
pub const TOO_SILENT: u64 = 2_700;
/// A wait that shows in the histograms.
pub const SHOWS: u64 = 30;

/// An ICMP error, by what it says in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// 3/1; 1/3.
    Host,
    /// 3/0; 1/0.
    Network,
    /// 3/3; 1/4.
    Port,
    /// 3/13; 1/1.
    Prohibited,
    /// 3/4; 2/0.
    TooBig,
    /// 11/0; 3/0.
    TimeExceeded,
}

/// What a forged error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// A port of the NAT address that nobody has.
    Port,
    /// The right port, and another backend.
    Backend,
    /// The right port, of the other protocol.
    Protocol,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Backend,
}

/// One thing that happens. What an end sends and what the network loses before the node is not here: nobody sees it.
#[derive(Clone, Copy, Debug)]
pub enum Do {
    /// The client's segment (or datagram), without data, which is forwarded.
    C(u8),
    /// The same with data.
    CD(u8),
    /// The backend's.
    B(u8),
    /// The same with data.
    BD(u8),
    /// A segment that isn't forwarded, for this reason.
    Not(From, u8, Reason),
    /// So many milliseconds pass.
    Wait(u64),
    /// The agent sweeps the tables.
    Sweep,
    /// The service is flipped.
    Flip(Existing),
    /// An error about the latest packet to the backend.
    Error(Error),
    /// An error about what the backend sent to the client.
    ClientError(Error),
    /// An error about a packet that nobody sent; it's given to the kernel.
    Forged(Forgery, Error),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it's about.
    pub why: &'static str,
    /// Where RFC 9293 (or another, if named) has it.
    pub section: &'static str,
    pub service: Service,
    pub patience: Patience,
    /// Where the attempt goes.
    pub cohort: Cohort,
    pub steps: &'static [Do],
    /// What moves of its backend's counters, besides packets and bytes.
    pub counts: Counters,
    /// What moves of the other cohort's.
    pub elsewhere: Counters,
    pub live: u64,
    /// Steps between which handshakes are timed.
    pub handshakes: &'static [(usize, usize)],
    /// The same of the other cohort.
    pub elsewhere_handshakes: &'static [(usize, usize)],
    /// Steps between which first responses are.
    pub responses: &'static [(usize, usize)],
}

impl Row {
    pub const fn new(service: Service, why: &'static str, section: &'static str, steps: &'static [Do], counts: Counters) -> Self {
        Self {
            why,
            section,
            service,
            patience: Patience::Long,
            cohort: Cohort::Stable,
            steps,
            counts,
            elsewhere: NONE,
            live: 0,
            handshakes: &[],
            elsewhere_handshakes: &[],
            responses: &[],
        }
    }

    pub const fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    pub const fn canary(self) -> Self {
        Self { cohort: Cohort::Canary, ..self }
    }

    pub const fn elsewhere(self, elsewhere: Counters) -> Self {
        Self { elsewhere, ..self }
    }

    pub const fn live(self, live: u64) -> Self {
        Self { live, ..self }
    }

    pub const fn handshakes(self, handshakes: &'static [(usize, usize)]) -> Self {
        Self { handshakes, ..self }
    }

    pub const fn elsewhere_handshakes(self, elsewhere_handshakes: &'static [(usize, usize)]) -> Self {
        Self { elsewhere_handshakes, ..self }
    }

    pub const fn responses(self, responses: &'static [(usize, usize)]) -> Self {
        Self { responses, ..self }
    }
}
