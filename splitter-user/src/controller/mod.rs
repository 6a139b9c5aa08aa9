//! What the counters mean: windows of them, and whether the canary crossed a limit. Pure: no tasks, no kernel, no clock; time is an
//! argument.
//!
//! Data comes in as a service's counters of one moment ([`Count`]) and goes out as a [`Verdict`]. A rollout's state machine, the statistical
//! comparison with stable, and the events of the data plane's own breaker and lease belong here as well, beside the limits.

mod breach;
mod compare;
mod recent;
pub mod rollout;
mod window;

pub use breach::{Shares, Verdict, judge};
pub use compare::{Buckets, Comparison, Seen, Standing};
pub use recent::{Happened, KINDS, Recent, Spread, Summary};
pub use window::{Cohorts, Count, Meter, Tally, Window};
