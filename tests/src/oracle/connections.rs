//! What the oracle has learned: connections, places in hash space, fragments under way.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::world::{Affinity, Cohort, Leeway, Protocol, Service, Way};
use crate::packet::Mac;
use crate::packet::parse::View;

/// A connection's number; never reused within a run.
pub(super) type Id = usize;

/// A connection that the program was seen to open.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub service: usize,
    pub protocol: Protocol,
    pub client: SocketAddr,
    pub backend: usize,
    /// The source it has toward its backend, in `nat` mode.
    pub nat: Option<SocketAddr>,
    /// Where its replies go.
    pub way_back: WayBack,
    /// The attempt is known to have got an answer: the backend's SYN+ACK was seen, or (`dsr`) the client's ACK.
    pub answered: bool,
    /// It has the slot of a connection before, which its backend had answered.
    pub keeps_slot: bool,
    /// A FIN or RST was seen, or a flip has ended it.
    pub closing: bool,
    /// It may have been forgotten.
    pub doubtful: bool,
}

/// The way that a client's packet came, turned round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WayBack {
    pub interface: u32,
    pub client: Mac,
    pub node: Mac,
    /// VLAN IDs, outermost first.
    pub vlans: Vec<u16>,
}

impl WayBack {
    pub(super) fn of(view: &View, ingress: u32) -> WayBack {
        WayBack { interface: ingress, client: view.source, node: view.destination, vlans: view.vlans().collect() }
    }
}

impl Connection {
    /// Whether the program may have forgotten it without a sign.
    pub(super) const fn may_be_gone(&self, leeway: Leeway) -> bool {
        self.doubtful || leeway.affinity_full || self.closing && leeway.closing_expires
    }
}

/// All connections, found from both sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    all: Vec<Connection>,
    by_client: HashMap<(usize, SocketAddr), Id>,
    by_slot: HashMap<(Protocol, SocketAddr), Id>,
}

impl Connections {
    pub(super) fn of_client(&self, service: usize, client: SocketAddr) -> Option<(Id, &Connection)> {
        self.by_client.get(&(service, client)).map(|id| (*id, &self.all[*id]))
    }

    pub(super) fn of_slot(&self, protocol: Protocol, nat: SocketAddr) -> Option<(Id, &Connection)> {
        self.by_slot.get(&(protocol, nat)).map(|id| (*id, &self.all[*id]))
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Connection {
        &mut self.all[id]
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whether this client's new connection may be given this NAT address and port.
    pub(super) fn may_take(
        &self,
        protocol: Protocol,
        nat: SocketAddr,
        leeway: Leeway,
        service: usize,
        client: SocketAddr,
    ) -> bool {
        self.of_slot(protocol, nat)
            .is_none_or(|(_, owner)| owner.may_be_gone(leeway) || owner.service == service && owner.client == client)
    }

    /// The way back of this client's connection before, and whether its backend had answered that one, if the new one has got its slot and goes to the same backend. While ports are free, that of a connection that is over is
    /// given to nobody else.
    pub(super) fn kept(
        &self,
        service: usize,
        client: SocketAddr,
        backend: usize,
        nat: Option<SocketAddr>,
    ) -> Option<(WayBack, bool)> {
        let (_, older) = self.of_client(service, client)?;
        (nat.is_some() && older.nat == nat && older.backend == backend && older.closing)
            .then(|| (older.way_back.clone(), older.answered || older.keeps_slot))
    }

    pub(super) fn open(&mut self, connection: Connection) {
        let id = self.all.len();
        if let Some(older) = self.by_client.insert((connection.service, connection.client), id) {
            // Nobody says when the older connection's slot is given back.
            self.all[older].doubtful = true;
        }
        if let Some(nat) = connection.nat
            && let Some(owner) = self.by_slot.insert((connection.protocol, nat), id)
        {
            // The slot has another owner now, so the older connection is no more.
            self.forget(owner);
        }
        self.all.push(connection);
    }

    /// The client's packets no longer find it; its slot may linger.
    pub(super) fn forget(&mut self, id: Id) {
        let connection = &mut self.all[id];
        connection.doubtful = true;
        let key = (connection.service, connection.client);
        if self.by_client.get(&key) == Some(&id) {
            self.by_client.remove(&key);
        }
    }
}

/// Where a hash was seen to lie, as far as choices told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    at_least: u64,
    below: u64,
    /// The backend it picked in each cohort, and from which set.
    picks: [Option<(u64, usize)>; 2],
}

/// The places of all hashes seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(HashMap<(usize, SocketAddr), Place>);

impl Places {
    /// The cohorts that a hash may lie in at this threshold.
    pub(super) fn cohorts(&self, index: usize, service: &Service, client: SocketAddr) -> &'static [Cohort] {
        let threshold = service.threshold();
        let (at_least, below) =
            self.0.get(&key(index, service, client)).map_or((0, 1 << 32), |place| (place.at_least, place.below));
        match (threshold <= at_least, below <= threshold) {
            (true, _) => &[Cohort::Stable],
            (false, true) => &[Cohort::Canary],
            (false, false) => &[Cohort::Stable, Cohort::Canary],
        }
    }

    /// The backend that a hash is known to pick in a cohort as it is now.
    pub(super) fn pick(&self, index: usize, service: &Service, client: SocketAddr, cohort: Cohort) -> Option<usize> {
        let (set, backend) = self.0.get(&key(index, service, client))?.picks[cohort as usize]?;
        (set == fingerprint(service, cohort)).then_some(backend)
    }

    /// A backend was picked. `placed`: the cohort that the place alone decided on.
    pub(super) fn learn(&mut self, index: usize, service: &Service, client: SocketAddr, backend: usize, placed: Option<Cohort>) {
        let nowhere = Place { at_least: 0, below: 1 << 32, picks: [None; 2] };
        let place = self.0.entry(key(index, service, client)).or_insert(nowhere);
        let cohort = service.backends[backend].cohort;
        place.picks[cohort as usize] = Some((fingerprint(service, cohort), backend));
        match placed {
            Some(Cohort::Canary) => place.below = place.below.min(service.threshold()),
            Some(Cohort::Stable) => place.at_least = place.at_least.max(service.threshold()),
            None => {}
        }
    }
}

fn key(index: usize, service: &Service, client: SocketAddr) -> (usize, SocketAddr) {
    match service.affinity {
        Affinity::Connection => (index, client),
        Affinity::Client => (index, SocketAddr::new(client.ip(), 0)),
    }
}

fn fingerprint(service: &Service, cohort: Cohort) -> u64 {
    let mut hasher = DefaultHasher::new();
    for backend in service.usable(cohort) {
        (backend, service.backends[backend].weight).hash(&mut hasher);
    }
    hasher.finish()
}

/// What the fragments of one datagram share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentKey {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub identification: u32,
}

/// What was done to a first fragment, to be done to the later ones.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub route: FollowedRoute,
    /// New source and destination, in `nat` mode.
    pub addresses: Option<(IpAddr, IpAddr)>,
}

/// The way that a first fragment went.
#[derive(Clone, Debug)]
pub(super) enum FollowedRoute {
    /// To a backend of a service, by this way.
    Backend { service: usize, backend: usize, way: Way },
    /// Back to a client, by the slot of this protocol at this NAT address and port.
    Client { back: WayBack, protocol: Protocol, slot: SocketAddr },
}
