//! The programs that the tests and the bench call: real servers, real clients, a real Prometheus.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    report,
    run::{self, Log},
    workspace::{self, Workspace},
};

/// A command, with Debian's package of it.
pub type Tool = (&'static str, &'static str);

/// What the tests call.
pub const TESTS: [Tool; 10] = [
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("systemd-analyze", "systemd"),
    ("faketime", "faketime"),
];
/// Those that the tests let talk through a splitter besides, to replay what they say.
pub const TALKERS: [Tool; 11] = [
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("iperf3", "iperf3"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("gtlsserver", "ngtcp2-server"),
    ("gtlsclient", "ngtcp2-client"),
    ("openssl", "openssl"),
];
/// What the bench calls besides: Splitter's peers. A path is a file that is no command.
const PEERS: &[Tool] = &[("haproxy", "haproxy"), ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream")];
/// What building the fuzz targets needs besides: libFuzzer is written in C++.
pub const FUZZ: [Tool; 1] = [("g++", "g++")];
const STEP: &str = "packages";
/// Debian asks this program whether a freshly installed service may be started.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Our answer: no. The comment tells our file from the machine's own.
const DENY: &str = "#!/bin/sh\n# Written by `cargo xtask test` while it installs packages; safe to remove.\nexit 101\n";
const UPDATE_LIMIT: Duration = Duration::from_secs(180);

/// Installs what is missing of what the tests call, starting none of it.
pub fn ensure(workspace: &Workspace, tools: &[Tool]) -> Result<()> {
    ensure_all(workspace, "looking for the programs that the tests call", tools)
}

/// Installs what is missing of what the bench calls besides, starting none of it. The bench can do without: a peer that is absent has a row that says so.
pub fn bench(workspace: &Workspace) -> Result<()> {
    ensure_all(workspace, "looking for the peers that the bench compares", PEERS)
}

fn ensure_all(workspace: &Workspace, what: &str, wanted: &[Tool]) -> Result<()> {
    report::step(STEP, what, || {
        let missing = missing(wanted);
        if missing.is_empty() {
            return Ok(((), format!("found all {}", wanted.len())));
        }
        let packages = packages_of(wanted, &missing);
        install(workspace, &missing, &packages)?;
        let still = self::missing(wanted);
        if !still.is_empty() {
            bail!("{} still missing after apt-get installed {}", still.join(", "), packages.join(" "));
        }
        Ok(((), format!("installed {}", packages.join(" "))))
    })
}

fn missing(wanted: &[Tool]) -> Vec<&'static str> {
    let found = |name: &str| if name.starts_with('/') { Path::new(name).exists() } else { workspace::find(name).is_some() };
    wanted.iter().map(|(name, _)| *name).filter(|name| !found(name)).collect()
}

fn packages_of(wanted: &[Tool], missing: &[&str]) -> Vec<&'static str> {
    let mut packages: Vec<_> = wanted.iter().filter(|(name, _)| missing.contains(name)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn install(workspace: &Workspace, missing: &[&str], packages: &[&str]) -> Result<()> {
    workspace::require("apt-get", &format!("install these by hand: {}", missing.join(", ")))?;
    let path = workspace.own("packages.log");
    let log = Log::create(STEP, &path)?;
    println!("[{STEP}] installing {}", packages.join(" "));
    let _guard = ServicesStayDown::begin(Path::new(POLICY))?;

    // Where one source of several cannot be reached, the package may still be had: the installation decides.
    let updated = run::logged(apt_get().arg("update"), &log, Some(UPDATE_LIMIT))?;
    run::go_on()?;
    // No limit: dpkg must not be ended in the middle.
    let mut command = apt_get();
    command.args(["install", "-y", "--no-install-recommends"]).args(packages);
    let installed = run::logged(&mut command, &log, None)?;
    run::go_on()?;
    if !installed.success() {
        bail!("{}\n{} failed ({installed}; update: {updated}): see {}", log.tail(), run::line(&command), workspace.shown(&path));
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command.args(["-oDPkg::Lock::Timeout=120", "-oDpkg::Options::=--force-confold"]);
    command
}

/// While it lives, packages are installed without their services being started.
#[derive(Debug)]
struct ServicesStayDown<'a> {
    /// The file to be removed; `None` where the machine has a policy of its own, which is left to decide.
    ours: Option<&'a Path>,
}

impl<'a> ServicesStayDown<'a> {
    fn begin(policy: &'a Path) -> Result<Self> {
        match fs::read_to_string(policy) {
            // Left by a run that was killed.
            Ok(text) if text == DENY => return Ok(Self { ours: Some(policy) }),
            Ok(_) => {
                println!("[{STEP}] {} exists: it decides whether services are started", policy.display());
                return Ok(Self { ours: None });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", policy.display())),
        }
        let write = || -> io::Result<()> {
            let mut file: File = File::options().write(true).create_new(true).mode(0o755).open(policy)?;
            file.write_all(DENY.as_bytes())?;
            // The umask may have taken the execute bits away.
            file.set_permissions(Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write {}, so packages would start their services", policy.display()))?;
        Ok(Self { ours: Some(policy) })
    }
}

impl Drop for ServicesStayDown<'_> {
    fn drop(&mut self) {
        if let Some(policy) = self.ours
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("warning: cannot remove {}: {error}; remove it by hand", policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_installed_once() {
        assert_eq!(packages_of(&TESTS, &["promtool", "prometheus", "ip"]), ["prometheus", "iproute2"]);
        assert_eq!(packages_of(&TESTS, &[]), [""; 0]);
    }

    #[test]
    fn a_file_that_is_no_command_is_looked_for_at_its_place() {
        let wanted = [("/usr/lib/no-such-module.so", "its-package"), ("/", "base-files")];
        assert_eq!(missing(&wanted), ["/usr/lib/no-such-module.so"]);
    }

    #[test]
    fn services_stay_down_only_while_packages_are_installed() {
        let policy = scratch("deny");
        let guard = ServicesStayDown::begin(&policy).expect("the temporary directory can be written to");
        let answer = Command::new(&policy).status().expect("the policy can be run");
        assert_eq!(answer.code(), Some(101), "101 is \"denied\"");
        drop(guard);
        assert!(!policy.exists());
    }

    #[test]
    fn the_machines_own_policy_is_left_alone() {
        let policy = scratch("own");
        fs::write(&policy, "#!/bin/sh\nexit 0\n").expect("the temporary directory can be written to");
        drop(ServicesStayDown::begin(&policy).expect("it is readable"));
        assert_eq!(fs::read_to_string(&policy).expect("still there"), "#!/bin/sh\nexit 0\n");
        fs::remove_file(policy).expect("made above");
    }

    #[test]
    fn a_policy_that_a_killed_run_left_is_taken_away() {
        let policy = scratch("stale");
        fs::write(&policy, DENY).expect("the temporary directory can be written to");
        drop(ServicesStayDown::begin(&policy).expect("it is readable"));
        assert!(!policy.exists());
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("splitter-xtask-{}-policy-{name}", std::process::id()))
    }
}
