//! Pin directories on the BPF file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::lab::{self, LabError, Result};

/// Where the kernel's BPF file system is mounted.
const BPF_FS: &str = "/sys/fs/bpf";

/// A node's pin directory, named like its namespace, so that it tells its owner. Removed, with what is in it, when dropped;
/// what a killed process left is removed by the next one that makes one.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// A name that nobody else has; nothing is made.
    pub(crate) fn new(namespace: &str) -> Result<Self> {
        static REAPED: Once = Once::new();
        let mut reaped = Ok(());
        REAPED.call_once(|| reaped = reap());
        reaped?;
        Ok(Self { path: Path::new(BPF_FS).join(namespace) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is pinned, as paths relative to the directory, in order.
    ///
    /// # Errors
    /// When it cannot be read; that there is none is no error.
    pub fn content(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        collect(&self.path, "", &mut found).map_err(LabError::io(format!("read {}", self.path.display())))?;
        found.sort_unstable();
        Ok(found)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            // A drop cannot fail; the next process tries again.
            eprintln!("{} stays behind: {error}", self.path.display());
        }
    }
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

fn reap() -> Result<()> {
    let failed = LabError::io(format!("read {BPF_FS}"));
    let entries = fs::read_dir(BPF_FS).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    for entry in entries {
        if entry.file_name().to_str().is_some_and(lab::is_orphan) {
            remove(&entry.path()).map_err(LabError::io(format!("remove {}", entry.path().display())))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
