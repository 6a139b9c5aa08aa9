//! One namespace by itself, without cables.

use std::ops::Deref;

use super::{Names, ip_outside, namespace::Namespace, owner::Owner};
use crate::lab::Result;

/// A network namespace that is removed when this is dropped. What a killed test process leaves behind is removed like a
/// [`Lab`](super::Lab)'s.
#[derive(Debug)]
pub struct Solo {
    namespace: Namespace,
    /// Last: the handle above is closed before the name goes.
    _names: Names,
}

impl Solo {
    /// An empty namespace, after removing what dead processes left.
    ///
    /// # Errors
    /// When it cannot be made, which needs root.
    pub fn new(label: &str) -> Result<Self> {
        super::reap_once()?;
        let names = Names(vec![Owner::next()?.namespace(label)]);
        ip_outside(names.0.iter().map(|name| format!("netns add {name}")))?;
        let namespace = Namespace::open(label, names.0[0].clone())?;
        Ok(Self { namespace, _names: names })
    }

    /// Whether this is the name of a namespace (or of what was named after one) whose process is gone.
    #[must_use]
    pub fn is_orphan(name: &str) -> bool {
        Owner::parse(name).is_some_and(|owner| !owner.lives())
    }
}

impl Deref for Solo {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}
