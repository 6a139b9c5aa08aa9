//! The whole run: build, load, events, end, and what must hold then.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    act::{Driver, Interrupted},
    journal::{Invariant, Journal},
    load::{Clients, Seen},
    objects::Objects,
    options::Options,
    report::Report,
    sabotage::{self, Held},
    schedule::Schedule,
    watch::Watch,
    world::{FORGOTTEN, World, services},
};
use crate::{lab::NAMESPACES_AT, node::Kind};

/// Between two generations of long-lived connections.
const GENERATION: Duration = Duration::from_secs(8);
/// How long the load may run at most: it ends with the events.
const LOAD_LIMIT: Duration = Duration::from_secs(48 * 3_600);
/// Beyond the timeouts: a sweep, and a machine with much else to do.
const SWEPT: Duration = Duration::from_secs(40);
/// An attempt of which a client isn't certain may have been counted with each of its SYNs: within its patience it sends no more than these.
const SYNS: u64 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Plays it.
///
/// # Errors
/// When the world can't be built, or the run can't be brought to its end. What didn't hold is no error: it's in the report.
pub fn play(options: &Options, signal: &AtomicI32) -> Result<Report> {
    let journal = Journal::default();
    let watch = Watch::default();
    let world = World::build().context("the network and its servers")?;
    let names: Vec<String> = world.lab.namespaces().map(|namespace| namespace.name().to_owned()).collect();
    let left = Left { names, pins: world.node.pins().path().to_owned(), config: world.node.config() };
    let clients = Clients::new(&world, &journal);
    let mut events = Vec::new();
    let mut held = Held::default();
    let driver = Driver::start(world, &journal, &clients, &watch, signal).context("the agent")?;
    journal.say("everything stands");
    let node = driver.world.node.namespace().clone();
    let aging = AtomicBool::new(true);
    let ended = thread::scope(|scope| {
        scope.spawn(|| watch.scrape(&node, &journal));
        scope.spawn(|| watch.look(&clients, &journal));
        let ages = scope.spawn(|| age(&clients, options.seed, &aging, &journal));
        let played = clients
            .begin(options.rate, LOAD_LIMIT, options.seed)
            .and_then(|()| events_of(options, driver, &clients, &mut held, &mut events));
        // Whatever happened, everybody ends.
        aging.store(false, Ordering::Release);
        let aged = ages.join();
        let ended = played.and_then(|driver| {
            aged.map_err(|_| anyhow::anyhow!("the thread of the generations panicked"))?;
            finish(driver, &clients, &watch, &journal)
        });
        watch.end();
        ended
    });
    let Ended { world, ever, seen, lapses } = ended?;
    drop(world);
    let gone = ever.wait_until_gone();
    journal.check(Invariant::Objects, gone.is_empty(), || format!("left in the kernel: {gone:?}"));
    let leaks = left.look(&journal)?;
    drop(held);
    watch.look_at_courses(&journal);
    Ok(Report::of(options, &journal, &watch, &clients, &events, &seen, lapses, leaks, signal.load(Ordering::Acquire)))
}

/// One generation of long-lived connections after the other.
fn age(clients: &Clients<'_>, seed: u64, aging: &AtomicBool, journal: &Journal) {
    let mut last = Instant::now();
    while aging.load(Ordering::Acquire) {
        if last.elapsed() > GENERATION {
            last = Instant::now();
            if let Err(error) = clients.generation(seed) {
                journal.violate(Invariant::Attempts, format!("long-lived connections could not be begun: {error:#}"));
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Events until the time is over, or somebody interrupts.
fn events_of<'a>(
    options: &Options,
    mut driver: Driver<'a>,
    clients: &Clients<'_>,
    held: &mut Held,
    events: &mut Vec<super::schedule::Event>,
) -> Result<Driver<'a>> {
    let over = Instant::now() + options.duration();
    let mut sabotage = options.sabotage.iter().copied();
    for event in Schedule::new(options.seed) {
        if Instant::now() > over && sabotage.len() == 0 {
            break;
        }
        if event.number > 1
            && let Some(kind) = sabotage.next()
        {
            sabotage::commit(kind, &mut driver, clients, held).with_context(|| format!("sabotage: {kind:?}"))?;
        }
        match driver.perform(&event) {
            Ok(()) => events.push(event),
            Err(error) if error.is::<Interrupted>() => break,
            Err(error) => return Err(error.context(event.to_string())),
        }
    }
    Ok(driver)
}

struct Ended {
    world: World,
    ever: Objects,
    seen: BTreeMap<String, Seen>,
    lapses: u64,
}

/// Ends the load, and looks at what must be in the end.
fn finish(mut driver: Driver<'_>, clients: &Clients<'_>, watch: &Watch, journal: &Journal) -> Result<Ended> {
    journal.event("the load ends");
    driver.mend()?;
    let seen = clients.end()?;
    nothing_lives(watch, journal);
    totals(&seen, watch, journal);
    journal.is_over();
    let lapses = driver.unplanned_lapses;
    let (world, ever) = driver.end()?;
    Ok(Ended { world, ever, seen, lapses })
}

/// What there is of each service's connections, and in each table.
const LIVES: [&str; 3] =
    ["splitter_backend_connections_live", "splitter_backend_connections_active", "splitter_table_used_entries"];

fn nothing_lives(watch: &Watch, journal: &Journal) {
    let deadline = Instant::now() + FORGOTTEN + SWEPT;
    loop {
        let fresh = watch.next_page();
        let page = watch.page();
        let lives: Vec<String> = LIVES
            .iter()
            .flat_map(|metric| page.of(metric))
            .filter(|(_, value)| *value != 0.0)
            .map(|(series, value)| format!("{series} {value}"))
            .collect();
        let known = LIVES.iter().all(|metric| page.of(metric).next().is_some());
        if fresh && known && lives.is_empty() {
            return journal.looked(Invariant::Live, 1);
        }
        if Instant::now() > deadline {
            return journal.violate(Invariant::Live, format!("after {:?}: {}", FORGOTTEN + SWEPT, lives.join(", ")));
        }
        thread::sleep(PAUSE);
    }
}

/// Whether counters are what clients saw: exactly, but for those connections of which a client isn't certain itself, which may have been counted with each SYN.
fn totals(seen: &BTreeMap<String, Seen>, watch: &Watch, journal: &Journal) {
    let tracker = watch.tracker();
    for served in services() {
        let name = served.name();
        let seen = seen.get(&name).copied().unwrap_or_default();
        let total = |metric: &str, direction: &str| tracker.total(&format!("splitter_backend_{metric}_total"), &name, direction);
        let ranges = match served.kind {
            Kind::Web | Kind::Echo => {
                let range = (seen.certain, seen.certain + seen.uncertain * SYNS);
                let opened = ("connections opened", total("connections_opened", ""), range);
                vec![opened, ("connections completed", total("connections_completed", ""), range)]
            }
            Kind::Udp => vec![("datagrams", total("packets", "to_backend"), (seen.answers, seen.datagrams))],
        };
        for (what, counted, (least, most)) in ranges {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let holds = counted >= least as f64 && counted <= most as f64;
            journal
                .check(Invariant::Totals, holds, || format!("{name}: {counted} {what}, clients say {least} to {most}: {seen:?}"));
        }
    }
}

/// What must be gone in the end.
struct Left {
    names: Vec<String>,
    pins: PathBuf,
    config: PathBuf,
}

impl Left {
    fn look(&self, journal: &Journal) -> Result<Vec<String>> {
        let mut left = Vec::new();
        left.extend(self.names.iter().map(|name| Path::new(NAMESPACES_AT).join(name)).filter(|path| path.exists()));
        let directory = self.config.parent().context("a file is in a directory")?;
        left.extend(Some(directory.to_owned()).filter(|path| path.exists()));
        // Whatever begins as our pins do.
        let (parent, own) = (self.pins.parent().context("pins are in a directory")?, self.pins.file_name().unwrap_or_default());
        for entry in fs::read_dir(parent).context("read the BPF file system")? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(own.as_encoded_bytes()) {
                left.push(path);
            }
        }
        let left: Vec<String> = left.into_iter().map(|path| path.display().to_string()).collect();
        journal.check(Invariant::Leftovers, left.is_empty(), || left.join(", "));
        Ok(left)
    }
}
