//! What may happen to a frame, and what was seen to happen.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::connections::{Followed, FollowedRoute, FragmentKey, Id, WayBack};
use super::reason::Reason;
use super::rewrite::{Path, Translation};
use super::world::Cohort;
use crate::packet::parse::View;

/// Everything that may rightly happen to a frame: one of the alternatives.
#[derive(Clone, Debug)]
pub struct Expectation<'f> {
    pub(super) frame: &'f [u8],
    pub(super) ingress: u32,
    pub(super) view: Option<View>,
    pub(super) alternatives: Vec<Alternative>,
}

impl Expectation<'_> {
    /// The outcomes, of which one must be observed. There is more than one where the program has a choice (of a backend)
    /// or the contract leaves something open (whether a closing connection is still known).
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.alternatives.iter().map(|alternative| &alternative.outcome)
    }

    /// The outcome, where there is but one.
    #[must_use]
    pub fn only(&self) -> Option<&Outcome> {
        match &self.alternatives[..] {
            [one] => Some(&one.outcome),
            _ => None,
        }
    }
}

/// What may happen to a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the kernel as it came.
    ToKernel {
        /// Why.
        reason: Reason,
    },
    /// It leaves, rewritten.
    Forward {
        /// By which way.
        path: Path,
        /// With what changed.
        translation: Translation,
    },
    /// This frame goes back out of the interface it came by.
    Refuse {
        /// Why.
        reason: Reason,
        /// The whole answer.
        frame: Bytes,
    },
    /// Nothing leaves.
    Drop {
        /// Why.
        reason: Reason,
    },
}

impl Outcome {
    /// The reason that is counted.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::ToKernel { reason } | Outcome::Refuse { reason, .. } | Outcome::Drop { reason } => Some(*reason),
            Outcome::Forward { .. } => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::ToKernel { reason } => write!(f, "to the kernel ({reason})"),
            Outcome::Refuse { reason, .. } => write!(f, "refused ({reason})"),
            Outcome::Drop { reason } => write!(f, "dropped ({reason})"),
            Outcome::Forward { path, translation } => {
                write!(f, "forwarded by interface {} to {}, {translation:?}", path.interface, path.destination)
            }
        }
    }
}

/// One thing that may happen, with what is then known.
#[derive(Clone, Debug)]
pub(super) struct Alternative {
    pub outcome: Outcome,
    /// Whether the canary's share went to stable for want of a backend.
    pub fallback: Fallback,
    pub effect: Effect,
    /// Remembered for later fragments, if this happens.
    pub fragment: Option<(FragmentKey, FollowedRoute)>,
}

/// Whether `canary_fallback` is counted besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fallback {
    #[default]
    No,
    Maybe,
    Yes,
}

/// What the oracle learns when an alternative turns out true.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Nothing,
    /// A connection was opened.
    Opened {
        service: usize,
        client: SocketAddr,
        backend: usize,
        placed: Option<Cohort>,
        way_back: WayBack,
    },
    /// A packet of a connection passed.
    Passed {
        id: Id,
        closing: bool,
        /// The handshake is known to have got an answer.
        answered: bool,
    },
    /// The connection may be gone.
    Doubted(Id),
    /// The connection is gone.
    Forgotten(Id),
}

/// What an XDP program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// To the kernel.
    Pass,
    /// Out of the interface it came by.
    Tx,
    /// Out of another interface.
    Redirect,
    /// Nowhere.
    Drop,
    /// The program failed.
    Aborted,
}

/// What a program was seen to do with a frame.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Its return value.
    pub action: Action,
    /// The frame afterwards.
    pub frame: &'a [u8],
    /// The interface that a redirect named, if that can be seen.
    pub redirect: Option<u32>,
    /// The reason counters that moved, if that can be seen.
    pub counted: Option<&'a [Reason]>,
}

/// An alternative that turned out true: give it to [`super::Oracle::learn`].
#[derive(Clone, Debug)]
#[must_use = "the oracle must learn what happened to judge what follows"]
pub struct Matched {
    pub(super) effect: Effect,
    pub(super) nat: Option<SocketAddr>,
    pub(super) fragment: Option<(FragmentKey, Followed)>,
}
