//! Attempts that don't complete, or not in time, and connections that end without a word: `nat`.

use splitter_tests::oracle::Reason;

use super::row::{
    ACK, CLOSED, Counters,
    Do::{B, BD, C, CD, Flip, Not, Sweep, Wait},
    Existing, FIN, From, LIVES, NONE, OPENED,
    Patience::{ShortConnect, ShortSilence},
    RST, Row, SHOWS, SYN, Service, TOO_LATE, TOO_SILENT,
};

const fn row(why: &'static str, section: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::Nat, why, section, steps, counts)
}

const REFUSED: Counters = Counters { refused: 1, ..OPENED };
const TIMED_OUT: Counters = Counters { timed_out: 1, ..OPENED };
/// Late, and alive.
const LATE: Counters = Counters { established: 1, ..TIMED_OUT };

pub fn rows() -> Vec<Row> {
    [refusals(), too_late(), silence(), flips()].concat()
}

fn refusals() -> Vec<Row> {
    vec![
        row("refused at once", "3.5.2, group 1; 3.10.7.3", &[C(SYN), B(RST | ACK)], REFUSED),
        row("refused once, however often it's said", "3.10.7.3", &[C(SYN), B(RST | ACK), B(RST | ACK), B(RST)], REFUSED),
        row(
            "a RST that acknowledges nothing is dropped by a client in SYN-SENT, so it refuses nothing",
            "3.10.7.3, second",
            &[C(SYN), B(RST), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { retransmitted: 1, ..LIVES },
        )
        .live(1)
        .handshakes(&[(0, 3)]),
        row(
            "a RST after the SYN+ACK, as of a backlog that overflows, refuses: the client may have been connected for a moment, nothing was completed",
            "3.10.7.4, second",
            &[C(SYN), B(SYN | ACK), B(RST)],
            REFUSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "the same with an ACK",
            "3.10.7.4, second",
            &[C(SYN), B(SYN | ACK), B(RST | ACK)],
            REFUSED,
        )
        .handshakes(&[(0, 1)]),
        row(
            "refused after SYNs sent again: one attempt, one refusal",
            "3.8.1",
            &[C(SYN), C(SYN), B(RST | ACK)],
            Counters { retransmitted: 1, ..REFUSED },
        ),
        row(
            "the client gives up before any answer: nobody's failure",
            "3.10.4 (CLOSE and ABORT in SYN-SENT)",
            &[C(SYN), C(RST)],
            OPENED,
        ),
        row(
            "the client resets what answers it, as one that scans ports: nobody's failure",
            "3.5.2, group 2",
            &[C(SYN), Wait(SHOWS), B(SYN | ACK), C(RST)],
            OPENED,
        )
        .handshakes(&[(0, 2)]),
        row(
            "given up, swept: still nobody's failure",
            "3.10.7.1",
            &[C(SYN), C(RST | ACK), Wait(TOO_LATE), Sweep],
            OPENED,
        )
        .patience(ShortConnect),
        row(
            "refused, swept: counted once",
            "3.10.7.3",
            &[C(SYN), B(RST | ACK), Wait(TOO_LATE), Sweep, Sweep],
            REFUSED,
        )
        .patience(ShortConnect),
    ]
}

fn too_late() -> Vec<Row> {
    vec![
        row(
            "an attempt that nobody answers is found by the sweep, once",
            "3.8.3",
            &[C(SYN), Wait(TOO_LATE), Sweep, Sweep],
            TIMED_OUT,
        )
        .patience(ShortConnect),
        row(
            "a SYN sent again doesn't give an attempt more time",
            "3.8.3",
            &[C(SYN), Wait(50), C(SYN), Wait(100), Sweep],
            Counters { retransmitted: 1, ..TIMED_OUT },
        )
        .patience(ShortConnect),
        row("half open: answered, never completed", "3.5.1", &[C(SYN), B(SYN | ACK), Wait(TOO_LATE), Sweep], TIMED_OUT)
            .patience(ShortConnect)
            .handshakes(&[(0, 1)]),
        row(
            "what comes after the sweep belongs to no connection",
            "3.10.7.1",
            &[C(SYN), B(SYN | ACK), Wait(TOO_LATE), Sweep, Not(From::Client, ACK, Reason::UnknownConnection)],
            TIMED_OUT,
        )
        .patience(ShortConnect)
        .handshakes(&[(0, 1)]),
        row(
            "an ACK that comes late has failed and lives",
            "3.10.7.4",
            &[C(SYN), B(SYN | ACK), Wait(TOO_LATE), C(ACK), Sweep],
            LATE,
        )
        .patience(ShortConnect)
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "late from beginning to end: the slow handshake is measured",
            "3.6",
            &[C(SYN), Wait(TOO_LATE), B(SYN | ACK), C(ACK), C(FIN | ACK), B(FIN | ACK), Sweep],
            Counters { closed: 1, ended: 1, ..LATE },
        )
        .patience(ShortConnect)
        .handshakes(&[(0, 2)]),
        row(
            "late, and completed and closed by one segment",
            "3.6",
            &[C(SYN), B(SYN | ACK), B(FIN | ACK), Wait(TOO_LATE), C(FIN | ACK), Sweep],
            Counters { closed: 1, ended: 1, ..LATE },
        )
        .patience(ShortConnect)
        .handshakes(&[(0, 1)]),
        row(
            "a refusal that comes late is a timeout, once",
            "3.10.7.3",
            &[C(SYN), Wait(TOO_LATE), B(RST | ACK), Sweep],
            TIMED_OUT,
        )
        .patience(ShortConnect),
        row(
            "the client gives up, but too late for it to be nobody's failure",
            "3.8.3",
            &[C(SYN), Wait(TOO_LATE), C(RST), Sweep],
            TIMED_OUT,
        )
        .patience(ShortConnect),
        row(
            "the port is used again after the time: another attempt, the first one timed out, nothing sent again",
            "3.10.7.1",
            &[C(SYN), Wait(TOO_LATE), C(SYN), B(SYN | ACK), C(ACK), Sweep],
            Counters { opened: 2, timed_out: 1, completed: 1, established: 1, ..NONE },
        )
        .patience(ShortConnect)
        .live(1)
        .handshakes(&[(2, 3)]),
        row(
            "used again and again, with nobody answering: each time one attempt and one timeout",
            "3.8.3",
            &[C(SYN), Wait(TOO_LATE), C(SYN), Wait(TOO_LATE), C(SYN), Wait(TOO_LATE), Sweep],
            Counters { opened: 3, timed_out: 3, ..NONE },
        )
        .patience(ShortConnect),
        row(
            "established within its time it may be silent for longer than an attempt",
            "3.8.3",
            &[C(SYN), B(SYN | ACK), C(ACK), Wait(TOO_LATE), Sweep, CD(ACK)],
            LIVES,
        )
        .patience(ShortConnect)
        .live(1)
        .handshakes(&[(0, 1)]),
    ]
}

fn silence() -> Vec<Row> {
    const ENDED: Counters = Counters { ended: 1, ..LIVES };
    vec![
        row(
            "silent for too long, it ends with the sweep, once",
            "3.8.4",
            &[C(SYN), B(SYN | ACK), C(ACK), Wait(TOO_SILENT), Sweep, Sweep],
            ENDED,
        )
        .patience(ShortSilence)
        .handshakes(&[(0, 1)]),
        row(
            "silent for too long, it ends with the SYN that takes its place",
            "3.5.1, Figure 9",
            &[C(SYN), B(SYN | ACK), C(ACK), Wait(TOO_SILENT), C(SYN), B(SYN | ACK), C(ACK), Sweep],
            Counters { opened: 2, completed: 2, established: 2, ended: 1, ..NONE },
        )
        .patience(ShortSilence)
        .live(1)
        .handshakes(&[(0, 1), (4, 5)]),
        row(
            "silent for too long and found by nobody, it lives again with what comes",
            "3.8.4",
            &[C(SYN), B(SYN | ACK), C(ACK), Wait(TOO_SILENT), CD(ACK), Sweep, BD(ACK)],
            LIVES,
        )
        .patience(ShortSilence)
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(4, 6)]),
        row(
            "either side's segments keep it, and one that has closed doesn't end again by silence",
            "3.6",
            &[
                C(SYN),
                B(SYN | ACK),
                C(ACK),
                Wait(900),
                B(ACK),
                Wait(900),
                CD(ACK),
                Wait(900),
                Sweep,
                B(FIN | ACK),
                C(FIN | ACK),
                Wait(TOO_SILENT),
                Sweep,
            ],
            CLOSED,
        )
        .patience(ShortSilence)
        .handshakes(&[(0, 1)]),
    ]
}

fn flips() -> Vec<Row> {
    const ENDED: Counters = Counters { ended: 1, ..LIVES };
    const BY_FLIP: Reason = Reason::ResetByFlip;
    vec![
        row(
            "a flip that resets ends an established connection of the canary with its next segment, once",
            "3.5.2",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Reset), Not(From::Client, ACK, BY_FLIP), Not(From::Client, ACK, BY_FLIP)],
            ENDED,
        )
        .canary()
        .handshakes(&[(0, 1)]),
        row(
            "or with the backend's, which is told as well",
            "3.5.2",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Reset), Not(From::Backend, ACK, BY_FLIP), Not(From::Client, RST, Reason::UnknownReset)],
            ENDED,
        )
        .canary()
        .handshakes(&[(0, 1)]),
        row(
            "until somebody speaks nobody knows that it ends, and it lives",
            "3.5.2",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Reset), Sweep],
            LIVES,
        )
        .canary()
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "a flip that keeps leaves it alone",
            "3.6",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Keep), CD(ACK), BD(ACK), C(FIN | ACK), B(FIN | ACK)],
            CLOSED,
        )
        .canary()
        .handshakes(&[(0, 1)])
        .responses(&[(4, 5)]),
        row(
            "a flip that resets has nothing to do with stable's connections",
            "3.6",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Reset), CD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(4, 5)]),
        row(
            "reset by a flip, the client comes back from the same port and is stable's",
            "3.10.7.1",
            &[C(SYN), B(SYN | ACK), C(ACK), Flip(Existing::Reset), Not(From::Client, ACK, BY_FLIP), C(SYN), B(SYN | ACK), CD(ACK)],
            ENDED,
        )
        .canary()
        .elsewhere(LIVES)
        .handshakes(&[(0, 1)])
        .elsewhere_handshakes(&[(5, 6)]),
        row(
            "an attempt that the canary hasn't answered is spared: the SYN sent again begins anew at stable, and the canary's has failed",
            "3.8.1",
            &[C(SYN), Flip(Existing::Keep), C(SYN), B(SYN | ACK), C(ACK), Sweep],
            TIMED_OUT,
        )
        .canary()
        .elsewhere(LIVES)
        .elsewhere_handshakes(&[(2, 3)]),
        row(
            "so it is by a flip that resets",
            "3.8.1",
            &[C(SYN), Flip(Existing::Reset), C(SYN), B(SYN | ACK), C(ACK), Sweep],
            TIMED_OUT,
        )
        .canary()
        .elsewhere(LIVES)
        .elsewhere_handshakes(&[(2, 3)]),
        row(
            "an attempt that the canary has answered stays: its client may have the answer",
            "3.8.1",
            &[C(SYN), B(SYN | ACK), Flip(Existing::Keep), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { retransmitted: 1, ..LIVES },
        )
        .canary()
        .live(1)
        .handshakes(&[(0, 1)]),
    ]
}
