//! A program that does it right, to try the oracle and the generator without a kernel.

use std::net::SocketAddr;

use super::Oracle;
use super::expectation::{Action, Effect, Expectation, Fallback, Observed, Outcome};
use super::reason::Reason;
use super::rewrite::{Translation, render};
use super::world::Protocol;
use crate::packet::parse::Transport;

/// What a program that does it right did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Performed {
    /// Its return value.
    pub action: Action,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The interface it redirected to.
    pub redirect: Option<u32>,
    /// The reasons it counted.
    pub counted: Vec<Reason>,
}

impl Performed {
    /// As an observer sees it.
    #[must_use]
    pub fn observed(&self) -> Observed<'_> {
        Observed { action: self.action, frame: &self.frame, redirect: self.redirect, counted: Some(&self.counted) }
    }
}

impl Oracle {
    /// Does one of the things expected: `pick` chooses among the alternatives and the NAT ports.
    ///
    /// # Panics
    /// When no NAT port is free.
    #[must_use]
    pub fn perform(&self, expectation: &Expectation<'_>, pick: usize) -> Performed {
        let alternative = &expectation.alternatives[pick % expectation.alternatives.len()];
        let mut counted: Vec<Reason> = alternative.outcome.reason().into_iter().collect();
        if alternative.fallback == Fallback::Yes {
            counted.push(Reason::CanaryFallback);
        }
        let unchanged = || expectation.frame.to_vec();
        let (action, frame, redirect) = match &alternative.outcome {
            Outcome::ToKernel { .. } => (Action::Pass, unchanged(), None),
            Outcome::Drop { .. } => (Action::Drop, unchanged(), None),
            Outcome::Refuse { frame, .. } => (Action::Tx, frame.to_vec(), None),
            Outcome::Forward { path, translation } => {
                let view = expectation.view.as_ref().expect("what can't be read isn't forwarded");
                let protocol = if matches!(view.transport, Transport::Tcp(_)) { Protocol::Tcp } else { Protocol::Udp };
                let chosen = match (translation, &alternative.effect) {
                    (Translation::Flow { source: None, destination }, Effect::Opened { service, client, .. }) => {
                        Some(self.free(protocol, destination.is_ipv4(), *service, *client, pick))
                    }
                    (_, _) => None,
                };
                let frame = render(expectation.frame, view, path, translation, chosen).octets;
                if path.interface == expectation.ingress {
                    (Action::Tx, frame, None)
                } else {
                    (Action::Redirect, frame, Some(path.interface))
                }
            }
        };
        Performed { action, frame, redirect, counted }
    }

    fn free(&self, protocol: Protocol, ipv4: bool, service: usize, client: SocketAddr, pick: usize) -> SocketAddr {
        let addresses = self.world.nat_addresses.iter().filter(|address| address.is_ipv4() == ipv4);
        let ports = self.world.nat_ports.clone().expect("a world with nat services has NAT ports");
        let all = addresses.flat_map(|address| ports.clone().map(|port| SocketAddr::new(*address, port)));
        let free = |nat: &SocketAddr| self.connections.may_take(protocol, *nat, self.world.leeway, service, client);
        let start = pick % ports.len();
        all.clone().skip(start).find(free).or_else(|| all.clone().find(free)).expect("a NAT port is free")
    }
}
