//! See `splitter_fuzz::api`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::api::check(octets));
