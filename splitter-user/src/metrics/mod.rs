//! Every metric, in one place.
//!
//! [`METRICS`] is the table: names, kinds, units, labels, help, and where each value is read from. Encoding walks it, and
//! the table of `docs/metrics.md` is made from it. Values come as a [`Snapshot`] taken at the time of the scrape, so
//! that what Prometheus sees is what the data plane counted. A value that isn't known has no sample.

mod encode;
mod rollout;
pub mod server;
mod snapshot;
mod table;

pub use encode::{CLASSIC, OPEN_METRICS, classic, open_metrics};
pub use snapshot::{BackendSnapshot, CohortSnapshot, Histogram, LastReload, ServiceSnapshot, Snapshot, Table, TableSnapshot};
pub use table::{Kind, METRICS, Metric, Sample, Unit, Value};

#[cfg(test)]
mod tests;
