//! Which backend a client gets, and why.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::Way;
use crate::model::{Cohort, Protocol, ServiceName, Weight};

/// The answer to `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Of which service.
    pub service: ServiceName,
    /// The client's address.
    pub client: IpAddr,
    /// Its port, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What happens to its next packet, as things stand.
    pub decision: Decision,
    /// What a new connection would get at another weight, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Hypothetical>,
}

/// What a new connection would get at another weight, everything else being as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hypothetical {
    /// The other weight.
    pub weight: Weight,
    /// What would happen.
    pub decision: Decision,
}

/// A decision with everything that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The rule that decided: `rule`, with `prefix` where a network did.
    #[serde(flatten)]
    pub rule: Rule,
    /// The keyed hash, 16 hexadecimal digits.
    pub hash: String,
    /// Its high half: the client's place in hash space.
    pub place: Place,
    /// The weight that the decision was made with.
    pub weight: Weight,
    /// The same as a place, 0 to 2^32: clients below it belong to the canary.
    pub threshold: u64,
    /// The cohort; none if the packet is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<Cohort>,
    /// The entry of the cohort's Maglev table; none for a known connection, which isn't looked up there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<MaglevSlot>,
    /// The backend; none if the packet is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    /// How packets get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
}

/// What can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Rule {
    /// The connection is established and keeps its backend.
    KnownConnection,
    /// The service is flipped: stable.
    Flipped,
    /// Its breaker has tripped: stable.
    Tripped,
    /// The agent's lease has run out: stable.
    LeaseRanOut,
    /// The longest network that matches the client is on the list `never_canary`.
    NeverCanary {
        /// That network.
        prefix: IpNet,
    },
    /// The longest network that matches the client is on the list `always_canary`.
    AlwaysCanary {
        /// That network.
        prefix: IpNet,
    },
    /// The place is below the threshold: canary.
    PlaceBelowWeight,
    /// The place is at or above the threshold: stable.
    PlaceAboveWeight,
    /// It would be the canary, but no canary is usable: stable.
    CanaryFallback,
    /// No stable backend is usable: refused.
    NoBackend,
}

/// A place in hash space, 0 to 2^32 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PlaceText", into = "PlaceText")]
pub struct Place(pub u32);

impl Place {
    /// As a fraction of one: the weight (as a fraction) above which this client belongs to the canary.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 4_294_967_296.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}% (0x{:08x})", self.fraction() * 100.0, self.0)
    }
}

/// [`Place`] as it travels.
#[derive(Serialize, Deserialize)]
struct PlaceText {
    hex: String,
    fraction: f64,
}

impl From<Place> for PlaceText {
    fn from(place: Place) -> Self {
        Self { hex: format!("{:08x}", place.0), fraction: place.fraction() }
    }
}

impl TryFrom<PlaceText> for Place {
    type Error = std::num::ParseIntError;

    fn try_from(text: PlaceText) -> Result<Self, Self::Error> {
        u32::from_str_radix(&text.hex, 16).map(Self)
    }
}

/// An entry of a Maglev table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaglevSlot {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub table_size: u32,
}

/// One line of `trace`: what became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// When it passed.
    pub at: Timestamp,
    /// The service that it was for.
    pub service: ServiceName,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it came from.
    pub client: SocketAddr,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It goes to a backend.
    Forwarded {
        /// The rule that chose it.
        #[serde(flatten)]
        rule: Rule,
        /// The cohort.
        cohort: Cohort,
        /// The backend.
        backend: SocketAddr,
    },
    /// The client gets a RST or an ICMP error.
    Refused {
        /// Why; a reason of `splitter_service_refusals_total`.
        reason: String,
    },
    /// It is dropped.
    Dropped {
        /// Why; a reason of `splitter_packets_dropped_total`.
        reason: String,
    },
    /// The kernel gets it untouched.
    Skipped {
        /// Why; a reason of `splitter_packets_skipped_total`.
        reason: String,
    },
}
