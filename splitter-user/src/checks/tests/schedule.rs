//! When checks are asked: on a clock that stands still until nobody has anything to do.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};

use super::*;
use crate::checks::{Said, Wanted, run};

#[tokio::test(start_paused = true)]
async fn a_check_is_asked_at_once_and_then_at_its_interval() {
    let mut bench = Bench::start(&[("slow", Takes::Seconds(3)), ("quick", Takes::Seconds(0))], 10);
    bench.want(&["slow", "quick"]);
    let mut at = BTreeMap::<String, Vec<u64>>::new();
    for _ in 0..6 {
        let said = bench.said().await;
        at.entry(said.check).or_default().push(bench.seconds());
    }
    assert_eq!(at["quick"], [0, 10, 20]);
    assert_eq!(at["slow"], [3, 13, 23], "from one beginning to the next");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_answers_delays_no_other_and_is_asked_once() {
    let mut bench = Bench::start(&[("stuck", Takes::Ever), ("quick", Takes::Seconds(0))], 10);
    bench.want(&["stuck", "quick"]);
    for second in [0, 10, 20, 30] {
        assert_eq!((bench.said().await.check.as_str(), bench.seconds()), ("quick", second));
    }
    assert_eq!((bench.begun("stuck"), bench.in_flight("stuck")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_longer_than_its_interval_is_never_asked_twice_at_a_time() {
    let mut bench = Bench::start(&[("slow", Takes::Seconds(25))], 10);
    bench.want(&["slow"]);
    for second in [25, 50, 75] {
        assert_eq!(bench.said().await.check, "slow");
        assert_eq!(bench.seconds(), second);
    }
    assert_eq!(bench.asks.most_at_a_time("slow"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_dropped_with_its_request() {
    let mut bench = Bench::start(&[("stuck", Takes::Ever), ("quick", Takes::Seconds(0))], 10);
    bench.want(&["stuck", "quick"]);
    assert_eq!(bench.said().await.check, "quick");
    assert_eq!(bench.in_flight("stuck"), 1);
    bench.want(&[]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.in_flight("stuck"), 0);
    assert!(timeout(Duration::from_secs(60), bench.said.recv()).await.is_err(), "nobody is asked");

    bench.want(&["quick"]);
    assert_eq!(bench.said().await.check, "quick");
    assert_eq!(bench.seconds(), 61, "it's asked at once again");
}

#[tokio::test(start_paused = true)]
async fn a_new_context_counts_from_the_next_question_and_asks_none_by_itself() {
    let mut bench = Bench::start(&[("quick", Takes::Seconds(0))], 10);
    bench.want(&["quick"]);
    bench.said().await;
    advance(Duration::from_secs(4)).await;
    bench.step = 2;
    bench.want(&["quick"]);
    bench.said().await;
    assert_eq!((bench.seconds(), bench.asks.steps()), (10, vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_reads_otherwise_begins_anew_and_so_does_the_next_rollouts() {
    let mut bench = Bench::start(&[("quick", Takes::Seconds(0))], 10);
    bench.want(&["quick"]);
    bench.said().await;
    advance(Duration::from_secs(4)).await;
    bench.interval = Duration::from_secs(5);
    bench.want(&["quick"]);
    bench.said().await;
    assert_eq!(bench.seconds(), 4);
    bench.rollout = 8;
    bench.want(&["quick"]);
    assert_eq!((bench.said().await.rollout, bench.seconds()), (8, 4));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_told_to_and_drops_what_is_in_flight() {
    for fill in [false, true] {
        let bench = Bench::start(&[("stuck", Takes::Ever), ("quick", Takes::Seconds(0))], 1);
        bench.want(&["stuck", "quick"]);
        // With nobody who takes the answers, it waits for room.
        sleep(Duration::from_secs(if fill { 100 } else { 1 })).await;
        bench.stop.send_replace(true);
        timeout(Duration::from_secs(1), bench.task).await.expect("it ends").expect("in order");
        assert_eq!(bench.asks.in_flight("stuck"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_wants_or_hears_anything() {
    let bench = Bench::start(&[("quick", Takes::Seconds(0))], 1);
    let Bench { wanted, task, stop: _stop, said: _said, .. } = bench;
    drop(wanted);
    timeout(Duration::from_secs(1), task).await.expect("it ends").expect("in order");

    let bench = Bench::start(&[("quick", Takes::Seconds(0))], 1);
    bench.want(&["quick"]);
    let Bench { wanted: _wanted, task, stop: _stop, said, .. } = bench;
    drop(said);
    timeout(Duration::from_secs(1), task).await.expect("it ends").expect("in order");
}

#[derive(Clone, Copy, Debug)]
enum Takes {
    Seconds(u64),
    Ever,
}

/// Answers after a while, and notes what it's asked.
struct Fake {
    takes: BTreeMap<String, Takes>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    begun: BTreeMap<String, usize>,
    in_flight: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    steps: Vec<usize>,
}

impl Fake {
    fn notes<T>(&self, read: impl FnOnce(&mut Notes) -> T) -> T {
        read(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn in_flight(&self, check: &str) -> usize {
        self.notes(|notes| notes.in_flight[check])
    }

    fn most_at_a_time(&self, check: &str) -> usize {
        self.notes(|notes| notes.most[check])
    }

    fn steps(&self) -> Vec<usize> {
        self.notes(|notes| notes.steps.clone())
    }
}

impl Ask for Fake {
    async fn ask(&self, check: &Check, context: &Context) -> Answer {
        let name = check.name.clone();
        self.notes(|notes| {
            *notes.begun.entry(name.clone()).or_default() += 1;
            let now = notes.in_flight.entry(name.clone()).or_default();
            *now += 1;
            let now = *now;
            let most = notes.most.entry(name.clone()).or_default();
            *most = now.max(*most);
            notes.steps.push(context.step);
        });
        let _flight = Flight { name: name.clone(), notes: Arc::clone(&self.notes) };
        match self.takes[&name] {
            Takes::Seconds(0) => {}
            Takes::Seconds(seconds) => sleep(Duration::from_secs(seconds)).await,
            Takes::Ever => pending().await,
        }
        Answer::Pass { said: "well".to_owned() }
    }
}

/// Ends with the request, however that ends.
struct Flight {
    name: String,
    notes: Arc<Mutex<Notes>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(in_flight) = notes.in_flight.get_mut(&self.name) {
            *in_flight -= 1;
        }
    }
}

struct Bench {
    asks: Arc<Fake>,
    wanted: watch::Sender<Vec<Wanted>>,
    said: mpsc::Receiver<Said>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    began: Instant,
    interval: Duration,
    rollout: u64,
    step: usize,
}

impl Bench {
    fn start(checks: &[(&str, Takes)], interval: u64) -> Self {
        let takes = checks.iter().map(|(name, takes)| ((*name).to_owned(), *takes)).collect();
        let asks = Arc::new(Fake { takes, notes: Arc::default() });
        let (wanted, wants) = watch::channel(Vec::new());
        let (sender, said) = mpsc::channel(4);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(Arc::clone(&asks), wants, sender, stopped));
        let (began, interval) = (Instant::now(), Duration::from_secs(interval));
        Self { asks, wanted, said, stop, task, began, interval, rollout: 7, step: 1 }
    }

    fn want(&self, names: &[&str]) {
        let wanted = names.iter().map(|name| Wanted {
            service: "checkout".parse().expect("a name"),
            rollout: self.rollout,
            check: Check { name: (*name).to_owned(), interval: self.interval, ..webhook("http://a") },
            context: Context {
                service: "checkout".to_owned(),
                rollout: self.rollout,
                step: self.step,
                of: 4,
                weight_bp: 100,
                check: (*name).to_owned(),
                canary: Counts::default(),
                stable: Counts::default(),
            },
        });
        self.wanted.send_replace(wanted.collect());
    }

    async fn said(&mut self) -> Said {
        let said = timeout(Duration::from_secs(1_000), self.said.recv()).await;
        said.expect("in time").expect("an answer")
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn begun(&self, check: &str) -> usize {
        self.asks.notes(|notes| notes.begun[check])
    }

    fn in_flight(&self, check: &str) -> usize {
        self.asks.in_flight(check)
    }
}
