//! Rollouts as they are asked for and told through the socket.

use super::{
    code,
    rig::{CONFIG, Rig, name, percent},
};
use crate::{
    api::{
        fake::rollout::{asked, healthy},
        wire::{ErrorCode, PromoteRequest, RolloutAction, RolloutPhase, RolloutWord, WeightSource},
    },
    controller::rollout::Verb,
    model::Weight,
    store::{Phase, ServiceState, State, encode},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_rollout_is_kept_and_in_force_when_it_is_acknowledged() {
    let rig = Rig::start_with(CONFIG, |store, _| store.put(paused())).await;
    let (client, web) = (rig.client(), name("web"));
    let told = client.rollout(&web).await.expect("there is one");
    assert_eq!((told.number, told.phase, told.step), (3, RolloutPhase::Paused, Some(2)));
    let status = client.status(Some(&web)).await.expect("status").services.remove(0);
    assert_eq!((status.weights.asked, status.weights.source), (percent("5%"), WeightSource::Rollout));
    assert_eq!((status.weights.in_force, status.rollout.map(|brief| brief.next)), (Some(percent("5%")), Some(told.next)));
    let metrics = rig.metrics().await;
    assert!(metrics.contains("splitter_rollout_phase{service=\"web\",phase=\"paused\"} 1\n"), "{metrics}");

    let resumed = client.change_rollout(&web, RolloutAction::Word(RolloutWord::Resume)).await.expect("resumed");
    assert_eq!(resumed.phase, RolloutPhase::Stepping);
    assert!(matches!(phase(&rig), Some(Phase::Stepping { step: 1 })), "{:?}", phase(&rig));
    let promoted = client.change_rollout(&web, RolloutAction::Promote(PromoteRequest { full: false })).await.expect("promoted");
    assert_eq!((promoted.step, promoted.weight.0), (Some(3), Some(percent("50%"))));
    assert_eq!(rig.dataplane.service(&super::key()).map(|web| web.weight), Some(percent("50%")));

    let aborted = client.change_rollout(&web, RolloutAction::Word(RolloutWord::Abort)).await.expect("aborted");
    assert_eq!(aborted.phase, RolloutPhase::Aborted);
    assert!(matches!(phase(&rig), Some(Phase::Aborted { .. })), "{:?}", phase(&rig));
    assert_eq!(rig.dataplane.service(&super::key()).map(|web| web.weight), Some(Weight::ZERO));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollouts_phase_forbids_is_a_conflict_and_changes_nothing() {
    let rig = Rig::start_with(CONFIG, |store, _| store.put(paused())).await;
    let (client, web) = (rig.client(), name("web"));
    for word in [RolloutWord::Start, RolloutWord::Pause, RolloutWord::Approve, RolloutWord::Retry] {
        let refused = client.change_rollout(&web, RolloutAction::Word(word)).await.expect_err("it's paused");
        assert_eq!(code(&refused), ErrorCode::Conflict, "{refused}");
    }
    assert!(matches!(phase(&rig), Some(Phase::Paused { step: 1, .. })), "{:?}", phase(&rig));

    client.change_rollout(&web, RolloutAction::Word(RolloutWord::Abort)).await.expect("aborted");
    let refused = client.change_rollout(&web, RolloutAction::Word(RolloutWord::Start)).await.expect_err("there is no plan");
    assert_eq!(code(&refused), ErrorCode::Conflict, "{refused}");
    assert!(refused.to_string().contains("has no plan"), "{refused}");
    let unknown =
        client.change_rollout(&name("wbe"), RolloutAction::Word(RolloutWord::Start)).await.expect_err("no such service");
    assert_eq!(code(&unknown), ErrorCode::NotFound, "{unknown}");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_rollout_says_how_to_begin_one() {
    let rig = Rig::start(CONFIG).await;
    let none = rig.client().rollout(&name("web")).await.expect_err("there is none");
    assert_eq!(code(&none), ErrorCode::NotFound);
    assert!(none.to_string().contains("`splitter rollout start web`"), "{none}");
    assert_eq!(rig.client().status(None).await.expect("status").services[0].rollout, None);
    assert!(!rig.metrics().await.contains("splitter_rollout_"));
    rig.stop().await.expect("stopped in order");
}

/// A state with a rollout that somebody paused in its second step.
fn paused() -> Vec<u8> {
    let run = asked(&healthy(), Verb::Pause, 26);
    let mut state = State::default();
    state.rollouts = run.id;
    state.services.insert(name("web"), ServiceState { rollout: Some(Box::new(run)), ..ServiceState::default() });
    encode(&state).expect("it can be written")
}

/// As it's kept.
fn phase(rig: &Rig) -> Option<Phase> {
    let saved = rig.store.saved()?;
    saved.service(&name("web"))?.rollout.as_deref().map(|run| run.phase.clone())
}
