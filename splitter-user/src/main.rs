//! User.
fn main() {}
