//! Decisions: `explain` and `trace`.

use super::layout::{BOLD, DIM, PLAIN, WARN, field, paint, time_of_day};
use crate::api::wire::{Decision, Explanation, Rule, TraceRecord, Verdict, Way};

const FIELD: usize = 10;

/// The steps of a decision, one a line.
pub fn explanation(explanation: &Explanation) -> String {
    let client = match explanation.port {
        Some(port) => std::net::SocketAddr::new(explanation.client, port).to_string(),
        None => explanation.client.to_string(),
    };
    let decision = &explanation.decision;
    let mut text = field(0, "service", FIELD, PLAIN, explanation.service.as_str());
    text += &field(0, "client", FIELD, PLAIN, &client);
    text += &field(0, "hash", FIELD, PLAIN, &decision.hash);
    text += &field(0, "place", FIELD, PLAIN, &decision.place.to_string());
    text += &steps(decision);
    if let Some(other) = &explanation.at {
        text += &format!("\n{}\n", paint(BOLD, &format!("a new connection at {} would get", other.weight)));
        text += &steps(&other.decision);
    }
    text
}

/// From the weight on: what is before depends on the client alone.
fn steps(decision: &Decision) -> String {
    let weight = format!("{} (places below 0x{:08x})", decision.weight, decision.threshold);
    let mut text = field(0, "weight", FIELD, PLAIN, &weight);
    text += &field(0, "rule", FIELD, PLAIN, &format!("{}: {}", rule_name(decision.rule), rule_in_words(decision.rule)));
    if let Some(cohort) = decision.cohort {
        text += &field(0, "cohort", FIELD, PLAIN, cohort.as_str());
    }
    if let Some(slot) = decision.slot {
        text += &field(0, "slot", FIELD, PLAIN, &format!("{} of {}", slot.index, slot.table_size));
    }
    if let Some(backend) = decision.backend {
        text += &field(0, "backend", FIELD, BOLD, &backend.to_string());
    }
    match &decision.way {
        Some(Way::Known { interface, mac }) => text += &field(0, "way", FIELD, PLAIN, &format!("{interface} {mac}")),
        Some(Way::Missing { missing }) => text += &field(0, "way", FIELD, WARN, &format!("none: {missing}")),
        None => {}
    }
    text
}

/// One packet, one line.
pub fn trace_record(record: &TraceRecord) -> String {
    let what = match &record.verdict {
        Verdict::Forwarded { rule, cohort, backend } => format!("{cohort} {backend}  {}", rule_name(*rule)),
        Verdict::Refused { reason } => paint(WARN, &format!("refused  {reason}")),
        Verdict::Dropped { reason } => paint(WARN, &format!("dropped  {reason}")),
        Verdict::Skipped { reason } => paint(DIM, &format!("skipped  {reason}")),
    };
    format!("{}  {:<21} -> {what}\n", time_of_day(record.at), record.client)
}

const fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::KnownConnection => "known_connection",
        Rule::Flipped => "flipped",
        Rule::Tripped => "tripped",
        Rule::LeaseRanOut => "lease_ran_out",
        Rule::NeverCanary { .. } => "never_canary",
        Rule::AlwaysCanary { .. } => "always_canary",
        Rule::PlaceBelowWeight => "place_below_weight",
        Rule::PlaceAboveWeight => "place_above_weight",
        Rule::CanaryFallback => "canary_fallback",
        Rule::NoBackend => "no_backend",
    }
}

fn rule_in_words(rule: Rule) -> String {
    match rule {
        Rule::KnownConnection => "the connection is established and keeps its backend".to_owned(),
        Rule::Flipped => "the service is flipped, everything new goes to stable".to_owned(),
        Rule::Tripped => "the service's breaker has tripped, everything new goes to stable".to_owned(),
        Rule::LeaseRanOut => "the agent's lease has run out, everything new goes to stable".to_owned(),
        Rule::NeverCanary { prefix } => format!("{prefix} never gets the canary"),
        Rule::AlwaysCanary { prefix } => format!("{prefix} always gets the canary"),
        Rule::PlaceBelowWeight => "the place is below the weight, which makes it canary".to_owned(),
        Rule::PlaceAboveWeight => "the place is not below the weight, which makes it stable".to_owned(),
        Rule::CanaryFallback => "it would be canary, but no canary backend is usable".to_owned(),
        Rule::NoBackend => "no stable backend is usable, the packet is refused".to_owned(),
    }
}
