//! What the data plane's maps take, by the kernel's own account.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::maps::MapData;

/// Tables that grow with services.
pub const BY_SERVICE: &[&str] = &["SERVICES", "SERVICE_COUNTERS"];
/// Tables that grow with backends. `MAGLEV` grows with services as well.
pub const BY_BACKEND: &[&str] = &["BACKENDS", "BACKEND_COUNTERS", "SWEEP_COUNTERS"];
/// Tables that connections of `dsr` services are in.
pub const DSR: &[&str] = &["AFFINITY"];
/// Tables that connections of `nat` services are in.
pub const NAT: &[&str] = &["NAT_AFFINITY", "SLOTS"];

/// Octets that the kernel has taken for these of the maps that are pinned in a directory.
///
/// # Errors
/// There is no such map, or the kernel doesn't tell.
pub fn taken(maps: &Path, names: &[&str]) -> Result<u64> {
    names.iter().map(|name| of_map(&maps.join(name))).sum()
}

/// Octets that the kernel has taken for all maps that are pinned in a directory.
///
/// # Errors
/// The directory can't be read, or the kernel doesn't tell.
pub fn all(maps: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(maps)? {
        sum += of_map(&entry?.path())?;
    }
    Ok(sum)
}

fn of_map(pin: &Path) -> Result<u64> {
    let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    memlock(&text).with_context(|| format!("{} has no memlock", pin.display()))
}

/// `memlock` of a map's `/proc/…/fdinfo`: what it takes, pages and the kernel's own structure counted (`map_mem_usage` of the map's kind; before Linux 6.4 what was
/// charged for it).
fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("memlock:")).and_then(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memlock_is_found_among_what_the_kernel_tells() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1061\nmap_type:\t2\nmax_entries:\t131072\nmemlock:\t8392704\nmap_id:\t9\n";
        assert_eq!(memlock(fdinfo), Some(8_392_704));
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
