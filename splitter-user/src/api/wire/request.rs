//! What clients ask for. Unknown fields are refused: a misspelt one must not be ignored.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{BackendWeight, Cohort, Existing, NetworkList, Weight};

/// `PUT /v1/services/{service}/weight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// The canary's share of new connections.
    pub weight: Weight,
}

/// `POST /v1/services/{service}/flip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlipRequest {
    /// What happens to established canary connections.
    #[serde(default = "keep")]
    pub existing: Existing,
    /// The reason, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// By hand, established connections are left alone unless somebody says otherwise.
const fn keep() -> Existing {
    Existing::Keep
}

/// `POST /v1/services/{service}/backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// What it listens on.
    pub address: SocketAddr,
    /// Where it belongs.
    pub cohort: Cohort,
    /// Its share inside the cohort; 1 if left out.
    #[serde(default = "one")]
    pub weight: BackendWeight,
}

const fn one() -> BackendWeight {
    BackendWeight::ONE
}

/// `PUT /v1/services/{service}/backends/{address}/weight`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackendWeight {
    /// Its share inside the cohort.
    pub weight: BackendWeight,
}

/// `POST /v1/services/{service}/networks`: all of it happens, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkChange {
    /// Which list.
    pub list: NetworkList,
    /// Prefixes to be put in. One that is there already, or in the other list, is a conflict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<IpNet>,
    /// Prefixes to be taken out. One that isn't there is not found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<IpNet>,
}

/// `POST /v1/services/{service}/explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The client's address.
    pub client: IpAddr,
    /// Its port; may be left out with `affinity = "client"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Ask also what would be at this weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Weight>,
}

/// `GET /v1/services/{service}/trace`: the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFilter {
    /// Only clients of this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// End after so many records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// `POST /v1/services/{service}/rollout/promote`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// Leave out all remaining steps: the canary becomes stable now.
    #[serde(default)]
    pub full: bool,
}

/// `POST /v1/services/{service}/rollout/{action}`, where the action has no more to say than its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutWord {
    /// Begin one.
    Start,
    /// Stay at this weight.
    Pause,
    /// Go on.
    Resume,
    /// Open the gate.
    Approve,
    /// Give up.
    Abort,
    /// Take a flip back and begin again with the first step, or begin again after an abort.
    Retry,
}

impl RolloutWord {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Start, Self::Pause, Self::Resume, Self::Approve, Self::Abort, Self::Retry];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }
}

/// What is asked of a service's rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutAction {
    /// What needs no more than its name.
    Word(RolloutWord),
    /// Leave this step, or all that remain.
    Promote(PromoteRequest),
}
