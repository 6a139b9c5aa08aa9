//! What is asked of a running agent.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use splitter_user::{
    api::wire::FlipCause,
    model::{Cohort, Mode, Weight},
};

use super::{Driver, WEIGHTS};
use crate::{
    node::{FAMILIES, Kind},
    soak::{
        journal::Invariant,
        rules::{Harm, Served},
        schedule::Event,
        world::{self, services},
    },
};

/// The weight with which a breaker is to trip.
const TRIPS_AT: &str = "50%";
/// The first step of the plan.
const FIRST_STEP: u16 = 3_000;
const WRONG_INPUT: i32 = 2;

impl Driver<'_> {
    pub(super) fn weights(&mut self, event: &Event) -> Result<()> {
        for (which, served) in (2..).zip(self.chosen(event)) {
            self.set_weight(served, Weight::from_basis_points(WEIGHTS[event.choose(which, WEIGHTS.len())])?)?;
        }
        self.sleep(event.lasts)
    }

    fn set_weight(&mut self, served: Served, weight: Weight) -> Result<()> {
        self.world.node.run(&["weight", &served.name(), &weight.to_string()])?;
        self.model.of_mut(served).weight = weight;
        Ok(())
    }

    pub(super) fn backend_removed(&mut self, event: &Event) -> Result<()> {
        let victim = self.victim(event);
        let (chosen, cohort) = (self.chosen(event), self.world.hosts[victim].cohort);
        for served in chosen {
            let address = self.world.hosts[victim].backend(served).to_string();
            self.watch.tracker().remove(&served.name(), &address);
            self.world.node.run(&["backend", "remove", &served.name(), &address])?;
            self.model.of_mut(served).backends.remove(&address);
        }
        self.settle(&[])?;
        let slept = self.sleep(event.lasts);
        // What its counters had come to has been seen.
        let seen = self.watch.next_page();
        for served in chosen {
            let address = self.world.hosts[victim].backend(served).to_string();
            self.world.node.run(&["backend", "add", &served.name(), cohort.as_str(), &address])?;
            self.model.of_mut(served).backends.insert(address, false);
        }
        self.settle(&[])?;
        let seen = seen && self.watch.next_page();
        self.journal.check(Invariant::Metrics, seen, || "no page of metrics in time".into());
        for served in chosen {
            let address = self.world.hosts[victim].backend(served).to_string();
            self.watch.tracker().keep(&served.name(), &address);
        }
        slept
    }

    pub(super) fn backend_added(&mut self, event: &Event) -> Result<()> {
        let chosen = self.chosen(event);
        for served in chosen {
            let address = self.world.spare().backend(served).to_string();
            // Its series end with its last connection, which nobody waits for.
            self.watch.tracker().remove(&served.name(), &address);
            self.world.node.run(&["backend", "add", &served.name(), "stable", &address])?;
            self.model.of_mut(served).backends.insert(address, false);
        }
        self.settle(&[])?;
        let slept = self.sleep(event.lasts);
        for served in chosen {
            let address = self.world.spare().backend(served).to_string();
            self.world.node.run(&["backend", "remove", &served.name(), &address])?;
            self.model.of_mut(served).backends.remove(&address);
        }
        slept
    }

    pub(super) fn backend_drained(&mut self, event: &Event) -> Result<()> {
        let victim = self.victim(event);
        let chosen = self.chosen(event);
        for (verb, drains) in [("drain", true), ("undrain", false)] {
            for served in chosen {
                let address = self.world.hosts[victim].backend(served).to_string();
                self.world.node.run(&["backend", verb, &served.name(), &address])?;
                self.model.of_mut(served).backends.insert(address, drains);
            }
            self.settle(&[])?;
            if drains {
                self.sleep(event.lasts)?;
            }
        }
        Ok(())
    }

    pub(super) fn reloaded(&mut self, event: &Event) -> Result<()> {
        for (which, served) in (2..).zip(self.chosen(event)) {
            self.model.reconfigure(served, Weight::from_basis_points(WEIGHTS[event.choose(which, WEIGHTS.len())])?);
        }
        self.world.configure(&self.model)?;
        if event.choose(4, 2) == 0 {
            self.world.node.run(&["reload"])?;
        } else {
            self.world.node.signal(Signal::SIGHUP)?;
        }
        self.sleep(event.lasts)
    }

    pub(super) fn reload_refused(&mut self, event: &Event) -> Result<()> {
        let right = self.world.config(&self.model);
        let wrong = match event.choose(2, 4) {
            0 => right.replacen("protocol", "protocoll", 1),
            1 => right.replacen("weight = \"", "weight = \"1000", 1),
            2 => right.replacen("stable = [", "stable = []\n#", 1),
            _ => right[..right.len() / 2].to_owned() + "\n[[[",
        };
        self.world.node.write_config(&wrong)?;
        let outcome = self.world.node.cli(&["reload"])?;
        self.journal
            .check(Invariant::Refused, outcome.code == Some(WRONG_INPUT), || format!("a wrong configuration: {outcome:?}"));
        self.unchanged()?;
        self.world.configure(&self.model)?;
        self.sleep(event.lasts)
    }

    pub(super) fn flipped(&mut self, event: &Event, existing: &str) -> Result<()> {
        let chosen = self.chosen(event);
        if existing == "reset" {
            let (names, canaries) = (chosen.map(Served::name).to_vec(), self.canaries());
            let canaries: Vec<_> = canaries.iter().map(String::as_str).collect();
            let harms = [Harm::Broken, Harm::Failed, Harm::Lost, Harm::Moved];
            self.journal.excuse(event.number, &harms, names, &canaries);
        }
        for served in chosen {
            self.world.node.run(&["flip", &served.name(), "--existing", existing])?;
            self.model.of_mut(served).flip = Some(FlipCause::Command);
            // From the return on.
            self.clients.steady(served, Weight::ZERO);
        }
        self.settle(&[])?;
        let slept = self.sleep(event.lasts);
        for served in chosen {
            self.clients.unsteady(served);
            self.world.node.run(&["unflip", &served.name()])?;
            self.model.of_mut(served).flip = None;
        }
        slept
    }

    pub(super) fn breaker_tripped(&mut self, event: &Event) -> Result<()> {
        let breakers: Vec<_> = services().into_iter().filter(|served| world::has_breaker(*served)).collect();
        for served in &breakers {
            self.set_weight(*served, TRIPS_AT.parse()?)?;
        }
        let canaries: Vec<usize> =
            (0..self.world.hosts.len()).filter(|host| self.world.hosts[*host].cohort == Cohort::Canary).collect();
        let names = self.canaries();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.journal.excuse(event.number, &[Harm::Broken, Harm::Lost], Vec::new(), &names);
        self.journal.excuse(event.number, &[Harm::Failed], Vec::new(), &[]);
        for canary in &canaries {
            self.kill_server(*canary);
        }
        for served in &breakers {
            self.model.of_mut(*served).flip = Some(FlipCause::Breaker);
        }
        self.settle(&[])?;
        for served in &breakers {
            self.clients.steady(*served, Weight::ZERO);
        }
        let slept = self.sleep(event.lasts);
        for canary in canaries {
            self.world.hosts[canary].start()?;
        }
        for served in breakers {
            self.clients.unsteady(served);
            self.world.node.run(&["unflip", &served.name()])?;
            self.model.of_mut(served).flip = None;
        }
        slept
    }

    pub(super) fn rollout_aborted(&mut self, event: &Event) -> Result<()> {
        let mode: Mode = self.chosen(event)[0].mode;
        let pair = FAMILIES.map(|family| Served { kind: Kind::Web, mode, family });
        for served in pair {
            self.world.node.run(&["rollout", "start", &served.name()])?;
            self.model.of_mut(served).weight = Weight::from_basis_points(FIRST_STEP).context("the first step's weight")?;
        }
        self.settle(&[])?;
        pair.into_iter().for_each(|served| self.clients.steady(served, self.model.of(served).share()));
        let slept = self.sleep(event.lasts);
        for served in pair {
            self.clients.unsteady(served);
            self.world.node.run(&["rollout", "abort", &served.name()])?;
            self.model.of_mut(served).weight = Weight::ZERO;
        }
        self.settle(&[])?;
        // Nothing to the canary for long would leave little to look at.
        for (which, served) in (2..).zip(pair) {
            self.set_weight(served, Weight::from_basis_points(WEIGHTS[1 + event.choose(which, WEIGHTS.len() - 1)])?)?;
        }
        self.sleep(Duration::ZERO)?;
        slept
    }
}
