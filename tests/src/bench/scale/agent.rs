//! The whole round: an agent as it ships, with its store on a disk and its ways from the kernel, asked through its socket.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use splitter_user::{
    agent::{self, Kernel, OpenFailure, OpenFailureKind, Parts, Signal, clock},
    api::{client::Client, wire::FlipRequest},
    config::{self, Config},
    dataplane::kernel,
    model::{Existing, Mode, ServiceName, Weight},
    neighbor::{self, Watcher},
    store::{FileHistory, FileStore, Store},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Effort, many,
    rows::{Rows, ms, us},
};
use crate::{
    lab::Solo,
    node::{Pins, Service},
};

/// The interface that clients come by and backends are behind.
const DEVICE: &str = "scale0";
/// The node's address there; the backends are its neighbours.
const NODE: &str = "10.191.255.254/10";
/// How long the agent may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// A pause between two changes, longer than what the data plane leaves between two of its own.
const PAUSE: Duration = Duration::from_millis(8);

/// Weight changes, flips and reloads by backends.
///
/// # Errors
/// The agent can't be started, or refuses something.
pub fn rounds(effort: Effort, rows: &mut Rows) -> Result<()> {
    let sizes: &[u32] = if effort == Effort::Full { &[2, 64, 1_000, 4_000] } else { &[2, 4_000] };
    let rounds = if effort == Effort::Full { 51 } else { 15 };
    for size in sizes {
        let solo = Solo::new("scale")?;
        solo.sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
        let mut lines = vec![
            format!("link add {DEVICE} type veth peer name peer"),
            format!("addr add {NODE} dev {DEVICE}"),
            format!("link set {DEVICE} up"),
            "link set peer up".to_owned(),
        ];
        // Known beforehand: how fast neighbours answer isn't what is measured.
        let neighbor = |backend| {
            format!(
                "neigh add {} lladdr {} dev {DEVICE} nud permanent",
                many::address(backend, Mode::Nat).ip(),
                many::mac(backend)
            )
        };
        lines.extend((0..*size).map(neighbor));
        solo.ip(&lines)?;
        let found = solo.runtime(2)?.block_on(measure(&solo, *size, rounds))?;
        let by = "backends";
        rows.add("weight-change-by-api", by, u64::from(*size), us(&found.weight));
        rows.add("flip-by-api", by, u64::from(*size), us(&found.flip));
        rows.add("rebuild-by-reload", by, u64::from(*size), ms(&found.reload));
    }
    Ok(())
}

/// How long each round took, from the question to the answer.
struct Found {
    weight: Vec<Duration>,
    flip: Vec<Duration>,
    reload: Vec<Duration>,
}

/// What an agent is given on disk.
struct Site {
    directory: tempfile::TempDir,
    pins: Pins,
    size: u32,
}

async fn measure(solo: &Solo, size: u32, rounds: usize) -> Result<Found> {
    let site = Site { directory: tempfile::tempdir()?, pins: Pins::new(solo.name())?, size };
    site.configure(size)?;
    let (signals, told) = mpsc::channel(1);
    let (ready, is_ready) = oneshot::channel();
    let parts = site.parts(ready)?;
    // Spawned, and so inside the namespace, as all threads of the runtime are.
    let mut agent = tokio::spawn(agent::run(parts, told));
    tokio::select! {
        up = timeout(PATIENCE, is_ready) => up.context("the agent takes too long to start")?.context("the agent doesn't start")?,
        ended = &mut agent => {
            ended??;
            anyhow::bail!("the agent ended at once");
        }
    }
    let asked = tokio::spawn(ask(site.socket(), site.file(), site.text(size), site.text(size - 1), rounds));
    let found = asked.await?;
    signals.send(Signal::Stop).await?;
    timeout(PATIENCE, agent).await.context("the agent takes too long to stop")???;
    found
}

/// Changes things and takes them back, in turns.
async fn ask(socket: PathBuf, file: PathBuf, all: String, one_less: String, rounds: usize) -> Result<Found> {
    let (client, name) = (Client::new(socket), name());
    let status = client.status(Some(&name)).await?;
    let alerts = &status.services[0].alerts;
    ensure!(alerts.is_empty(), "the agent isn't well: {:?}", alerts.first());
    let mut found = Found { weight: Vec::new(), flip: Vec::new(), reload: Vec::new() };
    for round in 0..rounds {
        let weight = Weight::from_basis_points(if round % 2 == 0 { 500 } else { 1_000 })?;
        let begun = Instant::now();
        let status = client.set_weight(&name, weight).await?;
        found.weight.push(begun.elapsed());
        ensure!(status.weights.in_force == Some(weight), "{:?} isn't in force", status.weights);
    }
    let request = FlipRequest { existing: Existing::Keep, reason: None };
    for _ in 0..rounds {
        let begun = Instant::now();
        let status = client.flip(&name, &request).await?;
        found.flip.push(begun.elapsed());
        ensure!(status.weights.in_force == Some(Weight::ZERO), "{:?} isn't flipped", status.weights);
        client.unflip(&name).await?;
    }
    for round in 0..rounds {
        fs::write(&file, if round % 2 == 0 { &one_less } else { &all })?;
        sleep(PAUSE).await;
        let begun = Instant::now();
        client.reload().await?;
        found.reload.push(begun.elapsed());
    }
    Ok(found)
}

fn name() -> ServiceName {
    "scale".parse().expect("a name")
}

impl Site {
    fn file(&self) -> PathBuf {
        self.directory.path().join("splitter.toml")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn configure(&self, backends: u32) -> Result<()> {
        Ok(fs::write(self.file(), self.text(backends))?)
    }

    /// The configuration with one service of so many backends, the last of them left out that `size` has more.
    fn text(&self, backends: u32) -> String {
        let wanted = many::service(0, 0, self.size, Mode::Nat);
        let service = Service::new(name().as_str(), wanted.key.protocol, wanted.key.address, Mode::Nat).weight("10%");
        // The first may go: it's a stable one of several, or the canary stays with it.
        let left_out = (self.size - backends) as usize;
        let backends = wanted.backends.iter().rev().skip(left_out.min(1));
        let service = backends.fold(service, |service, backend| service.backend(backend.cohort, backend.address));
        format!(
            "[agent]\ninterfaces = [{DEVICE:?}]\nmetrics_address = \"off\"\nsocket = {:?}\nstate_directory = {:?}\npin_directory = {:?}\n\n[tables]\nbackends = \
             8192\n\n{}",
            self.socket(),
            self.directory.path().join("state"),
            self.pins.path(),
            service.text()
        )
    }

    fn parts(&self, ready: oneshot::Sender<()>) -> Result<Parts<Kernel>> {
        let file = self.file();
        Ok(Parts {
            config: config::load(&file)?,
            source: Arc::new(move || config::load(&file)),
            store: Box::new(|config| Ok(Box::new(FileStore::open(&config.agent.state_directory)?) as Box<dyn Store>)),
            history: Box::new(|config| {
                let (history, opening) = FileHistory::open(&config.agent.state_directory, clock::now().at);
                (Arc::new(history), opening.warnings())
            }),
            // No state is lost here.
            seeds: Box::new(|_| std::collections::BTreeMap::new()),
            open: Box::new(open),
            ways: Box::new(|| Ok(Kernel::from(Watcher::start(neighbor::Settings::default())?))),
            detach: true,
            ready: Box::new(move || {
                if ready.send(()).is_err() {
                    eprintln!("scale: the agent is up, and nobody waits for it any more");
                }
            }),
        })
    }
}

fn open(config: &Config) -> Result<agent::Opened, OpenFailure> {
    let opened = kernel::open(&kernel::Options::of(config));
    let failed = |error: kernel::OpenError| OpenFailure { kind: OpenFailureKind::Failed, message: error.to_string() };
    let (dataplane, warnings) = opened.map_err(failed)?;
    Ok((Box::new(dataplane), warnings))
}
