//! TCP as seen from the middle (RFC 9293, 3.3.2 gives the states at the ends).
//!
//! ```text
//!            SYN                 SYN+ACK             ACK
//!  (free) ───────► Embryonic ───────────► Answered ───────► Established
//!                      │ RST from backend     │ RST              │ RST, or FIN from both sides
//!                      │ (refused)            │ (refused)        │ (reset, closed)
//!                      └──────────────────────┴───────┬──────────┘
//!                                                     ▼
//!                                                  Closing ── SYN ──► (a new connection)
//! ```
//!
//! Closing connections are still forwarded; they only are forgotten sooner. So a forged RST breaks nothing here.

use crate::stamp::Stamp;

/// TCP flag bits.
pub mod flag {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
}

/// Whether a segment with these flags opens a connection: SYN, and neither ACK, RST nor FIN.
#[inline(always)]
#[must_use]
pub const fn opens(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}

/// Whether a segment with these flags neither opens nor ends anything.
#[inline(always)]
#[must_use]
pub const fn goes_on(flags: u8) -> bool {
    flags & (flag::SYN | flag::RST | flag::FIN) == 0
}

/// How far a connection in a slot has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// SYN sent on; in UDP one datagram, no answer.
    Embryonic = 1,
    /// The backend's SYN+ACK passed.
    Answered = 2,
    /// The client's ACK passed; in UDP an answer did.
    Established = 3,
    /// RST, or FIN from both sides.
    Closing = 4,
}

/// Who sent a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

/// What a segment did that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake is complete.
    Completed,
    /// The backend said no.
    Refused,
    /// Reset after completion.
    Reset(Side),
    /// Ended by FIN.
    Closed,
}

/// A slot's state: bits 0–2 state, 3 FIN from the client, 4 FIN from the backend, 5 UDP, 8–21 stamp; the high half is zero. Zero: free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct SlotWord(pub u64);

const FIN_CLIENT: u64 = 1 << 3;
const FIN_BACKEND: u64 = 1 << 4;
const UDP: u64 = 1 << 5;

impl SlotWord {
    /// A slot just taken.
    #[inline(always)]
    #[must_use]
    pub const fn new(udp: bool, stamp: Stamp) -> Self {
        Self(State::Embryonic as u64 | if udp { UDP } else { 0 } | (stamp.bits() as u64) << 8)
    }

    /// `None`: free.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> Option<State> {
        match self.0 & 7 {
            1 => Some(State::Embryonic),
            2 => Some(State::Answered),
            3 => Some(State::Established),
            4 => Some(State::Closing),
            _ => None,
        }
    }

    /// A UDP exchange.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(self) -> bool {
        self.0 & UDP != 0
    }

    /// When its latest packet came.
    #[inline(always)]
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        Stamp::from_bits((self.0 >> 8) as u32)
    }

    /// The same with another stamp.
    #[inline(always)]
    #[must_use]
    pub const fn touched(self, stamp: Stamp) -> Self {
        Self(self.0 & 0xff | (stamp.bits() as u64) << 8)
    }

    /// The same in another state.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !7 | state as u64)
    }
}

/// What a segment makes of a slot's state (its stamp left alone), and what of it counts. Most segments of an established connection
/// change nothing.
#[inline(always)]
#[must_use]
pub const fn segment(word: SlotWord, side: Side, flags: u8) -> (SlotWord, Option<Event>) {
    let Some(state) = word.state() else { return (word, None) };
    if flags & flag::RST != 0 {
        let event = match (state, side) {
            (State::Embryonic | State::Answered, Side::Backend) => Some(Event::Refused),
            (State::Established, _) => Some(Event::Reset(side)),
            (State::Embryonic | State::Answered, Side::Client) | (State::Closing, _) => None,
        };
        return (word.with_state(State::Closing), event);
    }
    if flags & flag::FIN != 0 {
        let word = SlotWord(
            word.0
                | match side {
                    Side::Client => FIN_CLIENT,
                    Side::Backend => FIN_BACKEND,
                },
        );
        // A FIN of the client carries the ACK that completes the handshake when it is its first segment after the SYN.
        return match state {
            State::Answered if matches!(side, Side::Client) && flags & flag::ACK != 0 => {
                (word.with_state(State::Established), Some(Event::Completed))
            }
            State::Established if word.0 & (FIN_CLIENT | FIN_BACKEND) == FIN_CLIENT | FIN_BACKEND => {
                (word.with_state(State::Closing), Some(Event::Closed))
            }
            State::Embryonic | State::Answered | State::Established | State::Closing => (word, None),
        };
    }
    match (state, side) {
        (State::Embryonic, Side::Backend) if flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK => {
            (word.with_state(State::Answered), None)
        }
        (State::Answered, Side::Client) if flags & (flag::SYN | flag::ACK) == flag::ACK => {
            (word.with_state(State::Established), Some(Event::Completed))
        }
        (State::Embryonic | State::Answered | State::Established | State::Closing, Side::Client | Side::Backend) => (word, None),
    }
}

/// The same for a connection of which only the client's side is seen (`dsr`).
#[inline(always)]
#[must_use]
pub const fn one_way(state: crate::affinity::State, flags: u8) -> (crate::affinity::State, Option<Event>) {
    use crate::affinity::State as Seen;
    match state {
        Seen::Embryonic if flags & flag::RST != 0 => (Seen::Closing, None),
        Seen::Embryonic if flags & (flag::SYN | flag::ACK) == flag::ACK => (Seen::Established, Some(Event::Completed)),
        Seen::Established if flags & flag::RST != 0 => (Seen::Closing, Some(Event::Reset(Side::Client))),
        Seen::Established if flags & flag::FIN != 0 => (Seen::Closing, Some(Event::Closed)),
        Seen::Embryonic | Seen::Established | Seen::Closing => (state, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        flag::{ACK, FIN, RST, SYN},
        *,
    };
    use Side::{Backend as B, Client as C};

    extern crate std;
    use std::vec::Vec;

    #[test]
    fn sequences_of_segments_count_what_they_mean() {
        use Event::{Closed, Completed, Refused, Reset};
        // (why, segments after the SYN, events, state at the end)
        type Row = (&'static str, &'static [(Side, u8)], &'static [Event], State);
        let rows: &[Row] = &[
            (
                "a whole life",
                &[(B, SYN | ACK), (C, ACK), (C, ACK), (B, ACK), (B, FIN | ACK), (C, FIN | ACK)],
                &[Completed, Closed],
                State::Closing,
            ),
            (
                "half closed by the client, data goes on",
                &[(B, SYN | ACK), (C, ACK), (C, FIN | ACK), (B, ACK)],
                &[Completed],
                State::Established,
            ),
            ("refused at once", &[(B, RST | ACK)], &[Refused], State::Closing),
            ("refused after SYN+ACK (backlog overflow aborts)", &[(B, SYN | ACK), (B, RST)], &[Refused], State::Closing),
            ("the client gives up by RST: nobody's failure", &[(C, RST)], &[], State::Closing),
            ("SYN sent again", &[(C, SYN), (C, SYN), (B, SYN | ACK), (B, SYN | ACK), (C, ACK)], &[Completed], State::Established),
            ("reset by the backend", &[(B, SYN | ACK), (C, ACK), (B, RST)], &[Completed, Reset(B)], State::Closing),
            ("reset by the client", &[(B, SYN | ACK), (C, ACK), (C, RST | ACK)], &[Completed, Reset(C)], State::Closing),
            ("a second RST counts once", &[(B, SYN | ACK), (C, ACK), (B, RST), (B, RST)], &[Completed, Reset(B)], State::Closing),
            ("an ACK before the SYN+ACK completes nothing", &[(C, ACK)], &[], State::Embryonic),
            (
                "the completing ACK carries the FIN",
                &[(B, SYN | ACK), (C, FIN | ACK), (B, FIN | ACK)],
                &[Completed, Closed],
                State::Closing,
            ),
            (
                "FIN sent again",
                &[(B, SYN | ACK), (C, ACK), (B, FIN | ACK), (B, FIN | ACK), (C, FIN | ACK), (C, FIN | ACK)],
                &[Completed, Closed],
                State::Closing,
            ),
        ];
        for (why, segments, expected, end) in rows {
            let mut word = SlotWord::new(false, Stamp::default());
            let mut events = Vec::new();
            for (side, flags) in *segments {
                let (next, event) = segment(word, *side, *flags);
                word = next;
                events.extend(event);
            }
            assert_eq!((&events[..], word.state()), (*expected, Some(*end)), "{why}");
        }
    }

    #[test]
    fn a_segment_never_frees_a_slot_nor_touches_its_stamp() {
        for state in 1..=4 {
            for side in [C, B] {
                for flags in 0..=u8::MAX {
                    let word = SlotWord(state | 0x1234 << 8 | UDP);
                    let (next, _) = segment(word, side, flags);
                    assert!(next.state().is_some());
                    assert_eq!((next.stamp(), next.is_udp()), (word.stamp(), true));
                }
            }
        }
        assert_eq!(segment(SlotWord(0), C, SYN), (SlotWord(0), None));
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(SYN) && opens(SYN | 0xc0));
        assert!(!opens(SYN | ACK) && !opens(SYN | RST) && !opens(SYN | FIN) && !opens(ACK) && !opens(0));
    }
}
