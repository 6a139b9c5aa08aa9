//! What a service must not cross, and what happens when it does.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Existing, Flaw, ModelError, Weight, hundredths};

/// Limits that flip the service when the canary crosses one (`[service.breach]`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Highest share of attempts refused with a RST (`nat`: seen; `dsr`: not visible).
    pub refused: Option<Weight>,
    /// Highest share of completed connections that were reset afterwards.
    pub reset: Option<Weight>,
    /// Highest share of attempts that were not answered in time.
    pub timeout: Option<Weight>,
    /// Fewer attempts in the window are no verdict.
    pub min_attempts: u64,
    /// How far back the ratio looks.
    pub window: Duration,
    /// What happens to established canary connections.
    pub existing: Existing,
}

/// Limits at which the data plane itself sends everything to stable, whether or not an agent runs (`[service.breaker]`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// Highest share of attempts refused (`nat`: seen; `dsr`: not visible).
    pub refused: Option<Weight>,
    /// Highest share of attempts that did not complete within `timeouts.connect`, among those whose time is over.
    pub timeout: Option<Weight>,
    /// Highest share of completed connections that the backend reset afterwards (`nat`).
    pub reset: Option<Weight>,
    /// Most SYNs sent again, per attempt.
    pub retransmit: Option<Weight>,
    /// With fewer samples in the window nothing trips.
    pub min_attempts: u32,
    /// How far back the shares look: at most [`Breaker::MAX_WINDOW`].
    pub window: Duration,
    /// It trips only if the canary's share is also above so many times stable's.
    pub stable_factor: Option<Factor>,
    /// What happens to established canary connections when the agent hears of it.
    pub existing: Existing,
}

impl Breaker {
    /// The longest window that its slots cover well.
    pub const MAX_WINDOW: Duration = Duration::from_secs(300);
}

/// How many times something else, in hundredths: 1 to 100 times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Factor(u16);

impl Factor {
    /// From hundredths, 100 to 10,000.
    #[must_use]
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths >= 100 && hundredths <= 10_000 { Some(Self(hundredths)) } else { None }
    }

    /// In hundredths.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }
}

impl FromStr for Factor {
    type Err = ModelError;

    /// Reads `2x`, `1.5x`, `1.25 x`. Digits alone are refused: `2` may mean 2% or 2 times.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let syntax = || ModelError::FactorSyntax { text: text.to_owned() };
        let range = || ModelError::FactorRange { text: text.to_owned() };
        let number = text.trim().strip_suffix('x').ok_or_else(syntax)?.trim_end();
        let hundredths = hundredths(number).map_err(|flaw| match flaw {
            Flaw::Syntax => syntax(),
            Flaw::Range => range(),
            Flaw::Precision => ModelError::FactorPrecision { text: text.to_owned() },
        })?;
        Self::from_hundredths(hundredths).ok_or_else(range)
    }
}

impl TryFrom<u16> for Factor {
    type Error = &'static str;

    fn try_from(hundredths: u16) -> Result<Self, Self::Error> {
        Self::from_hundredths(hundredths).ok_or("a factor is 1x to 100x")
    }
}

impl From<Factor> for u16 {
    fn from(factor: Factor) -> Self {
        factor.0
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}x"),
            (whole, rest) if rest % 10 == 0 => write!(f, "{whole}.{}x", rest / 10),
            (whole, rest) => write!(f, "{whole}.{rest:02}x"),
        }
    }
}

/// What a service does while the agent is held to be dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLeaseExpiry {
    /// Everything new goes to stable.
    #[default]
    Stable,
    /// The weight stays in force.
    Hold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_reads_what_it_writes_and_each_wrong_one_has_its_own_message() {
        for hundredths in 100..=10_000 {
            let factor = Factor::from_hundredths(hundredths).expect("in range");
            assert_eq!(factor.to_string().parse::<Factor>(), Ok(factor));
        }
        for (text, part) in [
            ("2", "not a factor"),
            ("x", "not a factor"),
            ("2.x", "not a factor"),
            ("-2x", "not a factor"),
            ("0.99x", "out of range"),
            ("100.01x", "out of range"),
            ("70000x", "out of range"),
            ("1.005x", "finer than 0.01x"),
        ] {
            let message = text.parse::<Factor>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
