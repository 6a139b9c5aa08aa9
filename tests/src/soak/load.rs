//! The clients: new HTTP connections at a steady rate, long-lived TCP connections of every age, UDP exchanges, with every service. What they suffer is told to the journal.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use splitter_user::model::Cohort;

use super::{
    journal::{Invariant, Journal},
    rules::{Harm, Served},
    shares::Shares,
    world::{World, services, target},
};
use crate::{
    lab::{Addresses, Namespace},
    node::Kind,
    workload::{
        Identity,
        http::{self, Outcome, Pace, Record},
        tcp_echo, udp_echo,
    },
};

/// What a client waits for: far longer than any trouble lasts that it has to live through.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// As long as a datagram's answer may take.
const DATAGRAM: Duration = Duration::from_secs(5);
/// A handshake that took so long had to send its SYN again: the first time is after a second.
const SENT_AGAIN: Duration = Duration::from_millis(900);
/// The body of an answer.
const BODY: u64 = 1_500;
/// Established connections of one service that begin together.
const TOGETHER: usize = 5;
/// Generations of them that live at a time, beside the first, which lives until the end.
const GENERATIONS: usize = 5;
const SOCKETS: usize = 6;
const INTERVAL: Duration = Duration::from_millis(200);
/// A client may notice so much later than it happened.
const LAG: Duration = Duration::from_secs(2);

/// What was seen of one service's connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Connections begun.
    pub begun: u64,
    /// Of these, whose SYN was sent once, and that were answered: nothing about them is in doubt.
    pub certain: u64,
    /// All others.
    pub uncertain: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// And answered.
    pub answers: u64,
}

/// All clients.
#[derive(Debug)]
pub struct Clients<'a> {
    journal: &'a Journal,
    client: Namespace,
    addresses: Vec<Addresses>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    web: Vec<Web>,
    echo: Vec<Echo>,
    udp: Vec<Udp>,
    shares: Shares,
    odd: BTreeMap<(String, u16), ()>,
    seen: BTreeMap<String, Seen>,
    broken: u64,
    looked_at: Duration,
    generations: u64,
}

#[derive(Debug)]
struct Web {
    served: Served,
    begun: Duration,
    running: http::Running,
}

#[derive(Debug)]
struct Echo {
    served: Served,
    generation: u64,
    begun: Duration,
    running: tcp_echo::Running,
    /// Whether nothing was done while they were begun.
    calm: bool,
    told: Vec<Told>,
}

/// What was told of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    state: bool,
    wrong: u64,
}

#[derive(Debug)]
struct Udp {
    served: Served,
    running: udp_echo::Running,
    last: Vec<udp_echo::Exchanges>,
}

impl<'a> Clients<'a> {
    /// Clients of the world's services; none of them has begun.
    #[must_use]
    pub fn new(world: &World, journal: &'a Journal) -> Self {
        let (client, addresses) = (world.lab.client().clone(), world.lab.client_addresses().to_vec());
        Self { journal, client, addresses, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // It is whole at any time, even if a holder of the lock panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts those that last: HTTP and UDP, and the first generation of long-lived connections.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn begin(&self, rate: u32, duration: Duration, seed: u64) -> Result<()> {
        let webs = services().into_iter().filter(|served| served.kind == Kind::Web).count();
        for served in services() {
            let sources: Vec<_> = self.addresses.iter().map(|own| served.family.of(*own)).collect();
            match served.kind {
                Kind::Web => {
                    #[expect(clippy::cast_precision_loss, reason = "four services")]
                    let pace = Pace::PerSecond(f64::from(rate) / webs as f64);
                    let load = http::Load::new(sources[0], target(served), u64::MAX);
                    let load = http::Load { sources, pace, duration, timeout: PATIENCE, ..load }.stream(seed, BODY);
                    let begun = self.journal.now();
                    let running = load.start(&self.client)?;
                    self.known().web.push(Web { served, begun, running });
                }
                Kind::Udp => self.begin_udp(served, seed)?,
                Kind::Echo => {}
            }
        }
        self.generation(seed)
    }

    fn begin_udp(&self, served: Served, seed: u64) -> Result<()> {
        let load = udp_echo::Load::new(served.family.of(self.addresses[0]), target(served), SOCKETS);
        let running = udp_echo::Load { interval: INTERVAL, timeout: DATAGRAM, seed, ..load }.start(&self.client)?;
        // From nothing: what they did since they began counts.
        let nothing = |is| udp_echo::Exchanges { sent: 0, answered: 0, lost: 0, wrong: 0, moves: 0, ..is };
        let last = running.exchanges().into_iter().map(nothing).collect();
        self.known().udp.push(Udp { served, running, last });
        Ok(())
    }

    fn end_udp(&self, Udp { served, running, last }: Udp) -> Result<()> {
        let exchanges = running.stop()?;
        let mut known = self.known();
        let before = known.looked_at;
        for (last, is) in last.iter().zip(&exchanges) {
            self.look_at_udp(&mut known, served, last, is, before);
        }
        Ok(())
    }

    /// Begins another generation of long-lived connections, and ends the oldest but the first.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn generation(&self, seed: u64) -> Result<()> {
        let generation = {
            let mut known = self.known();
            known.generations += 1;
            known.generations
        };
        for served in services().into_iter().filter(|served| served.kind == Kind::Echo) {
            let turn = usize::try_from(generation).unwrap_or(0) % self.addresses.len();
            let load = tcp_echo::Load::new(served.family.of(self.addresses[turn]), target(served), TOGETHER);
            let seed = seed.wrapping_add(generation << 8);
            let (begun, before) = (self.journal.now(), self.journal.calm());
            let running = tcp_echo::Load { interval: INTERVAL, timeout: PATIENCE, seed, ..load }.start(&self.client)?;
            let calm = before.is_some() && before == self.journal.calm();
            let told = vec![Told::default(); TOGETHER];
            self.known().echo.push(Echo { served, generation, begun, running, calm, told });
        }
        // Exchanges that a flip has moved don't come back to the canary: in turn, those of one service begin anew.
        let oldest = {
            let mut known = self.known();
            (generation > 1 && !known.udp.is_empty()).then(|| known.udp.remove(0))
        };
        if let Some(oldest) = oldest {
            let served = oldest.served;
            self.end_udp(oldest)?;
            self.begin_udp(served, seed)?;
        }
        let over = |echo: &Echo| echo.generation > 1 && echo.generation + GENERATIONS as u64 <= generation;
        self.end_echo(over)
    }

    fn end_echo(&self, over: impl Fn(&Echo) -> bool) -> Result<()> {
        let ended: Vec<_> = {
            let mut known = self.known();
            let (ended, left) = std::mem::take(&mut known.echo).into_iter().partition(over);
            known.echo = left;
            ended
        };
        for Echo { served, begun, running, calm, mut told, generation: _ } in ended {
            let connections = running.stop()?;
            let mut known = self.known();
            let span = known.looked_at;
            for (connection, told) in connections.iter().zip(&mut told) {
                self.look_at_echo(&mut known, served, begun, connection, told, span);
            }
            // What is counted of a connection is known once it's over.
            let seen = known.seen.entry(served.name()).or_default();
            for connection in &connections {
                seen.begun += 1;
                // When something is done, a SYN may have to be sent again.
                let certain = calm && connection.state == tcp_echo::State::Closed;
                *(if certain { &mut seen.certain } else { &mut seen.uncertain }) += 1;
            }
        }
        Ok(())
    }

    /// Looks at all of them.
    pub fn look(&self) {
        let now = self.journal.now();
        let mut known = self.known();
        let before = known.looked_at;
        let Known { web, echo, udp, .. } = &mut *known;
        let mut records = Vec::new();
        for web in web {
            while let Ok(record) = web.running.records.try_recv() {
                records.push((web.served, web.begun, record));
            }
        }
        let mut echoes = Vec::new();
        for (index, echo) in echo.iter().enumerate() {
            echoes.push((index, echo.served, echo.begun, echo.running.connections()));
        }
        let mut datagrams = Vec::new();
        for udp in udp {
            let exchanges = udp.running.exchanges();
            let last = std::mem::replace(&mut udp.last, exchanges.clone());
            datagrams.push((udp.served, last, exchanges));
        }
        for (served, begun, record) in records {
            self.look_at_web(&mut known, served, begun, &record);
        }
        for (index, served, begun, connections) in echoes {
            let mut told = std::mem::take(&mut known.echo[index].told);
            for (connection, told) in connections.iter().zip(&mut told) {
                self.look_at_echo(&mut known, served, begun, connection, told, before);
            }
            known.echo[index].told = told;
        }
        for (served, last, exchanges) in datagrams {
            for (last, is) in last.iter().zip(&exchanges) {
                self.look_at_udp(&mut known, served, last, is, before);
            }
        }
        known.looked_at = now;
    }

    fn look_at_web(&self, known: &mut Known, served: Served, load_begun: Duration, record: &Record) {
        self.journal.looked(Invariant::Attempts, 1);
        let begun = load_begun + record.begun;
        let seen = known.seen.entry(served.name()).or_default();
        seen.begun += 1;
        let established = record.connected.filter(|took| *took < SENT_AGAIN);
        match (&record.outcome, established) {
            (Outcome::Answered(identity), Some(took)) => {
                seen.certain += 1;
                let is_canary = identity.version == Cohort::Canary.as_str();
                if known.shares.count(&served.name(), begun, begun + took, is_canary).is_some() {
                    self.journal.looked(Invariant::Share, 1);
                }
            }
            (Outcome::Answered(_), None) => seen.uncertain += 1,
            (Outcome::Refused | Outcome::Reset | Outcome::TimedOut | Outcome::Failed(_), _) => {
                seen.uncertain += 1;
                let span = (begun, begun + record.took);
                let wrong = matches!(&record.outcome, Outcome::Failed(why) if why.contains(http::OTHER_BODY));
                if wrong {
                    self.journal.violate(Invariant::Content, format!("{served}: {record:?}"));
                } else {
                    let why = format!("{:?} from {}, connected in {:?}", record.outcome, record.local, record.connected);
                    self.journal.suffer(Harm::Failed, served, None, span, &why);
                }
            }
        }
    }

    fn look_at_echo(
        &self,
        known: &mut Known,
        served: Served,
        begun: Duration,
        connection: &tcp_echo::Connection,
        told: &mut Told,
        before: Duration,
    ) {
        use tcp_echo::State;
        self.journal.looked(Invariant::Connections, 1);
        let wrong = connection.bytes_wrong + connection.strangers;
        self.journal.looked(Invariant::Content, 1);
        if wrong > told.wrong {
            let what = format!(
                "{served} from {}: {} wrong bytes, {} answers by another than {:?}",
                connection.local, connection.bytes_wrong, connection.strangers, connection.identity
            );
            self.journal.violate(Invariant::Content, what);
        }
        told.wrong = wrong;
        if told.state {
            return;
        }
        let now = self.journal.now();
        let backend = connection.identity.as_ref().map(|identity| identity.name.clone());
        match &connection.state {
            State::Opening | State::Open | State::Closed => {}
            State::NotOpened(why) => {
                told.state = true;
                self.journal.suffer(Harm::Failed, served, backend, (begun, now), why);
            }
            State::Broken(why) => {
                told.state = true;
                known.broken += 1;
                let waited = if why.contains("not within") { PATIENCE } else { Duration::ZERO };
                let from = before.saturating_sub(LAG + waited);
                let why = format!("{why}, from {} after {} exchanges", connection.local, connection.exchanges);
                self.journal.suffer(Harm::Broken, served, backend, (from, now), &why);
            }
        }
    }

    fn look_at_udp(
        &self,
        known: &mut Known,
        served: Served,
        last: &udp_echo::Exchanges,
        is: &udp_echo::Exchanges,
        before: Duration,
    ) {
        let now = self.journal.now();
        self.journal.looked(Invariant::Datagrams, is.sent - last.sent);
        let seen = known.seen.entry(served.name()).or_default();
        seen.datagrams += is.sent - last.sent;
        seen.answers += is.answered - last.answered;
        let name = |of: &udp_echo::Exchanges| of.identity.as_ref().map(|Identity { name, .. }| name.clone());
        let from = before.saturating_sub(LAG);
        if is.wrong > last.wrong {
            self.journal.violate(Invariant::Content, format!("{served} from {}: a wrong answer: {is:?}", is.local));
        }
        if is.lost > last.lost {
            let why = format!("{} lost from {}, {:?}", is.lost - last.lost, is.local, is.errors);
            self.journal.suffer(Harm::Lost, served, name(last), (from.saturating_sub(DATAGRAM), now), &why);
        }
        if is.moves > last.moves {
            let why = format!("from {:?} to {:?}, {}", last.identity, is.identity, is.local);
            // It's the backend that it was taken from whose event must excuse it.
            self.journal.suffer(Harm::Moved, served, name(last), (from, now), &why);
        }
    }

    /// From now on the service's canary has this share.
    pub fn steady(&self, served: Served, share: splitter_user::model::Weight) {
        self.known().shares.begin(&served.name(), share, self.journal.now());
    }

    /// From now on nobody says what share it has.
    pub fn unsteady(&self, served: Served) {
        self.known().shares.end(&served.name(), self.journal.now());
    }

    /// Looks whether the canaries got their shares; what was counted lately counts only if nothing came in between.
    pub fn look_at_shares(&self, nothing_in_between: bool) {
        let mut known = self.known();
        if nothing_in_between {
            known.shares.keep();
        } else {
            known.shares.forget();
        }
        for (which, told) in known.shares.odd() {
            // Once odd, it stays so.
            if known.odd.insert(which, ()).is_none() {
                self.journal.violate(Invariant::Share, told);
            }
        }
    }

    /// What was counted at each share.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<(String, u16), (u64, u64)> {
        self.known().shares.counts.clone()
    }

    /// Connections begun, and established ones that broke.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, u64) {
        let known = self.known();
        let open: u64 = known.echo.len() as u64 * TOGETHER as u64;
        let begun: u64 = known.seen.values().map(|seen| seen.begun).sum();
        let datagrams = known.seen.values().map(|seen| seen.datagrams).sum();
        (begun + open, known.broken, datagrams)
    }

    /// Ends all clients in order, and says what they saw.
    ///
    /// # Errors
    /// When a namespace could not be entered.
    pub fn end(&self) -> Result<BTreeMap<String, Seen>> {
        // No more are begun, and those that are under way come to their ends.
        self.end_echo(|_| true)?;
        let webs = std::mem::take(&mut self.known().web);
        for Web { served, begun, running } in webs {
            let report = running.stop()?;
            let mut known = self.known();
            for record in &report.records {
                self.look_at_web(&mut known, served, begun, record);
            }
        }
        let udps = std::mem::take(&mut self.known().udp);
        udps.into_iter().try_for_each(|udp| self.end_udp(udp))?;
        self.look_at_shares(true);
        Ok(self.known().seen.clone())
    }

    /// A connection that nobody ends, for a [`super::sabotage`]: it lives as long as this.
    ///
    /// # Errors
    /// When it can't be begun.
    pub fn forgotten(&self) -> Result<tcp_echo::Running> {
        let served = services().into_iter().find(|served| served.kind == Kind::Echo).expect("there is one");
        let load = tcp_echo::Load::new(served.family.of(self.addresses[0]), target(served), 1);
        Ok(tcp_echo::Load { interval: INTERVAL, timeout: PATIENCE, ..load }.start(&self.client)?)
    }
}
