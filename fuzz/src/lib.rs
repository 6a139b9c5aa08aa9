//! What must hold whatever others write: one module for each target of `cargo xtask fuzz`, each with one function that takes any octets and panics when
//! something doesn't hold.
//!
//! | module | who writes it | what must hold |
//! | --- | --- | --- |
//! | [`header`] | the network | both readers of a frame say the same, and the same as a third that was written from `docs/packet-path.md` alone |
//! | [`icmp`] | the network | a quote is read, and an error translated, to the octet as the page says; each checksum is as right or wrong as before |
//! | [`rewrite`] | the network | the same of addresses, ports, MAC addresses and tags, and of the answers to what is refused |
//! | [`config`] | a person | a configuration is refused with a place for each mistake, or loads, and then always the same |
//! | [`words`] | a person | weights, factors, names, addresses and whole command lines are read or refused, and read as they are shown |
//! | [`api`] | whoever may open the socket | every request has an answer that a client understands; every wire type reads what it writes |
//! | [`state`] | a disk that lies | the state is refused, or read, kept and read the same; and an agent can go on from what was read |
//! | [`answers`] | a Prometheus, a webhook | an answer is a verdict or no data, and one line |
//!
//! The first octets of a frame's input are no frame, but what to do with it: see [`frames`].

#![forbid(unsafe_code)]

#[cfg(feature = "agent")]
pub mod answers;
#[cfg(feature = "agent")]
pub mod api;
#[cfg(feature = "agent")]
pub mod config;
pub mod frames;
pub mod header;
pub mod icmp;
/// The tests' own reading of frames. Their source, and not their package: it would have the whole lab compiled once more.
#[path = "../../tests/src/oracle/mod.rs"]
pub mod oracle;
#[path = "../../tests/src/packet/mod.rs"]
pub mod packet;
pub mod rewrite;
#[cfg(feature = "agent")]
pub mod state;
#[cfg(feature = "agent")]
pub mod words;
