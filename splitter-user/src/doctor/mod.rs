//! Why don't packets reach the backends? What can be found out without an agent.
//!
//! [`system`] and [`network`] read what there is; what it means is in functions of values, beside them. The checks come in the order in which
//! they matter: without the first, the later ones don't.
//!
//! Neither `ip_forward` nor `rp_filter` is looked at: packets that are split never get as far as the kernel's routing.

mod network;
mod system;

use std::path::Path;

use crate::{
    api::wire::{Check, CheckResult, DoctorReport},
    config::{self, Config},
};

/// Looks at this node, and at a configuration's interfaces and services if one is named.
#[must_use]
pub fn examine(file: Option<&Path>) -> DoctorReport {
    let mut checks = vec![system::kernel(), system::btf(), system::jit(), system::privileges()];
    match file.map(|file| (file, config::load(file))) {
        None => checks.push(system::bpf_file_system(Path::new(DEFAULT_PINS))),
        Some((file, Ok(config))) => {
            checks.push(ok("configuration", file.display(), "it is valid"));
            checks.push(system::bpf_file_system(&config.agent.pin_directory));
            checks.extend(system::ports(&config));
            checks.extend(networks(&config));
        }
        Some((file, Err(error))) => {
            let finding = error.lines().join("; ");
            checks.push(fail("configuration", file.display(), finding, "`splitter check FILE` says what to write instead"));
        }
    }
    DoctorReport { checks }
}

/// Where pins are when nothing else is said.
const DEFAULT_PINS: &str = "/sys/fs/bpf/splitter";

fn networks(config: &Config) -> Vec<Check> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(network::examine(config)),
        Err(error) => vec![unknown("network", "", format!("the kernel cannot be asked: {error}"))],
    }
}

fn check(name: &str, subject: impl ToString, result: CheckResult, finding: impl Into<String>, remedy: Option<String>) -> Check {
    let subject = Some(subject.to_string()).filter(|subject| !subject.is_empty());
    Check { name: name.to_owned(), subject, result, finding: finding.into(), remedy }
}

fn ok(name: &str, subject: impl ToString, finding: impl Into<String>) -> Check {
    check(name, subject, CheckResult::Ok, finding, None)
}

fn warn(name: &str, subject: impl ToString, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
    check(name, subject, CheckResult::Warn, finding, Some(remedy.into()))
}

fn fail(name: &str, subject: impl ToString, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
    check(name, subject, CheckResult::Fail, finding, Some(remedy.into()))
}

fn unknown(name: &str, subject: impl ToString, finding: impl Into<String>) -> Check {
    check(name, subject, CheckResult::Unknown, finding, None)
}
