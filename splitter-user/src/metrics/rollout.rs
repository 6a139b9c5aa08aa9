//! What the table reads of rollouts.

use super::{
    snapshot::Snapshot,
    table::{Sample, Value, whole},
};
use crate::api::wire::{AnswerWord, DifferenceStatus, RolloutPhase, RolloutStatus, VerdictWord};

pub(super) fn phases(now: &Snapshot) -> Vec<Sample> {
    let each = rollouts(now).flat_map(|rollout| RolloutPhase::ALL.map(|phase| (rollout, phase)));
    each.map(|(rollout, phase)| one_of(rollout, phase.as_str(), rollout.phase == phase)).collect()
}

pub(super) fn step(now: &Snapshot) -> Vec<Sample> {
    let known = rollouts(now).filter_map(|rollout| Some((rollout, rollout.step?)));
    known.map(|(rollout, step)| whole([rollout.service.to_string()], step as u64)).collect()
}

pub(super) fn steps(now: &Snapshot) -> Vec<Sample> {
    rollouts(now).map(|rollout| whole([rollout.service.to_string()], rollout.of as u64)).collect()
}

pub(super) fn overdue(now: &Snapshot) -> Vec<Sample> {
    let over = |rollout: &RolloutStatus| Some(rollout.in_step_ms?.saturating_sub(rollout.step_lasts_ms?));
    #[expect(clippy::cast_precision_loss, reason = "a time that needs more digits takes 285,000 years")]
    let read = rollouts(now).filter_map(|rollout| Some(real([rollout.service.to_string()], over(rollout)? as f64 / 1_000.0)));
    read.collect()
}

pub(super) fn weight(now: &Snapshot) -> Vec<Sample> {
    rollouts(now).filter_map(|rollout| Some(real([rollout.service.to_string()], rollout.weight.0?.fraction()))).collect()
}

pub(super) fn verdicts(now: &Snapshot) -> Vec<Sample> {
    let known = rollouts(now).filter_map(|rollout| Some((rollout, rollout.verdict.as_ref()?.word)));
    let each = known.flat_map(|(rollout, said)| VerdictWord::ALL.map(|word| one_of(rollout, word.as_str(), said == word)));
    each.collect()
}

pub(super) fn evidence(now: &Snapshot) -> Vec<Sample> {
    differences(now, |difference| difference.evidence)
}

pub(super) fn proof(now: &Snapshot) -> Vec<Sample> {
    differences(now, |difference| difference.proof)
}

pub(super) fn checks(now: &Snapshot) -> Vec<Sample> {
    let each = rollouts(now).flat_map(|rollout| rollout.checks.iter().map(move |check| (rollout, check)));
    let known = each.filter_map(|(rollout, check)| {
        let passes = match check.answer? {
            AnswerWord::Pass => true,
            AnswerWord::Bad => false,
            AnswerWord::NoData => return None,
        };
        Some(one_of(rollout, &check.name, passes))
    });
    known.collect()
}

fn rollouts(now: &Snapshot) -> impl Iterator<Item = &RolloutStatus> {
    now.services.iter().filter_map(|service| service.rollout.as_ref())
}

fn differences(now: &Snapshot, read: impl Fn(&DifferenceStatus) -> f64) -> Vec<Sample> {
    let each = rollouts(now).flat_map(|rollout| rollout.differences.iter().map(move |difference| (rollout, difference)));
    each.map(|(rollout, difference)| real([rollout.service.to_string(), difference.what.as_str().to_owned()], read(difference)))
        .collect()
}

fn one_of(rollout: &RolloutStatus, label: &str, is: bool) -> Sample {
    whole([rollout.service.to_string(), label.to_owned()], is.into())
}

fn real<const N: usize>(labels: [String; N], value: f64) -> Sample {
    Sample { labels: labels.into(), value: Value::Real(value) }
}
