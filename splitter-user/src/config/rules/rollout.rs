//! What must hold between the values of a rollout's plan.

use std::{collections::HashMap, time::Duration};

use super::{Draft, Part, Rule};
use crate::model::{Check, Gate, Mode, Plan, Probe, Protocol, Step, Weight};

/// More steps than this are a ramp.
const MAX_STEPS: usize = 100;

/// A plan as far as it is known.
#[derive(Clone, Debug)]
pub struct DraftPlan {
    /// Its steps, each with its number from 0.
    pub steps: Vec<(usize, Step)>,
    /// Some of them could not be read.
    pub steps_unknown: bool,
    /// How many connections a verdict needs.
    pub min_connections: Option<u64>,
    /// How long the rollout may take.
    pub deadline: Option<Duration>,
    /// Whether the canary is held against stable.
    pub compares: Option<bool>,
    /// Its checks, each with its number from 0.
    pub checks: Vec<(usize, Check)>,
    /// Some of them could not be read.
    pub checks_unknown: bool,
}

impl From<&Plan> for DraftPlan {
    fn from(plan: &Plan) -> Self {
        Self {
            steps: plan.steps.iter().cloned().enumerate().collect(),
            steps_unknown: false,
            min_connections: Some(plan.min_connections),
            deadline: Some(plan.deadline),
            compares: Some(plan.compare.is_some()),
            checks: plan.checks.iter().cloned().enumerate().collect(),
            checks_unknown: false,
        }
    }
}

pub(super) fn rollout(draft: &Draft, plan: &DraftPlan, add: &mut impl FnMut(Part, Rule)) {
    steps(plan, add);
    gates(plan, add);
    checks(plan, add);
    let take = plan.steps.iter().map(|(_, step)| step.lasts).sum();
    // When both come together it's the deadline that counts.
    if let Some(deadline) = plan.deadline.filter(|deadline| *deadline <= take && !plan.steps_unknown) {
        add(Part::Key("rollout.deadline"), Rule::DeadlineTooShort { deadline, take });
    }
    if (draft.protocol, draft.mode) == (Some(Protocol::Udp), Some(Mode::Dsr)) {
        if plan.compares == Some(true) {
            add(Part::Key("rollout.compare"), Rule::CompareInUdpDsr);
        }
        if plan.min_connections.is_some_and(|wanted| wanted > 0) {
            add(Part::Key("rollout.min_connections"), Rule::ConnectionsInUdpDsr);
        }
    }
}

fn steps(plan: &DraftPlan, add: &mut impl FnMut(Part, Rule)) {
    if plan.steps.is_empty() && !plan.steps_unknown {
        add(Part::Key("rollout.steps"), Rule::NoSteps);
    }
    // Numbers count those that could not be read as well.
    let count = plan.steps.last().map_or(0, |(index, _)| index + 1);
    if count > MAX_STEPS {
        add(Part::Key("rollout.steps"), Rule::TooManySteps { count, most: MAX_STEPS });
    }
    let mut before: Option<&(usize, Step)> = None;
    for numbered in &plan.steps {
        let (index, step) = numbered;
        let neighbour = before.filter(|(other, _)| other + 1 == *index).map(|(_, step)| step.weight);
        before = Some(numbered);
        let part = Part::Step { index: *index };
        if *index == 0 && step.weight == Weight::ZERO {
            add(part, Rule::FirstStepIsNothing);
        } else if let Some(from) = step.from.filter(|from| *from >= step.weight) {
            add(part, Rule::RampFalls { from, to: step.weight, lasts: step.lasts });
        } else if let Some(from) = neighbour.filter(|before| *before > step.weight) {
            add(part, Rule::WeightFalls { from, to: step.weight });
        } else if let Some((from, before)) = step.from.zip(neighbour).filter(|(from, before)| from < before) {
            add(part, Rule::RampBeginsBelow { from, before });
        }
    }
}

fn gates(plan: &DraftPlan, add: &mut impl FnMut(Part, Rule)) {
    if plan.checks_unknown {
        return;
    }
    for (index, step) in &plan.steps {
        let Some(Gate::Check(name)) = &step.gate else { continue };
        if plan.checks.iter().all(|(_, check)| check.name != *name) {
            add(Part::Step { index: *index }, Rule::UnknownGateCheck { name: name.clone() });
        }
    }
}

fn checks(plan: &DraftPlan, add: &mut impl FnMut(Part, Rule)) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, check) in &plan.checks {
        let part = Part::Check { index: *index };
        if let Some(first) = names.get(check.name.as_str()) {
            add(part, Rule::CheckTwice { name: check.name.clone(), first: first + 1 });
        } else {
            names.insert(&check.name, *index);
        }
        if check.timeout > check.interval {
            add(part, Rule::TimeoutAboveInterval { timeout: check.timeout, interval: check.interval });
        }
        match check.probe {
            Probe::PromQl { max: None, min: None, .. } => add(part, Rule::NoBound),
            Probe::PromQl { max: Some(max), min: Some(min), .. } if max < min => {
                add(part, Rule::NothingPasses { max: max.to_string(), min: min.to_string() });
            }
            Probe::PromQl { .. } | Probe::Webhook { .. } => {}
        }
    }
}
