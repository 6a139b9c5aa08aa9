//! A rollout's step as a text: `100%`, `5% for 15m`, or the ramp `1% to 10% over 30m`. [`Step`] shows itself the same way.

use std::time::Duration;

use super::values;
use crate::model::{ModelError, Step, Weight};

/// The shortest step that has a time at all.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest step, and the longest rollout.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A step without its gate.
pub(super) fn parse(text: &str) -> Result<Step, String> {
    let steady = |weight, lasts| Step { from: None, weight, lasts, gate: None };
    if let Some((from, rest)) = text.split_once(" to ") {
        let Some((to, time)) = rest.split_once(" over ") else {
            return Err(format!("\"{text}\" is a ramp without its time: write it as \"1% to 10% over 30m\""));
        };
        let (from, weight) = (share(from, text)?, share(to, text)?);
        return Ok(Step { from: Some(from), weight, lasts: time_of(time)?, gate: None });
    }
    match text.split_once(" for ") {
        Some((weight, time)) => Ok(steady(share(weight, text)?, time_of(time)?)),
        None => Ok(steady(share(text, text)?, Duration::ZERO)),
    }
}

/// How long a step lasts.
pub(super) fn time_of(text: &str) -> Result<Duration, String> {
    values::parse_duration(text.trim(), SHORTEST..=LONGEST)
}

fn share(weight: &str, step: &str) -> Result<Weight, String> {
    weight.parse().map_err(|why: ModelError| {
        if matches!(why, ModelError::WeightRange { .. } | ModelError::WeightPrecision { .. }) {
            return why.to_string();
        }
        // What was taken for the weight may be the whole text: that is shown, and how a step is written.
        format!("\"{step}\" is not a step: write it as \"5%\", \"5% for 15m\" or \"1% to 10% over 30m\"")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_step_is_written_in_three_ways() {
        let weight = |text: &str| text.parse::<Weight>().expect("a weight");
        let minutes = |n: u64| Duration::from_secs(60 * n);
        for (text, from, to, lasts) in [
            ("100%", None, "100%", Duration::ZERO),
            ("0.01% for 15m", None, "0.01%", minutes(15)),
            (" 5 %  for  1h 30m ", None, "5%", minutes(90)),
            ("1% to 10% over 30m", Some("1%"), "10%", minutes(30)),
            ("0% to 100% over 2h 5m", Some("0%"), "100%", minutes(125)),
        ] {
            let expected = Step { from: from.map(weight), weight: weight(to), lasts, gate: None };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn each_wrong_step_says_what_is_wrong_with_it() {
        let ways = r#"write it as "5%", "5% for 15m" or "1% to 10% over 30m""#;
        for (text, expected) in [
            ("", format!(r#""" is not a step: {ways}"#)),
            ("5", format!(r#""5" is not a step: {ways}"#)),
            ("5% over 10m", format!(r#""5% over 10m" is not a step: {ways}"#)),
            ("5% for", format!(r#""5% for" is not a step: {ways}"#)),
            ("half for 10m", format!(r#""half for 10m" is not a step: {ways}"#)),
            ("1% to all over 10m", format!(r#""1% to all over 10m" is not a step: {ways}"#)),
            ("101% for 10m", "weight `101%` is out of range: use 0% to 100%".to_owned()),
            ("1% to 0.001% over 1h", "weight `0.001%` is finer than 0.01%: use at most two decimals".to_owned()),
            ("1% to 10%", r#""1% to 10%" is a ramp without its time: write it as "1% to 10% over 30m""#.to_owned()),
            (
                "1% to 10% for 30m",
                r#""1% to 10% for 30m" is a ramp without its time: write it as "1% to 10% over 30m""#.to_owned(),
            ),
            ("1% to 10% over 0s", r#""0s" is out of range: use 100ms to 30days"#.to_owned()),
            ("5% for 31d", r#""31d" is out of range: use 100ms to 30days"#.to_owned()),
            (
                "5% for 15",
                r#""15" is not a duration (time unit needed, for example 15sec or 15ms): write it as "250ms", "3s" or "2h""#
                    .to_owned(),
            ),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    fn weight() -> impl Strategy<Value = Weight> {
        (0..=10_000_u16).prop_map(|basis_points| Weight::from_basis_points(basis_points).expect("at most 10,000"))
    }

    fn time() -> impl Strategy<Value = Duration> {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).expect("a month fits");
        (nanoseconds(SHORTEST)..=nanoseconds(LONGEST)).prop_map(Duration::from_nanos)
    }

    fn step() -> impl Strategy<Value = Step> {
        let step = |from, weight, lasts| Step { from, weight, lasts, gate: None };
        prop_oneof![
            weight().prop_map(move |weight| step(None, weight, Duration::ZERO)),
            (weight(), time()).prop_map(move |(weight, lasts)| step(None, weight, lasts)),
            (weight(), weight(), time()).prop_map(move |(from, to, lasts)| step(Some(from), to, lasts)),
        ]
    }

    proptest! {
        #[test]
        fn a_step_reads_what_it_writes(step in step()) {
            prop_assert_eq!(parse(&step.to_string()), Ok(step));
        }

        #[test]
        fn what_is_read_from_any_text_reads_the_same_again(begin in "((0|5|99\\.5)%( to | for | over )){0,3}", end in "([0-9]{1,3}(%|s|m|h)|.{0,8})") {
            let text = format!("{begin}{end}");
            if let Ok(step) = parse(&text) {
                let shown = step.to_string();
                prop_assert_eq!(parse(&shown), Ok(step), "{} from {}", shown, text);
            }
        }
    }
}
