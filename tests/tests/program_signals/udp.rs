//! UDP: exchanges, of which `nat` sees both directions and `dsr` one.

use super::row::{
    Counters,
    Do::{B, C, Error as Says, Flip, Not, Sweep, Wait},
    Error, Existing, From, LIVES, NONE, OPENED,
    Patience::{ShortConnect, ShortSilence},
    Row, SHOWS, Service, TOO_LATE, TOO_SILENT,
};
use splitter_tests::oracle::Reason;

const fn row(why: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::NatUdp, why, "none: UDP", steps, counts)
}

const fn one_way(why: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::DsrUdp, why, "none: UDP", steps, counts)
}

const TIMED_OUT: Counters = Counters { timed_out: 1, ..OPENED };
const ENDED: Counters = Counters { ended: 1, ..LIVES };
/// In one direction nobody can say that an exchange was answered.
const GOES_ON: Counters = Counters { opened: 1, established: 1, ..NONE };

pub fn rows() -> Vec<Row> {
    vec![
        row("a datagram begins an exchange", &[C(0)], OPENED),
        row("more datagrams without an answer are the same exchange", &[C(0), C(0), C(0)], OPENED),
        row("the first answer is measured from the first datagram", &[C(0), Wait(SHOWS), C(0), B(0), B(0), C(0), B(0)], LIVES)
            .live(1)
            .handshakes(&[(0, 3)]),
        row("nobody answers, which the sweep finds once", &[C(0), Wait(TOO_LATE), Sweep, Sweep], TIMED_OUT)
            .patience(ShortConnect),
        row(
            "nobody answers: the next datagram after the time is another exchange, and the sweep finds the first",
            &[C(0), Wait(TOO_LATE), C(0), B(0), Sweep],
            Counters { opened: 2, timed_out: 1, completed: 1, established: 1, ..NONE },
        )
        .patience(ShortConnect)
        .live(1)
        .handshakes(&[(2, 3)]),
        row("an answer that comes late", &[C(0), Wait(TOO_LATE), B(0), Sweep], Counters { timed_out: 1, ..GOES_ON })
            .patience(ShortConnect)
            .live(1)
            .handshakes(&[(0, 2)]),
        row("an exchange that falls silent ends with the sweep, once", &[C(0), B(0), Wait(TOO_SILENT), Sweep, Sweep], ENDED)
            .patience(ShortSilence)
            .handshakes(&[(0, 1)]),
        row(
            "an exchange that falls silent: the next datagram begins another, and the sweep finds that the first has ended",
            &[C(0), B(0), Wait(TOO_SILENT), C(0), B(0), Sweep],
            Counters { opened: 2, completed: 2, established: 2, ended: 1, ..NONE },
        )
        .patience(ShortSilence)
        .live(1)
        .handshakes(&[(0, 1), (3, 4)]),
        row(
            "nobody listens: refused, once",
            &[C(0), Says(Error::Port), Says(Error::Port), C(0), Says(Error::Port)],
            Counters { refused: 1, unreachable: 1, ..OPENED },
        ),
        row(
            "a host that can't be reached at the moment refuses no datagram",
            &[C(0), Says(Error::Host), Says(Error::Network), C(0), B(0)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 4)]),
        row(
            "nobody listens any more: an exchange that was answered isn't refused",
            &[C(0), B(0), C(0), Says(Error::Port)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row("a refusal that comes late is a timeout", &[C(0), Wait(TOO_LATE), Says(Error::Port), Sweep], TIMED_OUT)
            .patience(ShortConnect),
        row(
            "a flip that resets moves an exchange with its next datagram: at the canary it has ended",
            &[C(0), B(0), Flip(Existing::Reset), Not(From::Backend, 0, Reason::FlippedReply), C(0), B(0)],
            ENDED,
        )
        .canary()
        .elsewhere(LIVES)
        .handshakes(&[(0, 1)])
        .elsewhere_handshakes(&[(4, 5)]),
        row("a flip that keeps leaves an exchange where it is", &[C(0), Flip(Existing::Keep), C(0), B(0)], LIVES)
            .canary()
            .live(1)
            .handshakes(&[(0, 3)]),
        one_way("dsr: a datagram begins an exchange, of which nobody knows whether it was answered", &[C(0)], OPENED),
        one_way("dsr: with the second one it goes on", &[C(0), C(0), C(0)], GOES_ON).live(1),
        one_way("dsr: one that doesn't go on has not failed", &[C(0), Wait(TOO_LATE), Sweep], OPENED).patience(ShortConnect),
        one_way(
            "dsr: begun anew after the time, the first has not failed",
            &[C(0), Wait(TOO_LATE), C(0)],
            Counters { opened: 2, ..NONE },
        )
        .patience(ShortConnect),
        one_way(
            "dsr: silent for too long it ends, once",
            &[C(0), C(0), Wait(TOO_SILENT), Sweep, Sweep],
            Counters { ended: 1, ..GOES_ON },
        )
        .patience(ShortSilence),
        one_way(
            "dsr: silent for too long it ends with the datagram that begins the next one",
            &[C(0), C(0), Wait(TOO_SILENT), C(0), C(0)],
            Counters { opened: 2, established: 2, ended: 1, ..NONE },
        )
        .patience(ShortSilence)
        .live(1),
        one_way(
            "dsr: a flip that resets moves an exchange with its next datagram",
            &[C(0), C(0), Flip(Existing::Reset), C(0)],
            Counters { ended: 1, ..GOES_ON },
        )
        .canary()
        .elsewhere(OPENED),
    ]
}
