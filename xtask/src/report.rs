//! What a step prints: one line when it starts, one with its time when it ends.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Runs one step. `work` gives back what became of it, in a few words.
pub fn step<T>(name: &str, what: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    println!("[{name}] {what}");
    let started = Instant::now();
    let result = work();
    let took = elapsed(started.elapsed());
    match result {
        Ok((value, outcome)) => {
            println!("[{name}] {outcome} ({took})");
            Ok(value)
        }
        Err(error) => {
            println!("[{name}] failed ({took})");
            Err(error)
        }
    }
}

/// A duration for people: `0.4 s`, `1 min 05 s`.
pub fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{:.1} s", duration.as_secs_f64()) } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(elapsed(Duration::from_millis(40)), "0.0 s");
        assert_eq!(elapsed(Duration::from_millis(1_260)), "1.3 s");
        assert_eq!(elapsed(Duration::from_secs(65)), "1 min 05 s");
    }
}
