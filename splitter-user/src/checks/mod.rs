//! Checks: what the application knows better, asked of a Prometheus or of a webhook. What each outcome means stands in `docs/rollouts-checks.md`.
//!
//! An answer that isn't understood is no answer: absence of data is a verdict of its own ([`Answer::NoData`]), never a pass and never a breach.

mod promql;
mod schedule;
mod webhook;

#[cfg(test)]
mod tests;

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;
use serde::Serialize;

pub use schedule::{NAME, Said, Wanted, run};

use crate::{
    http::{Address, BadAddress, Client, Failure, Post, Reply, one_line},
    model::{Check, Probe},
    store::Answer,
};

/// What a rollout is at, as a webhook is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Context {
    /// The service.
    pub service: String,
    /// The rollout's number.
    pub rollout: u64,
    /// The step, counted from 1.
    pub step: usize,
    /// How many there are.
    pub of: usize,
    /// The canary's share, in hundredths of a percent.
    pub weight_bp: u16,
    /// The check.
    pub check: String,
    /// What became of the canary's connections in this step.
    pub canary: Counts,
    /// The same of stable's.
    pub stable: Counts,
}

/// A cohort's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those whose outcome is known.
    pub attempts: u64,
    /// Refused or timed out.
    pub failed: u64,
}

/// Whoever can answer a check: the network, or a test.
pub trait Ask: Send + Sync + 'static {
    /// Asks once, retries included.
    fn ask(&self, check: &Check, context: &Context) -> impl Future<Output = Answer> + Send;
}

impl Ask for Client {
    fn ask(&self, check: &Check, context: &Context) -> impl Future<Output = Answer> + Send {
        ask(self, check, context)
    }
}

/// Asks a check, again where that may help, and says what came of it; within [`longest`]. The answer is one line, and nothing of it is secret.
pub async fn ask(client: &Client, check: &Check, context: &Context) -> Answer {
    let request = match request(check, context) {
        Ok(request) => request,
        Err(why) => return Answer::NoData { why: format!("cannot be asked: {why}") },
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let trouble = match once(client, check, &request).await {
            Ok(answer) => return in_one_line(answer),
            Err(trouble) => trouble,
        };
        if tries <= check.retries && trouble.may_pass {
            tokio::time::sleep(pause(tries)).await;
            continue;
        }
        let tried = if tries == 1 { String::new() } else { format!(" (tried {tries} times)") };
        return in_one_line(Answer::NoData { why: format!("{}: {}{tried}", request.to, trouble.why) });
    }
}

/// How long a check takes at most, from the question to the answer.
#[must_use]
pub fn longest(check: &Check) -> Duration {
    let tries = check.timeout.saturating_mul(check.retries.saturating_add(1));
    // From here on they are the longest.
    const GROWING: u32 = 4;
    let growing = (1..=check.retries.min(GROWING)).map(pause).sum::<Duration>();
    let rest = LONGEST_PAUSE.saturating_mul(check.retries.saturating_sub(GROWING));
    tries.saturating_add(growing).saturating_add(rest)
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Before another try, after so many.
fn pause(tries: u32) -> Duration {
    SHORTEST_PAUSE.saturating_mul(1 << (tries - 1).min(10)).min(LONGEST_PAUSE)
}

/// What is sent, each time the same.
struct Request {
    to: Address,
    content_type: &'static str,
    body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// Another try may fare better.
    may_pass: bool,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { may_pass: failure.may_pass(), why: failure.to_string() }
    }
}

impl Trouble {
    /// What was answered isn't what was asked for.
    fn of(reply: &Reply, why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), may_pass: reply.may_pass() }
    }

    /// The answer's status says it all.
    fn status(reply: &Reply) -> Self {
        let redirect = if reply.status.is_redirection() { ", and redirects are not followed" } else { "" };
        Self::of(reply, format_args!("it answered {}{redirect}", reply.status))
    }
}

fn request(check: &Check, context: &Context) -> Result<Request, BadRequest> {
    match &check.probe {
        Probe::PromQl { url, query, max, min } => {
            promql::Limits::new(*max, *min)?;
            let to = Address::parse(url)?.join(promql::PATH)?;
            Ok(Request { to, content_type: promql::FORM, body: promql::form(query, check.timeout).into() })
        }
        Probe::Webhook { url } => {
            let body = serde_json::to_vec(context)?;
            Ok(Request { to: Address::parse(url)?, content_type: "application/json", body: body.into() })
        }
    }
}

/// Why a check can't be asked at all.
#[derive(Debug, thiserror::Error)]
enum BadRequest {
    #[error("its url: {0}")]
    Url(#[from] BadAddress),
    #[error(transparent)]
    Limits(#[from] promql::BadLimits),
    #[error("what it's told is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

async fn once(client: &Client, check: &Check, request: &Request) -> Result<Answer, Trouble> {
    let post = Post {
        to: &request.to,
        content_type: request.content_type,
        body: request.body.clone(),
        token_file: check.token_file.as_deref(),
        timeout: check.timeout,
    };
    meaning(check, &client.post(&post).await?)
}

/// What an answer means to a check. Pure; what isn't understood is no data.
#[must_use]
pub fn understand(check: &Check, reply: &Reply) -> Answer {
    in_one_line(meaning(check, reply).unwrap_or_else(|trouble| Answer::NoData { why: trouble.why }))
}

fn meaning(check: &Check, reply: &Reply) -> Result<Answer, Trouble> {
    match &check.probe {
        Probe::PromQl { max, min, .. } => {
            let value = promql::value(reply)?;
            let limits = promql::Limits::new(*max, *min).map_err(|error| Trouble { why: error.to_string(), may_pass: false })?;
            Ok(limits.judge(value))
        }
        Probe::Webhook { .. } => webhook::answer(reply),
    }
}

fn in_one_line(answer: Answer) -> Answer {
    match answer {
        Answer::Pass { said } => Answer::Pass { said: one_line(&said) },
        Answer::Bad { said } => Answer::Bad { said: one_line(&said) },
        Answer::NoData { why } => Answer::NoData { why: one_line(&why) },
    }
}
