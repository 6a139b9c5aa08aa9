//! User.
