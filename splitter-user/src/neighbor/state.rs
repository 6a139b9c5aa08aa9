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
