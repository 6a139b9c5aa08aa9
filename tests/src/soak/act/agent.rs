//! What befalls the agent, its state and its clock.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use splitter_user::{api::wire::FlipCause, model::Weight, store::EventKind};

use super::Driver;
use crate::soak::{
    journal::Invariant,
    schedule::Event,
    world::{self, Start, services},
};

/// The wall clock goes forward by so many seconds, and then back to before it was right.
const STEPS: [i64; 2] = [3_600, -7_200];
/// Beyond the lease: a tick of the kernel's clock, and the time that a signal takes.
const EXPIRED: Duration = Duration::from_millis(500);

impl Driver<'_> {
    pub(super) fn agent_killed(&mut self, event: &Event) -> Result<()> {
        self.watch.no_agent();
        self.world.node.kill();
        self.while_away(event)?;
        self.launch(Start::Plain)
    }

    pub(super) fn agent_stopped(&mut self, event: &Event) -> Result<()> {
        self.watch.no_agent();
        self.world.node.signal(Signal::SIGSTOP)?;
        let away = self.while_away(event);
        self.world.node.signal(Signal::SIGCONT)?;
        away?;
        self.world.node.wait_ready()?;
        self.watch.agent_goes_on();
        Ok(())
    }

    /// Without a sign of life the lease runs out, and then some services have nothing for their canaries.
    fn while_away(&mut self, event: &Event) -> Result<()> {
        let over = Instant::now() + event.lasts;
        let expires = Instant::now() + world::LEASE + EXPIRED;
        if let Some(beside) = event.beside {
            self.trouble(event, beside, event.lasts / 2)?;
        }
        self.sleep(expires.min(over).saturating_duration_since(Instant::now()))?;
        let fall: Vec<_> = services().into_iter().filter(|served| !world::holds(*served)).collect();
        if Instant::now() >= expires {
            fall.iter().for_each(|served| self.clients.steady(*served, Weight::ZERO));
        }
        let slept = self.sleep(over.saturating_duration_since(Instant::now()));
        if event.lasts > world::LEASE {
            fall.iter().for_each(|served| self.clients.unsteady(*served));
        }
        slept
    }

    pub(super) fn agent_restarted(&mut self, event: &Event, start: Start) -> Result<()> {
        self.stop()?;
        // However long: the lease was given back.
        let slept = self.sleep(event.lasts);
        self.launch(start)?;
        slept
    }

    pub(super) fn state_damaged(&mut self, event: &Event) -> Result<()> {
        self.watch.no_agent();
        self.world.node.kill();
        let path = self.world.on_disk("state.json")?;
        let whole = fs::read(&path).context("read the state")?;
        let damaged = match event.choose(2, 3) {
            0 => &whole[..whole.len() / 2],
            1 => b"",
            _ => b"{\"version\": 99}",
        };
        fs::write(&path, damaged).context("damage the state")?;
        self.launch(Start::Plain)?;
        self.model.lose_state();
        self.settle(&[])?;
        let kept = self
            .world
            .node
            .events()?
            .into_iter()
            .find_map(|event| if let EventKind::StateDamaged { kept_as, .. } = event.kind { Some(kept_as) } else { None });
        self.journal.check(Invariant::Asked, kept.is_some(), || "no event tells of the damaged state".into());
        if let Some(name) = kept.as_ref().and_then(|path| path.file_name()).and_then(|name| name.to_str()) {
            fs::remove_file(self.world.on_disk(name)?).with_context(|| format!("the damaged state was not kept as {name}"))?;
        }
        services().into_iter().for_each(|served| self.clients.steady(served, Weight::ZERO));
        let slept = self.sleep(event.lasts);
        services().into_iter().for_each(|served| self.clients.unsteady(served));
        for served in services() {
            self.world.node.run(&["unflip", &served.name()])?;
            self.model.of_mut(served).flip = None;
        }
        slept
    }

    pub(super) fn disk_full(&mut self, event: &Event) -> Result<()> {
        let chosen = self.chosen(event);
        self.world.fill_disk()?;
        let service = chosen[0].name();
        let outcome = self.world.node.cli(&["weight", &service, "12.34%"])?;
        let refused = outcome.code == Some(1) && outcome.stderr.contains("nothing was changed");
        self.journal.check(Invariant::Refused, refused, || format!("a weight with a full disk: {outcome:?}"));
        self.unchanged()?;
        for served in chosen {
            // A flip is never refused.
            self.world.node.run(&["flip", &served.name(), "--existing", "keep"])?;
            self.model.of_mut(served).flip = Some(FlipCause::Command);
        }
        self.settle(&[])?;
        let slept = self.sleep(event.lasts);
        self.world.free_disk()?;
        for served in chosen {
            self.world.node.run(&["unflip", &served.name()])?;
            self.model.of_mut(served).flip = None;
        }
        slept
    }

    pub(super) fn clock_stepped(&mut self, event: &Event) -> Result<()> {
        if !self.world.has_faketime() {
            self.journal.skip("clock stepped", "there is no libfaketime; Debian's package is libfaketime");
            return Ok(());
        }
        self.stop()?;
        self.launch(Start::Clock)?;
        for step in STEPS {
            self.world.set_clock(step)?;
            self.sleep(event.lasts / 2)?;
            self.settle(&[])?;
        }
        self.stop()?;
        self.launch(Start::Plain)
    }

    /// Whether everything is as it was asked, at once.
    pub(super) fn unchanged(&self) -> Result<()> {
        let differs = self.model.differs(&self.world.node.status()?);
        self.journal.check(Invariant::Refused, differs.is_empty(), || differs.join("; "));
        Ok(())
    }
}
