//! How far a share may lie from what was asked, by chance alone. Pure.

/// What is left outside on either side: 99.9% of all outcomes are within the bounds.
const TAIL: f64 = 0.0005;

/// The least and the most of `trials` that succeed with probability `p`: less happens in at most 0.05% of all cases,
/// and so does more.
///
/// # Panics
/// When `p` is no probability.
#[must_use]
pub fn bounds(trials: u64, p: f64) -> (u64, u64) {
    bounds_beyond(trials, p, TAIL)
}

/// The same for any probability of less, and of more, that is not below what a sum of so many `f64` can tell (1e-12). The binomial distribution
/// itself is added up, no approximation.
///
/// # Panics
/// When `p` is no probability.
#[must_use]
pub fn bounds_beyond(trials: u64, p: f64, tail: f64) -> (u64, u64) {
    assert!((0.0..=1.0).contains(&p), "{p} is no probability");
    if p == 0.0 || trials == 0 {
        return (0, 0);
    }
    if p == 1.0 {
        return (trials, trials);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let as_f64 = |count: u64| count as f64;
    // ln P(0), and P(k + 1) / P(k) = (n - k) / (k + 1) * p / (1 - p): logarithms, because P(0) underflows.
    let mut ln_probability = as_f64(trials) * (-p).ln_1p();
    let odds = p.ln() - (-p).ln_1p();
    let (mut below, mut least) = (0.0, None);
    for count in 0..trials {
        let upto = below + ln_probability.exp();
        if least.is_none() && upto > tail {
            least = Some(count);
        }
        if upto >= 1.0 - tail {
            return (least.unwrap_or(count), count);
        }
        below = upto;
        ln_probability += (as_f64(trials - count) / as_f64(count + 1)).ln() + odds;
    }
    (least.unwrap_or(trials), trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_everything_leave_no_room_for_chance() {
        assert_eq!(bounds(1000, 0.0), (0, 0));
        assert_eq!(bounds(1000, 1.0), (1000, 1000));
        assert_eq!(bounds(0, 0.5), (0, 0));
    }

    #[test]
    fn a_fair_coin_has_the_bounds_that_its_table_has() {
        // P(X = 0) = 1/1024 > 0.0005, so with ten throws everything happens; with twelve, P(X <= 0) = 1/4096 and
        // P(X <= 1) = 13/4096 = 0.0032.
        assert_eq!(bounds(10, 0.5), (0, 10));
        assert_eq!(bounds(12, 0.5), (1, 11));
    }

    #[test]
    fn many_trials_have_the_bounds_of_the_normal_distribution() {
        // 3.2905 standard deviations hold 99.9%: 50,000 ± 520 here, give or take the rounding.
        let (least, most) = bounds(100_000, 0.5);
        assert!(least.abs_diff(49_480) <= 1 && most.abs_diff(50_520) <= 1, "{least} to {most}");
        let (least, most) = bounds(1_000_000, 0.01);
        assert!(least.abs_diff(9_673) <= 3 && most.abs_diff(10_329) <= 3, "{least} to {most}");
    }

    #[test]
    fn rare_things_may_not_happen_at_all() {
        assert_eq!(bounds(100, 0.01).0, 0);
        assert_eq!(bounds(1, 0.0001), (0, 0));
        assert_eq!(bounds(6, 0.0001), (0, 1));
    }
}
