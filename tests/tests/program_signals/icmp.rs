//! ICMP errors about what the node sent to a backend, and about what it didn't.

use super::row::{
    ACK, Counters,
    Do::{B, BD, C, CD, ClientError, Error as Says, Forged, Sweep, Wait},
    Error, Forgery, LIVES, OPENED,
    Patience::ShortConnect,
    Row, SYN, Service, TOO_LATE,
};

const fn row(why: &'static str, section: &'static str, steps: &'static [super::row::Do], counts: Counters) -> Row {
    Row::new(Service::Nat, why, section, steps, counts)
}

const UNREACHABLE: Counters = Counters { refused: 1, unreachable: 1, ..OPENED };

pub fn rows() -> Vec<Row> {
    vec![
        row(
            "the backend's host is unreachable: the attempt is refused",
            "3.9.2.2 (RFC 1122, 4.2.3.9)",
            &[C(SYN), Says(Error::Host)],
            UNREACHABLE,
        ),
        row("its port is, as a firewall says it", "3.9.2.2", &[C(SYN), Says(Error::Port)], UNREACHABLE),
        row("its network is", "3.9.2.2", &[C(SYN), Says(Error::Network)], UNREACHABLE),
        row("a firewall prohibits it", "3.9.2.2", &[C(SYN), Says(Error::Prohibited)], UNREACHABLE),
        row(
            "said again it refuses once",
            "3.9.2.2",
            &[C(SYN), Says(Error::Host), Says(Error::Host), Says(Error::Port)],
            UNREACHABLE,
        ),
        row(
            "a client that tries again all the same begins another attempt",
            "3.9.2.2",
            &[C(SYN), Says(Error::Host), C(SYN), B(SYN | ACK), C(ACK)],
            Counters { opened: 2, completed: 1, established: 1, ..UNREACHABLE },
        )
        .live(1)
        .handshakes(&[(2, 3)]),
        row(
            "a packet that was too big says nothing about the host",
            "3.9.2.2 (RFC 8201)",
            &[C(SYN), Says(Error::TooBig), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "a TTL that ran out on the way refuses nothing: routes change",
            "3.9.2.2",
            &[C(SYN), Says(Error::TimeExceeded), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "an attempt that was answered isn't refused by an error",
            "3.9.2.2 (RFC 5927, 4.2)",
            &[C(SYN), B(SYN | ACK), Says(Error::Host), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "an established connection isn't ended by errors",
            "3.9.2.2 (RFC 5927, 5.2)",
            &[C(SYN), B(SYN | ACK), C(ACK), Says(Error::Port), Says(Error::Host), CD(ACK), BD(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)])
        .responses(&[(5, 6)]),
        row(
            "an error of the client's side is no failure of the backend's",
            "3.9.2.2",
            &[C(SYN), B(SYN | ACK), ClientError(Error::Host), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 1)]),
        row(
            "nor is one that comes before the backend has said anything, which is forged",
            "3.9.2.2 (RFC 5927, 4)",
            &[C(SYN), ClientError(Error::Port)],
            OPENED,
        ),
        row(
            "forged: it quotes a port that nobody has",
            "3.9.2.2 (RFC 5927, 4)",
            &[C(SYN), Forged(Forgery::Port, Error::Host), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "forged: it quotes another backend",
            "3.9.2.2 (RFC 5927, 4)",
            &[C(SYN), Forged(Forgery::Backend, Error::Port), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "forged: it quotes the other protocol",
            "3.9.2.2 (RFC 5927, 4)",
            &[C(SYN), Forged(Forgery::Protocol, Error::Port), B(SYN | ACK), C(ACK)],
            LIVES,
        )
        .live(1)
        .handshakes(&[(0, 2)]),
        row(
            "an error that comes late: timed out, and not refused as well",
            "3.8.3",
            &[C(SYN), Wait(TOO_LATE), Says(Error::Host), Sweep],
            Counters { timed_out: 1, ..OPENED },
        )
        .patience(ShortConnect),
    ]
}
