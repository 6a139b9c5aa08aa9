//! Frames at random, with the structure that finds faults: valid ones of all kinds, odd ones, and broken ones.
//!
//! A [`Generator`] makes the same frames from the same seed, scenario and knowledge. Each frame is a *base* (an opening packet,
//! a reply, an ICMP error ...) with a *twist* now and then (a TTL of 1, a lie about a length, an octet cut off ...).

mod base;
mod scenario;
mod twist;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{Mac, Packet};
pub use base::NAMES;
pub use scenario::{Mix, Scenario, Target};
use twist::Twist;
pub use twist::{ALSO, DETAILS};

/// A frame to be given to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its octets.
    pub bytes: Bytes,
    /// The interface it comes by.
    pub ingress: u32,
    /// What it is meant to be.
    pub label: Label,
}

/// What a frame is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// The kind of packet.
    pub base: &'static str,
    /// What is odd or broken about it.
    pub twist: &'static str,
    /// Which of the twist's kinds: one of [`DETAILS`], or nothing.
    pub detail: &'static str,
    /// What was done to the packet before that: the name of another twist, or nothing.
    pub also: &'static str,
    /// So many octets are left of a frame that was cut short.
    pub left: Option<usize>,
}

impl Label {
    /// A packet of this kind, of which nothing is odd yet.
    const fn plain(base: &'static str) -> Label {
        Label { base, twist: Twist::None.name(), detail: "", also: "", left: None }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.base, self.twist)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if !self.also.is_empty() {
            write!(f, ", and {}", self.also)?;
        }
        if let Some(left) = self.left {
            write!(f, ", {left} octets left")?;
        }
        Ok(())
    }
}

/// A connection that was lately seen to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// IANA protocol number.
    pub protocol: u8,
    /// The service it belongs to.
    pub service: SocketAddr,
    /// The client.
    pub client: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// The source toward the backend; `None` in `dsr` mode.
    pub nat: Option<SocketAddr>,
    /// Source Ethernet address of the opening packet.
    pub client_mac: Mac,
    /// Destination Ethernet address of the opening packet.
    pub node_mac: Mac,
    /// The interface that the client's packets come by.
    pub client_ingress: u32,
    /// The VLAN IDs of the opening packet, outermost first.
    pub client_vlans: Vec<u16>,
    /// The interface that the backend's packets come by.
    pub backend_ingress: u32,
}

/// The connections lately opened.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    live: Vec<Live>,
    next: usize,
}

impl Knowledge {
    /// How many are kept; older ones give way.
    pub const CAPACITY: usize = 2048;

    /// Adds a connection.
    pub fn push(&mut self, live: Live) {
        if self.live.len() < Knowledge::CAPACITY {
            self.live.push(live);
        } else {
            self.live[self.next] = live;
            self.next = (self.next + 1) % Knowledge::CAPACITY;
        }
    }

    /// Those that are kept.
    #[must_use]
    pub fn live(&self) -> &[Live] {
        &self.live
    }
}

/// A connection that the generator itself began.
#[derive(Clone, Debug)]
struct Flow {
    target: usize,
    client: SocketAddr,
    ingress: u32,
    mac: Mac,
    vlans: &'static [u16],
}

/// A packet before its twist.
struct Draft {
    packet: Packet,
    ingress: u32,
    base: &'static str,
}

/// Makes frames.
#[derive(Clone, Debug)]
pub struct Generator {
    scenario: Scenario,
    rng: Xoshiro256PlusPlus,
    flows: Vec<Flow>,
    /// Fragments whose siblings have been sent.
    pending: VecDeque<Frame>,
}

/// How many connections are under way at a time.
const FLOWS: usize = 4096;

impl Generator {
    /// A generator of frames for this scenario.
    ///
    /// # Panics
    /// When the scenario has no target or no client of a target's family.
    #[must_use]
    pub fn new(scenario: Scenario, seed: u64) -> Generator {
        scenario.assert_usable();
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Generator { scenario, rng, flows: Vec::new(), pending: VecDeque::new() }
    }

    /// Changes the scenario's mix.
    pub const fn mix_mut(&mut self) -> &mut Mix {
        &mut self.scenario.mix
    }

    /// The next frame.
    pub fn next(&mut self, knowledge: &Knowledge) -> Frame {
        if !self.pending.is_empty() && self.rng.random_ratio(1, 3) {
            let out_of_order = self.rng.random_ratio(1, 8);
            let frame = if out_of_order { self.pending.pop_back() } else { self.pending.pop_front() };
            return frame.expect("it isn't empty");
        }
        if self.scenario.mix.weigh_noise(&mut self.rng) {
            return self.noise();
        }
        let mut draft = self.draft(knowledge);
        self.vary(&mut draft.packet);
        let also = self.also(&mut draft.packet);
        let twist = *self.scenario.mix.twists().choose_weighted(&mut self.rng, |(_, weight)| *weight).map_or(
            &(Twist::None, 1),
            // All weights zero: no twist.
            |weighted| weighted,
        );
        self.twisted(draft, also, twist.0)
    }

    fn number(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::oracle::{Oracle, Reason, sample};
    use crate::packet::parse::parse;

    #[test]
    fn the_same_seed_makes_the_same_frames_and_another_makes_others() {
        let frames = |seed| {
            let mut generator = Generator::new(Scenario::from(&sample::world()), seed);
            (0..2000).map(|_| generator.next(&Knowledge::default())).collect::<Vec<_>>()
        };
        assert_eq!(frames(7), frames(7));
        assert_ne!(frames(7), frames(8));
    }

    #[test]
    fn every_base_and_every_twist_turns_up_and_most_frames_can_be_read() {
        let mut generator = Generator::new(Scenario::from(&sample::world()), 1);
        let mut oracle = Oracle::new(sample::world());
        let (mut bases, mut twists, mut readable) = (BTreeMap::new(), BTreeSet::new(), 0);
        for pick in 0..30_000 {
            let frame = generator.next(oracle.knowledge());
            *bases.entry(frame.label.base).or_insert(0) += 1;
            twists.insert(frame.label.twist);
            readable += usize::from(parse(&frame.bytes).is_ok());
            let expectation = oracle.expect(&frame.bytes, frame.ingress);
            let performed = oracle.perform(&expectation, pick * 7919);
            oracle.judge(&frame.bytes, frame.ingress, &performed.observed()).expect("it did what was expected");
        }
        let expected: BTreeSet<_> = NAMES.iter().copied().collect();
        assert_eq!(bases.keys().copied().collect::<BTreeSet<_>>(), expected, "bases: {bases:?}");
        assert_eq!(twists, Twist::ALL.iter().map(|twist| twist.name()).collect::<BTreeSet<_>>());
        assert!((20_000..28_500).contains(&readable), "{readable} of 30,000 can be read");
    }

    #[test]
    fn every_reason_that_needs_no_pressure_is_reached() {
        let mut world = sample::world();
        let mut generator = Generator::new(Scenario::from(&world), 3);
        for service in world.services.iter_mut().step_by(2) {
            service.weight = 5_000;
        }
        let mut oracle = Oracle::new(world);
        let mut seen = BTreeSet::new();
        for pick in 0..60_000 {
            if pick == 45_000 {
                for service in &mut oracle.world_mut().services {
                    service.flipped = Some(crate::oracle::Existing::Reset);
                }
            }
            if pick == 55_000 {
                for service in &mut oracle.world_mut().services {
                    service.backends[0].way = None;
                }
            }
            let frame = generator.next(oracle.knowledge());
            let expectation = oracle.expect(&frame.bytes, frame.ingress);
            let performed = oracle.perform(&expectation, pick * 7919);
            seen.extend(performed.counted.iter().copied());
            oracle.judge(&frame.bytes, frame.ingress, &performed.observed()).expect("it did what was expected");
        }
        let pressed = [Reason::PortsExhausted, Reason::AffinityFull, Reason::Untracked, Reason::NotReady, Reason::FrameFixed];
        let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason) && !pressed.contains(reason)).collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
    }
}
