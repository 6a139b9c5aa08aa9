//! `cargo xtask build`: provisions the tools, builds the XDP program, then the binary that carries it.

use anyhow::{Result, bail};

use crate::{
    library::{self, Library},
    program, report, run,
    tool::LINKER,
    workspace::{self, Workspace},
};

/// The arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Options {
    /// Optimise the splitter binary (the XDP program always is).
    #[arg(long)]
    release: bool,
}

impl Options {
    /// The profile asked for.
    pub fn profile(&self) -> Profile {
        if self.release { Profile::Release } else { Profile::Dev }
    }
}

/// How the splitter binary is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// Every step, in order.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    let library = provision(workspace)?;
    LINKER.ensure(workspace)?;
    program::build(workspace, &library)?;
    splitter(workspace, profile)
}

/// The bench's own XDP program; a step of its own, so that nobody else waits for it.
pub fn bench(workspace: &Workspace) -> Result<()> {
    let library = provision(workspace)?;
    LINKER.ensure(workspace)?;
    program::build_bench(workspace, &library)
}

/// The XDP program once for each step of its path, for `cargo xtask bench --steps`.
pub fn steps(workspace: &Workspace) -> Result<()> {
    let library = provision(workspace)?;
    LINKER.ensure(workspace)?;
    program::build_steps(workspace, &library)
}

/// What compiling the XDP program needs (linking it needs bpf-linker as well): the pinned toolchain and `core`'s source.
pub fn provision(workspace: &Workspace) -> Result<Library> {
    workspace::check_toolchain()?;
    workspace::require("cc", "install a C compiler, which Rust links with (Debian: apt-get install gcc libc6-dev)")?;
    library::ensure(workspace)
}

fn splitter(workspace: &Workspace, profile: Profile) -> Result<()> {
    let (directory, what) = match profile {
        Profile::Dev => ("debug", "building the agent and command line"),
        Profile::Release => ("release", "building the agent and command line, optimised"),
    };
    report::step("splitter", what, || {
        let mut command = workspace.cargo("build");
        command.args(["--package", "splitter-user"]);
        if profile == Profile::Release {
            command.arg("--release");
        }
        let status = run::attended(&mut command)?;
        run::go_on()?;
        if !status.success() {
            bail!("{} failed with {status}", run::line(&command));
        }
        let binary = workspace.target.join(directory).join("splitter");
        Ok(((), format!("built {}", workspace.shown(&binary))))
    })
}
