//! Medians.

/// What many measurements of one thing say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of those in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// The spread of some values; `None`: there are none.
#[must_use]
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] };
    Some(Spread { median, min, max })
}

/// What the middle half of some values says: finer than the median where values are whole numbers. `None`: there are none.
#[must_use]
pub fn middle_half(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = &sorted[sorted.len() / 4..sorted.len() - sorted.len() / 4];
    let (min, max) = (*middle.first()?, *middle.last()?);
    Some(Spread { median: middle.iter().sum::<f64>() / middle.len() as f64, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_of_nothing_there_is_none() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0, 4.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn the_middle_half_leaves_out_a_quarter_at_either_end() {
        assert_eq!(middle_half(&[]), None);
        assert_eq!(middle_half(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(middle_half(&[90.0, 1.0, 4.0, 3.0]), Some(Spread { median: 3.5, min: 3.0, max: 4.0 }));
        assert_eq!(middle_half(&[9.0, 1.0, 4.0, 3.0, 4.0]).map(|middle| (middle.min, middle.max)), Some((3.0, 4.0)));
    }
}
