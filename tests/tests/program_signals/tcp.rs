//! TCP through `nat`: both ends are seen.

use super::row::{
    ACK, CLOSED, Counters,
    Do::{B, BD, C, CD, Not, Wait},
    FIN, From, LIVES, NONE, OPENED, RST, Row, SHOWS, SYN, Service,
};
use splitter_tests::oracle::Reason;

const fn row(why: &'static str, section: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::Nat, why, section, steps, counts)
}

pub fn rows() -> Vec<Row> {
    [beginnings(), losses(), responses(), ends(), resets(), reuse()].concat()
}

fn beginnings() -> Vec<Row> {
    vec![
        row("the three segments of a handshake", "3.5, Figure 6", &[C(SYN), Wait(SHOWS), B(SYN | ACK), C(ACK)], LIVES)
            .live(1)
            .handshakes(&[(0, 2)]),
        row("until the client's ACK nothing is complete, whatever was answered", "3.5", &[C(SYN), B(SYN | ACK)], OPENED)
            .handshakes(&[(0, 1)]),
        row("an ACK before any answer completes nothing", "3.10.7.2", &[C(SYN), C(ACK)], OPENED),
        row(
            "both ends open at once, the client's SYN+ACK passes first",
            "3.5, Figure 7",
            &[C(SYN), B(SYN), C(SYN | ACK), Wait(SHOWS), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 4)]),
        row(
            "both ends open at once, the backend's SYN+ACK passes first; the client's next segment is the one that tells",
            "3.5, Figure 7",
            &[C(SYN), B(SYN), Wait(SHOWS), B(SYN | ACK), C(SYN | ACK), CD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 3)]),
        row(
            "an old SYN that arrives late is reset by the client, and the new one begins another attempt",
            "3.5, Figure 8",
            &[C(SYN), B(SYN | ACK), C(RST), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { opened: 2, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 1), (3, 4)]),
        row(
            "a backend that sets ECN's bits, and a client that asks for them, shake hands all the same",
            "3.1 (RFC 3168, 6.1.1)",
            &[C(SYN | 0xc0), Wait(SHOWS), B(SYN | ACK | 0x40), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "a SYN cookie is a SYN+ACK like any other",
            "3.5 (RFC 4987, 3.6)",
            &[C(SYN), Wait(SHOWS), B(SYN | ACK), CD(ACK), B(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
    ]
}

fn losses() -> Vec<Row> {
    vec![
        row(
            "a SYN lost behind the node is sent again, and the handshake has taken as long as the client waited",
            "3.8.1",
            &[C(SYN), Wait(SHOWS), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { retransmitted: 1, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 3)]),
        row("each SYN sent again counts", "3.8.1", &[C(SYN), C(SYN), C(SYN), C(SYN)], Counters { retransmitted: 3, ..OPENED }),
        row(
            "a SYN+ACK lost before the client makes it send its SYN again; the first answer is what is measured",
            "3.8.1",
            &[C(SYN), Wait(SHOWS), B(SYN | ACK), Wait(SHOWS), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { retransmitted: 1, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "a SYN cookie whose SYN+ACK is lost is made anew from the SYN sent again",
            "3.8.1 (RFC 4987, 3.6)",
            &[C(SYN), B(SYN | ACK), C(SYN), B(SYN | ACK), CD(ACK), B(ACK)],
            Counters { retransmitted: 1, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "an ACK lost before the node: the backend sends its SYN+ACK again, which is no SYN of the client's",
            "3.8.1",
            &[C(SYN), B(SYN | ACK), B(SYN | ACK), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "an ACK lost behind the node completes once, and so does the next one",
            "3.8.1",
            &[C(SYN), B(SYN | ACK), C(ACK), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "an ACK lost before the node, the data behind it not: that completes",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), CD(ACK), Wait(SHOWS), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(2, 4)]),
        row(
            "FINs sent again end a connection once",
            "3.8.1",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), C(FIN | ACK), B(ACK), B(FIN | ACK), B(FIN | ACK), C(ACK), C(FIN | ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "the last ACK is lost: the FIN that comes again finds the connection closed",
            "3.6, 3.8.1",
            &[C(SYN), B(SYN | ACK), C(ACK), B(FIN | ACK), C(FIN | ACK), B(FIN | ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
    ]
}

fn responses() -> Vec<Row> {
    vec![
        row(
            "data on the completing ACK is asked with it",
            "3.10.7.3",
            &[C(SYN), B(SYN | ACK), CD(ACK), B(ACK), Wait(SHOWS), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(2, 5)]),
        row(
            "the first response is measured, no second one",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), Wait(SHOWS), BD(ACK), CD(ACK), BD(ACK), CD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(3, 5)]),
        row(
            "a question in several segments is asked with the first, and an ACK is no response",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), Wait(SHOWS), CD(ACK), B(ACK), CD(ACK), BD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(3, 8)]),
        row(
            "a question sent again is asked with the first",
            "3.8.1",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), Wait(SHOWS), CD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(3, 6)]),
        row(
            "a backend that speaks first responds to nothing, then or later",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), BD(ACK), CD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "data of the backend on its SYN+ACK, or before the client has completed, is no response",
            "3.10.7.4",
            &[C(SYN), BD(SYN | ACK), BD(ACK), C(ACK), CD(ACK), Wait(SHOWS), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(4, 6)]),
        row(
            "a question with the client's FIN, a response with the backend's",
            "3.6, 3.10.7.4",
            &[C(SYN), B(SYN | ACK), CD(FIN | ACK), Wait(SHOWS), BD(FIN | ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)])
        .responses(&[(2, 4)]),
        row(
            "a backend's FIN overtakes its data: the response is the data",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), B(FIN | ACK), Wait(SHOWS), BD(ACK), C(FIN | ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)])
        .responses(&[(3, 6)]),
    ]
}

fn ends() -> Vec<Row> {
    vec![
        row(
            "a whole life, ended by the client",
            "3.6, Figure 12",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), B(ACK), BD(ACK), C(ACK), C(FIN | ACK), B(ACK), B(FIN | ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)])
        .responses(&[(3, 5)]),
        row(
            "a whole life, ended by the backend",
            "3.6, Figure 12",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), BD(ACK), B(FIN | ACK), C(ACK), C(FIN | ACK), B(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)])
        .responses(&[(3, 4)]),
        row(
            "both ends close at once",
            "3.6, Figure 13",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), C(ACK), B(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "half closed by the client it lives, as long as the backend has something to say",
            "3.6.1",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(ACK), BD(ACK), C(ACK), BD(ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "half closed by the backend it lives as well",
            "3.6.1",
            &[C(SYN), B(SYN | ACK), C(ACK), B(FIN | ACK), CD(ACK), CD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "half closed, and then by the other end, too",
            "3.6.1",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), BD(ACK), C(ACK), B(FIN | ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "data that both ends' FINs have overtaken: it is over, and stays so",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), BD(ACK), CD(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row("a FIN on the completing ACK completes and half closes", "3.6, case 1", &[C(SYN), B(SYN | ACK), C(FIN | ACK)], LIVES)
            .live(1)
            .handshakes(&[(0, 1)]),
        row(
            "a FIN that overtakes the completing ACK completes, which the ACK then doesn't",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(FIN | ACK), C(ACK), B(FIN | ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a backend that closes before the client's ACK has passed",
            "3.6",
            &[C(SYN), B(SYN | ACK), B(FIN | ACK), C(ACK), C(FIN | ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "the backend has closed before the client completes, which does so with its FIN: completed and closed in one",
            "3.6",
            &[C(SYN), B(SYN | ACK), B(FIN | ACK), C(FIN | ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
    ]
}

fn resets() -> Vec<Row> {
    const RESET_BY_CLIENT: Counters = Counters { reset_by_client: 1, ended: 1, ..LIVES };
    const RESET_BY_BACKEND: Counters = Counters { reset_by_backend: 1, ended: 1, ..LIVES };
    vec![
        row("reset by the client", "3.5.3", &[C(SYN), B(SYN | ACK), C(ACK), C(RST)], RESET_BY_CLIENT).handshakes(&[(0, 1)]),
        row("reset by the backend", "3.5.3", &[C(SYN), B(SYN | ACK), C(ACK), B(RST)], RESET_BY_BACKEND).handshakes(&[(0, 1)]),
        row(
            "a RST may carry an ACK, and data: a reason in words",
            "3.5.3",
            &[C(SYN), B(SYN | ACK), C(ACK), BD(RST | ACK)],
            RESET_BY_BACKEND,
        )
        .handshakes(&[(0, 1)]),
        row(
            "the first RST counts, those of either side that follow do not",
            "3.5.3",
            &[C(SYN), B(SYN | ACK), C(ACK), C(RST), C(RST), B(RST), B(RST | ACK)],
            RESET_BY_CLIENT,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a half-closed connection can be reset",
            "3.6.1",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(RST)],
            RESET_BY_BACKEND,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a RST behind both FINs, as of a client that is gone, resets nothing: it had closed",
            "3.10.7.1",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), C(RST)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a FIN behind a RST closes nothing",
            "3.10.7.1",
            &[C(SYN), B(SYN | ACK), C(ACK), B(RST), C(FIN | ACK), B(FIN | ACK)],
            RESET_BY_BACKEND,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a SYN cookie that the backend doesn't take back: to the client it was connected, and reset",
            "3.5.2 (RFC 4987, 3.6)",
            &[C(SYN), B(SYN | ACK), C(ACK), B(RST)],
            RESET_BY_BACKEND,
        )
        .handshakes(&[(0, 1)]),
        row(
            "a backend that has forgotten the connection resets it when the client speaks",
            "3.5.1, Figure 10",
            &[C(SYN), B(SYN | ACK), C(ACK), CD(ACK), B(RST)],
            RESET_BY_BACKEND,
        )
        .handshakes(&[(0, 1)]),
    ]
}

fn reuse() -> Vec<Row> {
    const TWO: Counters = Counters { opened: 2, completed: 2, established: 2, ..NONE };
    vec![
        row(
            "a port used again after both FINs begins another connection",
            "3.6.1 (MSL), 3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), C(SYN), Wait(SHOWS), B(SYN | ACK), C(ACK)],
            Counters { closed: 1, ended: 1, ..TWO },
        )
        .live(1)
        .handshakes(&[(0, 1), (5, 7)]),
        row(
            "a port used again after a RST does, too",
            "3.10.7.1",
            &[C(SYN), B(SYN | ACK), C(ACK), B(RST), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { reset_by_backend: 1, ended: 1, ..TWO },
        )
        .live(1)
        .handshakes(&[(0, 1), (4, 5)]),
        row(
            "a port used again after a refusal",
            "3.10.7.3",
            &[C(SYN), B(RST | ACK), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { opened: 2, refused: 1, completed: 1, established: 1, ..NONE },
        )
        .live(1)
        .handshakes(&[(2, 3)]),
        row(
            "a SYN on an established connection is the backend's to challenge, and begins nothing",
            "3.10.7.4 (RFC 5961, 4)",
            &[C(SYN), B(SYN | ACK), C(ACK), C(SYN), B(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a client that has crashed and comes back from the same port resets what the backend still has, and begins anew",
            "3.5.1, Figure 9",
            &[C(SYN), B(SYN | ACK), C(ACK), C(SYN), B(ACK), C(RST), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { reset_by_client: 1, ended: 1, ..TWO },
        )
        .live(1)
        .handshakes(&[(0, 1), (6, 7)]),
        row(
            "a SYN on a half-closed connection begins nothing either",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), C(ACK), B(FIN | ACK), C(SYN)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "what belongs to no connection counts at no backend",
            "3.10.7.1",
            &[Not(From::Client, ACK, Reason::UnknownConnection), Not(From::Client, RST, Reason::UnknownReset)],
            NONE,
        ),
    ]
}
