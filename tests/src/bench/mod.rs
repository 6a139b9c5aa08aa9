//! `cargo xtask bench`: what a packet costs, what goes through the wire beside the peers, and what grows with what.
//!
//! [`cost`] runs the program that ships frame by frame, [`wire`] sends real traffic through namespaces, [`scale`] makes things many. Each gives rows of
//! [`report`].

pub mod cost;
pub mod docs;
pub mod machine;
pub mod options;
pub mod plot;
pub mod report;
pub mod scale;
pub mod stats;
pub mod tables;
pub mod targets;
pub mod wire;
