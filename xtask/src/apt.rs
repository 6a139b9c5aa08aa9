//! Packages from the machine's own Debian mirror, without touching the machine's apt or dpkg.
//!
//! The mirror's address is the one that the machine is configured for; everything apt writes goes to a directory of
//! ours; apt checks Debian's signature as always.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    run::{self, Log},
    workspace::{self, output_of},
};

/// A package in one exact version.
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    pub suite: &'static str,
}

/// One of Debian's archives; a mirror has each in its own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    Main,
    Security,
}

impl Archive {
    /// What the archive's indices call it.
    const fn label(self) -> &'static str {
        match self {
            Self::Main => "Debian",
            Self::Security => "Debian-Security",
        }
    }
}

/// Indices and the package together are under 60 MB.
const LIMIT: Duration = Duration::from_secs(300);
const KEYRINGS: [&str; 2] = ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
const TIMEOUTS: [&str; 3] = ["-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20", "-oAcquire::Retries=1"];
/// What apt is asked about each index it knows; `choose_mirror` reads it.
const INDEX_FORMAT: &str = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CREATED_BY)|$(SITE)";

/// apt's own program for single files, which knows of proxies as apt does.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Downloads the package into `work` and gives back the archive's path.
pub fn download(package: &Package, work: &Path, log: &Path) -> Result<PathBuf> {
    let step = package.name;
    let install = "this needs Debian's tools, or rustup with a way to its server";
    workspace::require("apt-get", install)?;
    workspace::require("dpkg", install)?;
    let (work, only_ours) = index(Archive::Main, package.suite, step, work, log)?;
    println!("[{step}] downloading {} {}", package.name, package.version);
    apt_get(step, &work, log, |command| {
        command.args(&only_ours).args(["download", &format!("{}={}", package.name, package.version)]);
    })?;
    archive(&work, package)
}

/// What a suite has: its packages' descriptions, one after the other, with empty lines between.
pub fn available(archive: Archive, suite: &str, step: &str, work: &Path, log: &Path) -> Result<String> {
    let (work, only_ours) = index(archive, suite, step, work, log)?;
    let mut command = Command::new("apt-cache");
    // Without what is installed here.
    command.args(private(&work)).args(only_ours).args(["-oDir::State::status=/dev/null", "dumpavail"]);
    output_of(&mut command)
}

/// Reads a suite's index into `work`. Gives back that directory's absolute path, and the options by which apt knows this suite alone.
fn index(archive: Archive, suite: &str, step: &str, work: &Path, log: &Path) -> Result<(PathBuf, Vec<String>)> {
    let keyring = KEYRINGS
        .iter()
        .find(|path| Path::new(path).exists())
        .context("Debian's signing keys are missing: apt-get install debian-archive-keyring")?;
    // apt reads its directories as relative to its own configuration unless they are absolute.
    let work = std::path::absolute(work).with_context(|| format!("cannot use {}", work.display()))?;
    make_directories(&work)?;
    let mirror = mirror(archive, step, &work, log)?;
    let sources = work.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))
        .with_context(|| format!("cannot write {}", sources.display()))?;
    let only_ours = vec![
        format!("-oDir::Etc::sourcelist={}", sources.display()),
        "-oDir::Etc::sourceparts=-".to_owned(),
        "-oAcquire::Languages=none".to_owned(),
    ];
    println!("[{step}] reading the index of {suite} from {mirror}");
    apt_get(step, &work, log, |command| {
        command.args(&only_ours).arg("update");
    })?;
    Ok((work, only_ours))
}

/// What apt needs to be there.
fn make_directories(work: &Path) -> Result<()> {
    for directory in ["lists/partial", "cache/archives/partial"] {
        let directory = work.join(directory);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    Ok(())
}

/// Downloads one file of an archive, by its place there, to `file`; it has this SHA-256 then. No index is read.
pub fn fetch(mirror: &str, path: &str, sha256: &str, file: &Path, step: &str, log: &Path) -> Result<()> {
    workspace::require(HELPER, "it is part of Debian's apt")?;
    let log_file = Log::create(step, log)?;
    let mut command = Command::new(HELPER);
    command.args(TIMEOUTS).env("LC_ALL", "C").arg("download-file").arg(format!("{mirror}/{path}")).arg(file);
    command.arg(format!("SHA256:{sha256}"));
    let ended = run::logged(&mut command, &log_file, Some(LIMIT))?;
    run::go_on()?;
    ensure!(ended.success(), "{}\n{} failed ({ended})", log_file.tail(), run::line(&command));
    Ok(())
}

/// Unpacks a package's files under `root`, installing nothing.
pub fn unpack(archive: &Path, root: &Path, step: &str, log: &Path) -> Result<()> {
    workspace::require("dpkg", "it is Debian's package tool")?;
    let log_file = Log::create(step, log)?;
    let mut command = Command::new("dpkg");
    command.arg("-x").arg(archive).arg(root);
    let ended = run::logged(&mut command, &log_file, Some(LIMIT))?;
    run::go_on()?;
    ensure!(ended.success(), "{}\n{} failed ({ended})", log_file.tail(), run::line(&command));
    Ok(())
}

/// The address of one of Debian's archives on the machine's mirror. apt knows an index's origin from its last update; on a machine that
/// had none, one is made into our own directory.
pub fn mirror(archive: Archive, step: &str, work: &Path, log: &Path) -> Result<String> {
    workspace::require("apt-get", "this needs Debian's tools")?;
    make_directories(work)?;
    let ask = |ours: bool| {
        let mut command = Command::new("apt-get");
        if ours {
            command.args(private(work));
        }
        output_of(command.args(["indextargets", "--format", INDEX_FORMAT]))
    };
    if let Some(mirror) = choose_mirror(archive, &ask(false)?) {
        return Ok(mirror.to_owned());
    }
    println!("[{step}] apt has no indices yet: reading the machine's own sources");
    // An unreachable third-party source fails the update and leaves Debian's index; the answer below decides.
    let failed = apt_get(step, work, log, |command| {
        command.arg("update");
    })
    .err();
    run::go_on()?;
    match (choose_mirror(archive, &ask(true)?), failed) {
        (Some(mirror), _) => Ok(mirror.to_owned()),
        (None, Some(error)) => Err(error),
        (None, None) => bail!("apt is configured for no archive that is called {}", archive.label()),
    }
}

/// Picks one of Debian's archives: not another one, nobody else's, and nothing that asks for a disc.
fn choose_mirror(archive: Archive, indices: &str) -> Option<&str> {
    indices.lines().find_map(|line| {
        let mut fields = line.splitn(5, '|');
        let mut next = || fields.next().unwrap_or_default();
        let (origin, label, component, created_by, site) = (next(), next(), next(), next(), next());
        let ours = origin == "Debian" && label == archive.label() && component == "main" && created_by == "Packages";
        (ours && !site.is_empty() && !site.starts_with("cdrom:")).then_some(site)
    })
}

/// The options that make apt write to `work` alone.
fn private(work: &Path) -> Vec<String> {
    let mut options = vec![
        format!("-oDir::State::lists={}/lists", work.display()),
        format!("-oDir::Cache={}/cache", work.display()),
        "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
    ];
    options.extend(TIMEOUTS.map(str::to_owned));
    if nix::unistd::geteuid().is_root() {
        // apt's own user may not be able to write to, or even reach, the target directory.
        options.push("-oAPT::Sandbox::User=root".to_owned());
    }
    options
}

fn apt_get(step: &str, work: &Path, log: &Path, arguments: impl FnOnce(&mut Command)) -> Result<()> {
    let log_file = Log::create(step, log)?;
    let mut command = Command::new("apt-get");
    // `download` writes to the current directory.
    command.current_dir(work).args(private(work)).env("LC_ALL", "C");
    arguments(&mut command);
    let ended = run::logged(&mut command, &log_file, Some(LIMIT))?;
    run::go_on()?;
    ensure!(ended.success(), "{}\napt-get failed ({ended}): see {}", log_file.tail(), log.display());
    Ok(())
}

/// apt escapes the version in the file's name; the name's beginning and end are certain.
fn archive(work: &Path, package: &Package) -> Result<PathBuf> {
    let entries = fs::read_dir(work).with_context(|| format!("cannot read {}", work.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", work.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&format!("{}_", package.name)) && name.ends_with(".deb") {
            return Ok(entry.path());
        }
    }
    bail!("apt-get downloaded {} and left no archive in {}", package.name, work.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_asked_for_is_chosen_among_what_apt_knows() {
        let indices = "\
Debian|Debian-Security|main|Packages|http://security.example/debian-security
Debian|Debian|main|DEP-11|http://wrong.example/debian
Debian|Debian|contrib|Packages|http://wrong.example/debian
Somebody|Somebody|main|Packages|https://packages.somebody.example/apt
Debian|Debian|main|Packages|cdrom:[Debian GNU/Linux 13]
Debian|Debian|main|Packages|http://mirror.example/debian
Debian|Debian|main|Packages|http://second.example/debian
";
        assert_eq!(choose_mirror(Archive::Main, indices), Some("http://mirror.example/debian"));
        assert_eq!(choose_mirror(Archive::Security, indices), Some("http://security.example/debian-security"));
    }

    #[test]
    fn a_machine_without_a_debian_archive_has_no_mirror() {
        for (indices, why) in [
            ("", "apt never updated"),
            ("Ubuntu|Ubuntu|main|Packages|http://mirror.example/ubuntu\n", "not Debian"),
            ("$(ORIGIN)|$(LABEL)|main|Packages|http://mirror.example/debian\n", "origin not known"),
            ("Debian|Debian|main|Packages|\n", "no address"),
            ("Debian\n", "cut short"),
        ] {
            assert_eq!(choose_mirror(Archive::Main, indices), None, "{why}");
        }
    }
}
