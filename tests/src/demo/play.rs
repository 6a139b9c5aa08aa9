//! What happens on the stage, and what is written down of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use splitter_user::{
    api::wire::ServiceStatus,
    model::{Cohort, Weight},
};

use super::{
    figures::{After, Attempt, ByCohort, Counted, Flip, Flipped, Intended, LongLived, Report, Span, Step},
    options::{FLIP_LIMIT, Plot},
    screen::{Display, Line, Style},
    stage::{SERVICE, Stage},
    view::{Event, Frame, Row},
};
use crate::{
    node::{Family, Kind},
    workload::http::{
        self,
        kept::{self, Connection, State},
    },
};

/// Between two looks at what came in.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at whether the flip came: this bounds how late it is seen, not how late it is.
const LOOK: Duration = Duration::from_millis(10);
/// Between two lines, where nothing is drawn over.
const LINE: Duration = Duration::from_secs(1);
/// How long reset connections may take to come back.
const BACK_LIMIT: Duration = Duration::from_secs(5);

/// What was played.
#[derive(Debug)]
pub struct Played {
    /// The figures.
    pub report: Report,
    /// The last frame.
    pub frame: Vec<Line>,
}

/// A play under way. Dropping it ends its loads.
pub struct Play<'a> {
    stage: &'a Stage,
    plot: &'a Plot,
    display: &'a mut Display,
    load: http::Running,
    kept: kept::Running,
    /// The same moment on both clocks, to find the agent's times among ours.
    clocks: (Instant, Timestamp),
    /// When the load of new connections began: times are counted from here.
    begun: Instant,
    book: Book,
    /// Since when nothing was changed, and what that is in words.
    now: (Duration, String),
    story: Vec<Event>,
    /// How much of the story was printed, and when a line was, where nothing is drawn over.
    told: usize,
    line_at: Duration,
}

impl<'a> Play<'a> {
    /// Begins the loads.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn new(stage: &'a Stage, plot: &'a Plot, display: &'a mut Display) -> Result<Self> {
        let kept = stage.kept()?;
        let load = stage.bounded_load()?;
        let begun = load.begun;
        Ok(Self {
            stage,
            plot,
            display,
            load,
            kept,
            clocks: (Instant::now(), Timestamp::now()),
            begun,
            book: Book::default(),
            now: (Duration::ZERO, format!("weight {}", Weight::ZERO)),
            story: Vec::new(),
            told: 0,
            line_at: Duration::ZERO,
        })
    }

    /// Plays it to its end.
    ///
    /// # Errors
    /// When the agent or the network fails; what must hold and doesn't is in the report.
    pub async fn perform(mut self) -> Result<Played> {
        self.open_long_lived().await?;
        self.stay(self.plot.before).await?;
        let spans = self.ramp().await?;
        let broken_at = self.begun.elapsed();
        self.stage.set_canary(http::Mode::Refuse)?;
        self.tell(broken_at, Style::Bad, "the canary closes its listening socket: new connections are refused");
        let flipped = self.wait_for_flip().await?;
        if flipped.is_some() {
            self.come_back().await?;
        }
        self.stay(self.plot.after).await?;
        self.finish(spans, broken_at, flipped).await
    }

    /// Raises the weight step by step; the times in which each stood.
    async fn ramp(&mut self) -> Result<Vec<(Weight, Span)>> {
        let mut spans: Vec<(Weight, Span)> = Vec::new();
        for (weight, duration) in self.plot.steps.clone() {
            let asked = self.begun.elapsed();
            self.book.weights.push((asked, weight));
            let command = self.stage.weight(weight)?;
            let from = self.begun.elapsed();
            self.now = (from, format!("weight {weight}"));
            self.tell(asked, Style::Bold, format!("splitter {command}"));
            self.open_long_lived().await?;
            self.stay((from + duration).saturating_sub(self.begun.elapsed())).await?;
            spans.push((weight, Span { from, until: self.begun.elapsed() }));
        }
        Ok(spans)
    }

    async fn open_long_lived(&mut self) -> Result<()> {
        let before = self.kept.connections().len();
        self.kept.open(self.plot.batch).await?;
        let opened = self.kept.connections().split_off(before);
        let canary = opened.iter().filter(|connection| is_on(connection, Cohort::Canary)).count();
        let text = format!("{} long-lived connections opened, {canary} of them on the canary", opened.len());
        self.tell(self.begun.elapsed(), Style::Plain, text);
        Ok(())
    }

    /// Waits until the agent has flipped the service; `None` when it doesn't.
    async fn wait_for_flip(&mut self) -> Result<Option<Flipped>> {
        let deadline = Instant::now() + FLIP_LIMIT;
        let mut drawn = Instant::now();
        loop {
            let flip = self.stage.status().await?.flip;
            let seen = self.begun.elapsed();
            if let Some(flip) = flip {
                let reason = flip.reason.unwrap_or_default();
                let flipped =
                    Flipped { cause: flip.cause.as_str().into(), reason: reason.clone(), at: self.offset(flip.at), seen };
                self.now = (seen, "flipped".into());
                self.book.weights.push((seen, Weight::ZERO));
                self.tell(flipped.at, Style::Bad, format!("flipped to stable by {}: {reason}", flip.by));
                return Ok(Some(flipped));
            }
            if Instant::now() > deadline {
                self.tell(seen, Style::Bad, format!("no flip within {} s", FLIP_LIMIT.as_secs()));
                return Ok(None);
            }
            if drawn.elapsed() >= TICK {
                drawn = Instant::now();
                self.look().await?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the canary's long-lived connections are on stable.
    async fn come_back(&mut self) -> Result<()> {
        let deadline = Instant::now() + BACK_LIMIT;
        let settled = |connections: &[Connection]| {
            let opening = connections.iter().any(|connection| connection.state == State::Opening);
            !opening && !connections.iter().any(|connection| is_open_on(connection, Cohort::Canary))
        };
        while !settled(&self.kept.connections()) && Instant::now() < deadline {
            self.stay(TICK).await?;
        }
        let back = self
            .kept
            .connections()
            .iter()
            .filter(|connection| connection.again && is_open_on(connection, Cohort::Stable))
            .count();
        self.tell(self.begun.elapsed(), Style::Plain, format!("{back} long-lived connections of the canary are back on stable"));
        Ok(())
    }

    /// Lets time pass.
    async fn stay(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.look().await?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(TICK)).await;
        }
    }

    /// Takes what came in, and shows it.
    async fn look(&mut self) -> Result<()> {
        while let Ok(record) = self.load.records.try_recv() {
            self.book.note(self.stage, record).await?;
        }
        let frame = self.frame();
        if self.display.is_terminal() {
            self.display.redraw(&frame.lines())?;
            return Ok(());
        }
        let fresh: Vec<Line> = self.story[self.told..].iter().flat_map(Event::lines).collect();
        self.told = self.story.len();
        self.display.print(&fresh)?;
        if frame.at >= self.line_at + LINE {
            self.line_at = frame.at;
            self.display.print(&[Line::new(Style::Plain, frame.line())])?;
        }
        Ok(())
    }

    /// A time of the agent's on our clock, from the load's begin; the begin itself when it was before.
    fn offset(&self, at: Timestamp) -> Duration {
        let (instant, timestamp) = self.clocks;
        let since: Duration = at.duration_since(timestamp).try_into().unwrap_or_default();
        (instant + since).saturating_duration_since(self.begun)
    }

    fn tell(&mut self, at: Duration, style: Style, text: impl Into<String>) {
        self.story.push(Event { at, style, text: text.into() });
    }

    fn frame(&self) -> Frame {
        let (since, asked) = &self.now;
        let at = self.begun.elapsed();
        let current = || self.book.attempts.iter().filter(|attempt| attempt.begun >= *since);
        let family = match self.plot.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        Frame {
            title: format!("{}, {family}, service {SERVICE} {}", self.plot.mode, self.stage.target),
            at,
            asked: asked.clone(),
            connections: current().count() as u64,
            canary: current().filter(|attempt| attempt.cohort == Cohort::Canary).count() as u64,
            rows: self.rows(at),
            story: self.story.clone(),
        }
    }

    fn rows(&self, at: Duration) -> Vec<Row> {
        let kept = self.kept.connections();
        let row = |(number, server): (usize, &crate::node::Server)| {
            let of =
                || self.book.attempts.iter().zip(&self.book.servers).filter(|(_, by)| **by == number).map(|(attempt, _)| attempt);
            let open = |connection: &&Connection| {
                connection.state == State::Open && connection.identity.as_ref() == Some(&server.identity)
            };
            Row {
                cohort: server.cohort,
                name: format!("{} {}", server.identity.name, server.backend(Kind::Web, self.plot.family)),
                connections: of().count() as u64,
                rate: of().filter(|attempt| attempt.ended + Duration::from_secs(1) >= at).count() as u64,
                failed: of().filter(|attempt| attempt.failed).count() as u64,
                long_lived: kept.iter().filter(open).count() as u64,
            }
        };
        self.stage.site.servers.iter().enumerate().map(row).collect()
    }

    /// Ends the loads and adds everything up.
    async fn finish(mut self, spans: Vec<(Weight, Span)>, broken_at: Duration, flipped: Option<Flipped>) -> Result<Played> {
        self.look().await?;
        let frame = self.frame().lines();
        let Self { stage, plot, load, kept, begun, mut book, .. } = self;
        for record in load.stop()?.records {
            book.note(stage, record).await?;
        }
        let kept = kept.stop()?;
        let agent = counted(&stage.status().await?);
        let attempts = &book.attempts;
        let mut report = Report {
            mode: plot.mode.to_string(),
            family: plot.family_name().into(),
            rate: plot.rate,
            steps: spans.iter().map(|(weight, span)| Step::measure(*weight, span, attempts)).collect(),
            flip: flipped.as_ref().map(|flipped| Flip::measure(broken_at, flipped, attempts)),
            after_flip: flipped.as_ref().map(|flipped| After::measure(flipped, attempts)),
            long_lived: LongLived::of(&kept, begun + broken_at),
            connections: attempts.len() as u64,
            refused: book.refused,
            failed_while_ramping: ByCohort::failed_before(broken_at, attempts),
            agent,
            seconds: begun.elapsed().as_secs_f64(),
            not_held: Vec::new(),
        };
        report.not_held = report.judge(&Intended { long_lived: plot.long_lived() as u64, cause: plot.cause() });
        Ok(Played { report, frame })
    }
}

/// What is written down of the new connections.
#[derive(Debug, Default)]
struct Book {
    attempts: Vec<Attempt>,
    /// The server of each attempt.
    servers: Vec<usize>,
    /// How many were refused with a RST.
    refused: u64,
    /// The weights that came in force, each with the moment when that was begun, and for the flip when it was seen.
    weights: Vec<(Duration, Weight)>,
}

impl Book {
    async fn note(&mut self, stage: &Stage, record: http::Record) -> Result<()> {
        let http::Record { begun, local, took, outcome, .. } = record;
        self.refused += u64::from(outcome == http::Outcome::Refused);
        let (cohort, server, failed) = match outcome {
            http::Outcome::Answered(identity) => {
                let server = stage.server(|server| server.identity == identity);
                let server = server.with_context(|| format!("an answer by {identity}, which is none of ours"))?;
                (stage.site.servers[server].cohort, server, false)
            }
            http::Outcome::Refused | http::Outcome::Reset | http::Outcome::TimedOut | http::Outcome::Failed(_) => {
                let (cohort, server) = stage.whose(local, self.weight_at(begun)).await?;
                (cohort, server, true)
            }
        };
        self.attempts.push(Attempt { begun, ended: begun + took, cohort, failed });
        self.servers.push(server);
        Ok(())
    }

    /// The weight that was in force, then.
    fn weight_at(&self, at: Duration) -> Weight {
        self.weights.iter().rev().find(|(asked, _)| *asked <= at).map_or(Weight::ZERO, |(_, weight)| *weight)
    }
}

/// The agent's numbers.
fn counted(status: &ServiceStatus) -> Option<Counted> {
    let of = |cohort| status.cohort(cohort)?.sums;
    let (stable, canary) = (of(Cohort::Stable)?, of(Cohort::Canary)?);
    Some(Counted {
        opened: ByCohort { stable: stable.opened, canary: canary.opened },
        refused: stable.refused.zip(canary.refused).map(|(stable, canary)| ByCohort { stable, canary }),
    })
}

fn is_on(connection: &Connection, cohort: Cohort) -> bool {
    connection.identity.as_ref().is_some_and(|identity| identity.version == cohort.as_str())
}

fn is_open_on(connection: &Connection, cohort: Cohort) -> bool {
    connection.state == State::Open && is_on(connection, cohort)
}
