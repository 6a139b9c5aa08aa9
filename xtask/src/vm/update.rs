//! `--update-manifest`: the newest kernel of each line that its suite has.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

use super::manifest::{Kernel, Manifest, Package};
use crate::{apt, workspace::Workspace};

/// Where the manifest is, from the workspace's root.
const PLACE: &str = "xtask/kernels.toml";

/// Writes the manifest anew.
pub fn update(workspace: &Workspace, manifest: &Manifest, text: &str) -> Result<()> {
    let mut updated = manifest.clone();
    for kernel in &mut updated.kernels {
        let work = workspace.own(&format!("apt-{}", kernel.suite));
        let log = workspace.own(&format!("kernel-{}.log", kernel.version));
        let available = apt::available(kernel.archive(), &kernel.suite, "vm", &work, &log)?;
        let newest = newest(kernel, &available).with_context(|| {
            format!("{} has no kernel {} any more: name another line in {PLACE}", kernel.suite, kernel.version)
        })?;
        if newest == *kernel {
            println!("[vm] {kernel} is the newest of its line");
        } else {
            println!("[vm] {kernel} gives way to {}", newest.release);
        }
        *kernel = newest;
    }
    write(&updated, text, &workspace.root.join(PLACE))
}

/// Below the head comment of what is there.
fn write(manifest: &Manifest, text: &str, to: &Path) -> Result<()> {
    let head: String = text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let kernels = toml::to_string(manifest).context("TOML of plain values")?;
    std::fs::write(to, format!("{head}\n{kernels}")).with_context(|| format!("cannot write {}", to.display()))
}

/// The newest kernel of this one's line of which all of its packages are there.
fn newest(kernel: &Kernel, available: &str) -> Option<Kernel> {
    let packages: BTreeMap<&str, Package> = available.split("\n\n").filter_map(stanza).collect();
    let prefixes: Vec<&str> = kernel.packages.iter().filter_map(|package| package.name.strip_suffix(&kernel.release)).collect();
    let releases =
        packages.keys().filter_map(|name| name.strip_prefix(*prefixes.first()?)).filter(|release| is_of(kernel, release));
    let whole =
        releases.filter(|release| prefixes.iter().all(|prefix| packages.contains_key(format!("{prefix}{release}").as_str())));
    let release = whole.max_by_key(|release| numbers(release))?;
    let packages = prefixes.iter().map(|prefix| packages[format!("{prefix}{release}").as_str()].clone()).collect();
    Some(Kernel { release: release.to_owned(), packages, ..kernel.clone() })
}

/// Whether a release is of a kernel's line: `6.12.117+deb13-cloud-amd64` of 6.12, and not built for another Debian.
fn is_of(kernel: &Kernel, release: &str) -> bool {
    release.strip_prefix(&kernel.version).is_some_and(|rest| rest.starts_with('.'))
        && release.ends_with("-cloud-amd64")
        && release.contains("deb") == kernel.release.contains("deb")
}

/// What releases are ordered by.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// A package's description.
fn stanza(text: &str) -> Option<(&str, Package)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let (name, version) = (field("Package")?, field("Version")?);
    let (path, sha256) = (field("Filename")?, field("SHA256")?);
    Some((name, Package { name: name.into(), version: version.into(), path: path.into(), sha256: sha256.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::MANIFEST;

    #[test]
    fn the_newest_release_of_which_everything_is_there_is_taken() {
        let kernel = kernel(&["linux-binary-7.2.6+deb13-cloud-amd64", "linux-modules-7.2.6+deb13-cloud-amd64"]);
        let available = available(&[
            "linux-binary-7.2.6+deb13-cloud-amd64",
            "linux-modules-7.2.6+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            // Half of it.
            "linux-binary-7.2.13+deb13-cloud-amd64",
            // Other lines, other builds.
            "linux-binary-7.3.1+deb13-cloud-amd64",
            "linux-modules-7.3.1+deb13-cloud-amd64",
            "linux-binary-7.2.14+deb13-amd64",
            "linux-modules-7.2.14+deb13-amd64",
            "linux-binary-unsigned-7.2.15+deb13-cloud-amd64",
        ]);
        let found = newest(&kernel, &available).expect("there is one");
        assert_eq!(found.release, "7.2.12+deb13-cloud-amd64");
        let names: Vec<_> = found.packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["linux-binary-7.2.12+deb13-cloud-amd64", "linux-modules-7.2.12+deb13-cloud-amd64"]);
        assert_eq!(found.packages[0].path, "pool/linux-binary-7.2.12+deb13-cloud-amd64.deb");
    }

    #[test]
    fn what_is_new_is_all_that_an_update_changes() {
        let path = std::env::temp_dir().join(format!("splitter-xtask-{}-kernels.toml", std::process::id()));
        let manifest = Manifest::parse(MANIFEST).expect("the file is the workspace's own");
        write(&manifest, MANIFEST, &path).expect("the temporary directory can be written to");
        assert_eq!(std::fs::read_to_string(&path).expect("just written"), MANIFEST);
        std::fs::remove_file(path).expect("made above");
    }

    #[test]
    fn a_line_that_has_gone_is_none() {
        let kernel = kernel(&["linux-binary-7.2.6+deb13-cloud-amd64", "linux-modules-7.2.6+deb13-cloud-amd64"]);
        assert_eq!(newest(&kernel, &available(&["linux-binary-7.20.1+deb13-cloud-amd64"])), None);
        assert_eq!(newest(&kernel, ""), None);
    }

    fn kernel(names: &[&str]) -> Kernel {
        Kernel {
            version: "7.2".into(),
            suite: "trixie-backports".into(),
            release: "7.2.6+deb13-cloud-amd64".into(),
            skip: BTreeMap::new(),
            packages: names.iter().map(|name| stanza(&description(name)).expect("whole").1).collect(),
        }
    }

    fn available(names: &[&str]) -> String {
        names.iter().map(|name| description(name) + "\n\n").collect()
    }

    fn description(name: &str) -> String {
        format!("Package: {name}\nVersion: 1\nDepends: kmod\nFilename: pool/{name}.deb\nSHA256: {}", "a".repeat(64))
    }
}
