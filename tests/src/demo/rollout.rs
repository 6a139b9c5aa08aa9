//! A piece of its own: a rollout by plan, with a canary that fails as often as stable, or twenty times as often.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use splitter_user::{api::wire::RolloutStatus, model::Cohort, model::Mode};

use super::screen::{Display, Line, Style};
use crate::{
    faults::Quality,
    lab::Topology,
    node::{Family, Site},
    workload::http::{self, Outcome, Pace},
};

/// How good the canary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Canary {
    /// It refuses one connection of a thousand, as stable does
    Good,
    /// It refuses one of fifty
    Bad,
}

impl Canary {
    /// Of 10,000 connections.
    const fn refused(self) -> u16 {
        match self {
            Self::Good => STABLE,
            Self::Bad => 200,
        }
    }

    /// How the rollout has to end.
    const fn end(self) -> &'static str {
        match self {
            Self::Good => "promoted",
            Self::Bad => "flipped",
        }
    }
}

/// So many of 10,000 connections stable refuses.
const STABLE: u16 = 10;
const SERVICE: &str = "web4";
const RATE: f64 = 600.0;
const CLIENTS: u16 = 50;
const LOAD_LIMIT: Duration = Duration::from_secs(180);
const PLAN: &str = r#"
[service.rollout]
steps = ["1% for 4s", "10% for 8s", "10% to 50% over 8s", "50% for 20s", { weight = "100%", for = "2s" }]
min_connections = 15
existing = "reset"

[service.rollout.compare]
handshake_p90 = false   # one server does at 50% what two do on the other side
"#;

/// The figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// How good the canary was.
    pub canary: Canary,
    /// How the rollout ended.
    pub ended: String,
    /// Why, in one line.
    pub why: Option<String>,
    /// After how many seconds.
    pub seconds: f64,
    /// New connections that the client began.
    pub connections: u64,
    /// Answered by stable, by the canary.
    pub answered: [u64; 2],
    /// Those that failed: refused by either.
    pub failed: u64,
    /// Of the last 200, begun after the rollout had ended: answered by what was stable at the beginning, and by what was the canary.
    pub afterwards: [u64; 2],
    /// What should have held and did not.
    pub not_held: Vec<String>,
}

/// Plays it, and tells it as it goes. Blocks for half a minute.
///
/// # Errors
/// When it can't be played.
pub fn play(canary: Canary, display: &mut Display) -> Result<Figures> {
    let site = Site::builder(Topology::TwoArm, Mode::Nat)
        .clients(CLIENTS)
        .more(PLAN)
        .start()
        .context("the network, its servers and the agent")?;
    let quality = |cohort, of| site.of(cohort).map(move |server| Quality::refuse(server, of)).collect::<Result<Vec<_>, _>>();
    let _stable = quality(Cohort::Stable, STABLE).context("a stable that fails now and then")?;
    let _canary = quality(Cohort::Canary, canary.refused()).context("a canary that fails now and then")?;
    let told = |text: String| Line::new(Style::Plain, format!(" {text}"));
    display.print(&[
        told(format!(
            "{RATE} new connections a second. Stable refuses {STABLE} of 10,000, the canary {}. The plan:",
            canary.refused()
        )),
        Line::empty(),
    ])?;
    display.print(&PLAN.trim().lines().map(|line| Line::new(Style::Bold, format!("   {line}"))).collect::<Vec<_>>())?;
    display.print(&[
        Line::empty(),
        Line::new(Style::Bold, format!(" $ splitter rollout start {SERVICE} && splitter rollout wait {SERVICE}")),
    ])?;

    let load = http::Load { pace: Pace::PerSecond(RATE), duration: LOAD_LIMIT, ..site.web(Family::V4, u64::MAX) };
    let load = load.start(site.lab.client())?;
    let begun = Instant::now();
    display.print(&[told(site.node.run(&["rollout", "start", SERVICE])?.trim_end().to_owned())])?;
    wait(&site, display)?;
    let seconds = begun.elapsed().as_secs_f64();
    let status: RolloutStatus = site.node.json(&["rollout", "status", SERVICE])?;
    let report = load.stop()?;
    let summary = report.summary();
    let failed = report.records.iter().filter(|record| !matches!(record.outcome, Outcome::Answered(_))).count() as u64;
    let after = site.web_load(Family::V4, 200)?.summary();
    let by = |summary: &http::Summary| [Cohort::Stable, Cohort::Canary].map(|cohort| summary.answered_by(cohort.as_str()));
    let mut figures = Figures {
        canary,
        ended: status.phase.as_str().to_owned(),
        why: status.why,
        seconds,
        connections: report.records.len() as u64,
        answered: by(&summary),
        failed,
        afterwards: by(&after),
        not_held: Vec::new(),
    };
    figures.not_held = figures.judge();
    display.print(&figures.told())?;
    Ok(figures)
}

/// Shows what a pipeline would see.
fn wait(site: &Site, display: &mut Display) -> Result<()> {
    let mut command = site.node.command(&["rollout", "wait", SERVICE, "--timeout", "3m"]);
    command.stdout(Stdio::piped());
    let mut process = site.node.namespace().spawn(command)?;
    let out = process.child_mut().stdout.take().context("its standard output is a pipe")?;
    for line in BufReader::new(out).lines() {
        display.print(&[Line::new(Style::Plain, format!(" {}", line.context("read what it says")?))])?;
    }
    process.wait(Duration::from_secs(10)).context("splitter rollout wait")?;
    Ok(())
}

impl Figures {
    fn judge(&self) -> Vec<String> {
        let mut not_held = Vec::new();
        if self.ended != self.canary.end() {
            not_held.push(format!("the rollout is {}, and should be {}", self.ended, self.canary.end()));
        }
        let wrong = match self.canary {
            Canary::Good => self.afterwards[0],
            Canary::Bad => self.afterwards[1],
        };
        if wrong > 0 {
            not_held.push(format!("{wrong} of the connections begun afterwards reached the wrong version"));
        }
        not_held
    }

    fn told(&self) -> Vec<Line> {
        let line = |text: String| Line::new(Style::Plain, format!(" {text}"));
        let [stable, canary] = self.answered;
        let [old, new] = self.afterwards;
        let mut lines = vec![
            Line::empty(),
            line(format!(
                "{} after {:.1} s, {} connections: {stable} answered by stable, {canary} by the canary, {} failed",
                self.ended, self.seconds, self.connections, self.failed
            )),
            line(format!("of 200 begun afterwards: {old} to the old version, {new} to the new one")),
        ];
        lines.extend(self.why.iter().map(|why| line(why.clone())));
        lines.extend(self.not_held.iter().map(|what| Line::new(Style::Bold, format!(" not held: {what}"))));
        lines
    }
}
