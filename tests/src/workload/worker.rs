//! A thread with a runtime inside a namespace.

use std::{
    future::Future,
    panic,
    thread::{self, JoinHandle},
};

use tokio::sync::watch;

use crate::lab::{LabError, Namespace, Result};

/// A future that runs on a thread of its own inside a namespace.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    stop: watch::Sender<bool>,
    /// `None` once joined.
    thread: Option<JoinHandle<Result<T>>>,
}

/// Tells a worker's tasks when to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Completes once the worker is to stop.
    pub(crate) async fn requested(&mut self) {
        // An error means that the handle is gone, which is a request to stop as well.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn start<F: Future<Output = T>>(
        namespace: &Namespace,
        name: &str,
        body: impl FnOnce(Stop) -> F + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let namespace = namespace.clone();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                namespace.enter_this_thread()?;
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LabError::io("make a runtime"))?;
                Ok(runtime.block_on(body(Stop(stopped))))
            })
            .map_err(LabError::io("start a thread"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Asks it to stop and waits for what it returns.
    pub(crate) fn stop(self) -> Result<T> {
        self.stop.send_replace(true);
        self.join()
    }

    /// Waits for its own end.
    pub(crate) fn join(mut self) -> Result<T> {
        let thread = self.thread.take().expect("a worker is joined once: this consumes it");
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let Some(Err(panicked)) = self.thread.take().map(JoinHandle::join) else { return };
        if !thread::panicking() {
            panic::resume_unwind(panicked);
        }
    }
}
