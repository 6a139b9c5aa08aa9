//! The agent's API, version 1: HTTP over a unix socket (`docs/api.md`).
//!
//! [`wire`] has what travels, [`command`] is the seam to the agent's core, [`server`] and [`client`] are the two ends.
//! Nothing here knows how a command is done.

pub mod client;
pub mod command;
pub mod connections;
#[cfg(test)]
pub(crate) mod fake;
pub mod reject;
pub mod routes;
pub mod server;
pub mod socket;
pub mod wire;

/// Where the agent listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/splitter/splitter.sock";

/// The version of the API; the first element of every path.
pub const API_VERSION: u32 = 1;

/// The largest body that a request may have, in octets.
pub const MAX_REQUEST_BODY: usize = 1 << 20;
