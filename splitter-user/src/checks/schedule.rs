//! Which checks are asked when.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream::unfold};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_stream::StreamMap;

use super::{Ask, Context};
use crate::{
    api::connections::stopped,
    model::{Check, ServiceName},
    store::Answer,
};

/// What errors call the task.
pub const NAME: &str = "the checks";

/// A timer can't be set to less, and nobody means it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// A check that is to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The service that is rolled out.
    pub service: ServiceName,
    /// The rollout's number.
    pub rollout: u64,
    /// The check.
    pub check: Check,
    /// What it's told; what counts is the latest at the moment when it's asked.
    pub context: Context,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The service that is rolled out.
    pub service: ServiceName,
    /// The rollout's number: it may be over by now.
    pub rollout: u64,
    /// The check's name.
    pub check: String,
    /// Its answer.
    pub answer: Answer,
}

/// Asks what is wanted: each check at once, and then at its interval, whatever the others do. One that isn't wanted any more is dropped, with its request.
///
/// Ends when `stop` turns true, or when nobody is left who wants something or listens. All of it is this one task, and requests in flight end with it.
pub async fn run<A: Ask>(
    asks: Arc<A>,
    mut wanted: watch::Receiver<Vec<Wanted>>,
    said: mpsc::Sender<Said>,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = std::pin::pin!(stopped(stop));
    let mut going = Going { asks, checks: BTreeMap::new(), answers: StreamMap::new() };
    let first = wanted.borrow_and_update().clone();
    going.renew(first);
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => return,
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = wanted.borrow_and_update().clone();
                going.renew(now);
            }
            Some((Key { service, rollout, check }, answer)) = going.answers.next(), if !going.answers.is_empty() => {
                let sent = tokio::select! {
                    () = &mut stopping => return,
                    sent = said.send(Said { service, rollout, check, answer }) => sent,
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    service: ServiceName,
    rollout: u64,
    check: String,
}

/// The checks that are asked.
struct Going<A> {
    asks: Arc<A>,
    checks: BTreeMap<Key, (Check, watch::Sender<Context>)>,
    answers: StreamMap<Key, Answers>,
}

/// One check's answers, without an end. A request in flight is part of it.
type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

impl<A: Ask> Going<A> {
    fn renew(&mut self, wanted: Vec<Wanted>) {
        let mut before = std::mem::take(&mut self.checks);
        for Wanted { service, rollout, check, context } in wanted {
            let key = Key { service, rollout, check: check.name.clone() };
            if self.checks.contains_key(&key) {
                // A plan has each name once; if it hadn't, the first would be asked.
                continue;
            }
            match before.remove(&key) {
                Some((same, told)) if same == check => {
                    told.send_replace(context);
                    self.checks.insert(key, (check, told));
                }
                Some(_) | None => {
                    let (told, latest) = watch::channel(context);
                    self.answers.insert(key.clone(), answers(Arc::clone(&self.asks), check.clone(), latest));
                    self.checks.insert(key, (check, told));
                }
            }
        }
        for key in before.keys() {
            drop(self.answers.remove(key));
        }
    }
}

fn answers<A: Ask>(asks: Arc<A>, check: Check, latest: watch::Receiver<Context>) -> Answers {
    let mut ticks = interval(check.interval.max(SHORTEST_INTERVAL));
    // A check that takes longer than its interval is asked again when it's done, and from then on at the interval.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Box::pin(unfold((asks, check, latest, ticks), |(asks, check, latest, mut ticks)| async move {
        ticks.tick().await;
        let context = latest.borrow().clone();
        let answer = asks.ask(&check, &context).await;
        Some((answer, (asks, check, latest, ticks)))
    }))
}
