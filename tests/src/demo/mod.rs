//! The demo: a canary gets its share of real HTTP connections, breaks, and loses it.
//!
//! [`options`] is what can be chosen, [`stage`] what is built, [`play`] what happens on it, [`figures`] what came of it and whether
//! that is what must hold, [`view`] what the audience sees.

pub mod binomial;
pub mod figures;
pub mod options;
pub mod play;
pub mod rollout;
pub mod screen;
pub mod stage;
pub mod svg;
pub mod view;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use splitter_user::model::Cohort;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    figures::Report,
    options::{Options, Plot},
    play::{Play, Played},
    screen::{Display, Line, Style},
    stage::{SERVICE, Stage},
};
use crate::{bench::machine::Machine, faults, lab::Namespace, node, workload::http};

/// New connections a second while it is left standing.
const IDLE_RATE: f64 = 100.0;
/// How long it may be left standing with a load.
const IDLE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that must hold held.
    Held,
    /// Something did not; it was told.
    NotHeld,
    /// By this signal.
    Interrupted(i32),
}

/// Ctrl-C and SIGTERM, from the moment this is made on.
#[derive(Debug)]
pub struct Interrupts([(Signal, SignalKind); 2]);

impl Interrupts {
    /// From here on they don't end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> Result<Self> {
        let catch = |kind| Ok::<_, std::io::Error>((signal(kind)?, kind));
        Ok(Self([catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?]))
    }

    /// Waits for one of them; its number.
    pub async fn next(&mut self) -> i32 {
        let Self([(interrupt, first), (terminate, second)]) = self;
        tokio::select! {
            _ = interrupt.recv() => first.as_raw_value(),
            _ = terminate.recv() => second.as_raw_value(),
        }
    }
}

/// Runs it. Whatever happens, nothing is left behind.
///
/// # Errors
/// When it cannot be run to its end.
pub async fn run(options: &Options, interrupts: &mut Interrupts) -> Result<Ending> {
    if let Some(kind) = options.fault {
        return run_fault(kind, options, interrupts).await;
    }
    if let Some(canary) = options.rollout {
        return run_rollout(canary, options, interrupts).await;
    }
    let plot = Plot::of(options);
    let building = plot.clone();
    let stage = tokio::task::spawn_blocking(move || Stage::build(&building));
    let stage = tokio::select! {
        stage = stage => stage.context("building the stage")??,
        signal = interrupts.next() => return Ok(Ending::Interrupted(signal)),
    };
    let mut display = Display::stdout();
    let played = tokio::select! {
        played = Play::new(&stage, &plot, &mut display)?.perform() => played?,
        signal = interrupts.next() => return Ok(Ending::Interrupted(signal)),
    };
    let Played { report, frame } = played;
    let summary = view::summary(&report);
    display.print(&summary)?;
    if let Some(file) = &options.json {
        write(file, &json(&report)?)?;
    }
    if let Some(file) = &options.record {
        write(file, &svg::render("cargo xtask demo", &[frame, summary].concat()))?;
    }
    if options.keep {
        tokio::select! {
            ended = idle(&stage, &mut display) => ended?,
            _ = interrupts.next() => {}
        }
    }
    stage.end()?;
    Ok(if report.not_held.is_empty() { Ending::Held } else { Ending::NotHeld })
}

/// Plays one fault. An interrupted one is played to its end all the same, which is a matter of seconds, as nothing is to be left behind.
async fn run_fault(kind: faults::Kind, options: &Options, interrupts: &mut Interrupts) -> Result<Ending> {
    let plan = faults::Plan::new(kind, options.agent);
    let playing = plan.clone();
    let run = tokio::task::spawn_blocking(move || faults::Run::play(&playing));
    let run = tokio::select! {
        run = run => run.context("playing the fault")??,
        signal = interrupts.next() => return Ok(Ending::Interrupted(signal)),
    };
    Display::stdout().print(&faults::report::summary(&plan, &run))?;
    let row = faults::report::Row::of(&plan, &[run]);
    let held = row.not_held.is_empty();
    if let Some(file) = &options.json {
        let report = faults::report::Report { machine: Machine::of("demo"), faults: vec![row], limits: None };
        write(file, &(serde_json::to_string_pretty(&report).context("the figures as JSON")? + "\n"))?;
    }
    Ok(if held { Ending::Held } else { Ending::NotHeld })
}

/// Plays a rollout by plan. An interrupted one is played to its end all the same, as nothing is to be left behind.
async fn run_rollout(canary: rollout::Canary, options: &Options, interrupts: &mut Interrupts) -> Result<Ending> {
    let playing = tokio::task::spawn_blocking(move || rollout::play(canary, &mut Display::stdout()));
    let figures = tokio::select! {
        figures = playing => figures.context("playing the rollout")??,
        signal = interrupts.next() => return Ok(Ending::Interrupted(signal)),
    };
    if let Some(file) = &options.json {
        write(file, &(serde_json::to_string_pretty(&figures).context("the figures as JSON")? + "\n"))?;
    }
    Ok(if figures.not_held.is_empty() { Ending::Held } else { Ending::NotHeld })
}

/// Serves on, with a load, and tells how to play.
async fn idle(stage: &Stage, display: &mut Display) -> Result<()> {
    stage.set_canary(http::Mode::Serve)?;
    let mut load = stage.load(IDLE_RATE, IDLE_LIMIT)?;
    let kept = stage.kept()?;
    kept.open(50).await?;
    display.print(&how_to_play(stage)?)?;
    // Somebody has to take the records, or they pile up.
    while load.records.recv().await.is_some() {}
    Ok(())
}

fn how_to_play(stage: &Stage) -> Result<Vec<Line>> {
    let binary = node::binary()?.display().to_string();
    let socket = stage.site.node.socket();
    let inside = |namespace: &Namespace| format!("nsenter --net=/run/netns/{}", namespace.name());
    let splitter = |command: &str| {
        let node = inside(&stage.site.lab.node().namespace);
        Line::new(Style::Bold, format!("{node} {binary} --socket {} {command}", socket.display()))
    };
    let told = |text: &str| Line::new(Style::Plain, format!(" {text}"));
    let canary = stage.site.of(Cohort::Canary).map(|server| server.identity.name.as_str()).collect::<Vec<_>>().join(", ");
    Ok(vec![
        Line::empty(),
        told(&format!("It all stands, {canary} serves again, and {IDLE_RATE} new connections a second come in.")),
        told("In another terminal, as root: how things stand, and what was the matter"),
        splitter("status"),
        splitter("events"),
        told("give the canary its share back, and watch it"),
        splitter(&format!("unflip {SERVICE}")),
        splitter(&format!("weight {SERVICE} 25%")),
        splitter("status --watch"),
        told("be a client"),
        Line::new(Style::Bold, format!("{} curl -si http://{}/", inside(stage.site.lab.client()), stage.target)),
        told("Ctrl-C here takes it all down."),
    ])
}

fn json(report: &Report) -> Result<String> {
    Ok(serde_json::to_string_pretty(report).context("the figures as JSON")? + "\n")
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
