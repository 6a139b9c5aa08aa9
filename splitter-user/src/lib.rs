//! The library behind the `splitter` binary.

pub mod agent;
pub mod api;
pub mod checks;
pub mod cli;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod desired;
pub mod doctor;
#[cfg(test)]
mod golden;
pub mod http;
pub mod metrics;
pub mod model;
pub mod neighbor;
pub mod notify;
pub mod simulate;
pub mod store;
