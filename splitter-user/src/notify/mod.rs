//! Notifications: what happened is told to those who want to hear it (`[[notify]]`). See `docs/notifications.md`.
//!
//! Nothing waits for them. An event is put beside those that are to be told, whoever is slow loses the oldest of them, and each target is told in the order
//! in which things happened, independently of the others.

mod message;
mod tally;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};
use tokio_stream::StreamMap;

pub use message::{Level, Message, worth};
pub use tally::{Tallies, Tally};

use crate::{
    api::connections::stopped,
    http::{Address, BadAddress, Client, Failure, Post, Reply, read_secret},
    model::{Notify, NotifyTo},
    store::Event,
};

/// What errors call the task.
pub const NAME: &str = "the notifications";

/// So many wait for a target at most; then the oldest are dropped.
pub const QUEUE: usize = 1_024;

/// Before each further try: five tries over two minutes.
pub const PAUSES: [Duration; 4] =
    [Duration::from_secs(3), Duration::from_secs(9), Duration::from_secs(27), Duration::from_secs(81)];

/// How long what waits may still be told when the agent ends.
pub const GRACE: Duration = Duration::from_secs(2);

/// Whoever can tell a target: the network, or a test.
pub trait Deliver: Send + Sync + 'static {
    /// Tells it, once.
    fn deliver(&self, to: &Notify, message: &Message) -> impl Future<Output = Result<(), Untold>> + Send;
}

/// Why a target wasn't told. It names no URL, for that may be a secret.
#[derive(Debug)]
pub struct Untold {
    why: String,
    /// Another try may fare better.
    may_pass: bool,
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<Failure> for Untold {
    fn from(failure: Failure) -> Self {
        Self { may_pass: failure.may_pass(), why: failure.to_string() }
    }
}

impl From<BadAddress> for Untold {
    /// The file that it comes from may be about to be replaced.
    fn from(bad: BadAddress) -> Self {
        Self { may_pass: true, why: format!("its URL: {bad}") }
    }
}

impl Untold {
    fn answered(reply: &Reply) -> Self {
        let redirect = if reply.status.is_redirection() { ", and redirects are not followed" } else { "" };
        Self { may_pass: reply.may_pass(), why: format!("it answered {}{redirect}", reply.status) }
    }
}

impl Deliver for Client {
    async fn deliver(&self, to: &Notify, message: &Message) -> Result<(), Untold> {
        let address = match &to.to {
            NotifyTo::Url(url) => Address::parse(url)?,
            NotifyTo::File(path) => Address::parse(&timeout(to.timeout, read_secret(path)).await.map_err(|_| too_slow(to))??)?,
        };
        let body = serde_json::to_vec(message).map_err(|error| Untold { why: error.to_string(), may_pass: false })?;
        let post = Post {
            to: &address,
            content_type: "application/json",
            body: Bytes::from(body),
            token_file: to.token_file.as_deref(),
            timeout: to.timeout,
        };
        let reply = self.post(&post).await?;
        if reply.status.is_success() { Ok(()) } else { Err(Untold::answered(&reply)) }
    }
}

fn too_slow(to: &Notify) -> Untold {
    Failure::Timeout { after: to.timeout }.into()
}

/// Tells the targets of this moment what is worth it, of what happens from now on.
///
/// Ends when `stop` turns true or the events do; what waits by then may still be told for [`GRACE`]. All of it is this one task, and requests in flight end with it.
pub async fn run<D: Deliver>(
    deliver: Arc<D>,
    mut targets: watch::Receiver<Vec<Notify>>,
    events: impl Stream<Item = Event> + Send,
    node: String,
    tallies: Tallies,
    stop: watch::Receiver<bool>,
) {
    let mut events = pin!(events);
    let mut stopping = pin!(stopped(stop));
    let mut telling =
        Telling { deliver, tallies, queue: broadcast::channel(QUEUE).0, known: BTreeMap::new(), going: StreamMap::new() };
    let first = targets.borrow_and_update().clone();
    telling.renew(first);
    let mut targets_change = true;
    loop {
        tokio::select! {
            biased;
            () = &mut stopping => break,
            changed = targets.changed(), if targets_change => {
                // Nobody can change them any more, and they stay.
                targets_change = changed.is_ok();
                let now = targets.borrow_and_update().clone();
                telling.renew(now);
            }
            event = events.next() => {
                let Some(event) = event else { break };
                if let Some(message) = Message::of(event, &node) {
                    telling.tell(message);
                }
            }
            // Never ready, for none of them ends before its queue does; they go on meanwhile.
            Some(_) = telling.going.next(), if !telling.going.is_empty() => {}
        }
    }
    telling.end().await;
}

struct Telling<D> {
    deliver: Arc<D>,
    tallies: Tallies,
    /// Its receivers are the targets' queues: a receiver that is too far behind loses the oldest, and is told how many.
    queue: broadcast::Sender<Arc<Message>>,
    known: BTreeMap<String, watch::Sender<Notify>>,
    /// One for each target; it ends after its queue.
    going: StreamMap<String, Pin<Box<dyn Stream<Item = ()> + Send>>>,
}

impl<D: Deliver> Telling<D> {
    /// A target that was there already keeps what waits for it, and gets it by its new settings.
    fn renew(&mut self, targets: Vec<Notify>) {
        let mut gone: BTreeSet<String> = self.known.keys().cloned().collect();
        for target in targets {
            let name = target.name.clone();
            gone.remove(&name);
            if let Some(settings) = self.known.get(&name) {
                settings.send_replace(target);
                continue;
            }
            let (sender, settings) = watch::channel(target);
            let told = serve(Arc::clone(&self.deliver), name.clone(), settings, self.queue.subscribe(), self.tallies.clone());
            self.tallies.begin(&name);
            self.going.insert(name.clone(), Box::pin(stream::once(told)));
            self.known.insert(name, sender);
        }
        for name in gone {
            self.known.remove(&name);
            drop(self.going.remove(&name));
            let untold = self.tallies.end(&name).map_or(0, |tally| tally.waiting);
            if untold > 0 {
                tracing::warn!(to = name, untold, "notifications were dropped: the target is not configured any more");
            }
        }
    }

    fn tell(&self, message: Message) {
        for name in self.known.keys() {
            self.tallies.change(name, |tally| tally.waiting += 1);
        }
        if !self.known.is_empty() {
            // An error says that there is no receiver, and each target that is known has one.
            drop(self.queue.send(Arc::new(message)));
        }
    }

    async fn end(self) {
        let Self { queue, mut going, known, tallies, .. } = self;
        // After what waits comes the end.
        drop(queue);
        let all = async { while going.next().await.is_some() {} };
        if timeout(GRACE, all).await.is_ok() {
            return;
        }
        for name in known.keys() {
            let untold = tallies.change(name, |tally| {
                tally.dropped += tally.waiting;
                std::mem::take(&mut tally.waiting)
            });
            if untold > 0 {
                tracing::warn!(to = name, untold, "notifications were dropped, as the agent ends");
            }
        }
    }
}

/// Tells one target, one thing after the other, until there will be no more.
async fn serve<D: Deliver>(
    deliver: Arc<D>,
    name: String,
    settings: watch::Receiver<Notify>,
    mut queue: broadcast::Receiver<Arc<Message>>,
    tallies: Tallies,
) {
    loop {
        match queue.recv().await {
            Ok(message) => tell(&*deliver, &name, &settings, &message, &tallies).await,
            Err(RecvError::Lagged(dropped)) => {
                tracing::warn!(to = name, dropped, "notifications were dropped: the target does not keep up");
                tallies.change(&name, |tally| {
                    tally.dropped += dropped;
                    tally.waiting = tally.waiting.saturating_sub(dropped);
                });
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn tell<D: Deliver>(deliver: &D, name: &str, settings: &watch::Receiver<Notify>, message: &Message, tallies: &Tallies) {
    let mut pauses = PAUSES.iter();
    let mut tries = 1;
    let told = loop {
        let target = settings.borrow().clone();
        match (deliver.deliver(&target, message).await, pauses.next()) {
            (Err(untold), Some(pause)) if untold.may_pass => {
                tracing::debug!(to = name, tries, %untold, "a notification will be tried again");
                sleep(*pause).await;
                tries += 1;
            }
            (told, _) => break told,
        }
    };
    if let Err(untold) = &told {
        tracing::warn!(to = name, tries, event = message.event.id, %untold, "a notification could not be sent");
    }
    tallies.change(name, |tally| {
        tally.waiting = tally.waiting.saturating_sub(1);
        if told.is_ok() { tally.sent += 1 } else { tally.failed += 1 }
    });
}

/// What this node calls itself.
#[must_use]
pub fn node_name() -> String {
    // Absent only where the kernel is asked for less room than it needs.
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
