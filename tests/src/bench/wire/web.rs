//! HTTP through a stage, by wrk.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{
    cpu::Busy,
    path::Load,
    stage::{self, Stage},
};
use crate::{
    bench::report::Wire,
    workload::tools::{WrkLoad, WrkReport, wrk},
};

/// A load with more errors than one in so many requests is no measurement.
const ONE_ERROR_IN: u64 = 1_000;
/// As many bytes as the large answer's body has.
const BODY_BITS: f64 = 8.0 * (1 << 20) as f64;

/// Measures one load for so long; a row without its names.
///
/// # Errors
/// wrk isn't installed, or requests fail.
pub(super) fn measure(stage: &Stage, load: Load, duration: Duration) -> Result<Wire> {
    let (connections, close, page) = match load {
        Load::KeepAlive => (64, false, "/"),
        Load::ConnectionClose => (64, true, "/"),
        Load::Body1Mb => (16, false, "/1M"),
        Load::Packets { .. } => bail!("packets are not wrk's"),
    };
    let threads = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1).min(connections));
    let busy = Busy::now()?;
    let report = wrk(stage.lab.client(), WrkLoad { target: stage::target(), connections, threads, duration, close }, page)?;
    let cpu = Busy::now()?.micros_since(busy);
    ensure!(
        report.requests > 0 && report.errors() * ONE_ERROR_IN <= report.requests,
        "{} of {} requests failed: {report:?}",
        report.errors(),
        report.requests
    );
    Ok(row(&report, load, cpu))
}

fn row(report: &WrkReport, load: Load, cpu_us: f64) -> Wire {
    let per_second = report.requests as f64 * 1e6 / report.duration_us as f64;
    Wire {
        requests_per_s: Some(per_second),
        p50_us: Some(report.median_us),
        p99_us: Some(report.p99_us),
        cpu_us_per_request: Some(cpu_us / report.requests as f64),
        gbit_per_s: (load == Load::Body1Mb).then_some(per_second * BODY_BITS / 1e9),
        ..Wire::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_rates() {
        let report = WrkReport {
            requests: 4_000,
            duration_us: 2_000_000,
            bytes: 1,
            median_us: 50.0,
            p99_us: 99.0,
            connect_errors: 0,
            read_errors: 0,
            write_errors: 0,
            status_errors: 0,
            timeouts: 0,
        };
        let small = row(&report, Load::KeepAlive, 4e6);
        assert_eq!((small.requests_per_s, small.cpu_us_per_request, small.gbit_per_s), (Some(2_000.0), Some(1_000.0), None));
        assert_eq!((small.p50_us, small.p99_us), (Some(50.0), Some(99.0)));
        let large = row(&report, Load::Body1Mb, 4e6);
        assert_eq!(large.gbit_per_s, Some(2_000.0 * 8.0 * 1_048_576.0 / 1e9));
    }
}
