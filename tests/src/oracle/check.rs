//! Comparing what happened with what may happen.

use std::net::SocketAddr;

use thiserror::Error;

use super::Oracle;
use super::connections::{Followed, FollowedRoute, FragmentKey};
use super::expectation::{Action, Alternative, Effect, Expectation, Fallback, Matched, Observed, Outcome};
use super::reason::Reason;
use super::rewrite::{Rendered, Translation, render};
use super::world::Protocol;
use crate::packet::parse::{Transport, View, field_at};
use crate::packet::{checksum, get_u16};

/// How what happened differs from what must.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}; rightly it is {expected}")]
pub struct Difference {
    /// The difference to the nearest alternative.
    pub kind: DifferenceKind,
    /// All alternatives, in words.
    pub expected: String,
}

/// How what happened differs from one alternative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DifferenceKind {
    // In the order of how far the alternative is from what happened.
    #[error("counted {observed:?}, not {expected:?}")]
    Counted { expected: Vec<Reason>, observed: Vec<Reason> },
    #[error("octet {at} ({field}) is {observed:#04x}, not {expected:#04x}; {count} octets differ")]
    Octets { count: usize, at: usize, field: &'static str, expected: u8, observed: u8 },
    #[error("a UDP checksum of zero at octet {at} where one was")]
    NoChecksum { at: usize },
    #[error("the chosen source {0} is not a NAT address of the family with a port in the range")]
    NotNat(SocketAddr),
    #[error("the chosen source {0} belongs to another live connection")]
    InUse(SocketAddr),
    #[error("redirected to interface {observed}, not {expected}")]
    RedirectedTo { expected: u32, observed: u32 },
    #[error("the frame has {observed} octets, not {expected}")]
    Length { expected: usize, observed: usize },
    #[error("the action is {observed:?}, not {expected:?}")]
    Action { expected: Action, observed: Action },
}

/// Finds the alternative that was observed.
pub(super) fn check(oracle: &Oracle, expectation: &Expectation<'_>, observed: &Observed<'_>) -> Result<Matched, Difference> {
    let mut nearest: Option<DifferenceKind> = None;
    for alternative in &expectation.alternatives {
        let comparison = Comparison { oracle, expectation, alternative, observed };
        match comparison.compare() {
            Ok(matched) => return Ok(matched),
            Err(kind) => {
                if nearest.as_ref().is_none_or(|nearest| kind < *nearest) {
                    nearest = Some(kind);
                }
            }
        }
    }
    let outcomes: Vec<_> = expectation.outcomes().map(ToString::to_string).collect();
    Err(Difference { kind: nearest.expect("every decision has an outcome"), expected: outcomes.join(", or ") })
}

struct Comparison<'a> {
    oracle: &'a Oracle,
    expectation: &'a Expectation<'a>,
    alternative: &'a Alternative,
    observed: &'a Observed<'a>,
}

impl Comparison<'_> {
    fn compare(&self) -> Result<Matched, DifferenceKind> {
        let Alternative { outcome, effect, fragment, .. } = self.alternative;
        let (mut nat, mut followed) = (None, None);
        match outcome {
            Outcome::Drop { .. } => self.action(Action::Drop)?,
            Outcome::ToKernel { .. } => {
                self.action(Action::Pass)?;
                self.octets(self.expectation.frame.to_vec(), &[])?;
            }
            Outcome::Refuse { frame, .. } => {
                self.action(Action::Tx)?;
                self.octets(frame.to_vec(), &[])?;
            }
            Outcome::Forward { path, translation } => {
                let view = self.expectation.view.as_ref().expect("what can't be read isn't forwarded");
                if path.interface == self.expectation.ingress {
                    self.action(Action::Tx)?;
                } else {
                    self.action(Action::Redirect)?;
                    if let Some(interface) = self.observed.redirect.filter(|interface| *interface != path.interface) {
                        return Err(DifferenceKind::RedirectedTo { expected: path.interface, observed: interface });
                    }
                }
                self.length(self.expectation.frame.len())?;
                nat = self.chosen(view, translation, effect)?;
                let Rendered { octets, congruent } = render(self.expectation.frame, view, path, translation, nat);
                let mut not_zero = Vec::new();
                let mut either = Vec::new();
                for field in congruent {
                    either.push(field.at);
                    if field.not_zero {
                        not_zero.push(field.at);
                    }
                }
                self.octets(octets, &either)?;
                if let Some(at) = not_zero.into_iter().find(|at| get_u16(self.observed.frame, *at) == 0) {
                    return Err(DifferenceKind::NoChecksum { at });
                }
                followed = fragment.as_ref().map(|fragment| follow(fragment, translation, nat));
            }
        }
        self.counted()?;
        Ok(Matched { effect: effect.clone(), nat, fragment: followed })
    }

    fn action(&self, expected: Action) -> Result<(), DifferenceKind> {
        let observed = self.observed.action;
        if observed == expected { Ok(()) } else { Err(DifferenceKind::Action { expected, observed }) }
    }

    fn length(&self, expected: usize) -> Result<(), DifferenceKind> {
        let observed = self.observed.frame.len();
        if observed == expected { Ok(()) } else { Err(DifferenceKind::Length { expected, observed }) }
    }

    /// `either`: checksums for which both spellings of zero are right.
    fn octets(&self, mut expected: Vec<u8>, either: &[usize]) -> Result<(), DifferenceKind> {
        self.length(expected.len())?;
        let observed = self.observed.frame;
        for at in either {
            if checksum::same(get_u16(&expected, *at), get_u16(observed, *at)) {
                expected[*at..*at + 2].copy_from_slice(&observed[*at..*at + 2]);
            }
        }
        if expected == observed {
            return Ok(());
        }
        let differing = || expected.iter().zip(observed).enumerate().filter(|(_, (expected, observed))| expected != observed);
        let (at, (first, found)) = differing().next().expect("they are of one length and differ");
        let (count, field) = (differing().count(), field_at(&expected, at));
        Err(DifferenceKind::Octets { count, at, field, expected: *first, observed: *found })
    }

    /// The source that the program chose, where it had the choice.
    fn chosen(&self, view: &View, translation: &Translation, effect: &Effect) -> Result<Option<SocketAddr>, DifferenceKind> {
        let (Translation::Flow { source: None, .. }, Effect::Opened { service, client, .. }) = (translation, effect) else {
            return Ok(None);
        };
        let at = view.ip.source_at();
        let address = &self.observed.frame[at..at + if view.ip.is_ipv4() { 4 } else { 16 }];
        let address = match <[u8; 4]>::try_from(address) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(address).expect("cut to one of the two lengths").into(),
        };
        let nat = SocketAddr::new(address, get_u16(self.observed.frame, view.ip.payload));
        if !self.oracle.world.is_nat(nat) {
            return Err(DifferenceKind::NotNat(nat));
        }
        let protocol = if matches!(view.transport, Transport::Tcp(_)) { Protocol::Tcp } else { Protocol::Udp };
        if !self.oracle.connections.may_take(protocol, nat, self.oracle.world.leeway, *service, *client) {
            return Err(DifferenceKind::InUse(nat));
        }
        Ok(Some(nat))
    }

    fn counted(&self) -> Result<(), DifferenceKind> {
        let Some(observed) = self.observed.counted else { return Ok(()) };
        let mut must: Vec<Reason> = self.alternative.outcome.reason().into_iter().collect();
        if self.alternative.fallback == Fallback::Yes {
            must.push(Reason::CanaryFallback);
        }
        let may = |reason: &Reason| {
            let besides = *reason == Reason::CanaryFallback && self.alternative.fallback != Fallback::No;
            besides || must.contains(reason)
        };
        if must.iter().all(|reason| observed.contains(reason)) && observed.iter().all(may) {
            return Ok(());
        }
        Err(DifferenceKind::Counted { expected: must, observed: observed.to_vec() })
    }
}

/// What later fragments need to know of the first.
fn follow(
    fragment: &(FragmentKey, FollowedRoute),
    translation: &Translation,
    chosen: Option<SocketAddr>,
) -> (FragmentKey, Followed) {
    let addresses = match *translation {
        Translation::Flow { source, destination } => source.or(chosen).map(|source| (source.ip(), destination.ip())),
        Translation::Nothing | Translation::Addresses { .. } | Translation::Error { .. } => None,
    };
    let (key, route) = fragment;
    (*key, Followed { route: route.clone(), addresses })
}
