use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        fake::{address, doctor, events, explanation, networks, status, trace, weight},
        routes::CALLS,
    },
    golden::golden_part,
    model::{BackendWeight, Cohort},
};

#[test]
fn the_json_of_every_answer_is_as_documented_and_reads_what_it_writes() {
    written_and_read("status", &status());
    written_and_read("networks", &networks());
    written_and_read("explanation", &explanation());
    written_and_read("events", &events());
    written_and_read("trace", &trace());
    written_and_read("doctor", &doctor());
}

#[test]
fn the_api_document_lists_every_call_and_every_kind_of_event() {
    let document = include_str!("../../../../docs/api.md");
    for (method, path) in CALLS {
        assert!(document.contains(&format!("`{method} {path}`")), "docs/api.md lacks {method} {path}");
    }
    for name in EventKind::NAMES {
        assert!(document.contains(&format!("`{name}`")), "docs/api.md lacks the event {name}");
    }
}

#[test]
fn the_names_of_events_are_those_that_are_written() {
    let kinds = [
        EventKind::AgentStarted { version: "0.1.0".to_owned(), adopted: true },
        EventKind::AgentStopped { detached: false },
        EventKind::Reloaded { ok: true },
        EventKind::Detached,
        EventKind::WeightChanged { from: weight("1%"), to: weight("5%") },
        EventKind::Flipped { cause: FlipCause::Command, existing: crate::model::Existing::Keep, breach: None },
        EventKind::Unflipped,
        EventKind::BackendAdded { backend: address("10.0.0.1:1"), cohort: Cohort::Canary },
        EventKind::BackendRemoved { backend: address("10.0.0.1:1"), cohort: Cohort::Canary },
        EventKind::BackendDraining { backend: address("10.0.0.1:1") },
        EventKind::BackendUndrained { backend: address("10.0.0.1:1") },
        EventKind::BackendWeightChanged { backend: address("10.0.0.1:1"), from: BackendWeight::ONE, to: BackendWeight::ONE },
        EventKind::BackendUnreachable { backend: address("10.0.0.1:1") },
        EventKind::BackendReachable { backend: address("10.0.0.1:1") },
        EventKind::NetworksChanged { list: NetworkList::NeverCanary, added: 1, removed: 0 },
    ];
    let written: Vec<_> = kinds.iter().map(|kind| to_value(kind)["kind"].clone()).collect();
    assert_eq!(written, EventKind::NAMES);
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

    let one_way = Counters { from_backend: None, refused: None, ..counters[1] };
    let mixed: Counters = [counters[0], one_way].into_iter().sum();
    assert_eq!((mixed.from_backend, mixed.refused), (None, None));
    assert_eq!(mixed.closed, counters[0].closed + one_way.closed);
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
    assert!(from_value::<NetworkChange>(json!({"list": "always_canary", "add": ["10.0.0.0/33"]})).is_err());
    assert!(from_value::<AddBackend>(json!({"address": "10.0.0.1:80", "cohort": "canary", "weight": 0})).is_err());
    let default: FlipRequest = from_value(json!({})).expect("everything has a default");
    assert_eq!(default.existing, crate::model::Existing::Keep);
}

#[test]
fn a_weight_that_contradicts_its_basis_points_is_not_read() {
    let mut weights = to_value(&status().services[0].weights);
    weights["weight_in_force_bp"] = json!(501);
    assert!(from_value::<Weights>(weights).is_err());
}

#[test]
fn a_place_is_a_fraction_of_the_hash_space() {
    assert_eq!(Place(0).fraction(), 0.0);
    assert_eq!(Place(1 << 31).fraction(), 0.5);
    assert_eq!(Place(0x2fae_147b).to_string(), "18.6250% (0x2fae147b)");
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
