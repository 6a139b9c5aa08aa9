//! Who is told what, in which order, and what becomes of targets that don't listen: with a target of the tests' own on a clock that stands still until nobody
//! has anything to do, and over HTTP.

mod delivery;
mod words;

use std::{
    collections::BTreeMap,
    future::pending,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, advance},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::{
    model::{Existing, Weight},
    store::{Abort, EventKind, FlipReason, Moved, Pause, Sample},
};

#[tokio::test(start_paused = true)]
async fn every_target_is_told_in_order_and_what_is_not_worth_it_is_left_out() {
    let bench = Bench::start(&["a", "b"]);
    for step in 1..=3 {
        bench.happens(moved(step_of(step)));
        bench.happens(EventKind::NoCanaryBackend);
    }
    bench.quiet().await;
    let expected = [1, 2, 3].map(|step| (0, format!("checkout: rollout 3 step {step} of 4: 1% for 15m")));
    assert_eq!((bench.told("a"), bench.told("b")), (expected.to_vec(), expected.to_vec()));
    let tally = Tally { sent: 3, ..Tally::default() };
    assert_eq!(bench.tallies.get(), BTreeMap::from([("a".to_owned(), tally), ("b".to_owned(), tally)]));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_tried_five_times_over_two_minutes_and_then_passed_over() {
    let bench = Bench::start(&["bad"]);
    bench.target("bad", Does::Fail { may_pass: true });
    bench.happens(moved(step_of(1)));
    sleep(Duration::from_secs(119)).await;
    assert_eq!(bench.tried("bad"), [0, 3, 12, 39]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.tried("bad"), [0, 3, 12, 39, 120]);
    assert_eq!(bench.tally("bad"), Tally { failed: 1, ..Tally::default() });

    bench.target("bad", Does::Hear);
    bench.happens(moved(step_of(2)));
    bench.quiet().await;
    assert_eq!(bench.tally("bad"), Tally { failed: 1, sent: 1, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_tried_once() {
    let bench = Bench::start(&["bad"]);
    bench.target("bad", Does::Fail { may_pass: false });
    bench.happens(moved(step_of(1)));
    sleep(Duration::from_secs(300)).await;
    assert_eq!((bench.tried("bad"), bench.tally("bad").failed), (vec![0], 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_target_delays_neither_another_nor_whoever_tells() {
    let bench = Bench::start(&["dead", "well"]);
    bench.target("dead", Does::Hang);
    for step in 1..=10 {
        bench.happens(moved(step_of(step)));
        bench.quiet().await;
    }
    assert_eq!(bench.told("well").len(), 10);
    assert_eq!(bench.tally("dead"), Tally { waiting: 10, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
async fn a_target_that_comes_back_is_told_what_it_missed_in_order() {
    let bench = Bench::start(&["a"]);
    bench.target("a", Does::Fail { may_pass: true });
    for step in 1..=3 {
        bench.happens(moved(step_of(step)));
    }
    bench.quiet().await;
    bench.target("a", Does::Hear);
    sleep(Duration::from_secs(10)).await;
    let told: Vec<_> = bench.told("a").into_iter().map(|(at, text)| (at, text.contains("step 1 of"))).collect();
    assert_eq!(told, [(3, true), (3, false), (3, false)]);
}

#[tokio::test(start_paused = true)]
async fn of_too_many_the_oldest_are_dropped_and_counted() {
    let bench = Bench::start(&["slow"]);
    bench.target("slow", Does::Fail { may_pass: true });
    bench.happens(moved(step_of(1)));
    bench.quiet().await;
    let last = QUEUE + 100;
    for step in 2..=last {
        bench.happens(moved(step_of(step)));
    }
    bench.quiet().await;
    bench.target("slow", Does::Hear);
    sleep(Duration::from_secs(10)).await;
    let told: Vec<String> = bench.told("slow").into_iter().map(|(_, text)| text).collect();
    // The first was being told; of the others, those stay that have room.
    let expected = std::iter::once(1).chain(last - QUEUE + 1..=last);
    let expected: Vec<String> = expected.map(|step| format!("checkout: rollout 3 step {step} of 4: 1% for 15m")).collect();
    assert!(told == expected, "{:?} {:?}, {} in all", told.first(), told.get(1), told.len());
    assert_eq!(bench.tally("slow"), Tally { sent: QUEUE as u64 + 1, dropped: 99, ..Tally::default() });
}

#[tokio::test(start_paused = true)]
async fn targets_come_change_and_go_while_it_runs() {
    let bench = Bench::start(&["a"]);
    bench.target("a", Does::Fail { may_pass: true });
    bench.happens(moved(step_of(1)));
    bench.quiet().await;
    // What waits for a target is told by its new settings.
    let changed = Notify { token_file: Some(PathBuf::from("/new")), ..notify("a") };
    bench.target("a", Does::Hear);
    bench.targets.send_replace(vec![changed.clone(), notify("b")]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.deliver.last("a"), Some(changed));
    assert!(bench.told("b").is_empty(), "it's told what happens from now on");
    bench.happens(moved(step_of(2)));
    bench.quiet().await;
    assert_eq!((bench.told("a").len(), bench.told("b").len()), (2, 1));

    bench.targets.send_replace(vec![notify("b")]);
    bench.quiet().await;
    bench.happens(moved(step_of(3)));
    bench.quiet().await;
    assert_eq!((bench.told("a").len(), bench.told("b").len()), (2, 2));
    assert_eq!(bench.tallies.get().into_keys().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_waits_is_still_told_for_a_moment_and_the_rest_is_counted() {
    let bench = Bench::start(&["well", "dead"]);
    bench.target("dead", Does::Hang);
    for step in 1..=3 {
        bench.happens(moved(step_of(step)));
    }
    bench.quiet().await;
    let ending = Instant::now();
    bench.stop.send_replace(true);
    let Bench { task, tallies, deliver, .. } = bench;
    task.await.expect("in order");
    assert_eq!(ending.elapsed(), GRACE);
    let tallies = tallies.get();
    assert_eq!(tallies["well"], Tally { sent: 3, ..Tally::default() });
    assert_eq!(tallies["dead"], Tally { dropped: 3, ..Tally::default() });
    assert_eq!(deliver.hanging(), 0, "nothing outlives it");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_events_at_once_where_nothing_waits() {
    let bench = Bench::start(&["well"]);
    bench.happens(moved(step_of(1)));
    let began = Instant::now();
    let Bench { events, task, tallies, stop: _stop, .. } = bench;
    drop(events);
    task.await.expect("in order");
    assert_eq!((began.elapsed(), tallies.get()["well"].sent), (Duration::ZERO, 1));
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Hear,
    Fail { may_pass: bool },
    Hang,
}

/// Hears, or doesn't, as a test wants.
#[derive(Default)]
struct Fake(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    does: BTreeMap<String, Does>,
    tried: BTreeMap<String, Vec<(Instant, Notify)>>,
    told: BTreeMap<String, Vec<(Instant, String)>>,
    hanging: Arc<()>,
}

impl Fake {
    fn heard<T>(&self, read: impl FnOnce(&mut Heard) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn last(&self, target: &str) -> Option<Notify> {
        self.heard(|heard| heard.tried[target].last().map(|(_, notify)| notify.clone()))
    }

    fn hanging(&self) -> usize {
        self.heard(|heard| Arc::strong_count(&heard.hanging) - 1)
    }
}

impl Deliver for Fake {
    async fn deliver(&self, to: &Notify, message: &Message) -> Result<(), Untold> {
        let (does, _hangs) = self.heard(|heard| {
            let does = heard.does.get(&to.name).copied().unwrap_or(Does::Hear);
            heard.tried.entry(to.name.clone()).or_default().push((Instant::now(), to.clone()));
            if let Does::Hear = does {
                heard.told.entry(to.name.clone()).or_default().push((Instant::now(), message.text.clone()));
            }
            (does, Arc::clone(&heard.hanging))
        });
        match does {
            Does::Hear => Ok(()),
            Does::Fail { may_pass } => Err(Untold { why: "it doesn't listen".to_owned(), may_pass }),
            Does::Hang => pending().await,
        }
    }
}

struct Bench {
    deliver: Arc<Fake>,
    targets: watch::Sender<Vec<Notify>>,
    events: mpsc::UnboundedSender<Event>,
    tallies: Tallies,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    began: Instant,
}

impl Bench {
    fn start(targets: &[&str]) -> Self {
        let deliver = Arc::new(Fake::default());
        let (targets, seen) = watch::channel(targets.iter().map(|name| notify(name)).collect());
        let (events, happened) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let tallies = Tallies::default();
        let happened = UnboundedReceiverStream::new(happened);
        let task = tokio::spawn(run(Arc::clone(&deliver), seen, happened, "node1".to_owned(), tallies.clone(), stopped));
        Self { deliver, targets, events, tallies, stop, task, began: Instant::now() }
    }

    fn happens(&self, kind: EventKind) {
        self.events.send(event(kind)).expect("it runs");
    }

    fn target(&self, name: &str, does: Does) {
        self.deliver.heard(|heard| heard.does.insert(name.to_owned(), does));
    }

    /// Everybody has done what they can at this moment.
    async fn quiet(&self) {
        for _ in 0..10 {
            advance(Duration::ZERO).await;
        }
    }

    fn told(&self, name: &str) -> Vec<(u64, String)> {
        let told = self.deliver.heard(|heard| heard.told.get(name).cloned().unwrap_or_default());
        told.into_iter().map(|(at, text)| ((at - self.began).as_secs(), text)).collect()
    }

    fn tried(&self, name: &str) -> Vec<u64> {
        self.deliver.heard(|heard| heard.tried[name].iter().map(|(at, _)| (*at - self.began).as_secs()).collect())
    }

    fn tally(&self, name: &str) -> Tally {
        self.tallies.get()[name]
    }
}

fn notify(name: &str) -> Notify {
    let to = NotifyTo::Url("http://127.0.0.1:1/hunter2".to_owned());
    Notify { name: name.to_owned(), to, token_file: None, timeout: Duration::from_secs(20) }
}

fn event(kind: EventKind) -> Event {
    Event { id: 17, at: Timestamp::UNIX_EPOCH, service: Some("checkout".parse().expect("a name")), kind }
}

fn moved(what: Moved) -> EventKind {
    EventKind::Rollout { rollout: 3, what }
}

fn step_of(step: usize) -> Moved {
    let weight = Weight::from_basis_points(100).expect("in range");
    Moved::Step { step, of: 4, plan: "1% for 15m".to_owned(), weight }
}
