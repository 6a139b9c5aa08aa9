//! The XDP program's object file, as it was when this binary was built.

include!(concat!(env!("OUT_DIR"), "/program.rs"));
