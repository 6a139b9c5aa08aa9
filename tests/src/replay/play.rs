//! Playing a recording to the program and to the oracle.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};
use serde::Serialize;

use super::{Passed, Recording, Way, mutate::mutate, pairing::Pairing, stage::as_on_a_wire};
use crate::{
    compare::{Seen, hold},
    oracle::{Action, Oracle, Reason, World},
    packet::Mac,
    rig::{self, Rig},
};

/// How a recording is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// How many times each frame is sent cut short or changed besides.
    pub mutants: usize,
    /// Of what those are.
    pub seed: u64,
    /// Changes what the oracle, but not the program, is told.
    pub lie: fn(&mut World),
}

/// What a replay has compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Frames of the recording that were replayed.
    pub frames: usize,
    /// Their octets.
    pub bytes: usize,
    /// Connections and exchanges that they opened.
    pub flows: usize,
    /// Frames that were forwarded.
    pub forwarded: usize,
    /// What else was counted, by reason.
    pub reasons: BTreeMap<&'static str, usize>,
    /// Opening frames that the recorded program sent to the same backend as the replayed one.
    pub same: usize,
    /// To another.
    pub elsewhere: usize,
    /// Comparisons in all: each frame with either program, and those that were cut short or changed.
    pub compared: usize,
}

impl Replay {
    /// Plays recordings of one world, on a data plane of their own.
    ///
    /// # Errors
    /// There can be no data plane. What became of each recording is told of each.
    pub fn play_all(self, recordings: &[Recording]) -> Result<Vec<Result<Figures>>> {
        let Some(first) = recordings.first() else { return Ok(Vec::new()) };
        rig::with(&first.about.world, rig::AMPLE, |rig| {
            Ok(recordings.iter().map(|recording| self.play_on(rig, recording)).collect())
        })
    }

    /// Plays one, on a data plane of its own.
    ///
    /// # Errors
    /// The first difference, with its frame.
    pub fn play(self, recording: &Recording) -> Result<Figures> {
        rig::with(&recording.about.world, rig::AMPLE, |rig| self.play_on(rig, recording))
    }

    /// As it was recorded, to the program for jumbo frames and to the one without; then with the changed frames.
    fn play_on(self, rig: &mut Rig, recording: &Recording) -> Result<Figures> {
        let mut compared = 0;
        let mut pass = |multi_buffer, mutants| {
            let what = || {
                let buffers = if multi_buffer { "any number of buffers" } else { "one buffer" };
                let frames = if mutants { "with changed frames" } else { "as it was recorded" };
                format!("{}, {frames}, to the program for {buffers}, seed {}", recording.name(), self.seed)
            };
            let figures = self.pass(rig, recording, multi_buffer, mutants).with_context(what)?;
            compared += figures.compared;
            anyhow::Ok(figures)
        };
        let figures = pass(true, false)?;
        pass(false, false)?;
        if self.mutants > 0 {
            pass(true, true)?;
            pass(false, true)?;
        }
        Ok(Figures { compared, ..figures })
    }

    fn pass(self, rig: &mut Rig, recording: &Recording, multi_buffer: bool, mutants: bool) -> Result<Figures> {
        let world = &recording.about.world;
        rig.empty()?;
        rig.apply(world)?;
        rig.set_multi_buffer(multi_buffer);
        let mut oracle = Oracle::new(world.clone());
        (self.lie)(oracle.world_mut());
        let (mut pairing, mut seen, mut figures) = (Pairing::new(world), Seen::default(), Figures::default());
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let ways = world.services.iter().flat_map(|service| &service.backends).filter_map(|backend| backend.way);
        let backends: Vec<Mac> = ways.map(|way| way.destination).collect();
        let is_backend = |mac: Mac| backends.contains(&mac);
        for (number, Passed { interface, way, bytes, .. }) in recording.frames.iter().enumerate() {
            if *way == Way::Out {
                pairing.arrived(bytes);
                continue;
            }
            let (frame, ingress) = (pairing.translate(bytes), rig.ingress(*interface));
            // Another port, and still a packet that a wire would carry.
            as_on_a_wire(&frame).with_context(|| format!("frame {number}"))?;
            let what = format!("frame {number}");
            let performed = hold(rig, &mut oracle, &mut seen, &what, (&frame, ingress), is_backend)?;
            pairing.performed(&frame, &performed);
            figures.frames += 1;
            figures.bytes += bytes.len();
            let forwarded = matches!(performed.action, Action::Tx | Action::Redirect) && performed.counted.is_empty();
            figures.forwarded += usize::from(forwarded);
            performed.counted.iter().for_each(|reason| *figures.reasons.entry(reason.name()).or_default() += 1);
            for _ in 0..if mutants { self.mutants } else { 0 } {
                let (mutant, how) = mutate(&frame, &mut rng);
                let what = format!("frame {number}, {how},");
                hold(rig, &mut oracle, &mut seen, &what, (&mutant, ingress), is_backend)?;
                figures.compared += 1;
            }
        }
        seen.assert_totals(rig)?;
        figures.compared += figures.frames;
        (figures.flows, figures.same, figures.elsewhere) = (pairing.flows(), pairing.same, pairing.elsewhere);
        Ok(figures)
    }
}

impl Figures {
    /// Fails unless the replay was of what it is to be of: most frames were forwarded, as they were when they were recorded, and nothing was refused.
    ///
    /// # Errors
    /// What it was instead.
    pub fn assert_as_recorded(&self) -> Result<()> {
        let of = |reason: &Reason| self.reasons.get(reason.name()).copied().unwrap_or_default();
        // Neighbours ask for each other too.
        let others: usize = [Reason::NotIp, Reason::IcmpNotError].iter().map(of).sum();
        let theirs = self.frames - others;
        ensure!(self.flows > 0 && self.forwarded * 10 >= theirs * 9, "only some frames were forwarded: {self:?}");
        ensure!(self.same > 0 && self.elsewhere == 0, "the replay's backends are others than the recording's: {self:?}");
        let refused = [Reason::NoBackend, Reason::PortsExhausted, Reason::AffinityFull, Reason::ResetByFlip];
        ensure!(refused.iter().all(|reason| of(reason) == 0), "{self:?}");
        Ok(())
    }
}
