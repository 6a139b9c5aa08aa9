//! What came of the demo, worked out from every single connection. Pure.

use std::time::{Duration, Instant};

use serde::Serialize;
use splitter_user::model::{Cohort, Weight};

use super::binomial;
use crate::workload::http::kept::{Connection, State};

/// One new connection with its request. Times are from the load's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was begun.
    pub begun: Duration,
    /// When it was answered or had failed.
    pub ended: Duration,
    /// Whose it was: of the one who answered, and for a failed one of the place that the agent explains.
    pub cohort: Cohort,
    /// Whether there was no answer.
    pub failed: bool,
}

impl Attempt {
    fn is_within(&self, span: &Span) -> bool {
        self.begun >= span.from && self.ended <= span.until
    }

    fn is_of(&self, cohort: Cohort) -> bool {
        self.cohort == cohort
    }
}

/// A time in which nothing was changed. A connection belongs to it that was begun and had ended within: one that was
/// under way while the weight was being changed belongs to no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From when the command had returned,
    pub from: Duration,
    /// until the next one was begun.
    pub until: Duration,
}

/// A number for each cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByCohort {
    /// Of stable.
    pub stable: u64,
    /// Of the canary.
    pub canary: u64,
}

impl ByCohort {
    fn count<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Self {
        let mut counts = Self::default();
        for attempt in attempts {
            match attempt.cohort {
                Cohort::Stable => counts.stable += 1,
                Cohort::Canary => counts.canary += 1,
            }
        }
        counts
    }

    /// Connections without an answer that had ended before this moment.
    #[must_use]
    pub fn failed_before(moment: Duration, attempts: &[Attempt]) -> Self {
        Self::count(attempts.iter().filter(|attempt| attempt.failed && attempt.ended < moment))
    }

    /// Of both.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.stable + self.canary
    }
}

/// What was measured at one weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was asked, in hundredths of a percent.
    pub weight_bp: u16,
    /// New connections.
    pub connections: u64,
    /// Of these, the canary's.
    pub canary: u64,
    /// The canary's share of them, 0 to 1; none without connections.
    pub share: Option<f64>,
    /// The least and the most share that chance explains in 99.9% of all cases.
    pub bounds: Option<[f64; 2]>,
    /// Connections without an answer.
    pub failed: ByCohort,
}

impl Step {
    /// What was measured in this time.
    #[must_use]
    pub fn measure(weight: Weight, span: &Span, attempts: &[Attempt]) -> Self {
        let within = || attempts.iter().filter(|attempt| attempt.is_within(span));
        let counts = ByCohort::count(within());
        let connections = counts.sum();
        let (least, most) = binomial::bounds(connections, weight.fraction());
        Self {
            weight_bp: weight.basis_points(),
            connections,
            canary: counts.canary,
            share: share(counts.canary, connections),
            bounds: share(least, connections).zip(share(most, connections)).map(|(least, most)| [least, most]),
            failed: ByCohort::count(within().filter(|attempt| attempt.failed)),
        }
    }

    /// Whether the share is what was asked, as far as chance lets one see.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        match (self.share, self.bounds) {
            (Some(share), Some([least, most])) => (least..=most).contains(&share),
            (Some(_) | None, _) => false,
        }
    }
}

/// A part of a whole; none of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// What the agent says about the flip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flipped {
    /// The kind of reason, as the API has it.
    pub cause: String,
    /// The reason in words, with the numbers.
    pub reason: String,
    /// When the agent decided it.
    pub at: Duration,
    /// When we saw it: from here on it is in force for certain.
    pub seen: Duration,
}

/// How the canary's failure ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// Why, with the numbers.
    pub reason: String,
    /// The kind of reason: `refused`, `timeout`.
    pub cause: String,
    /// From the first connection that failed to the last that the canary got, both at their begin.
    pub first_failure_to_last_canary_ms: Option<f64>,
    /// From the first connection that failed to the agent's decision.
    pub first_failure_to_decision_ms: Option<f64>,
    /// Connections without an answer, from the canary's failure on.
    pub failed_connections: u64,
    /// The same by cohort.
    pub failed: ByCohort,
}

impl Flip {
    /// What was measured from the canary's failure on.
    #[must_use]
    pub fn measure(broken_at: Duration, flipped: &Flipped, attempts: &[Attempt]) -> Self {
        let failed = || attempts.iter().filter(|attempt| attempt.failed && attempt.ended >= broken_at);
        let first = failed().map(|attempt| attempt.begun).min();
        let last = attempts.iter().filter(|attempt| attempt.is_of(Cohort::Canary)).map(|attempt| attempt.begun).max();
        let failed = ByCohort::count(failed());
        let ms = |from: Duration, to: Duration| (to.as_secs_f64() - from.as_secs_f64()) * 1000.0;
        Self {
            reason: flipped.reason.clone(),
            cause: flipped.cause.clone(),
            first_failure_to_last_canary_ms: first.zip(last).map(|(first, last)| ms(first, last)),
            first_failure_to_decision_ms: first.map(|first| ms(first, flipped.at)),
            failed_connections: failed.sum(),
            failed,
        }
    }
}

/// The new connections after the flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct After {
    /// All of them.
    pub connections: u64,
    /// Of these, the canary's.
    pub canary: u64,
    /// Without an answer.
    pub failed: ByCohort,
}

impl After {
    /// Of those that were begun after the flip had been seen.
    #[must_use]
    pub fn measure(flipped: &Flipped, attempts: &[Attempt]) -> Self {
        let after = || attempts.iter().filter(|attempt| attempt.begun >= flipped.seen);
        let counts = ByCohort::count(after());
        Self {
            connections: counts.sum(),
            canary: counts.canary,
            failed: ByCohort::count(after().filter(|attempt| attempt.failed)),
        }
    }
}

/// The long-lived connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LongLived {
    /// Opened and answered, those that take the place of others not counted.
    pub opened: u64,
    /// Ended in another way than by the client's own will; those that the flip reset not counted.
    pub broken: u64,
    /// The canary's, ended with a RST from the canary's failure on: the flip does so by design.
    pub reset_by_flip: u64,
    /// Opened again after that, answered by stable, and not broken since.
    pub back_on_stable: u64,
    /// Connections to the canary that were open to the end.
    pub left_on_canary: u64,
    /// All that were begun, those that take the place of others too.
    pub begun: u64,
    /// Answered requests.
    pub exchanges: u64,
    /// Bytes that came, headers not counted.
    pub bytes: u64,
    /// Of these, wrong or missing.
    pub bytes_wrong: u64,
    /// Answers from another server than the connection's first.
    pub strangers: u64,
}

impl LongLived {
    /// The figures of these connections, if the canary failed then.
    #[must_use]
    pub fn of(connections: &[Connection], failed_at: Instant) -> Self {
        let mut figures = Self::default();
        for connection in connections {
            let cohort = connection.identity.as_ref().map(|identity| identity.version.as_str());
            let (on_canary, again) = (cohort == Some(Cohort::Canary.as_str()), connection.again);
            figures.opened += u64::from(cohort.is_some() && !again);
            figures.begun += 1;
            figures.exchanges += connection.exchanges;
            figures.bytes += connection.bytes;
            figures.bytes_wrong += connection.bytes_wrong;
            figures.strangers += connection.strangers;
            match &connection.state {
                State::Broken(failure) if on_canary && failure.reset && failure.at >= failed_at => figures.reset_by_flip += 1,
                State::Broken(_) => figures.broken += 1,
                State::Open | State::Closed if on_canary => figures.left_on_canary += 1,
                State::Open | State::Closed if again => figures.back_on_stable += 1,
                // One that never came to be is missing from those opened, or from those that are back.
                State::Open | State::Closed | State::Opening | State::NotOpened(_) => {}
            }
        }
        figures
    }
}

/// What the data plane counted, by the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Connections assigned, long-lived ones too.
    pub opened: ByCohort,
    /// Attempts answered with a RST; none in `dsr`, where replies don't pass the node.
    pub refused: Option<ByCohort>,
}

/// Everything, as it is written to a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `nat` or `dsr`.
    pub mode: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// New connections a second, as intended.
    pub rate: f64,
    /// The ramp.
    pub steps: Vec<Step>,
    /// The end of it; none if there was no flip in time.
    pub flip: Option<Flip>,
    /// What came then.
    pub after_flip: Option<After>,
    /// The long-lived connections.
    pub long_lived: LongLived,
    /// New connections of the whole run.
    pub connections: u64,
    /// Of these, refused with a RST.
    pub refused: u64,
    /// Connections that failed before the canary did, whenever that was.
    pub failed_while_ramping: ByCohort,
    /// The agent's own numbers; none if it doesn't know them.
    pub agent: Option<Counted>,
    /// How long it all took, in seconds.
    pub seconds: f64,
    /// What should have held and didn't; empty when all is well.
    pub not_held: Vec<String>,
}

/// What was intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intended {
    /// Long-lived connections.
    pub long_lived: u64,
    /// The cause that the flip must have.
    pub cause: &'static str,
}

impl Report {
    /// What must hold and doesn't, a sentence each.
    #[must_use]
    pub fn judge(&self, intended: &Intended) -> Vec<String> {
        let mut not_held = Vec::new();
        let mut must = |holds: bool, otherwise: String| {
            if !holds {
                not_held.push(otherwise);
            }
        };
        for step in &self.steps {
            let weight = f64::from(step.weight_bp) / 100.0;
            let (canary, connections) = (step.canary, step.connections);
            let otherwise = match step.bounds {
                Some([least, most]) => format!(
                    "at {weight}% the canary got {canary} of {connections} connections, which is outside of {:.2}% to {:.2}%",
                    least * 100.0,
                    most * 100.0
                ),
                None => format!("at {weight}% there was no connection to be measured"),
            };
            must(step.is_within_bounds(), otherwise);
        }
        let early = self.failed_while_ramping;
        must(early.sum() == 0, format!("{} connections failed while nothing was broken", early.sum()));
        let long = &self.long_lived;
        must(
            long.opened == intended.long_lived,
            format!("{} of {} long-lived connections were opened", long.opened, intended.long_lived),
        );
        must(long.broken == 0, format!("{} long-lived connections broke", long.broken));
        must(long.bytes_wrong == 0, format!("{} bytes of long-lived connections were wrong", long.bytes_wrong));
        must(long.strangers == 0, format!("{} answers came from another server than before", long.strangers));
        must(
            long.back_on_stable == long.reset_by_flip,
            format!("{} of {} reset connections came back on stable", long.back_on_stable, long.reset_by_flip),
        );
        if let Some(agent) = &self.agent {
            let begun = self.connections + long.begun;
            let opened = agent.opened.sum();
            must(opened == begun, format!("the client began {begun} connections, and the agent counted {opened}"));
            let refused = agent.refused.map_or(self.refused, ByCohort::sum);
            must(
                refused == self.refused,
                format!("the client was refused {} times, and the agent counted {refused}", self.refused),
            );
        } else {
            must(false, "the agent does not know what it counted".into());
        }
        let Some((flip, after)) = self.flip.as_ref().zip(self.after_flip) else {
            not_held.push("the service did not flip".into());
            return not_held;
        };
        must(long.left_on_canary == 0, format!("{} connections to the canary outlived the flip", long.left_on_canary));
        must(flip.cause == intended.cause, format!("the flip's cause was {}, not {}", flip.cause, intended.cause));
        must(flip.failed.stable == 0, format!("{} connections to stable failed when the canary did", flip.failed.stable));
        must(flip.failed.canary > 0, "the canary's failure was noticed by no connection".into());
        must(after.connections > 0, "there was no connection after the flip".into());
        must(after.canary == 0, format!("the canary got {} new connections after the flip", after.canary));
        must(after.failed.sum() == 0, format!("{} connections failed after the flip", after.failed.sum()));
        not_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Identity, http::kept::Failure};

    const SPAN: Span = Span { from: ms(1000), until: ms(2000) };

    #[test]
    fn a_connection_under_way_while_the_weight_changes_belongs_to_no_step() {
        let attempts = [
            ok(999, 1001, Cohort::Canary),
            ok(1000, 1001, Cohort::Canary),
            ok(1500, 1501, Cohort::Stable),
            ok(1999, 2000, Cohort::Stable),
            ok(1999, 2001, Cohort::Canary),
        ];
        let step = Step::measure(weight(5000), &SPAN, &attempts);
        assert_eq!((step.connections, step.canary, step.failed), (3, 1, ByCohort::default()));
        assert!(step.is_within_bounds());
    }

    #[test]
    fn without_a_connection_there_is_no_share_and_nothing_holds() {
        let step = Step::measure(weight(0), &SPAN, &[]);
        assert_eq!((step.share, step.bounds), (None, None));
        assert!(!step.is_within_bounds());
    }

    #[test]
    fn a_share_that_chance_does_not_explain_is_out_of_bounds() {
        let attempts: Vec<Attempt> = (0..1000).map(|_| ok(1500, 1501, Cohort::Stable)).collect();
        assert!(Step::measure(weight(0), &SPAN, &attempts).is_within_bounds());
        assert!(!Step::measure(weight(100), &SPAN, &attempts).is_within_bounds());
    }

    #[test]
    fn the_flip_is_measured_from_the_first_failure_to_the_last_canary_connection() {
        let attempts = [
            ok(1990, 1991, Cohort::Canary),
            // Begun before the canary failed, and ended by it.
            failed(1999, 2002, Cohort::Canary),
            failed(2010, 2011, Cohort::Canary),
            ok(2050, 2051, Cohort::Stable),
            failed(2120, 2121, Cohort::Canary),
            ok(2300, 2301, Cohort::Stable),
        ];
        let flip = Flip::measure(ms(2000), &flipped(), &attempts);
        assert_eq!(flip.failed, ByCohort { stable: 0, canary: 3 });
        assert_eq!(flip.first_failure_to_last_canary_ms.map(f64::round), Some(121.0));
        assert_eq!(flip.first_failure_to_decision_ms.map(f64::round), Some(101.0));
        assert_eq!(After::measure(&flipped(), &attempts), After { connections: 1, canary: 0, failed: ByCohort::default() });
    }

    #[test]
    fn a_long_lived_connection_is_broken_unless_the_flip_reset_it_on_the_canary() {
        let failed_at = Instant::now();
        let (before, after) = (failed_at - ms(1), failed_at + ms(1));
        let failure = |at, reset| Failure { at, reset, why: String::new() };
        let figures = |version, again, state| LongLived::of(&[connection(version, again, state)], failed_at);
        let one = LongLived { begun: 1, opened: 1, exchanges: 3, bytes: 30, ..LongLived::default() };
        for (why, version, state, expected) in [
            ("in use", "stable", State::Closed, one),
            ("reset by the flip", "canary", State::Broken(failure(after, true)), LongLived { reset_by_flip: 1, ..one }),
            ("the flip has not come yet", "canary", State::Broken(failure(before, true)), LongLived { broken: 1, ..one }),
            ("not by a RST", "canary", State::Broken(failure(after, false)), LongLived { broken: 1, ..one }),
            ("stable has nothing to do with it", "stable", State::Broken(failure(after, true)), LongLived { broken: 1, ..one }),
            ("the flip was to reset it", "canary", State::Open, LongLived { left_on_canary: 1, ..one }),
        ] {
            assert_eq!(figures(version, false, state), expected, "{why}");
        }
        let again = LongLived { opened: 0, ..one };
        assert_eq!(figures("stable", true, State::Closed), LongLived { back_on_stable: 1, ..again });
        assert_eq!(figures("stable", true, State::Broken(failure(after, true))), LongLived { broken: 1, ..again });
        assert_eq!(figures("canary", true, State::Closed), LongLived { left_on_canary: 1, ..again });
        let never = Connection { identity: None, ..connection("", false, State::NotOpened(failure(after, true))) };
        assert_eq!(LongLived::of(&[never], failed_at), LongLived { opened: 0, ..one });
    }

    #[test]
    fn a_report_in_order_holds_and_each_disorder_is_told() {
        let report = report();
        assert_eq!(report.judge(&INTENDED), Vec::<String>::new());
        let told = |change: fn(&mut Report), sentence: &str| {
            let mut report = report.clone();
            change(&mut report);
            assert_eq!(report.judge(&INTENDED), [sentence.to_owned()]);
        };
        told(|report| report.flip = None, "the service did not flip");
        told(|report| report.agent = None, "the agent does not know what it counted");
        told(|report| report.connections = 101, "the client began 115 connections, and the agent counted 116");
        told(|report| report.refused = 2, "the client was refused 2 times, and the agent counted 1");
        told(|report| report.long_lived.left_on_canary = 1, "1 connections to the canary outlived the flip");
        told(|report| report.long_lived.broken = 2, "2 long-lived connections broke");
        told(|report| report.long_lived.opened = 9, "9 of 10 long-lived connections were opened");
        told(|report| report.long_lived.bytes_wrong = 1, "1 bytes of long-lived connections were wrong");
        told(|report| report.long_lived.strangers = 1, "1 answers came from another server than before");
        told(|report| report.long_lived.back_on_stable = 3, "3 of 4 reset connections came back on stable");
        told(|report| report.failed_while_ramping.canary = 1, "1 connections failed while nothing was broken");
        told(
            |report| (report.steps[0].canary, report.steps[0].share) = (90, Some(0.9)),
            "at 50% the canary got 90 of 100 connections, which is outside of 34.00% to 66.00%",
        );
        told(
            |report| report.after_flip = Some(After { connections: 5, canary: 1, failed: ByCohort::default() }),
            "the canary got 1 new connections after the flip",
        );
        told(
            |report| report.after_flip = Some(After { connections: 5, canary: 0, failed: ByCohort { stable: 1, canary: 0 } }),
            "1 connections failed after the flip",
        );
    }

    const INTENDED: Intended = Intended { long_lived: 10, cause: "refused" };

    fn report() -> Report {
        let half = |number| if number % 2 == 0 { Cohort::Stable } else { Cohort::Canary };
        let attempts: Vec<Attempt> = (0..100).map(|number| ok(1500, 1501, half(number))).collect();
        let broken = [failed(2010, 2011, Cohort::Canary), ok(2500, 2501, Cohort::Stable)];
        Report {
            mode: "nat".into(),
            family: "ipv4".into(),
            rate: 100.0,
            steps: vec![Step::measure(weight(5000), &SPAN, &attempts)],
            flip: Some(Flip::measure(ms(2000), &flipped(), &broken)),
            after_flip: Some(After::measure(&flipped(), &broken)),
            long_lived: LongLived { opened: 10, reset_by_flip: 4, back_on_stable: 4, begun: 14, ..LongLived::default() },
            connections: 102,
            failed_while_ramping: ByCohort::default(),
            refused: 1,
            agent: Some(Counted {
                opened: ByCohort { stable: 60, canary: 56 },
                refused: Some(ByCohort { stable: 0, canary: 1 }),
            }),
            seconds: 3.0,
            not_held: Vec::new(),
        }
    }

    fn connection(version: &str, again: bool, state: State) -> Connection {
        Connection {
            local: ([10, 0, 0, 1], 1024).into(),
            again,
            identity: Some(Identity { version: version.into(), name: format!("{version}1") }),
            exchanges: 3,
            bytes: 30,
            bytes_wrong: 0,
            strangers: 0,
            state,
        }
    }

    fn flipped() -> Flipped {
        Flipped { cause: "refused".into(), reason: "3 of 6".into(), at: ms(2100), seen: ms(2200) }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).expect("a weight")
    }

    fn ok(begun: u64, ended: u64, cohort: Cohort) -> Attempt {
        Attempt { begun: ms(begun), ended: ms(ended), cohort, failed: false }
    }

    fn failed(begun: u64, ended: u64, cohort: Cohort) -> Attempt {
        Attempt { failed: true, ..ok(begun, ended, cohort) }
    }
}
