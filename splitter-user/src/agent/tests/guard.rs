//! Breaker and lease, as the agent sees them.

use std::time::Duration;

use splitter_ebpf::breaker::Cause;

use super::rig::{CONFIG, Rig, key, name, percent};
use crate::{
    api::wire::{FlipCause, FlipRequest},
    controller::Cohorts,
    dataplane::{BreakerTally, Lease, Trip, fake::Call},
    model::Existing,
    store::{EventKind, FlipReason, TripCause},
};

const BREAKER: &str = "\n[service.breaker]\nrefused = \"5%\"\nexisting = \"keep\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_trips_flips_the_service_with_all_numbers_and_unflip_arms_it() {
    let rig = Rig::start(&(CONFIG.to_owned() + BREAKER)).await;
    let client = rig.client();
    client.set_weight(&name("web"), percent("10%")).await.expect("set");
    rig.dataplane.calls();
    rig.dataplane.trip(key(), trip());
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|web| web.flip.is_some())).await;
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("10%"), Some(Existing::Keep))]);
    let message = "flipped to stable, by the agent: refused 6 of 40 (15.00%) on canary, above the breaker's limit of 5%; \
        1 of 700 (0.14%) on stable (established canary connections: keep)";
    rig.until(|rig| rig.has_event(message)).await;
    let Some(FlipReason::Breaker { finding }) = reason(&rig) else { panic!("{:?}", reason(&rig)) };
    assert_eq!((finding.cause, finding.limit), (TripCause::Refused, percent("5%")));
    assert_eq!((finding.canary.completed, finding.canary.due, finding.stable.attempts), (30, 35, 700));

    // The sample goes on saying that it has tripped; that's the same trip.
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.set_weight(&name("web"), percent("20%")).await.expect("set");
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("20%"), Some(Existing::Keep))], "a weight arms nothing");
    let status = client.status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::Breaker));
    assert_eq!(told(&rig, |kind| matches!(kind, EventKind::Flipped { .. })), 1);
    let metrics = rig.metrics().await;
    assert!(metrics.contains(r#"splitter_service_flips_total{service="web",reason="breaker"} 1"#), "{metrics}");
    rig.dataplane.calls();

    let status = client.unflip(&name("web")).await.expect("unflipped");
    assert_eq!((status.flip, status.weights.in_force), (None, Some(percent("20%"))));
    assert_eq!(rig.dataplane.calls(), [Call::Arm(key()), Call::Steer(key(), percent("20%"), None)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.dataplane.calls(), [], "it isn't flipped again for the same trip");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trip_is_heard_before_the_next_sample() {
    let seldom = CONFIG.replace("sample_interval = \"10ms\"", "sample_interval = \"10s\"\nlease = \"30s\"") + BREAKER;
    let rig = Rig::start_with(&seldom, |_, dataplane| dataplane.hang_bell().expect("sockets")).await;
    for _ in 0..2 {
        let tripped = std::time::Instant::now();
        rig.dataplane.trip(key(), trip());
        rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|web| web.flip.is_some())).await;
        assert!(tripped.elapsed() < Duration::from_secs(5), "{:?}", tripped.elapsed());
        rig.client().unflip(&name("web")).await.expect("unflipped");
    }
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_over_finds_what_tripped_meanwhile() {
    let rig = Rig::start(&(CONFIG.to_owned() + BREAKER)).await;
    rig.client().set_weight(&name("web"), percent("10%")).await.expect("set");
    let rig = rig.restart_with(|_, dataplane| dataplane.trip(key(), trip())).await;
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::Breaker));
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), Some(Existing::Keep));

    // The breaker's section goes: what it did stays until somebody takes it back.
    rig.configure(CONFIG);
    rig.client().reload().await.expect("taken over");
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::Breaker));
    rig.client().unflip(&name("web")).await.expect("unflipped");
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), None);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_whose_reason_was_lost_is_the_breakers_if_that_has_tripped() {
    let rig = Rig::start(&(CONFIG.to_owned() + BREAKER)).await;
    rig.store.fill(true);
    rig.dataplane.trip(key(), trip());
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|web| web.flip.is_some())).await;
    let rig = rig.restart_with(|store, _| store.fill(false)).await;
    rig.until(|rig| matches!(reason(rig), Some(FlipReason::Breaker { .. }))).await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_flipped_by_hand_stays_so_when_its_breaker_trips() {
    let rig = Rig::start(&(CONFIG.to_owned() + BREAKER)).await;
    let flip = FlipRequest { existing: Existing::Keep, reason: None };
    rig.client().flip(&name("web"), &flip).await.expect("flipped");
    rig.dataplane.calls();
    rig.dataplane.trip(key(), trip());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.dataplane.calls(), []);
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::Command));
    rig.client().unflip(&name("web")).await.expect("unflipped");
    assert_eq!(rig.dataplane.calls()[0], Call::Arm(key()), "or the next sample would flip it again");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_the_agent_lives_and_a_reload_lets_nothing_run_out() {
    let rig = Rig::start(CONFIG).await;
    assert_eq!(rig.dataplane.lease(), Lease::Valid(Duration::from_secs(10)));
    rig.dataplane.set_lease(Lease::Valid(Duration::from_millis(1)));
    rig.until(|rig| rig.dataplane.lease() == Lease::Valid(Duration::from_secs(10))).await;
    rig.dataplane.calls();
    let longer = CONFIG.replace("[agent]", "[agent]\nlease = \"1m\"").replace("weight = \"0%\"", "weight = \"2%\"");
    rig.configure(&longer.replace("\"10.0.1.2:8080\"", "\"10.0.1.3:8080\""));
    rig.client().reload().await.expect("taken over");
    rig.until(|rig| rig.dataplane.lease() == Lease::Valid(Duration::from_secs(60))).await;
    let calls = rig.dataplane.calls();
    assert!(matches!(calls[..], [Call::Apply(_)]), "{calls:?}");
    assert_eq!(told(&rig, |kind| matches!(kind, EventKind::LeaseRanOut { .. })), 0);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_stopped_finds_that_its_lease_had_run_out() {
    let rig = Rig::start(&two_services("")).await;
    rig.dataplane.calls();
    rig.dataplane.set_lease(Lease::RanOut(Duration::from_millis(4_500)));
    rig.until(|rig| matches!(rig.dataplane.lease(), Lease::Valid(_))).await;
    assert_eq!(rig.dataplane.calls(), [Call::LeaseResumed], "the weight counts again, and nothing was flipped");
    rig.until(|rig| told(rig, |kind| matches!(kind, EventKind::LeaseRanOut { .. })) == 1).await;
    let events = rig.store.saved().expect("saved");
    let told = events.events().map(|event| event.kind.to_string()).find(|told| told.contains("lease")).expect("told");
    assert!(
        told.ends_with("for 4s 500ms; to stable meanwhile: web, held: dns; the weight counts again"),
        "no canary's share is in play at `idle`: {told}"
    );
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_manual_resume_services_are_flipped_before_the_lease_is_renewed() {
    let rig = Rig::start(&two_services("resume = \"manual\"")).await;
    rig.dataplane.calls();
    rig.dataplane.set_lease(Lease::RanOut(Duration::from_secs(5)));
    rig.until(|rig| matches!(rig.dataplane.lease(), Lease::Valid(_))).await;
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("5%"), Some(Existing::Keep)), Call::LeaseResumed]);
    let status = rig.client().status(None).await.expect("status");
    let causes: Vec<_> = status.services.iter().map(|service| service.flip.as_ref().map(|flip| flip.cause)).collect();
    assert_eq!(causes, [None, None, Some(FlipCause::Lease)], "dns holds its weight, idle has none");
    rig.client().unflip(&name("web")).await.expect("unflipped");
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), None);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_over_decides_about_the_lease_before_it_renews_it() {
    let rig = Rig::start(&two_services("resume = \"manual\"")).await;
    let rig = rig
        .restart_with(|_, dataplane| {
            dataplane.calls();
            dataplane.set_lease(Lease::RanOut(Duration::from_secs(60)));
        })
        .await;
    let calls = rig.dataplane.calls();
    let [Call::Apply(_), rest @ ..] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(rest, [Call::Steer(key(), percent("5%"), Some(Existing::Keep)), Call::LeaseResumed]);
    rig.until(|rig| matches!(reason(rig), Some(FlipReason::Lease { lasted, .. }) if lasted == Duration::from_secs(60))).await;

    // Back after a stop in order, however long ago, there is nothing to decide.
    rig.client().unflip(&name("web")).await.expect("unflipped");
    let rig = rig.restart_with(|_, dataplane| dataplane.set_lease(Lease::Released)).await;
    assert_eq!(rig.client().status(Some(&name("web"))).await.expect("status").services[0].flip, None);
    assert!(matches!(rig.dataplane.lease(), Lease::Valid(_)));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trip_is_a_better_reason_than_a_lease() {
    let rig = Rig::start(&(two_services("resume = \"manual\"") + BREAKER)).await;
    let rig = rig
        .restart_with(|_, dataplane| {
            dataplane.trip(key(), trip());
            dataplane.set_lease(Lease::RanOut(Duration::from_secs(60)));
        })
        .await;
    rig.until(|rig| matches!(reason(rig), Some(FlipReason::Breaker { .. }))).await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_renewed_until_what_has_to_be_flipped_is() {
    let rig = Rig::start(&two_services("resume = \"manual\"")).await;
    rig.dataplane.refuse_steering(true);
    rig.dataplane.calls();
    rig.dataplane.set_lease(Lease::RanOut(Duration::from_secs(5)));
    rig.until(|rig| told(rig, |kind| matches!(kind, EventKind::LeaseRanOut { .. })) == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((rig.dataplane.lease(), rig.dataplane.calls()), (Lease::RanOut(Duration::from_secs(5)), vec![]));
    let agent = rig.client().status(None).await.expect("status").agent;
    assert!(agent.lease.is_none() && agent.alerts.iter().any(|alert| alert.contains("the lease has run out")), "{agent:?}");
    rig.dataplane.refuse_steering(false);
    rig.until(|rig| matches!(rig.dataplane.lease(), Lease::Valid(_))).await;
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("5%"), Some(Existing::Keep)), Call::LeaseResumed]);
    assert_eq!(told(&rig, |kind| matches!(kind, EventKind::LeaseRanOut { .. })), 1, "once");
    rig.stop().await.expect("stopped in order");
}

/// 40 attempts of the canary, of which 6 were refused.
fn trip() -> Trip {
    let canary = BreakerTally { attempts: 40, completed: 30, refused: 6, due: 35, ..BreakerTally::default() };
    let stable = BreakerTally { attempts: 700, completed: 690, refused: 1, ..BreakerTally::default() };
    Trip { ago: Duration::from_millis(20), cause: Cause::Refused, limit: percent("5%"), tallies: Cohorts { stable, canary } }
}

/// `web` at 5%, `dns` at 5% that holds, and `idle` without a share for its canary.
fn two_services(agent: &str) -> String {
    let more = |name: &str, address: &str, rest: &str| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\naddress = \"{address}\"\nstable = [\"10.0.1.1:8081\"]\n\
             canary = [\"10.0.1.9:8081\"]\n{rest}\n"
        )
    };
    let web = CONFIG.replace("[agent]", &format!("[agent]\n{agent}")).replace("weight = \"0%\"", "weight = \"5%\"");
    let (head, service) = web.split_once("[[service]]").expect("there is one");
    let dns = more("dns", "192.0.2.10:53", "weight = \"5%\"\non_lease_expiry = \"hold\"");
    format!("{head}{dns}{}\n[[service]]{service}", more("idle", "192.0.2.10:7", ""))
}

fn reason(rig: &Rig) -> Option<FlipReason> {
    let state = rig.store.saved()?;
    state.service(&name("web")).and_then(|web| web.flip.clone()).map(|flip| flip.reason)
}

/// How many events of a kind were told and kept.
fn told(rig: &Rig, is: impl Fn(&EventKind) -> bool) -> usize {
    rig.store.saved().map_or(0, |state| state.events().filter(|event| is(&event.kind)).count())
}
