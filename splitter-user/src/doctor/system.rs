//! The kernel and this process's rights.

use std::{fs, io, path::Path};

use caps::{CapSet, Capability};
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};

use super::{fail, ok, unknown, warn};
use crate::{
    api::wire::Check,
    config::{Config, PortRange},
    dataplane::features,
};

/// The oldest kernel that the program is made for: earlier ones lack what its maps need.
const OLDEST: (u32, u32) = (5, 10);

/// The first with XDP programs that take frames of more than one page.
const MULTI_BUFFER: (u32, u32) = (5, 18);

pub(super) fn kernel() -> Check {
    match uname() {
        Ok(names) => judge_kernel(&names.release().to_string_lossy(), features::multi_buffer().ok()),
        Err(error) => unknown("kernel", "", format!("it does not say its version: {error}")),
    }
}

/// `multi_buffer`: what the kernel said when it was asked, which not everybody may.
fn judge_kernel(release: &str, multi_buffer: Option<bool>) -> Check {
    let Some(version) = version(release) else { return unknown("kernel", release, "its version is not understood") };
    let oldest = format!("{}.{}", OLDEST.0, OLDEST.1);
    if version < OLDEST {
        fail("kernel", release, format!("it is older than {oldest}"), format!("use Linux {oldest} or later"))
    } else if !multi_buffer.unwrap_or(version >= MULTI_BUFFER) {
        let finding = "it works, without jumbo frames: those need 5.18, and the program for single buffers is used";
        warn("kernel", release, finding, "keep the MTU at 1500, or use Linux 5.18 or later")
    } else {
        ok("kernel", release, format!("{oldest} or later, with jumbo frames"))
    }
}

/// Whether this kernel's XDP takes frames of more than one page; none if it isn't known.
pub(super) fn takes_jumbo_frames() -> Option<bool> {
    if let Ok(found) = features::multi_buffer() {
        return Some(found);
    }
    let names = uname().ok()?;
    Some(version(&names.release().to_string_lossy())? >= MULTI_BUFFER)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn btf() -> Check {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(PATH).exists() {
        ok("btf", "", "the kernel describes its types")
    } else {
        warn(
            "btf",
            "",
            format!("there is no {PATH}: the program may be refused"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it",
        )
    }
}

pub(super) fn jit() -> Check {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => {
            warn("jit", "", "BPF programs are interpreted: packets are split slowly", "`sysctl -w net.core.bpf_jit_enable=1`")
        }
        Ok(_) => ok("jit", "", "BPF programs are compiled"),
        // A kernel that always compiles has no switch for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => ok("jit", "", "BPF programs are compiled, always"),
        Err(error) => unknown("jit", "", format!("cannot read whether BPF programs are compiled: {error}")),
    }
}

pub(super) fn privileges() -> Check {
    match caps::read(None, CapSet::Effective) {
        Ok(held) => judge_privileges(|capability| held.contains(&capability)),
        Err(error) => unknown("privileges", "", format!("this process's capabilities cannot be read: {error}")),
    }
}

fn judge_privileges(holds: impl Fn(Capability) -> bool) -> Check {
    let bpf = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    let missing: Vec<String> = bpf
        .into_iter()
        .filter(|capability| !holds(*capability) && !holds(Capability::CAP_SYS_ADMIN))
        .chain([Capability::CAP_NET_ADMIN].into_iter().filter(|capability| !holds(*capability)))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        ok("privileges", "", "this process may do what the agent does")
    } else {
        let finding = format!("this process lacks {}, which the agent needs", missing.join(", "));
        warn("privileges", "", finding, "run the agent as root, or by deploy/splitter.service")
    }
}

/// Whether pins can be where they should be.
pub(super) fn bpf_file_system(pins: &Path) -> Check {
    // The directory itself is made by the agent.
    let existing = pins.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match statfs(existing) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => ok("bpf_fs", pins.display(), "it is on a BPF file system"),
        Ok(_) => fail("bpf_fs", pins.display(), "it is not on a BPF file system", "`mount -t bpf bpf /sys/fs/bpf`"),
        Err(error) => unknown("bpf_fs", pins.display(), format!("{} cannot be looked at: {error}", existing.display())),
    }
}

/// Whether the node's own connections use the ports of `nat`.
pub(super) fn ports(config: &Config) -> Option<Check> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    let own = PortRange { low: ports.next()?.ok()?, high: ports.next()?.ok()? };
    // Addresses that are named in the configuration may be for nothing else.
    config.nat.addresses.is_empty().then(|| judge_ports(config.nat.ports, own))
}

fn judge_ports(nat: PortRange, own: PortRange) -> Check {
    let subject = format!("{}-{}", nat.low, nat.high);
    if nat.high < own.low || own.high < nat.low {
        ok("nat_ports", subject, "the node's own connections use others")
    } else {
        let (low, high) = (own.low, own.high);
        let finding = format!("the node's own connections to backends may use the same ports ({low}-{high})");
        let remedy =
            "set `ports` in [nat] apart from net.ipv4.ip_local_port_range, or name `addresses` that are for nothing else";
        warn("nat_ports", subject, finding, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::CheckResult;

    #[test]
    fn a_kernel_is_judged_by_what_it_says_and_else_by_its_two_first_numbers() {
        let rows = [
            ("4.19.0-27-amd64", None, CheckResult::Fail),
            ("5.9", None, CheckResult::Fail),
            ("5.10.0-30-amd64", None, CheckResult::Warn),
            ("5.14.0-427.el9.x86_64", Some(true), CheckResult::Ok),
            ("5.18.0", None, CheckResult::Ok),
            ("5.18.0", Some(false), CheckResult::Warn),
            ("6.1.0-18-cloud-amd64", None, CheckResult::Ok),
            ("Linux", None, CheckResult::Unknown),
        ];
        for (release, multi_buffer, expected) in rows {
            assert_eq!(judge_kernel(release, multi_buffer).result, expected, "{release}, {multi_buffer:?}");
        }
    }

    #[test]
    fn missing_capabilities_are_named_and_the_old_one_counts_for_two() {
        assert_eq!(judge_privileges(|_| true).result, CheckResult::Ok);
        let old = |capability| matches!(capability, Capability::CAP_SYS_ADMIN | Capability::CAP_NET_ADMIN);
        assert_eq!(judge_privileges(old).result, CheckResult::Ok);
        let none = judge_privileges(|_| false);
        assert_eq!(none.finding, "this process lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, which the agent needs");
    }

    #[test]
    fn ports_that_both_may_use_are_a_warning() {
        let own = PortRange { low: 32_768, high: 60_999 };
        assert_eq!(judge_ports(PortRange { low: 1_024, high: 32_767 }, own).result, CheckResult::Ok);
        assert_eq!(judge_ports(PortRange { low: 1_024, high: 32_768 }, own).result, CheckResult::Warn);
        assert_eq!(judge_ports(PortRange { low: 40_000, high: 50_000 }, own).result, CheckResult::Warn);
    }

    #[test]
    fn this_machine_can_be_judged() {
        for check in [kernel(), btf(), jit(), privileges(), bpf_file_system(Path::new("/sys/fs/bpf/splitter"))] {
            assert_ne!(check.result, CheckResult::Unknown, "{check:?}");
        }
        assert_eq!(bpf_file_system(Path::new("/tmp/splitter")).result, CheckResult::Fail);
    }
}
