//! The words of the domain as types: what a configuration means once it was read, and what commands speak of.
//!
//! Nothing here knows a file format, a clock or the kernel. Every type is made only through a constructor that
//! refuses what it cannot mean, so a value in hand is a valid one.

mod limits;
mod rollout;

use std::{collections::BTreeSet, fmt, net::SocketAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
pub use limits::{Breach, Breaker, Factor, OnLeaseExpiry};
pub use rollout::{Check, Compare, Gate, Notify, NotifyTo, OnBreach, OnDeadline, OnNoData, Plan, Probe, Step};
use serde::{Deserialize, Serialize};

/// What clients connect to, by the name that the user gave it: letters, digits, `-`, `_` and `.`, at most 63 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// The longest name, in octets.
    pub const MAX_LENGTH: usize = 63;

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = ModelError;

    fn try_from(name: String) -> Result<Self, ModelError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > Self::MAX_LENGTH || !name.chars().all(allowed) {
            return Err(ModelError::ServiceName { name });
        }
        Ok(Self(name))
    }
}

impl FromStr for ServiceName {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        Self::try_from(name.to_owned())
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> String {
        name.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Destination and source are rewritten; replies come back through the node.
    #[default]
    Nat,
    /// The MAC address is rewritten; the backend holds the service address and answers the client itself.
    Dsr,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Dsr => "dsr",
        })
    }
}

/// What of a client finds its place in hash space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Address and port: every connection for itself.
    #[default]
    Connection,
    /// The address alone: one client, one cohort, one backend.
    Client,
}

/// A set of backends of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cohort {
    /// The version in service.
    Stable,
    /// The version on trial.
    Canary,
}

impl Cohort {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Stable, Self::Canary];

    /// The word, as a metric's label and in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Cohort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The canary's share of new connections, in hundredths of a percent (basis points): 0 to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Weight(u16);

impl Weight {
    /// Nothing to the canary.
    pub const ZERO: Self = Self(0);
    /// Everything to the canary.
    pub const ALL: Self = Self(10_000);

    /// # Errors
    /// More than 10,000 basis points.
    pub fn from_basis_points(basis_points: u16) -> Result<Self, ModelError> {
        if basis_points > Self::ALL.0 {
            return Err(ModelError::WeightRange { text: format!("{}%", f64::from(basis_points) / 100.0) });
        }
        Ok(Self(basis_points))
    }

    /// Hundredths of a percent.
    #[must_use]
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// As a fraction of one.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// What is wrong with a number that is to be one of hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// It isn't a number.
    Syntax,
    /// It has more than two decimals.
    Precision,
    /// It's too large.
    Range,
}

/// Reads `5`, `0.25`, `1.5` as hundredths.
fn hundredths(number: &str) -> Result<u16, Flaw> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(Flaw::Syntax);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 2 {
        return Err(Flaw::Precision);
    }
    let whole: u16 = whole.parse().map_err(|_| Flaw::Range)?;
    let fraction: u16 = format!("{fraction:0<2}").parse().map_err(|_| Flaw::Syntax)?;
    whole.checked_mul(100).and_then(|whole| whole.checked_add(fraction)).ok_or(Flaw::Range)
}

impl FromStr for Weight {
    type Err = ModelError;

    /// Reads `5%`, `0.01%`, `100 %`. Digits alone are refused: `5` may mean 5% or everything.
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let syntax = || ModelError::WeightSyntax { text: text.to_owned() };
        let range = || ModelError::WeightRange { text: text.to_owned() };
        let trimmed = text.trim();
        let number = trimmed.strip_suffix('%').ok_or_else(syntax)?.trim_end();
        if let Some(positive) = number.strip_prefix('-') {
            return Err(if positive.parse::<f64>().is_ok() { range() } else { syntax() });
        }
        let basis_points = hundredths(number).map_err(|flaw| match flaw {
            Flaw::Syntax => syntax(),
            Flaw::Range => range(),
            Flaw::Precision => ModelError::WeightPrecision { text: text.to_owned() },
        })?;
        Self::from_basis_points(basis_points).map_err(|_| range())
    }
}

impl TryFrom<String> for Weight {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<Weight> for String {
    fn from(weight: Weight) -> String {
        weight.to_string()
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        let text = match hundredths {
            0 => format!("{whole}%"),
            tenths if tenths % 10 == 0 => format!("{whole}.{}%", tenths / 10),
            _ => format!("{whole}.{hundredths:02}%"),
        };
        f.pad(&text)
    }
}

/// What a flip does to established canary connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// They go on until they end by themselves.
    Keep,
    /// The client gets a RST with its next packet and reconnects to stable.
    Reset,
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        })
    }
}

/// The two lists of networks of a service, whose clients aren't left to their place in hash space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkList {
    /// Clients of these networks always get the canary.
    AlwaysCanary,
    /// Clients of these networks never get the canary.
    NeverCanary,
}

impl NetworkList {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::AlwaysCanary, Self::NeverCanary];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::AlwaysCanary => Self::NeverCanary,
            Self::NeverCanary => Self::AlwaysCanary,
        }
    }

    /// The word, in output and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysCanary => "always-canary",
            Self::NeverCanary => "never-canary",
        }
    }
}

impl fmt::Display for NetworkList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A backend's share inside its cohort, relative to its neighbours': 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BackendWeight(u16);

impl BackendWeight {
    /// The weight of a backend that names none.
    pub const ONE: Self = Self(1);
    /// The largest.
    pub const MAX: u16 = 1_000;

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for BackendWeight {
    type Error = ModelError;

    fn try_from(weight: u32) -> Result<Self, ModelError> {
        u16::try_from(weight).ok().filter(|w| (1..=Self::MAX).contains(w)).map(Self).ok_or(ModelError::BackendWeight { weight })
    }
}

impl From<BackendWeight> for u32 {
    fn from(weight: BackendWeight) -> u32 {
        u32::from(weight.0)
    }
}

/// One backend as it is asked for. Its identity is its address inside its service: a backend can't be in both cohorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Address and port that it listens on.
    pub address: SocketAddr,
    /// The version it runs.
    pub cohort: Cohort,
    /// Its share inside the cohort.
    pub weight: BackendWeight,
    /// Gets no new connections; those it has go on.
    pub draining: bool,
}

/// How long the data plane remembers a connection that is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// An attempt that has not completed by then has failed (`timeout` in a breach's limits).
    pub connect: Duration,
    /// An established TCP connection without a packet.
    pub established: Duration,
    /// A UDP exchange without a packet.
    pub udp: Duration,
    /// A TCP connection after FIN or RST.
    pub closing: Duration,
}

impl Timeouts {
    /// The longest that the data plane's clock can tell.
    pub const MAX: Duration = Duration::from_secs(4 * 3600);
    /// The longest that an attempt may take: its clock is finer, and tells less far.
    pub const MAX_CONNECT: Duration = Duration::from_secs(120);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            established: Duration::from_secs(2 * 3600),
            udp: Duration::from_secs(120),
            closing: Duration::from_secs(30),
        }
    }
}

/// One service as it is asked for: configuration and commands together.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its protocol.
    pub protocol: Protocol,
    /// The virtual address and port that clients connect to.
    pub address: SocketAddr,
    /// How its packets reach the backends.
    pub mode: Mode,
    /// What of a client finds its place in hash space.
    pub affinity: Affinity,
    /// The canary's share of new connections, asked for.
    pub weight: Weight,
    /// Its backends, both cohorts; every address once.
    pub backends: Vec<Backend>,
    /// Networks whose clients always get the canary.
    pub always_canary: BTreeSet<IpNet>,
    /// Networks whose clients never get the canary.
    pub never_canary: BTreeSet<IpNet>,
    /// When silent connections are forgotten.
    pub timeouts: Timeouts,
    /// Limits that flip it.
    pub breach: Option<Breach>,
    /// Limits at which the data plane flips it.
    pub breaker: Option<Breaker>,
    /// How a rollout of it goes.
    pub rollout: Option<Plan>,
    /// What it does while no agent lives.
    pub on_lease_expiry: OnLeaseExpiry,
    /// The secret that keys its hash; `None`: the agent makes one and keeps it.
    pub seed: Option<Seed>,
}

impl Service {
    /// One of its two lists of networks.
    #[must_use]
    pub const fn networks(&self, list: NetworkList) -> &BTreeSet<IpNet> {
        match list {
            NetworkList::AlwaysCanary => &self.always_canary,
            NetworkList::NeverCanary => &self.never_canary,
        }
    }

    /// One of its two lists of networks, to be changed.
    pub const fn networks_mut(&mut self, list: NetworkList) -> &mut BTreeSet<IpNet> {
        match list {
            NetworkList::AlwaysCanary => &mut self.always_canary,
            NetworkList::NeverCanary => &mut self.never_canary,
        }
    }
}

/// The secret that keys a service's hash: 128 bits, written as 32 hexadecimal digits. Nodes that share it agree on every connection.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seed(pub [u64; 2]);

impl Seed {
    /// The key that the data plane hashes with: a seed that a person has made up keys as well as one by `openssl rand`, and no two seeds give one key.
    #[must_use]
    pub const fn key(self) -> [u64; 2] {
        // SplitMix64's finaliser (Steele, Lea, Flood 2014), each step of which can be undone.
        const fn mix(word: u64) -> u64 {
            let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ word >> 31
        }
        let first = mix(self.0[0] ^ Self::FIRST);
        let second = mix(self.0[1].wrapping_add(first) ^ Self::SECOND);
        [mix(first ^ second), second]
    }

    /// The seed that has this key.
    #[must_use]
    pub const fn of_key([first, second]: [u64; 2]) -> Self {
        /// The finaliser's steps backwards, by the multipliers' inverses.
        const fn unmix(word: u64) -> u64 {
            let word = (word ^ word >> 31 ^ word >> 62).wrapping_mul(0x3196_42b2_d24d_8ec3);
            let word = (word ^ word >> 27 ^ word >> 54).wrapping_mul(0x96de_1b17_3f11_9089);
            word ^ word >> 30 ^ word >> 60
        }
        let first = unmix(first) ^ second;
        let low = (unmix(second) ^ Self::SECOND).wrapping_sub(first);
        Self([unmix(first) ^ Self::FIRST, low])
    }

    const FIRST: u64 = 0x243f_6a88_85a3_08d3;
    const SECOND: u64 = 0x1319_8a2e_0370_7344;
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

impl TryFrom<String> for Seed {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        if text.len() != 32 || !text.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(ModelError::Seed);
        }
        let half = |s: &str| u64::from_str_radix(s, 16).map_err(|_| ModelError::Seed);
        Ok(Self([half(&text[..16])?, half(&text[16..])?]))
    }
}

impl From<Seed> for String {
    fn from(Seed([high, low]): Seed) -> String {
        format!("{high:016x}{low:016x}")
    }
}

/// A value that can't mean anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A service's name.
    #[error("`{name}` is not a service name: use 1 to 63 letters, digits, `-`, `_` or `.`")]
    ServiceName {
        /// As written.
        name: String,
    },
    /// A weight that isn't a percentage.
    #[error("`{text}` is not a weight: write a percentage such as `5%` or `0.25%`")]
    WeightSyntax {
        /// As written.
        text: String,
    },
    /// A weight outside 0% to 100%.
    #[error("weight `{text}` is out of range: use 0% to 100%")]
    WeightRange {
        /// As written.
        text: String,
    },
    /// A weight finer than 0.01%.
    #[error("weight `{text}` is finer than 0.01%: use at most two decimals")]
    WeightPrecision {
        /// As written.
        text: String,
    },
    /// A backend's weight.
    #[error("backend weight {weight} is out of range: use 1 to 1000; to take a backend out of use, drain or remove it")]
    BackendWeight {
        /// As given.
        weight: u32,
    },
    /// A factor that isn't one.
    #[error("`{text}` is not a factor: write how many times as much, such as `2x` or `1.5x`")]
    FactorSyntax {
        /// As written.
        text: String,
    },
    /// A factor outside 1x to 100x.
    #[error("factor `{text}` is out of range: use 1x to 100x")]
    FactorRange {
        /// As written.
        text: String,
    },
    /// A factor finer than 0.01x.
    #[error("factor `{text}` is finer than 0.01x: use at most two decimals")]
    FactorPrecision {
        /// As written.
        text: String,
    },
    /// A hash seed.
    #[error("a seed is 32 hexadecimal digits; make one with `openssl rand -hex 16`")]
    Seed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_reads_what_it_writes() {
        for basis_points in 0..=10_000 {
            let weight = Weight::from_basis_points(basis_points).expect("in range");
            assert_eq!(weight.to_string().parse::<Weight>(), Ok(weight));
        }
    }

    #[test]
    fn each_wrong_weight_has_its_own_message() {
        for (text, part) in [
            ("101%", "out of range"),
            ("-1%", "out of range"),
            ("100.01%", "out of range"),
            ("99999999999%", "out of range"),
            ("abc", "not a weight"),
            ("5", "not a weight"),
            ("%", "not a weight"),
            ("-%", "not a weight"),
            ("1.%", "not a weight"),
            ("1e1%", "not a weight"),
            ("+5%", "not a weight"),
            ("0.001%", "finer than 0.01%"),
        ] {
            let message = text.parse::<Weight>().expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert_eq!("0.010%".parse::<Weight>().map(Weight::basis_points), Ok(1));
        assert_eq!(" 12.5 % ".parse::<Weight>().map(Weight::basis_points), Ok(1_250));
    }

    #[test]
    fn seeds_that_people_make_up_key_like_any_other() {
        let near = |bits: u32| (16..=48).contains(&bits);
        for low in 0..1_000 {
            let [one, other] = [Seed([0, low]).key(), Seed([0, low + 1]).key()];
            assert!(near((one[0] ^ other[0]).count_ones()) && near((one[1] ^ other[1]).count_ones()), "{low}");
            let [one, other] = [Seed([low, 0]).key(), Seed([low + 1, 0]).key()];
            assert!(near((one[0] ^ other[0]).count_ones()) && near((one[1] ^ other[1]).count_ones()), "{low}");
        }
        // What is multiplied with must not be small.
        assert!(Seed([0, 0]).key().iter().all(|half| near(half.count_ones())));
    }

    proptest::proptest! {
        #[test]
        fn a_key_tells_its_seed(seed: [u64; 2]) {
            proptest::prop_assert!(Seed::of_key(Seed(seed).key()) == Seed(seed));
        }
    }

    #[test]
    fn a_seed_reads_what_it_writes_and_is_never_shown() {
        let seed = Seed([0x0123_4567_89ab_cdef, 42]);
        assert_eq!(Seed::try_from(String::from(seed)), Ok(seed));
        assert_eq!(format!("{seed:?}"), "Seed(secret)");
        assert_eq!(Seed::try_from("é".repeat(16)), Err(ModelError::Seed));
    }
}
