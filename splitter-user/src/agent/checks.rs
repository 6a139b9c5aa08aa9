//! The agent's view of why packets may not reach a backend.

use super::core::{Core, NoWay, key};
use crate::{
    api::wire::{Check, CheckResult, DoctorReport},
    dataplane::AttachedMode,
    desired::Desired,
    model::{Backend, Cohort, Mode},
};

impl Core {
    /// Everything that the agent knows about the packets' way, in its order.
    pub(super) fn examine(&self) -> DoctorReport {
        let mut checks = Vec::new();
        if self.dataplane.is_none() {
            let remedy = "restart the agent to attach it again: `systemctl restart splitter`";
            checks.push(check(
                "attached",
                None,
                CheckResult::Fail,
                "the data plane was detached: nothing is split",
                Some(remedy),
            ));
            return DoctorReport { checks };
        }
        for interface in &self.info.interfaces {
            let (result, finding, remedy) = match interface.mode {
                AttachedMode::Native => (CheckResult::Ok, "the program runs in the driver", None),
                AttachedMode::Generic => {
                    let remedy = "where the driver has XDP of its own, set `xdp_mode = \"native\"`";
                    (CheckResult::Warn, "the program runs behind the driver (generic mode): it works, slowly", Some(remedy))
                }
            };
            checks.push(check("attached", Some(interface.name.clone()), result, finding, remedy));
        }
        for desired in &self.desired {
            for backend in &desired.service.backends {
                checks.push(self.check_way(desired, backend));
                checks.extend(self.check_replies(desired, backend));
            }
            checks.push(self.check_stable(desired));
        }
        DoctorReport { checks }
    }

    fn check_way(&self, desired: &Desired, backend: &Backend) -> Check {
        let subject = Some(subject(desired, backend));
        match self.way(desired.service.mode, backend.address.ip()) {
            Ok(way) => {
                let hop = way.gateway.map_or_else(|| "directly".to_owned(), |gateway| format!("by the gateway {gateway}"));
                let finding = format!("reached {hop}, out of {}, from {}", way.interface_name, way.source_address);
                check("way", subject, CheckResult::Ok, &finding, None)
            }
            Err(no_way) => {
                let ip = backend.address.ip();
                let remedy = match no_way {
                    NoWay::Pending(_) => "ask again in some seconds".to_owned(),
                    NoWay::Now(_) => {
                        format!("see whether it is up and on the same link: `ping {ip}`, `ip neigh get {ip} dev INTERFACE`")
                    }
                    NoWay::Never(_) => format!("see how this node would reach it: `ip route get {ip}`"),
                };
                check("way", subject, CheckResult::Fail, no_way.why(), Some(&remedy))
            }
        }
    }

    /// In `nat` mode replies must come back through the node. In `dsr` nobody can say.
    fn check_replies(&self, desired: &Desired, backend: &Backend) -> Option<Check> {
        if desired.service.mode != Mode::Nat {
            return None;
        }
        let sample = self.sample.services.get(&key(&desired.service))?.backends.get(&backend.address)?;
        let counters = sample.counters;
        let subject = Some(subject(desired, backend));
        Some(if counters.opened == 0 {
            check("replies", subject, CheckResult::Unknown, "it has had no connection yet", None)
        } else if counters.packets_from == 0 {
            let finding = format!("{} connections were sent to it, and not one reply was seen", counters.opened);
            let remedy = "replies bypass the node or don't exist: see on the backend whether packets arrive (`tcpdump`), whether it listens, and \
                whether its route back to the node's address leads to one of `interfaces`";
            check("replies", subject, CheckResult::Fail, &finding, Some(remedy))
        } else {
            check("replies", subject, CheckResult::Ok, &format!("{} packets came back", counters.packets_from), None)
        })
    }

    fn check_stable(&self, desired: &Desired) -> Check {
        let subject = Some(desired.service.name.to_string());
        if self.is_usable(desired, Cohort::Stable) {
            check("stable", subject, CheckResult::Ok, "new connections are taken", None)
        } else {
            let remedy = "add a stable backend, undrain one, or repair the way to one";
            check(
                "stable",
                subject,
                CheckResult::Fail,
                "no stable backend can be used: new connections are refused",
                Some(remedy),
            )
        }
    }
}

fn subject(desired: &Desired, backend: &Backend) -> String {
    format!("{} {}", desired.service.name, backend.address)
}

fn check(name: &str, subject: Option<String>, result: CheckResult, finding: &str, remedy: Option<&str>) -> Check {
    Check { name: name.to_owned(), subject, result, finding: finding.to_owned(), remedy: remedy.map(str::to_owned) }
}
