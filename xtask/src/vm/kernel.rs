//! A kernel's image and modules, out of Debian's packages, under `target/kernels`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use super::{
    manifest::{Kernel, Package},
    modules::{self, Module},
};
use crate::{apt, workspace::Workspace};

/// A kernel that can be started.
pub struct Ready {
    pub image: PathBuf,
    pub modules: Vec<Module>,
}

/// What became of the search for a kernel.
pub enum Found {
    Ready(Ready),
    /// It isn't cached, and nothing may be downloaded.
    NotCached,
}

/// What gets a package's archive and writes it to a file.
type Fetch<'a> = dyn Fn(&Package, &Path) -> Result<()> + 'a;

/// Finds a kernel or gets it. Not to be called twice at once.
pub fn ensure(workspace: &Workspace, kernel: &Kernel, offline: bool) -> Result<Found> {
    let cache = workspace.target.join("kernels");
    let fetch = |package: &Package, to: &Path| from_mirror(workspace, kernel, package, to);
    if !is_cached(&cache, kernel, (!offline).then_some(&fetch))? {
        return Ok(Found::NotCached);
    }
    let place = cache.join(&kernel.release);
    if !is_unpacked(&place, kernel)? {
        unpack(workspace, kernel, &cache, &place)?;
    }
    let modules = modules::wanted(&place.join("modules"))?;
    Ok(Found::Ready(Ready { image: place.join("vmlinuz"), modules }))
}

/// Whether the archive is there, to the octet. One that differs, as one half downloaded would, is told and replaced.
fn is_intact(file: &Path, package: &Package) -> Result<bool> {
    let mut archive = match File::open(file) {
        Ok(archive) => archive,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut hash = Sha256::new();
    io::copy(&mut archive, &mut hash).with_context(|| format!("cannot read {}", file.display()))?;
    let found: String = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
    if found == package.sha256 {
        return Ok(true);
    }
    println!("[vm] {} has the SHA-256 {found}, not the manifest's: not used", file.display());
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(false)
}

/// Whether all of a kernel's packages are there, after getting those that aren't by `fetch`, if there is one. What it cannot get is an error.
fn is_cached(cache: &Path, kernel: &Kernel, fetch: Option<&Fetch<'_>>) -> Result<bool> {
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    for package in &kernel.packages {
        let file = cache.join(package.file_name());
        if is_intact(&file, package)? {
            continue;
        }
        let Some(fetch) = fetch else { return Ok(false) };
        println!("[vm] downloading {} {}", package.name, package.version);
        let partial = file.with_extension("partial");
        fetch(package, &partial).map_err(|error| {
            anyhow!(
                "kernel {kernel} cannot be had: {error:#}\nWhere the mirror answers with 404, it has gone from {}, and \
                 `cargo xtask vm --update-manifest` puts the newest of its line into xtask/kernels.toml",
                kernel.suite
            )
        })?;
        fs::rename(&partial, &file).with_context(|| format!("cannot write {}", file.display()))?;
        let intact = is_intact(&file, package)?;
        ensure!(intact, "kernel {kernel} cannot be had: {} came with another SHA-256 than the manifest's", package.name);
    }
    Ok(true)
}

fn from_mirror(workspace: &Workspace, kernel: &Kernel, package: &Package, to: &Path) -> Result<()> {
    let work = workspace.own(&format!("apt-{}", kernel.suite));
    let log = workspace.own(&format!("kernel-{}.log", kernel.version));
    let mirror = apt::mirror(kernel.archive(), "vm", &work, &log)?;
    apt::fetch(&mirror, &package.path, &package.sha256, to, "vm", &log)
}

/// Says what was unpacked: the packages' checksums.
fn stamp(kernel: &Kernel) -> String {
    kernel.packages.iter().map(|package| format!("{}\n", package.sha256)).collect()
}

fn is_unpacked(place: &Path, kernel: &Kernel) -> Result<bool> {
    let path = place.join("packages");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text == stamp(kernel)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Unpacks beside the place and moves then, so that what stands there is always whole.
fn unpack(workspace: &Workspace, kernel: &Kernel, cache: &Path, place: &Path) -> Result<()> {
    let partial = cache.join(format!("{}.partial", kernel.release));
    for old in [&partial, &place.to_path_buf()] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let (root, kept) = (partial.join("root"), partial.join("kept"));
    for directory in [&root, &kept] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    for package in &kernel.packages {
        let log = workspace.own(&format!("kernel-{}.log", kernel.version));
        apt::unpack(&cache.join(package.file_name()), &root, "vm", &log)?;
    }
    let release = &kernel.release;
    let image = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let modules = [format!("lib/modules/{release}/kernel"), format!("usr/lib/modules/{release}/kernel")];
    for (what, candidates, name) in [("image", image, "vmlinuz"), ("modules", modules, "modules")] {
        let Some(found) = candidates.iter().map(|path| root.join(path)).find(|path| path.exists()) else {
            bail!("the packages of kernel {kernel} have no {what}: neither {}", candidates.join(" nor "));
        };
        fs::rename(&found, kept.join(name)).with_context(|| format!("cannot move {}", found.display()))?;
    }
    fs::write(kept.join("packages"), stamp(kernel)).with_context(|| format!("cannot write to {}", kept.display()))?;
    fs::rename(&kept, place).with_context(|| format!("cannot move {} into place", kept.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_cached_archive_is_used_only_as_long_as_it_is_the_manifests() {
        let cache = Scratch::new("archive");
        let kernel = kernel();
        let (package, file) = (&kernel.packages[0], cache.0.join("linux.deb"));
        assert!(!is_intact(&file, package).expect("nothing is there"));
        fs::write(&file, "abc").expect("the temporary directory can be written to");
        assert!(is_intact(&file, package).expect("readable"));
        fs::write(&file, "abd").expect("the temporary directory can be written to");
        assert!(!is_intact(&file, package).expect("readable"));
        assert!(!file.exists(), "what differs is taken away");
    }

    #[test]
    fn a_kernel_is_downloaded_once_and_never_offline() {
        let cache = Scratch::new("once");
        assert!(!is_cached(&cache.0, &kernel(), None).expect("the temporary directory can be read"), "nothing is there");
        let fetch = |_: &Package, to: &Path| Ok(fs::write(to, "abc")?);
        assert!(is_cached(&cache.0, &kernel(), Some(&fetch)).expect("it can be had"));
        let again = |package: &Package, _: &Path| bail!("{} is there already", package.name);
        assert!(is_cached(&cache.0, &kernel(), Some(&again)).expect("nothing is downloaded"));
        assert!(is_cached(&cache.0, &kernel(), None).expect("nothing is downloaded"));
    }

    #[test]
    fn a_kernel_that_cannot_be_downloaded_fails_by_its_name() {
        let cache = Scratch::new("gone");
        let gone = |_: &Package, _: &Path| bail!("404  Not Found");
        let other = |_: &Package, to: &Path| Ok(fs::write(to, "abd")?);
        let fetches: [(&Fetch<'_>, &str); 2] = [(&gone, "404  Not Found"), (&other, "another SHA-256")];
        for (fetch, why) in fetches {
            let error = is_cached(&cache.0, &kernel(), Some(fetch)).expect_err("it can't be had").to_string();
            assert!(error.starts_with("kernel 6.1 (6.1.0-56-cloud-amd64) cannot be had: ") && error.contains(why), "{error}");
            assert!(!cache.0.join("linux.deb").exists(), "what can't be used is not kept");
        }
        let error = is_cached(&cache.0, &kernel(), Some(&gone)).expect_err("it can't be had").to_string();
        assert!(error.contains("--update-manifest"), "{error}");
    }

    fn kernel() -> Kernel {
        let package = Package {
            name: "linux".into(),
            version: "1".into(),
            path: "pool/linux.deb".into(),
            // Of "abc": FIPS 180-2, appendix B.1.
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
        };
        Kernel {
            version: "6.1".into(),
            suite: "bookworm-security".into(),
            release: "6.1.0-56-cloud-amd64".into(),
            skip: BTreeMap::new(),
            packages: vec![package],
        }
    }

    /// A directory that is removed when this is dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("splitter-xtask-{}-kernels-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("the temporary directory can be written to");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("made above");
        }
    }
}
