//! What is said to a Prometheus, and what its answer means. Pure.

use std::{cmp::Ordering, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::Trouble;
use crate::{http::Reply, store::Answer};

/// The instant query, in Prometheus and in what speaks like it.
pub(super) const PATH: &str = "/api/v1/query";

/// What the body of a query is.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// The body of a query. The server needn't go on when nobody waits any more.
pub(super) fn form(query: &str, timeout: Duration) -> String {
    let timeout = format!("{}ms", timeout.as_millis().max(1));
    form_urlencoded::Serializer::new(String::new()).append_pair("query", query).append_pair("timeout", &timeout).finish()
}

/// Between what a value has to be; at least one of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    max: Option<f64>,
    min: Option<f64>,
}

/// Limits that say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLimits {
    #[error("it has neither `max` nor `min`")]
    None,
    #[error("`max` or `min` is not a number")]
    NotANumber,
}

impl Limits {
    pub(super) fn new(max: Option<f64>, min: Option<f64>) -> Result<Self, BadLimits> {
        match (max, min) {
            (None, None) => Err(BadLimits::None),
            _ if [max, min].into_iter().flatten().any(f64::is_nan) => Err(BadLimits::NotANumber),
            _ => Ok(Self { max, min }),
        }
    }

    /// What a value means. NaN is no data: it's what 0 requests out of 0 are.
    pub(super) fn judge(self, value: f64) -> Answer {
        if value.is_nan() {
            return Answer::NoData { why: "the query gives NaN: are there no requests yet?".to_owned() };
        }
        if let Some(max) = self.max.filter(|max| value > *max) {
            return Answer::Bad { said: format!("{} is above max {}", beside(value, max), number(max)) };
        }
        if let Some(min) = self.min.filter(|min| value < *min) {
            return Answer::Bad { said: format!("{} is below min {}", beside(value, min), number(min)) };
        }
        let limits = [("min", self.min), ("max", self.max)];
        let limits = limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| format!("{name} {}", number(limit))));
        Answer::Pass { said: format!("{} is within {}", short(value), limits.collect::<Vec<_>>().join(" and ")) }
    }
}

/// The one number of an answer.
pub(super) fn value(reply: &Reply) -> Result<f64, Trouble> {
    let said: Option<Said> = serde_json::from_slice(&reply.body).ok();
    match said {
        Some(Said { status, error, .. }) if status == "error" => {
            let error = error.unwrap_or_else(|| "an error, and not which".to_owned());
            Err(Trouble::of(reply, format_args!("it says: {error}")))
        }
        _ if !reply.status.is_success() => Err(Trouble::status(reply)),
        Some(Said { status, data: Some(data), .. }) if status == "success" => {
            one_number(data).map_err(|why| Trouble { why, may_pass: false })
        }
        Some(_) | None => Err(Trouble { why: "its answer is not a Prometheus's".to_owned(), may_pass: false }),
    }
}

#[derive(Deserialize)]
struct Said {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct Series {
    /// None where it's a histogram.
    value: Option<Sample>,
}

/// A time, and a number as text: JSON knows neither NaN nor an infinity.
type Sample = (f64, String);

fn one_number(data: Data) -> Result<f64, String> {
    let Data { result_type, result } = data;
    let sample = match result_type.as_str() {
        "scalar" => Some(serde_json::from_value(result).map_err(not_understood)?),
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(result).map_err(not_understood)?;
            let several = series.len();
            match <[Series; 1]>::try_from(series) {
                Ok([one]) => one.value,
                Err(_) if several == 0 => return Err("the query gives no series".to_owned()),
                Err(_) => return Err(format!("the query gives {several} series; aggregate them to one, as by sum()")),
            }
        }
        other => return Err(format!("the query gives a {other}, not a number")),
    };
    let (_, text): Sample = sample.ok_or("the query gives a histogram, not a number")?;
    text.parse().map_err(|_| format!("the query gives {text:?}, not a number"))
}

fn not_understood(error: serde_json::Error) -> String {
    format!("its answer is not a Prometheus's: {error}")
}

/// With as many digits as people read; with all of them where it would look like the limit that it's compared with.
fn beside(value: f64, limit: f64) -> String {
    if rounded(value).partial_cmp(&limit) == Some(Ordering::Equal) { number(value) } else { short(value) }
}

fn short(value: f64) -> String {
    number(rounded(value))
}

fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn number(value: f64) -> String {
    let plain = value == 0.0 || (1e-6..1e12).contains(&value.abs());
    if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else if plain {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_against_its_limits_and_the_sentence_says_how() {
        let inf = f64::INFINITY;
        let rows = [
            (0.023, Some(0.01), None, "fails: 0.023 is above max 0.01"),
            (0.01, Some(0.01), None, "passes: 0.01 is within max 0.01"),
            (0.2, None, Some(0.5), "fails: 0.2 is below min 0.5"),
            (0.7, Some(1.0), Some(0.5), "passes: 0.7 is within min 0.5 and max 1"),
            (inf, Some(0.01), None, "fails: +Inf is above max 0.01"),
            (inf, None, Some(0.01), "passes: +Inf is within min 0.01"),
            (-inf, None, Some(0.0), "fails: -Inf is below min 0"),
            (1.0 / 3.0, Some(1.0), None, "passes: 0.3333 is within max 1"),
            (0.010_000_01, Some(0.01), None, "fails: 0.01000001 is above max 0.01"),
            (3e-9, Some(1e-9), None, "fails: 3e-9 is above max 1e-9"),
            (1e300, Some(1e3), None, "fails: 1e300 is above max 1000"),
            (f64::NAN, Some(0.01), None, "no data: the query gives NaN: are there no requests yet?"),
        ];
        for (value, max, min, said) in rows {
            let limits = Limits::new(max, min).expect("limits");
            assert_eq!(limits.judge(value).to_string(), said);
        }
    }

    #[test]
    fn limits_that_nothing_crosses_are_refused() {
        assert_eq!(Limits::new(None, None), Err(BadLimits::None));
        assert_eq!(Limits::new(Some(f64::NAN), None), Err(BadLimits::NotANumber));
        assert_eq!(Limits::new(Some(1.0), Some(f64::NAN)), Err(BadLimits::NotANumber));
    }

    #[test]
    fn a_query_survives_the_form() {
        let body = form("sum(a{b=\"c d\"}) + 1 & é", Duration::from_secs(5));
        let read: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let expected = [("query", "sum(a{b=\"c d\"}) + 1 & é"), ("timeout", "5000ms")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
