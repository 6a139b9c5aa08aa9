//! What the data plane makes of sequences of packets: which counters move, by how much, what is measured. Rows with a why, each run through the program that
//! ships; those of TCP name the section of RFC 9293 that says how the two ends come to send this.

mod forged;
mod half_open;
mod icmp;
mod one_way;
mod play;
mod row;
mod tcp;
mod udp;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use row::Row;

#[test]
fn a_handshake_and_an_end_count_once_whatever_is_lost_or_sent_again() -> Result<()> {
    play::all(&tcp::rows())
}

#[test]
fn an_attempt_comes_to_one_outcome_and_one_alone() -> Result<()> {
    play::all(&half_open::rows())
}

#[test]
fn where_only_the_client_is_seen_its_segments_tell_what_they_can() -> Result<()> {
    play::all(&one_way::rows())
}

#[test]
fn an_exchange_of_datagrams_is_answered_refused_or_neither() -> Result<()> {
    play::all(&udp::rows())
}

#[test]
fn an_icmp_error_refuses_the_attempt_that_it_quotes_and_nothing_else() -> Result<()> {
    play::all(&icmp::rows())
}

#[test]
fn what_is_forged_in_an_ends_name_may_count_and_ends_nothing() -> Result<()> {
    play::all(&forged::rows())
}

#[test]
fn every_row_says_something_of_its_own() -> Result<()> {
    let rows: Vec<Row> = [tcp::rows(), half_open::rows(), one_way::rows(), udp::rows(), icmp::rows(), forged::rows()].concat();
    let whys: BTreeSet<&str> = rows.iter().map(|row| row.why).collect();
    ensure!(whys.len() == rows.len(), "two rows have the same reason");
    // A counter that no row moves would be one that nobody looks at.
    let moves = |counter: fn(&row::Counters) -> u64| rows.iter().any(|row| counter(&row.counts) > 0);
    let counters: [fn(&row::Counters) -> u64; 11] = [
        |c| c.opened,
        |c| c.completed,
        |c| c.refused,
        |c| c.timed_out,
        |c| c.reset_by_backend,
        |c| c.reset_by_client,
        |c| c.closed,
        |c| c.retransmitted,
        |c| c.unreachable,
        |c| c.established,
        |c| c.ended,
    ];
    ensure!(counters.into_iter().all(moves), "a counter moves in no row");
    for row in &rows {
        let sum = row.counts.established - row.counts.ended;
        ensure!(sum == row.live, "{}: {} live by its counters, {} by the row", row.why, sum, row.live);
        let outcomes = row.counts.completed + row.counts.refused + row.counts.timed_out;
        ensure!(outcomes <= row.counts.opened, "{}: more outcomes than attempts", row.why);
    }
    println!("{} rows", rows.len());
    Ok(())
}
