//! What the kernel has to allow the agent: nothing else than root's whole power would say less of what went wrong.

use std::fs;

/// Each with its number (capabilities(7)), and whether CAP_SYS_ADMIN stands for it, as before Linux 5.8.
const NEEDED: [(&str, u32, bool); 3] = [("CAP_BPF", 39, true), ("CAP_NET_ADMIN", 12, false), ("CAP_PERFMON", 38, true)];
const SYS_ADMIN: u32 = 21;

/// Those of the needed capabilities that this process doesn't have; none where that can't be found out.
pub(super) fn missing() -> Vec<&'static str> {
    fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective).map(missing_of).unwrap_or_default()
}

/// The effective set, as `/proc/PID/status` says it.
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn missing_of(set: u64) -> Vec<&'static str> {
    let has = |number: u32| set >> number & 1 != 0;
    let lacks = |(_, number, old): &(&str, u32, bool)| !(has(*number) || *old && has(SYS_ADMIN));
    NEEDED.into_iter().filter(lacks).map(|(name, ..)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_is_missed_by_its_name() {
        let all = 1 << 39 | 1 << 12 | 1 << 38;
        for (set, expected, why) in [
            (all, &[][..], "what the unit gives"),
            (u64::MAX >> 23, &[], "root"),
            (all & !(1 << 39), &["CAP_BPF"], "no maps, no programs"),
            (all & !(1 << 12), &["CAP_NET_ADMIN"], "nothing to attach to"),
            (all & !(1 << 38), &["CAP_PERFMON"], "the verifier takes no such program"),
            (1 << 21 | 1 << 12, &[], "the names that Linux 5.7 had"),
            (1 << 21, &["CAP_NET_ADMIN"], "which never was part of CAP_SYS_ADMIN"),
            (0, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"], "anybody"),
        ] {
            assert_eq!(missing_of(set), expected, "{why}");
        }
    }

    #[test]
    fn the_kernel_says_what_a_process_has() {
        assert_eq!(effective("Name:\tsplitter\nCapEff:\t000000c000001000\nCapBnd:\t0\n"), Some(1 << 39 | 1 << 38 | 1 << 12));
        assert_eq!(effective("Name:\tsplitter\n"), None);
        let own = fs::read_to_string("/proc/self/status").expect("a process has a status");
        assert!(effective(&own).is_some(), "{own}");
    }
}
