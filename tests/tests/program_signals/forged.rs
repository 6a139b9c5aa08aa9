//! Segments and errors that somebody else sent in an end's name. They may count; what they are about goes on, and live stays exact.

use super::row::{
    ACK, Counters,
    Do::{B, BD, C, CD, Error as Says},
    Error, FIN, LIVES, OPENED, RST, Row, SYN, Service,
};

const fn row(why: &'static str, section: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::Nat, why, section, steps, counts)
}

/// Said to be over by its client, and seen to go on.
const BACK_FROM_CLIENT: Counters = Counters { reset_by_client: 1, ended: 1, established: 2, ..LIVES };
/// The same of the backend.
const BACK_FROM_BACKEND: Counters = Counters { reset_by_backend: 1, ended: 1, established: 2, ..LIVES };

pub fn rows() -> Vec<Row> {
    [resets(), attempts(), challenges(), one_way()].concat()
}

fn resets() -> Vec<Row> {
    vec![
        row(
            "a RST in the client's name: with the client's next segment the connection lives again",
            "3.10.7.4 (RFC 5961, 3)",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), CD(ACK), BD(ACK)],
            BACK_FROM_CLIENT,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a RST in the backend's name: with the backend's next one",
            "3.10.7.4 (RFC 5961, 3)",
            &[C(SYN), B(SYN | ACK), C(ACK), B(RST), CD(ACK), BD(ACK)],
            BACK_FROM_BACKEND,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a RST in the name of each: when both have gone on",
            "3.10.7.4 (RFC 5961, 3)",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), B(RST), CD(ACK), BD(ACK)],
            BACK_FROM_CLIENT,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "what the other side sends proves nothing: it may not have heard yet",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), BD(ACK), BD(FIN | ACK)],
            Counters { reset_by_client: 1, ended: 1, ..LIVES },
        )
        .handshakes(&[(0, 1)]),
        row(
            "once more: each time it counts, and each time it goes on",
            "3.10.7.4 (RFC 5961, 3)",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), CD(ACK), C(RST), CD(ACK), C(RST), CD(ACK)],
            Counters { reset_by_client: 3, ended: 3, established: 4, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a connection that lives again ends like any other",
            "3.6",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), CD(ACK), C(FIN | ACK), B(FIN | ACK)],
            Counters { closed: 1, ended: 2, ..BACK_FROM_CLIENT },
        )
        .handshakes(&[(0, 1)]),
        row(
            "behind both FINs nothing comes to life",
            "3.6",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), C(RST), C(ACK), B(RST), B(ACK)],
            Counters { closed: 1, ended: 1, ..LIVES },
        )
        .handshakes(&[(0, 1)]),
    ]
}

fn attempts() -> Vec<Row> {
    vec![
        row(
            "refused in the backend's name, which answers all the same: refused once, and established when it talks",
            "3.10.7.3",
            &[C(SYN), B(RST | ACK), B(SYN | ACK), C(ACK), BD(ACK)],
            Counters { refused: 1, established: 1, ..OPENED },
        )
        .live(1),
        row(
            "given up in the client's name, which goes on: established without having been completed",
            "3.10.7.3",
            &[C(SYN), C(RST), B(SYN | ACK), CD(ACK), BD(ACK)],
            Counters { established: 1, ..OPENED },
        )
        .live(1),
        row(
            "refused by an error that somebody made up, and answered",
            "3.9.2.2 (RFC 5927, 4)",
            &[C(SYN), Says(Error::Host), B(SYN | ACK), C(ACK), BD(ACK)],
            Counters { refused: 1, unreachable: 1, established: 1, ..OPENED },
        )
        .live(1),
        row(
            "three segments of somebody whom no backend has answered are no handshake",
            "3.5",
            &[C(SYN), C(RST), C(ACK), CD(ACK)],
            OPENED,
        ),
    ]
}

fn challenges() -> Vec<Row> {
    vec![
        row(
            "a RST and a SYN in the client's name: the backend challenges the SYN, by which the connection is recognized",
            "3.10.7.4 (RFC 5961, 4)",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), C(SYN), B(ACK), CD(ACK), BD(ACK)],
            Counters { opened: 2, ..BACK_FROM_CLIENT },
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a new attempt that a backend takes for a connection unknown here: its client resets that, and tries again",
            "3.5.1, Figure 9",
            &[C(SYN), B(ACK), C(RST), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { opened: 2, ..LIVES },
        )
        .live(1)
        .handshakes(&[(3, 4)]),
    ]
}

fn one_way() -> Vec<Row> {
    vec![
        Row::new(
            Service::Dsr,
            "where the client alone is seen, what goes on behind a RST is forwarded, and isn't counted as living: a word has no room for whose it was",
            "3.10.7.4 (RFC 5961, 3)",
            &[C(SYN), C(ACK), C(RST), CD(ACK), CD(ACK)],
            Counters { reset_by_client: 1, ended: 1, ..LIVES },
        )
        .handshakes(&[(0, 1)]),
    ]
}
