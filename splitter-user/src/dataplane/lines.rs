//! Who has which lines of the Maglev map.

use std::collections::BTreeMap;

use splitter_ebpf::abi::{MAGLEV_LINE, Table};

/// A run of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    first: u32,
    count: u32,
}

impl Run {
    /// The lines of a table; none for an empty one.
    #[must_use]
    pub fn of(table: Table) -> Option<Self> {
        (table.size > 0).then(|| Self { first: table.first_line, count: lines(table.size) })
    }

    /// How many lines.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// The first line.
    #[must_use]
    pub fn first(self) -> u32 {
        self.first
    }
}

/// Lines that a table of so many entries needs.
#[must_use]
pub const fn lines(entries: u32) -> u32 {
    entries.div_ceil(MAGLEV_LINE)
}

/// The free lines, as runs by their first line; neighbours are always one run.
#[derive(Clone, Debug)]
pub struct Lines {
    free: BTreeMap<u32, u32>,
}

impl Lines {
    /// All of them free.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { free: BTreeMap::from([(0, count)]) }
    }

    /// Takes lines for a table, from the first run that is long enough.
    pub fn take(&mut self, entries: u32) -> Option<Run> {
        let wanted = lines(entries);
        let (first, count) = self.free.iter().map(|(f, c)| (*f, *c)).find(|(_, count)| *count >= wanted)?;
        self.free.remove(&first);
        if count > wanted {
            self.free.insert(first + wanted, count - wanted);
        }
        Some(Run { first, count: wanted })
    }

    /// Takes these very lines: an earlier agent had given them away. `false`: they aren't free.
    pub fn claim(&mut self, run: Run) -> bool {
        let Some((first, count)) = self.free.range(..=run.first).next_back().map(|(f, c)| (*f, *c)) else { return false };
        let (end, run_end) = (first + count, run.first + run.count);
        if run_end > end {
            return false;
        }
        self.free.remove(&first);
        if run.first > first {
            self.free.insert(first, run.first - first);
        }
        if end > run_end {
            self.free.insert(run_end, end - run_end);
        }
        true
    }

    /// Gives lines back.
    pub fn give(&mut self, run: Run) {
        let (mut first, mut count) = (run.first, run.count);
        if let Some((before, length)) = self.free.range(..first).next_back().map(|(f, c)| (*f, *c))
            && before + length == first
        {
            self.free.remove(&before);
            (first, count) = (before, length + count);
        }
        if let Some(length) = self.free.remove(&(first + count)) {
            count += length;
        }
        self.free.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_tables_share_a_line_and_all_come_back(sizes in prop::collection::vec((1_u32..5_000, any::<bool>()), 1..60)) {
            let mut lines = Lines::new(4_000);
            let mut held: Vec<Run> = Vec::new();
            for (size, give) in sizes {
                if give && !held.is_empty() {
                    lines.give(held.swap_remove(0));
                }
                if let Some(run) = lines.take(size) {
                    prop_assert!(run.first + run.count <= 4_000);
                    prop_assert!(held.iter().all(|other| run.first + run.count <= other.first || other.first + other.count <= run.first));
                    held.push(run);
                }
            }
            // Another agent finds the same state by claiming what is held.
            let mut adopted = Lines::new(4_000);
            prop_assert!(held.iter().all(|run| adopted.claim(*run)));
            prop_assert_eq!(&adopted.free, &lines.free);
            prop_assert!(held.iter().all(|run| !adopted.claim(*run)));
            for run in held {
                lines.give(run);
            }
            prop_assert_eq!(lines.free, BTreeMap::from([(0, 4_000)]));
        }
    }
}
