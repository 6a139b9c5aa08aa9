//! Lists of lines: events, networks, the doctor's report.

use super::layout::{BAD, BOLD, DIM, GOOD, WARN, paint, time, wrap};
use crate::api::wire::{BreachReport, CheckResult, DoctorReport, Event, EventKind, NetworkList, Networks};

/// One event: when, to which service, what, by whom; and the numbers, where a limit was crossed.
pub fn event(event: &Event) -> String {
    const HANG: usize = 22;
    let service = event.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
    let text = wrap(&format!("{service}{} ({})", event.message, event.by), HANG);
    let numbers = match &event.kind {
        EventKind::Flipped { breach: Some(breach), .. } => format!("{}{}", " ".repeat(HANG), wrap(&numbers(breach), HANG)),
        EventKind::Flipped { breach: None, .. }
        | EventKind::AgentStarted { .. }
        | EventKind::AgentStopped { .. }
        | EventKind::Reloaded { .. }
        | EventKind::Detached
        | EventKind::WeightChanged { .. }
        | EventKind::Unflipped
        | EventKind::BackendAdded { .. }
        | EventKind::BackendRemoved { .. }
        | EventKind::BackendDraining { .. }
        | EventKind::BackendUndrained { .. }
        | EventKind::BackendWeightChanged { .. }
        | EventKind::BackendUnreachable { .. }
        | EventKind::BackendReachable { .. }
        | EventKind::NetworksChanged { .. } => String::new(),
    };
    format!("{}  {text}{numbers}", paint(DIM, &time(event.at)))
}

fn numbers(breach: &BreachReport) -> String {
    let seconds = breach.window_ms as f64 / 1_000.0;
    let (canary, stable) = (breach.canary, breach.stable);
    format!(
        "canary {} of {}, stable {} of {} in {seconds} s; limit {}",
        canary.failed, canary.of, stable.failed, stable.of, breach.limit
    )
}

/// One network a line, with its list.
pub fn networks(networks: &Networks) -> String {
    let lists = [(NetworkList::AlwaysCanary, &networks.always_canary), (NetworkList::NeverCanary, &networks.never_canary)];
    let lines = lists.iter().flat_map(|(list, nets)| nets.iter().map(|net| format!("{:<13}  {net}\n", list.as_str())));
    let text: String = lines.collect();
    if text.is_empty() { format!("{}: both lists are empty\n", networks.service) } else { text }
}

/// One check a line, and a remedy below where there is one.
pub fn doctor(report: &DoctorReport) -> String {
    const HANG: usize = 9;
    let mut text = String::new();
    for check in &report.checks {
        let (word, style) = match check.result {
            CheckResult::Ok => ("ok       ", GOOD),
            CheckResult::Warn => ("warning  ", WARN),
            CheckResult::Fail => ("FAILED   ", BAD),
            CheckResult::Unknown => ("unknown  ", WARN),
        };
        let subject = check.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
        text += &paint(style, word);
        text += &wrap(&format!("{}{subject}: {}", check.name, check.finding), HANG);
        if let Some(remedy) = &check.remedy {
            text += &format!("{}{}", " ".repeat(HANG), wrap(&format!("hint: {remedy}"), HANG));
        }
    }
    let failed = report.checks.iter().filter(|check| check.result == CheckResult::Fail).count();
    let summary = format!("{} checks, {failed} failed", report.checks.len());
    format!("{text}{}\n", paint(BOLD, &summary))
}
