//! What is asked of a rollout, and what it does by itself: a state becomes another, or is refused.

use super::{
    command::{Origin, Refusal, change, change_unchecked, flip, has_ended},
    merge,
};
use crate::{
    config::Config,
    controller::rollout::{self, Cannot, Move, Verb},
    model::{Cohort, Plan, Service, ServiceName, Weight},
    store::{
        AskedBackendWeight, AskedWeight, BackendOverlay, EventKind, FlipReason, Phase, PromotedBackend, Run, ServiceState, State,
    },
};

/// Begins a rollout by the configured plan. Backends that the last promotion took out of use get connections again.
///
/// # Errors
/// The service isn't known, has no plan or no canary, is flipped, or has a rollout that isn't over.
pub fn start_rollout(config: &Config, state: &State, service: &ServiceName, origin: Origin<'_>) -> Result<State, Refusal> {
    let id = state.rollouts + 1;
    let next = change(config, state, service, origin, |configured, _, asked| {
        has_ended(service, asked)?;
        if let Some(flip) = &asked.flip {
            return Err(Refusal::FlippedAlready { service: service.clone(), flip: Box::new(flip.clone()) });
        }
        begin(service, configured, asked, |plan| Ok(rollout::start(id, plan, origin.by, origin.at)))?;
        Ok(None)
    })?;
    Ok(counted(next, id, service, origin))
}

/// Takes a flip back and begins again with the first step, or begins again after an abort.
///
/// # Errors
/// The service isn't known, has no plan or no canary, or its rollout is going on or ended well.
pub fn retry_rollout(config: &Config, state: &State, service: &ServiceName, origin: Origin<'_>) -> Result<State, Refusal> {
    let id = state.rollouts + 1;
    let next = change(config, state, service, origin, |configured, _, asked| {
        let run = known(service, asked)?.clone();
        if run.is_over()
            && let Some(flip) = &asked.flip
        {
            return Err(Refusal::FlippedAlready { service: service.clone(), flip: Box::new(flip.clone()) });
        }
        let flip = asked.flip.take();
        begin(service, configured, asked, |plan| rollout::retry(&run, id, plan, origin.by, origin.at))?;
        Ok(flip.map(|_| lifted(asked, origin)))
    })?;
    Ok(counted(next, id, service, origin))
}

/// Carries out what somebody asks of a service's rollout.
///
/// # Errors
/// The service isn't known or has no rollout, or it can't be done as things stand.
pub fn ask_rollout(
    config: &Config,
    state: &State,
    service: &ServiceName,
    verb: Verb,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    transition(config, state, service, origin, |run| rollout::ask(run, verb, origin.by, origin.at))
}

/// Makes a move that is due. One that isn't any more changes nothing; a flip is the service's as well.
///
/// # Errors
/// The service isn't known, or has no rollout.
pub fn move_rollout(
    config: &Config,
    state: &State,
    service: &ServiceName,
    due: &Move,
    origin: Origin<'_>,
) -> Result<State, Refusal> {
    let run = state.service(service).and_then(|asked| asked.rollout.as_deref());
    if let (Move::Flip(why), Some(run)) = (due, run)
        && rollout::is_active(&run.phase)
    {
        return flip(config, state, service, FlipReason::Rollout { why: why.clone() }, run.plan.existing, origin);
    }
    transition(config, state, service, origin, |run| Ok(rollout::moved(run, due, origin.at)))
}

/// Makes the canary's backends stable, in one change, if the rollout is being promoted; those that were stable are the canary's from now on, and get no new connections until
/// the next rollout begins.
///
/// # Errors
/// The service isn't known or has no rollout, or can't be without its stable backends by the rules.
pub fn promote_rollout(config: &Config, state: &State, service: &ServiceName, origin: Origin<'_>) -> Result<State, Refusal> {
    let next = change(config, state, service, origin, |configured, effective, asked| {
        let run = rollout::promoted(known(service, asked)?, origin.at);
        if run.phase == Phase::Promoted {
            swap(configured, effective, &mut asked.backends);
            asked.weight = no_weight(configured);
        }
        asked.rollout = Some(Box::new(run));
        Ok(None)
    })?;
    Ok(told(state, next, service, origin))
}

/// One state of a rollout becomes another.
fn transition(
    config: &Config,
    state: &State,
    service: &ServiceName,
    origin: Origin<'_>,
    step: impl FnOnce(&Run) -> Result<Run, Cannot>,
) -> Result<State, Refusal> {
    // No rule may stand in the way of an end.
    let next = change_unchecked(config, state, service, origin, |configured, _, asked| {
        let before = known(service, asked)?.clone();
        let cannot = |cannot| Refusal::Rollout { service: service.clone(), id: before.id, cannot };
        let run = step(&before).map_err(cannot)?;
        let ends = run.is_over() && !before.is_over();
        asked.rollout = Some(Box::new(run));
        if ends {
            asked.weight = no_weight(configured);
        }
        let flip = if ends && matches!(before.phase, Phase::Flipped { .. }) { asked.flip.take() } else { None };
        Ok(flip.map(|_| lifted(asked, origin)))
    })?;
    Ok(told(state, next, service, origin))
}

fn begin(
    name: &ServiceName,
    configured: &Service,
    asked: &mut ServiceState,
    make: impl FnOnce(&Plan) -> Result<Run, Cannot>,
) -> Result<(), Refusal> {
    let plan = configured.rollout.as_ref().ok_or_else(|| Refusal::NoPlan { service: name.clone() })?;
    for retired in std::mem::take(&mut asked.backends.retired) {
        asked.backends.draining.remove(&retired);
    }
    let effective = merge(configured, Some(asked));
    if !effective.backends.iter().any(|backend| backend.cohort == Cohort::Canary && !backend.draining) {
        return Err(Refusal::NoCanary { service: name.clone() });
    }
    let id = asked.rollout.as_ref().map_or(0, |run| run.id);
    let run = make(plan).map_err(|cannot| Refusal::Rollout { service: name.clone(), id, cannot })?;
    asked.begin(run);
    Ok(())
}

/// What tells that a flip ended with what was decided about its rollout.
fn lifted(asked: &ServiceState, origin: Origin<'_>) -> EventKind {
    let weight = asked.rollout.as_deref().and_then(rollout::weight_of).unwrap_or(Weight::ZERO);
    EventKind::Unflipped { weight, by: origin.by.to_owned() }
}

fn known<'a>(name: &ServiceName, asked: &'a ServiceState) -> Result<&'a Run, Refusal> {
    asked.rollout.as_deref().ok_or_else(|| Refusal::NoRollout { service: name.clone() })
}

/// Every backend into the other cohort. Those that were stable get no new connections.
fn swap(configured: &Service, effective: &Service, overlay: &mut BackendOverlay) {
    overlay.retired.clear();
    for backend in &effective.backends {
        let to = match backend.cohort {
            Cohort::Stable => Cohort::Canary,
            Cohort::Canary => Cohort::Stable,
        };
        let own = configured.backends.iter().find(|own| own.address == backend.address);
        if let Some(added) = overlay.added.get_mut(&backend.address) {
            added.cohort = to;
            // Removed once, added to the other cohort, and now where the configuration has it: it's the configuration's again.
            if let Some(own) = own.filter(|own| own.cohort == to) {
                let weight = added.weight;
                overlay.added.remove(&backend.address);
                overlay.removed.remove(&backend.address);
                if weight != own.weight {
                    overlay.weights.insert(backend.address, AskedBackendWeight { weight, configured: own.weight });
                }
            }
        } else if let Some(own) = own {
            overlay.promoted.remove(&backend.address);
            if own.cohort != to {
                overlay.promoted.insert(backend.address, PromotedBackend { cohort: to, configured: own.cohort });
            }
        }
        if to == Cohort::Canary && overlay.draining.insert(backend.address) {
            overlay.retired.insert(backend.address);
        }
    }
}

/// The weight of a service without a rollout, after one.
fn no_weight(configured: &Service) -> Option<AskedWeight> {
    let none = AskedWeight { weight: Weight::ZERO, configured: configured.weight };
    (configured.weight != Weight::ZERO).then_some(none)
}

fn counted(mut next: State, id: u64, service: &ServiceName, origin: Origin<'_>) -> State {
    next.rollouts = id;
    told(&State::default(), next, service, origin)
}

/// Notes as events what is new in a rollout's log.
pub(super) fn told(before: &State, mut next: State, service: &ServiceName, origin: Origin<'_>) -> State {
    let run = |state: &State| state.service(service).and_then(|asked| asked.rollout.clone());
    let Some(after) = run(&next) else { return next };
    let last = run(before).filter(|before| before.id == after.id).and_then(|before| before.log.last().cloned());
    let known = last.and_then(|last| after.log.iter().rposition(|entry| *entry == last)).map_or(0, |at| at + 1);
    for entry in after.log.into_iter().skip(known) {
        next.record(origin.at, Some(service.clone()), EventKind::Rollout { rollout: after.id, what: entry.what });
    }
    next
}
