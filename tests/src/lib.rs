//! What Splitter's integration tests stand on.

pub mod bench;
pub mod compare;
pub mod demo;
pub mod faults;
pub mod guest;
pub mod judge;
pub mod lab;
pub mod node;
pub mod oracle;
pub mod packet;
pub mod replay;
pub mod rig;
pub mod soak;
pub mod workload;
