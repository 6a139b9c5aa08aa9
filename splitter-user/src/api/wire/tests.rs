use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        command::{CommandError, CommandErrorKind},
        fake::{address, doctor, events, explanation, history, name, networks, rollout, status, time, trace, weight},
        routes::CALLS,
    },
    config::ConfigError,
    desired::Refusal,
    golden::golden_part,
    model::{BackendWeight, Cohort, Existing, NetworkList},
    store::{self, EventKind, FlipReason, Moved},
};

#[test]
fn the_json_of_every_answer_is_as_documented_and_reads_what_it_writes() {
    written_and_read("status", &status());
    written_and_read("networks", &networks());
    written_and_read("explanation", &explanation());
    written_and_read("events", &events());
    written_and_read("trace", &trace());
    written_and_read("doctor", &doctor());
    written_and_read("rollout", &rollout::status());
    written_and_read("history", &history());
}

#[test]
fn the_api_document_lists_every_call_and_every_kind_of_event() {
    let document = include_str!("../../../../docs/api.md");
    for (method, path) in CALLS {
        assert!(document.contains(&format!("`{method} {path}`")), "docs/api.md lacks {method} {path}");
    }
    for kind in every_kind_of_event() {
        let name = to_value(&kind)["kind"].clone();
        let name = name.as_str().expect("a kind is a word");
        assert!(document.contains(&format!("`{name}`")), "docs/api.md lacks the event {name}");
    }
}

#[test]
fn the_words_of_metrics_and_output_are_those_of_the_json() {
    for cause in FlipCause::ALL {
        assert_eq!(to_value(&cause), cause.as_str());
    }
    for state in [BackendState::Active, BackendState::Draining, BackendState::Unreachable, BackendState::Removed] {
        assert_eq!(to_value(&state), state.as_str());
    }
    for source in [WeightSource::Configuration, WeightSource::Command] {
        assert_eq!(to_value(&source), source.as_str());
    }
    for resume in [ResumeWord::Auto, ResumeWord::Manual] {
        assert_eq!(to_value(&resume), resume.as_str());
    }
    for phase in RolloutPhase::ALL {
        assert_eq!(to_value(&phase), phase.as_str());
    }
    for word in VerdictWord::ALL {
        assert_eq!(to_value(&word), word.as_str());
    }
    for word in [AnswerWord::Pass, AnswerWord::Bad, AnswerWord::NoData] {
        assert_eq!(to_value(&word), word.as_str());
    }
    for word in RolloutWord::ALL {
        assert_eq!(to_value(&word), word.as_str());
    }
    for mode in [AttachMode::Native, AttachMode::Generic] {
        assert_eq!(to_value(&mode), mode.as_str());
    }
}

#[test]
fn what_one_backend_does_not_know_the_sum_does_not_know() {
    let [web, dns] = &status().services[..] else { panic!("two services") };
    let stable = web.cohort(Cohort::Stable).expect("stable");
    let counters: Vec<_> = stable.backends.iter().map(|b| b.counters.expect("counted")).collect();
    let sums = stable.sums.expect("both are counted");
    assert_eq!(sums.to_backend.bytes, counters[0].to_backend.bytes + counters[1].to_backend.bytes);
    assert_eq!(sums.opened, 1_903_800);
    assert_eq!(stable.connections, Some(819));

    let canary = dns.cohort(Cohort::Canary).expect("canary");
    assert_eq!((canary.connections, canary.sums), (None, None));

    let one_way = Counters { from_backend: None, refused: None, established: None, ..counters[1] };
    let mixed: Counters = [counters[0], one_way].into_iter().sum();
    assert_eq!((mixed.from_backend, mixed.refused, mixed.live()), (None, None, None));
    assert_eq!(sums.live(), Some(792));
    assert_eq!(mixed.closed, counters[0].closed + one_way.closed);
}

#[test]
fn a_flip_that_was_kept_is_told_with_its_cause_and_its_reason_in_words() {
    let told = |reason| {
        Flip::from(store::Flip { at: time("2026-03-01T09:00:00Z"), by: "x".to_owned(), reason, existing: Existing::Keep })
    };
    let silent = told(FlipReason::Person { text: None });
    assert_eq!((silent.cause, silent.reason), (FlipCause::Command, None), "no words are put into anybody's mouth");
    assert_eq!(told(FlipReason::Person { text: Some("500s".to_owned()) }).reason.as_deref(), Some("500s"));
    assert_eq!(told(FlipReason::StateLost { kept_as: "/x".into() }).cause, FlipCause::StateLost);
    let tally = store::TripTally { attempts: 20, refused: 2, ..store::TripTally::default() };
    let finding = store::TripFinding {
        cause: store::TripCause::Refused,
        tripped_at: time("2026-03-01T09:00:00Z"),
        limit: weight("5%"),
        canary: tally,
        stable: store::TripTally::default(),
    };
    let tripped = told(FlipReason::Breaker { finding });
    assert_eq!((tripped.cause, tripped.reason), (FlipCause::Breaker, Some(finding.to_string())));
    let since = time("2026-03-01T09:00:00Z");
    let lapsed = told(FlipReason::Lease { since, lasted: std::time::Duration::from_secs(5) });
    let words = "the agent's lease had run out at 2026-03-01T09:00:00Z, for 5s, and `resume` is manual";
    assert_eq!((lapsed.cause, lapsed.reason.as_deref()), (FlipCause::Lease, Some(words)));
    for (check, cause) in store::Check::ALL.into_iter().zip([FlipCause::Refused, FlipCause::Reset, FlipCause::Timeout]) {
        let sample = store::Sample { failures: 1, attempts: 2 };
        let window = std::time::Duration::from_secs(1);
        let finding = store::Finding { check, canary: sample, stable: sample, limit: weight("5%"), window };
        let flip = told(FlipReason::Breach { finding });
        assert_eq!((flip.cause, flip.reason), (cause, Some(finding.to_string())));
    }
}

#[test]
fn what_the_rules_refuse_is_not_found_a_conflict_or_invalid() {
    let (service, backend) = (name("web"), address("10.0.0.1:1"));
    for (refusal, kind, code) in [
        (Refusal::UnknownBackend { service: service.clone(), backend }, CommandErrorKind::NotFound, ErrorCode::NotFound),
        (Refusal::NotFlipped { service: service.clone() }, CommandErrorKind::Conflict, ErrorCode::Conflict),
        (Refusal::AlreadyDraining { service, backend }, CommandErrorKind::Conflict, ErrorCode::Conflict),
        (Refusal::Invalid { violations: vec![] }, CommandErrorKind::Invalid, ErrorCode::Invalid),
    ] {
        let error = CommandError::from(refusal.clone());
        assert_eq!((error.kind, &error.message), (kind, &refusal.to_string()));
        assert_eq!(ErrorBody::from(error).code, code);
    }
    let refused = ConfigError::Read { path: "/x".into(), source: std::io::Error::other("no") };
    assert_eq!(CommandError::from(refused).kind, CommandErrorKind::Invalid);
}

#[test]
fn requests_with_unknown_or_wrong_fields_are_refused() {
    for (why, refused) in [
        ("misspelt", from_value::<SetWeight>(json!({"weigth": "5%"}))),
        ("too much", from_value::<SetWeight>(json!({"weight": "101%"}))),
        ("a number isn't a percentage", from_value::<SetWeight>(json!({"weight": 5}))),
    ] {
        assert!(refused.is_err(), "{why}");
    }
    assert!(from_value::<FlipRequest>(json!({"exsiting": "reset"})).is_err());
    assert!(from_value::<PromoteRequest>(json!({"fulll": true})).is_err());
    assert!(from_value::<NetworkChange>(json!({"list": "always-canary", "add": ["10.0.0.0/33"]})).is_err());
    assert!(from_value::<AddBackend>(json!({"address": "10.0.0.1:80", "cohort": "canary", "weight": 0})).is_err());
    let default: FlipRequest = from_value(json!({})).expect("everything has a default");
    assert_eq!(default.existing, Existing::Keep);
}

#[test]
fn a_weight_that_contradicts_its_basis_points_is_not_read() {
    let mut weights = to_value(&status().services[0].weights);
    weights["weight_in_force_bp"] = json!(501);
    assert!(from_value::<Weights>(weights).is_err());
    let mut rollout = to_value(&rollout::status());
    rollout["weight_bp"] = json!(501);
    assert!(from_value::<RolloutStatus>(rollout).is_err());
}

#[test]
fn a_step_that_was_left_without_a_verdict_was_neither_passed_nor_left_early_by_somebody() {
    let mut run = rollout::started();
    let of = run.plan.steps.len();
    run.note(time("2026-03-01T09:20:00Z"), Moved::Proceeded { step: 1, of, what: "3 of 500 connections on canary".to_owned() });
    assert_eq!(RolloutStatus::new(&name("web"), &run).steps[0].state, StepState::Proceeded);
    let kept = Rollout::from(store::Record { service: name("web"), run, left_out: 0 });
    assert_eq!((kept.steps[0].verdict, kept.steps[0].canary), (Some(StepVerdict::Proceeded), None));
}

#[test]
fn a_place_is_a_fraction_of_the_hash_space() {
    assert_eq!(Place(0).fraction(), 0.0);
    assert_eq!(Place(1 << 31).fraction(), 0.5);
    assert_eq!(Place(0x2fae_147b).to_string(), "18.6250% (0x2fae147b)");
}

fn every_kind_of_event() -> Vec<EventKind> {
    let by = || "root".to_owned();
    let backend = address("10.0.0.1:1");
    let (cohort, one, list) = (Cohort::Canary, BackendWeight::ONE, NetworkList::NeverCanary);
    let network = "10.0.0.0/8".parse().expect("a prefix");
    let existing = Existing::Keep;
    let kinds = vec![
        EventKind::AgentStarted { adopted: true },
        EventKind::AgentStopped { detached: false },
        EventKind::StateDamaged { kept_as: "/x".into(), why: "cut short".to_owned() },
        EventKind::Reloaded { services: 1 },
        EventKind::ReloadRefused { errors: vec![] },
        EventKind::Detached { by: by() },
        EventKind::WeightChanged { from: weight("1%"), to: weight("5%"), by: by() },
        EventKind::WeightFromConfiguration { asked: weight("1%"), configured: weight("5%") },
        EventKind::Flipped { reason: FlipReason::Person { text: None }, existing, by: by() },
        EventKind::FlipChanged { existing, by: by() },
        EventKind::LeaseRanOut {
            since: time("2026-03-01T09:00:00Z"),
            lasted: std::time::Duration::from_secs(5),
            to_stable: vec![name("web")],
            held: vec![],
            resumed: true,
        },
        EventKind::Rollout { rollout: 3, what: Moved::Gate { step: 2, of: 4, gate: "manual".to_owned() } },
        EventKind::Unflipped { weight: weight("1%"), by: by() },
        EventKind::BackendAdded { backend, cohort, weight: one, by: by() },
        EventKind::BackendRemoved { backend, cohort, by: by() },
        EventKind::BackendDraining { backend, by: by() },
        EventKind::BackendDrained { backend },
        EventKind::BackendUndrained { backend, by: by() },
        EventKind::BackendWeightChanged { backend, from: one, to: one, by: by() },
        EventKind::BackendUnreachable { backend, why: "no route".to_owned() },
        EventKind::BackendReachable { backend },
        EventKind::NoStableBackend,
        EventKind::StableBackendBack,
        EventKind::NoCanaryBackend,
        EventKind::NetworkAdded { network, list, by: by() },
        EventKind::NetworkRemoved { network, list, by: by() },
        EventKind::NetworksChanged { list, added: 2, removed: 1, by: by() },
        EventKind::RequestDropped { what: "weight 5%".to_owned(), why: "the service is gone".to_owned() },
    ];
    // A new kind doesn't compile here: add it above, and to docs/api.md.
    for kind in &kinds {
        match kind {
            EventKind::AgentStarted { .. }
            | EventKind::AgentStopped { .. }
            | EventKind::StateDamaged { .. }
            | EventKind::Reloaded { .. }
            | EventKind::ReloadRefused { .. }
            | EventKind::Detached { .. }
            | EventKind::WeightChanged { .. }
            | EventKind::WeightFromConfiguration { .. }
            | EventKind::Flipped { .. }
            | EventKind::FlipChanged { .. }
            | EventKind::LeaseRanOut { .. }
            | EventKind::Rollout { .. }
            | EventKind::Unflipped { .. }
            | EventKind::BackendAdded { .. }
            | EventKind::BackendRemoved { .. }
            | EventKind::BackendDraining { .. }
            | EventKind::BackendDrained { .. }
            | EventKind::BackendUndrained { .. }
            | EventKind::BackendWeightChanged { .. }
            | EventKind::BackendUnreachable { .. }
            | EventKind::BackendReachable { .. }
            | EventKind::NoStableBackend
            | EventKind::StableBackendBack
            | EventKind::NoCanaryBackend
            | EventKind::NetworkAdded { .. }
            | EventKind::NetworkRemoved { .. }
            | EventKind::NetworksChanged { .. }
            | EventKind::RequestDropped { .. } => {}
        }
    }
    kinds
}

fn written_and_read<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let text = serde_json::to_string_pretty(value).expect("it can be written");
    assert_eq!(&serde_json::from_str::<T>(&text).expect("it can be read"), value);
    golden_part("api.md", name, &format!("```json\n{text}\n```\n"));
}

fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("it can be written")
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}
