//! See `splitter_fuzz::icmp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::icmp::check(octets));
