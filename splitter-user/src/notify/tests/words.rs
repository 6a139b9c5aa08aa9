//! What is worth telling, and the body that it becomes.

use serde_json::json;

use super::*;

#[test]
fn what_moves_a_rollout_or_sends_a_service_to_stable_is_told_and_a_flip_is_told_once() {
    let by = || "alice".to_owned();
    let person = || FlipReason::Person { text: None };
    let (canary, stable) = (Sample::default(), Sample::default());
    let weight = Weight::from_basis_points(100).expect("in range");
    let rows = [
        (moved(Moved::Started { by: by(), steps: 4 }), Some(Level::Info)),
        (moved(step_of(1)), Some(Level::Info)),
        (moved(Moved::Passed { step: 1, of: 4, canary, stable }), None),
        (moved(Moved::Gate { step: 4, of: 4, gate: "manual".to_owned() }), Some(Level::Wait)),
        (moved(Moved::Opened { step: 4, of: 4, by: by() }), None),
        (moved(Moved::Skipped { step: 4, of: 4, by: by() }), None),
        (moved(Moved::Paused { why: Pause::Person { by: by() } }), Some(Level::Wait)),
        (moved(Moved::Resumed { by: by() }), Some(Level::Info)),
        (moved(Moved::Flipped { reason: person() }), None),
        (moved(Moved::Promoting { by: None }), None),
        (moved(Moved::Promoted), Some(Level::Info)),
        (moved(Moved::Aborted { why: Abort::Person { by: by() } }), Some(Level::Alarm)),
        (EventKind::Flipped { reason: person(), existing: Existing::Keep, by: by() }, Some(Level::Alarm)),
        (EventKind::Flipped { reason: FlipReason::Found, existing: Existing::Keep, by: by() }, Some(Level::Alarm)),
        (EventKind::Unflipped { weight, by: by() }, Some(Level::Info)),
        (
            EventKind::LeaseRanOut {
                since: Timestamp::UNIX_EPOCH,
                lasted: Duration::from_secs(3),
                to_stable: Vec::new(),
                held: Vec::new(),
                resumed: false,
            },
            Some(Level::Alarm),
        ),
        (EventKind::StateDamaged { kept_as: PathBuf::from("/a"), why: by() }, Some(Level::Alarm)),
        (EventKind::FlipChanged { existing: Existing::Keep, by: by() }, None),
        (EventKind::WeightChanged { from: weight, to: weight, by: by() }, None),
        (EventKind::AgentStarted { adopted: true }, None),
        (EventKind::Reloaded { services: 1 }, None),
        (EventKind::NoCanaryBackend, None),
    ];
    for (kind, level) in rows {
        assert_eq!(worth(&kind), level, "{kind:?}");
    }
}

#[test]
fn a_notification_has_a_sentence_for_people_and_the_event_for_programs() {
    let gate = moved(Moved::Gate { step: 4, of: 4, gate: "manual".to_owned() });
    let message = Message::of(event(gate), "node1").expect("worth it");
    assert_eq!(
        serde_json::to_value(&message).expect("JSON"),
        json!({
            "text": "checkout: rollout 3 waits at the gate of step 4 of 4 (manual)",
            "level": "wait",
            "service": "checkout",
            "at": "1970-01-01T00:00:00Z",
            "node": "node1",
            "event": {
                "id": 17,
                "at": "1970-01-01T00:00:00Z",
                "service": "checkout",
                "message": "rollout 3 waits at the gate of step 4 of 4 (manual)",
                "kind": "rollout",
                "rollout": 3,
                "what": {"moved": "gate", "step": 4, "of": 4, "gate": "manual"},
            },
        })
    );
}

#[test]
fn nobodys_reason_is_a_command_to_slack() {
    let reason = FlipReason::Person { text: Some("<!channel> A&B\nlost".to_owned()) };
    let kind = EventKind::Flipped { reason, existing: Existing::Keep, by: "alice".to_owned() };
    let message = Message::of(event(kind), "node1").expect("worth it");
    assert_eq!(
        message.text,
        "checkout: flipped to stable, by alice: &lt;!channel&gt; A&amp;B lost (established canary connections: keep)"
    );
}
