//! The command line's words. The comments are the help that users read.

mod rollout;
mod simulate;

pub(super) use rollout::{RolloutCommand, RolloutName};
pub(super) use simulate::Simulate;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::model::{BackendWeight, Cohort, Existing, ModelError, NetworkList, ServiceName, Weight};

/// Sends a chosen share of a service's connections to a canary, in the kernel.
#[derive(Debug, Parser)]
#[command(name = "splitter", version, max_term_width = 80, propagate_version = true, arg_required_else_help = true)]
pub(super) struct Args {
    /// The agent's unix socket [default: /run/splitter/splitter.sock]
    #[arg(long, global = true, value_name = "PATH", env = "SPLITTER_SOCKET", hide_env_values = true)]
    pub socket: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Agent(AgentOptions),

    #[command(flatten)]
    Remote(Remote),

    /// Validate a configuration file
    ///
    /// Reads the file as the agent would, tells every problem with its place, and changes nothing. Needs no agent and no
    /// privileges.
    ///
    /// Example: `splitter check /etc/splitter/splitter.toml`
    Check {
        /// The configuration file
        file: PathBuf,
    },

    Simulate(Simulate),

    /// Find out why packets don't reach a backend
    ///
    /// Looks at everything that a packet meets on its way: kernel and privileges, the driver's XDP, MTU, the service
    /// address, route and neighbour of every backend, the way back; first from this process, then with the agent's eyes if one runs.
    /// Fails if a check fails.
    ///
    /// Example: `splitter doctor`
    Doctor {
        /// Look at this configuration's interfaces and services too, if no agent runs
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,

        #[command(flatten)]
        output: Output,
    },

    /// Write a completion script for a shell
    ///
    /// Example: `splitter completions bash > /etc/bash_completion.d/splitter`
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Run the agent
///
/// Reads the configuration, loads the program into the kernel or takes over the one that runs, attaches it, and serves the API and the
/// metrics until it is told to stop (SIGTERM, SIGINT). Traffic flows on without the agent unless `--detach` is given. SIGHUP reads the
/// configuration anew.
///
/// Example: `splitter agent --config /etc/splitter/splitter.toml`
#[derive(Clone, Debug, PartialEq, Eq, ClapArgs)]
pub struct AgentOptions {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Stop splitting when the agent stops, whatever the configuration says
    #[arg(long)]
    pub detach: bool,

    /// The socket of `--socket`, which goes before the configuration's.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub(super) enum Remote {
    /// Show services, weights, backends and connections
    ///
    /// Shows how things stand: the agent, and for every service (or for one) the weight asked for and in force, whether it is flipped and why,
    /// what each cohort did in the last minute (new connections, share of failures, how long handshakes took, connections that live), its
    /// backends with their connections, and what somebody should look at. With `--watch`, rates and the canary's measured
    /// share, every second. A dash is a number that isn't known, or of which there are too few samples.
    ///
    /// Example: `splitter status web --watch`
    Status {
        /// This service alone
        service: Option<ServiceName>,

        /// Show it again every second, with rates
        #[arg(long)]
        watch: bool,

        #[command(flatten)]
        output: Output,
    },

    /// Set the canary's share of new connections
    ///
    /// From the return on, every new connection is split by the new weight; established ones stay where they are. Raising the weight
    /// moves nobody out of the canary, lowering it moves nobody in. The change outlives the agent, until the configuration names another weight.
    ///
    /// Example: `splitter weight web 5%`
    Weight {
        /// The service
        service: ServiceName,

        /// A percentage with at most two decimals, as in 5% or 0.25%
        #[arg(allow_hyphen_values = true)]
        weight: Weight,
    },

    /// Send everything to stable, at once
    ///
    /// From the return on, no new connection reaches the canary, whatever the weight. Established canary connections go on
    /// (`keep`), or are reset: each client gets a RST in answer to its next packet and reconnects to stable; one that is silent notices nothing until then (`reset`).
    /// Lasts until `splitter unflip`.
    ///
    /// Example: `splitter flip web --existing reset --reason "500s since 14:02"`
    Flip {
        /// The service
        service: ServiceName,

        /// What happens to established canary connections
        #[arg(long, value_enum, default_value = "keep")]
        existing: ExistingArg,

        /// Why, for the events and for whoever looks at the status
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },

    /// Let the weight count again
    ///
    /// Ends a flip, whether it was made by hand, by a limit that was crossed, by the breaker or by a lease that ran out; and arms the breaker, which nothing
    /// else does. The weight that was asked for is in force again at once: to begin smaller, set the weight first.
    ///
    /// Example: `splitter weight web 1% && splitter unflip web`
    Unflip {
        /// The service
        service: ServiceName,
    },

    /// List and change a service's backends
    #[command(subcommand)]
    Backend(BackendCommand),

    /// List and change the networks that are always or never canary
    #[command(subcommand)]
    Network(NetworkCommand),

    /// Tell which backend a client gets, and why
    ///
    /// Decides for a client as the kernel would, with the same code, and shows every step: the hash, the place in hash space, the rule, the cohort, the slot
    /// and the backend with the way to it. With `--at`, also what a new connection would get at another weight. A service with `affinity =
    /// "connection"` decides by address and port, so the port is needed.
    ///
    /// Example: `splitter explain web --from 198.51.100.23:40000 --at 25%`
    Explain {
        /// The service
        service: ServiceName,

        /// The client; IPv6 with a port in brackets, as in [2001:db8::1]:40000
        #[arg(long, value_name = "ADDR[:PORT]")]
        from: Origin,

        /// Also at this weight
        #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true)]
        at: Option<Weight>,

        #[command(flatten)]
        output: Output,
    },

    /// Tell what happened
    ///
    /// Lists the events that the agent keeps, oldest first: changes with who made them, flips with the numbers that caused them, backends lost and found.
    /// With `--follow`, goes on with what happens. As JSON, one event a line.
    ///
    /// Example: `splitter events --follow`
    Events {
        /// Go on with what happens
        #[arg(long, short)]
        follow: bool,

        #[command(flatten)]
        output: Output,
    },

    /// Show decisions as packets pass
    ///
    /// Has the kernel tell what it decides for the packets of a service, one line each, until it is interrupted or has told enough. Costs
    /// nothing when nobody looks; on a busy service, narrow it with `--from` and `--count`. As JSON, one record a line.
    ///
    /// Example: `splitter trace web --from 198.51.100.0/24 --count 20`
    Trace {
        /// The service
        service: ServiceName,

        /// Only clients of this network; an address alone is a network of one
        #[arg(long, value_name = "PREFIX", value_parser = prefix)]
        from: Option<IpNet>,

        /// End after so many packets
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,

        #[command(flatten)]
        output: Output,
    },

    /// Read the configuration anew
    ///
    /// Has the agent read its configuration file and change what differs, as a whole or not at all. Established connections are not touched. A wrong file is
    /// refused with every problem and its place.
    ///
    /// Example: `splitter check /etc/splitter/splitter.toml && splitter reload`
    Reload,

    /// Take the program off the interfaces
    ///
    /// Ends the splitting: the program leaves the interfaces, and what was pinned is removed. Connections that went through the node are cut. The agent
    /// goes on, with nothing to do. With `--pins`, works without an agent, on what an agent of whatever version has left in that directory.
    ///
    /// Example: `splitter detach`
    Detach {
        /// Remove what is pinned in this directory, with no agent running
        #[arg(long, value_name = "DIR")]
        pins: Option<PathBuf>,
    },

    /// Take a service to its canary, step by step
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Show the rollouts there were
    ///
    /// Shows the rollouts of a service, or of all: first those that go on, then the latest ones. One block each: its number and service, when it
    /// began and ended and who began it, how it ended and why, and each step with what came of it and both cohorts' failed connections. A dash is what isn't known, or
    /// didn't come to pass.
    ///
    /// Example: `splitter history web --limit 5`
    History {
        /// Of this service alone
        service: Option<ServiceName>,

        /// So many at most, up to 1000 [default: 20]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: Option<u32>,

        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// List a service's backends
    ///
    /// Shows each backend's share inside its cohort, whether it gets connections, how many it has, and the way to it, or why there is none.
    ///
    /// Example: `splitter backend list web`
    List {
        /// The service
        service: ServiceName,

        #[command(flatten)]
        output: Output,
    },

    /// Add a backend
    ///
    /// From the return on it gets its share of its cohort's new connections. Established connections stay where they are.
    ///
    /// Example: `splitter backend add web canary 10.1.0.9:8080 --weight 2`
    Add {
        /// The service
        service: ServiceName,
        /// The version that it runs
        cohort: CohortArg,
        /// Its address and port
        address: SocketAddr,
        /// Its share inside the cohort, relative to its neighbours', 1 to 1000
        #[arg(long, default_value = "1", value_parser = backend_weight, allow_hyphen_values = true)]
        weight: BackendWeight,
    },

    /// Remove a backend
    ///
    /// It gets no new connections any more. Those that it has go on; it is listed as `removed` until the last has ended.
    ///
    /// Example: `splitter backend remove web 10.1.0.9:8080`
    Remove(BackendName),

    /// Stop new connections to a backend
    ///
    /// Connections that it has go on. When none is left (`splitter backend list`), it can be taken down without breaking anything.
    ///
    /// Example: `splitter backend drain web 10.1.0.9:8080`
    Drain(BackendName),

    /// Let new connections come to a backend again
    ///
    /// Example: `splitter backend undrain web 10.1.0.9:8080`
    Undrain(BackendName),

    /// Set a backend's share inside its cohort
    ///
    /// The share is relative to its neighbours': a backend with 2 gets twice the new connections of one with 1. Established connections stay where they are.
    ///
    /// Example: `splitter backend weight web 10.1.0.9:8080 3`
    Weight {
        #[command(flatten)]
        name: BackendName,
        /// 1 to 1000
        #[arg(value_parser = backend_weight, allow_hyphen_values = true)]
        weight: BackendWeight,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct BackendName {
    /// The service
    pub service: ServiceName,
    /// The backend's address and port
    pub address: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// List both lists of a service
    ///
    /// Example: `splitter network list web`
    List {
        /// The service
        service: ServiceName,

        #[command(flatten)]
        output: Output,
    },

    /// Add networks to a list
    ///
    /// From the return on, new connections from there always or never get the canary, whatever the weight. Where networks of both lists match, the longest wins.
    /// All of the prefixes are added, or none.
    ///
    /// Example: `splitter network add web always-canary 10.9.0.0/16 2001:db8:9::/48`
    Add(NetworkArgs),

    /// Remove networks from a list
    ///
    /// All of the prefixes are removed, or none.
    ///
    /// Example: `splitter network remove web always-canary 10.9.0.0/16`
    Remove(NetworkArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct NetworkArgs {
    /// The service
    pub service: ServiceName,
    /// The list
    #[arg(value_enum)]
    pub list: ListArg,
    /// Networks; an address alone is a network of one
    #[arg(required = true, value_name = "PREFIX", value_parser = prefix)]
    pub prefixes: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(super) struct Output {
    /// For people, or as documented in docs/api.md
    #[arg(long = "output", short = 'o', value_enum, default_value = "human")]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ExistingArg {
    Keep,
    Reset,
}

impl From<ExistingArg> for Existing {
    fn from(existing: ExistingArg) -> Self {
        match existing {
            ExistingArg::Keep => Self::Keep,
            ExistingArg::Reset => Self::Reset,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum CohortArg {
    Stable,
    Canary,
}

impl From<CohortArg> for Cohort {
    fn from(cohort: CohortArg) -> Self {
        match cohort {
            CohortArg::Stable => Self::Stable,
            CohortArg::Canary => Self::Canary,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ListArg {
    AlwaysCanary,
    NeverCanary,
}

impl From<ListArg> for NetworkList {
    fn from(list: ListArg) -> Self {
        match list {
            ListArg::AlwaysCanary => Self::AlwaysCanary,
            ListArg::NeverCanary => Self::NeverCanary,
        }
    }
}

/// A client, with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub address: IpAddr,
    pub port: Option<u16>,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, port: None });
        }
        let both: SocketAddr = text.parse().map_err(|_| {
            "write an address, or an address and a port, as in 198.51.100.23:40000 or [2001:db8::1]:40000".to_owned()
        })?;
        Ok(Self { address: both.ip(), port: Some(both.port()) })
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let parsed = text.parse::<IpNet>().or_else(|_| one());
    let net = parsed.map_err(|_| "write a network, as in 10.9.0.0/16 or 2001:db8::/32".to_owned())?;
    if net.trunc() != net {
        return Err(format!("bits are set behind the prefix; did you mean {}?", net.trunc()));
    }
    Ok(net)
}

fn backend_weight(text: &str) -> Result<BackendWeight, String> {
    let number: u32 = text.parse().map_err(|_| "write a whole number from 1 to 1000".to_owned())?;
    BackendWeight::try_from(number).map_err(|error: ModelError| error.to_string())
}
