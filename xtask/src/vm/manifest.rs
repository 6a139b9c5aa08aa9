//! `xtask/kernels.toml`: which kernels there are, to the octet.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::apt::Archive;

/// All kernels, oldest first.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(rename = "kernel")]
    pub kernels: Vec<Kernel>,
}

/// One kernel, as Debian packs it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// What it is called here: `6.12`.
    pub version: String,
    /// Where Debian has it.
    pub suite: String,
    /// What it calls itself, `uname -r`.
    pub release: String,
    /// Tests that it can't run, by `suite::name`, each with what it lacks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skip: BTreeMap<String, String>,
    /// What holds its image and its modules.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// A package's archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// On a mirror, from the archive's root.
    pub path: String,
    pub sha256: String,
}

impl Manifest {
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text).context("xtask/kernels.toml is not as it should be")?;
        for kernel in &manifest.kernels {
            kernel.check().with_context(|| format!("xtask/kernels.toml: kernel {}", kernel.version))?;
        }
        Ok(manifest)
    }
}

impl Kernel {
    fn check(&self) -> Result<()> {
        let prefix = format!("{}.", self.version);
        ensure!(self.release.starts_with(&prefix), "release {} is another version's", self.release);
        ensure!(!self.packages.is_empty(), "it has no package");
        ensure!(self.skip.values().all(|why| !why.trim().is_empty()), "a test is skipped without a reason");
        for Package { name, path, sha256, .. } in &self.packages {
            let hexadecimal = sha256.chars().all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit));
            ensure!(sha256.len() == 64 && hexadecimal, "{name}: {sha256:?} is no SHA-256");
            ensure!(path.starts_with("pool/") && path.ends_with(".deb"), "{name}: {path:?} is no package's place on a mirror");
            ensure!(name.ends_with(&self.release), "{name} is another kernel's");
        }
        Ok(())
    }

    /// Which of Debian's archives has its suite.
    pub fn archive(&self) -> Archive {
        if self.suite.ends_with("-security") { Archive::Security } else { Archive::Main }
    }
}

impl Package {
    /// The archive's name in a directory. Debian escapes nothing in `path`, for epochs aren't in it.
    pub fn file_name(&self) -> &str {
        self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::MANIFEST;

    #[test]
    fn the_workspaces_manifest_has_the_four_kernels() {
        let manifest = Manifest::parse(MANIFEST).expect("the file is the workspace's own");
        let versions: Vec<_> = manifest.kernels.iter().map(|kernel| kernel.version.as_str()).collect();
        assert_eq!(versions, ["5.10", "6.1", "6.12", "7.2"]);
        let archives: Vec<_> = manifest.kernels.iter().map(Kernel::archive).collect();
        assert_eq!(archives, [Archive::Security, Archive::Security, Archive::Security, Archive::Main]);
    }

    #[test]
    fn a_mistake_in_a_manifest_is_told_with_its_kernel() {
        for (from, to, expected) in [
            ("6.1.0-56-cloud-amd64", "6.12.0-56-cloud-amd64", "release 6.12.0-56-cloud-amd64 is another version's"),
            ("e7d02b943971", "E7d02b943971", "is no SHA-256"),
            ("pool/updates/main/l/linux-signed-amd64/linux-image-6.1.0", "/etc/linux-image-6.1.0", "no package's place"),
            ("name = \"linux-image-6.1.0-56", "name = \"linux-image-6.1.0-55", "is another kernel's"),
        ] {
            let error = Manifest::parse(&MANIFEST.replace(from, to)).expect_err("it is wrong");
            let told = format!("{error:#}");
            assert!(told.contains("kernel 6.1") && told.contains(expected), "{told}");
        }
        assert!(Manifest::parse("[[kernel]]\nversion = \"6.1\"\n").is_err(), "most of it is missing");
    }

    #[test]
    fn a_manifest_survives_being_written() {
        let manifest = Manifest::parse(MANIFEST).expect("the file is the workspace's own");
        let text = toml::to_string(&manifest).expect("TOML");
        assert_eq!(Manifest::parse(&text).expect("just written"), manifest);
    }
}
