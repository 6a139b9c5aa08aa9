//! Backends that fail now and then, as real ones do.

use super::filter::{Fate, Filter};
use crate::{
    lab::Result,
    node::{Family, Kind, Server},
};

/// A share of a server's new HTTP connections that is refused, by chance, from the making until the drop.
#[derive(Debug)]
pub struct Quality {
    _filter: Filter,
}

impl Quality {
    /// So many of 10,000 connections to a server are refused from the return on.
    ///
    /// # Errors
    /// When the server's kernel can't be told.
    pub fn refuse(server: &Server, of_10_000: u16) -> Result<Self> {
        let port = server.backend(Kind::Web, Family::V4).port();
        Ok(Self { _filter: Filter::set(&server.namespace, port, Fate::SomeRefused(of_10_000))? })
    }
}
