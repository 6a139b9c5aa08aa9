//! Puts the XDP program's object into the binary.
//!
//! Writes `$OUT_DIR/program.rs`, which defines `PROGRAM: Option<&[u8]>`: the object that `cargo xtask build` left in the
//! target directory, or the one that `SPLITTER_BPF_OBJECT` names, or `None` where there is none yet, so that plain
//! `cargo build` and `cargo test` work in a fresh checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Names an object elsewhere, for a package or a cross build.
const VARIABLE: &str = "SPLITTER_BPF_OBJECT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    if let Err(error) = embed() {
        println!("cargo::error={error}");
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let source = match find(&out)? {
        Some(object) => {
            let copy = out.join("splitter.o");
            fs::copy(&object, &copy).map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
            "Some(::aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), \"/splitter.o\")))"
        }
        None => "None",
    };
    let program = out.join("program.rs");
    let text = format!(
        "/// The XDP program's object, aligned as its loader needs it; `None` in a build that was made before it.\n\
         pub const PROGRAM: Option<&[u8]> = {source};\n"
    );
    fs::write(&program, text).map_err(|error| format!("cannot write {}: {error}", program.display()))
}

fn find(out: &Path) -> Result<Option<PathBuf>, String> {
    if let Some(named) = env::var_os(VARIABLE) {
        let object = PathBuf::from(named);
        if !object.is_absolute() {
            return Err(format!("{VARIABLE}={} must be an absolute path", object.display()));
        }
        println!("cargo:rerun-if-changed={}", object.display());
        return match object.is_file() {
            true => Ok(Some(object)),
            false => Err(format!("{VARIABLE}={} is no file", object.display())),
        };
    }
    let directory = target_directory(out)?.join("bpf");
    // The directory is watched, not the file: cargo takes a watched file that is missing for one that changed, and
    // would build this package again each time.
    fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    println!("cargo:rerun-if-changed={}", directory.display());
    let object = directory.join("splitter.o");
    Ok(object.is_file().then_some(object))
}

/// Cargo tells build scripts no target directory, but lays out `OUT_DIR` as
/// `<target directory>[/<target triple>]/<profile>/build/<package>/out`.
fn target_directory(out: &Path) -> Result<&Path, String> {
    let unknown = || format!("{} is not laid out as expected: name the XDP program's object in {VARIABLE}", out.display());
    let above_profile = out.ancestors().nth(4).ok_or_else(unknown)?;
    let triple = env::var_os("TARGET").ok_or("cargo sets no TARGET")?;
    match above_profile.file_name() {
        Some(name) if name == triple => above_profile.parent().ok_or_else(unknown),
        Some(_) | None => Ok(above_profile),
    }
}
