//! See `splitter_fuzz::header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::header::check(octets));
