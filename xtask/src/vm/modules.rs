//! Kernel modules: which ones, what those need, unpacked.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use object::{Object, ObjectSection};

/// What the tests' networks are made of. Everything else that they need is in the image.
const WANTED: [&str; 2] = ["veth", "bridge"];

/// A module that is ready to be loaded.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The modules below a directory that are wanted, each after those that it needs.
pub fn wanted(directory: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(directory, &mut files)?;
    let mut ready = Vec::new();
    for name in WANTED {
        add(name, &files, &mut ready, &mut Vec::new())?;
    }
    Ok(ready)
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let failed = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| module_name(name.to_str()?)) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `nf-log.ko.xz` is the module `nf_log`.
fn module_name(file: &str) -> Option<String> {
    let name = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, ready: &mut Vec<Module>, above: &mut Vec<String>) -> Result<()> {
    if ready.iter().any(|module| module.name == name) {
        return Ok(());
    }
    ensure!(!above.iter().any(|module| module == name), "module {name} needs itself, by {}", above.join(", "));
    let path = files.get(name).with_context(|| format!("there is no module {name}, which {} needs", above.join(", ")))?;
    let content = unpacked(path)?;
    let needed = needs(&content).with_context(|| format!("reading {}", path.display()))?;
    above.push(name.to_owned());
    for other in needed {
        add(&other, files, ready, above)?;
    }
    above.pop();
    ready.push(Module { name: name.to_owned(), content });
    Ok(())
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(content);
    }
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(content.as_slice()), &mut unpacked)
        .map_err(|error| anyhow!("cannot unpack {}: {error:?}", path.display()))?;
    Ok(unpacked)
}

/// The modules that a module says it needs: `depends=stp,llc` among the strings of its section `.modinfo`.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("it is no ELF file")?;
    let section = file.section_by_name(".modinfo").context("it says nothing of itself")?;
    depends(section.data().context("what it says of itself cannot be read")?)
}

fn depends(modinfo: &[u8]) -> Result<Vec<String>> {
    let mut strings = modinfo.split(|octet| *octet == 0);
    let Some(names) = strings.find_map(|string| string.strip_prefix(b"depends=")) else {
        bail!("it does not say what it depends on");
    };
    let names = std::str::from_utf8(names).context("a module's name is not text")?;
    Ok(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_its_strings() {
        let with = |depends: &str| format!("license=GPL\0{depends}\0retpoline=Y\0").into_bytes();
        assert_eq!(depends(&with("depends=")).expect("it says it"), [""; 0]);
        assert_eq!(depends(&with("depends=stp,nf-log")).expect("it says it"), ["stp", "nf_log"]);
        assert!(depends(&with("undepends=stp")).is_err());
    }

    #[test]
    fn a_module_is_called_as_the_kernel_calls_it() {
        assert_eq!(module_name("nf-log.ko.xz").as_deref(), Some("nf_log"));
        assert_eq!(module_name("veth.ko").as_deref(), Some("veth"));
        assert_eq!(module_name("modules.dep"), None);
    }
}
