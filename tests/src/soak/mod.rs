//! Days of trouble in minutes: a schedule of events from a seed, done to a node with services in both modes that is under load, and what must hold all the while.
//!
//! [`schedule`] says what is done and when, [`rules`] whom that may hurt; both are pure. [`world`] is what stands: network, backends that are processes, Splitter.
//! [`load`] are the clients. [`journal`] takes down what happened, and judges each harm that was seen; [`watch`] sees what nobody has to tell: metrics that answer and never fall,
//! the agent's descriptors, threads and memory. [`act`] carries the events out, [`play`] is the whole run, [`report`] tells of it. [`sabotage`] makes the soak fail,
//! for one that can't proves nothing.

pub mod act;
pub mod counters;
pub mod host;
pub mod journal;
pub mod load;
pub mod model;
pub mod objects;
pub mod options;
pub mod play;
pub mod report;
pub mod rules;
pub mod sabotage;
pub mod schedule;
pub mod shares;
pub mod watch;
pub mod world;
