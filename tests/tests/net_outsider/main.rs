//! What somebody who shouldn't could try, against the real agent and real connections. `docs/security.md` says what has to hold.

mod forged;
mod privileges;
mod secrets;
mod sockets;
