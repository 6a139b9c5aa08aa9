//! The entry of a Maglev table that a hash picks. (Building the tables is the agent's work.)

use crate::abi::{MAGLEV_LINE, Table};

/// Where a table's entry lies: the map's element, and the place in its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Entry of the table, from 0.
    pub number: u32,
    /// Element of the Maglev map.
    pub line: u32,
    /// Place in the line.
    pub column: u32,
}

/// The entry for the low half of a hash: scaled, not masked, so that a table's size may be a prime. `None`: the table is empty.
#[inline(always)]
#[must_use]
pub const fn entry(table: Table, slot: u32) -> Option<Entry> {
    if table.size == 0 {
        return None;
    }
    let number = ((slot as u64 * table.size as u64) >> 32) as u32;
    Some(Entry { number, line: table.first_line + number / MAGLEV_LINE, column: number % MAGLEV_LINE })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_lies_inside_its_table(first_line in 0_u32..1_000_000, size in 1_u32..1_000_000, slot: u32) {
            let entry = entry(Table { first_line, size }, slot).expect("not empty");
            prop_assert!(entry.number < size);
            prop_assert_eq!((entry.line - first_line) * MAGLEV_LINE + entry.column, entry.number);
        }
    }

    #[test]
    fn an_empty_table_has_no_entry() {
        assert_eq!(entry(Table::default(), 7), None);
    }
}
