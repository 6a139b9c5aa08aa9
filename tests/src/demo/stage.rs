//! The network, the servers and the splitter, and what is asked of it: by its command line and its API, as anybody would.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use splitter_user::{
    api::{
        client::Client,
        wire::{ExplainRequest, ServiceStatus},
    },
    model::{Cohort, Mode, Protocol, ServiceName, Weight},
};

use super::options::Plot;
use crate::{
    lab::Topology,
    node::{Kind, Service, Site},
    workload::http::{self, kept},
};

/// The service's name.
pub const SERVICE: &str = "web";
/// The client's addresses: as many clients as a hash likes to see.
const CLIENTS: u16 = 50;
/// The load ends by itself then, whatever happened.
const LOAD_LIMIT: Duration = Duration::from_secs(120);

/// Everything that stands while the demo runs; dropping it takes it down.
#[derive(Debug)]
pub struct Stage {
    /// The network, the servers, the splitter.
    pub site: Site,
    /// What clients connect to.
    pub target: SocketAddr,
    plot: Plot,
    client: Client,
    name: ServiceName,
}

impl Stage {
    /// Builds it and starts the agent. Blocks for about a second.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn build(plot: &Plot) -> Result<Self> {
        let topology = match plot.mode {
            Mode::Nat => Topology::TwoArm,
            Mode::Dsr => Topology::OneArm,
        };
        let mut site = Site::builder(topology, plot.mode).clients(CLIENTS).prepare().context("the network and its servers")?;
        // The lab gives local sockets nearly all ports; the splitter's own are to be kept clear of them.
        site.lab.node().namespace.sysctl("net.ipv4.ip_local_port_range", "32768 60999")?;
        let target = site.target(Kind::Web, plot.family);
        let service = Service::new(SERVICE, Protocol::Tcp, target, plot.mode).more(plot.breach());
        let service = site
            .servers
            .iter()
            .fold(service, |service, server| service.backend(server.cohort, server.backend(Kind::Web, plot.family)));
        site.services = vec![service];
        site.write_config()?;
        site.node.start().context("the agent")?;
        let client = Client::new(site.node.socket());
        Ok(Self { site, target, plot: plot.clone(), client, name: SERVICE.parse().context("the service's name")? })
    }

    /// The load of new connections, begun.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(&self, rate: f64, duration: Duration) -> Result<http::Running> {
        let load = self.site.web(self.plot.family, u64::MAX);
        let load = http::Load { pace: http::Pace::PerSecond(rate), duration, ..load };
        Ok(load.start(self.site.lab.client())?)
    }

    /// The load of the demo itself.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn bounded_load(&self) -> Result<http::Running> {
        self.load(self.plot.rate, LOAD_LIMIT)
    }

    /// A load of long-lived connections, none open yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kept(&self) -> Result<kept::Running> {
        let load = self.site.web(self.plot.family, 0);
        Ok(kept::Kept::new(load.sources, load.target).start(self.site.lab.client())?)
    }

    /// A command of the command line, run to its end; its arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn weight(&self, weight: Weight) -> Result<String> {
        let weight = weight.to_string();
        let arguments = ["weight", SERVICE, &weight];
        self.site.node.run(&arguments)?;
        Ok(arguments.join(" "))
    }

    /// Lets the canary close its listening sockets, or open them again. Connections that it has go on.
    ///
    /// # Errors
    /// When it cannot listen again.
    pub fn set_canary(&self, mode: http::Mode) -> Result<()> {
        self.site.of(Cohort::Canary).try_for_each(|server| server.set_web(mode))?;
        Ok(())
    }

    /// How the service stands.
    ///
    /// # Errors
    /// When the agent does not say.
    pub async fn status(&self) -> Result<ServiceStatus> {
        let status = self.client.status(Some(&self.name)).await.context("the service's status")?;
        match status.services.into_iter().next() {
            Some(service) => Ok(service),
            None => bail!("the agent has no service {SERVICE}"),
        }
    }

    /// Whose a connection from here was when this weight was in force, and the number of its server.
    ///
    /// A client whose connection failed learns from nobody who it was meant for. The agent explains its place in hash space,
    /// which no weight and no flip changes: below the weight that was in force, it was the canary's.
    ///
    /// # Errors
    /// When the agent does not say.
    pub async fn whose(&self, client: SocketAddr, weight: Weight) -> Result<(Cohort, usize)> {
        let request = ExplainRequest { client: client.ip(), port: Some(client.port()), at: None };
        let explained = self.client.explain(&self.name, &request).await.with_context(|| format!("explain {client}"))?.decision;
        let cohort = if explained.place.fraction() < weight.fraction() { Cohort::Canary } else { Cohort::Stable };
        // Of its backends, too, unless it is the other cohort's turn now: then the cohort's first stands for all.
        let server = self
            .server(|server| server.cohort == cohort && Some(server.backend(Kind::Web, self.plot.family)) == explained.backend);
        let first = || self.server(|server| server.cohort == cohort);
        match server.or_else(first) {
            Some(server) => Ok((cohort, server)),
            None => bail!("there is no {cohort} server"),
        }
    }

    /// The number of the first server that is so.
    pub fn server(&self, is_so: impl Fn(&crate::node::Server) -> bool) -> Option<usize> {
        self.site.servers.iter().position(is_so)
    }

    /// Takes it all down in order.
    ///
    /// # Errors
    /// When the agent doesn't let go in order; everything is gone then, too.
    pub fn end(mut self) -> Result<()> {
        self.site.node.run(&["detach"]).context("splitter detach")?;
        let pinned = self.site.node.pins().content()?;
        let code = self.site.node.stop().context("stop the agent")?;
        match (code, pinned.as_slice()) {
            (Some(0), []) => Ok(()),
            (_, pinned) => bail!("the agent ended with {code:?} and left {pinned:?}; it wrote: {}", self.site.node.log().trim()),
        }
    }
}
