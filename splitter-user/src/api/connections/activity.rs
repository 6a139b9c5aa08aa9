//! When something was last heard of a connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use hyper::body::Frame;
use tokio::time::Instant;

/// Whoever connects gets so long to say something, however many want in.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// A request that is all there gets so long to be answered: a flip waits up to a second for the disk.
const ANSWER: Duration = Duration::from_secs(2);

/// When something was last heard of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    begun: Instant,
    /// Milliseconds since then.
    heard: AtomicU64,
    answering: AtomicBool,
}

impl Activity {
    /// It begins now.
    pub(super) fn new(begun: Instant) -> Self {
        let activity = Self { begun, heard: AtomicU64::new(0), answering: AtomicBool::new(false) };
        activity.hear();
        activity
    }

    fn hear(&self) {
        self.heard.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long nothing was heard of it; `None`: not so long that it may be cut.
    pub(super) fn silent_for(&self, now: Duration) -> Option<Duration> {
        let silent = now.saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)));
        let limit = if self.answering.load(Ordering::Relaxed) { ANSWER } else { PATIENCE };
        (silent >= limit).then_some(silent)
    }
}

/// Notes each request once all of it is there, and each piece of its answer that the client takes.
pub(super) async fn watch(State(activity): State<Arc<Activity>>, request: Request, next: Next) -> Response {
    activity.hear();
    let request = match request.body().is_end_stream() {
        true => {
            activity.answering.store(true, Ordering::Relaxed);
            request
        }
        false => request.map(|body| Body::new(Given { body, activity: Arc::clone(&activity) })),
    };
    let response = next.run(request).await;
    activity.answering.store(false, Ordering::Relaxed);
    activity.hear();
    response.map(|body| Body::new(Taken { body, activity }))
}

/// A request's body. It's a request with its last octet: who sends it drop by drop is as good as silent.
struct Given {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for Given {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.activity.hear();
            self.activity.answering.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A body whose pieces are noted as they are taken.
struct Taken {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.activity.hear();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_may_be_cut_and_who_is_being_answered_later() {
        let begun = Instant::now();
        let activity = Activity::new(begun);
        assert_eq!(activity.silent_for(begun.elapsed()), None, "just connected");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(activity.silent_for(begun.elapsed()), Some(PATIENCE));
        activity.answering.store(true, Ordering::Relaxed);
        assert_eq!(activity.silent_for(begun.elapsed()), None, "a request is on its way");
        tokio::time::advance(ANSWER).await;
        assert!(activity.silent_for(begun.elapsed()).is_some(), "one that takes too long while others wait");
        activity.hear();
        assert_eq!(activity.silent_for(begun.elapsed()), None);
    }
}
