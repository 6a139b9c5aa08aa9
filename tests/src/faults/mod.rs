//! Faults for the canaries of a site, and what comes of them.
//!
//! [`Fault`] breaks backends, [`Syns`] sees who is sent to them, [`Trips`] when the breaker trips, without any agent. [`run`](mod@run) plays one fault under a
//! load and works out of these what it did, [`report`] tells of one or many, and [`options`] is what can be chosen.

mod delay;
mod fault;
mod filter;
pub mod limits;
pub mod options;
mod quality;
pub mod report;
pub mod run;
mod syns;
mod time;
mod trip;

pub use self::{
    fault::{Fault, Kind, serve},
    quality::Quality,
    run::{Agent, Plan, Run},
    syns::{Syn, Syns},
    time::{Clock, Monotonic},
    trip::{Tripped, Trips},
};
