//! What the kernel runs: the pure code and the memory layouts that the XDP program and the host share.
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`abi`] | what lies in the maps, octet by octet |
//! | [`frame`] | how a frame is read and written, by the kernel's pointers or by a slice |
//! | [`header`] | what a frame says: addresses, ports, flags, fragment, where things begin |
//! | [`usual`] | the same of the usual packet, sooner |
//! | [`address`], [`hash`] | a client's place in hash space |
//! | [`decision`]: [`cohort`], [`maglev`] | which cohort, which backend in it, and why |
//! | [`affinity`] | the connections that are known |
//! | [`tcp`], [`stamp`] | what state they are in, and since when |
//! | [`moment`], [`handshake`], [`histogram`] | how long attempts take |
//! | [`breaker`] | whether the canary has failed |
//! | [`checksum`], [`rewrite`], [`icmp`], [`refusal`] | what is written |
//! | [`bench`] | what the bench's entry is told; nothing of it ships |
//! | [`reason`] | why a packet isn't forwarded: counter index and label in one |
//!
//! The program itself (`main.rs`, `program/`) is the only code that knows maps, contexts and helpers.

#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![deny(unsafe_code)]

pub mod abi;
pub mod address;
pub mod affinity;
pub mod bench;
pub mod breaker;
pub mod checksum;
pub mod cohort;
pub mod decision;
pub mod frame;
pub mod handshake;
pub mod hash;
pub mod header;
pub mod histogram;
pub mod icmp;
pub mod maglev;
pub mod moment;
pub mod reason;
pub mod refusal;
pub mod rewrite;
pub mod stamp;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod usual;
