//! Attaching the program to interfaces, and switching links that are there.

use std::{fs, io, path::Path};

use aya::programs::{
    ProgramError,
    links::{FdLink, LinkError, PinnedLink},
    xdp::{XdpLink, XdpMode as AyaMode},
};

use super::{
    Attached, AttachedMode,
    loader::{LINKS, Loaded, OpenError, chain, no_bpffs, remove, root_cause},
};
use crate::config::XdpMode;

/// Attaches the program to an interface, or switches the link that is there already.
pub fn attach(loaded: &mut Loaded, directory: &Path, name: &str, mode: XdpMode) -> Result<(Attached, Option<String>), OpenError> {
    let index = nix::net::if_::if_nametoindex(name).map_err(|_| OpenError::NoInterface { name: name.to_owned() })?;
    let links = directory.join(LINKS);
    fs::create_dir_all(&links).map_err(|error| no_bpffs(directory, &error))?;
    for (attached_mode, aya_mode) in [(AttachedMode::Native, AyaMode::Driver), (AttachedMode::Generic, AyaMode::Skb)] {
        let pin = links.join(pin_name(attached_mode, index));
        if !pin.exists() {
            continue;
        }
        let wrong_mode = matches!((mode, aya_mode), (XdpMode::Native, AyaMode::Skb) | (XdpMode::Generic, AyaMode::Driver));
        if !wrong_mode && switch(loaded, &pin).is_ok() {
            return Ok((Attached { name: name.to_owned(), index, mode: attached_mode }, None));
        }
        // Another mode is wanted, or the interface went away and another one has its index now.
        remove(&pin).map_err(|error| OpenError::kernel(format!("removing {}", pin.display()), error))?;
    }
    let attached = |mode| Attached { name: name.to_owned(), index, mode };
    match mode {
        XdpMode::Native => {
            new_link(loaded, &links, name, index, AttachedMode::Native).map(|()| (attached(AttachedMode::Native), None))
        }
        XdpMode::Generic => {
            new_link(loaded, &links, name, index, AttachedMode::Generic).map(|()| (attached(AttachedMode::Generic), None))
        }
        XdpMode::Auto => match new_link(loaded, &links, name, index, AttachedMode::Native) {
            Ok(()) => Ok((attached(AttachedMode::Native), None)),
            Err(OpenError::NoNative { why, .. }) => {
                new_link(loaded, &links, name, index, AttachedMode::Generic)?;
                let warning = format!("interface {name} has no native XDP ({why}); attached in generic mode, which is slower");
                Ok((attached(AttachedMode::Generic), Some(warning)))
            }
            Err(error) => Err(error),
        },
    }
}

/// Whether a data plane with this pin directory was attached to the interface.
#[must_use]
pub fn is_pinned(directory: &Path, index: u32) -> bool {
    let links = directory.join(LINKS);
    [AttachedMode::Native, AttachedMode::Generic].into_iter().any(|mode| links.join(pin_name(mode, index)).exists())
}

fn pin_name(mode: AttachedMode, index: u32) -> String {
    match mode {
        AttachedMode::Native => format!("native-{index}"),
        AttachedMode::Generic => format!("generic-{index}"),
    }
}

fn switch(loaded: &mut Loaded, pin: &Path) -> Result<(), OpenError> {
    let failed = |why: String| OpenError::kernel(format!("switching the link {}", pin.display()), why);
    let link = PinnedLink::from_pin(pin).map_err(|error| failed(error.to_string()))?;
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error: LinkError| failed(error.to_string()))?;
    loaded.attached()?.attach_to_link(link).map(drop).map_err(|error| failed(error.to_string()))
}

fn new_link(loaded: &mut Loaded, links: &Path, name: &str, index: u32, mode: AttachedMode) -> Result<(), OpenError> {
    let program = loaded.attached()?;
    let aya_mode = match mode {
        AttachedMode::Native => AyaMode::Driver,
        AttachedMode::Generic => AyaMode::Skb,
    };
    let id = program.attach_to_if_index(index, aya_mode).map_err(|error| explain_attach(name, mode, &error))?;
    let failed = |why: String| OpenError::kernel(format!("keeping the program on {name}"), why);
    let link = program.take_link(id).map_err(|error| failed(error.to_string()))?;
    let link =
        FdLink::try_from(link).map_err(|_| failed("the kernel has no links for XDP; it has to be 5.9 or later".to_owned()))?;
    // The pin keeps the link when the agent ends; the file descriptor may go.
    link.pin(links.join(pin_name(mode, index))).map(drop).map_err(|error| failed(error.to_string()))
}

/// Takes the program off the interfaces that aren't among these.
pub fn detach_others(directory: &Path, keep: &[Attached]) -> io::Result<()> {
    let keep: Vec<String> = keep.iter().map(|attached| pin_name(attached.mode, attached.index)).collect();
    let links = match fs::read_dir(directory.join(LINKS)) {
        Ok(links) => links,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for link in links {
        let link = link?;
        if !keep.iter().any(|name| link.file_name() == name.as_str()) {
            fs::remove_file(link.path())?;
        }
    }
    Ok(())
}

fn explain_attach(name: &str, mode: AttachedMode, error: &ProgramError) -> OpenError {
    let name = name.to_owned();
    match root_cause(error).and_then(io::Error::raw_os_error) {
        Some(libc::EBUSY | libc::EEXIST) => OpenError::Taken { name },
        Some(libc::EPERM | libc::EACCES) => OpenError::not_permitted(),
        _ if mode == AttachedMode::Native => OpenError::NoNative { name, why: chain(error) },
        _ => OpenError::kernel(format!("attaching to {name}"), chain(error)),
    }
}
