//! The data plane's time, as the agent sees it: the kernel's jiffies, which only a program can read.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{TestRun, TestRunOptions, Xdp},
};
use nix::time::{ClockId, clock_gettime};
use splitter_ebpf::{
    affinity::Now,
    moment::{FINE_NS, MAX_FINE_AGE, Moment},
    stamp::{self, Stamp},
};

use super::loader::{self, OpenError};

/// Frequencies that a kernel can be built with.
const FREQUENCIES: [u32; 4] = [100, 250, 300, 1_000];

/// The kernel's ticks at this moment: the low half of jiffies.
fn ticks(clock: &Xdp) -> Result<u32, OpenError> {
    // The shortest frame that the kernel takes for a test run; the program doesn't look at it.
    let frame = [0; 64];
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    let result = clock
        .test_run(options)
        .map_err(|error| OpenError::Kernel { tried: "reading the clock".to_owned(), why: error.to_string() })?;
    Ok(result.return_value)
}

/// How far jiffies are shifted to make a stamp, from the frequency that they are seen to have.
pub fn measure_shift(ebpf: &Ebpf) -> Result<u32, OpenError> {
    const LONG_ENOUGH: Duration = Duration::from_millis(100);
    let clock = loader::clock(ebpf)?;
    let (from, begun) = (ticks(clock)?, Instant::now());
    thread::sleep(LONG_ENOUGH);
    let (to, took) = (ticks(clock)?, begun.elapsed());
    let hertz = f64::from(to.wrapping_sub(from)) / took.as_secs_f64();
    let nearest = FREQUENCIES.into_iter().min_by(|a, b| (f64::from(*a) - hertz).abs().total_cmp(&(f64::from(*b) - hertz).abs()));
    Ok(stamp::shift_for(nearest.unwrap_or(250)))
}

/// The present, on both clocks of the data plane.
pub fn now(ebpf: &Ebpf, shift: u32) -> Result<Now, OpenError> {
    let stamp = Stamp::of(u64::from(ticks(loader::clock(ebpf)?)?), shift);
    Ok(Now { stamp, fine: moment().fine() })
}

/// The moment of the kernel's monotonic clock, which the program reads with connection attempts.
pub fn moment() -> Moment {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has this clock, and the place for its time is ours");
    Moment(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// A duration in fine units, at least one, rounded up, at most what can be told.
pub fn fine(duration: Duration) -> u16 {
    let units = duration.as_nanos().div_ceil(u128::from(FINE_NS)).clamp(1, u128::from(MAX_FINE_AGE));
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// The same of a duration that needn't be told as an age.
pub fn fine_long(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(u128::from(FINE_NS))).unwrap_or(u64::MAX).max(1)
}

/// A duration in stamp units, at least one, rounded up. A unit is 1.024 s at 250 and 1,000 Hz, 1.28 s at 100 Hz, 0.85 s at 300 Hz.
pub fn units(duration: Duration, shift: u32) -> u16 {
    let hertz = match shift {
        10 => 1_000,
        8 => 250,
        _ => 100,
    };
    let unit = f64::from(1_u32 << shift) / f64::from(hertz);
    let units = (duration.as_secs_f64() / unit).ceil();
    units.clamp(1.0, f64::from(stamp::MAX_AGE)) as u16
}
