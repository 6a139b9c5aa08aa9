//! What the counts of a simulation prove. Pure.

/// The highest rate that so many alarms in so many rollouts leave possible, with this confidence: Clopper and Pearson's upper bound (Biometrika 26, 1934), found by
/// halving: with a higher rate there would be so few alarms, or fewer, with a chance below what is left of the confidence.
#[must_use]
pub fn upper(alarms: u64, rollouts: u64, confidence: f64) -> f64 {
    if alarms >= rollouts {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Closer than numbers can say.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(alarms, rollouts, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// The chance of so many successes or fewer.
fn at_most(successes: u64, trials: u64, p: f64) -> f64 {
    // ln P(0), and P(k + 1) / P(k) = (n - k) / (k + 1) * p / (1 - p): logarithms, because P(0) underflows.
    let mut ln_probability = as_f64(trials) * (-p).ln_1p();
    let odds = p.ln() - (-p).ln_1p();
    let mut sum = 0.0;
    for count in 0..=successes {
        sum += ln_probability.exp();
        ln_probability += (as_f64(trials - count) / as_f64(count + 1)).ln() + odds;
    }
    sum
}

/// Connections that the best possible test needs on average that knows the true shares: the logarithm of what is proof, over what one connection adds to it (Wald's
/// identity; the latter is the divergence of Kullback and Leibler).
#[must_use]
pub fn oracle(false_alarm_rate: f64, stable: f64, canary: f64) -> f64 {
    let divergence = canary * (canary / stable).ln() + (1.0 - canary) * ((1.0 - canary) / (1.0 - stable)).ln();
    (1.0 / false_alarm_rate).ln() / divergence
}

#[expect(clippy::cast_precision_loss, reason = "counts of rollouts are far below 2^52")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_tables() {
        // Without alarms it's 1 - 0.01^(1/n).
        let none = upper(0, 10_000, 0.99);
        assert!((none - (1.0 - 0.01_f64.powf(1e-4))).abs() < 1e-12, "{none}");
        // The two-sided 95% interval of 5 in 50 ends at 0.2181.
        let few = upper(5, 50, 0.975);
        assert!((few - 0.2181).abs() < 5e-5, "{few}");
        assert!((upper(7, 7, 0.99) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn with_a_rate_at_the_bound_so_few_alarms_are_as_rare_as_was_asked() {
        for (alarms, rollouts) in [(0, 100), (3, 200), (40, 10_000), (2_000, 10_000)] {
            let chance = at_most(alarms, rollouts, upper(alarms, rollouts, 0.99));
            assert!((chance - 0.01).abs() < 1e-9, "{alarms} of {rollouts}: {chance}");
        }
    }

    #[test]
    fn the_best_possible_test_needs_31_connections_for_5_percent_and_327_for_1_percent() {
        assert_eq!((oracle(0.01, 0.001, 0.05).round(), oracle(0.01, 0.001, 0.01).round()), (31.0, 327.0));
    }
}
