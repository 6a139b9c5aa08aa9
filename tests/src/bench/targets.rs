//! The figures to reach.

use super::report::{Cost, Wire};

/// Nanoseconds that a thousand services may cost more than one.
const THOUSAND_SERVICES: f64 = 2.0;

/// How a row stands to its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The most that the row may say.
    pub ns: f64,
    /// Whether it says no more.
    pub reached: bool,
}

/// The target of a row among these.
#[must_use]
pub fn of(row: &Cost, all: &[Cost]) -> Option<Target> {
    let ns = if row.services > 1 { beside_one_service(row, all)? } else { by_itself(row)? };
    Some(Target { ns, reached: row.ns <= ns })
}

/// With many services it costs what it costs with one, and little more.
fn beside_one_service(row: &Cost, all: &[Cost]) -> Option<f64> {
    let is_one = |other: &&Cost| other.case == row.case && other.flows == row.flows && other.services == 1;
    // Many flows to many services touch so many counters and records more; what is promised is about the table of services.
    (row.flows == 1).then(|| all.iter().find(is_one))?.map(|one| one.ns + THOUSAND_SERVICES)
}

fn by_itself(row: &Cost) -> Option<f64> {
    let parts: Vec<_> = row.case.split('-').collect();
    match (parts.as_slice(), row.flows) {
        (["not", "ours", ..], 1) => Some(5.0),
        (["dsr", "v4", "tcp", "established"], 1) => Some(10.0),
        (["dsr", "v6", _, "established"], 1) => Some(14.0),
        (["nat", _, _, "established" | "reply"], 1) => Some(18.0),
        (["dsr", _, _, "new"], 1) => Some(16.0),
        (["nat", _, _, "new"], 1) => Some(36.0),
        (["dsr", _, _, "established"], 1_000_000) => Some(40.0),
        _ => None,
    }
}

/// One way through the wire beside another, both measured in the same run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// Whose figure ours is divided by.
    pub what: &'static str,
    /// The quotient.
    pub ratio: f64,
    /// As it should be, in words.
    pub target: &'static str,
    /// Whether it is.
    pub reached: bool,
}

/// What is compared of two rows.
type Figure = fn(&Wire) -> Option<f64>;

/// `splitter-dsr` beside its peers, as far as both were measured.
#[must_use]
pub fn wire(rows: &[Wire]) -> Vec<Ratio> {
    use Bound::{AtLeast, AtMost};
    let flood: Figure = |row| row.mpps;
    let carried: Figure = |row| row.mpps_3_percent_loss;
    let requests: Figure = |row| row.requests_per_s;
    let cpu: Figure = |row| row.cpu_us_per_request;
    let compared: [(&str, &str, Figure, &str, &str, Bound); 9] = [
        ("packets in a flood, by xdp-redirect's", "packets", flood, "xdp-redirect", "at least 90%", AtLeast(0.9)),
        ("packets in a flood, by routing's", "packets", flood, "routing", "at least 3x", AtLeast(3.0)),
        ("packets in a flood, by nftables-dnat's", "packets", flood, "nftables-dnat", "at least 5x", AtLeast(5.0)),
        ("packets at ≤ 3% loss, by xdp-redirect's", "packets", carried, "xdp-redirect", "at least 90%", AtLeast(0.9)),
        ("packets at ≤ 3% loss, by routing's", "packets", carried, "routing", "at least 3x", AtLeast(3.0)),
        ("packets at ≤ 3% loss, by nftables-dnat's", "packets", carried, "nftables-dnat", "at least 5x", AtLeast(5.0)),
        ("requests/s, by routing's", "keep-alive", requests, "routing", "at least 95%", AtLeast(0.95)),
        ("requests/s, by haproxy-tcp's", "keep-alive", requests, "haproxy-tcp", "at least 1.5x", AtLeast(1.5)),
        ("CPU per request, by haproxy-tcp's", "keep-alive", cpu, "haproxy-tcp", "at most 70%", AtMost(0.7)),
    ];
    compared
        .into_iter()
        .filter_map(|(what, load, figure, peer, target, bound)| {
            let of = |path: &str| rows.iter().find(|row| row.path == path && row.load == load).and_then(figure);
            let ratio = of("splitter-dsr")? / of(peer)?;
            Some(Ratio { what, ratio, target, reached: bound.holds(ratio) })
        })
        .collect()
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(&self, ratio: f64) -> bool {
        match *self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_packet_has_its_target() {
        let row = |case: &str, ns: f64, flows, services| Cost {
            case: case.to_owned(),
            ns,
            min: ns,
            max: ns,
            raw_ns: ns,
            empty_ns: 0.0,
            rounds: 15,
            flows,
            services,
        };
        for (case, flows, expected) in [
            ("dsr-v4-tcp-established", 1, Some(10.0)),
            ("dsr-v6-udp-established", 1, Some(14.0)),
            ("nat-v4-tcp-established", 1, Some(18.0)),
            ("nat-v6-udp-reply", 1, Some(18.0)),
            ("dsr-v6-tcp-new", 1, Some(16.0)),
            ("nat-v4-udp-new", 1, Some(36.0)),
            ("not-ours", 1, Some(5.0)),
            ("not-ours-v6", 1, Some(5.0)),
            ("dsr-v4-tcp-established", 1_000_000, Some(40.0)),
            ("dsr-v4-tcp-established", 16_000, None),
            ("dsr-v4-tcp-new-networks", 1, None),
            ("nat-v4-tcp-refused", 1, None),
        ] {
            assert_eq!(of(&row(case, 0.0, flows, 1), &[]).map(|target| target.ns), expected, "{case}, {flows} flows");
        }
        let one = row("dsr-v4-tcp-established", 10.0, 1, 1);
        assert!(of(&one, &[]).is_some_and(|target| target.reached), "the target itself reaches it");
        let (good, bad) = (row("dsr-v4-tcp-established", 12.0, 1, 1_000), row("dsr-v4-tcp-established", 12.5, 1, 1_000));
        assert!(of(&good, std::slice::from_ref(&one)).is_some_and(|target| target.reached));
        assert!(of(&bad, std::slice::from_ref(&one)).is_some_and(|target| !target.reached));
        assert_eq!(of(&good, &[]), None, "nothing to compare it with");
    }

    #[test]
    fn ways_are_compared_where_both_were_measured() {
        let row = |path: &str, mpps: f64, cpu: f64| Wire {
            path: path.to_owned(),
            load: if mpps > 0.0 { "packets" } else { "keep-alive" }.to_owned(),
            mpps: (mpps > 0.0).then_some(mpps),
            cpu_us_per_request: (cpu > 0.0).then_some(cpu),
            ..Wire::default()
        };
        let rows = [
            row("splitter-dsr", 3.0, 0.0),
            row("routing", 1.0, 0.0),
            row("xdp-redirect", 4.0, 0.0),
            row("splitter-dsr", 0.0, 10.0),
            row("haproxy-tcp", 0.0, 20.0),
        ];
        let found: Vec<_> = wire(&rows).into_iter().map(|ratio| (ratio.what, ratio.ratio, ratio.reached)).collect();
        let expected = [
            ("packets in a flood, by xdp-redirect's", 0.75, false),
            ("packets in a flood, by routing's", 3.0, true),
            ("CPU per request, by haproxy-tcp's", 0.5, true),
        ];
        assert_eq!(found, expected);
    }
}
