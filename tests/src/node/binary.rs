//! The `splitter` binary that the tests run.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::SystemTime,
};

use crate::lab::{LabError, Result};

/// Names the binary where it isn't beside the tests'.
const VARIABLE: &str = "SPLITTER_TEST_BINARY";
const REMEDY: &str = "build it with `cargo xtask build`";

/// The binary of this build: beside the tests' own, and newer than everything that it is made of.
///
/// # Errors
/// When it was not built, or not since its sources changed: a test of yesterday's binary proves nothing.
pub fn binary() -> Result<&'static Path> {
    static FOUND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(find)
        .as_deref()
        .map_err(|why| LabError::Unexpected { what: "the splitter binary".into(), why: why.clone() })
}

fn find() -> std::result::Result<PathBuf, String> {
    // In a virtual machine there is nothing to compare it with; who built that has built it along with the tests.
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    let own = std::env::current_exe().map_err(|error| format!("this test does not know its own path: {error}"))?;
    // Tests are in `target/<profile>/deps`, binaries in `target/<profile>`.
    let profile = own.ancestors().find(|path| path.join("splitter.d").is_file());
    let profile = profile.ok_or_else(|| format!("not built; {REMEDY}"))?;
    let binary = profile.join("splitter");
    let built = modified(&binary)?;
    let inputs = fs::read_to_string(profile.join("splitter.d")).map_err(|error| format!("its list of sources: {error}"))?;
    let mut inputs: Vec<PathBuf> = sources(&inputs).map(PathBuf::from).collect();
    inputs.extend(profile.parent().map(|target| target.join("bpf/splitter.o")));
    for input in inputs {
        if modified(&input)? > built {
            return Err(format!("{} changed after {} was built; {REMEDY}", input.display(), binary.display()));
        }
    }
    Ok(binary)
}

fn modified(path: &Path) -> std::result::Result<SystemTime, String> {
    fs::metadata(path).and_then(|file| file.modified()).map_err(|error| format!("{}: {error}; {REMEDY}", path.display()))
}

/// What a file of cargo's, `target: source source …`, names as sources.
fn sources(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_once(": ")).flat_map(|(_, sources)| sources.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_of_a_binary_are_read_from_cargos_list() {
        let text = "/t/debug/splitter: /a/lib.rs /a/main.rs\n";
        assert_eq!(sources(text).collect::<Vec<_>>(), ["/a/lib.rs", "/a/main.rs"]);
    }
}
