//! An HTTP backend that can be killed: see `splitter_tests::faults`.

use anyhow::{Context, Result};
use clap::Parser;
use splitter_tests::{faults, workload::Identity};

#[derive(Parser)]
struct Options {
    /// The network namespace to serve in
    namespace: String,
    /// The version to be
    version: String,
    /// The name to have
    name: String,
    /// Where to listen
    #[arg(required = true)]
    addresses: Vec<std::net::SocketAddr>,
}

fn main() -> Result<()> {
    let Options { namespace, version, name, addresses } = Options::parse();
    faults::serve(&namespace, Identity::new(&version, &name), &addresses).with_context(|| format!("serving as {name}"))
}
