//! Packets as fast as they go: a generator of live frames at the client, sinks that count at the backends.
//!
//! The generator is an XDP program run by `BPF_PROG_TEST_RUN` with live frames on the first CPU. The frames it sends come in at the node's
//! front, which receives on the second CPU (threaded NAPI, pinned), and whatever the node sends on reaches the backends in the same CPU's soft
//! interrupt: the sinks cost each path the same, and little.

mod assembler;
mod kernel;
mod napi;
mod programs;
mod search;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{sched::sched_getaffinity, unistd::Pid};

use self::{
    kernel::Cell,
    napi::Threaded,
    programs::{Route, State},
};
pub(super) use self::{
    programs::{Choice, PORT, choose},
    search::{Trial, highest_rate},
};
use crate::lab::{self, Attached, Lab, Namespace};

/// How long the first packet may take: addresses have to be resolved.
const ARRIVES: Duration = Duration::from_secs(5);
/// So long after the last one was sent, nothing is under way any more: a ring of 256 packets holds half a millisecond's work at most.
const UNDER_WAY: Duration = Duration::from_millis(5);
/// A paced generator's frames a second until it is known: each asks for the time.
const FIRST_GUESS: f64 = 10e6;
/// A run of more frames takes seconds, which nothing here is to take: it has its CPU for itself.
const MOST_FRAMES: f64 = 5e7;

/// A generator and its sinks, ready to be used.
pub(super) struct Flood {
    client: Namespace,
    cpu: usize,
    route: Route,
    generators: Vec<Generator>,
    sinks: Vec<Sink>,
    _receiver: Threaded,
}

/// A loaded generator.
struct Generator {
    flows: u32,
    paced: bool,
    state: Cell<State>,
    program: OwnedFd,
    /// Frames a second that it is run on.
    speed: f64,
}

/// What counts at a backend.
struct Sink {
    count: Cell<u64>,
    _attached: Attached,
}

impl Flood {
    /// On a lab whose client and backends have bare ends, and whose node's front has its NAPI on; with generators of so many flows.
    ///
    /// # Errors
    /// Something can't be made, there is one CPU alone, or no packet arrives.
    pub fn start(lab: &Lab, flows: &[u32]) -> Result<Self> {
        let (first, second) = two_cpus()?;
        let node = lab.node();
        let route = Route {
            source_mac: lab.client().mac("eth0")?,
            next_hop: node.namespace.mac(&node.front)?,
            source: lab.client_addresses()[0].v4,
            target: lab.service().v4,
            device: lab.client().ifindex("eth0")?,
        };
        let sinks = lab.backends().iter().map(|backend| Sink::attach(&backend.namespace)).collect::<Result<_>>()?;
        let mut flood = Self {
            client: lab.client().clone(),
            cpu: first,
            route,
            generators: Vec::new(),
            sinks,
            _receiver: Threaded::on(&node.namespace, &node.front, second)?,
        };
        for flows in flows {
            for paced in [false, true] {
                flood.generators.push(Generator::load(&route, *flows, paced)?);
            }
            flood.settle(*flows)?;
        }
        Ok(flood)
    }

    /// Sends slowly until every flow has got through: what is to be resolved is, and every flow is known.
    fn settle(&mut self, flows: u32) -> Result<()> {
        const SLOW_MPPS: f64 = 0.1;
        let deadline = Instant::now() + ARRIVES;
        while self.send_some(flows, SLOW_MPPS, flows.max(32) * 2)?.received < u64::from(flows) {
            ensure!(Instant::now() < deadline, "no flood arrives at the backends within {ARRIVES:?}");
        }
        Ok(())
    }

    /// Sends for so long, at so many million packets a second (without: as many as it can).
    ///
    /// # Errors
    /// The kernel doesn't run the generator.
    pub fn send(&mut self, flows: u32, mpps: Option<f64>, duration: Duration) -> Result<Trial> {
        let speed = self.generator(flows, mpps.is_some())?.speed;
        self.run(flows, mpps, speed * duration.as_secs_f64())
    }

    /// Sends about so many packets, at so many million a second.
    ///
    /// # Errors
    /// The kernel doesn't run the generator.
    pub fn send_some(&mut self, flows: u32, mpps: f64, packets: u32) -> Result<Trial> {
        self.send(flows, Some(mpps), Duration::from_secs_f64(f64::from(packets) / mpps / 1e6))
    }

    /// What has arrived since the start, for each backend.
    ///
    /// # Errors
    /// The kernel doesn't tell.
    pub fn received(&self) -> Result<Vec<u64>> {
        self.sinks.iter().map(|sink| sink.count.get()).collect()
    }

    fn generator(&mut self, flows: u32, paced: bool) -> Result<&mut Generator> {
        let found = self.generators.iter_mut().find(|generator| generator.flows == flows && generator.paced == paced);
        found.with_context(|| format!("no generator of {flows} flows was asked for"))
    }

    fn run(&mut self, flows: u32, mpps: Option<f64>, frames: f64) -> Result<Trial> {
        let before: u64 = self.received()?.iter().sum();
        let (client, cpu, frame) = (self.client.clone(), self.cpu, self.route.frame());
        let generator = self.generator(flows, mpps.is_some())?;
        let sent = generator.state.get()?[programs::SENT];
        generator.pace(mpps)?;
        let frames = frames.clamp(64.0, MOST_FRAMES) as u32;
        let program = &generator.program;
        let took = client.enter(|| -> Result<Duration> {
            napi::pin(0, cpu)?;
            kernel::run_live(program, &frame, frames).context("run the generator on live frames, which needs Linux 5.18")
        })??;
        let seconds = took.as_secs_f64();
        generator.speed = f64::from(frames) / seconds;
        let sent = generator.state.get()?[programs::SENT] - sent;
        thread::sleep(UNDER_WAY);
        let received = self.received()?.iter().sum::<u64>() - before;
        Ok(Trial { sent, received, seconds })
    }
}

impl Generator {
    fn load(route: &Route, flows: u32, paced: bool) -> Result<Self> {
        let state = Cell::new()?;
        let program = lab::xdp::load(&programs::generator(route, flows, paced, state.as_fd())).context("load the generator")?;
        Ok(Self { flows, paced, state, program, speed: FIRST_GUESS })
    }

    fn pace(&mut self, mpps: Option<f64>) -> Result<()> {
        let Some(mpps) = mpps else { return Ok(()) };
        ensure!(mpps > 0.0, "a rate of {mpps} million packets a second");
        let mut state = self.state.get()?;
        state[programs::INTERVAL] = (1e3 / mpps * f64::from(1 << programs::FRACTION_BITS)) as u64;
        self.state.set(state)
    }
}

impl Sink {
    fn attach(backend: &Namespace) -> Result<Self> {
        let count = Cell::new()?;
        let program = lab::xdp::load(&programs::sink(count.as_fd())).context("load a sink")?;
        Ok(Self { _attached: lab::xdp::attach_loaded(backend, "eth0", &program)?, count })
    }
}

/// Two of the CPUs that this process may use.
fn two_cpus() -> Result<(usize, usize)> {
    let set = sched_getaffinity(Pid::from_raw(0)).map_err(io::Error::from).context("ask for this process's CPUs")?;
    let mut cpus = (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    match (cpus.next(), cpus.next()) {
        (Some(first), Some(second)) => Ok((first, second)),
        (_, _) => bail!("needs two CPUs, one to send and one to receive"),
    }
}
