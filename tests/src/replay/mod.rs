//! Real programs' packets against the oracle.
//!
//! nginx, curl, ssh and others talk through a splitter in the lab ([`stage`]); what enters its node is recorded; then each recorded frame, in its order, goes
//! through the XDP program by BPF_PROG_TEST_RUN under the same configuration, and through the oracle, which must agree to the octet, and once more with
//! frames cut short and octets changed ([`play`]). A recording can be kept as a pcapng file that has its configuration in it ([`pcapng`]).
//!
//! ```text
//!  client ── node ── backends         frames toward the node ──┐
//!    │                  │                                      ├─ merged by time ── Recording ── BPF_PROG_TEST_RUN ─ = ─ oracle
//!    └── sent ──────────┴── sent, and what opens connections ──┘
//! ```
//!
//! The program that is replayed gives connections other NAT ports than the one that ran did. So a recording has what reached the backends too, as far as
//! it opens connections: by that a backend's answer is known for its connection's, and gets the port that connection has in the replay ([`pairing`]).

mod mutate;
mod pairing;
pub mod pcapng;
pub mod play;
mod programs;
mod report;
pub mod stage;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    play::{Figures, Replay},
    programs::Program,
    report::{Report, Row},
    stage::{PLACES, Place, Size, Stage},
};
use crate::oracle::World;

/// What passed a splitter's node while one program talked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Of what.
    pub about: About,
    /// The frames, by time.
    pub frames: Vec<Passed>,
}

/// What a recording is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The program.
    pub program: String,
    /// How client, node and backends were joined, and the mode.
    pub place: String,
    /// The splitter's configuration, with the interfaces of [`sample`](crate::oracle::sample).
    pub world: World,
    /// Frames that the recorder was too slow for.
    pub lost: u32,
}

/// A frame that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// When, since the epoch.
    pub at: Duration,
    /// The node's interface, by its number in [`sample`](crate::oracle::sample).
    pub interface: u32,
    /// Which way.
    pub way: Way,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Which way a frame passes the node's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Toward the node: it's replayed.
    In,
    /// From the node to a backend: it tells what became of one before.
    Out,
}

impl Recording {
    /// A name for it and its file.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.about.program, self.about.place)
    }

    /// The frames that are replayed.
    pub fn replayed(&self) -> impl Iterator<Item = &Passed> {
        self.frames.iter().filter(|passed| passed.way == Way::In)
    }
}
