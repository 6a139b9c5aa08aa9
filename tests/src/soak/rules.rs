//! Whom an event may hurt, and how. Pure.
//!
//! What isn't excused here is a violation: an event that has no excuse may hurt nobody.
//!
//! | event | whom it may hurt |
//! | --- | --- |
//! | server killed | its own established connections; new connections and datagrams that went to it until it's back |
//! | backend's link down, MAC address changed | datagrams of exchanges with that backend: nobody sends those again. TCP does, so nothing else |
//! | node's link down | new connections while no backend can be reached: they are refused. Datagrams |
//! | flipped, reset | the service's canary connections; its UDP exchanges move from the canary to stable |
//! | breaker tripped | new connections to the canaries, which refuse; the canaries are killed for it, so also their own |
//! | every other one | nobody |

use std::{fmt, time::Duration};

use serde::Serialize;
use splitter_user::model::Mode;

use crate::node::{Family, Kind};

/// One service of the soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// What it serves.
    pub kind: Kind,
    /// How packets reach its backends.
    pub mode: Mode,
    /// Its family.
    pub family: Family,
}

impl Served {
    /// Its name, such as `web4-nat`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}-{}", self.kind.service(self.family), self.mode)
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What a client can suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// An established connection broke.
    Broken,
    /// A new connection wasn't answered.
    Failed,
    /// A datagram wasn't.
    Lost,
    /// An exchange moved to another backend.
    Moved,
}

impl Harm {
    /// In words.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Broken => "established connection broken",
            Self::Failed => "new connection not answered",
            Self::Lost => "datagrams not answered",
            Self::Moved => "exchange moved to another backend",
        }
    }
}

/// A harm that a client suffered, somewhen in a span of time since the run's begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffered {
    /// Which.
    pub harm: Harm,
    /// With which service.
    pub service: Served,
    /// With which backend, where that is known.
    pub backend: Option<String>,
    /// Not before this.
    pub from: Duration,
    /// Not after this.
    pub until: Duration,
    /// What the client saw.
    pub why: String,
}

/// What an event may do to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// The event's number.
    pub event: u64,
    /// The harms.
    pub harms: Vec<Harm>,
    /// The services; empty: any.
    pub services: Vec<String>,
    /// The backends; empty: any. A harm whose backend nobody knows may be any's.
    pub backends: Vec<String>,
    /// From when on.
    pub from: Duration,
    /// Until when; `None`: it lasts.
    pub until: Option<Duration>,
}

impl Excuse {
    /// Whether it excuses this.
    #[must_use]
    pub fn covers(&self, suffered: &Suffered) -> bool {
        let is_in = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        self.harms.contains(&suffered.harm)
            && is_in(&self.services, &suffered.service.name())
            && suffered.backend.as_ref().is_none_or(|backend| is_in(&self.backends, backend))
            && suffered.until >= self.from
            && self.until.is_none_or(|until| suffered.from <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Served = Served { kind: Kind::Web, mode: Mode::Nat, family: Family::V4 };
    const ECHO: Served = Served { kind: Kind::Echo, mode: Mode::Dsr, family: Family::V6 };

    #[test]
    fn an_excuse_covers_its_own_harms_services_backends_and_time_and_nothing_else() {
        let excuse = Excuse {
            event: 1,
            harms: vec![Harm::Broken],
            services: vec![ECHO.name()],
            backends: vec!["canary1".into()],
            from: Duration::from_secs(10),
            until: Some(Duration::from_secs(12)),
        };
        let told = Suffered {
            harm: Harm::Broken,
            service: ECHO,
            backend: Some("canary1".into()),
            from: Duration::from_secs(11),
            until: Duration::from_secs(13),
            why: "reset".into(),
        };
        for (what, suffered, covered) in [
            ("its own", told.clone(), true),
            ("nobody knows whose", Suffered { backend: None, ..told.clone() }, true),
            ("another harm", Suffered { harm: Harm::Failed, ..told.clone() }, false),
            ("another service", Suffered { service: WEB, ..told.clone() }, false),
            ("another backend", Suffered { backend: Some("stable1".into()), ..told.clone() }, false),
            ("before", Suffered { from: Duration::from_secs(8), until: Duration::from_secs(9), ..told.clone() }, false),
            ("after", Suffered { from: Duration::from_secs(13), until: Duration::from_secs(14), ..told.clone() }, false),
            ("it may have been then", Suffered { from: Duration::from_secs(1), until: Duration::from_secs(30), ..told }, true),
        ] {
            assert_eq!(excuse.covers(&suffered), covered, "{what}");
        }
        let lasting = Excuse { until: None, services: Vec::new(), backends: Vec::new(), ..excuse };
        let late = Suffered {
            harm: Harm::Broken,
            service: WEB,
            backend: Some("stable2".into()),
            from: Duration::from_secs(99),
            until: Duration::from_secs(99),
            why: String::new(),
        };
        assert!(lasting.covers(&late));
    }

    #[test]
    fn names_tell_what_family_and_mode() {
        assert_eq!([WEB.name(), ECHO.name()], ["web4-nat", "echo6-dsr"]);
    }
}
