//! The library behind the `splitter` binary.

pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod desired;
#[cfg(test)]
mod golden;
pub mod metrics;
pub mod model;
pub mod neighbor;
pub mod store;
