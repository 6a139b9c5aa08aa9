//! Traffic that never was, to see what a plan would do with it. Pure: a seed gives the same traffic each time, and there is no clock.

mod play;
pub mod plot;
mod report;
mod scenario;
mod traffic;

pub use play::{End, Played, play};
pub use report::{AtStep, Outcomes, Quantiles, Report};
pub use scenario::{Results, Scenario};
pub use traffic::{Behaviour, Latency, Traffic};
