//! Rollouts that have ended get from the state into the history.

use tokio::time::sleep;

use super::*;
use crate::{
    agent::history::listed,
    api::{fake, wire::Stage},
    desired::{self, Origin},
    store::{Abort, Moved, Phase, Record, Run, State, encode},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_was_over_when_the_agent_ended_is_kept_by_the_next_one_and_only_once() {
    let over = run(7, Phase::Promoted);
    let rig = started_with(&over, &[]).await;
    rig.until(|rig| kept(rig) == [7]).await;
    let told = rig.client().history(Some(&name("web")), None).await.expect("told").rollouts;
    assert_eq!(told.iter().map(|rollout| (rollout.number, rollout.stage)).collect::<Vec<_>>(), [(7, Stage::Promoted)]);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.history.kept(), 1, "sweeps don't keep again what is kept");

    let rig = rig.restart().await;
    rig.until(|rig| rig.history.kept() == 2).await;
    assert_eq!(kept(&rig), [7], "kept again, which changes nothing");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_goes_on_is_told_first_and_not_kept() {
    let rig =
        started_with(&run(8, Phase::Paused { step: 0, at_gate: false, why: by_person() }), &[run(9, Phase::Promoted)]).await;
    rig.until(|rig| kept(rig) == [9]).await;
    let told = rig.client().history(None, None).await.expect("told").rollouts;
    let told: Vec<_> = told.iter().map(|rollout| (rollout.number, rollout.stage)).collect();
    assert_eq!(told, [(8, Stage::Paused), (9, Stage::Promoted)]);
    let one = rig.client().history(None, Some(1)).await.expect("told").rollouts;
    assert_eq!(one.iter().map(|rollout| rollout.number).collect::<Vec<_>>(), [8]);
    let unknown = rig.client().history(Some(&name("nobody")), None).await.expect_err("there is no such service");
    assert_eq!(code(&unknown), ErrorCode::NotFound);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_written_is_an_alert_until_it_can_and_loses_nothing() {
    let before = [run(3, Phase::Aborted { why: by_somebody() })];
    let rig = Rig::start(CONFIG).await;
    rig.history.fill(true);
    let rig = rig.restart_with(|store, _| store.put(state(&run(4, Phase::Promoted), &before))).await;
    let alert = "a rollout could not be kept (it is tried again every second): the history memory: no space left";
    let alerts = || async { rig.client().status(None).await.expect("told").agent.alerts };
    while !alerts().await.contains(&alert.to_owned()) {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(past(&rig), [3], "the state holds it as long");
    rig.history.fill(false);
    rig.until(|rig| kept(rig) == [4, 3]).await;
    rig.until(|rig| past(rig).is_empty()).await;
    assert!(!alerts().await.contains(&alert.to_owned()));
    rig.stop().await.expect("stopped in order");
}

#[test]
fn a_rollout_that_another_one_follows_stays_in_the_state_until_the_history_has_it() {
    let mut config = Config::parse(CONFIG, "splitter.toml").expect("right");
    config.services[0].rollout = Some(fake::plan());
    let mut state = State::default();
    let origin = Origin { at: fake::time("2026-03-01T10:00:00Z"), by: "alice" };
    for number in 1..=25 {
        state = desired::start_rollout(&config, &state, &name("web"), origin).expect("begun");
        let run = state.services.get_mut(&name("web")).and_then(|web| web.rollout.as_mut()).expect("there");
        assert_eq!(run.id, number);
        run.phase = Phase::Aborted { why: by_somebody() };
    }
    let web = state.service(&name("web")).expect("there");
    assert_eq!(web.past.iter().map(|run| run.id).collect::<Vec<_>>(), (5..=24).collect::<Vec<_>>(), "bounded");
    let next = desired::retry_rollout(&config, &state, &name("web"), origin).expect("begun");
    let web = next.service(&name("web")).expect("there");
    assert_eq!(web.past.last().map(|run| run.id), Some(25));
}

#[test]
fn what_the_state_says_of_a_rollout_goes_before_what_was_kept_of_it() {
    let record = |run| Record { service: name("web"), run, left_out: 0 };
    let flipped = || Phase::Flipped { step: 0, reason: Box::new(FlipReason::Found) };
    let held = vec![record(run(2, Phase::Stepping { step: 0 })), record(run(5, Phase::Aborted { why: by_somebody() }))];
    let kept = vec![record(run(5, flipped())), record(run(4, flipped())), record(run(3, Phase::Promoted))];
    let all = listed(held.clone(), kept.clone(), 10);
    assert_eq!(all.iter().map(|record| record.run.id).collect::<Vec<_>>(), [2, 5, 4, 3]);
    assert_eq!(all[1], held[1]);
    assert_eq!(listed(held, kept, 2), all[..2]);
}

async fn started_with(rollout: &Run, past: &[Run]) -> Rig {
    Rig::start_with(CONFIG, |store, _| store.put(state(rollout, past))).await
}

fn state(rollout: &Run, past: &[Run]) -> Vec<u8> {
    let mut state = State::default();
    let web = state.services.entry(name("web")).or_default();
    web.rollout = Some(Box::new(rollout.clone()));
    web.past = past.to_vec();
    encode(&state).expect("JSON")
}

fn run(id: u64, phase: Phase) -> Run {
    let at = fake::time("2026-03-01T10:00:00Z");
    let mut run =
        Run { id, plan: fake::plan(), by: "alice".to_owned(), started_at: at, phase, progress: Default::default(), log: vec![] };
    run.note(at, Moved::Started { by: "alice".to_owned(), steps: 3 });
    run
}

fn by_person() -> crate::store::Pause {
    crate::store::Pause::Person { by: "alice".to_owned() }
}

fn by_somebody() -> Abort {
    Abort::Person { by: "alice".to_owned() }
}

/// The numbers of what is kept, newest first.
fn kept(rig: &Rig) -> Vec<u64> {
    let kept = rig.history.list(None, usize::MAX).expect("in memory");
    kept.iter().map(|record| record.run.id).collect()
}

/// The numbers of what the saved state holds for the history.
fn past(rig: &Rig) -> Vec<u64> {
    let saved = rig.store.saved().expect("saved");
    saved.service(&name("web")).expect("there").past.iter().map(|run| run.id).collect()
}
