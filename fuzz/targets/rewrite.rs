//! See `splitter_fuzz::rewrite`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::rewrite::check(octets));
