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
//!                                                     │ whoever is said to have sent the RST goes on sending
//!                                                     ▼
//!                                                Established
//! ```
//!
//! Closing connections are still forwarded; they only are forgotten sooner. A RST is believed as long as the side that it's said to come from is silent: whoever has really sent one
//! has nothing more to say (RFC 9293, 3.10.7.4), and whoever goes on had it forged. Only a connection that the backend was seen to answer comes to life like that, or three forged segments
//! would be worth a handshake.

use crate::{affinity, hash::Hash, moment::Ticks, stamp::Stamp};

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
    /// The client gave up before the handshake was complete: nobody's failure.
    Abandoned,
    /// Reset after completion.
    Reset(Side),
    /// Ended by FIN.
    Closed,
    /// The segment that completed the handshake ended the connection as well.
    CompletedAndClosed,
    /// A SYN sent again.
    Retransmitted,
    /// It was said to be over, and goes on.
    Revived,
    /// An attempt that none is: the backend has the connection already.
    Recognized,
}

impl Event {
    /// As a number, for a subprogram.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Completed => 1,
            Self::Refused => 2,
            Self::Abandoned => 3,
            Self::Reset(Side::Client) => 4,
            Self::Reset(Side::Backend) => 5,
            Self::Closed => 6,
            Self::CompletedAndClosed => 7,
            Self::Retransmitted => 8,
            Self::Revived => 9,
            Self::Recognized => 10,
        }
    }

    /// From [`Self::number`].
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Completed),
            2 => Some(Self::Refused),
            3 => Some(Self::Abandoned),
            4 => Some(Self::Reset(Side::Client)),
            5 => Some(Self::Reset(Side::Backend)),
            6 => Some(Self::Closed),
            7 => Some(Self::CompletedAndClosed),
            8 => Some(Self::Retransmitted),
            9 => Some(Self::Revived),
            10 => Some(Self::Recognized),
            _ => None,
        }
    }
}

/// What a segment means to the times that are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timing {
    /// Nothing.
    Nothing,
    /// The backend answered the attempt, for the first time.
    Answered,
    /// The client's first octets: whoever stores the word gives it the time.
    Asked,
    /// The backend's first octets after those.
    Replied,
}

/// What a segment makes of a slot's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The word then, its stamp left alone.
    pub word: SlotWord,
    /// What of it counts.
    pub event: Option<Event>,
    /// What of it is measured.
    pub timing: Timing,
}

impl Change {
    #[inline(always)]
    const fn to(word: SlotWord, event: Option<Event>) -> Self {
        Self { word, event, timing: Timing::Nothing }
    }

    /// Whether the time has to be known for it.
    #[inline(always)]
    #[must_use]
    pub const fn is_timed(self) -> bool {
        self.event.is_some() || !matches!(self.timing, Timing::Nothing)
    }
}

/// A slot's state. Zero: free.
///
/// | bits | |
/// | --- | --- |
/// | 0–2 | state |
/// | 3, 4 | FIN from the client, from the backend |
/// | 5 | UDP |
/// | 6, 7 | [phase](Timing) of an established connection: 0 nothing to measure, 1 the client's first octets are awaited, 2 the backend's |
/// | 8–21 | [stamp](crate::stamp) of the latest packet |
/// | 22, 23 | closing: a RST that is said to come from the client, from the backend |
/// | 24 | closing, and an attempt [behind one that was ended by a RST](SlotWord::again): the backend has answered this client on this port |
/// | 32–63 | when the attempt began; in phase 2 when the client's first octets passed, in [ticks](crate::moment::Ticks) |
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct SlotWord(pub u64);

const FIN_CLIENT: u64 = 1 << 3;
const FIN_BACKEND: u64 = 1 << 4;
const FINS: u64 = FIN_CLIENT | FIN_BACKEND;
const UDP: u64 = 1 << 5;
const ASKS: u64 = 1 << 6;
const ASKED: u64 = 1 << 7;
const STAMP: u64 = 0x3fff << 8;
const RST_CLIENT: u64 = 1 << 22;
const RST_BACKEND: u64 = 1 << 23;
const RSTS: u64 = RST_CLIENT | RST_BACKEND;
const ANSWERED: u64 = 1 << 24;

impl SlotWord {
    /// A slot just taken.
    #[inline(always)]
    #[must_use]
    pub const fn new(udp: bool, stamp: Stamp, begun: Ticks) -> Self {
        Self(State::Embryonic as u64 | if udp { UDP } else { 0 } | (stamp.bits() as u64) << 8 | (begun.0 as u64) << 32)
    }

    /// When the attempt began, or in phase 2 when the client's first octets passed.
    #[inline(always)]
    #[must_use]
    pub const fn time(self) -> Ticks {
        Ticks((self.0 >> 32) as u32)
    }

    /// The same with another time.
    #[inline(always)]
    #[must_use]
    pub const fn with_time(self, time: Ticks) -> Self {
        Self(self.0 & 0xffff_ffff | (time.0 as u64) << 32)
    }

    /// Whether data from this side changes nothing in the word but the stamp, once the connection is established.
    #[inline(always)]
    #[must_use]
    pub const fn is_settled(self, side: Side) -> bool {
        match side {
            Side::Client => self.0 & ASKS == 0,
            Side::Backend => self.0 & (ASKS | ASKED) == 0,
        }
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

    /// The same as a word of the affinity table, for whoever asks how long it is to live.
    #[inline(always)]
    #[must_use]
    pub const fn seen(self) -> affinity::Word {
        let nobody = Hash(0);
        match self.state() {
            None => affinity::Word(0),
            Some(State::Embryonic | State::Answered) => affinity::Word::attempt(nobody, 0, self.time().fine()),
            Some(State::Established) => affinity::Word::new(nobody, 0, affinity::State::Established, self.stamp()),
            Some(State::Closing) => affinity::Word::new(nobody, 0, affinity::State::Closing, self.stamp()),
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
        Self(self.0 & !STAMP | (stamp.bits() as u64) << 8)
    }

    /// The same in another state.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !7 | state as u64)
    }

    /// The same, ended by a side: it's over for as long as that side is silent.
    #[inline(always)]
    #[must_use]
    pub const fn ended_by(self, side: Side) -> Self {
        let answered = if matches!(self.state(), Some(State::Answered | State::Established)) { ANSWERED } else { 0 };
        Self(self.with_state(State::Closing).0 | rst_of(side) | answered)
    }

    /// Whether nothing but a RST says that it's over, and the client has sent that one, or somebody in its name.
    #[inline(always)]
    #[must_use]
    pub const fn is_ended_by_client(self) -> bool {
        matches!(self.state(), Some(State::Closing)) && self.0 & RSTS == RST_CLIENT && self.0 & FINS != FINS
    }

    /// An attempt on the port of a connection that only a RST said to be over: should another RST end the attempt as well, the connection comes to life all the same.
    #[inline(always)]
    #[must_use]
    pub const fn again(self, older: Self) -> Self {
        Self(self.0 | older.0 & ANSWERED)
    }
}

/// What a segment with these flags and so much data makes of a slot's word. Most segments of an established connection change nothing.
#[inline(always)]
#[must_use]
pub const fn segment(word: SlotWord, side: Side, flags: u8, data: u32) -> Change {
    let Some(state) = word.state() else { return Change::to(word, None) };
    if flags & flag::RST != 0 {
        return reset(word, state, side, flags);
    }
    let fins = match side {
        Side::Client if flags & flag::FIN != 0 => FIN_CLIENT,
        Side::Backend if flags & flag::FIN != 0 => FIN_BACKEND,
        Side::Client | Side::Backend => 0,
    };
    let word = SlotWord(word.0 | fins);
    match (state, side) {
        (State::Embryonic, Side::Backend) if flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK => {
            Change { word: word.with_state(State::Answered), event: None, timing: Timing::Answered }
        }
        // A challenge (RFC 5961, 4): the SYN wasn't the client's. (Elsewhere a lone ACK is one of a backend whose old connection of this port is in TIME-WAIT.)
        (State::Embryonic, Side::Backend)
            if word.0 & ANSWERED != 0 && flags & (flag::SYN | flag::ACK | flag::FIN) == flag::ACK =>
        {
            Change::to(word.with_state(State::Established), Some(Event::Recognized))
        }
        (State::Embryonic | State::Answered, Side::Client) if opens(flags) => Change::to(word, Some(Event::Retransmitted)),
        // The client's first segment after the SYN may carry data, and its FIN.
        (State::Answered, Side::Client) if flags & (flag::SYN | flag::ACK) == flag::ACK => {
            if word.0 & FINS == FINS {
                return Change::to(word.with_state(State::Closing), Some(Event::CompletedAndClosed));
            }
            let established = SlotWord(word.with_state(State::Established).0 | ASKS);
            let step = talk(established, side, data);
            Change { event: Some(Event::Completed), ..step }
        }
        (State::Established, Side::Client | Side::Backend) if word.0 & FINS == FINS => {
            let step = talk(word, side, data);
            Change { word: step.word.with_state(State::Closing), event: Some(Event::Closed), ..step }
        }
        (State::Established, Side::Client | Side::Backend) => talk(word, side, data),
        (State::Closing, Side::Client | Side::Backend) => goes_on_after(word, side, flags),
        (State::Embryonic | State::Answered, Side::Client | Side::Backend) => Change::to(word, None),
    }
}

const fn rst_of(side: Side) -> u64 {
    match side {
        Side::Client => RST_CLIENT,
        Side::Backend => RST_BACKEND,
    }
}

/// A segment without RST on a connection that is said to be over.
#[inline(always)]
const fn goes_on_after(word: SlotWord, side: Side, flags: u8) -> Change {
    if flags & flag::SYN != 0 {
        // A SYN+ACK behind a RST: one of them is forged, or the client has given up meanwhile. What comes next tells.
        let answers = matches!(side, Side::Backend) && flags & flag::ACK != 0 && word.0 & RSTS != 0;
        return Change::to(SlotWord(word.0 | if answers { ANSWERED } else { 0 }), None);
    }
    let said = word.0 & rst_of(side) != 0;
    let word = SlotWord(word.0 & !rst_of(side));
    if said && word.0 & RSTS == 0 && word.0 & ANSWERED != 0 && word.0 & FINS != FINS {
        let alive = SlotWord(word.0 & !(ANSWERED | ASKS | ASKED)).with_state(State::Established);
        return Change::to(alive, Some(Event::Revived));
    }
    Change::to(word, None)
}

/// A RST. Before the client has heard of the backend it takes none that acknowledges nothing (RFC 9293, 3.10.7.3), so that none such ends the attempt.
#[inline(always)]
const fn reset(word: SlotWord, state: State, side: Side, flags: u8) -> Change {
    let event = match (state, side) {
        (State::Embryonic, Side::Backend) if flags & flag::ACK == 0 => return Change::to(word, None),
        (State::Embryonic | State::Answered, Side::Backend) => Some(Event::Refused),
        (State::Embryonic | State::Answered, Side::Client) => Some(Event::Abandoned),
        (State::Established, Side::Client | Side::Backend) => Some(Event::Reset(side)),
        (State::Closing, Side::Client | Side::Backend) => None,
    };
    Change::to(word.ended_by(side), event)
}

/// Data of an established connection, as far as the first of either side matters.
#[inline(always)]
const fn talk(word: SlotWord, side: Side, data: u32) -> Change {
    let (asks, asked) = (word.0 & ASKS != 0, word.0 & ASKED != 0);
    let settled = SlotWord(word.0 & !(ASKS | ASKED));
    match side {
        Side::Client if asks && data != 0 => Change { word: SlotWord(settled.0 | ASKED), event: None, timing: Timing::Asked },
        // The backend speaks first: nothing was asked.
        Side::Backend if asks && data != 0 => Change::to(settled, None),
        Side::Backend if asked && data != 0 => Change { word: settled, event: None, timing: Timing::Replied },
        Side::Client | Side::Backend => Change::to(word, None),
    }
}

/// The same for a connection of which only the client's side is seen (`dsr`).
#[inline(always)]
#[must_use]
pub const fn one_way(state: crate::affinity::State, flags: u8) -> (crate::affinity::State, Option<Event>) {
    use crate::affinity::State as Seen;
    match state {
        Seen::Embryonic if flags & flag::RST != 0 => (Seen::Closing, Some(Event::Abandoned)),
        Seen::Embryonic if opens(flags) => (Seen::Embryonic, Some(Event::Retransmitted)),
        Seen::Embryonic if flags & (flag::SYN | flag::ACK | flag::FIN) == flag::ACK | flag::FIN => {
            (Seen::Closing, Some(Event::CompletedAndClosed))
        }
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
        use Event::{Abandoned, Closed, Completed, Refused, Reset, Retransmitted};
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
            ("the client gives up by RST: nobody's failure", &[(C, RST)], &[Abandoned], State::Closing),
            (
                "SYN sent again",
                &[(C, SYN), (C, SYN), (B, SYN | ACK), (B, SYN | ACK), (C, ACK)],
                &[Retransmitted, Retransmitted, Completed],
                State::Established,
            ),
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
            let mut word = SlotWord::new(false, Stamp::default(), Ticks(7));
            let mut events = Vec::new();
            for (side, flags) in *segments {
                let step = segment(word, *side, *flags, 0);
                word = step.word;
                events.extend(step.event);
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
                    let next = segment(word, side, flags, 9).word;
                    assert!(next.state().is_some());
                    assert_eq!((next.stamp(), next.is_udp()), (word.stamp(), true));
                }
            }
        }
        assert_eq!(segment(SlotWord(0), C, SYN, 0), Change::to(SlotWord(0), None));
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(SYN) && opens(SYN | 0xc0));
        assert!(!opens(SYN | ACK) && !opens(SYN | RST) && !opens(SYN | FIN) && !opens(ACK) && !opens(0));
    }
}
