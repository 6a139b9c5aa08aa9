//! The figures to reach, and those of a peer, measured the same way.

use super::report::Cost;

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

/// What another program costs for a packet of the same kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peer {
    /// What was measured.
    pub what: &'static str,
    /// Nanoseconds over the empty program.
    pub ns: f64,
}

/// Katran (stock, IPIP), by `BPF_PROG_TEST_RUN` over the empty program on a machine like those that Splitter is built on. Not measured in a run of this bench.
pub const KATRAN: [Peer; 5] = [
    Peer { what: "Katran: not a service", ns: 50.0 },
    Peer { what: "Katran: IPv6 established", ns: 112.0 },
    Peer { what: "Katran: IPv4 established", ns: 113.0 },
    Peer { what: "Katran: IPv4 established, 512,000 flows", ns: 277.0 },
    Peer { what: "Katran: IPv4 new connection", ns: 720.0 },
];

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
}
