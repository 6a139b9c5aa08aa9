//! Every (state, input) pair, with the phase and the weight that follow, or the refusal. A new phase, verb, reason or policy doesn't compile here.

use super::*;
use crate::store::{Check as Limit, Finding, TripCause, TripFinding, TripTally};

/// The plan of the table: 10%, then 20%, then a gate that somebody opens, 30%, then a gate that a check opens, 40%.
fn plan() -> Plan {
    let steps = vec![
        step(None, 10, 10, None),
        step(None, 20, 10, None),
        step(None, 30, 10, Some(Gate::Manual)),
        step(None, 40, 10, Some(Gate::Check("smoke".to_owned()))),
    ];
    Plan { min_connections: 500, checks: vec![check("smoke", 2)], ..plain(steps) }
}

/// Where a rollout may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The next step begins at once.
    Step,
    /// The next step has a gate.
    StepBeforeGate,
    LastStep,
    ManualGate,
    CheckGate,
    /// In the second step.
    PausedInStep(Whose),
    /// At the gate that a check opens.
    PausedAtGate(Whose),
    PromotingAtEnd,
    /// From the gate that a person opens.
    PromotingFromGate,
    Flipped,
    Promoted,
    AbortedByPerson,
    AbortedByDeadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Persons,
    Breachs,
}

impl Place {
    const ALL: [Self; 15] = [
        Self::Step,
        Self::StepBeforeGate,
        Self::LastStep,
        Self::ManualGate,
        Self::CheckGate,
        Self::PausedInStep(Whose::Persons),
        Self::PausedInStep(Whose::Breachs),
        Self::PausedAtGate(Whose::Persons),
        Self::PausedAtGate(Whose::Breachs),
        Self::PromotingAtEnd,
        Self::PromotingFromGate,
        Self::Flipped,
        Self::Promoted,
        Self::AbortedByPerson,
        Self::AbortedByDeadline,
    ];

    fn phase(self) -> Phase {
        match self {
            Self::Step => Phase::Stepping { step: 0 },
            Self::StepBeforeGate => Phase::Stepping { step: 1 },
            Self::LastStep => Phase::Stepping { step: 3 },
            Self::ManualGate => Phase::Gate { step: 2 },
            Self::CheckGate => Phase::Gate { step: 3 },
            Self::PausedInStep(whose) => Phase::Paused { step: 1, at_gate: false, why: whose.pause() },
            Self::PausedAtGate(whose) => Phase::Paused { step: 3, at_gate: true, why: whose.pause() },
            Self::PromotingAtEnd => Phase::Promoting { step: 3, at_gate: false },
            Self::PromotingFromGate => Phase::Promoting { step: 2, at_gate: true },
            Self::Flipped => Phase::Flipped { step: 1, reason: Box::new(person()) },
            Self::Promoted => Phase::Promoted,
            Self::AbortedByPerson => Phase::Aborted { why: Abort::Person { by: "eve".to_owned() } },
            Self::AbortedByDeadline => Phase::Aborted { why: Abort::Deadline { after: MINUTE } },
        }
    }

    /// The step that it is in, or behind whose gate it waits, while it goes on.
    fn step(self) -> Option<(usize, bool)> {
        match self {
            Self::Step => Some((0, false)),
            Self::StepBeforeGate | Self::PausedInStep(_) => Some((1, false)),
            Self::LastStep | Self::PromotingAtEnd => Some((3, false)),
            Self::ManualGate | Self::PromotingFromGate => Some((2, true)),
            Self::CheckGate | Self::PausedAtGate(_) => Some((3, true)),
            Self::Flipped | Self::Promoted | Self::AbortedByPerson | Self::AbortedByDeadline => None,
        }
    }

    /// How many places a phase has in this table. None may have none.
    fn places(phase: &Phase) -> usize {
        match phase {
            Phase::Stepping { .. } => 3,
            Phase::Gate { .. } | Phase::Promoting { .. } | Phase::Aborted { .. } => 2,
            Phase::Paused { why: Pause::Person { .. } | Pause::Breach { .. }, .. } => 4,
            Phase::Flipped { .. } | Phase::Promoted => 1,
        }
    }
}

impl Whose {
    fn pause(self) -> Pause {
        match self {
            Self::Persons => Pause::Person { by: "eve".to_owned() },
            Self::Breachs => Pause::Breach { stop: before() },
        }
    }
}

/// What comes in.
#[derive(Clone, Debug)]
enum Input {
    Asked(Verb),
    Retry,
    Promoted,
    Flipped(FlipReason),
    /// A minute, enough connections, the check passes.
    Healthy,
    /// The same, and it's the minute in which the step's time is over.
    TimeOver,
    /// The step's time is over, and there are too few connections.
    TooFew,
    /// The check can't say.
    NoAnswer,
    /// The step's time is over for `no_data_for`, and there are too few connections.
    NoData(OnNoData),
    /// The same, and the check has been bad, though not often enough.
    Doubt(OnNoData),
    /// The step's time is over for `no_data_for`, and stable fails too often to be compared with.
    StableFails(OnNoData),
    /// The canary is worse.
    Breach(Cause, OnBreach),
    Deadline(OnDeadline),
    /// Both at once: a breach counts more.
    BreachAndDeadline,
}

/// How it's known that the canary is worse.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Check,
    Comparison,
}

impl Input {
    fn all() -> Vec<Self> {
        let verbs =
            [Verb::Pause, Verb::Resume, Verb::Approve, Verb::Promote { full: false }, Verb::Promote { full: true }, Verb::Abort];
        let mut all = vec![Self::Retry, Self::Promoted, Self::Healthy, Self::TimeOver, Self::TooFew, Self::NoAnswer];
        all.extend(verbs.map(Self::Asked));
        all.extend(reasons().map(Self::Flipped));
        for policy in [OnNoData::Hold, OnNoData::Flip, OnNoData::Proceed] {
            all.extend([Self::NoData(policy), Self::Doubt(policy), Self::StableFails(policy)]);
        }
        for cause in [Cause::Check, Cause::Comparison] {
            all.extend([OnBreach::Flip, OnBreach::Pause].map(|policy| Self::Breach(cause, policy)));
        }
        all.extend([OnDeadline::Abort, OnDeadline::Flip].map(Self::Deadline));
        all.push(Self::BreachAndDeadline);
        all
    }
}

/// What follows: a phase and the canary's share in percent (none: the rollout doesn't decide), or what the refusal says.
type Follows = Result<(Phase, Option<u16>), (&'static str, &'static str)>;

const APPROVE: &str = "`splitter rollout approve` opens the gate";
const RESUME: &str = "`splitter rollout resume` first, or `promote --full`";
const RETRY: &str = "`splitter rollout retry` begins again with the first step, `splitter rollout abort` gives it up";
const START: &str = "`splitter rollout start` begins another one";

fn follows(place: Place, input: &Input) -> Follows {
    match input {
        Input::Asked(Verb::Pause) => match place {
            Place::Step => goes(Phase::Paused { step: 0, at_gate: false, why: by_alice() }, 10),
            Place::StepBeforeGate => goes(Phase::Paused { step: 1, at_gate: false, why: by_alice() }, 20),
            Place::LastStep => goes(Phase::Paused { step: 3, at_gate: false, why: by_alice() }, 40),
            Place::ManualGate => goes(Phase::Paused { step: 2, at_gate: true, why: by_alice() }, 20),
            Place::CheckGate => goes(Phase::Paused { step: 3, at_gate: true, why: by_alice() }, 30),
            Place::PausedInStep(_) | Place::PausedAtGate(_) => {
                Err(("it's paused already", "`splitter rollout resume` lets it go on"))
            }
            Place::PromotingAtEnd | Place::PromotingFromGate => being_promoted(),
            Place::Flipped => was_flipped(),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Asked(Verb::Resume) => match place {
            Place::PausedInStep(_) => goes(Phase::Stepping { step: 1 }, 20),
            Place::PausedAtGate(_) => goes(Phase::Gate { step: 3 }, 30),
            Place::Step | Place::StepBeforeGate | Place::LastStep => {
                Err(("it isn't paused", "`splitter rollout status` shows where it is"))
            }
            Place::ManualGate | Place::CheckGate => Err(("it waits at a gate, and isn't paused", APPROVE)),
            Place::PromotingAtEnd | Place::PromotingFromGate => being_promoted(),
            Place::Flipped => was_flipped(),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Asked(Verb::Approve) => match place {
            Place::ManualGate => goes(Phase::Stepping { step: 2 }, 30),
            Place::CheckGate => goes(Phase::Stepping { step: 3 }, 40),
            Place::Step | Place::StepBeforeGate | Place::LastStep => {
                Err(("it isn't at a gate", "`splitter rollout promote` leaves a step early"))
            }
            Place::PausedInStep(_) | Place::PausedAtGate(_) => Err(("it's paused", RESUME)),
            Place::PromotingAtEnd | Place::PromotingFromGate => being_promoted(),
            Place::Flipped => was_flipped(),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Asked(Verb::Promote { full: false }) => match place {
            Place::Step => goes(Phase::Stepping { step: 1 }, 20),
            Place::StepBeforeGate => goes(Phase::Gate { step: 2 }, 20),
            Place::LastStep => goes(Phase::Promoting { step: 3, at_gate: false }, 40),
            Place::ManualGate => goes(Phase::Stepping { step: 2 }, 30),
            Place::CheckGate => goes(Phase::Stepping { step: 3 }, 40),
            Place::PausedInStep(_) | Place::PausedAtGate(_) => Err(("it's paused", RESUME)),
            Place::PromotingAtEnd | Place::PromotingFromGate => being_promoted(),
            Place::Flipped => was_flipped(),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Asked(Verb::Promote { full: true }) => match place {
            Place::Step => goes(Phase::Promoting { step: 0, at_gate: false }, 10),
            Place::StepBeforeGate | Place::PausedInStep(_) => goes(Phase::Promoting { step: 1, at_gate: false }, 20),
            Place::LastStep => goes(Phase::Promoting { step: 3, at_gate: false }, 40),
            Place::ManualGate => goes(Phase::Promoting { step: 2, at_gate: true }, 20),
            Place::CheckGate | Place::PausedAtGate(_) => goes(Phase::Promoting { step: 3, at_gate: true }, 30),
            Place::PromotingAtEnd | Place::PromotingFromGate => being_promoted(),
            Place::Flipped => was_flipped(),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Asked(Verb::Abort) => match place {
            Place::Step
            | Place::StepBeforeGate
            | Place::LastStep
            | Place::ManualGate
            | Place::CheckGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::PromotingAtEnd
            | Place::PromotingFromGate
            | Place::Flipped => Ok((Phase::Aborted { why: Abort::Person { by: "alice".to_owned() } }, None)),
            Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => Err(("it's over", START)),
        },
        Input::Retry => match place {
            Place::Flipped | Place::AbortedByPerson | Place::AbortedByDeadline => goes(Phase::Stepping { step: 0 }, 10),
            Place::Promoted => Err(("it ended well: it was promoted", START)),
            Place::Step
            | Place::StepBeforeGate
            | Place::LastStep
            | Place::ManualGate
            | Place::CheckGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::PromotingAtEnd
            | Place::PromotingFromGate => Err(("it's still going on", "`splitter rollout abort` first")),
        },
        Input::Promoted => match place {
            Place::PromotingAtEnd | Place::PromotingFromGate => Ok((Phase::Promoted, None)),
            Place::Step
            | Place::StepBeforeGate
            | Place::LastStep
            | Place::ManualGate
            | Place::CheckGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::Flipped
            | Place::Promoted
            | Place::AbortedByPerson
            | Place::AbortedByDeadline => stays(place),
        },
        Input::Flipped(reason) => goes_to_stable(place, reason),
        Input::Healthy => match place {
            Place::CheckGate => goes(Phase::Stepping { step: 3 }, 40),
            Place::Step
            | Place::StepBeforeGate
            | Place::LastStep
            | Place::ManualGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::PromotingAtEnd
            | Place::PromotingFromGate
            | Place::Flipped
            | Place::Promoted
            | Place::AbortedByPerson
            | Place::AbortedByDeadline => stays(place),
        },
        Input::TimeOver => match place {
            Place::Step => goes(Phase::Stepping { step: 1 }, 20),
            Place::StepBeforeGate => goes(Phase::Gate { step: 2 }, 20),
            Place::LastStep => goes(Phase::Promoting { step: 3, at_gate: false }, 40),
            Place::CheckGate => goes(Phase::Stepping { step: 3 }, 40),
            Place::ManualGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::PromotingAtEnd
            | Place::PromotingFromGate
            | Place::Flipped
            | Place::Promoted
            | Place::AbortedByPerson
            | Place::AbortedByDeadline => stays(place),
        },
        // A gate is opened by its check alone, however few connections there are.
        Input::TooFew if place == Place::CheckGate => goes(Phase::Stepping { step: 3 }, 40),
        Input::TooFew | Input::NoAnswer | Input::Doubt(OnNoData::Hold | OnNoData::Proceed) => stays(place),
        // It neither condemns the canary nor lets it come on.
        Input::StableFails(OnNoData::Hold | OnNoData::Flip | OnNoData::Proceed) => stays(place),
        Input::NoData(policy) => match (place, policy) {
            (Place::CheckGate, OnNoData::Hold | OnNoData::Flip | OnNoData::Proceed) => goes(Phase::Stepping { step: 3 }, 40),
            (Place::Step, OnNoData::Proceed) => goes(Phase::Stepping { step: 1 }, 20),
            (Place::StepBeforeGate, OnNoData::Proceed) => goes(Phase::Gate { step: 2 }, 20),
            (Place::LastStep, OnNoData::Proceed) => goes(Phase::Promoting { step: 3, at_gate: false }, 40),
            (Place::Step | Place::StepBeforeGate | Place::LastStep, OnNoData::Flip) => {
                let what = "400 of 500 connections on stable".to_owned();
                goes_to_stable(place, &FlipReason::Rollout { why: Stop::NoData { what, waited: 5 * MINUTE } })
            }
            (Place::Step | Place::StepBeforeGate | Place::LastStep, OnNoData::Hold)
            | (
                Place::ManualGate
                | Place::PausedInStep(_)
                | Place::PausedAtGate(_)
                | Place::PromotingAtEnd
                | Place::PromotingFromGate
                | Place::Flipped
                | Place::Promoted
                | Place::AbortedByPerson
                | Place::AbortedByDeadline,
                OnNoData::Hold | OnNoData::Flip | OnNoData::Proceed,
            ) => stays(place),
        },
        Input::Doubt(OnNoData::Flip) => match place {
            Place::Step | Place::StepBeforeGate | Place::LastStep => {
                let what = "400 of 500 connections on stable".to_owned();
                goes_to_stable(place, &FlipReason::Rollout { why: Stop::NoData { what, waited: 5 * MINUTE } })
            }
            Place::ManualGate
            | Place::CheckGate
            | Place::PausedInStep(_)
            | Place::PausedAtGate(_)
            | Place::PromotingAtEnd
            | Place::PromotingFromGate
            | Place::Flipped
            | Place::Promoted
            | Place::AbortedByPerson
            | Place::AbortedByDeadline => stays(place),
        },
        Input::BreachAndDeadline => goes_to_stable(place, &FlipReason::Rollout { why: found(Cause::Check) }),
        Input::Breach(cause, OnBreach::Flip) => goes_to_stable(place, &FlipReason::Rollout { why: found(*cause) }),
        Input::Breach(cause, OnBreach::Pause) => {
            let paused = |step, at_gate| Phase::Paused { step, at_gate, why: Pause::Breach { stop: found(*cause) } };
            match place {
                Place::Step => goes(paused(0, false), 10),
                // What somebody paused for another reason is paused for this one from now on.
                Place::StepBeforeGate | Place::PausedInStep(Whose::Persons) => goes(paused(1, false), 20),
                Place::LastStep | Place::PromotingAtEnd => goes(paused(3, false), 40),
                Place::ManualGate | Place::PromotingFromGate => goes(paused(2, true), 20),
                Place::CheckGate | Place::PausedAtGate(Whose::Persons) => goes(paused(3, true), 30),
                Place::PausedInStep(Whose::Breachs)
                | Place::PausedAtGate(Whose::Breachs)
                | Place::Flipped
                | Place::Promoted
                | Place::AbortedByPerson
                | Place::AbortedByDeadline => stays(place),
            }
        }
        Input::Deadline(OnDeadline::Flip) => {
            goes_to_stable(place, &FlipReason::Rollout { why: Stop::Deadline { after: plan().deadline } })
        }
        Input::Deadline(OnDeadline::Abort) => match place.step() {
            Some(_) => Ok((Phase::Aborted { why: Abort::Deadline { after: plan().deadline } }, None)),
            None => stays(place),
        },
    }
}

#[test]
fn every_input_in_every_state_leads_where_the_table_says() {
    for place in Place::ALL {
        for input in Input::all() {
            let before = at(place, &input);
            let after = comes(&before, &input);
            let found = after.as_ref().map(|run| (run.phase.clone(), weight_of(run))).map_err(|no| (no.why.as_str(), no.remedy));
            let expected = follows(place, &input).map(|(phase, weight)| (phase, weight.map(percent)));
            assert_eq!(found, expected, "{input:?} at {place:?}");

            let Ok(after) = after else { continue };
            if after.phase == before.phase {
                assert_eq!(after.log, before.log, "{input:?} at {place:?}: nothing happened, so nothing is noted");
            } else if after.id == before.id {
                assert_eq!(after.log[..before.log.len()], before.log, "{input:?} at {place:?}");
                assert!(after.log.len() > before.log.len(), "{input:?} at {place:?} left no trace");
            }
        }
    }
}

#[test]
fn a_move_that_is_not_due_any_more_changes_nothing() {
    for place in Place::ALL {
        let run = at(place, &Input::Healthy);
        for due in [Move::Next, Move::Open] {
            assert_eq!(moved(&run, &due, AT), run, "{due:?} at {place:?}");
        }
        if matches!(place, Place::PausedInStep(Whose::Breachs) | Place::PausedAtGate(Whose::Breachs)) || place.step().is_none() {
            assert_eq!(moved(&run, &Move::Pause(found(Cause::Check)), AT), run, "at {place:?}");
        }
        if place.step().is_none() {
            for due in [Move::Flip(found(Cause::Check)), Move::Abort(Abort::Deadline { after: MINUTE })] {
                assert_eq!(moved(&run, &due, AT), run, "{due:?} at {place:?}");
            }
        }
    }
}

#[test]
fn the_table_has_a_place_for_each_phase() {
    for place in Place::ALL {
        let of = |other: &Place| std::mem::discriminant(&other.phase()) == std::mem::discriminant(&place.phase());
        assert_eq!(Place::ALL.iter().filter(|other| of(other)).count(), Place::places(&place.phase()), "{place:?}");
    }
}

/// A rollout at that place, with a minute left of its step, or as the input wants it.
fn at(place: Place, input: &Input) -> Run {
    let mut plan = plan();
    let (mut in_step, mut age) = (9 * MINUTE, 20 * MINUTE);
    match input {
        Input::NoData(policy) | Input::Doubt(policy) => {
            plan.on_no_data = *policy;
            in_step = 14 * MINUTE;
        }
        Input::StableFails(policy) => {
            plan.on_no_data = *policy;
            plan.compare = Some(compare());
            in_step = 14 * MINUTE;
        }
        Input::Healthy => in_step = 8 * MINUTE,
        Input::Breach(Cause::Check, policy) => plan.on_breach = *policy,
        Input::Breach(Cause::Comparison, policy) => {
            plan.on_breach = *policy;
            plan.compare = Some(compare());
        }
        Input::Deadline(policy) => {
            plan.on_deadline = *policy;
            age = plan.deadline - MINUTE;
        }
        Input::BreachAndDeadline => age = plan.deadline - MINUTE,
        Input::Asked(_) | Input::Retry | Input::Promoted | Input::Flipped(_) => {}
        Input::TimeOver | Input::TooFew | Input::NoAnswer => {}
    }
    let mut run = start(7, &plan, "eve", AT);
    run.phase = place.phase();
    run.progress.in_step = in_step;
    run.progress.age = age;
    run
}

fn comes(run: &Run, input: &Input) -> Result<Run, Cannot> {
    let smoke = |all: &[Answer]| answers("smoke", all.iter().cloned());
    let (seen, answers) = match input {
        Input::Asked(verb) => return ask(run, *verb, "alice", AT),
        Input::Retry => return retry(run, 8, &plan(), "alice", AT),
        Input::Promoted => return Ok(promoted(run, AT)),
        Input::Flipped(reason) => return Ok(flipped(run, reason, AT)),
        Input::Healthy | Input::TimeOver => (connections(500), smoke(&[pass()])),
        Input::TooFew | Input::NoData(_) => (connections(400), smoke(&[pass()])),
        Input::NoAnswer => (connections(500), smoke(&[no_data()])),
        Input::Doubt(_) => (connections(400), smoke(&[bad()])),
        Input::StableFails(_) => (stable_fails(), smoke(&[pass()])),
        Input::Deadline(_) => (connections(0), Vec::new()),
        Input::Breach(Cause::Comparison, _) => (worse(), smoke(&[pass()])),
        Input::Breach(Cause::Check, _) | Input::BreachAndDeadline => (connections(500), smoke(&[bad(), bad()])),
    };
    let mut next = run.clone();
    let due = look(&mut next, &Look { elapsed: MINUTE, seen, answers });
    assert_eq!((&next.phase, &next.log), (&run.phase, &run.log), "a look changes nothing but what was measured");
    Ok(due.map_or_else(|| next.clone(), |due| moved(&next, &due, AT)))
}

fn found(cause: Cause) -> Stop {
    match cause {
        Cause::Check => Stop::Check { name: "smoke".to_owned(), said: "0.2 is above 0.01".to_owned() },
        Cause::Comparison => {
            let mut comparison = Comparison::new(&compare());
            comparison.observe(&worse(), MINUTE);
            let Standing::Worse(difference) = comparison.standing() else { panic!("{comparison:?}") };
            Stop::Worse { difference }
        }
    }
}

/// What a rollout was paused for before.
fn before() -> Stop {
    Stop::Check { name: "smoke".to_owned(), said: "as bad before".to_owned() }
}

fn goes(phase: Phase, percent: u16) -> Follows {
    Ok((phase, Some(percent)))
}

fn goes_to_stable(place: Place, reason: &FlipReason) -> Follows {
    match place.step() {
        Some((step, _)) => goes(Phase::Flipped { step, reason: Box::new(reason.clone()) }, 0),
        None => stays(place),
    }
}

fn stays(place: Place) -> Follows {
    let weight = match place {
        Place::Step => Some(10),
        Place::StepBeforeGate | Place::PausedInStep(_) | Place::ManualGate | Place::PromotingFromGate => Some(20),
        Place::CheckGate | Place::PausedAtGate(_) => Some(30),
        Place::LastStep | Place::PromotingAtEnd => Some(40),
        Place::Flipped => Some(0),
        Place::Promoted | Place::AbortedByPerson | Place::AbortedByDeadline => None,
    };
    Ok((place.phase(), weight))
}

fn being_promoted() -> Follows {
    Err(("it's being promoted", "wait for it, or `splitter rollout abort`"))
}

fn was_flipped() -> Follows {
    Err(("it was flipped: everything goes to stable", RETRY))
}

fn by_alice() -> Pause {
    Pause::Person { by: "alice".to_owned() }
}

fn person() -> FlipReason {
    FlipReason::Person { text: None }
}

/// One of each kind.
fn reasons() -> [FlipReason; 7] {
    let sample = Sample { failures: 9, attempts: 90 };
    let finding =
        Finding { check: Limit::Refused, canary: sample, stable: sample, limit: percent(5), window: Duration::from_secs(10) };
    let tripped = TripFinding {
        cause: TripCause::Refused,
        tripped_at: AT,
        limit: percent(5),
        canary: TripTally::default(),
        stable: TripTally::default(),
    };
    let reasons = [
        person(),
        FlipReason::Breach { finding },
        FlipReason::Breaker { finding: tripped },
        FlipReason::Lease { since: AT, lasted: MINUTE },
        FlipReason::StateLost { kept_as: "/s/state.json.damaged-1".into() },
        FlipReason::Rollout { why: found(Cause::Check) },
        FlipReason::Found,
    ];
    // A new kind doesn't compile here: add it above.
    for reason in &reasons {
        match reason {
            FlipReason::Person { .. }
            | FlipReason::Breach { .. }
            | FlipReason::Breaker { .. }
            | FlipReason::Lease { .. }
            | FlipReason::StateLost { .. }
            | FlipReason::Rollout { .. }
            | FlipReason::Found => {}
        }
    }
    reasons
}
