//! Rows and medians.

use std::time::{Duration, Instant};

use crate::bench::report::Scale;

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

/// The median.
///
/// # Panics
/// When there are no values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// In microseconds, as a row has it.
#[must_use]
pub fn us(times: &[Duration]) -> (f64, &'static str) {
    (median(times.iter().map(Duration::as_secs_f64)) * 1e6, "us")
}

/// In milliseconds, as a row has it.
#[must_use]
pub fn ms(times: &[Duration]) -> (f64, &'static str) {
    (median(times.iter().map(Duration::as_secs_f64)) * 1e3, "ms")
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
    fn a_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(us(&[Duration::from_micros(7)]), (7.0, "us"));
    }
}
