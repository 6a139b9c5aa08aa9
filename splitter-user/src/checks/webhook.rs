//! What a webhook's answer means. Pure.

use serde::Deserialize;

use super::Trouble;
use crate::{http::Reply, store::Answer};

#[derive(Deserialize)]
struct Said {
    verdict: Verdict,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Fail,
    Wait,
}

/// What it says. Fields that aren't known are passed over.
pub(super) fn answer(reply: &Reply) -> Result<Answer, Trouble> {
    if !reply.status.is_success() {
        return Err(Trouble::status(reply));
    }
    let said: Result<Said, _> = serde_json::from_slice(&reply.body);
    let Said { verdict, reason } =
        said.map_err(|error| Trouble { why: format!("its answer is not a verdict: {error}"), may_pass: false })?;
    let reason = reason.filter(|reason| !reason.trim().is_empty()).unwrap_or_else(|| "no reason given".to_owned());
    Ok(match verdict {
        Verdict::Pass => Answer::Pass { said: reason },
        Verdict::Fail => Answer::Bad { said: reason },
        Verdict::Wait => Answer::NoData { why: format!("it says to wait: {reason}") },
    })
}
