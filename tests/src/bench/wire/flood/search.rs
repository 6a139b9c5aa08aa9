//! The highest rate at which next to nothing is lost, found by trying. Pure: what a try does is an argument.

/// What came of sending at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench::wire) struct Trial {
    /// Packets that left the generator.
    pub sent: u64,
    /// Packets that the receivers counted.
    pub received: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Trial {
    /// Million packets a second that left the generator: what it reached, not what it was asked for.
    pub fn sent_mpps(&self) -> f64 {
        self.sent as f64 / self.seconds / 1e6
    }

    /// Million packets a second that arrived.
    pub fn received_mpps(&self) -> f64 {
        self.received as f64 / self.seconds / 1e6
    }

    fn lost_at_most(&self, share: f64) -> bool {
        self.sent > 0 && (self.sent - self.received.min(self.sent)) as f64 <= self.sent as f64 * share
    }
}

/// The highest rate sent, in million packets a second, at which at most this share was lost; `None` when every rate that was tried lost more.
///
/// It begins with the rate that arrives when everything is sent, goes up from there in fifths as long as that is carried (a path that is not
/// flooded may carry more, for what is dropped on the way costs, too) and bisects then. A rate that failed is tried twice more: a ring of 256
/// packets overflows while the machine does something else for 50 microseconds, and that says nothing of the path.
pub(in crate::bench::wire) fn highest_rate<E>(
    arrived_mpps: f64,
    loss: f64,
    steps: u32,
    mut trial: impl FnMut(f64) -> Result<Trial, E>,
) -> Result<Option<f64>, E> {
    /// A generator that lags so far behind what it was asked for has no more to give.
    const LAGS: f64 = 0.9;
    const TRIES: u32 = 3;
    let (mut good, mut bad, mut rate) = (0.0, None, arrived_mpps);
    let mut best: Option<f64> = None;
    for _ in 0..steps {
        let mut tried = trial(rate)?;
        for _ in 1..TRIES {
            if tried.lost_at_most(loss) {
                break;
            }
            tried = trial(rate)?;
        }
        if tried.lost_at_most(loss) {
            best = Some(best.map_or(tried.sent_mpps(), |best| best.max(tried.sent_mpps())));
            good = rate;
            if tried.sent_mpps() < rate * LAGS {
                break;
            }
        } else {
            bad = Some(rate);
        }
        rate = bad.map_or(good * 1.2, |bad| f64::midpoint(good, bad));
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A path that carries so many million packets a second and loses the rest.
    fn path(capacity: f64) -> impl FnMut(f64) -> Result<Trial, Infallible> {
        move |rate| {
            let sent = (rate * 1e6) as u64;
            Ok(Trial { sent, received: sent.min((capacity * 1e6) as u64), seconds: 1.0 })
        }
    }

    fn found(arrived: f64, trial: impl FnMut(f64) -> Result<Trial, Infallible>) -> Option<f64> {
        let Ok(found) = highest_rate(arrived, 0.03, 8, trial);
        found
    }

    #[test]
    fn the_highest_rate_is_found_to_a_hundredth_whatever_arrives_in_a_flood() {
        // 3% may be lost, so a little more than the capacity passes.
        for (capacity, arrived) in [(0.3, 0.3), (1.0, 0.7), (4.2, 2.8), (1.0, 1.2)] {
            let highest = found(arrived, path(capacity)).expect("there is one");
            assert!((highest / (capacity / 0.97) - 1.0).abs() < 0.011, "{highest} of {capacity}");
        }
    }

    #[test]
    fn a_generator_at_its_end_is_asked_for_no_more() {
        let mut tries = 0;
        let highest = found(2.0, |rate: f64| {
            tries += 1;
            let sent = (rate.min(2.1) * 1e6) as u64;
            Ok(Trial { sent, received: sent, seconds: 1.0 })
        });
        assert_eq!((highest, tries), (Some(2.1), 2));
    }

    #[test]
    fn a_path_that_loses_at_every_rate_has_no_such_rate() {
        let lossy = |rate: f64| Ok(Trial { sent: (rate * 1e6) as u64, received: (rate * 0.9e6) as u64, seconds: 1.0 });
        assert_eq!(found(1.0, lossy), None);
        assert_eq!(found(1.0, |_| Ok(Trial { sent: 0, received: 0, seconds: 1.0 })), None);
    }

    #[test]
    fn two_hiccups_do_not_count() {
        let mut hiccups = 2;
        let mut steady = path(2.0);
        let highest = found(2.0, |rate| {
            let trial = steady(rate)?;
            if hiccups == 0 {
                return Ok(trial);
            }
            hiccups -= 1;
            Ok(Trial { received: trial.sent / 2, ..trial })
        });
        assert!(highest.expect("there is one") > 2.0);
    }

    #[test]
    fn rates_are_what_was_reached_not_what_was_asked_for() {
        let trial = Trial { sent: 3_000_000, received: 2_000_000, seconds: 2.0 };
        assert_eq!((trial.sent_mpps(), trial.received_mpps()), (1.5, 1.0));
    }
}
