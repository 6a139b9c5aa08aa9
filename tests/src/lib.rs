//! What Splitter's integration tests stand on.

pub mod bench;
pub mod demo;
pub mod guest;
pub mod lab;
pub mod node;
pub mod oracle;
pub mod packet;
pub mod rig;
pub mod workload;
