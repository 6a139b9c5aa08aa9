//! What a subprogram that opens a connection says: a number (of a backend or a slot), or why there is none.

use splitter_ebpf::{
    abi::{Backend, Service, Settings},
    cohort::{self, Hold},
    reason::Refuse,
};

use super::{Exit, Stop, act, kernel::Kernel, maps, refuse};

/// What is said isn't a number but an XDP action, as nothing was opened.
const STOPPED: u32 = 1 << 30;
/// What is said is the number of a [`Refuse`].
const REFUSED: u32 = 1 << 31;

/// Why no connection was opened.
pub enum Not {
    /// The client is to be told.
    Refused(Refuse),
    /// The packet goes elsewhere.
    Stopped(Stop),
    /// The packet is on its way already.
    Sent(Exit),
}

impl<T> From<T> for Not
where
    Stop: From<T>,
{
    #[inline(always)]
    fn from(stop: T) -> Self {
        Self::Stopped(stop.into())
    }
}

impl From<Refuse> for Not {
    #[inline(always)]
    fn from(reason: Refuse) -> Self {
        Self::Refused(reason)
    }
}

/// See [`cohort::spares`].
#[inline(always)]
pub fn spares(settings: &Settings, service: &Service, backend: &Backend) -> bool {
    cohort::spares(service.control(), backend.cohort, || Hold::of(settings, service, maps::moment()))
}

/// Packs an outcome.
#[inline(always)]
pub fn say(outcome: Result<u32, Not>) -> u32 {
    match outcome {
        Ok(number) => number,
        Err(Not::Stopped(stop)) => STOPPED | act(Err(stop)),
        Err(Not::Sent(exit)) => STOPPED | act(Ok(exit)),
        Err(Not::Refused(reason)) => REFUSED | reason as u32,
    }
}

/// The number, or how the packet leaves instead.
#[inline(always)]
pub fn hear<const FRAGS: bool>(frame: &Kernel<FRAGS>, service: u32, said: u32) -> Result<u32, Result<Exit, Stop>> {
    if said & REFUSED != 0 {
        return Err(refuse::refuse_by_number(frame, service, said & !REFUSED));
    }
    if said & STOPPED != 0 { Err(Ok(Exit::Said(said & !STOPPED))) } else { Ok(said) }
}
