//! Whom a rollout asks, and who is told of it: real requests to servers on loopback.

use std::time::Duration;

use serde_json::Value;

use super::rig::{CONFIG, Rig, key, name, percent};
use crate::{
    api::wire::{RolloutAction, RolloutPhase, RolloutWord},
    http::fake::{Says, Server},
    model::Weight,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_lets_a_step_pass_and_then_stops_the_rollout() {
    let hook = Server::start([
        Says::ok(r#"{"verdict":"wait","reason":"warming up"}"#),
        Says::ok(r#"{"verdict":"pass","reason":"fine"}"#),
        Says::ok(r#"{"verdict":"pass","reason":"fine"}"#),
        Says::ok(r#"{"verdict":"fail","reason":"the cart is empty"}"#),
    ])
    .await;
    let rig = Rig::start(&planned(
        "steps = [\"10% for 100ms\", \"20% for 1h\"]\nmin_connections = 0",
        &format!(
            "[[service.rollout.check]]\nname = \"cart\"\nwebhook = \"{}/judge\"\ninterval = \"1s\"\ntimeout = \"1s\"\n",
            hook.url
        ),
    ))
    .await;
    start(&rig).await;
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|service| service.weight == percent("20%"))).await;
    rig.until(|rig| rig.dataplane.service(&key()).is_some_and(|service| service.flip.is_some())).await;
    let rollout = rig.client().rollout(&name("web")).await.expect("a rollout");
    assert_eq!(rollout.phase, RolloutPhase::Flipped);
    assert!(rollout.why.is_some_and(|why| why.contains("check cart: the cart is empty")), "it says why");
    let first = hook.asked().first().map(|asked| (asked.uri.path().to_owned(), asked.json())).expect("asked");
    assert_eq!((first.0.as_str(), &first.1["service"], &first.1["check"]), ("/judge", &Value::from("web"), &Value::from("cart")));
    assert_eq!(
        (&first.1["step"], &first.1["of"], &first.1["weight_bp"]),
        (&Value::from(1), &Value::from(2), &Value::from(1_000))
    );
    // Nobody asks for a rollout that doesn't go on.
    let asked = hook.asked().len();
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(hook.asked().len(), asked);
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_to_be_told_is_and_a_reload_tells_others() {
    let (first, second) = (Server::start([Says::ok("ok")]).await, Server::start([Says::ok("ok")]).await);
    let text = |to: &Server| {
        let notify = format!("[[notify]]\nname = \"chat\"\nurl = \"{}/hook\"\n\n", to.url);
        format!("{notify}{}", planned("steps = [\"10% for 1h\"]", ""))
    };
    let rig = Rig::start(&text(&first)).await;
    start(&rig).await;
    until_told(&first, "web: rollout 1 step 1 of 1: 10% for 1h").await;
    let told = first.asked();
    assert!(told.iter().all(|asked| asked.uri.path() == "/hook" && asked.json()["service"] == "web"), "{told:?}");

    rig.configure(&text(&second));
    rig.client().reload().await.expect("reloaded");
    rig.client().change_rollout(&name("web"), RolloutAction::Word(RolloutWord::Abort)).await.expect("aborted");
    until_told(&second, "web: rollout 1 aborted: by").await;
    assert_eq!(first.asked().len(), told.len(), "it isn't asked for any more");
    assert_eq!(rig.dataplane.service(&key()).map(|service| service.weight), Some(Weight::ZERO));
    rig.stop().await.expect("stopped in order");
}

async fn until_told(server: &Server, text: &str) {
    let is_told = || server.asked().iter().any(|asked| asked.json()["text"].as_str().is_some_and(|told| told.starts_with(text)));
    let wait = async {
        while !is_told() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), wait).await;
    told.unwrap_or_else(|_| panic!("{text}: not among {:?}", server.asked()));
}

async fn start(rig: &Rig) {
    let action = RolloutAction::Word(RolloutWord::Start);
    rig.client().change_rollout(&name("web"), action).await.expect("started");
}

/// A plan without limits of its own, so that only the rollout can flip.
fn planned(plan: &str, more: &str) -> String {
    let (before, _) = CONFIG.split_once("[service.breach]").expect("it has one");
    format!("{before}[service.rollout]\n{plan}\n\n{more}")
}
