//! `status --watch`: the status again and again, with rates from the differences.

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Io,
    args::{Format, Output},
    failure::Failure,
    show::{self, Change},
};
use crate::{api::client::Client, api::wire::Status, model::ServiceName};

/// Home, and clear what is below: without flicker, and what scrolled by before stays.
pub(super) const REDRAW: &str = "\x1b[H\x1b[J";
/// Everything is cleared once at the start.
pub(super) const CLEAR: &str = "\x1b[2J";

/// Shows the status until it can't be had, or can't be written any more.
pub(super) async fn status(
    client: &Client,
    service: Option<&ServiceName>,
    output: Output,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let redraw = io.terminal && output.format == Format::Human;
    let mut ticks = interval(io.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Status, Instant)> = None;
    if redraw {
        io.out.write_all(CLEAR.as_bytes())?;
    }
    loop {
        ticks.tick().await;
        let now = client.status(service).await?;
        let taken = Instant::now();
        let change = before.as_ref().map(|(before, at)| Change { before, elapsed: taken - *at });
        if redraw {
            io.out.write_all(REDRAW.as_bytes())?;
        }
        show::print_line(io, output, &now, |now| {
            let text = show::status(now, change.as_ref());
            // Blocks that follow each other in a file are told apart by an empty line.
            if redraw { text } else { format!("{text}\n") }
        })?;
        before = Some((now, taken));
    }
}
