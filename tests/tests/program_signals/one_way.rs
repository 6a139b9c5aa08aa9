//! TCP through `dsr`: only the client's segments are seen. The backend's answers are what the client's segments say of them.

use splitter_tests::oracle::Reason;

use super::row::{
    ACK, CLOSED, Counters,
    Do::{C, CD, Flip, Not, Sweep, Wait},
    Existing, FIN, From, LIVES, NONE, OPENED,
    Patience::{ShortConnect, ShortSilence},
    RST, Row, SHOWS, SYN, Service, TOO_LATE, TOO_SILENT,
};

const fn row(why: &'static str, section: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::Dsr, why, section, steps, counts)
}

const TIMED_OUT: Counters = Counters { timed_out: 1, ..OPENED };
const LATE: Counters = Counters { established: 1, ..TIMED_OUT };
const ENDED: Counters = Counters { ended: 1, ..LIVES };

pub fn rows() -> Vec<Row> {
    [beginnings(), ends(), too_late(), flips()].concat()
}

fn beginnings() -> Vec<Row> {
    vec![
        row("dsr: the client's ACK tells of the answer that nobody saw", "3.5, Figure 6", &[C(SYN), Wait(SHOWS), C(ACK)], LIVES)
            .live(1)
            .handshakes(&[(0, 2)]),
        row("dsr: data on the completing ACK", "3.10.7.3", &[C(SYN), Wait(SHOWS), CD(ACK), CD(ACK)], LIVES)
            .live(1)
            .handshakes(&[(0, 2)]),
        row(
            "dsr: a SYN or its answer is lost, which look alike: from the first SYN to the ACK is what the client waited",
            "3.8.1",
            &[C(SYN), Wait(SHOWS), C(SYN), Wait(SHOWS), C(SYN), C(ACK)],
            Counters { retransmitted: 2, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 5)]),
        row("dsr: an ACK lost behind the node is sent again for the SYN+ACK that is", "3.8.1", &[C(SYN), C(ACK), C(ACK)], LIVES)
            .live(1)
            .handshakes(&[(0, 1)]),
        row(
            "dsr: both ends open at once: the client's SYN+ACK completes nothing, its next segment does",
            "3.5, Figure 7",
            &[C(SYN), C(SYN | ACK), Wait(SHOWS), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 3)]),
        row(
            "dsr: the middle of a connection that began elsewhere counts with its first segment as begun, with the next as complete, and is not timed",
            "3.10.7.4",
            &[CD(ACK), CD(ACK), CD(ACK)],
            LIVES,
        )
        .live(1),
        row("dsr: the end of a connection that nobody knows counts as nothing", "3.10.7.1", &[C(FIN | ACK), C(RST)], NONE),
        row("dsr: a refusal goes by another way, so it's an attempt that comes to nothing", "3.10.7.3", &[C(SYN)], OPENED),
    ]
}

fn ends() -> Vec<Row> {
    vec![
        row("dsr: the client's FIN ends it", "3.6, Figure 12", &[C(SYN), C(ACK), CD(ACK), C(FIN | ACK), C(ACK)], CLOSED)
            .handshakes(&[(0, 1)]),
        row("dsr: a FIN sent again ends nothing", "3.8.1", &[C(SYN), C(ACK), C(FIN | ACK), C(FIN | ACK), C(FIN | ACK)], CLOSED)
            .handshakes(&[(0, 1)]),
        row(
            "dsr: half closed counts as closed: whether the backend goes on isn't seen",
            "3.6.1",
            &[C(SYN), C(ACK), C(FIN | ACK), C(ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "dsr: a FIN overtakes the completing ACK: completed and closed in one",
            "3.10.7.4",
            &[C(SYN), Wait(SHOWS), C(FIN | ACK), C(ACK)],
            CLOSED,
        )
        .handshakes(&[(0, 2)]),
        row("dsr: a FIN overtakes the last data", "3.10.7.4", &[C(SYN), C(ACK), C(FIN | ACK), CD(ACK), C(ACK)], CLOSED)
            .handshakes(&[(0, 1)]),
        row(
            "dsr: reset by the client, once",
            "3.5.3",
            &[C(SYN), C(ACK), C(RST), C(RST)],
            Counters { reset_by_client: 1, ..ENDED },
        )
        .handshakes(&[(0, 1)]),
        row("dsr: a RST behind the FIN resets nothing", "3.10.7.1", &[C(SYN), C(ACK), C(FIN | ACK), C(RST)], CLOSED)
            .handshakes(&[(0, 1)]),
        row(
            "dsr: given up before completion, with and without an ACK: nobody's failure",
            "3.10.7.3",
            &[C(SYN), C(RST | ACK), C(RST)],
            OPENED,
        ),
        row(
            "dsr: a port used again after FIN",
            "3.10.7.4",
            &[C(SYN), C(ACK), C(FIN | ACK), C(SYN), Wait(SHOWS), C(ACK)],
            Counters { opened: 2, completed: 2, established: 2, closed: 1, ended: 1, ..NONE },
        )
        .live(1)
        .handshakes(&[(0, 1), (3, 5)]),
        row(
            "dsr: a port used again after RST",
            "3.10.7.1",
            &[C(SYN), C(RST), C(SYN), Wait(SHOWS), C(ACK)],
            Counters { opened: 2, ..LIVES },
        )
        .live(1)
        .handshakes(&[(2, 4)]),
        row("dsr: a SYN on an established connection begins nothing", "3.10.7.4 (RFC 5961, 4)", &[C(SYN), C(ACK), C(SYN)], LIVES)
            .live(1)
            .handshakes(&[(0, 1)]),
        row(
            "dsr: a client that has crashed resets what the backend still has, and begins anew",
            "3.5.1, Figure 9",
            &[C(SYN), C(ACK), C(SYN), C(RST), C(SYN), C(ACK)],
            Counters { opened: 2, completed: 2, established: 2, reset_by_client: 1, ended: 1, ..NONE },
        )
        .live(1)
        .handshakes(&[(0, 1), (4, 5)]),
    ]
}

fn too_late() -> Vec<Row> {
    vec![
        row(
            "dsr: an attempt of which nothing comes is found by the sweep, once",
            "3.8.3",
            &[C(SYN), Wait(TOO_LATE), Sweep, Sweep],
            TIMED_OUT,
        )
        .patience(ShortConnect),
        row(
            "dsr: a SYN sent again doesn't give it more time",
            "3.8.3",
            &[C(SYN), Wait(50), C(SYN), Wait(100), Sweep],
            Counters { retransmitted: 1, ..TIMED_OUT },
        )
        .patience(ShortConnect),
        row("dsr: an ACK that comes late has failed and lives", "3.10.7.4", &[C(SYN), Wait(TOO_LATE), C(ACK), Sweep], LATE)
            .patience(ShortConnect)
            .live(1)
            .handshakes(&[(0, 2)]),
        row(
            "dsr: late, and completed and closed by one segment",
            "3.6",
            &[C(SYN), Wait(TOO_LATE), C(FIN | ACK), Sweep],
            Counters { closed: 1, ended: 1, ..LATE },
        )
        .patience(ShortConnect)
        .handshakes(&[(0, 2)]),
        row("dsr: given up too late for it to be nobody's failure", "3.8.3", &[C(SYN), Wait(TOO_LATE), C(RST), Sweep], TIMED_OUT)
            .patience(ShortConnect),
        row(
            "dsr: the port is used again after the time: another attempt, the first one timed out",
            "3.10.7.1",
            &[C(SYN), Wait(TOO_LATE), C(SYN), C(ACK), Sweep],
            Counters { opened: 2, timed_out: 1, completed: 1, established: 1, ..NONE },
        )
        .patience(ShortConnect)
        .live(1)
        .handshakes(&[(2, 3)]),
        row(
            "dsr: silent for too long, it ends with the sweep, once",
            "3.8.4",
            &[C(SYN), C(ACK), Wait(TOO_SILENT), Sweep, Sweep],
            ENDED,
        )
        .patience(ShortSilence)
        .handshakes(&[(0, 1)]),
        row(
            "dsr: silent for too long, it ends with the SYN that takes its place",
            "3.5.1, Figure 9",
            &[C(SYN), C(ACK), Wait(TOO_SILENT), C(SYN), C(ACK), Sweep],
            Counters { opened: 2, completed: 2, established: 2, ended: 1, ..NONE },
        )
        .patience(ShortSilence)
        .live(1)
        .handshakes(&[(0, 1), (3, 4)]),
    ]
}

fn flips() -> Vec<Row> {
    const BY_FLIP: Reason = Reason::ResetByFlip;
    vec![
        row(
            "dsr: a flip that resets ends an established connection of the canary, once",
            "3.5.2",
            &[C(SYN), C(ACK), Flip(Existing::Reset), Not(From::Client, ACK, BY_FLIP), Not(From::Client, ACK, BY_FLIP)],
            ENDED,
        )
        .canary()
        .handshakes(&[(0, 1)]),
        row("dsr: a flip that keeps leaves it alone", "3.6", &[C(SYN), C(ACK), Flip(Existing::Keep), CD(ACK), C(FIN | ACK)], CLOSED)
            .canary()
            .handshakes(&[(0, 1)]),
        row(
            "dsr: an attempt that has not completed is spared: the SYN sent again begins anew at stable, and the canary's has failed",
            "3.8.1",
            &[C(SYN), Flip(Existing::Keep), C(SYN), Wait(SHOWS), C(ACK), Sweep],
            TIMED_OUT,
        )
        .canary()
        .elsewhere(LIVES)
        .elsewhere_handshakes(&[(2, 4)]),
        row(
            "dsr: so it is by a flip that resets",
            "3.8.1",
            &[C(SYN), Flip(Existing::Reset), C(SYN), C(ACK), Sweep],
            TIMED_OUT,
        )
        .canary()
        .elsewhere(LIVES)
        .elsewhere_handshakes(&[(2, 3)]),
    ]
}
