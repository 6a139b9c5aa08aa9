//! HTTP/1.1: a server that can be made to refuse, and a load whose every connection is accounted for.

pub mod kept;

mod load;
mod server;

pub use self::{
    load::{Latencies, Load, OTHER_BODY, Outcome, Pace, Record, Report, Running, Summary, get},
    server::{Counts, Mode, Server},
};

/// The header that names the server's version.
pub const VERSION_HEADER: &str = "x-version";
/// The header that names the server.
pub const BACKEND_HEADER: &str = "x-backend";
