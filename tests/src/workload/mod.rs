//! Servers and loads that run in a lab's namespaces, on tokio, each bounded in count and time.
//!
//! Each runs on one thread of its own and is held by a handle: what is dropped is stopped and waited for. A
//! panic of such a thread comes out where its handle is stopped or dropped.

pub mod http;
pub mod observer;
pub mod tcp_echo;
pub mod tools;
pub mod udp_echo;

mod listen;
mod stream;
mod worker;

use std::fmt;

/// Who a server says it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The version it serves, such as `stable`.
    pub version: String,
    /// Its own name, such as `stable1`.
    pub name: String,
}

impl Identity {
    /// A version and a name, of visible ASCII characters.
    ///
    /// # Panics
    /// When one of them is empty, longer than 60 bytes, or has another character, a quote or a backslash in it.
    #[must_use]
    pub fn new(version: &str, name: &str) -> Self {
        for text in [version, name] {
            let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\/'$;".contains(&byte));
            assert!(plain && (1..=60).contains(&text.len()), "{text:?} cannot be a part of an identity");
        }
        Self { version: version.into(), name: name.into() }
    }

    /// `version/name`, for the wire.
    fn wire(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    fn from_wire(bytes: &[u8]) -> Option<Self> {
        let (version, name) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
        Some(Self { version: version.into(), name: name.into() })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.version, self.name)
    }
}
