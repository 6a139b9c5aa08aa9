//! What was met on the way.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use anyhow::{anyhow, ensure};
use serde::{Serialize, Serializer};
use splitter_user::dataplane::Dataplane;

use crate::{
    oracle::{Action, Reason},
    packet::{
        Mac,
        generate::{ALSO, DETAILS, Label, NAMES},
        parse,
    },
    rig::Rig,
};

/// What frames of these worlds needn't meet: their tables are ample, the data plane is at work, and not every machine is fast enough for too many refusals.
const NOT_MET: [Reason; 7] = [
    Reason::RefusalSuppressed,
    Reason::TruncatedEthernet,
    Reason::PortsExhausted,
    Reason::AffinityFull,
    Reason::Untracked,
    Reason::NotReady,
    Reason::FrameFixed,
];

/// The kernel runs no program on a frame that ends there.
const NOT_RUN: &str = "in the Ethernet header";

/// To each of these lengths a frame must have been cut: from the first octet behind Ethernet to the last of a TCP header behind two tags and IPv6.
const CUTS: RangeInclusive<usize> = 14..=14 + 8 + 40 + 20;

/// What was met.
#[derive(Debug, Default, Serialize)]
pub struct Seen {
    /// Frames.
    pub frames: usize,
    /// What became of them.
    #[serde(serialize_with = "by_name")]
    pub actions: BTreeMap<Action, usize>,
    /// The reasons that were counted.
    #[serde(serialize_with = "by_name")]
    pub reasons: BTreeMap<Reason, usize>,
    /// Later fragments that went after their first.
    pub followed: usize,
    /// Those that could have.
    pub forgotten: usize,
    /// The kinds of packets.
    pub bases: BTreeMap<&'static str, usize>,
    /// What was odd or broken about them.
    pub twists: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// What was odd besides.
    pub also: BTreeMap<&'static str, usize>,
    /// To how many octets frames were cut.
    pub cut_to: BTreeMap<usize, usize>,
    /// Packets to backends and from backends, and their octets from the network header on.
    #[serde(skip)]
    pub(super) traffic: Traffic,
}

impl Seen {
    pub(super) fn frame(&mut self, label: &Label) {
        self.frames += 1;
        *self.bases.entry(label.base).or_default() += 1;
        *self.twists.entry(label.twist).or_default().entry(label.detail).or_default() += 1;
        if !label.also.is_empty() {
            *self.also.entry(label.also).or_default() += 1;
        }
        if let Some(left) = label.left {
            *self.cut_to.entry(left).or_default() += 1;
        }
    }

    pub(super) fn outcome(&mut self, action: Action, counted: &[Reason]) {
        *self.actions.entry(action).or_default() += 1;
        counted.iter().for_each(|reason| *self.reasons.entry(*reason).or_default() += 1);
    }

    /// Fails unless the data plane's own totals of packets and octets are those of what was forwarded.
    pub(crate) fn assert_totals(&self, rig: &mut Rig) -> anyhow::Result<()> {
        let told = Traffic::told(rig);
        ensure!(told == self.traffic, "counted {told:?}, and seen {:?}", self.traffic);
        Ok(())
    }

    /// Both.
    pub fn add(&mut self, other: Self) {
        fn sum<K: Ord>(one: &mut BTreeMap<K, usize>, other: BTreeMap<K, usize>) {
            other.into_iter().for_each(|(key, count)| *one.entry(key).or_default() += count);
        }
        self.frames += other.frames;
        sum(&mut self.actions, other.actions);
        sum(&mut self.reasons, other.reasons);
        sum(&mut self.bases, other.bases);
        sum(&mut self.also, other.also);
        sum(&mut self.cut_to, other.cut_to);
        other.twists.into_iter().for_each(|(twist, details)| sum(self.twists.entry(twist).or_default(), details));
        self.followed += other.followed;
        self.forgotten += other.forgotten;
    }

    /// Fails unless there was something of everything: needs some 100,000 frames of [`Mix::default`](crate::packet::generate::Mix).
    ///
    /// # Errors
    /// What wasn't met, by name.
    pub fn assert_everything(&self) -> anyhow::Result<()> {
        let reasons: Vec<_> = Reason::ALL.iter().filter(|reason| !self.reasons.contains_key(reason)).collect();
        ensure!(reasons.iter().all(|reason| NOT_MET.contains(reason)), "reasons that were never counted: {reasons:?}");
        let bases: Vec<_> = NAMES.iter().filter(|name| !self.bases.contains_key(*name)).collect();
        ensure!(bases.is_empty(), "kinds of packets that were never sent: {bases:?}");
        let met = |detail: &str| self.twists.values().any(|details| details.contains_key(detail));
        let details: Vec<_> = DETAILS.iter().filter(|detail| **detail != NOT_RUN && !met(detail)).collect();
        ensure!(details.is_empty(), "oddities that were never sent: {details:?}");
        let also: Vec<_> = ALSO.iter().filter(|name| !self.also.contains_key(*name)).collect();
        ensure!(also.is_empty(), "oddities that were never sent along with others: {also:?}");
        let cuts: Vec<_> = CUTS.filter(|length| !self.cut_to.contains_key(length)).collect();
        ensure!(cuts.is_empty(), "no frame was cut to {cuts:?} octets");
        let often = self.actions.values().all(|count| *count * 1_000 > self.frames) && self.actions.len() == 4;
        ensure!(often, "actions: {:?}", self.actions);
        // A remembered first fragment gives way to another with the same place in the table, of 8,192.
        ensure!(self.followed > 0 && self.forgotten * 100 < self.followed, "{} of {}", self.forgotten, self.followed);
        Ok(())
    }
}

fn by_name<K: fmt::Debug, S: Serializer>(counts: &BTreeMap<K, usize>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(counts.iter().map(|(key, count)| (format!("{key:?}"), count)))
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    packets_to: u64,
    bytes_to: u64,
    packets_from: u64,
    bytes_from: u64,
}

impl Traffic {
    /// Counts a frame that was forwarded.
    pub(super) fn see(&mut self, frame: &[u8], is_backend: impl Fn(Mac) -> bool) -> anyhow::Result<()> {
        let view = parse::parse(frame).map_err(|flaw| anyhow!("a frame that can't be read was forwarded: {flaw:?}"))?;
        let length = u64::try_from(view.ip.end - view.ip.at)?;
        if is_backend(view.destination) {
            (self.packets_to, self.bytes_to) = (self.packets_to + 1, self.bytes_to + length);
        } else {
            (self.packets_from, self.bytes_from) = (self.packets_from + 1, self.bytes_from + length);
        }
        Ok(())
    }

    /// What the data plane says.
    fn told(rig: &mut Rig) -> Self {
        let mut sum = Self::default();
        let sample = rig.dataplane().sample();
        for counters in sample.services.values().flat_map(|service| service.backends.values()).map(|backend| backend.counters) {
            sum.packets_to += counters.packets_to;
            sum.bytes_to += counters.bytes_to;
            sum.packets_from += counters.packets_from;
            sum.bytes_from += counters.bytes_from;
        }
        sum
    }
}
