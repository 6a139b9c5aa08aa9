//! Where ways come from: the kernel, or a test.

use std::{collections::BTreeSet, future::Future, net::IpAddr, sync::Arc, time::Duration};

use crate::neighbor::{Changes, Watcher, Ways};

/// Follows the ways to a set of destinations.
pub trait WaySource: Send + 'static {
    /// Replaces the set.
    fn watch(&self, destinations: BTreeSet<IpAddr>);

    /// What is known now.
    fn ways(&self) -> Arc<Ways>;

    /// Waits until every destination has a way or a definite reason why not, but `limit` at most; then says what is known.
    fn settled(&self, limit: Duration) -> impl Future<Output = Arc<Ways>> + Send;

    /// Ready when something has changed; nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Nobody follows any more.
    fn changed(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Ends it.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Whoever followed routes and neighbours has ended.
#[derive(Debug)]
pub struct Lost;

/// The kernel's.
#[derive(Debug)]
pub struct Kernel {
    watcher: Watcher,
    changes: Changes,
}

impl From<Watcher> for Kernel {
    fn from(watcher: Watcher) -> Self {
        Self { changes: watcher.changes(), watcher }
    }
}

impl WaySource for Kernel {
    fn watch(&self, destinations: BTreeSet<IpAddr>) {
        self.watcher.watch(destinations);
    }

    fn ways(&self) -> Arc<Ways> {
        self.watcher.ways()
    }

    async fn settled(&self, limit: Duration) -> Arc<Ways> {
        self.watcher.settled(limit).await
    }

    async fn changed(&mut self) -> Result<(), Lost> {
        // Which ones doesn't matter: all that is known goes into the data plane as a whole.
        self.changes.next().await.map(drop).ok_or(Lost)
    }

    async fn stop(self) {
        drop(self.changes);
        self.watcher.stop().await;
    }
}
