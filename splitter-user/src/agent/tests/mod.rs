//! An agent with a data plane, a store and ways in memory, talked to through its socket.

mod asked;
mod conduct;
mod guard;
mod history;
mod measured;
mod rig;
mod rollouts;

use std::time::Duration;

use rig::{ALL_REACHABLE, CONFIG, Rig, address, key, name, percent};

use super::*;
use crate::{
    api::{
        client::ClientError,
        wire::{
            AddBackend, BackendState, ErrorBody, ErrorCode, ExplainRequest, FlipCause, FlipRequest, NetworkChange, Rule, Way,
        },
    },
    dataplane::fake::Call,
    model::{BackendWeight, Cohort, Existing, NetworkList, Weight},
    store::FlipReason,
};

const STABLE: &str = "10.0.1.1:8080";
const CANARY: &str = "10.0.1.9:8080";

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_kept_and_steered_before_it_is_acknowledged() {
    let rig = Rig::start(CONFIG).await;
    let calls = rig.dataplane.calls();
    let [Call::Apply(services)] = calls.as_slice() else { panic!("{calls:?}") };
    assert!(services[0].backends.iter().all(|backend| backend.way.is_some()), "the ways were waited for");

    let status = rig.client().set_weight(&name("web"), percent("5%")).await.expect("set");
    assert_eq!((status.weights.asked, status.weights.in_force), (percent("5%"), Some(percent("5%"))));
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("5%"), None)], "nothing but the weight is touched");
    let saved = rig.store.saved().expect("saved");
    assert_eq!(saved.service(&name("web")).and_then(|web| web.weight).map(|asked| asked.weight), Some(percent("5%")));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_is_in_force_and_unflip_takes_it_back() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    client.set_weight(&name("web"), percent("10%")).await.expect("set");
    rig.dataplane.calls();
    let request = FlipRequest { existing: Existing::Reset, reason: Some("pager".to_owned()) };
    let status = client.flip(&name("web"), &request).await.expect("flipped");
    assert_eq!(status.weights.in_force, Some(Weight::ZERO));
    assert_eq!(status.flip.map(|flip| (flip.cause, flip.reason)), Some((FlipCause::Command, Some("pager".to_owned()))));
    assert_eq!(rig.dataplane.calls(), [Call::Steer(key(), percent("10%"), Some(Existing::Reset))]);
    let saved = rig.store.saved().and_then(|state| state.service(&name("web")).and_then(|web| web.flip.clone()));
    assert_eq!(
        saved.map(|flip| flip.reason),
        Some(FlipReason::Person { text: Some("pager".to_owned()) }),
        "a disk that works is waited for"
    );
    let again = client.flip(&name("web"), &request).await.expect_err("flipped already");
    assert_eq!(code(&again), ErrorCode::Conflict);

    let status = client.unflip(&name("web")).await.expect("unflipped");
    assert_eq!((status.flip, status.weights.in_force), (None, Some(percent("10%"))));
    let again = client.unflip(&name("web")).await.expect_err("not flipped");
    assert_eq!(code(&again), ErrorCode::Conflict);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_does_not_wait_for_a_disk_that_hangs_and_a_change_does() {
    let rig = Rig::start(CONFIG).await;
    rig.client().set_weight(&name("web"), percent("10%")).await.expect("set");
    rig.store.hang(true);
    let begun = rig.store.begun();
    let client = rig.client();
    let change = tokio::spawn(async move { client.set_weight(&name("web"), percent("20%")).await });
    rig.until(|rig| rig.store.begun() > begun).await;

    let request = FlipRequest { existing: Existing::Reset, reason: None };
    let status = rig.client().flip(&name("web"), &request).await.expect("flipped");
    assert_eq!((status.weights.asked, status.weights.in_force), (percent("10%"), Some(Weight::ZERO)));
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), Some(Existing::Reset));
    assert!(rig.client().status(None).await.is_ok(), "questions are answered");
    assert!(!change.is_finished(), "what isn't kept isn't in force");

    rig.store.hang(false);
    let status = change.await.expect("no panic").expect("set");
    assert_eq!((status.weights.asked, status.weights.in_force), (percent("20%"), Some(Weight::ZERO)), "the flip isn't undone");
    let web = rig.store.saved().and_then(|state| state.service(&name("web")).cloned()).expect("saved");
    assert_eq!((web.weight.map(|asked| asked.weight), web.flip.is_some()), (Some(percent("20%")), true));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_made_any_more_when_it_is_kept_is_refused_and_taken_back() {
    let rig = Rig::start(CONFIG).await;
    rig.store.hang(true);
    let begun = rig.store.begun();
    let client = rig.client();
    let change = tokio::spawn(async move { client.set_weight(&name("web"), percent("20%")).await });
    rig.until(|rig| rig.store.begun() > begun).await;
    rig.client().detach().await.expect("detached");
    rig.store.hang(false);
    assert_eq!(code(&change.await.expect("no panic").expect_err("detached")), ErrorCode::Unavailable);
    let is_kept =
        |rig: &Rig| rig.store.saved().is_some_and(|state| state.service(&name("web")).is_some_and(|web| web.weight.is_some()));
    rig.until(|rig| !is_kept(rig)).await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_for_the_disk_are_carried_out_one_after_the_other() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    let request = FlipRequest { existing: Existing::Keep, reason: None };
    client.flip(&name("web"), &request).await.expect("flipped");
    rig.until(|rig| rig.store.saved().is_some_and(|state| state.service(&name("web")).is_some_and(|web| web.flip.is_some())))
        .await;
    rig.store.hang(true);
    let begun = rig.store.begun();
    let (first, second) = (rig.client(), rig.client());
    let unflip = tokio::spawn(async move { first.unflip(&name("web")).await });
    rig.until(|rig| rig.store.begun() > begun).await;
    let again = tokio::spawn(async move { second.unflip(&name("web")).await });
    rig.store.hang(false);
    assert!(unflip.await.expect("no panic").is_ok());
    let refused = again.await.expect("no panic").expect_err("one after the other: it's unflipped by then");
    assert_eq!(code(&refused), ErrorCode::Conflict);
    let saved = rig.store.saved().and_then(|state| state.service(&name("web")).and_then(|web| web.flip.clone()));
    assert_eq!(saved, None);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_crosses_a_limit_is_flipped_while_the_disk_hangs() {
    let rig = Rig::start(CONFIG).await;
    rig.client().set_weight(&name("web"), percent("10%")).await.expect("set");
    rig.store.hang(true);
    let client = rig.client();
    let change = tokio::spawn(async move { client.set_weight(&name("web"), percent("20%")).await });
    rig.dataplane.count(key(), address(CANARY), |counters| {
        (counters.opened, counters.completed, counters.refused) = (100, 80, 20);
    });
    rig.until(|rig| rig.dataplane.service(&key()).and_then(|web| web.flip) == Some(Existing::Reset)).await;
    rig.store.hang(false);
    change.await.expect("no panic").expect("set");
    rig.until(|rig| rig.store.saved().is_some_and(|state| state.service(&name("web")).is_some_and(|web| web.flip.is_some())))
        .await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_crosses_a_limit_is_flipped_with_the_next_sample() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    client.set_weight(&name("web"), percent("10%")).await.expect("set");
    let mut events = client.events(true).await.expect("events");
    rig.dataplane.count(key(), address(CANARY), |counters| {
        (counters.opened, counters.completed, counters.refused) = (100, 80, 20);
    });
    let flipped = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let event = events.next().await.expect("a line").expect("the stream goes on");
            if event.message.starts_with("flipped") {
                return event;
            }
        }
    });
    let event = flipped.await.expect("flipped in time");
    assert_eq!(
        event.message,
        "flipped to stable, by the agent: refused 20 of 100 (20.00%) on canary, above the limit of 5% within 10s; 0 of 0 on stable \
         (established canary connections: reset)"
    );
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), Some(Existing::Reset));
    let status = client.status(Some(&name("web"))).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::Refused));

    // Unflipped, it's given another chance: what it did before doesn't count.
    client.unflip(&name("web")).await.expect("unflipped");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.status(Some(&name("web"))).await.expect("status").services[0].flip, None);
    let metrics = rig.metrics().await;
    assert!(metrics.contains(r#"splitter_service_flips_total{service="web",reason="refused"} 1"#), "{metrics}");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_outlives_the_agent() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    client.set_weight(&name("web"), percent("25%")).await.expect("set");
    client.drain_backend(&name("web"), address("10.0.1.2:8080"), true).await.expect("drained");
    client.flip(&name("web"), &FlipRequest { existing: Existing::Keep, reason: None }).await.expect("flipped");
    let before = rig.dataplane.service(&key()).expect("there");
    rig.dataplane.calls();
    let rig = rig.restart().await;
    assert_eq!(rig.dataplane.service(&key()).as_ref(), Some(&before), "the next agent wants the same, the seed included");
    let calls = rig.dataplane.calls();
    assert!(!calls.contains(&Call::Detach), "traffic flowed on: {calls:?}");
    let status = rig.client().status(None).await.expect("status");
    assert_eq!((status.agent.adoptions, status.services[0].weights.asked), (1, percent("25%")));
    assert!(status.services[0].flip.is_some());
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_that_only_the_data_plane_remembers_stays() {
    let rig = Rig::start(CONFIG).await;
    rig.store.fill(true);
    let flip = FlipRequest { existing: Existing::Keep, reason: Some("a full disk is no reason to wait".to_owned()) };
    rig.client().flip(&name("web"), &flip).await.expect("in force");
    let status = rig.client().status(None).await.expect("status");
    assert!(status.agent.alerts.iter().any(|alert| alert.contains("no space left")), "{:?}", status.agent.alerts);
    let rig = rig.restart_with(|store, _| store.fill(false)).await;
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::StateLost));
    let reason = |rig: &Rig| Some(rig.store.saved()?.service(&name("web"))?.flip.clone()?.reason);
    rig.until(|rig| reason(rig) == Some(FlipReason::Found)).await;
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_holds_every_service_on_stable() {
    let rig = Rig::start_with(CONFIG, |store, _| store.put("{ not a state")).await;
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].flip.as_ref().map(|flip| flip.cause), Some(FlipCause::StateLost));
    assert_eq!(rig.dataplane.service(&key()).and_then(|web| web.flip), Some(Existing::Keep));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_lost_takes_no_seed_along_that_is_in_force() {
    let rig = Rig::start(CONFIG).await;
    let seed = |rig: &Rig| rig.dataplane.service(&key()).expect("there").seed;
    let before = seed(&rig);
    let rig = rig.restart_with(|store, _| store.put("{ not a state")).await;
    assert!(seed(&rig) == before, "with another seed nobody would find established connections again");
    let saved = |rig: &Rig| rig.store.saved()?.service(&name("web"))?.seed;
    assert!(saved(&rig) == Some(before), "the next agent has it, too");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_kept_is_refused_and_nothing_changes() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.calls();
    rig.store.fill(true);
    let refused = rig.client().set_weight(&name("web"), percent("5%")).await.expect_err("the disk is full");
    assert_eq!(code(&refused), ErrorCode::Unavailable);
    assert!(refused.to_string().contains("make room there"), "{refused}");
    assert_eq!(rig.dataplane.calls(), []);
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.services[0].weights.asked, Weight::ZERO);
    rig.store.fill(false);
    rig.client().set_weight(&name("web"), percent("5%")).await.expect("there is room again");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_data_plane_refuses_is_not_kept_either() {
    let rig = Rig::start(CONFIG).await;
    let before = rig.store.saved();
    rig.dataplane.refuse_next_apply("no memory");
    let refused = rig.client().drain_backend(&name("web"), address(STABLE), true).await.expect_err("refused");
    assert_eq!(refused.to_string(), "nothing was changed: could not write a map: no memory");
    let before = before.map(|state| state.services);
    rig.until(|rig| rig.store.saved().map(|state| state.services) == before).await;
    rig.client().drain_backend(&name("web"), address(STABLE), true).await.expect("the next one is carried out");
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_changes_nothing_and_is_remembered() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.calls();
    rig.configure(&CONFIG.replace("weight = \"0%\"", "weight = \"101%\""));
    let refused = rig.client().reload().await.expect_err("wrong");
    assert_eq!(code(&refused), ErrorCode::Invalid);
    assert!(refused.to_string().contains("101%"), "{refused}");
    rig.configure(&CONFIG.replace("\"10.0.1.9:8080\"", "\"10.0.1.9:8080\", \"192.0.2.77:8080\""));
    let refused = rig.client().reload().await.expect_err("there is no way to the new backend");
    assert!(refused.to_string().contains("no route to 192.0.2.77"), "{refused}");
    rig.configure(&format!("{CONFIG}\n[tables]\nservices = 3\n"));
    let refused = rig.client().reload().await.expect_err("tables are made once");
    assert_eq!(code(&refused), ErrorCode::Conflict);
    assert!(refused.to_string().contains("[tables]"), "{refused}");
    assert_eq!(rig.dataplane.calls(), []);
    let status = rig.client().status(None).await.expect("status");
    assert_eq!(status.agent.last_reload.map(|reload| reload.ok), Some(false));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_put_in_force_with_the_ways_to_its_backends_known() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.calls();
    rig.configure(&CONFIG.replace("weight = \"0%\"", "weight = \"2%\"").replace("10.0.1.1:8080", "10.0.1.3:8080"));
    rig.signals.send(Signal::Reload).await.expect("told");
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|web| web.weight == percent("2%"))).await;
    let calls = rig.dataplane.calls();
    let [Call::Apply(services)] = calls.as_slice() else { panic!("once, as a whole: {calls:?}") };
    assert!(services[0].backends.iter().all(|backend| backend.way.is_some()), "{services:?}");
    let status = rig.client().status(None).await.expect("status");
    let message = status.agent.last_reload.map(|reload| reload.message);
    assert_eq!(message.as_deref(), Some("service `web`: weight 0% to 2%, backends changed"));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_whose_way_is_lost_is_taken_out_of_use_until_it_is_back() {
    let rig = Rig::start(CONFIG).await;
    rig.reach(&["10.0.1.1", "10.0.1.2"]);
    rig.until(|rig| !rig.usable(CANARY)).await;
    let status = rig.client().status(None).await.expect("status");
    let alerts = [
        "no canary backend can be used: the canary's share goes to stable",
        "backend 10.0.1.9:8080 gets no connections: 10.0.1.9 on eth0 does not answer ARP",
    ];
    assert_eq!(status.services[0].alerts, alerts);
    let canary = &status.services[0].cohort(Cohort::Canary).expect("there").backends[0];
    assert_eq!(canary.state, BackendState::Unreachable);
    assert!(matches!(&canary.way, Way::Missing { missing } if missing.contains("does not answer ARP")), "{canary:?}");
    rig.reach(&[]);
    rig.until(|rig| !rig.usable(STABLE)).await;
    rig.reach(ALL_REACHABLE);
    rig.until(|rig| rig.usable(CANARY) && rig.usable(STABLE)).await;
    let mut told = Vec::new();
    let mut events = rig.client().events(false).await.expect("events");
    while let Some(event) = events.next().await.expect("a line") {
        told.push(event.message);
    }
    let expected = [
        "backend 10.0.1.9:8080 cannot be reached: 10.0.1.9 on eth0 does not answer ARP",
        "no canary backend can be used: the canary's share goes to stable",
        "no stable backend can be used: new connections are refused",
        "a stable backend can be used again",
        "backend 10.0.1.9:8080 can be reached again",
    ];
    for expected in expected {
        assert_eq!(told.iter().filter(|message| *message == expected).count(), 1, "{expected}: {told:#?}");
    }
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_come_and_go_while_traffic_flows() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    let add = |address| AddBackend { address, cohort: Cohort::Canary, weight: BackendWeight::ONE };
    let list = client.add_backend(&name("web"), &add(rig::address("10.0.1.3:8080"))).await.expect("added");
    let added = list.cohorts[1].backends.last().expect("there");
    assert_eq!((added.address, added.state), (address("10.0.1.3:8080"), BackendState::Active));
    let refused = client.add_backend(&name("web"), &add(address("192.0.2.77:80"))).await.expect_err("no route");
    assert_eq!(code(&refused), ErrorCode::Invalid);

    rig.dataplane.live(key(), address("10.0.1.3:8080"), 2);
    client.drain_backend(&name("web"), address("10.0.1.3:8080"), true).await.expect("drains");
    let left = async |rig: &Rig| {
        let list = rig.client().backends(&name("web")).await.expect("backends");
        list.cohorts[1].backends.last().and_then(|backend| backend.connections)
    };
    while left(&rig).await != Some(2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.dataplane.live(key(), address("10.0.1.3:8080"), 0);
    while left(&rig).await != Some(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.until(|rig| rig.has_event("backend 10.0.1.3:8080 is drained: no connections left")).await;
    let list = client.remove_backend(&name("web"), address("10.0.1.3:8080")).await.expect("removed");
    assert_eq!(list.cohorts[1].backends.len(), 1);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_the_data_plane_says() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    let request = ExplainRequest { client: address("198.51.100.64:0").ip(), port: Some(4_000), at: Some(percent("50%")) };
    let explanation = client.explain(&name("web"), &request).await.expect("explained");
    assert_eq!(explanation.decision.rule, Rule::PlaceAboveWeight);
    assert_eq!(explanation.decision.backend, Some(address(STABLE)));
    let at = explanation.at.expect("asked");
    assert_eq!((at.decision.rule, at.decision.backend), (Rule::PlaceBelowWeight, Some(address(CANARY))));
    let no_port = ExplainRequest { port: None, ..request };
    assert_eq!(code(&client.explain(&name("web"), &no_port).await.expect_err("no port")), ErrorCode::Invalid);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_networks_changes_as_a_whole_or_not_at_all() {
    let rig = Rig::start(CONFIG).await;
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<_>>();
    let change = |add, remove| NetworkChange { list: NetworkList::AlwaysCanary, add, remove };
    let both = change(prefixes(&["10.1.0.0/16", "10.2.0.0/16"]), vec![]);
    let changed = rig.client().change_networks(&name("web"), &both).await.expect("changed");
    assert_eq!((changed.added, changed.total), (2, 2));
    let half = change(prefixes(&["10.3.0.0/16", "10.1.0.0/16"]), vec![]);
    let refused = rig.client().change_networks(&name("web"), &half).await.expect_err("one is there");
    assert_eq!(code(&refused), ErrorCode::Conflict);
    assert_eq!(rig.client().networks(&name("web")).await.expect("networks").always_canary.len(), 2);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_is_refused_and_touches_nothing() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.calls();
    let error = rig.second().await.expect_err("there is one");
    assert!(matches!(error, AgentError::Socket(crate::api::socket::SocketError::SecondAgent { .. })), "{error}");
    assert_eq!(rig.dataplane.calls(), []);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_the_data_plane_unless_it_is_to_go() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.calls();
    let (store, dataplane) = (rig.store.clone(), rig.dataplane.clone());
    rig.stop().await.expect("stopped in order");
    assert_eq!(dataplane.calls(), [Call::LeaseReleased, Call::Released], "nothing runs out, however long nobody is there");
    let last = store.saved().and_then(|state| state.events().last().map(ToString::to_string));
    assert_eq!(last.as_deref(), Some("the agent stopped, traffic flows on"));

    let rig = Rig::start(&CONFIG.replace("[agent]", "[agent]\ndetach_on_stop = true")).await;
    rig.dataplane.calls();
    let dataplane = rig.dataplane.clone();
    rig.stop().await.expect("stopped in order");
    assert_eq!(dataplane.calls(), [Call::Detach, Call::Released]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_waits_for_any_more_is_carried_out_as_a_whole() {
    let rig = Rig::start(CONFIG).await;
    for _ in 0..50 {
        let (client, web) = (rig.client(), name("web"));
        let asked = client.set_weight(&web, percent("7%"));
        // Given up somewhere between the connection and the answer.
        drop(tokio::time::timeout(Duration::from_micros(300), asked).await);
    }
    rig.client().set_weight(&name("web"), percent("8%")).await.expect("set");
    let saved = rig.store.saved().and_then(|state| state.service(&name("web")).and_then(|web| web.weight));
    assert_eq!(saved.map(|asked| asked.weight), Some(percent("8%")));
    assert_eq!(rig.dataplane.service(&key()).map(|web| web.weight), Some(percent("8%")));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_detach_the_agent_says_so_and_changes_nothing() {
    let rig = Rig::start(CONFIG).await;
    assert_eq!(rig.probe("readyz").await, 200);
    assert_eq!(rig.client().detach().await.expect("detached").interfaces, ["eth0"]);
    assert_eq!((rig.probe("readyz").await, rig.probe("healthz").await), (503, 200));
    let refused = rig.client().set_weight(&name("web"), percent("1%")).await.expect_err("detached");
    assert_eq!(code(&refused), ErrorCode::Unavailable);
    let status = rig.client().status(None).await.expect("status");
    assert_eq!((status.agent.interfaces, status.services[0].weights.in_force), (vec![], None));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_costs_nothing_when_its_reader_has_gone() {
    let rig = Rig::start(CONFIG).await;
    let client = rig.client();
    rig.dataplane.calls();
    let mut records = client.trace(&name("web"), crate::api::wire::TraceFilter::default()).await.expect("traced");
    let second = client.trace(&name("web"), crate::api::wire::TraceFilter::default()).await;
    let second = second.map(drop).expect_err("one at a time");
    assert_eq!(code(&second), ErrorCode::Conflict);
    rig.dataplane.trace(crate::dataplane::Traced {
        client: address("198.51.100.64:0").ip(),
        port: 4_000,
        to: Some((key(), address(STABLE), Cohort::Stable)),
        hash: 1,
        tcp_flags: 0x02,
    });
    let record =
        tokio::time::timeout(Duration::from_secs(5), records.next()).await.expect("in time").expect("a line").expect("one");
    let expected =
        crate::api::wire::Verdict::Forwarded { rule: Rule::PlaceAboveWeight, cohort: Cohort::Stable, backend: address(STABLE) };
    assert_eq!((record.client, record.verdict), (address("198.51.100.64:4000"), expected));
    drop(records);
    let everybody = "0.0.0.0/0".parse().expect("a prefix");
    let mut calls = Vec::new();
    while calls != [Call::Trace(key(), Some(everybody)), Call::Trace(key(), None)] {
        // The server notices a reader that has gone when it writes to it.
        rig.dataplane.trace(crate::dataplane::Traced {
            client: address("198.51.100.64:0").ip(),
            port: 4_000,
            to: Some((key(), address(STABLE), Cohort::Stable)),
            hash: 1,
            tcp_flags: 0x02,
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        calls.extend(rig.dataplane.calls());
    }
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_doctor_tells_of_backends_whose_replies_are_not_seen() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.count(key(), address(CANARY), |counters| counters.opened = 12);
    let report = rig.client().doctor().await.expect("examined");
    let failed: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.result == crate::api::wire::CheckResult::Fail)
        .map(|check| &check.finding)
        .collect();
    assert_eq!(failed, ["12 connections were sent to it, and not one reply was seen"]);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_by_itself_ends_the_agent_and_not_the_data_plane() {
    let rig = Rig::start(&CONFIG.replace("[agent]", "[agent]\ndetach_on_stop = true")).await;
    rig.dataplane.calls();
    let dataplane = rig.dataplane.clone();
    let error = rig.lose_ways().await.expect_err("it can't go on blindly");
    assert!(error.to_string().contains("the data plane goes on as it is"), "{error}");
    assert_eq!(dataplane.calls(), [Call::Released], "its lease runs out unless another agent comes");
}

fn code(error: &ClientError) -> ErrorCode {
    match error {
        ClientError::Refused { body: ErrorBody { code, .. } } => *code,
        other @ (ClientError::NotRunning { .. }
        | ClientError::NotPermitted { .. }
        | ClientError::Lost { .. }
        | ClientError::TimedOut { .. }
        | ClientError::NotUnderstood { .. }) => panic!("{other}"),
    }
}
