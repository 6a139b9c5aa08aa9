//! The library behind the `splitter` binary.

pub mod config;
pub mod desired;
pub mod metrics;
pub mod model;
pub mod neighbor;
pub mod store;
