//! The task that keeps ways right: carries questions and answers between the kernel and [`State`].

use std::{
    collections::BTreeSet,
    future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout},
};

use super::{
    Ways,
    event::Effect,
    netlink::{Asked, Events, NetlinkError, Requests},
    state::{State, Work},
    way::{Way, WayError},
    window::Window,
};

/// How often to look whether a neighbour is to be asked (again).
const TICK: Duration = Duration::from_secs(1);

/// How long to wait before opening new sockets after an error: first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How a [`Watcher`] works. The defaults are right for an agent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long to gather events before acting on them.
    pub coalesce: Duration,
    /// How often a stale neighbour is confirmed at most. A neighbour that is gone is noticed within about 65 s: up to
    /// 45 s until the kernel calls its entry stale (`base_reachable_time` × 1.5), this interval, 5 s
    /// (`delay_first_probe_time`) and 3 s of asking.
    pub refresh: Duration,
    /// How often everything is looked up again, whatever the events say. Some changes have none, such as a path MTU
    /// that expires.
    pub recheck: Duration,
    /// Size, in bytes, of the socket's buffer for events. When it runs over, everything is looked up again.
    pub event_buffer: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(20),
            refresh: Duration::from_secs(10),
            recheck: Duration::from_secs(30),
            event_buffer: 1 << 20,
        }
    }
}

/// Keeps the ways to a set of destinations right, in a task of its own.
///
/// See the [module's documentation](super) for what it does and when. Dropping it ends the task; [`Watcher::stop`] also
/// waits for that.
#[derive(Debug)]
pub struct Watcher {
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    ways: watch::Receiver<Arc<Ways>>,
    task: JoinHandle<()>,
}

/// One destination's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where to.
    pub destination: IpAddr,
    /// How, or why not.
    pub way: Result<Way, WayError>,
}

/// Follows a [`Watcher`]'s changes.
///
/// A slow reader misses no last value and makes nobody wait: what changes more than once between two calls of
/// [`Changes::next`] is told once, and what changes back is not told.
#[derive(Debug)]
pub struct Changes {
    ways: watch::Receiver<Arc<Ways>>,
    seen: Arc<Ways>,
}

impl Watcher {
    /// Opens the sockets and starts the task on the current tokio runtime.
    ///
    /// The sockets belong to the network namespace of the thread that calls this, and, if they must be opened anew after
    /// an error, of the thread that the task runs on then. All threads of an agent are in one namespace; a program that
    /// uses several needs a single-threaded runtime in a thread that stays in its namespace.
    ///
    /// # Errors
    ///
    /// When there are no sockets to be had. Later errors are logged, and overcome by opening new sockets; meanwhile the
    /// ways stay as they were.
    pub fn start(settings: Settings) -> Result<Self, NetlinkError> {
        let session = Session::open(&settings)?;
        Ok(Self::with(session, settings))
    }

    fn with(session: Session, settings: Settings) -> Self {
        let (wanted, wanted_by_task) = watch::channel(BTreeSet::new());
        let (publish, ways) = watch::channel(Arc::new(Ways::new()));
        let task = Task {
            state: State::new(settings.refresh),
            lookups: Window::new(settings.coalesce),
            conclusions: Window::new(settings.coalesce),
            settings,
            wanted: wanted_by_task,
            publish,
        };
        Self { wanted, ways, task: tokio::spawn(task.run(session)) }
    }

    /// Replaces the set of destinations. Those that stay keep their ways; those that go are forgotten, without a change
    /// being told.
    pub fn watch(&self, destinations: BTreeSet<IpAddr>) {
        self.wanted.send_replace(destinations);
    }

    /// What is known now. A destination is missing until its route was looked up for the first time.
    pub fn ways(&self) -> Arc<Ways> {
        self.ways.borrow().clone()
    }

    /// The changes from now on; the first are those from nothing to what is known already.
    pub fn changes(&self) -> Changes {
        let mut ways = self.ways.clone();
        ways.mark_changed();
        Changes { ways, seen: Arc::default() }
    }

    /// Waits until every destination has a way or a definite reason why not, but `limit` at most; then says what is
    /// known. A neighbour that is not there takes the kernel 3 s to give up.
    pub async fn settled(&self, limit: Duration) -> Arc<Ways> {
        let wanted = self.wanted.borrow().clone();
        let mut ways = self.ways.clone();
        let all = ways.wait_for(|ways| {
            wanted.iter().all(|destination| match ways.get(destination) {
                Some(Ok(_)) => true,
                Some(Err(error)) => !error.is_pending(),
                None => false,
            })
        });
        match timeout(limit, all).await {
            Ok(Ok(ways)) => ways.clone(),
            // Out of time, or out of a task: what there is.
            Ok(Err(_)) | Err(_) => self.ways(),
        }
    }

    /// Whether the task has come to an end that nobody asked for (a panic: there is no other).
    pub fn is_dead(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the task and waits for its end, which a round of lookups can delay, but no timer.
    pub async fn stop(self) {
        let Self { wanted, ways, task } = self;
        drop((wanted, ways));
        if let Err(error) = task.await {
            tracing::error!(%error, "the task that follows routes and neighbours ended badly");
        }
    }
}

impl Changes {
    /// The next changes, all that there are; `None` when the watcher has ended.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            self.ways.changed().await.ok()?;
            let now = self.ways.borrow_and_update().clone();
            let changes: Vec<Change> = now
                .iter()
                .filter(|(destination, way)| self.seen.get(destination) != Some(way))
                .map(|(destination, way)| Change { destination: *destination, way: way.clone() })
                .collect();
            self.seen = now;
            if !changes.is_empty() {
                return Some(changes);
            }
        }
    }
}

struct Session {
    requests: Requests,
    events: Events,
}

impl Session {
    fn open(settings: &Settings) -> Result<Self, NetlinkError> {
        // Listening comes first, so that nothing can change unseen between the first look and the first event.
        let events = Events::open(settings.event_buffer)?;
        Ok(Self { requests: Requests::open()?, events })
    }
}

struct Task {
    state: State,
    /// Until when to gather events that ask for lookups.
    lookups: Window,
    /// Until when to gather events that say themselves what changed (neighbours). Apart from the other, so that a new
    /// MAC address need not wait while lookups rest.
    conclusions: Window,
    settings: Settings,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    publish: watch::Sender<Arc<Ways>>,
}

/// Why a session ended without an error: nobody holds the [`Watcher`] any more.
struct Abandoned;

impl Task {
    async fn run(mut self, first: Session) {
        let mut session = Some(first);
        let (least, most) = BACKOFF;
        let mut pause = least;
        loop {
            let began = Instant::now();
            let outcome = match session.take().map_or_else(|| Session::open(&self.settings), Ok) {
                Ok(session) => self.follow(session).await,
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(Abandoned) => return,
                Err(error) => error,
            };
            if began.elapsed() > most {
                pause = least;
            }
            tracing::warn!(%error, retry_in = ?pause, "lost sight of routes and neighbours; what is known stays in use");
            tokio::select! {
                () = sleep(pause) => {}
                Abandoned = abandoned(&mut self.wanted) => return,
            }
            pause = (pause * 2).min(most);
        }
    }

    /// Follows the kernel until an error, or until nobody is interested.
    async fn follow(&mut self, mut session: Session) -> Result<Abandoned, NetlinkError> {
        self.take_wanted();
        self.state.note(&Effect::Everything);
        self.look(&mut session).await?;

        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recheck = interval_at(tokio::time::Instant::now() + self.settings.recheck, self.settings.recheck);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wanted = self.wanted.changed() => {
                    if wanted.is_err() {
                        return Ok(Abandoned);
                    }
                    self.take_wanted();
                    self.look(&mut session).await?;
                }
                effect = session.events.next() => self.note(&effect.ok_or(NetlinkError::Closed)?),
                () = at(self.lookups.due()) => self.look(&mut session).await?,
                () = at(self.conclusions.due()) => self.conclude(&mut session).await?,
                _ = tick.tick() => self.ask(&session.requests).await?,
                _ = recheck.tick() => self.note(&Effect::Everything),
            }
        }
    }

    fn take_wanted(&mut self) {
        self.state.want(&self.wanted.borrow_and_update());
    }

    fn note(&mut self, effect: &Effect) {
        match self.state.note(effect) {
            Work::Nothing => {}
            Work::Conclude => self.conclusions.event(Instant::now()),
            Work::LookUp => self.lookups.event(Instant::now()),
        }
    }

    /// Fetches what is due and draws the conclusions.
    ///
    /// A socket that breaks in the middle of a dump looks like a dump's end. The routes come last because of that: where
    /// there is a destination, one of them fails then, and nothing is concluded from half a dump.
    async fn look(&mut self, session: &mut Session) -> Result<(), NetlinkError> {
        let started = Instant::now();
        if self.state.due().table {
            self.state.set_table(session.requests.table().await?);
        }
        if self.state.due().interfaces {
            self.state.set_interfaces(session.requests.interfaces().await?);
        }
        while let Some(destination) = self.state.due().routes.first().copied() {
            let lookup = session.requests.route(destination).await?;
            self.state.set_route(destination, &lookup);
        }
        self.lookups.acted(started, Instant::now());
        self.conclude(session).await
    }

    /// Tells what changed, and has the kernel ask what it doesn't know.
    async fn conclude(&mut self, session: &mut Session) -> Result<(), NetlinkError> {
        let started = Instant::now();
        // The kernel deletes a neighbour by declaring it failed and then removing it (neigh_delete()): two events, of
        // which only the second is the truth. Whatever is here already is taken in before anything is concluded.
        while let Some(effect) = session.events.waiting() {
            self.note(&effect.ok_or(NetlinkError::Closed)?);
        }
        self.conclusions.acted(started, Instant::now());
        self.publish();
        self.ask(&session.requests).await
    }

    async fn ask(&mut self, requests: &Requests) -> Result<(), NetlinkError> {
        let asks = self.state.asks(Instant::now());
        if asks.is_empty() {
            return Ok(());
        }
        for ask in asks {
            let asked = requests.ask(ask).await?;
            self.state.asked(ask.key, asked == Asked::TableFull, Instant::now());
        }
        // A full table is a reason of its own.
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let ways = self.state.conclude();
        self.publish.send_if_modified(|published| {
            let differs = **published != ways;
            if differs {
                *published = Arc::new(ways);
            }
            differs
        });
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => future::pending().await,
    }
}

async fn abandoned(wanted: &mut watch::Receiver<BTreeSet<IpAddr>>) -> Abandoned {
    while wanted.changed().await.is_ok() {}
    Abandoned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_its_sockets_broke_the_watcher_goes_on_with_new_ones() {
        for broken in [Socket::Events, Socket::Requests] {
            let settings = Settings::default();
            let mut session = Session::open(&settings).expect("sockets");
            session.breaks(broken).await;
            let watcher = Watcher::with(session, settings);
            let loopback = IpAddr::from([127, 0, 0, 1]);
            watcher.watch([loopback].into());
            let ways = watcher.settled(Duration::from_secs(10)).await;
            assert_eq!(ways.get(&loopback), Some(&Err(WayError::LocalDestination { destination: loopback })));
            // The broken session could answer the first question; it takes a new one to answer the second.
            tokio::time::sleep(BACKOFF.0 / 2).await;
            let multicast = IpAddr::from([224, 0, 0, 1]);
            watcher.watch([multicast].into());
            let ways = watcher.settled(Duration::from_secs(10)).await;
            assert!(ways.contains_key(&multicast), "{ways:?}");
            watcher.stop().await;
        }
    }

    #[tokio::test]
    async fn a_watcher_without_sockets_can_be_stopped() {
        let settings = Settings::default();
        let mut session = Session::open(&settings).expect("sockets");
        session.breaks(Socket::Events).await;
        let watcher = Watcher::with(session, settings);
        tokio::task::yield_now().await;
        timeout(Duration::from_secs(5), watcher.stop()).await.expect("its end");
    }

    #[derive(Clone, Copy)]
    enum Socket {
        Events,
        Requests,
    }

    impl Session {
        async fn breaks(&mut self, socket: Socket) {
            match socket {
                Socket::Events => self.events.break_off().await,
                Socket::Requests => self.requests.break_off().await,
            }
        }
    }
}
