//! Lists of lines: events, networks, the doctor's report.

use super::layout::{BAD, BOLD, DIM, GOOD, WARN, paint, time, wrap};
use crate::{
    api::wire::{CheckResult, DoctorReport, Event, Networks},
    model::NetworkList,
};

/// One event: when, to which service, what, by whom.
pub fn event(event: &Event) -> String {
    const HANG: usize = 22;
    let service = event.service.as_ref().map(|service| format!("{service}: ")).unwrap_or_default();
    format!("{}  {}", paint(DIM, &time(event.at)), wrap(&format!("{service}{}", event.message), HANG))
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
