//! Rollouts as they go: what is measured is handed to the pure state machine, and what it says is due is done.
//!
//! A flip is in force before it's kept, like any other. Every other move is kept before it's in force, like what people ask: an agent that ends in between goes on with the move or before
//! it. What was measured goes on in memory, and is kept every few seconds; what an agent that was killed had measured since is forgotten, which costs evidence and never makes any.

use std::{
    collections::hash_map::Entry,
    time::{Duration, Instant},
};

use super::{
    clock::Moment,
    core::{AGENT, Core, key},
    keep::{Asked, Change},
    observe::counts,
};
use crate::{
    api::command::{CommandError, CommandErrorKind, CommandResult},
    checks::{Context, Counts, Said, Wanted},
    config::Config,
    controller::{
        Buckets, Cohorts, KINDS, Meter, Seen, Tally,
        rollout::{self, Look, Move},
    },
    dataplane::{CohortTimes, ServiceSample},
    desired::{self, Origin, Refusal},
    model::{Cohort, ServiceName},
    store::{Answer, FlipReason, Phase, Run, State},
};

/// How often what was measured is kept.
const KEEP: Duration = Duration::from_secs(5);

/// After a move that could not be made, the next try waits so long.
const AGAIN: Duration = Duration::from_secs(1);

/// More time than this between two looks doesn't count: nobody looked. At least three samples.
const LONGEST: Duration = Duration::from_secs(1);

/// What is measured for one rollout, and what is under way.
#[derive(Debug)]
pub(super) struct Conductor {
    /// The rollout.
    id: u64,
    meter: Meter,
    times: Option<Cohorts<[Vec<u64>; KINDS]>>,
    looked_at: Instant,
    /// Until then nothing counts: attempts that the canary was given before the rollout began may time out, and nothing that it was given completes with them.
    settles_at: Instant,
    /// What checks have answered since the last look.
    answers: Vec<(String, Answer)>,
    kept_at: Instant,
    /// Why the move that is due could not be made, and when that was tried.
    pub(super) stuck: Option<(Instant, String)>,
}

impl Conductor {
    /// For a rollout that begins, or that an agent finds going.
    fn new(run: &Run, sample: &ServiceSample, connect: Duration, now: Instant) -> Self {
        let mut canary = counts(sample).into_values().filter(|count| count.cohort == Cohort::Canary);
        let under_way = canary.any(|count| count.tally.opened > count.tally.resolved());
        let begins = run.progress.age.is_zero();
        Self {
            id: run.id,
            meter: Meter::default(),
            times: None,
            looked_at: now,
            settles_at: if begins && under_way { now + connect } else { now },
            answers: Vec::new(),
            kept_at: now,
            stuck: None,
        }
    }

    /// What happened since the look before.
    fn look(&mut self, sample: &ServiceSample, longest: Duration, now: Instant) -> Look {
        let gap = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        let tallies = self.meter.read(&counts(sample));
        let read = |times: &CohortTimes| [times.handshake.counts.clone(), times.first_response.counts.clone()];
        let times = Cohorts { stable: read(&sample.times.stable), canary: read(&sample.times.canary) };
        let mut seen = Cohorts::<Seen>::default();
        for cohort in Cohort::ALL {
            seen[cohort].tally = tallies[cohort];
            // Of what was there at the first look nobody knows when it happened.
            if let Some(before) = &self.times {
                for (kind, buckets) in seen[cohort].times.iter_mut().enumerate() {
                    *buckets = Buckets::since(&times[cohort][kind], &before[cohort][kind]);
                }
            }
        }
        self.times = Some(times);
        // Of what happened while nobody looked it isn't known when, and at which weight.
        if gap > longest || now < self.settles_at {
            seen = Cohorts::default();
        }
        Look { elapsed: gap.min(longest), seen, answers: std::mem::take(&mut self.answers) }
    }
}

impl Core {
    /// Looks at every rollout that is going on, and does what is due.
    pub(super) fn conduct(&mut self, now: Moment) {
        let active = |core: &Self, name: &ServiceName| core.run(name).is_some_and(|run| rollout::is_active(&run.phase));
        let names: Vec<ServiceName> = self.desired.iter().map(|desired| desired.service.name.clone()).collect();
        let (names, over): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| active(self, name));
        for name in &over {
            self.conductors.remove(name);
        }
        for name in &names {
            let due = self.look_at(name, now);
            self.follow_ramp(name);
            if let Some(due) = due {
                self.make(name, due, now);
            }
        }
        self.want_checks(&names);
    }

    /// The rollout that is going on, or the last one.
    pub(super) fn run(&self, name: &ServiceName) -> Option<&Run> {
        self.state.service(name)?.rollout.as_deref()
    }

    /// A check has answered. Of a rollout that isn't going on any more nobody wants to know.
    pub(super) fn answered(&mut self, said: Said) {
        let Said { service, rollout, check, answer } = said;
        if let Some(conductor) = self.conductors.get_mut(&service).filter(|conductor| conductor.id == rollout) {
            conductor.answers.push((check, answer));
        }
    }

    /// Says what is to be checked now.
    fn want_checks(&self, names: &[ServiceName]) {
        let wanted = names.iter().filter_map(|name| Some((name, self.run(name)?))).flat_map(|(name, run)| {
            run.plan.checks.iter().map(move |check| Wanted {
                service: name.clone(),
                rollout: run.id,
                check: check.clone(),
                context: context(name, run, &check.name),
            })
        });
        let wanted: Vec<Wanted> = wanted.collect();
        self.published.checks.send_if_modified(|before| {
            let differs = *before != wanted;
            if differs {
                *before = wanted;
            }
            differs
        });
    }

    /// Measures, and says what is due.
    fn look_at(&mut self, name: &ServiceName, now: Moment) -> Option<Due> {
        let longest = LONGEST.max(self.config.agent.sample_interval * 3);
        let Self { desired, sample, conductors, state, unsaved, .. } = self;
        let service = &desired.iter().find(|desired| desired.service.name == *name)?.service;
        let run = state.services.get_mut(name)?.rollout.as_deref_mut()?;
        let nothing = ServiceSample::default();
        let sample = sample.services.get(&key(service)).unwrap_or(&nothing);
        let fresh = || Conductor::new(run, sample, service.timeouts.connect, now.instant);
        let conductor = match conductors.entry(name.clone()) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                if known.id != run.id {
                    *known = fresh();
                }
                known
            }
            Entry::Vacant(place) => place.insert(fresh()),
        };
        let due = rollout::look(run, &conductor.look(sample, longest, now.instant));
        if now.instant.saturating_duration_since(conductor.kept_at) >= KEEP {
            conductor.kept_at = now.instant;
            unsaved.note();
        }
        match due {
            Some(due) => Some(Due::Move(due)),
            None if matches!(run.phase, Phase::Promoting { .. }) => Some(Due::Promotion),
            None => None,
        }
    }

    /// A ramp's weight goes with the time.
    fn follow_ramp(&mut self, name: &ServiceName) {
        let Some(weight) = self.run(name).and_then(rollout::weight_of) else { return };
        let Some(desired) = self.desired.iter_mut().find(|desired| desired.service.name == *name) else { return };
        if desired.flip.is_some() || desired.service.weight == weight {
            return;
        }
        (desired.service.weight, desired.weight_in_force) = (weight, weight);
        let desired = desired.clone();
        if let Err(error) = self.steer(name, std::slice::from_ref(&desired)) {
            tracing::error!(service = %name, %weight, %error, "a rollout's weight could not be put in force; it is tried again every second");
            self.not_applied = Some(error.to_string());
        }
    }

    fn make(&mut self, name: &ServiceName, due: Due, now: Moment) {
        match due {
            Due::Move(Move::Flip(why)) => {
                let Some(existing) = self.run(name).map(|run| run.plan.existing) else { return };
                self.flip_by_itself(name, FlipReason::Rollout { why }, existing, now);
            }
            Due::Move(due @ (Move::Next | Move::Open | Move::Pause(_) | Move::Abort(_))) => {
                self.change_by_itself(name, now, move |config, state, name, origin| {
                    desired::move_rollout(config, state, name, &due, origin)
                });
            }
            Due::Promotion => self.change_by_itself(name, now, desired::promote_rollout),
        }
    }

    /// Makes a change that nobody asked for, unless another one is under way: it's found due again with the next look.
    fn change_by_itself(
        &mut self,
        name: &ServiceName,
        now: Moment,
        ask: impl Fn(&Config, &State, &ServiceName, Origin<'_>) -> Result<State, Refusal> + Send + 'static,
    ) {
        let waits = |(tried, _): &(Instant, String)| now.instant.saturating_duration_since(*tried) < AGAIN;
        if self.waiting.is_some()
            || self.conductors.get(name).is_some_and(|conductor| conductor.stuck.as_ref().is_some_and(waits))
        {
            return;
        }
        let Some(expected) = self.run(name).map(|run| (run.id, run.phase.clone())) else { return };
        let (of, from) = (name.clone(), expected.clone());
        let propose = move |core: &Core, now: Moment| -> CommandResult<Asked> {
            if !core.is_at(&of, &from) {
                return Err(CommandError::new(CommandErrorKind::Conflict, "somebody else has moved the rollout meanwhile"));
            }
            core.asked(now, AGENT, |config, state, origin| ask(config, state, &of, origin))
        };
        let of = name.clone();
        let done =
            move |core: &mut Core, result: CommandResult<Option<Config>>, now: Moment| core.tell_made(&of, result.err(), now);
        self.begin_change(Change { propose: Box::new(propose), done: Box::new(done) }, now);
    }

    fn is_at(&self, name: &ServiceName, expected: &(u64, Phase)) -> bool {
        self.run(name).is_some_and(|run| (run.id, &run.phase) == (expected.0, &expected.1))
    }

    /// Says that a move could not be made, once for each reason.
    fn tell_made(&mut self, name: &ServiceName, error: Option<CommandError>, now: Moment) {
        let Some(conductor) = self.conductors.get_mut(name) else { return };
        let Some(error) = error else {
            conductor.stuck = None;
            return;
        };
        if conductor.stuck.as_ref().is_none_or(|(_, why)| *why != error.message) {
            tracing::error!(service = %name, %error, "the rollout can't go on; it's tried again every second");
        }
        conductor.stuck = Some((now.instant, error.message));
    }

    /// What was measured meanwhile isn't undone by a change that was made from an earlier state.
    pub(super) fn carry_progress(&self, next: &mut State) {
        for (name, asked) in &mut next.services {
            if let (Some(after), Some(before)) = (asked.rollout.as_deref_mut(), self.run(name)) {
                rollout::carry(before, after);
            }
        }
    }
}

/// What a webhook is told.
fn context(name: &ServiceName, run: &Run, check: &str) -> Context {
    let counts = |tally: Tally| Counts { attempts: tally.resolved(), failed: tally.refused.saturating_add(tally.timed_out) };
    Context {
        service: name.to_string(),
        rollout: run.id,
        step: rollout::step_of(&run.phase).map_or(0, |step| step + 1),
        of: run.plan.steps.len(),
        weight_bp: rollout::weight_of(run).unwrap_or_default().basis_points(),
        check: check.to_owned(),
        canary: counts(run.progress.step.canary),
        stable: counts(run.progress.step.stable),
    }
}

/// What is due.
#[derive(Debug)]
enum Due {
    /// A move of the state machine.
    Move(Move),
    /// The canary's backends are to be stable.
    Promotion,
}
