//! Rollouts that go by themselves, from the counters to the data plane.

use std::time::Duration;

use super::{
    CANARY, STABLE,
    rig::{CONFIG, Rig, address, key, name, percent},
};
use crate::{
    api::wire::{FlipCause, RolloutAction, RolloutPhase, RolloutWord},
    model::{Cohort, Existing, Weight},
    store::{History as _, Phase, Record},
};

/// A plan without limits of its own, so that only the rollout can flip.
fn planned(plan: &str) -> String {
    let (before, _) = CONFIG.split_once("[service.breach]").expect("it has one");
    format!("{before}[service.rollout]\n{plan}\n")
}

const THREE: &str =
    "steps = [\"5% for 100ms\", \"5% to 40% over 300ms\", \"100% for 100ms\"]\nmin_connections = 0\nexisting = \"reset\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_goes_through_its_steps_and_promotes_in_one_change() {
    let rig = Rig::start(&planned(THREE)).await;
    start(&rig).await;
    let mut last = Weight::ZERO;
    let mut seen = Vec::new();
    rig.until(|rig| {
        let service = rig.dataplane.service(&key()).expect("there");
        let is_over = phase(rig) == Some(Phase::Promoted);
        if !is_over && service.weight > Weight::ZERO {
            assert!(service.weight >= last, "{} after {last}", service.weight);
            last = service.weight;
            if seen.last() != Some(&last) {
                seen.push(last);
            }
        }
        is_over
    })
    .await;
    assert!(seen.contains(&percent("5%")) && seen.contains(&percent("100%")), "{seen:?}");
    assert!(seen.iter().any(|weight| *weight > percent("5%") && *weight < percent("40%")), "the ramp rises by and by: {seen:?}");
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|service| service.weight == Weight::ZERO)).await;
    let service = rig.dataplane.service(&key()).expect("there");
    let of = |wanted: Cohort| service.backends.iter().filter(move |backend| backend.cohort == wanted).collect::<Vec<_>>();
    assert_eq!(of(Cohort::Stable).iter().map(|backend| backend.address).collect::<Vec<_>>(), [address(CANARY)]);
    assert!(of(Cohort::Canary).iter().all(|backend| backend.draining), "{service:?}");
    for message in ["rollout 1 started with 3 steps, by", "rollout 1 step 3 of 3: 100% for 100ms", "rollout 1 promoted"] {
        let saved = rig.store.saved().expect("saved");
        assert!(saved.events().any(|event| event.kind.to_string().starts_with(message)), "{message}");
    }
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_worse_is_flipped_though_the_disk_hangs_and_its_connections_are_reset() {
    let rig = Rig::start(&planned("steps = [\"10% for 1h\"]\nexisting = \"reset\"")).await;
    start(&rig).await;
    rig.store.hang(true);
    rig.dataplane.count(key(), address(STABLE), |counters| (counters.opened, counters.completed) = (9_000, 9_000));
    rig.dataplane.count(key(), address(CANARY), |counters| {
        (counters.opened, counters.completed, counters.refused) = (1_000, 500, 500);
    });
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|service| service.flip == Some(Existing::Reset))).await;
    let status = rig.client().status(Some(&name("web"))).await.expect("status").services.remove(0);
    let flip = status.flip.expect("flipped");
    assert_eq!((flip.cause, flip.by.as_str()), (FlipCause::Rollout, "the agent"));
    assert!(flip.reason.is_some_and(|why| why.contains("500 of 1000 (50.00%) on canary")), "it says why");
    let rollout = rig.client().rollout(&name("web")).await.expect("a rollout");
    assert_eq!((rollout.phase, rollout.step), (RolloutPhase::Flipped, Some(1)));
    rig.store.hang(false);
    rig.until(|rig| matches!(phase(rig), Some(Phase::Flipped { .. }))).await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_cannot_be_kept_is_not_begun_and_is_told_and_tried_again() {
    let rig = Rig::start(&planned("steps = [\"5% for 100ms\", \"50% for 1h\"]\nmin_connections = 0")).await;
    start(&rig).await;
    rig.store.fill(true);
    let stuck = || async {
        let status = rig.client().status(Some(&name("web"))).await.expect("status").services.remove(0);
        status.alerts.iter().any(|alert| alert.contains("the rollout can't go on"))
    };
    while !stuck().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rig.dataplane.service(&key()).map(|service| service.weight), Some(percent("5%")), "kept before it's in force");
    rig.store.fill(false);
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|service| service.weight == percent("50%"))).await;
    assert!(!stuck().await);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_goes_on_with_what_was_measured() {
    let plan = "steps = [\"10% for 1h\"]\non_breach = \"pause\"";
    let rig = Rig::start(&planned(plan)).await;
    start(&rig).await;
    // Not proof yet; kept with the change that follows.
    rig.dataplane.count(key(), address(STABLE), |counters| (counters.opened, counters.completed) = (900, 900));
    rig.dataplane
        .count(key(), address(CANARY), |counters| (counters.opened, counters.completed, counters.refused) = (100, 99, 1));
    let evidence = |rollout: &crate::api::wire::RolloutStatus| rollout.differences.first().map(|difference| difference.evidence);
    let before = loop {
        let rollout = rig.client().rollout(&name("web")).await.expect("a rollout");
        if rollout.connections.total.canary.attempts == 100 {
            break rollout;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(evidence(&before).is_some_and(|evidence| evidence > 1.0), "{before:?}");
    let action = RolloutAction::Word(RolloutWord::Pause);
    rig.client().change_rollout(&name("web"), action).await.expect("paused");
    let rig = rig.restart().await;
    let after = rig.client().rollout(&name("web")).await.expect("a rollout");
    assert_eq!((after.phase, after.number), (RolloutPhase::Paused, before.number));
    assert_eq!(after.connections.total, before.connections.total, "neither forgotten nor counted twice");
    assert_eq!(evidence(&after), evidence(&before));
    rig.stop().await.expect("stopped in order");
}

async fn start(rig: &Rig) {
    let action = RolloutAction::Word(RolloutWord::Start);
    rig.client().change_rollout(&name("web"), action).await.expect("started");
}

fn phase(rig: &Rig) -> Option<Phase> {
    Some(rig.store.saved()?.service(&name("web"))?.rollout.as_deref()?.phase.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_its_state_counts_on_from_the_history() {
    let rig = Rig::start(&planned("steps = [\"10% for 1h\"]")).await;
    start(&rig).await;
    let mut run = rig.store.saved().and_then(|state| state.service(&name("web"))?.rollout.clone()).expect("it runs");
    run.id = 40;
    rig.history.keep(&Record { service: name("web"), run: *run, left_out: 0 }).expect("kept");
    let rig = rig.restart_with(|store, _| store.put("{ damaged")).await;
    rig.client().unflip(&name("web")).await.expect("held on stable");
    start(&rig).await;
    assert_eq!(rig.client().rollout(&name("web")).await.expect("a rollout").number, 41);
    rig.stop().await.expect("stopped in order");
}
