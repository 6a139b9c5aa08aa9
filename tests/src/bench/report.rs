//! What the bench found, as it is written to JSON.

use serde::Serialize;

use super::machine::Machine;

/// Everything that one run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where and how.
    pub machine: Machine,
    /// What a packet costs.
    pub cost: Vec<Cost>,
    /// What goes through the wire.
    pub wire: Vec<Wire>,
    /// What grows with what.
    pub scale: Vec<Scale>,
    /// Where a packet's cost lies, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// A kind of packet, and what the program needs for one more than an empty program that answers `XDP_TX`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Such as `dsr-v4-tcp-established` or `not-ours`.
    pub case: String,
    /// Median over the rounds of the difference to the empty program, in nanoseconds.
    pub ns: f64,
    /// Smallest difference.
    pub min: f64,
    /// Largest difference.
    pub max: f64,
    /// Median of the program's own duration.
    pub raw_ns: f64,
    /// Median of the empty program's duration.
    pub empty_ns: f64,
    /// How many interleaved rounds.
    pub rounds: usize,
    /// Different flows.
    pub flows: usize,
    /// Services configured.
    pub services: usize,
}

/// What a packet costs up to a step of its path, or without one of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// As in [`Cost`].
    pub case: String,
    /// Different flows.
    pub flows: usize,
    /// The step after which the build that was measured ends, what it leaves out, or `whole`.
    pub step: String,
    /// Mean of the middle half of the rounds' differences to the empty program, in nanoseconds.
    pub ns: f64,
    /// Where that half begins.
    pub min: f64,
    /// Where it ends.
    pub max: f64,
    /// What this is more than the step before; of what is left out: how much less the whole is without it.
    pub of_it_ns: f64,
    /// How many interleaved rounds.
    pub rounds: usize,
}

/// One way through the node. What was not measured is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Wire {
    /// Such as `splitter-dsr`, `xdp-redirect`, `xdp-minimal`, `routing`, `nftables-dnat`, `haproxy-tcp`, `nginx-stream`.
    pub path: String,
    /// What was sent over it: `packets`, `packets-1-flow`, `keep-alive`, `connection-close`, `body-1mb`.
    pub load: String,
    /// Million packets a second at the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpps: Option<f64>,
    /// Highest rate at which at most 3% were lost, in million packets a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mpps_3_percent_loss: Option<f64>,
    /// Requests answered a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<f64>,
    /// Median latency of a request, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99th percentile, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// CPU time of the whole machine for a request, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_request: Option<f64>,
    /// Body bits a second, in Gbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbit_per_s: Option<f64>,
    /// Why a row has no figures: what isn't installed, or what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// One figure at one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// What was measured: `weight-change`, `rebuild`, `flip`, `sampling`, `memory`, …
    pub what: String,
    /// What it grows with: `services`, `backends`, `connections`, `cpus`.
    pub by: String,
    /// How many of these.
    pub size: u64,
    /// The figure: a median where it's a time.
    pub value: f64,
    /// Its unit: `us`, `ms`, `bytes`, `mpps`, `ns`.
    pub unit: String,
}
