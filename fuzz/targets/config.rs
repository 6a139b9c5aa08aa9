//! See `splitter_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::config::check(octets));
