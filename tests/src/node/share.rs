//! What a measured share may be.

/// The normal distribution's two-sided quantile for one false alarm in 100,000: tests ask for many shares.
const Z: f64 = 4.42;

/// Whether so many hits of so many trials go with a share, inside binomial bounds of 99.999% (Wilson's score interval, which holds for
/// shares near 0 and 1 too).
#[must_use]
pub fn fits(hits: u64, trials: u64, share: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let (hits, n) = (hits as f64, trials as f64);
    if share <= 0.0 || share >= 1.0 {
        return hits == n * share;
    }
    let measured = hits / n;
    let middle = (measured + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let width = Z / (1.0 + Z * Z / n) * (measured * (1.0 - measured) / n + Z * Z / (4.0 * n * n)).sqrt();
    (middle - width..=middle + width).contains(&share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_fits_its_own_counts_and_not_those_of_another() {
        assert!(fits(500, 1_000, 0.5) && fits(0, 1_000, 0.0) && fits(1_000, 1_000, 1.0) && fits(0, 10, 0.5));
        assert!(!fits(600, 1_000, 0.5) && !fits(1, 1_000, 0.0) && !fits(999, 1_000, 1.0) && !fits(0, 1_000, 0.05));
    }
}
