//! What the agent keeps on disk: `state.json`, and the records in `history.redb`.

use std::sync::LazyLock;

use jiff::Timestamp;
use splitter_user::{
    api::wire,
    config::Config,
    desired,
    model::Seed,
    store::{EventKind, Record, State, decode, encode},
};

/// A configuration that the state may or may not fit.
const CONFIG: &str = include_str!("../seeds/config/plan.toml");

static CONFIGURED: LazyLock<Config> = LazyLock::new(|| Config::parse(CONFIG, "plan.toml").expect("the seed is valid"));

/// Reads octets as a state and as a record, and goes on from there.
///
/// # Panics
/// When what was read isn't read the same again, or nothing can be done with it.
pub fn check(octets: &[u8]) {
    match decode(octets) {
        Ok(state) => {
            assert_kept(&state);
            go_on(&state);
        }
        Err(error) => assert!(!error.to_string().trim().is_empty(), "it is refused without a word"),
    }
    if let Ok(record) = Record::decode(octets) {
        let kept = serde_json::to_vec(&record).expect("a record can be kept");
        let read = Record::decode(&kept).expect("what is kept can be read");
        assert_eq!(serde_json::to_vec(&read).expect("again"), kept, "it's read as another record");
        serde_json::to_vec(&wire::Rollout::from(record)).expect("a record can be told");
    }
}

fn assert_kept(state: &State) {
    let kept = encode(state).expect("a state can be kept");
    let read = decode(&kept).expect("what is kept can be read");
    assert_eq!(encode(&read).expect("again"), kept, "it's read as another state");
}

/// What an agent does that finds it.
fn go_on(state: &State) {
    let last = state.last_event();
    assert!(state.events().all(|event| event.id <= last), "an event has a number that none has yet");
    let fitting = desired::reconcile(&CONFIGURED, state, Timestamp::UNIX_EPOCH);
    let mut next = desired::give_seeds(&CONFIGURED, &fitting, || Seed([1, 2]));
    desired::services(&CONFIGURED, &next).expect("a reconciled state fits");
    let number = next.record(Timestamp::UNIX_EPOCH, None, EventKind::AgentStarted { adopted: true });
    assert!(number > last, "an event's number is one that was there");
    for event in next.events_after(0) {
        assert!(!event.to_string().is_empty(), "an event says nothing");
        serde_json::to_vec(&wire::Event::from(event.clone())).expect("an event can be told");
    }
    for (name, asked) in &next.services {
        for run in asked.rollout.iter().map(AsRef::as_ref).chain(&asked.past) {
            serde_json::to_vec(&wire::RolloutStatus::new(name, run)).expect("a rollout can be told");
        }
    }
    assert_kept(&next);
}
