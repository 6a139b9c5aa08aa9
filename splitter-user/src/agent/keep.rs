//! Keeping the state without waiting for the disk.
//!
//! The store has a thread of its own. The core hands it a state and goes on; what became of it is told to the core's task. A change is *kept before it is in
//! force*, so it waits until then, and the next one behind it; samples, flips and questions don't:
//!
//! ```text
//!  change ──▶ proposed ──▶ kept ──▶ in force, and answered
//!                 ▲          │
//!                 └──────────┘ a flip came in between: proposed anew, for what is asked now
//! ```

use std::{
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc;

use super::{
    clock::Moment,
    core::{Core, detached, internal, not_applied},
    error::AgentError,
};
use crate::{
    api::command::{CommandError, CommandErrorKind, CommandResult},
    config::Config,
    desired::{self, Desired},
    store::{State, Store, StoreError},
};

/// What errors call the thread.
pub(super) const NAME: &str = "the store's thread";

/// Hands states to the store.
#[derive(Debug)]
pub(super) struct Keeper {
    states: Sender<(u64, State)>,
    /// The last one's number, and that of the last one of which is known what became.
    given: u64,
    done: u64,
    thread: JoinHandle<()>,
}

/// What became of a state.
#[derive(Debug)]
pub(super) struct Kept {
    number: u64,
    last_event: u64,
    result: Result<(), StoreError>,
}

impl Keeper {
    /// Gives the store its thread; what becomes of states is told by the other end.
    pub(super) fn start(mut store: Box<dyn Store>) -> Result<(Self, mpsc::UnboundedReceiver<Kept>), AgentError> {
        let (states, given) = channel::<(u64, State)>();
        let (tell, told) = mpsc::unbounded_channel();
        let work = move || {
            for (number, state) in given {
                let kept = Kept { number, last_event: state.last_event(), result: store.save(&state) };
                if tell.send(kept).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(work);
        let thread = thread.map_err(|error| AgentError::Task { task: NAME, why: error.to_string() })?;
        Ok((Self { states, given: 0, done: 0, thread }, told))
    }

    /// Has a state kept, after those that were given before; its number.
    fn keep(&mut self, state: State) -> u64 {
        self.given += 1;
        // A thread that has ended is found out by whoever waits for what it tells.
        drop(self.states.send((self.given, state)));
        self.given
    }

    /// Whether it's known of all states what became of them.
    pub(super) const fn is_idle(&self) -> bool {
        self.done == self.given
    }

    /// Ends the thread, once it's idle.
    pub(super) fn end(self) {
        drop(self.states);
        if self.thread.join().is_err() {
            tracing::error!("{NAME} panicked");
        }
    }
}

/// Whether the state that is kept is the one in memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Unsaved {
    /// It is.
    #[default]
    Nothing,
    /// It's to be kept with the next sweep.
    Lately,
    /// It could not be kept, and why.
    Failed(String),
}

impl Unsaved {
    /// The state has changed.
    pub(super) fn note(&mut self) {
        if *self == Self::Nothing {
            *self = Self::Lately;
        }
    }
}

/// See [`Change::propose`].
pub(super) type Propose = Box<dyn FnMut(&Core, Moment) -> CommandResult<Asked> + Send>;

/// See [`Change::done`].
pub(super) type Done = Box<dyn FnOnce(&mut Core, CommandResult<Option<Config>>, Moment) + Send>;

/// A change that was asked for: carried out as a whole, or not at all.
pub(super) struct Change {
    /// What it makes of configuration and state as they are. Asked again if what is asked for changes while it's being kept.
    pub(super) propose: Propose,
    /// Told how it ended: the configuration that was in force before, if there is another now.
    pub(super) done: Done,
}

/// What is asked for, after a change.
pub(super) struct Asked {
    /// Another configuration.
    pub(super) config: Option<Config>,
    /// The state.
    pub(super) next: State,
}

/// A change that is being kept.
pub(super) struct Waiting {
    change: Change,
    proposal: Proposal,
    /// Its state's number.
    number: u64,
}

struct Proposal {
    asked: Asked,
    desired: Vec<Desired>,
    /// The last event of the state that it was made from.
    based_on: u64,
}

impl Core {
    /// Begins to carry out a change. There is none that is being kept.
    pub(super) fn begin_change(&mut self, mut change: Change, now: Moment) {
        match self.propose(&mut change, now) {
            Ok(proposal) => self.keep(change, proposal),
            Err(error) => (change.done)(self, Err(error), now),
        }
    }

    fn propose(&self, change: &mut Change, now: Moment) -> CommandResult<Proposal> {
        let asked = (change.propose)(self, now)?;
        let desired = desired::services(asked.config.as_ref().unwrap_or(&self.config), &asked.next).map_err(internal)?;
        if self.dataplane.is_none() {
            return Err(detached());
        }
        Ok(Proposal { asked, desired, based_on: self.state.last_event() })
    }

    fn keep(&mut self, change: Change, proposal: Proposal) {
        let number = self.keeper.keep(proposal.asked.next.clone());
        self.waiting = Some(Waiting { change, proposal, number });
    }

    /// A state was kept, or could not be.
    pub(super) fn on_kept(&mut self, kept: Kept, now: Moment) {
        self.keeper.done = kept.number;
        self.published.kept.send_replace(kept.last_event);
        match self.waiting.take_if(|waiting| waiting.number == kept.number) {
            Some(waiting) => self.go_on(waiting, kept.result, now),
            None => self.note_kept(kept),
        }
        if self.keeper.is_idle() && self.save_again {
            self.save();
        }
        self.archive();
    }

    /// Puts a change in force that was kept.
    fn go_on(&mut self, waiting: Waiting, kept: Result<(), StoreError>, now: Moment) {
        let Waiting { mut change, mut proposal, .. } = waiting;
        if let Err(error) = kept {
            // It may be on the disk all the same, if only the last step failed.
            self.save();
            let message = format!("nothing was changed, as it could not be kept: {error}");
            return (change.done)(self, Err(CommandError::new(CommandErrorKind::Unavailable, message)), now);
        }
        let moved_on = self.state.last_event() != proposal.based_on;
        if moved_on {
            self.carry_progress(&mut proposal.asked.next);
            match self.propose(&mut change, now) {
                // Something was noted, and nothing asked for: notes are kept with the next sweep.
                Ok(anew) if anew.asked.next.services == proposal.asked.next.services => proposal = anew,
                Ok(anew) => return self.keep(change, anew),
                Err(error) => {
                    // It isn't asked for any more, and kept.
                    self.save();
                    return (change.done)(self, Err(error), now);
                }
            }
        }
        let Proposal { mut asked, desired, .. } = proposal;
        self.carry_progress(&mut asked.next);
        // A ramp's weight has gone on meanwhile.
        let config = asked.config.as_ref().unwrap_or(&self.config);
        let desired = desired::services(config, &asked.next).unwrap_or(desired);
        let wanted = self.wanted(&desired);
        // Armed first: were it the other way round, the breaker's old trip would still hold, and the next sample flip again.
        if let Err(error) = self.arm_unflipped(&desired).and_then(|()| self.put_in_force(&desired, wanted)) {
            self.save();
            return (change.done)(self, Err(not_applied(&error)), now);
        }
        self.unsaved = if moved_on { Unsaved::Lately } else { Unsaved::Nothing };
        let before = asked.config.map(|config| std::mem::replace(&mut self.config, config));
        self.published.notify.send_if_modified(|targets| {
            let differ = *targets != self.config.notify;
            if differ {
                targets.clone_from(&self.config.notify);
            }
            differ
        });
        self.replace(asked.next, desired, now);
        (change.done)(self, Ok(before), now);
    }

    /// Has the state kept as it is now, and doesn't wait for it. While another one is being kept, it's this one's turn afterwards.
    pub(super) fn save(&mut self) {
        self.unsaved.note();
        self.save_again = !self.keeper.is_idle();
        if !self.save_again {
            self.keeper.keep(self.state.clone());
        }
    }

    fn note_kept(&mut self, kept: Kept) {
        match kept.result {
            Ok(()) if kept.last_event == self.state.last_event() => self.unsaved = Unsaved::Nothing,
            Ok(()) => self.unsaved = Unsaved::Lately,
            Err(error) => {
                if !matches!(self.unsaved, Unsaved::Failed(_)) {
                    tracing::error!(%error, "the state could not be saved; it is tried again every second");
                }
                self.unsaved = Unsaved::Failed(error.to_string());
            }
        }
    }
}
