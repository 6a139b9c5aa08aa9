//! What is wanted, what is known, what is to be done next. Pure: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Ways,
    event::Effect,
    facts::{Entry, Interfaces, Key, Lookup, Table},
    path::{self, Path, Reach},
    way::WayError,
};

/// How long after a question about a neighbour that the kernel knows nothing of it may be asked again. The kernel itself
/// repeats its question each second (`retrans_time_ms`).
const ASK_UNKNOWN: Duration = Duration::from_secs(1);

/// How long after a question that found no answer. The kernel takes 3 s to give up (`mcast_solicit`).
const ASK_FAILED: Duration = Duration::from_secs(5);

/// How many stale entries are confirmed in one go, so that the neighbours are not all asked in the same moment.
const STALE_AT_ONCE: usize = 128;

/// A neighbour that the kernel is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub key: Key,
    /// Whether the table holds no entry, so that one has to be made.
    pub create: bool,
}

/// What has to be fetched from the kernel before the ways are right again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The neighbour table.
    pub table: bool,
    /// The interfaces.
    pub interfaces: bool,
    /// The routes to these destinations.
    pub routes: BTreeSet<IpAddr>,
}

/// What an event makes necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Nothing,
    /// All is here; draw the conclusions.
    Conclude,
    /// Fetch what is due, then draw the conclusions.
    LookUp,
}

#[derive(Debug)]
struct Neighbor {
    reach: Reach,
    asked: Option<Instant>,
}

/// The resolver without its input and output.
#[derive(Debug)]
pub(super) struct State {
    /// How old a question about a stale entry may get.
    refresh: Duration,
    /// Each wanted destination, with its path once that is known.
    destinations: BTreeMap<IpAddr, Option<Result<Path, WayError>>>,
    interfaces: Interfaces,
    /// A copy of the kernel's table, kept up by events. All of it: which entries matter changes with the routes.
    table: Table,
    /// The neighbours at the ends of the paths.
    neighbors: BTreeMap<Key, Neighbor>,
    due: Due,
}

impl State {
    pub(super) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            destinations: BTreeMap::new(),
            interfaces: Interfaces::new(),
            table: Table::new(),
            neighbors: BTreeMap::new(),
            due: Due::default(),
        }
    }

    /// Replaces the set of destinations. What is known of those that stay, stays.
    pub(super) fn want(&mut self, wanted: &BTreeSet<IpAddr>) {
        self.destinations.retain(|destination, _| wanted.contains(destination));
        self.due.routes.retain(|destination| wanted.contains(destination));
        for destination in wanted {
            self.destinations.entry(*destination).or_insert_with(|| {
                self.due.routes.insert(*destination);
                None
            });
        }
    }

    /// Takes an event in, and says what has to follow from it.
    pub(super) fn note(&mut self, effect: &Effect) -> Work {
        match effect {
            Effect::Nothing => Work::Nothing,
            Effect::Neighbor(key, entry) => {
                match entry {
                    Some(entry) => self.table.insert(*key, *entry),
                    None => self.table.remove(key),
                };
                if self.neighbors.contains_key(key) { Work::Conclude } else { Work::Nothing }
            }
            Effect::RoutesWithin(prefix) => {
                let mut work = Work::Nothing;
                for destination in self.destinations.keys().filter(|destination| prefix.contains(*destination)) {
                    self.due.routes.insert(*destination);
                    work = Work::LookUp;
                }
                work
            }
            Effect::Routes => {
                self.due.interfaces = true;
                self.due.routes.extend(self.destinations.keys());
                Work::LookUp
            }
            Effect::Everything => {
                self.due.table = true;
                self.note(&Effect::Routes)
            }
        }
    }

    /// What has to be fetched; the caller fetches it and hands it to [`State::set_table`] and its like.
    pub(super) fn due(&self) -> &Due {
        &self.due
    }

    pub(super) fn set_table(&mut self, table: Table) {
        self.due.table = false;
        self.table = table;
    }

    pub(super) fn set_interfaces(&mut self, interfaces: Interfaces) {
        self.due.interfaces = false;
        self.interfaces = interfaces;
    }

    pub(super) fn set_route(&mut self, destination: IpAddr, lookup: &Lookup) {
        self.due.routes.remove(&destination);
        if let Some(path) = self.destinations.get_mut(&destination) {
            *path = Some(path::path(destination, lookup, &self.interfaces));
        }
    }

    /// Draws the conclusions from all that was taken in: the ways as they are now. Destinations whose route has not been
    /// looked up are not among them yet.
    pub(super) fn conclude(&mut self) -> Ways {
        let ends: BTreeSet<Key> = self.destinations.values().flatten().flatten().map(|path| path.neighbor).collect();
        self.neighbors.retain(|key, _| ends.contains(key));
        for key in ends {
            let neighbor = self.neighbors.entry(key).or_insert(Neighbor { reach: Reach::Unknown, asked: None });
            neighbor.reach = neighbor.reach.after(self.table.get(&key).copied());
        }
        self.destinations
            .iter()
            .filter_map(|(destination, path)| {
                let way = match path.as_ref()? {
                    Ok(path) => {
                        let reach = self.neighbors.get(&path.neighbor).map_or(Reach::Unknown, |known| known.reach);
                        path::way(path, reach)
                    }
                    Err(error) => Err(error.clone()),
                };
                Some((*destination, way))
            })
            .collect()
    }

    /// The neighbours that the kernel should be asked to resolve or to confirm now, those never asked first.
    pub(super) fn asks(&self, now: Instant) -> Vec<Ask> {
        let mut stale = 0;
        let mut asks: Vec<(Option<Instant>, Ask)> = Vec::new();
        for (key, neighbor) in &self.neighbors {
            let entry = self.table.get(key);
            let interval = match entry {
                // The kernel confirms these by itself, or never. Using a PERMANENT entry would even make it mortal: see
                // NEIGH_UPDATE_F_USE in __neigh_update().
                Some(Entry::Fresh(_)) => continue,
                Some(Entry::Stale(_)) => self.refresh,
                Some(Entry::Failed) => ASK_FAILED,
                None if neighbor.reach == Reach::Failed => ASK_FAILED,
                None => ASK_UNKNOWN,
            };
            let due = neighbor.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= interval);
            if due {
                asks.push((neighbor.asked, Ask { key: *key, create: entry.is_none() }));
            }
        }
        asks.sort_by_key(|(asked, _)| *asked);
        asks.retain(|(_, ask)| {
            let confirms = matches!(self.table.get(&ask.key), Some(Entry::Stale(_)));
            stale += usize::from(confirms);
            !confirms || stale <= STALE_AT_ONCE
        });
        asks.into_iter().map(|(_, ask)| ask).collect()
    }

    /// Records that the kernel was asked.
    pub(super) fn asked(&mut self, key: Key, table_full: bool, now: Instant) {
        if let Some(neighbor) = self.neighbors.get_mut(&key) {
            neighbor.asked = Some(now);
            neighbor.reach = neighbor.reach.after_asking(table_full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbor::{
        facts::{Interface, Route, RouteKind},
        way::Mac,
    };

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const REFRESH: Duration = Duration::from_secs(10);

    #[test]
    fn new_destinations_are_looked_up_and_old_ones_kept() {
        let mut state = settled(&[1, 2]);
        state.want(&[address(2), address(3)].into());
        assert_eq!(state.due().routes, [address(3)].into());
        let ways = state.conclude();
        assert_eq!(ways.keys().copied().collect::<Vec<_>>(), [address(2)], "one gone, one not looked up yet");
    }

    #[test]
    fn a_route_concerns_the_destinations_inside_its_prefix_alone() {
        let mut state = settled(&[1, 2, 200]);
        assert_eq!(state.note(&within("10.0.0.0/30")), Work::LookUp);
        assert_eq!(state.due().routes, [address(1), address(2)].into());
        assert!(!state.due().interfaces);
        for elsewhere in ["10.1.0.0/16", "::/0"] {
            assert_eq!(state.note(&within(elsewhere)), Work::Nothing, "{elsewhere}");
        }
        assert_eq!(state.note(&within("0.0.0.0/0")), Work::LookUp);
        assert_eq!(state.due().routes.len(), 3);
    }

    #[test]
    fn a_link_concerns_all_routes_and_lost_events_concern_all() {
        let mut state = settled(&[1, 2]);
        assert_eq!(state.note(&Effect::Routes), Work::LookUp);
        let routes = BTreeSet::from([address(1), address(2)]);
        assert_eq!(*state.due(), Due { table: false, interfaces: true, routes: routes.clone() });
        assert_eq!(state.note(&Effect::Everything), Work::LookUp);
        assert_eq!(*state.due(), Due { table: true, interfaces: true, routes });
    }

    #[test]
    fn a_neighbor_concerns_those_behind_it_and_strangers_nobody() {
        let mut state = settled(&[1, 2]);
        assert_eq!(state.note(&Effect::Neighbor(key(77), Some(Entry::Fresh(MAC)))), Work::Nothing);
        assert_eq!(state.note(&Effect::Neighbor(key(1), Some(Entry::Fresh(MAC)))), Work::Conclude);
        assert_eq!(*state.due(), Due::default());
        let ways = state.conclude();
        assert_eq!(ways[&address(1)].as_ref().map(|way| way.destination_mac), Ok(MAC));
        assert!(ways[&address(2)].as_ref().is_err_and(WayError::is_pending));
    }

    #[test]
    fn a_stranger_that_becomes_a_neighbor_is_known_already() {
        let mut state = settled(&[1]);
        state.note(&Effect::Neighbor(key(2), Some(Entry::Stale(MAC))));
        state.want(&[address(2)].into());
        state.set_route(address(2), &on_link());
        assert!(state.conclude()[&address(2)].is_ok());
    }

    #[test]
    fn a_deletion_which_the_kernel_announces_as_a_failure_first_loses_nothing() {
        let mut state = settled(&[1]);
        state.note(&Effect::Neighbor(key(1), Some(Entry::Fresh(MAC))));
        let before = state.conclude();
        assert!(before[&address(1)].is_ok());
        state.note(&Effect::Neighbor(key(1), Some(Entry::Failed)));
        state.note(&Effect::Neighbor(key(1), None));
        assert_eq!(state.conclude(), before);
        assert_eq!(state.asks(Instant::now()), [Ask { key: key(1), create: true }]);
    }

    #[test]
    fn each_kind_of_entry_has_its_own_pace_of_asking() {
        let start = Instant::now();
        let rows = [
            (None, Some(ASK_UNKNOWN), true),
            (Some(Entry::Failed), Some(ASK_FAILED), false),
            (Some(Entry::Stale(MAC)), Some(REFRESH), false),
            (Some(Entry::Fresh(MAC)), None, false),
        ];
        for (entry, interval, create) in rows {
            let mut state = settled(&[1]);
            state.note(&Effect::Neighbor(key(1), entry));
            state.conclude();
            let Some(interval) = interval else {
                assert_eq!(state.asks(start), [], "{entry:?}");
                continue;
            };
            let ask = Ask { key: key(1), create };
            assert_eq!(state.asks(start), [ask], "{entry:?}");
            state.asked(ask.key, false, start);
            assert_eq!(state.asks(start + interval - Duration::from_millis(1)), [], "{entry:?}");
            assert_eq!(state.asks(start + interval), [ask], "{entry:?}");
        }
    }

    #[test]
    fn a_failed_neighbor_whose_entry_was_collected_is_asked_for_at_the_pace_of_the_failed() {
        let start = Instant::now();
        let mut state = settled(&[1]);
        state.note(&Effect::Neighbor(key(1), Some(Entry::Failed)));
        state.conclude();
        state.note(&Effect::Neighbor(key(1), None));
        let ways = state.conclude();
        assert!(matches!(ways[&address(1)], Err(WayError::Failed { .. })), "{ways:?}");
        state.asked(key(1), false, start);
        assert_eq!(state.asks(start + ASK_FAILED - Duration::from_millis(1)), []);
        assert_eq!(state.asks(start + ASK_FAILED), [Ask { key: key(1), create: true }]);
    }

    #[test]
    fn of_many_stale_neighbors_some_are_confirmed_at_a_time_and_all_in_turn() {
        let start = Instant::now();
        let all: Vec<u8> = (1..=200).collect();
        let mut state = settled(&all);
        for last in &all {
            state.note(&Effect::Neighbor(key(*last), Some(Entry::Stale(MAC))));
        }
        // One that nothing is known of is never kept waiting.
        state.note(&Effect::Neighbor(key(200), None));
        state.conclude();
        let first = state.asks(start);
        assert_eq!(first.len(), STALE_AT_ONCE + 1);
        assert!(first.contains(&Ask { key: key(200), create: true }));
        for ask in &first {
            state.asked(ask.key, false, start);
        }
        let second = state.asks(start);
        assert_eq!(second.len(), 200 - first.len());
        assert!(second.iter().all(|ask| !first.contains(ask)));
    }

    #[test]
    fn a_full_table_is_told_until_the_kernel_asks_again() {
        let mut state = settled(&[1]);
        state.asked(key(1), true, Instant::now());
        assert!(matches!(state.conclude()[&address(1)], Err(WayError::TableFull { .. })));
        state.asked(key(1), false, Instant::now());
        assert!(matches!(state.conclude()[&address(1)], Err(WayError::Unresolved { .. })));
    }

    #[test]
    fn a_neighbor_that_no_path_leads_to_any_more_is_not_asked_for() {
        let mut state = settled(&[1]);
        state.want(&BTreeSet::new());
        assert!(state.conclude().is_empty());
        assert_eq!(state.asks(Instant::now()), []);
    }

    /// Destinations on one link, all looked up; no neighbour known.
    fn settled(destinations: &[u8]) -> State {
        let mut state = State::new(REFRESH);
        let wire = Interface {
            index: 2,
            name: "wire".into(),
            mac: Some([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            up: true,
            kind: None,
            vlan: None,
            controller: None,
        };
        state.set_interfaces([(2, wire)].into());
        state.want(&destinations.iter().map(|last| address(*last)).collect());
        for last in destinations {
            state.set_route(address(*last), &on_link());
        }
        state.conclude();
        state
    }

    fn on_link() -> Lookup {
        Lookup::Found(Route {
            kind: RouteKind::Unicast,
            device: Some(2),
            gateway: None,
            source: Some(IpAddr::from([10, 0, 0, 254])),
            mtu: None,
            encapsulated: false,
        })
    }

    fn within(prefix: &str) -> Effect {
        Effect::RoutesWithin(prefix.parse().expect("a prefix"))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn key(last: u8) -> Key {
        Key { device: 2, address: address(last) }
    }
}
