//! Rows and medians.

use std::time::{Duration, Instant};

use crate::bench::{report::Scale, stats::spread};

/// The rows found so far.
#[derive(Debug, Default)]
pub struct Rows(pub Vec<Scale>);

impl Rows {
    /// One more; told on standard error as well.
    pub fn add(&mut self, what: &str, by: &str, size: u64, (value, unit): (f64, &str)) {
        eprintln!("scale: {what}, {size} {by}: {value:.3} {unit}");
        self.0.push(Scale { what: what.to_owned(), by: by.to_owned(), size, value, unit: unit.to_owned() });
    }
}

/// The median of what was measured.
///
/// # Panics
/// When nothing was.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    spread(values).expect("something was measured").median
}

/// In microseconds, as a row has it.
#[must_use]
pub fn us(times: &[Duration]) -> (f64, &'static str) {
    (median(&seconds(times)) * 1e6, "us")
}

/// In milliseconds, as a row has it.
#[must_use]
pub fn ms(times: &[Duration]) -> (f64, &'static str) {
    (median(&seconds(times)) * 1e3, "ms")
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

/// How long each round took, of those that `round` carries out by number.
///
/// # Errors
/// A round's.
pub fn timed<E>(rounds: usize, mut round: impl FnMut(usize) -> Result<(), E>) -> Result<Vec<Duration>, E> {
    let mut times = Vec::with_capacity(rounds);
    for number in 0..rounds {
        let begun = Instant::now();
        round(number)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_in_its_unit() {
        let times = [7, 5, 100].map(Duration::from_micros);
        assert_eq!((us(&times), ms(&times)), ((7.0, "us"), (0.007, "ms")));
    }
}
