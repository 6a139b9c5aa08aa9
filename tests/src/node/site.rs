//! A lab with servers of both versions and Splitter before them.

use std::net::{IpAddr, SocketAddr};

use splitter_user::model::{Cohort, Mode, Protocol};

use super::{Node, Service};
use crate::{
    lab::{Addresses, Lab, Namespace, Result, SERVICE, Topology},
    workload::{Identity, http, tcp_echo, tools::Nginx, udp_echo},
};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The address of this family.
    #[must_use]
    pub fn of(self, addresses: Addresses) -> IpAddr {
        match self {
            Self::V4 => addresses.v4.into(),
            Self::V6 => addresses.v6.into(),
        }
    }

    const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP: services `web4` and `web6`.
    Web,
    /// TCP echo: `echo4` and `echo6`.
    Echo,
    /// UDP echo: `udp4` and `udp6`.
    Udp,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Web, Self::Echo, Self::Udp];

    /// The service's name.
    #[must_use]
    pub fn service(self, family: Family) -> String {
        let word = match self {
            Self::Web => "web",
            Self::Echo => "echo",
            Self::Udp => "udp",
        };
        format!("{word}{}", family.digit())
    }

    /// The port that clients connect to. Outside of the range of the NAT's ports or inside: it makes no difference on a
    /// service address that is not a NAT address.
    const fn port(self) -> u16 {
        match self {
            Self::Web => 80,
            Self::Echo => 7,
            Self::Udp => 53,
        }
    }

    /// The port that backends listen on: another one in `nat` mode, to see it rewritten.
    const fn backend_port(self, mode: Mode) -> u16 {
        match mode {
            Mode::Nat => 8000 + self.port(),
            Mode::Dsr => self.port(),
        }
    }

    const fn protocol(self) -> Protocol {
        match self {
            Self::Web | Self::Echo => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

/// One backend's servers. A part that was taken away can be put there again.
#[derive(Debug)]
pub struct Server {
    /// Who it is.
    pub identity: Identity,
    /// Its version, as a cohort.
    pub cohort: Cohort,
    /// Where it is.
    pub namespace: Namespace,
    /// Its own addresses.
    pub address: Addresses,
    /// HTTP, unless nginx serves it.
    pub web: Option<http::Server>,
    /// HTTP by nginx.
    pub nginx: Option<Nginx>,
    /// TCP echo.
    pub echo: Option<tcp_echo::Server>,
    /// UDP echo.
    pub udp: Option<udp_echo::Server>,
    mode: Mode,
}

impl Server {
    /// The backend of a service.
    #[must_use]
    pub fn backend(&self, kind: Kind, family: Family) -> SocketAddr {
        SocketAddr::new(family.of(self.address), kind.backend_port(self.mode))
    }

    /// Where it listens: on its own addresses in `nat` mode, on the service's in `dsr` mode.
    #[must_use]
    pub fn listens(&self, kind: Kind) -> [SocketAddr; 2] {
        let address = match self.mode {
            Mode::Nat => self.address,
            Mode::Dsr => SERVICE,
        };
        address.sockets(kind.backend_port(self.mode))
    }

    /// What `httpd` does with new connections.
    ///
    /// # Errors
    /// When it cannot listen again.
    ///
    /// # Panics
    /// When nginx serves HTTP.
    pub fn set_web(&self, mode: http::Mode) -> Result<()> {
        self.web.as_ref().expect("not nginx").set(mode)
    }
}

/// A lab, its servers, and Splitter on its node.
#[derive(Debug)]
pub struct Site {
    /// Splitter. Before the lab, so that it goes first.
    pub node: Node,
    /// The servers, stable ones first.
    pub servers: Vec<Server>,
    /// The services, as the configuration was last written.
    pub services: Vec<Service>,
    /// The lab.
    pub lab: Lab,
    mode: Mode,
}

/// The choices of a site.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    topology: Topology,
    mode: Mode,
    router: bool,
    nginx: bool,
    clients: u16,
    stable: usize,
    canary: usize,
    spare: usize,
    mtu: u32,
    backend_mtu: Option<u32>,
    weight: String,
    more: String,
    kinds: Vec<Kind>,
}

impl Builder {
    /// A router before the node.
    pub fn router(mut self) -> Self {
        self.router = true;
        self
    }

    /// nginx serves HTTP.
    pub fn nginx(mut self) -> Self {
        self.nginx = true;
        self
    }

    /// How many addresses the client has.
    pub fn clients(mut self, clients: u16) -> Self {
        self.clients = clients;
        self
    }

    /// How many backends of either version there are (2 and 1 without this).
    pub fn backends(mut self, stable: usize, canary: usize) -> Self {
        (self.stable, self.canary) = (stable, canary);
        self
    }

    /// So many more stable backends, which the configuration does not name: the last servers.
    pub fn spare(mut self, spare: usize) -> Self {
        self.spare = spare;
        self
    }

    /// The MTU of all links, in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The MTU of the backends' links.
    pub fn backend_mtu(mut self, mtu: u32) -> Self {
        self.backend_mtu = Some(mtu);
        self
    }

    /// The weight of all services (0% without this).
    pub fn weight(mut self, weight: &str) -> Self {
        self.weight = weight.into();
        self
    }

    /// More lines for every service.
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// What is served (HTTP alone without this).
    pub fn kinds(mut self, kinds: &[Kind]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// Builds it, and starts the agent.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn start(self) -> Result<Site> {
        let mut site = self.prepare()?;
        site.node.start()?;
        Ok(site)
    }

    /// Builds it with the configuration written and no agent started.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn prepare(self) -> Result<Site> {
        let stable = self.stable + self.spare;
        let names = (0..self.stable)
            .map(|n| format!("stable{}", n + 1))
            .chain((0..self.canary).map(|n| format!("canary{}", n + 1)))
            .chain((self.stable..stable).map(|n| format!("stable{}", n + 1)));
        let mut lab = Lab::builder(self.topology).backends(names).client_addresses(self.clients).mtu(self.mtu);
        lab = if self.router { lab.router() } else { lab };
        lab = if self.mode == Mode::Dsr { lab.dsr() } else { lab };
        lab = self.backend_mtu.map_or(lab.clone(), |mtu| lab.backend_mtu(mtu));
        let lab = lab.start()?;
        let servers = lab.backends().iter().map(|backend| self.server(backend)).collect::<Result<Vec<_>>>()?;
        let services = self.services(&servers[..self.stable + self.canary]);
        let node = Node::new(&lab)?;
        let site = Site { node, servers, services, lab, mode: self.mode };
        site.write_config()?;
        Ok(site)
    }

    fn server(&self, backend: &crate::lab::Backend) -> Result<Server> {
        let cohort = if backend.name.starts_with("canary") { Cohort::Canary } else { Cohort::Stable };
        let mut server = Server {
            identity: Identity::new(cohort.as_str(), &backend.name),
            cohort,
            namespace: backend.namespace.clone(),
            address: backend.address,
            web: None,
            nginx: None,
            echo: None,
            udp: None,
            mode: self.mode,
        };
        let (identity, namespace) = (&server.identity, &server.namespace);
        for kind in &self.kinds {
            let addresses = server.listens(*kind);
            match kind {
                Kind::Web if self.nginx => server.nginx = Some(Nginx::start(namespace, identity, &addresses)?),
                Kind::Web => server.web = Some(http::Server::start(namespace, identity.clone(), &addresses)?),
                Kind::Echo => server.echo = Some(tcp_echo::Server::start(namespace, identity, &addresses)?),
                Kind::Udp => server.udp = Some(udp_echo::Server::start(namespace, identity, &addresses)?),
            }
        }
        Ok(server)
    }

    fn services(&self, servers: &[Server]) -> Vec<Service> {
        let mut services = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| self.kinds.contains(kind)) {
            for family in FAMILIES {
                let address = SocketAddr::new(family.of(SERVICE), kind.port());
                let service = Service::new(&kind.service(family), kind.protocol(), address, self.mode);
                let service = service.weight(&self.weight).more(&self.more);
                services.push(
                    servers.iter().fold(service, |service, server| service.backend(server.cohort, server.backend(kind, family))),
                );
            }
        }
        services
    }
}

impl Site {
    /// Two stable backends and a canary that serve HTTP, of one shape and mode.
    pub fn builder(topology: Topology, mode: Mode) -> Builder {
        Builder {
            topology,
            mode,
            router: false,
            nginx: false,
            clients: 1,
            stable: 2,
            canary: 1,
            spare: 0,
            mtu: 1500,
            backend_mtu: None,
            weight: "0%".into(),
            more: String::new(),
            kinds: vec![Kind::Web],
        }
    }

    /// How packets reach the backends.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Where clients connect to.
    #[must_use]
    pub fn target(&self, kind: Kind, family: Family) -> SocketAddr {
        SocketAddr::new(family.of(SERVICE), kind.port())
    }

    /// The client's first address.
    #[must_use]
    pub fn client(&self, family: Family) -> IpAddr {
        family.of(self.lab.client_addresses()[0])
    }

    /// A server by its name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn server(&self, name: &str) -> &Server {
        self.servers.iter().find(|server| server.identity.name == name).expect("a server of this name")
    }

    /// The servers of a version.
    pub fn of(&self, cohort: Cohort) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.cohort == cohort)
    }

    /// A load of HTTP connections from the client's addresses.
    #[must_use]
    pub fn web(&self, family: Family, connections: u64) -> http::Load {
        let sources = self.lab.client_addresses().iter().map(|own| family.of(*own)).collect();
        let target = self.target(Kind::Web, family);
        http::Load { sources, ..http::Load::new(self.client(family), target, connections) }
    }

    /// Runs such a load to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn web_load(&self, family: Family, connections: u64) -> Result<http::Report> {
        self.web(family, connections).run(self.lab.client())
    }

    /// Writes the services into the configuration.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_config(&self) -> Result<()> {
        self.node.configure(&self.config_text())
    }

    /// The services as text.
    #[must_use]
    pub fn config_text(&self) -> String {
        self.services.iter().map(Service::text).collect()
    }
}
