//! The machine itself: its file systems, its modules, its end.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::utsname::uname,
};

/// What is mounted where, in order: what, where, which kind.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("bpf", "/sys/fs/bpf", "bpf"),
    ("tmpfs", "/run", "tmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
];
/// The second serial port: the first is the kernel's console.
const PORT: &str = "/dev/ttyS1";
/// Where `isa-debug-exit` is told to be, see `xtask/src/vm/qemu.rs`.
const EXIT_PORT: u16 = 0xf4;

/// A machine that is ready to run something.
pub(super) struct Machine {
    pub(super) port: &'static Path,
}

impl Machine {
    /// Makes of the bare machine one in which tests can run.
    pub(super) fn prepare() -> Result<Self> {
        for (source, target, kind) in MOUNTS {
            fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
            mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("mounting {target}"))?;
        }
        // `ip netns` keeps its names here.
        fs::create_dir_all("/var").and_then(|()| symlink("/run", "/var/run")).context("making /var/run")?;
        // SAFETY: no other thread runs yet that could read the environment meanwhile.
        unsafe {
            std::env::set_var("PATH", "/bin");
            std::env::set_var("RUST_BACKTRACE", "0");
            std::env::set_var("SPLITTER_TEST_BINARY", "/bin/splitter");
            std::env::set_var("SPLITTER_FRAMES", "500");
        }
        raw(PORT)?;
        Ok(Self { port: Path::new(PORT) })
    }

    /// Loads modules in this order.
    pub(super) fn load_modules(&self, modules: &[PathBuf]) -> Result<()> {
        for path in modules {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let no_arguments = CString::default();
            // SAFETY: the descriptor is open for as long as the call lasts, the arguments are an empty string that ends in a zero.
            let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), no_arguments.as_ptr(), 0) };
            ensure!(result == 0, "loading {}: {}", path.display(), io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Keeps the terminal driver from changing what goes out.
fn raw(port: &str) -> Result<()> {
    let file = File::options().read(true).write(true).open(port).with_context(|| format!("opening {port}"))?;
    // SAFETY: termios is plain data, for which zeroes are valid; the calls read and write it within its size, on an open descriptor.
    let result = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        match libc::tcgetattr(file.as_raw_fd(), &raw mut settings) {
            0 => {
                libc::cfmakeraw(&raw mut settings);
                libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const settings)
            }
            failed => failed,
        }
    };
    ensure!(result == 0, "setting {port} up: {}", io::Error::last_os_error());
    Ok(())
}

/// The kernel's release.
pub(super) fn release() -> Result<String> {
    Ok(uname().context("asking the kernel's name")?.release().to_string_lossy().into_owned())
}

/// Ends the machine with this code. Comes back only where the emulator has no such device.
pub(super) fn end(code: u8) {
    // What was told goes out by an interrupt-driven port.
    thread::sleep(Duration::from_millis(100));
    // SAFETY: grants this process an input-output port that has no memory effects: the emulator's exit device, in a machine that exists for this process
    // alone. `out` touches neither memory nor the stack.
    unsafe {
        if libc::ioperm(EXIT_PORT.into(), 4, 1) == 0 {
            std::arch::asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") u32::from(code), options(nomem, nostack));
        }
    }
}
