//! Routes and MAC addresses over netlink.
//!
//! XDP sees frames before the kernel's routing does, and sends them past it. So for each backend somebody must know what
//! the kernel would have written in front of the packet, and on which interface it would have sent it: a [`Way`]. A
//! [`Watcher`] keeps the ways to a set of destinations right while routes, interfaces and neighbours change.
//!
//! ```text
//!  kernel ── events ──▶ event::effect_of ──▶ ┌───────┐ ──▶ Due ──▶ Requests ── lookups, dumps ──▶ kernel
//!                                            │ State │ ──▶ Ask ──▶ Requests ── NTF_USE ─────────▶ kernel
//!         answers ──▶ facts ───────────────▶ └───────┘ ──▶ Ways ─▶ Watcher::ways, Changes
//! ```
//!
//! `State` and all it is made of is pure; `netlink` holds the sockets, `watcher` the task and its clock.
//!
//! # Whose MAC address, and how it stays known
//!
//! The route says who is the neighbour, the destination or a gateway; the kernel's neighbour table says its MAC address.
//! The kernel asks the network; the watcher only tells it whom to ask for, with `NTF_USE`, which is what a packet of
//! this node to that neighbour would do.
//!
//! Packets forwarded by XDP are not seen by the kernel. So to the kernel the neighbours look unused: their entries go
//! stale, and are collected sooner or later. Therefore:
//!
//! - a stale entry stays in use, and is used (`NTF_USE`) at most every [`Settings::refresh`], upon which the kernel
//!   confirms it, by a unicast question after 5 s, or finds it failed. That is about one ARP request a neighbour in half
//!   a minute; at most 128 entries are confirmed at a time;
//! - an entry that is missing or incomplete is no news: a MAC address that was known stays in use, and the kernel is
//!   asked to resolve it at once, then each second;
//! - only an answer (another MAC address) or the kernel's verdict that there is none ([`WayError::Failed`]) changes a
//!   way. A failed neighbour is asked for every 5 s, and is back with its first answer.
//!
//! The kernel's table has room for 1,024 entries of each family by default, in all namespaces together, and collects
//! unconfirmed ones early beyond 512: with more backends on the same links, raise `net.ipv4.neigh.default.gc_thresh2`
//! and `gc_thresh3` (and `net.ipv6…`).
//!
//! # When routes are looked up
//!
//! A route's event has those destinations looked up that are inside its prefix; an event of an interface, an address or
//! a rule all of them; and all of it is looked up every [`Settings::recheck`], or when the kernel says that it had to
//! throw events away (`ENOBUFS`). Bursts are gathered for [`Settings::coalesce`], five times that at most, and lookups
//! never take more than a fifth of the time.
//!
//! # Network namespaces
//!
//! A netlink socket belongs to the network namespace of the thread that opens it: that of [`Watcher::start`]'s caller,
//! or of the one who calls [`interface()`] and its like.

mod event;
mod facts;
mod interface;
mod netlink;
mod path;
mod state;
mod watcher;
mod way;
mod window;

use std::{collections::BTreeMap, net::IpAddr};

pub use facts::{Interface, LocalAddress, VlanDevice};
pub use interface::{XdpHook, addresses, interface, interfaces, is_local, xdp};
pub use netlink::NetlinkError;
pub use watcher::{Change, Changes, Settings, Watcher};
pub use way::{Mac, Way, WayError};

/// What is known of each destination.
pub type Ways = BTreeMap<IpAddr, Result<Way, WayError>>;
