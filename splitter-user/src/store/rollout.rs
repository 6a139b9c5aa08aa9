//! A rollout as it's kept: what it was asked, how far it has come, and what happened. What follows from it is `controller::rollout`'s.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::Sample,
    state::{FlipReason, Unreadable, Unsound},
};
use crate::{
    controller::{Cohorts, Comparison, Tally},
    model::{Plan, ServiceName, Weight},
};

/// One rollout of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its number: each rollout of this agent has a higher one than the one before.
    pub id: u64,
    /// The plan that it began with; another one in the configuration counts from the next rollout on.
    pub plan: Plan,
    /// Who started it.
    pub by: String,
    /// When.
    pub started_at: Timestamp,
    /// Where it is.
    pub phase: Phase,
    /// What was measured.
    pub progress: Progress,
    /// What happened, oldest first: at most [`Run::LOG`] entries, of which the first always stays.
    pub log: Vec<Entry>,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// In a step, counted from 0.
    Stepping {
        /// Which.
        step: usize,
    },
    /// Before a step, until its gate opens; the weight is that of the step before.
    Gate {
        /// The step behind the gate.
        step: usize,
    },
    /// It stays as it is until somebody decides.
    Paused {
        /// The step that it's in, or the one behind the gate.
        step: usize,
        /// It stands at that step's gate.
        at_gate: bool,
        /// Why.
        why: Pause,
    },
    /// Everything goes to stable.
    Flipped {
        /// The step that it was in, or the one behind the gate.
        step: usize,
        /// Why.
        reason: Box<FlipReason>,
    },
    /// The canary's backends are about to become stable.
    Promoting {
        /// The step that it was in, or the one behind the gate.
        step: usize,
        /// It stood at that step's gate.
        at_gate: bool,
    },
    /// They are.
    Promoted,
    /// It was given up: the weight is 0.
    Aborted {
        /// Why.
        why: Abort,
    },
}

/// Why a rollout is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Pause {
    /// Somebody asked for it.
    Person {
        /// Who.
        by: String,
    },
    /// The canary is worse, and the plan has `on_breach = "pause"`.
    Breach {
        /// What was found.
        stop: Stop,
    },
}

/// Why a rollout was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Abort {
    /// Somebody asked for it.
    Person {
        /// Who.
        by: String,
    },
    /// Its time was over.
    Deadline {
        /// How long it had.
        after: Duration,
    },
}

/// What keeps a rollout from going on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stop", rename_all = "snake_case")]
pub enum Stop {
    /// The canary is worse than stable.
    Worse {
        /// In what, and how that is known.
        difference: Difference,
    },
    /// A check of the application's own failed.
    Check {
        /// Which.
        name: String,
        /// What it said.
        said: String,
    },
    /// There was no verdict for too long.
    NoData {
        /// What there was none about.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Its time was over.
    Deadline {
        /// How long it had.
        after: Duration,
    },
}

/// What the cohorts are compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Attempts that were refused or timed out.
    Failures,
    /// Handshakes slower than stable's 90th percentile.
    Handshake,
    /// First responses slower than stable's 90th percentile.
    FirstResponse,
}

/// How the cohorts stand to each other in one respect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// In what.
    pub what: Compared,
    /// Failures, or what took too long, on canary.
    pub canary: Sample,
    /// The same on stable.
    pub stable: Sample,
    /// What took longer than this was too slow, on stable; none for failures, or before there is such a time.
    pub slower_than: Option<Duration>,
    /// How strongly the numbers speak against "the canary is no worse": an e-value. 1: not at all.
    #[serde(with = "number")]
    pub evidence: f64,
    /// As much is proof: one over this comparison's share of the false-alarm rate.
    #[serde(with = "number")]
    pub proof: f64,
}

/// What was measured. It goes on with every look, and is kept now and then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How long the rollout has been going, pauses and gates included; time without an agent isn't.
    pub age: Duration,
    /// How much of the step has passed.
    pub in_step: Duration,
    /// What the cohorts did in this step.
    pub step: Cohorts<Tally>,
    /// What they did in the whole rollout.
    pub total: Cohorts<Tally>,
    /// The comparison with stable, if the plan has one.
    pub comparison: Option<Comparison>,
    /// What checks said, by name.
    pub checks: BTreeMap<String, Checked>,
}

/// What a check said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// Its last answer.
    pub last: Answer,
    /// Bad answers in a row.
    pub bad: u32,
    /// It has passed since the step, or the wait at the gate, began.
    pub passed: bool,
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// All is well.
    Pass {
        /// In its words.
        said: String,
    },
    /// It isn't.
    Bad {
        /// In its words.
        said: String,
    },
    /// Nothing is known: no answer, no sample, not a number.
    NoData {
        /// Why.
        why: String,
    },
}

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Moved,
}

/// What happened to a rollout. Steps are counted from 1 here, as people do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "moved", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the sentence that each variant becomes says what its fields are")]
pub enum Moved {
    /// It began.
    Started { by: String, steps: usize },
    /// It's in a step.
    Step { step: usize, of: usize, plan: String, weight: Weight },
    /// It was in a step, and may leave it.
    Passed { step: usize, of: usize, canary: Sample, stable: Sample },
    /// It waits at a gate.
    Gate { step: usize, of: usize, gate: String },
    /// A gate was opened.
    Opened { step: usize, of: usize, by: String },
    /// A step's time was over, there was no verdict, and the plan has it that the next one begins all the same.
    Proceeded { step: usize, of: usize, what: String },
    /// A step was left early.
    Skipped { step: usize, of: usize, by: String },
    /// It was paused.
    Paused { why: Pause },
    /// It goes on.
    Resumed { by: String },
    /// Everything goes to stable.
    Flipped { reason: FlipReason },
    /// The canary's backends are about to become stable; `by` is who asked, if somebody did.
    Promoting { by: Option<String> },
    /// They are.
    Promoted,
    /// It was given up.
    Aborted { why: Abort },
}

/// A rollout that is over, or the one that is going on, as the history has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its service.
    pub service: ServiceName,
    /// All of it.
    pub run: Run,
    /// So many entries of its log, after the first, are left out for want of room.
    #[serde(default)]
    pub left_out: usize,
}

impl Record {
    /// Reads what the history keeps.
    ///
    /// # Errors
    /// It isn't a record, or one that no agent wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Self = serde_json::from_slice(bytes)?;
        record.run.sound()?;
        Ok(record)
    }
}

impl Run {
    /// So many entries of its log are kept.
    pub const LOG: usize = 200;

    /// A configured time is a month at most. Nothing of what an agent reckons with them gets near its end.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

    /// Fails if it holds what no agent wrote: a step that the plan hasn't, or times that can't be told.
    pub(super) fn sound(&self) -> Result<(), Unsound> {
        let place = |field: &str| format!("rollout {}, {field}", self.id);
        let step = match &self.phase {
            Phase::Stepping { step }
            | Phase::Gate { step }
            | Phase::Paused { step, .. }
            | Phase::Flipped { step, .. }
            | Phase::Promoting { step, .. } => Some(*step),
            Phase::Promoted | Phase::Aborted { .. } => None,
        };
        if step.is_some_and(|step| step >= self.plan.steps.len()) {
            return Err(Unsound::new(place("phase"), "the plan has no such step"));
        }
        let plan = &self.plan;
        let times = plan.steps.iter().map(|step| step.lasts).chain([plan.no_data_for, plan.deadline]);
        if times.chain(plan.checks.iter().flat_map(|check| [check.interval, check.timeout])).any(|time| time > Self::LONGEST) {
            return Err(Unsound::new(place("plan"), "a time is longer than any plan's"));
        }
        Ok(())
    }

    /// Notes what happened.
    pub fn note(&mut self, at: Timestamp, what: Moved) {
        if self.log.len() >= Self::LOG {
            self.log.remove(1);
        }
        self.log.push(Entry { at, what });
    }

    /// Whether it has ended: it neither decides about the weight nor holds the service flipped.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Promoted | Phase::Aborted { .. })
    }
}

impl Answer {
    /// So many characters of what a check says are kept, for it's noted in logs and events.
    pub const LONGEST: usize = 300;

    /// The same in fewer words, if it's long.
    #[must_use]
    pub fn clipped(&self) -> Self {
        let clip = |text: &String| match text.char_indices().nth(Self::LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.clone(),
        };
        match self {
            Self::Pass { said } => Self::Pass { said: clip(said) },
            Self::Bad { said } => Self::Bad { said: clip(said) },
            Self::NoData { why } => Self::NoData { why: clip(why) },
        }
    }
}

/// How a step was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// With its verdict.
    Passed,
    /// Somebody had it left early.
    Skipped,
    /// Its time was over, and it was left without a verdict, as the plan has it.
    Proceeded,
}

impl Moved {
    /// The step that was left by this, from 1, and how; none if this leaves none.
    #[must_use]
    pub const fn left(&self) -> Option<(usize, Left)> {
        match self {
            Self::Passed { step, .. } => Some((*step, Left::Passed)),
            Self::Skipped { step, .. } => Some((*step, Left::Skipped)),
            Self::Proceeded { step, .. } => Some((*step, Left::Proceeded)),
            Self::Started { .. }
            | Self::Step { .. }
            | Self::Gate { .. }
            | Self::Opened { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::Flipped { .. }
            | Self::Promoting { .. }
            | Self::Promoted
            | Self::Aborted { .. } => None,
        }
    }
}

impl Checked {
    /// It has passed, and said nothing else since.
    #[must_use]
    pub const fn passes(&self) -> bool {
        self.passed && matches!(self.last, Answer::Pass { .. })
    }

    /// Its last answer that said anything was a bad one.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        self.bad > 0
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worse { difference } => difference.fmt(f),
            Self::Check { name, said } => write!(f, "check {name}: {said}"),
            Self::NoData { what, waited } => write!(f, "{what}, for {}", humantime::format_duration(whole(*waited))),
            Self::Deadline { after } => write!(f, "not done within {}", humantime::format_duration(*after)),
        }
    }
}

impl Compared {
    /// The word, in output and as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Handshake => "handshake_p90",
            Self::FirstResponse => "first_response_p90",
        }
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failures => "failed connections",
            Self::Handshake => "slow handshakes",
            Self::FirstResponse => "slow first responses",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, canary, stable, slower_than, evidence, proof } = self;
        write!(f, "{what}: {canary} on canary, {stable} on stable")?;
        if let Some(time) = slower_than {
            write!(f, ", slower than {}", humantime::format_duration(Duration::from_micros(time.as_micros() as u64)))?;
        }
        write!(f, "; evidence {evidence:.3e}, {proof:.0} is proof")
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { by } => write!(f, "by {by}"),
            Self::Breach { stop } => stop.fmt(f),
        }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { by } => write!(f, "by {by}"),
            Self::Deadline { after } => write!(f, "not done within {}", humantime::format_duration(*after)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass { said } => write!(f, "passes: {said}"),
            Self::Bad { said } => write!(f, "fails: {said}"),
            Self::NoData { why } => write!(f, "no data: {why}"),
        }
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { by, steps: 1 } => write!(f, "started with 1 step, by {by}"),
            Self::Started { by, steps } => write!(f, "started with {steps} steps, by {by}"),
            Self::Step { step, of, plan, .. } => write!(f, "step {step} of {of}: {plan}"),
            Self::Passed { step, of, canary, stable } => {
                write!(f, "step {step} of {of} passed; failed connections: {canary} on canary, {stable} on stable")
            }
            Self::Proceeded { step, of, what } => write!(f, "step {step} of {of} was left without a verdict: {what}"),
            Self::Gate { step, of, gate } => write!(f, "waits at the gate of step {step} of {of} ({gate})"),
            Self::Opened { step, of, by } => write!(f, "the gate of step {step} of {of} was opened, by {by}"),
            Self::Skipped { step, of, by } => write!(f, "step {step} of {of} was left early, by {by}"),
            Self::Paused { why } => write!(f, "paused: {why}"),
            Self::Resumed { by } => write!(f, "goes on, by {by}"),
            Self::Flipped { reason } => write!(f, "flipped to stable: {reason}"),
            Self::Promoting { by: Some(by) } => write!(f, "is being promoted, by {by}"),
            Self::Promoting { by: None } => f.write_str("all steps passed, is being promoted"),
            Self::Promoted => f.write_str("promoted: the canary's backends are stable"),
            Self::Aborted { why } => write!(f, "aborted: {why}"),
        }
    }
}

/// A number that JSON can't say must not make the whole state unreadable, or every service is held on stable: more than any is the largest.
mod number {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(number.clamp(f64::MIN, f64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        // Not a number is written as null.
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}

/// Without what nobody wants to read.
fn whole(duration: Duration) -> Duration {
    if duration >= Duration::from_secs(1) { Duration::from_secs(duration.as_secs()) } else { duration }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_that_json_cannot_say_does_not_make_the_state_unreadable() {
        for (evidence, read) in [(f64::INFINITY, f64::MAX), (f64::MAX, f64::MAX), (0.1 + 0.2, 0.1 + 0.2), (1e-320, 1e-320)] {
            let json = serde_json::to_string(&Stop::Worse { difference: difference(evidence) }).expect("JSON");
            let Stop::Worse { difference } = serde_json::from_str(&json).expect("read") else { panic!("{json}") };
            assert_eq!(difference.evidence.to_bits(), read.to_bits(), "{evidence}");
        }
        let json = serde_json::to_string(&difference(f64::NAN)).expect("JSON");
        assert!(serde_json::from_str::<Difference>(&json).expect("read").evidence.is_nan());
    }

    #[test]
    fn a_check_that_talks_too_much_is_cut_short_between_characters() {
        let long = "ä".repeat(Answer::LONGEST + 1);
        let Answer::Bad { said } = (Answer::Bad { said: long }).clipped() else { panic!("another answer") };
        assert_eq!((said.chars().count(), said.ends_with("ä…")), (Answer::LONGEST + 1, true));
        let short = Answer::NoData { why: "ä".repeat(Answer::LONGEST) };
        assert_eq!(short.clipped(), short);
    }

    #[test]
    fn a_record_that_no_agent_wrote_is_refused_with_its_place() {
        let run = crate::controller::rollout::start(3, &crate::api::fake::plan(), "alice", Timestamp::UNIX_EPOCH);
        type Change = fn(&mut Run);
        let read = |change: Change| {
            let mut record = Record { service: "web".parse().expect("a name"), run: run.clone(), left_out: 0 };
            change(&mut record.run);
            let read = Record::decode(&serde_json::to_vec(&record).expect("JSON"));
            read.err().map(|why| why.to_string())
        };
        let (step, time) = ("rollout 3, phase: the plan has no such step", "rollout 3, plan: a time is longer than any plan's");
        let rows: [(Change, Option<&str>); 6] = [
            (|_| {}, None),
            (|run| run.phase = Phase::Promoted, None),
            (|run| run.phase = Phase::Stepping { step: run.plan.steps.len() }, Some(step)),
            (|run| run.phase = Phase::Gate { step: usize::MAX }, Some(step)),
            (|run| run.plan.deadline = Duration::MAX, Some(time)),
            (|run| run.plan.steps[0].lasts = Duration::from_secs(1 << 40), Some(time)),
        ];
        for (index, (change, wrong)) in rows.into_iter().enumerate() {
            assert_eq!(read(change).as_deref(), wrong, "row {index}");
        }
    }

    fn difference(evidence: f64) -> Difference {
        let sample = Sample { failures: 1, attempts: 2 };
        Difference { what: Compared::Failures, canary: sample, stable: sample, slower_than: None, evidence, proof: 300.0 }
    }
}
