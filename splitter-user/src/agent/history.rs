//! Rollouts that have ended, on their way from the state into the history.
//!
//! ```text
//!  over, or flipped ──▶ in the state that was saved ──▶ the history's thread ──▶ kept, and known to be
//!                                  ▲                            │
//!                                  └─────── it failed: with the next sweep
//! ```
//!
//! The state holds a rollout until the history has it, even if another one has begun in its place, so that no crash in between loses it; what was kept already is
//! kept again after a restart, which changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{core::Core, error::AgentError, keep::Unsaved};
use crate::{
    model::ServiceName,
    store::{Entry, History, HistoryError, Phase, Record, Run, State},
};

/// What errors call the thread.
const NAME: &str = "the history's thread";

/// So long does the agent's end wait for what is being kept; the next agent keeps it again.
const END: Duration = Duration::from_secs(2);

/// Hands rollouts to the history, which has a thread of its own, for it may wait for a disk.
pub(super) struct Archive {
    records: Sender<Record>,
    told: Receiver<(Record, Result<(), HistoryError>)>,
    thread: JoinHandle<()>,
    /// Given, and not known what became of them.
    waiting: usize,
    /// What is known to be kept of rollouts that the state holds.
    kept: BTreeMap<u64, Mark>,
    /// Why the last attempt failed. It's tried again.
    failed: Option<String>,
}

/// What tells one state of a rollout that has ended from another.
#[derive(Debug, PartialEq)]
struct Mark {
    phase: Phase,
    last: Option<Entry>,
}

impl Mark {
    fn of(run: &Run) -> Self {
        Self { phase: run.phase.clone(), last: run.log.last().cloned() }
    }
}

impl Archive {
    /// Gives the history its thread.
    pub(super) fn start(history: Arc<dyn History>) -> Result<Self, AgentError> {
        let (records, given) = channel::<Record>();
        let (tell, told) = channel();
        let work = move || {
            for record in given {
                let result = history.keep(&record);
                if tell.send((record, result)).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("history".to_owned()).spawn(work);
        let thread = thread.map_err(|error| AgentError::Task { task: NAME, why: error.to_string() })?;
        Ok(Self { records, told, thread, waiting: 0, kept: BTreeMap::new(), failed: None })
    }

    /// What somebody should look at.
    pub(super) fn alert(&self) -> Option<String> {
        self.failed.as_ref().map(|why| format!("a rollout could not be kept (it is tried again every second): {why}"))
    }

    fn hear(&mut self) {
        while let Ok((record, result)) = self.told.try_recv() {
            self.note(&record, result);
        }
        if self.waiting > 0 && self.thread.is_finished() {
            self.fail(format!("{NAME} has ended"));
        }
    }

    fn note(&mut self, record: &Record, result: Result<(), HistoryError>) {
        self.waiting = self.waiting.saturating_sub(1);
        match result {
            Ok(()) => {
                self.kept.insert(record.run.id, Mark::of(&record.run));
                self.failed = None;
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, why: String) {
        if self.failed.as_ref() != Some(&why) {
            tracing::error!("a rollout could not be kept; it is tried again every second: {why}");
        }
        self.failed = Some(why);
    }

    fn has(&self, run: &Run) -> bool {
        self.kept.get(&run.id).is_some_and(|mark| *mark == Mark::of(run))
    }

    fn give(&mut self, record: Record) {
        // A thread that has ended is found out by whoever waits for what it tells.
        drop(self.records.send(record));
        self.waiting += 1;
    }

    /// Ends the thread. One that hangs on its disk is left to the process's end.
    pub(super) fn end(mut self) {
        drop(self.records);
        while self.waiting > 0 {
            match self.told.recv_timeout(END) {
                Ok((_, result)) => {
                    self.waiting -= 1;
                    if let Err(error) = result {
                        tracing::error!(%error, "a rollout could not be kept; the next agent tries it again");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::error!("{NAME} did not end within {} s, and is left alone", END.as_secs());
                    return;
                }
            }
        }
        if self.thread.join().is_err() {
            tracing::error!("{NAME} panicked");
        }
    }
}

impl Core {
    /// Has the rollouts kept that have ended, as far as their state is saved; and lets go of those that are kept.
    pub(super) fn archive(&mut self) {
        self.archive.hear();
        let Self { state, archive, unsaved, .. } = self;
        for service in state.services.values_mut() {
            let before = service.past.len();
            service.past.retain(|run| !archive.has(run));
            if service.past.len() < before {
                unsaved.note();
            }
        }
        let held: BTreeSet<u64> = runs(state).map(|(_, run)| run.id).collect();
        archive.kept.retain(|number, _| held.contains(number));
        if archive.waiting > 0 || *unsaved != Unsaved::Nothing {
            return;
        }
        let due = runs(state).filter(|(_, run)| has_ended(run) && !archive.has(run));
        let due: Vec<Record> = due.map(|(service, run)| record(service, run)).collect();
        due.into_iter().for_each(|record| archive.give(record));
    }

    /// The rollouts that the state holds, of one service or of all; and whether there is such a service.
    pub(super) fn rollouts(&self, of: Option<&ServiceName>) -> (Vec<Record>, bool) {
        let held = runs(&self.state).filter(|(service, _)| of.is_none_or(|name| name == *service));
        (held.map(|(service, run)| record(service, run)).collect(), of.is_none_or(|name| self.find(name).is_ok()))
    }
}

/// The rollouts that the state holds and those that the history keeps become one list: the running ones first, then the newest first.
pub(super) fn listed(held: Vec<Record>, kept: Vec<Record>, limit: usize) -> Vec<Record> {
    let mut by_number: BTreeMap<u64, Record> = kept.into_iter().map(|record| (record.run.id, record)).collect();
    // What the state says is never older than what was kept of it.
    by_number.extend(held.into_iter().map(|record| (record.run.id, record)));
    let (mut running, ended): (Vec<Record>, Vec<Record>) =
        by_number.into_values().rev().partition(|record| !has_ended(&record.run));
    running.extend(ended);
    running.truncate(limit);
    running
}

/// Whether it does nothing any more by itself.
fn has_ended(run: &Run) -> bool {
    run.is_over() || matches!(run.phase, Phase::Flipped { .. })
}

fn runs(state: &State) -> impl Iterator<Item = (&ServiceName, &Run)> {
    let services = state.services.iter();
    services.flat_map(|(name, service)| service.past.iter().chain(service.rollout.as_deref()).map(move |run| (name, run)))
}

fn record(service: &ServiceName, run: &Run) -> Record {
    Record { service: service.clone(), run: run.clone(), left_out: 0 }
}
